//! OpenAPI documents: what `kubectl explain` shows, and what kubectl asks before it creates or applies anything.
//!
//! Documents of built-in groups are served as they were stored; those of custom kinds are made from their
//! CustomResourceDefinitions.

mod custom;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::builtin;
use crate::resource::{Registry, Resource};

/// `/openapi/v3`: which documents there are. An address names the contents, so that clients may keep them.
pub fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for path in registry
        .iter()
        .map(|resource| path_of(resource))
        .collect::<BTreeSet<_>>()
    {
        let hash = builtin::document_hash(&path).or_else(|| Some(builtin::fnv1a(&custom(registry, &path)?)));
        if let Some(hash) = hash {
            let address = format!("/openapi/v3/{path}?hash={hash:016X}");
            paths.insert(path, json!({ "serverRelativeURL": address }));
        }
    }
    json!({ "paths": paths })
}

/// The document at `/openapi/v3/PATH`, such as `apis/apps/v1`.
pub fn document(registry: &Registry, path: &str) -> Option<Bytes> {
    if !registry.iter().any(|resource| path_of(resource) == path) {
        return None;
    }
    builtin::document(path).or_else(|| custom(registry, path))
}

/// `/openapi/v2`: only what says that it is one; clients that know the third version never ask for it.
pub fn v2(_: &Registry) -> Value {
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "v1.34.4" },
        "paths": {},
        "definitions": {},
    })
}

fn path_of(resource: &Resource) -> String {
    match resource.gvr.group.as_str() {
        "" => format!("api/{}", resource.gvr.version),
        group => format!("apis/{group}/{}", resource.gvr.version),
    }
}

fn custom(registry: &Registry, path: &str) -> Option<Bytes> {
    let resources = registry.iter().filter(|resource| path_of(resource) == path);
    let document = custom::document(resources.map(|resource| &**resource))?;
    Some(serde_json::to_vec(&document).ok()?.into())
}

#[cfg(test)]
mod tests;
