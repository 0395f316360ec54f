//! Kubernetes objects as nodes are told them.

use bytes::Bytes;
use kube::api::{ApiResource, DynamicObject};
use ledge_proto::record::object_key;
use ledge_proto::v1;
use serde_json::Value;

/// Where `kubectl apply` keeps what it applied last: of no use to whoever only reads.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object of the API, without what only its writers need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) json: Bytes,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
}

impl Object {
    /// What a node is told.
    pub(crate) fn told(&self) -> v1::KubeObject {
        v1::KubeObject {
            json: self.json.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
        }
    }

    /// Whether a node that was told `told` has to be told this. What a node itself reports need not come back to it:
    /// then only what is not status counts (`status_is_the_nodes`).
    pub(crate) fn differs(&self, told: &v1::KubeObject, status_is_the_nodes: bool) -> bool {
        if told.uid == self.uid && told.resource_version == self.resource_version {
            return false;
        }
        !(status_is_the_nodes && told.uid == self.uid && steady(&told.json) == steady(&self.json))
    }
}

/// The object without what changes when its status does; `None` for what is no object, which equals nothing.
fn steady(json: &[u8]) -> Option<Value> {
    let mut object: Value = serde_json::from_slice(json).ok()?;
    let members = object.as_object_mut()?;
    members.remove("status");
    members
        .get_mut("metadata")?
        .as_object_mut()?
        .remove("resourceVersion");
    Some(object)
}

/// The key of an object of `resource`.
pub(crate) fn key_of(resource: &ApiResource, object: &DynamicObject) -> String {
    let metadata = &object.metadata;
    object_key(
        &resource.group,
        &resource.plural,
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// The object as nodes are told it, and as a value to look into; `None` when it cannot be written as JSON, which no
/// object that came from JSON meets.
pub(crate) fn read(resource: &ApiResource, mut object: DynamicObject) -> Option<(Object, Value)> {
    let metadata = &mut object.metadata;
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.annotations = None;
        }
    }
    let uid = metadata.uid.clone().unwrap_or_default();
    let resource_version = metadata.resource_version.clone().unwrap_or_default();
    let mut value = serde_json::to_value(&object).ok()?;
    // Lists leave them out of their items.
    value["apiVersion"] = resource.api_version.as_str().into();
    if value["kind"].as_str().is_none_or(str::is_empty) {
        value["kind"] = resource.kind.as_str().into();
    }
    // It is kept: no longer than it is.
    let json = serde_json::to_vec(&value).ok()?.into_boxed_slice().into();
    let object = Object {
        json,
        uid,
        resource_version,
    };
    Some((object, value))
}
