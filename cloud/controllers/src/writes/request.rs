//! A write, as it is sent.

use kube::Client;
use kube::client::Body;
use ledge_proto::v1;
use serde_json::{Value, json};

/// Tells an object that a write made from one that somebody else made.
const MADE_BY: &str = "ledge.kubeedge.io/made-by-write";
/// Cause of the refusal of an eviction.
const DISRUPTION_BUDGET: &str = "DisruptionBudget";
/// Characters that take the place of those an API server would choose for `generateName`.
const GENERATED: usize = 10;

/// What the API server said.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) json: Vec<u8>,
}

impl Answer {
    /// It did not take it, or cannot say: later.
    fn puts_off(&self) -> bool {
        matches!(self.code, 429 | 503 | 504)
    }

    /// A disruption budget is against it: no overload, which passes, but what whoever evicts wants to know.
    fn is_of_a_budget(&self) -> bool {
        let status: Value = serde_json::from_slice(&self.json).unwrap_or_default();
        let causes = status["details"]["causes"].as_array();
        let is_budget = |cause: &Value| cause["reason"] == DISRUPTION_BUDGET;
        self.code == 429 && causes.is_some_and(|causes| causes.iter().any(is_budget))
    }

    fn into_error(self) -> kube::Error {
        let message = serde_json::from_slice::<Value>(&self.json).ok();
        let message = message.and_then(|status| Some(status["message"].as_str()?.to_owned()));
        let message = message.unwrap_or_else(|| String::from_utf8_lossy(&self.json).into_owned());
        let mut status = kube::core::Status::failure(&message, "ServiceUnavailable");
        status.code = self.code;
        kube::Error::Api(Box::new(status))
    }
}

/// A `metav1.Status` of cloudcore's own.
pub(super) fn status(code: u16, reason: &str, message: &str) -> Answer {
    let outcome = if code < 300 { "Success" } else { "Failure" };
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": outcome, "reason": reason, "message": message, "code": code,
    });
    Answer {
        code,
        json: status.to_string().into_bytes(),
    }
}

/// What a path is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Collection,
    Object,
    /// With the object's own path.
    Subresource {
        object: String,
        name: String,
    },
}

pub(super) struct Request {
    pub(super) method: http::Method,
    pub(super) path: String,
    pub(super) target: Target,
    id: String,
    query: String,
    content_type: String,
    body: Vec<u8>,
    /// The body, where it is JSON.
    pub(super) value: Option<Value>,
}

impl Request {
    /// What `write` asks for; what it makes carries `id`. Fails with the reason when it is no request of the kind.
    pub(super) fn new(id: &str, write: &v1::KubeWrite) -> Result<Request, String> {
        let method = match write.method.as_str() {
            "POST" => http::Method::POST,
            "PUT" => http::Method::PUT,
            "PATCH" => http::Method::PATCH,
            "DELETE" => http::Method::DELETE,
            other => return Err(format!("`{other}` does not change anything")),
        };
        let target =
            target(&write.path).ok_or_else(|| format!("`{}` is no path of an object", write.path))?;
        let mut value: Option<Value> = serde_json::from_slice(&write.body).ok();
        let mut body = write.body.to_vec();
        if method == http::Method::POST
            && target == Target::Collection
            && !is_question(&write.path)
            && let Some(object) = value.as_mut().filter(|value| value["metadata"].is_object())
        {
            mark(object, id);
            body = object.to_string().into_bytes();
        }
        Ok(Request {
            method,
            path: write.path.clone(),
            target,
            id: id.to_owned(),
            query: write.query.clone(),
            content_type: write.content_type.clone(),
            body,
            value,
        })
    }

    /// Whether `object` is what this request made.
    pub(super) fn made(&self, object: &Value) -> bool {
        object["metadata"]["annotations"][MADE_BY] == self.id.as_str()
    }

    pub(super) fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Sends it. An error is one after which nobody knows whether it arrived.
    pub(super) async fn send(self, client: &Client) -> Result<Answer, kube::Error> {
        let evicts = matches!(&self.target, Target::Subresource { name, .. } if name == "eviction");
        let uri = match self.query.as_str() {
            "" => self.path,
            query => format!("{}?{query}", self.path),
        };
        let mut request = http::Request::builder().method(self.method).uri(uri);
        if !self.content_type.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, &self.content_type);
        }
        let request = request
            .header(http::header::ACCEPT, "application/json")
            .body(Body::from(self.body));
        match request {
            Ok(request) => match answer(client, request).await? {
                answer if answer.puts_off() && !(evicts && answer.is_of_a_budget()) => {
                    Err(answer.into_error())
                }
                answer => Ok(answer),
            },
            Err(err) => Ok(status(400, "BadRequest", &err.to_string())),
        }
    }
}

