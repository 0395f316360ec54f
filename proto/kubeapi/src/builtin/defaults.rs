//! What the API server fills in where a client says nothing, kind by kind, and the form it keeps values in: quantities
//! canonical, `stringData` of secrets as data, nulls gone.
//!
//! Not here: what admission adds to pods (service account, tolerations, priority), addresses and node ports of services,
//! and pod-level resources made from those of containers.
//!
//! Runs before validation, so nothing is taken for granted about types: what has the wrong one is left for validation to
//! report.
//!
//! Source: `pkg/apis/*/v1/defaults.go` and `zz_generated.defaults.go` of Kubernetes.

mod core;
mod fields;
mod pod;
#[cfg(test)]
mod tests;
mod volume;
mod workload;

use serde_json::Value;

use crate::resource::Resource;

/// Fills in what a client may leave out of an object of a built-in kind, as the API server does. Doing it twice changes
/// nothing more. Kinds it knows nothing of are left alone.
pub fn default(resource: &Resource, object: &mut Value) {
    let Value::Object(fields) = object else { return };
    if resource.gvr.group != "apiextensions.k8s.io" {
        fields::drop_nulls(fields, 0);
    }
    match (resource.gvr.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::pod(fields),
        ("", "Namespace") => core::namespace(fields),
        ("", "Node") => core::node(fields),
        ("", "Secret") => core::secret(fields),
        ("", "Service") => core::service(fields),
        ("", "Endpoints") => core::endpoints(fields),
        ("", "PersistentVolume") => volume::persistent(fields),
        ("", "PersistentVolumeClaim") => volume::claim(fields),
        ("apps", "Deployment") => workload::deployment(fields),
        ("apps", "ReplicaSet") => workload::replica_set(fields),
        ("apps", "DaemonSet") => workload::daemon_set(fields),
        ("apps", "StatefulSet") => workload::stateful_set(fields),
        ("batch", "Job") => workload::job(fields),
        ("batch", "CronJob") => workload::cron_job(fields),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => core::binding(fields),
        ("storage.k8s.io", "StorageClass") => core::storage_class(fields),
        ("discovery.k8s.io", "EndpointSlice") => core::endpoint_slice(fields),
        ("networking.k8s.io", "NetworkPolicy") => core::network_policy(fields),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => core::definition(fields),
        _ => {}
    }
}
