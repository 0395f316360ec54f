//! What is served: Kubernetes' own kinds, those that definitions among the objects add, and the node's own writes. And what
//! of each a node has without asking.

use std::sync::Arc;

use ledge_kubeapi::resource::{Column, ColumnSource, GroupResource, Gvr, Scope};
use ledge_kubeapi::{Object, ObjectKey, Registry, Resource, Schema, builtin, crd};
use serde_json::json;

/// The group of what is about this node and in no API server.
pub const OWN_GROUP: &str = "edge.ledge";
/// Its version.
pub const OWN_VERSION: &str = "v1alpha1";
/// Requests of this node that change something, while they wait and for a time after.
pub const WRITES: &str = "writes";

/// Resources that every node is told of whole, in the cluster's stream.
const WHOLE: [(&str, &str); 6] = [
    ("", "namespaces"),
    ("", "services"),
    ("", "endpoints"),
    ("discovery.k8s.io", "endpointslices"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apps.kubeedge.io", "nodegroups"),
];

/// CustomResourceDefinitions.
pub(crate) fn crds() -> GroupResource {
    GroupResource {
        group: "apiextensions.k8s.io".to_owned(),
        resource: "customresourcedefinitions".to_owned(),
    }
}

/// Whether a node has all objects of a resource without asking.
pub(crate) fn is_whole(resource: &GroupResource) -> bool {
    WHOLE.contains(&(resource.group.as_str(), resource.resource.as_str()))
}

/// Whether an object is about this node only.
pub(crate) fn is_own(key: &ObjectKey) -> bool {
    key.resource.group == OWN_GROUP
}

/// The name of the object that shows a write.
pub(crate) fn write_key(id: &str) -> ObjectKey {
    ObjectKey {
        resource: GroupResource {
            group: OWN_GROUP.to_owned(),
            resource: WRITES.to_owned(),
        },
        namespace: String::new(),
        name: id.to_owned(),
    }
}

/// Built-in kinds, those that `definitions` add, and the node's own.
pub(crate) fn registry(definitions: &[Object]) -> Registry {
    let mut registry = builtin::registry();
    for definition in definitions {
        match crd::resources(&definition.value()) {
            Ok(resources) => resources
                .into_iter()
                // Nobody takes the place of what every client relies on.
                .filter(|resource| resource.gvr.group != OWN_GROUP)
                .for_each(|resource| registry.insert(resource)),
            Err(causes) => {
                let name = &definition.key().name;
                tracing::error!(name, ?causes, "a definition cannot be served on this node");
            }
        }
    }
    registry.insert(writes());
    registry
}

fn writes() -> Resource {
    let column = |name: &str, path: &str, priority| Column {
        name: name.to_owned(),
        kind: "string".to_owned(),
        format: String::new(),
        description: String::new(),
        priority,
        source: ColumnSource::JsonPath(path.to_owned()),
    };
    Resource {
        gvr: Gvr {
            group: OWN_GROUP.to_owned(),
            version: OWN_VERSION.to_owned(),
            resource: WRITES.to_owned(),
        },
        kind: "Write".to_owned(),
        list_kind: "WriteList".to_owned(),
        singular: "write".to_owned(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope: Scope::Cluster,
        status: false,
        scale: None,
        verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(),
        schema: Arc::new(Schema {
            preserve_unknown: true,
            ..Schema::default()
        }),
        published: Some(Arc::new(json!({
            "type": "object",
            "description": "A request to the API server that changes something, in this node's log until it is carried out.",
            "x-kubernetes-preserve-unknown-fields": true,
        }))),
        columns: vec![
            Column {
                source: ColumnSource::Name,
                ..column("Name", "", 0)
            },
            column("Method", ".spec.method", 0),
            column("Path", ".spec.path", 0),
            column("State", ".status.state", 0),
            column("Code", ".status.code", 0),
            Column {
                source: ColumnSource::Age,
                ..column("Age", "", 0)
            },
            column("Message", ".status.message", 1),
        ],
        selectable: Vec::new(),
        storage: true,
        custom: true,
        deprecated: None,
        view: None,
    }
}