/// The object at `path`; `None` when there is none.
pub(super) async fn get(client: &Client, path: &str) -> Result<Option<(Answer, Value)>, kube::Error> {
    let request = http::Request::get(path).header(http::header::ACCEPT, "application/json");
    let Ok(request) = request.body(Body::empty()) else {
        return Ok(None);
    };
    let answer = answer(client, request).await?;
    if answer.puts_off() {
        return Err(answer.into_error());
    }
    let value = serde_json::from_slice(&answer.json).unwrap_or_default();
    Ok((answer.code == 200).then_some((answer, value)))
}

async fn answer(client: &Client, request: http::Request<Body>) -> Result<Answer, kube::Error> {
    let response = client.send(request).await?;
    let code = response.status().as_u16();
    let json = response.into_body().collect_bytes().await?.to_vec();
    Ok(Answer { code, json })
}

/// Whether a path is of what is answered and not kept: a review. The API server takes none with a mark in its metadata.
fn is_question(path: &str) -> bool {
    ["/apis/authorization.k8s.io/", "/apis/authentication.k8s.io/"]
        .iter()
        .any(|group| path.starts_with(group))
}

/// Leaves a mark by which the object is known again, and a name that the API server would have chosen.
fn mark(object: &mut Value, id: &str) {
    let metadata = &mut object["metadata"];
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"][MADE_BY] = id.into();
    let unnamed = metadata["name"].as_str().is_none_or(str::is_empty);
    if unnamed && let Some(prefix) = metadata["generateName"].as_str() {
        let chosen: String = id
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(GENERATED)
            .collect();
        metadata["name"] = format!("{prefix}{}", chosen.to_ascii_lowercase()).into();
    }
}

/// `/api/VERSION/…` or `/apis/GROUP/VERSION/…`.
fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    if parts
        .iter()
        .any(|part| part.is_empty() || *part == "." || *part == "..")
    {
        return None;
    }
    let head = match *parts.first()? {
        "api" => 2,
        "apis" => 3,
        _ => return None,
    };
    let rest = parts.get(head..)?;
    let head = match rest {
        // A namespace itself has subresources too.
        ["namespaces", _, sub, ..] if !["status", "finalize"].contains(sub) => head + 2,
        _ => head,
    };
    match parts.len() - head {
        1 => Some(Target::Collection),
        2 => Some(Target::Object),
        3 => Some(Target::Subresource {
            object: format!("/{}", parts[..head + 2].join("/")),
            name: parts[head + 2].to_owned(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_told_from_an_overload() {
        let answer = |code, json: Value| Answer {
            code,
            json: json.to_string().into_bytes(),
        };
        let budget = json!({"kind": "Status", "details": {"causes": [{"reason": "DisruptionBudget"}]}});
        assert!(answer(429, budget.clone()).is_of_a_budget());
        assert!(!answer(503, budget).is_of_a_budget());
        assert!(!answer(429, json!("Too many requests, please try again later.")).is_of_a_budget());
        let overload = json!({"kind": "Status", "message": "later", "details": {"retryAfterSeconds": 1}});
        assert!(!answer(429, overload.clone()).is_of_a_budget());
        assert!(answer(429, overload).into_error().to_string().contains("later"));
    }

    #[test]
    fn paths_tell_what_they_are_about() {
        let sub = |object: &str, name: &str| {
            Some(Target::Subresource {
                object: object.to_owned(),
                name: name.to_owned(),
            })
        };
        for (path, about) in [
            ("/api/v1/namespaces", Some(Target::Collection)),
            ("/api/v1/namespaces/a", Some(Target::Object)),
            (
                "/api/v1/namespaces/a/status",
                sub("/api/v1/namespaces/a", "status"),
            ),
            ("/api/v1/namespaces/a/pods", Some(Target::Collection)),
            ("/api/v1/namespaces/a/pods/b", Some(Target::Object)),
            (
                "/api/v1/namespaces/a/pods/b/eviction",
                sub("/api/v1/namespaces/a/pods/b", "eviction"),
            ),
            ("/apis/apps/v1/namespaces/a/deployments/b", Some(Target::Object)),
            ("/api/v1/nodes/n", Some(Target::Object)),
            ("/api/v1", None),
            ("/healthz", None),
            ("/api/v1/namespaces/../pods", None),
            ("//x", None),
        ] {
            assert_eq!(target(path), about, "{path}");
        }
    }
}
