//! What the API adds to the protocol: namespaces that must be there, definitions of kinds that take effect, immutable
//! objects, and questions about permissions.

use std::sync::Arc;

use async_trait::async_trait;
use ledge_kubeapi::error::Cause;
use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::serve::request::Request;
use ledge_kubeapi::serve::respond::Response;
use ledge_kubeapi::serve::{Extension, Write};
use ledge_kubeapi::store::Store;
use ledge_kubeapi::{ApiError, Environment, ObjectKey, Resource, crd, meta};
use serde_json::{Value, json};

use crate::environment::SystemEnvironment;
use crate::escalation;
use crate::node;
use crate::reviews::Reviews;

/// A definition goes only after its objects are gone.
pub const CRD_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// See the module.
pub struct Admission {
    store: Arc<dyn Store>,
    reviews: Reviews,
}

impl Admission {
    /// Over `store`, with what answers reviews.
    pub fn new(store: Arc<dyn Store>, reviews: Reviews) -> Admission {
        Admission { store, reviews }
    }

    /// A new object's namespace must be there, and not about to go.
    async fn check_namespace(&self, resource: &Resource, new: &Value) -> Result<(), ApiError> {
        let name = new["metadata"]["namespace"].as_str().unwrap_or_default();
        let key = ObjectKey {
            resource: GroupResource {
                group: String::new(),
                resource: "namespaces".to_owned(),
            },
            namespace: String::new(),
            name: name.to_owned(),
        };
        let namespace = self.store.get(&key).await?.value();
        if namespace["metadata"]["deletionTimestamp"].is_string() {
            let object = new["metadata"]["name"].as_str().unwrap_or_default();
            let why =
                format!("unable to create new content in namespace {name} because it is being terminated");
            let mut refusal = ApiError::forbidden(&resource.group_resource(), object, &why);
            if let Some(details) = &mut refusal.details {
                details.causes.push(Cause {
                    reason: "NamespaceTerminating",
                    message: format!("namespace {name} is being terminated"),
                    field: "metadata.namespace".to_owned(),
                });
            }
            return Err(refusal);
        }
        Ok(())
    }
}

#[async_trait]
impl Extension for Admission {
    async fn call(&self, request: &Request, path: &ResourcePath) -> Option<Response> {
        Some(match self.reviews.answer(request, path).await? {
            Ok(value) => Response::json(201, &value),
            Err(error) => Response::error(&error),
        })
    }

    async fn admit(&self, write: &Write<'_>, new: &mut Value) -> Result<(), ApiError> {
        let Write { resource, old, .. } = *write;
        node::restrict(write, new)?;
        escalation::check(self.reviews.access(), write, new).await?;
        if old.is_none() && resource.namespaced() {
            self.check_namespace(resource, new).await?;
        }
        match (resource.gvr.group.as_str(), resource.kind.as_str()) {
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                crd::check(new, old)?;
                crd::establish(new, &meta::time(SystemEnvironment.now_us()));
                if old.is_none() {
                    new["metadata"]["finalizers"] = json!([CRD_FINALIZER]);
                }
            }
            ("", "Namespace") if old.is_none() => {
                new["spec"]["finalizers"] = json!(["kubernetes"]);
                new["status"] = json!({ "phase": "Active" });
                new["metadata"]["labels"]["kubernetes.io/metadata.name"] = new["metadata"]["name"].clone();
            }
            ("", "ConfigMap" | "Secret") => check_immutable(resource, old, new)?,
            ("", "Pod") if old.is_none() => {
                new["status"]["phase"] = "Pending".into();
                set_service_account(new);
            }
            _ => {}
        }
        Ok(())
    }
}

/// A pod that names no service account runs as `default`, as in a cluster; a mirror pod has none.
fn set_service_account(pod: &mut Value) {
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return;
    }
    let Some(spec) = pod["spec"].as_object_mut() else {
        return;
    };
    let named = |field: &str| {
        spec.get(field)
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
    };
    let account = named("serviceAccountName")
        .or(named("serviceAccount"))
        .unwrap_or("default")
        .to_owned();
    for field in ["serviceAccountName", "serviceAccount"] {
        spec.insert(field.to_owned(), account.clone().into());
    }
}

fn check_immutable(resource: &Resource, old: Option<&Value>, new: &Value) -> Result<(), ApiError> {
    let Some(old) = old.filter(|old| old["immutable"] == true) else {
        return Ok(());
    };
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    for field in ["immutable", "data", "binaryData"] {
        if old[field] != new[field] {
            let cause = ledge_kubeapi::error::Cause {
                reason: "FieldValueForbidden",
                message: "Forbidden: field is immutable when `immutable` is set".to_owned(),
                field: field.to_owned(),
            };
            return Err(ApiError::invalid("", &resource.kind, name, vec![cause]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account_of(mut pod: Value) -> Value {
        set_service_account(&mut pod);
        json!([pod["spec"]["serviceAccountName"], pod["spec"]["serviceAccount"]])
    }

    #[test]
    fn a_pod_that_names_no_service_account_runs_as_default() {
        assert_eq!(account_of(json!({ "spec": {} })), json!(["default", "default"]));
        let empty = json!({ "spec": { "serviceAccountName": "" } });
        assert_eq!(account_of(empty), json!(["default", "default"]));
        let named = json!({ "spec": { "serviceAccountName": "clerk" } });
        assert_eq!(account_of(named), json!(["clerk", "clerk"]));
        let by_its_old_name = json!({ "spec": { "serviceAccount": "clerk" } });
        assert_eq!(account_of(by_its_old_name), json!(["clerk", "clerk"]));
        let mirror =
            json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "1" } }, "spec": {} });
        assert_eq!(account_of(mirror), json!([null, null]));
    }
}
