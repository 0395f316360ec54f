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

/// `/openapi/v2`: only what says that it is one.
pub fn v2() -> Value {
    json!({
        "swagger": "2.0",
        "info": { "title": V2_TITLE, "version": V2_VERSION },
        "paths": {},
        "definitions": {},
    })
}

/// The same in protobuf, with its media type, where `accept` asks for that. kubectl looks there for kinds that the third
/// version does not have; with nothing there it says that the kind is not known.
pub fn v2_protobuf(accept: &str) -> Option<(&'static str, Vec<u8>)> {
    let mut wanted = accept.split([',', ';']).map(str::trim);
    wanted.find(|kind| V2_PROTOBUF.contains(kind))?;
    // A `Document` of OpenAPIv2.proto in github.com/google/gnostic-models: `swagger` is 1, `info` (`title` 1, `version` 2) is 2,
    // `paths` is 8.
    let info = [field(1, V2_TITLE.as_bytes()), field(2, V2_VERSION.as_bytes())].concat();
    let document = [field(1, b"2.0"), field(2, &info), field(8, b"")].concat();
    Some((V2_PROTOBUF[0], document))
}

/// As it is answered, and as clients ask for it: the sign in the second is not allowed in a media type.
const V2_PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];
const V2_TITLE: &str = "Kubernetes";
const V2_VERSION: &str = "v1.34.4";

/// A field of bytes, for numbers below 16 and lengths below 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    debug_assert!(number < 16 && len < 128);
    [&[number << 3 | 2, len], bytes].concat()
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
