//! What the API adds to the protocol: namespaces that must be there, definitions of kinds that take effect, immutable
//! objects, and questions about permissions.

use std::sync::Arc;

use async_trait::async_trait;
use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::serve::Extension;
use ledge_kubeapi::serve::request::{Method, Request, User};
use ledge_kubeapi::serve::respond::Response;
use ledge_kubeapi::store::Store;
use ledge_kubeapi::{ApiError, Environment, ObjectKey, Reason, Resource, crd, meta};
use serde_json::{Value, json};

use crate::environment::SystemEnvironment;
use crate::rbac::{Question, Rbac};

/// A definition goes only after its objects are gone.
pub const CRD_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// See the module.
pub struct Admission {
    store: Arc<dyn Store>,
    rbac: Rbac,
}

impl Admission {
    /// Over `store`.
    pub fn new(store: Arc<dyn Store>) -> Admission {
        Admission {
            rbac: Rbac::new(Arc::clone(&store)),
            store,
        }
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
            return Err(ApiError::forbidden(&resource.group_resource(), object, &why));
        }
        Ok(())
    }

    async fn review(&self, request: &Request, path: &ResourcePath) -> Option<Result<Response, ApiError>> {
        if request.method != Method::Post || path.name.is_some() {
            return None;
        }
        let answer = match (path.gvr.group.as_str(), path.gvr.resource.as_str()) {
            ("authorization.k8s.io", "selfsubjectaccessreviews") => self.access(request, &request.user).await,
            ("authorization.k8s.io", "subjectaccessreviews") => match body(request) {
                Ok(body) => {
                    let groups = body["spec"]["groups"].as_array().into_iter().flatten();
                    let user = User {
                        name: body["spec"]["user"].as_str().unwrap_or_default().to_owned(),
                        groups: groups
                            .filter_map(|group| group.as_str().map(str::to_owned))
                            .collect(),
                    };
                    self.access(request, &user).await
                }
                Err(error) => Err(error),
            },
            ("authorization.k8s.io", "selfsubjectrulesreviews") => self.rules(request).await,
            ("authentication.k8s.io", "selfsubjectreviews") => Ok(json!({
                "kind": "SelfSubjectReview",
                "apiVersion": "authentication.k8s.io/v1",
                "metadata": { "creationTimestamp": meta::time(SystemEnvironment.now_us()) },
                "status": { "userInfo": { "username": request.user.name, "groups": request.user.groups } },
            })),
            _ => return None,
        };
        Some(answer.map(|value| Response::json(201, &value)))
    }

    async fn access(&self, request: &Request, user: &User) -> Result<Value, ApiError> {
        let mut review = body(request)?;
        let spec = review["spec"].clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = &spec["resourceAttributes"];
        let path = text(&spec["nonResourceAttributes"]["path"]);
        let sub = text(&resource["subresource"]);
        let (verb, group) = (text(&resource["verb"]), text(&resource["group"]));
        let (name, namespace) = (text(&resource["name"]), text(&resource["namespace"]));
        let path_verb = text(&spec["nonResourceAttributes"]["verb"]);
        let question = if resource.is_object() {
            Question {
                verb: &verb,
                group: &group,
                resource: if sub.is_empty() {
                    text(&resource["resource"])
                } else {
                    format!("{}/{sub}", text(&resource["resource"]))
                },
                name: &name,
                namespace: &namespace,
                path: None,
            }
        } else {
            Question {
                verb: &path_verb,
                group: "",
                resource: String::new(),
                name: "",
                namespace: "",
                path: Some(&path),
            }
        };
        let allowed = self.rbac.allows(user, &question).await?;
        review["status"] = json!({ "allowed": allowed });
        Ok(review)
    }

    async fn rules(&self, request: &Request) -> Result<Value, ApiError> {
        let mut review = body(request)?;
        let namespace = review["spec"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let mut resource = Vec::new();
        let mut other = Vec::new();
        if request.user.groups.iter().any(|group| group == "system:masters") {
            resource.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            other.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        for granted in self.rbac.rules(&request.user, &namespace).await? {
            if granted.rule["nonResourceURLs"].is_array() {
                other.push(granted.rule);
            } else {
                resource.push(granted.rule);
            }
        }
        review["status"] = json!({
            "resourceRules": resource,
            "nonResourceRules": other,
            "incomplete": false,
        });
        Ok(review)
    }
}

fn body(request: &Request) -> Result<Value, ApiError> {
    match serde_json::from_slice(&request.body) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(ApiError::bad_request("the body must be a JSON object")),
        Err(error) => Err(ApiError::bad_request(format!(
            "couldn't parse the body as JSON: {error}"
        ))),
    }
}

#[async_trait]
impl Extension for Admission {
    async fn call(&self, request: &Request, path: &ResourcePath) -> Option<Response> {
        let answer = self.review(request, path).await?;
        Some(answer.unwrap_or_else(|error| Response::error(&error)))
    }

    async fn admit(&self, resource: &Resource, old: Option<&Value>, new: &mut Value) -> Result<(), ApiError> {
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
            }
            _ => {}
        }
        Ok(())
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

/// Why a namespace that everything else depends on cannot be removed.
pub fn check_removal(resource: &GroupResource, name: &str) -> Result<(), ApiError> {
    let kept = ["default", "kube-system", "kube-public", "kube-node-lease"];
    if resource.group.is_empty() && resource.resource == "namespaces" && kept.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(ApiError::new(
            Reason::Forbidden,
            ApiError::forbidden(resource, name, why).message,
        ));
    }
    Ok(())
}
