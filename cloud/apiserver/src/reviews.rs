//! Questions about permissions and tokens: objects that are answered and not stored (`authorization.k8s.io`,
//! `authentication.k8s.io`).

use ledge_kubeapi::error::Cause;
use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::serve::request::{Method, Request, User};
use ledge_kubeapi::{ApiError, Environment, meta};
use serde_json::{Value, json};

use crate::access::Access;
use crate::accounts::Accounts;
use crate::environment::SystemEnvironment;
use crate::node;
use crate::rbac::{MASTERS, Question};

/// Answers them.
pub struct Reviews {
    access: Access,
    accounts: Accounts,
}

/// What the questions are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// The sender.
    Self_,
    /// Whom the review names.
    Subject,
    /// Whom the review names, in the review's namespace.
    LocalSubject,
}

impl Reviews {
    /// Of permissions by `access`, of tokens by `accounts`.
    pub fn new(access: Access, accounts: Accounts) -> Reviews {
        Reviews { access, accounts }
    }

    /// Who may what.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Answers a request that is a review or asks for a token; `None` for all others.
    pub async fn answer(&self, request: &Request, path: &ResourcePath) -> Option<Result<Value, ApiError>> {
        if request.method != Method::Post {
            return None;
        }
        let group = path.gvr.group.as_str();
        if path.name.is_some() {
            let token = group.is_empty()
                && path.gvr.resource == "serviceaccounts"
                && path.subresource.as_deref() == Some("token");
            if !token {
                return None;
            }
            return Some(match body(request) {
                Ok(body) => self.accounts.request(request, path, body).await,
                Err(error) => Err(error),
            });
        }
        let about = match (group, path.gvr.resource.as_str()) {
            ("authorization.k8s.io", "selfsubjectaccessreviews") => About::Self_,
            ("authorization.k8s.io", "subjectaccessreviews") => About::Subject,
            ("authorization.k8s.io", "localsubjectaccessreviews") => About::LocalSubject,
            ("authorization.k8s.io", "selfsubjectrulesreviews") => return Some(self.rules(request).await),
            ("authentication.k8s.io", "tokenreviews") => return Some(self.token(request).await),
            ("authentication.k8s.io", "selfsubjectreviews") => {
                return Some(Ok(json!({
                    "kind": "SelfSubjectReview",
                    "apiVersion": "authentication.k8s.io/v1",
                    "metadata": { "creationTimestamp": meta::time(SystemEnvironment.now_us()) },
                    "status": { "userInfo": info(&request.user) },
                })));
            }
            _ => return None,
        };
        Some(self.allowed(request, path, about).await)
    }

    async fn allowed(&self, request: &Request, path: &ResourcePath, about: About) -> Result<Value, ApiError> {
        let mut review = body(request)?;
        let namespace = path.namespace.as_deref().unwrap_or_default();
        let causes = wrong(&review["spec"], about, namespace);
        if !causes.is_empty() {
            return Err(ApiError::invalid("authorization.k8s.io", "", "", causes));
        }
        let subject;
        let user = if about == About::Self_ {
            &request.user
        } else {
            subject = user_of(&review["spec"]);
            &subject
        };
        let spec = Spec::read(&review["spec"]);
        let decision = self.access.decide(user, &spec.question()).await?;
        if about == About::LocalSubject {
            if !review["metadata"].is_object() {
                review["metadata"] = json!({});
            }
            review["metadata"]["namespace"] = namespace.into();
        }
        review["status"] = json!({ "allowed": decision.allowed });
        if !decision.reason.is_empty() {
            review["status"]["reason"] = decision.reason.into();
        }
        Ok(review)
    }

