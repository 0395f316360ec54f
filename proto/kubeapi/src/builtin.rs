//! The built-in kinds: their names, columns, schemas and defaults.
//!
//! Names, columns and OpenAPI documents are those of a Kubernetes API server, see `openapi/README.md`. Reading order: this
//! file, [`columns`], [`defaults`], [`quantity`], [`mod@validate`].

mod columns;
mod defaults;
mod events;
mod quantity;
mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use defaults::default;
pub use validate::validate;

use crate::resource::{Column, Gvr, Registry, Resource, Scale, Scope};
use crate::schema::{Definitions, Read, Schema};

const KINDS: &str = include_str!("../openapi/kinds.json");

/// OpenAPI v3 documents by the path below `/openapi/v3/`, compressed.
const DOCUMENTS: &[(&str, &[u8])] = &[
    ("api/v1", include_bytes!("../openapi/api_v1.json.zst")),
    (
        "apis/apiextensions.k8s.io/v1",
        include_bytes!("../openapi/apis_apiextensions.k8s.io_v1.json.zst"),
    ),
    ("apis/apps/v1", include_bytes!("../openapi/apis_apps_v1.json.zst")),
    (
        "apis/authentication.k8s.io/v1",
        include_bytes!("../openapi/apis_authentication.k8s.io_v1.json.zst"),
    ),
    (
        "apis/authorization.k8s.io/v1",
        include_bytes!("../openapi/apis_authorization.k8s.io_v1.json.zst"),
    ),
    (
        "apis/batch/v1",
        include_bytes!("../openapi/apis_batch_v1.json.zst"),
    ),
    (
        "apis/certificates.k8s.io/v1",
        include_bytes!("../openapi/apis_certificates.k8s.io_v1.json.zst"),
    ),
    (
        "apis/coordination.k8s.io/v1",
        include_bytes!("../openapi/apis_coordination.k8s.io_v1.json.zst"),
    ),
    (
        "apis/discovery.k8s.io/v1",
        include_bytes!("../openapi/apis_discovery.k8s.io_v1.json.zst"),
    ),
    (
        "apis/events.k8s.io/v1",
        include_bytes!("../openapi/apis_events.k8s.io_v1.json.zst"),
    ),
    (
        "apis/rbac.authorization.k8s.io/v1",
        include_bytes!("../openapi/apis_rbac.authorization.k8s.io_v1.json.zst"),
    ),
    (
        "apis/storage.k8s.io/v1",
        include_bytes!("../openapi/apis_storage.k8s.io_v1.json.zst"),
    ),
];

/// More than any document is when it is unpacked.
const DOCUMENT_MAX_BYTES: usize = 4 << 20;

/// What of a document says how objects look. Its paths, half of it, are passed over.
#[derive(Deserialize, Default)]
struct Document {
    components: Components,
}

#[derive(Deserialize, Default)]
struct Components {
    schemas: Map<String, Value>,
}

/// A kind as `openapi/kinds.json` has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    group: String,
    version: String,
    resource: String,
    kind: String,
    singular: String,
    namespaced: bool,
    short_names: Vec<String>,
    categories: Vec<String>,
    status: bool,
    scale: bool,
    verbs: Vec<String>,
    columns: Vec<Heading>,
}

#[derive(Deserialize)]
struct Heading {
    name: String,
    r#type: String,
    format: String,
    description: String,
    priority: i32,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let mut registry = Registry::default();
    for resource in read() {
        registry.insert(resource);
    }
    registry
});

/// A registry of all built-in kinds, which are read once and shared by all of them.
pub fn registry() -> Registry {
    REGISTRY.clone()
}

/// All built-in kinds.
pub fn resources() -> Vec<Resource> {
    REGISTRY
        .iter()
        .map(|resource| Resource::clone(resource))
        .collect()
}

