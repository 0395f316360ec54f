//! What is wrong with a request is told as a Kubernetes API server tells it: code, reason and words.
//! `refusals/record.py` recorded the answers of kube-apiserver 1.34.4.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http_body_util::Full;
use ledge_kubeapi::memory::MemoryStore;
use ledge_kubeapi::objects::Limits;
use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::serve::request::{Request, User};
use ledge_kubeapi::serve::respond::{Body, Response};
use ledge_kubeapi::serve::transport;
use ledge_kubeapi::serve::{Api, Attributes, Authorizer, Extension, Write};
use ledge_kubeapi::{ApiError, Environment, Registry, builtin, crd};
use serde_json::{Value, json};

/// Where upstream's words are those of a library it is made with, or of its own source files; code and reason are the same.
const OTHER_WORDS: &[(&str, &str)] = &[
    (
        "no JSON",
        "couldn't parse the body as JSON: EOF while parsing an object at line 1 column 1",
    ),
    ("a list", "the body must be a JSON object"),
    (
        "an unknown kind",
        "Nothing in version \"v1\" cannot be handled as a ConfigMap: no kind \"Nothing\" is registered for version \"v1\"",
    ),
    (
        "a value of another type",
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: \"integer\": data.a in body must be of type string: \"integer\"",
    ),
    (
        "a number that is a text",
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: \"string\": spec.replicas in body must be of type integer: \"string\"",
    ),
    (
        "an answer in XML",
        "only the following media types are accepted: application/json",
    ),
    (
        "a patch that is none",
        "error decoding patch: couldn't parse the body as JSON: EOF while parsing an object at line 1 column 1",
    ),
    (
        "a continue that is none",
        "invalid continue token: continue key is not valid: it was not given out by this server",
    ),
    (
        "labels that are a text",
        "Namespace in version \"v1\" cannot be handled as a Namespace: json: \"string\": metadata.labels in body must be of type object: \"string\"",
    ),
    (
        "a spec that is a text",
        "Namespace in version \"v1\" cannot be handled as a Namespace: json: \"string\": spec in body must be of type object: \"string\"",
    ),
    (
        "a condition that is a text",
        "CertificateSigningRequest in version \"v1\" cannot be handled as a CertificateSigningRequest: json: \"string\": status.conditions[0] in body must be of type object: \"string\"",
    ),
    (
        "a condition that is a text, of a signer",
        "CertificateSigningRequest in version \"v1\" cannot be handled as a CertificateSigningRequest: json: \"string\": status.conditions[0] in body must be of type object: \"string\"",
    ),
    // Upstream shows the whole object.
    (
        "a field twice in a merge patch, strictly",
        r#" "" is invalid: patch: Invalid value: "{\"data\": {\"b\": \"1\", \"b\": \"2\"}}": strict decoding error: duplicate field "data.b""#,
    ),
    (
        "a field twice in a JSON patch, strictly",
        r#" "" is invalid: patch: Invalid value: "[{\"op\": \"add\", \"op\": \"add\", \"path\": \"/data/b\", \"value\": \"1\"}]": strict decoding error: json patch duplicate field "[0].op""#,
    ),
    (
        "an unknown field in a merge patch, strictly",
        r#" "" is invalid: patch: Invalid value: "{\"datum\":{\"b\":\"1\"}}": strict decoding error: unknown field "datum""#,
    ),
    // Upstream makes YAML of it first, and tells lines.
    (
        "a field twice in an apply, strictly",
        "error strict decoding YAML: duplicate field \"data.a\"",
    ),
    (
        "a field twice in an apply",
        "299 - \"duplicate field \\\"data.a\\\"\"",
    ),
    (
        "a field twice in YAML, strictly",
        "error decoding YAML: line 6: the key `a` is there twice",
    ),
    (
        "a field twice in YAML",
        "error decoding YAML: line 6: the key `a` is there twice",
    ),
    // Upstream takes them for an empty object.
    (
        "a patch that leaves a text",
        "the server rejected our request due to an error in our request",
    ),
    (
        "a patch that leaves nothing",
        "the server rejected our request due to an error in our request",
    ),
    // A place in another list is none in this one.
    (
        "another namespace's continue",
        "continue key is not valid: it is not in this list",
    ),
    (
        "an object that is too large",
        "Request entity too large: limit is 1572864 bytes, the object has N",
    ),
    // No token is given to go on in a list of another moment.
    (
        "a continue of the past",
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
    ),
    // Upstream's words where it keeps a copy of the past, which it does of all but events.
    ("a watch of the past", "too old resource version: 1 (N)"),
];