    async fn rules(&self, request: &Request) -> Result<Value, ApiError> {
        let review = body(request)?;
        let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let mut resource = Vec::new();
        let mut other = Vec::new();
        if request.user.groups.iter().any(|group| group == MASTERS) {
            resource.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            other.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        for granted in self.access.rbac().rules(&request.user, namespace).await? {
            let list = if granted.rule["nonResourceURLs"].is_array() {
                &mut other
            } else {
                &mut resource
            };
            if !list.contains(&granted.rule) {
                list.push(granted.rule);
            }
        }
        let mut status = json!({
            "resourceRules": resource,
            "nonResourceRules": other,
            "incomplete": false,
        });
        if node::of(&request.user).is_some() {
            status["incomplete"] = true.into();
            status["evaluationError"] = "node authorizer does not support user rule resolution".into();
        }
        Ok(json!({
            "kind": "SelfSubjectRulesReview",
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": {},
            "spec": {},
            "status": status,
        }))
    }

    async fn token(&self, request: &Request) -> Result<Value, ApiError> {
        let mut review = body(request)?;
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(ApiError::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let audiences = texts(&review["spec"]["audiences"]);
        review["status"] = match self.accounts.bearer(token, &audiences).await {
            Ok((user, audiences)) => json!({
                "authenticated": true,
                "user": info(&user),
                "audiences": audiences,
            }),
            Err(error) => json!({ "user": {}, "error": error.to_string() }),
        };
        Ok(review)
    }
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// `UserInfo`, as reviews show it.
fn info(user: &User) -> Value {
    let mut info = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn user_of(spec: &Value) -> User {
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let mut user = User::new(text("user"), texts(&spec["groups"]));
    user.uid = text("uid");
    let extra = spec["extra"].as_object().into_iter().flatten();
    user.extra = extra
        .map(|(key, values)| (key.to_ascii_lowercase(), texts(values)))
        .collect();
    user
}

/// What is wrong with a question.
fn wrong(spec: &Value, about: About, namespace: &str) -> Vec<Cause> {
    let invalid = |field: &str, message: String| Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {message}"),
        field: field.to_owned(),
    };
    let mut causes = Vec::new();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() == path.is_object() {
        let (field, value) = if resource.is_object() {
            ("spec.nonResourceAttributes", "{}")
        } else {
            ("spec.resourceAttributes", "null")
        };
        let told = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(invalid(field, format!("{value}: {told}")));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if about != About::Self_ && text(&spec["user"]).is_empty() && texts(&spec["groups"]).is_empty() {
        let told = "\"\": at least one of user or group must be specified";
        causes.push(invalid("spec.user", told.to_owned()));
    }
    if about == About::LocalSubject {
        if path.is_object() {
            let told = "{}: disallowed on this kind of request";
            causes.push(invalid("spec.nonResourceAttributes", told.to_owned()));
        }
        let asked = text(&resource["namespace"]);
        if resource.is_object() && asked != namespace {
            let told = format!("\"{asked}\": must match metadata.namespace");
            causes.push(invalid("spec.resourceAttributes.namespace", told));
        }
    }
    causes
}

/// The question of a review.
struct Spec {
    verb: String,
    group: String,
    resource: String,
    name: String,
    namespace: String,
    path: Option<String>,
    fields: String,
}

impl Spec {
    fn read(spec: &Value) -> Spec {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = &spec["resourceAttributes"];
        let path = &spec["nonResourceAttributes"];
        let sub = text(&resource["subresource"]);
        let about = if resource.is_object() { resource } else { path };
        Spec {
            verb: text(&about["verb"]),
            group: text(&resource["group"]),
            resource: if sub.is_empty() {
                text(&resource["resource"])
            } else {
                format!("{}/{sub}", text(&resource["resource"]))
            },
            name: text(&resource["name"]),
            namespace: text(&resource["namespace"]),
            path: path.is_object().then(|| text(&path["path"])),
            fields: selector(&resource["fieldSelector"]),
        }
    }

    fn question(&self) -> Question<'_> {
        Question {
            verb: &self.verb,
            group: &self.group,
            resource: self.resource.clone(),
            name: &self.name,
            namespace: &self.namespace,
            path: self.path.as_deref(),
            fields: &self.fields,
        }
    }
}

/// A field selector as in a query, from one as in a review. What cannot be said so is left out: a wider list is asked for.
fn selector(selector: &Value) -> String {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let list = selector["requirements"].as_array().into_iter().flatten();
    let terms = list.filter_map(|one| {
        let values = texts(&one["values"]);
        match (one["operator"].as_str(), values.as_slice()) {
            (Some("In"), [value]) if !value.contains([',', '=', '\\']) => {
                Some(format!("{}={value}", one["key"].as_str()?))
            }
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
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
