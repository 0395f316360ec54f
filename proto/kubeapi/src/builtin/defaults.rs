//! What the API server fills in, and the form it gives to what it stores.
//!
//! Source: the `defaults.go` of each group in `k8s.io/kubernetes/pkg/apis`. Reading order: this file, [`form`] (quantities,
//! empty lists), [`pod`], [`workload`], [`core`].

mod core;
mod form;
mod pod;
mod workload;

use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::schema;

/// Fills in what a client may leave out, and gives quantities their canonical form, as the API server does for its own
/// kinds. What is no object, or is of a wrong type, stays as it is: validation comes after.
pub fn default(resource: &Resource, object: &mut Value) {
    if !object.is_object() {
        return;
    }
    schema::default(&resource.schema, object);
    form::tidy(&resource.schema, object);
    match resource.gvr.resource.as_str() {
        "namespaces" => core::namespace(object),
        "nodes" => core::node(object),
        "pods" => pod::pod(object),
        "secrets" => core::secret(object),
        "services" => core::service(object),
        "endpoints" => core::endpoints(object),
        "endpointslices" => core::endpoint_slice(object),
        "events" => core::event(object),
        "persistentvolumes" => core::volume(object),
        "persistentvolumeclaims" => core::claim(object),
        "storageclasses" => core::storage_class(object),
        "roles" | "clusterroles" => core::role(object),
        "rolebindings" | "clusterrolebindings" => core::binding(object),
        "certificatesigningrequests" => ensure(object, "status", json!({})),
        "customresourcedefinitions" => core::definition(object),
        "deployments" => workload::deployment(object),
        "replicasets" => workload::replica_set(object),
        "daemonsets" => workload::daemon_set(object),
        "statefulsets" => workload::stateful_set(object),
        "jobs" => workload::job(object),
        "cronjobs" => workload::cron_job(object),
        _ => {}
    }
}

/// A field that is an object.
fn fields<'v>(value: &'v mut Value, name: &str) -> Option<&'v mut Map<String, Value>> {
    value.get_mut(name)?.as_object_mut()
}

/// The elements of a list.
fn each<'v>(value: &'v mut Value, name: &str) -> impl Iterator<Item = &'v mut Value> {
    let list = value.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter(|item| item.is_object())
}

/// Puts a value where there is none.
fn ensure(value: &mut Value, name: &str, default: Value) {
    if let Value::Object(fields) = value {
        fields.entry(name).or_insert(default);
    }
}

/// Puts a value where there is none, or nothing but an empty text.
fn ensure_text(value: &mut Value, name: &str, default: &str) {
    if let Value::Object(fields) = value {
        let field = fields.entry(name).or_insert(Value::Null);
        if field.is_null() || field.as_str() == Some("") {
            *field = default.into();
        }
    }
}

/// Puts a number where there is none, or zero.
fn ensure_number(value: &mut Value, name: &str, default: i64) {
    if let Value::Object(fields) = value {
        let field = fields.entry(name).or_insert(Value::Null);
        if field.is_null() || field.as_i64() == Some(0) {
            *field = default.into();
        }
    }
}

/// The object in a field, put there where there is none. `None` where something else stands.
fn object<'v>(value: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    ensure(value, name, json!({}));
    value.get_mut(name).filter(|field| field.is_object())
}

/// An object that is there already.
fn there<'v>(value: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    value.get_mut(name).filter(|field| field.is_object())
}

#[cfg(test)]
mod tests;