/// Where upstream answers 500 without a reason, though the mistake is the client's, or lets pass what is none.
const OTHER_CODE: &[(&str, u64, &str)] = &[
    ("a version on creation", 400, "BadRequest"),
    ("an object that is too large", 413, "RequestEntityTooLarge"),
    ("a patch that leaves a text", 422, "Invalid"),
    ("a patch that leaves nothing", 422, "Invalid"),
    ("a field twice in YAML", 400, "BadRequest"),
    ("another namespace's continue", 400, "BadRequest"),
];

/// Nobody gave him a role.
const BOB: &str = "bob";

/// Bob may nothing, all others everything.
struct Roles;

#[async_trait]
impl Authorizer for Roles {
    async fn authorize(&self, attributes: &Attributes) -> Result<(), String> {
        if attributes.user.name == BOB {
            Err(attributes.denied())
        } else {
            Ok(())
        }
    }
}

struct Still;

impl Environment for Still {
    fn now_us(&self) -> i64 {
        1_700_000_000_000_000
    }

    fn uid(&self) -> String {
        "00000000-0000-0000-0000-000000000001".to_owned()
    }

    fn timer(&self, _: u64) -> BoxFuture<'static, ()> {
        futures::future::pending().boxed()
    }

    fn name_suffix(&self) -> String {
        "abcde".to_owned()
    }
}

/// Definitions take effect.
struct Definitions(Arc<MemoryStore>);

#[async_trait]
impl Extension for Definitions {
    async fn call(&self, _: &Request, _: &ResourcePath) -> Option<Response> {
        None
    }

    async fn admit(&self, write: &Write<'_>, new: &mut Value) -> Result<(), ApiError> {
        if write.resource.kind == "CustomResourceDefinition" {
            crd::check(new, write.old)?;
            let mut registry = registry();
            let served = crd::resources(new).unwrap_or_default();
            served.into_iter().for_each(|resource| registry.insert(resource));
            self.0.serve(registry);
        }
        Ok(())
    }
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    let resources = builtin::resources();
    resources
        .into_iter()
        .for_each(|resource| registry.insert(resource));
    registry
}

/// As the server reads it; `token` is where the list before goes on.
fn request(step: &Value, token: &str) -> Result<Request, ApiError> {
    let path = step["path"].as_str().unwrap().replace("{continue}", token);
    let mut headers: BTreeMap<String, String> =
        [("content-type", "application/json"), ("user-agent", "record")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    for (name, value) in step["headers"].as_object().unwrap() {
        headers.insert(name.to_ascii_lowercase(), value.as_str().unwrap().to_owned());
    }
    let mut body = match &step["body"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        body => body.to_string(),
    };
    if let Some(pad) = step["pad"].as_u64() {
        body = body.replace("PAD", &"x".repeat(usize::try_from(pad).unwrap()));
    }
    let mut request = http::Request::builder()
        .method(step["method"].as_str().unwrap())
        .uri(path)
        .body(Full::<Bytes>::from(body))
        .unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::try_from(name).unwrap();
        request.headers_mut().insert(name, value.try_into().unwrap());
    }
    let user = User::new("admin", ["system:masters"]);
    transport::read(user, request).now_or_never().unwrap()
}

/// Without what is different every time: ids of objects, versions of the store.
fn without_ids(text: &str) -> String {
    let id = regex::Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
    let text = id.replace_all(text, "ID");
    let version = regex::Regex::new(r"(current: |\(|the object has )[0-9]+").unwrap();
    version.replace_all(&text, "${1}N").into_owned()
}