/// The OpenAPI v3 document of a group of built-in kinds, by its path below `/openapi/v3/`, such as `apis/apps/v1`.
pub(crate) fn document(path: &str) -> Option<Bytes> {
    let (_, packed) = DOCUMENTS.iter().find(|(name, _)| *name == path)?;
    // The document says how long it is: what is freed is no larger than what was needed.
    let length = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    let length = length.and_then(|length| usize::try_from(length).ok());
    let length = length.unwrap_or(DOCUMENT_MAX_BYTES).min(DOCUMENT_MAX_BYTES);
    let document = zstd::bulk::decompress(packed, length).ok()?;
    Some(document.into())
}

/// What changes whenever a document does: its compressed size and a sum over it.
pub(crate) fn document_hash(path: &str) -> Option<u64> {
    let (_, packed) = DOCUMENTS.iter().find(|(name, _)| *name == path)?;
    Some(fnv1a(packed))
}

/// The FNV-1a hash.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn read() -> Vec<Resource> {
    // What is compiled in and does not parse is found by the tests below.
    let kinds: Vec<Kind> = serde_json::from_str(KINDS).unwrap_or_default();
    let mut by_document: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        let path = match kind.group.as_str() {
            "" => format!("api/{}", kind.version),
            group => format!("apis/{group}/{}", kind.version),
        };
        by_document.entry(path).or_default().push(kind);
    }
    let mut out = Vec::new();
    // What kinds share (a pod's template) is one schema in memory, whichever document it is read from: all are of one server.
    let mut shared = Read::default();
    for (path, kinds) in by_document {
        let document: Document = document(&path)
            .and_then(|document| serde_json::from_slice(&document).ok())
            .unwrap_or_default();
        let schemas = document.components.schemas;
        let mut definitions = Definitions::after(shared, &schemas);
        for kind in kinds {
            let name = schemas.iter().find(|(_, schema)| {
                let mut tagged = schema["x-kubernetes-group-version-kind"]
                    .as_array()
                    .into_iter()
                    .flatten();
                tagged.any(|gvk| {
                    gvk["group"] == kind.group.as_str()
                        && gvk["version"] == kind.version.as_str()
                        && gvk["kind"] == kind.kind.as_str()
                })
            });
            if let Some((name, _)) = name {
                let schema = definitions.schema(name);
                out.push(resource(kind, schema));
            }
        }
        shared = definitions.read();
    }
    out
}

fn resource(kind: Kind, schema: Arc<Schema>) -> Resource {
    let view = (kind.group == "events.k8s.io").then(events::view);
    let columns = kind.columns.into_iter().filter_map(|heading| {
        Some(Column {
            source: columns::source(&kind.resource, &heading.name)?,
            name: heading.name,
            kind: heading.r#type,
            format: heading.format,
            description: heading.description,
            priority: heading.priority,
        })
    });
    Resource {
        columns: columns.collect(),
        selectable: selectable(&kind.resource)
            .iter()
            .map(|path| (*path).to_owned())
            .collect(),
        list_kind: format!("{}List", kind.kind),
        kind: kind.kind,
        singular: kind.singular,
        short_names: kind.short_names,
        categories: kind.categories,
        scope: if kind.namespaced {
            Scope::Namespaced
        } else {
            Scope::Cluster
        },
        status: kind.status,
        scale: kind.scale.then(|| Scale {
            spec_replicas: ".spec.replicas".to_owned(),
            status_replicas: ".status.replicas".to_owned(),
            selector: Some(".spec.selector".to_owned()),
        }),
        verbs: kind.verbs,
        schema,
        published: None,
        storage: view.is_none(),
        view,
        custom: false,
        deprecated: None,
        gvr: Gvr {
            group: kind.group,
            version: kind.version,
            resource: kind.resource,
        },
    }
}

/// Fields that a field selector may name. Source: the `conversion.go` of each group in `k8s.io/kubernetes/pkg/apis`.
fn selectable(resource: &str) -> &'static [&'static str] {
    match resource {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "nodes" => &["spec.unschedulable"],
        "namespaces" => &["status.phase"],
        "secrets" => &["type"],
        "services" => &["spec.clusterIP", "spec.type"],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "jobs" => &["status.successful"],
        "certificatesigningrequests" => &["spec.signerName"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
