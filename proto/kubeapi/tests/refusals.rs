//! What is wrong with a request is told as a Kubernetes API server tells it: code, reason and words.
//! `refusals/record.py` recorded the answers of kube-apiserver 1.34.4.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use ledge_kubeapi::memory::MemoryStore;
use ledge_kubeapi::objects::Limits;
use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::serve::request::{Method, Request, User};
use ledge_kubeapi::serve::respond::{Body, Response};
use ledge_kubeapi::serve::{AllowAll, Api, Extension, Write};
use ledge_kubeapi::{ApiError, Environment, Registry, builtin, crd};
use serde_json::Value;

/// Where upstream's words are those of a library it is made with, or of its own source files; code and reason are the same.
const OTHER_WORDS: [(&str, &str); 8] = [
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
];

/// Upstream answers 500 without a reason: the mistake is the client's.
const OTHER_CODE: [(&str, u64, &str); 1] = [("a version on creation", 400, "BadRequest")];

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

fn request(step: &Value) -> Request {
    let path = step["path"].as_str().unwrap();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut headers: BTreeMap<String, String> =
        [("content-type", "application/json"), ("user-agent", "record")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    for (name, value) in step["headers"].as_object().unwrap() {
        headers.insert(name.to_ascii_lowercase(), value.as_str().unwrap().to_owned());
    }
    let body = match &step["body"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        body => body.to_string(),
    };
    Request {
        method: Method::parse(step["method"].as_str().unwrap()).unwrap(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: headers.into_iter().collect(),
        body: body.into(),
        user: User::new("admin", ["system:masters"]),
    }
}

/// Without the ids of objects, which are different every time.
fn without_ids(text: &str) -> String {
    let id = regex::Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
    id.replace_all(text, "ID").into_owned()
}

#[test]
fn as_kube_apiserver_refuses() {
    let store = Arc::new(MemoryStore::new(registry(), Limits::default()));
    let definitions = Definitions(Arc::clone(&store));
    let api = Api::new(store, Arc::new(Still), Arc::new(AllowAll), Arc::new(definitions));
    let steps: Vec<Value> = serde_json::from_str(include_str!("refusals/refusals.json")).unwrap();
    assert!(steps.len() > 60);
    let mut wrong = Vec::new();
    for step in &steps {
        let response = api.serve(request(step)).now_or_never().unwrap();
        let status = response.status;
        let about = step["about"].as_str().unwrap();
        let answer: Value = match response.body {
            Body::Whole(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Body::Stream(_) => Value::Null,
        };
        let mut theirs = (step["code"].as_u64().unwrap(), step["reason"].as_str());
        if let Some((_, code, reason)) = OTHER_CODE.iter().find(|(name, ..)| *name == about) {
            theirs = (*code, Some(reason));
        }
        let ours = (u64::from(status), answer["reason"].as_str());
        if theirs.0 < 400 && ours.0 < 400 {
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