/// Changes more than the store remembers.
fn forget(api: &Api) {
    let step = |method: &str, body: Value| {
        let path = "/api/v1/namespaces/refusals/configmaps";
        let path = if method == "POST" {
            path.to_owned()
        } else {
            format!("{path}/forget")
        };
        let step = json!({"method": method, "path": path, "body": body, "headers": {}});
        let response = api.serve(request(&step, "").unwrap()).now_or_never().unwrap();
        assert!(response.status < 300, "{response:?}");
    };
    let map = |n: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "forget"}, "data": {"a": n.to_string().repeat(500_000)}});
    step("POST", map(0));
    for n in 1..10 {
        step("PUT", map(n));
    }
    step("DELETE", Value::Null);
}

/// What was answered: of a watch, how it begins.
fn read(response: Response) -> (Value, Vec<String>) {
    let warnings = response.headers.iter().filter(|(name, _)| *name == "warning");
    let warnings = warnings.map(|(_, value)| value.clone()).collect();
    let answer = match response.body {
        Body::Whole(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Body::Stream(mut lines) => {
            let line = lines.next().now_or_never().flatten().unwrap();
            serde_json::from_slice(&line).unwrap()
        }
    };
    (answer, warnings)
}

#[test]
fn as_kube_apiserver_refuses() {
    let limits = Limits {
        window_bytes: 4 * 1024 * 1024,
        ..Limits::default()
    };
    let store = Arc::new(MemoryStore::new(registry(), limits));
    let definitions = Definitions(Arc::clone(&store));
    let api = Api::new(store, Arc::new(Still), Arc::new(Roles), Arc::new(definitions));
    let steps: Vec<Value> = serde_json::from_str(include_str!("refusals/refusals.json")).unwrap();
    assert!(steps.len() > 160);
    let mut token = String::new();
    let mut wrong = Vec::new();
    for step in &steps {
        if step["method"] == "COMPACT" {
            forget(&api);
            continue;
        }
        let response = match request(step, &token) {
            Ok(request) => api.serve(request).now_or_never().unwrap(),
            Err(error) => Response::error(&error),
        };
        let mut status = u64::from(response.status);
        let about = step["about"].as_str().unwrap();
        let (mut answer, warnings) = read(response);
        let mut theirs = (step["code"].as_u64().unwrap(), step["reason"].as_str());
        if let Some(code) = step["event"].as_u64() {
            theirs.0 = code;
        }
        if answer["type"] == "ERROR" {
            answer = answer["object"].take();
            status = answer["code"].as_u64().unwrap();
        }
        if let Some((_, code, reason)) = OTHER_CODE.iter().find(|(name, ..)| *name == about) {
            theirs = (*code, Some(reason));
        }
        let ours = (status, answer["reason"].as_str());
        if theirs.0 < 400 && ours.0 < 400 {
            if let Some(next) = answer["metadata"]["continue"].as_str() {
                next.clone_into(&mut token);
            }
            let told = step["warnings"].as_array().into_iter().flatten();
            let mut told: Vec<&str> = told.map(|told| told.as_str().unwrap()).collect();
            if let Some((_, other)) = OTHER_WORDS.iter().find(|(name, _)| *name == about) {
                told = vec![other];
            }
            if warnings != told {
                wrong.push(format!("{about}\n  ours   {warnings:?}\n  theirs {told:?}"));
            }
            continue;
        }
        let words = without_ids(answer["message"].as_str().unwrap_or_default());
        let mut their_words = without_ids(step["message"].as_str().unwrap_or_default());
        if let Some((_, other)) = OTHER_WORDS.iter().find(|(name, _)| *name == about) {
            (*other).clone_into(&mut their_words);
        }
        // What upstream answers in plain text has neither.
        let same = if step["text"].is_string() {
            ours.0 == theirs.0
        } else {
            (ours, &words) == (theirs, &their_words)
        };
        if !same {
            wrong.push(format!(
                "{about}\n  ours   {ours:?} {words}\n  theirs {theirs:?} {their_words}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        steps.len(),
        wrong.join("\n")
    );
}
