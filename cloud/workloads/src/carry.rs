//! Carries actions out, through the API.

use futures::{StreamExt, stream};
use kube::Client;
use serde_json::{Value, json};

use crate::names::Name;
use crate::plan::{Action, Verb};
use crate::world::Kind;

/// So many actions of one plan are under way at once: the API makes them durable together.
const AT_ONCE: usize = 32;

/// What became of an action.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The object as it is now.
    Is(Value),
    /// The object is gone.
    Gone {
        /// The UID it had.
        uid: String,
    },
    /// The pod has its node.
    Bound {
        /// Which.
        node: String,
    },
    /// It changed or went meanwhile, or was there already: the watch tells.
    Stale(String),
    /// The API refused it, or did not answer.
    Refused(String),
}

/// Carries out all of `actions`, in any order, and tells what became of each.
pub(crate) async fn carry(client: &Client, actions: Vec<Action>) -> Vec<(Action, Outcome)> {
    stream::iter(actions)
        .map(async |action| {
            let outcome = one(client, &action).await;
            (action, outcome)
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

async fn one(client: &Client, action: &Action) -> Outcome {
    let (kind, name) = (action.kind, &action.name);
    let answer = match &action.verb {
        Verb::Create(value) => send(client, "POST", &path(kind, &name.beside(""), ""), JSON, value).await,
        Verb::Patch {
            body,
            subresource,
            strategic,
        } => {
            let media = if *strategic { STRATEGIC } else { MERGE };
            send(client, "PATCH", &path(kind, name, subresource), media, body).await
        }
        Verb::Delete { uid, now } => {
            let mut options = json!({
                "preconditions": {"uid": uid},
                "propagationPolicy": "Background",
            });
            if *now {
                options["gracePeriodSeconds"] = 0.into();
            }
            return match send(client, "DELETE", &path(kind, name, ""), JSON, &options).await {
                Ok(value) if value["metadata"]["deletionTimestamp"].is_string() => Outcome::Is(value),
                Ok(_) => Outcome::Gone { uid: uid.clone() },
                Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Gone { uid: uid.clone() },
                Err(error) => failed(&error),
            };
        }
        Verb::Bind { uid, node } => {
            return match bind(client, name, uid, node).await {
                Ok(()) => Outcome::Bound { node: node.clone() },
                Err(error) => failed(&error),
            };
        }
    };
    match answer {
        Ok(value) => Outcome::Is(value),
        Err(error) => failed(&error),
    }
}

/// Makes an event.
pub(crate) async fn post_event(client: &Client, namespace: &str, event: &Value) -> kube::Result<Value> {
    send(
        client,
        "POST",
        &format!("/api/v1/namespaces/{namespace}/events"),
        JSON,
        event,
    )
    .await
}

/// Changes an event.
pub(crate) async fn patch_event(client: &Client, name: &Name, patch: &Value) -> kube::Result<Value> {
    let path = format!("/api/v1/namespaces/{}/events/{}", name.namespace, name.name);
    send(client, "PATCH", &path, MERGE, patch).await
}

async fn bind(client: &Client, name: &Name, uid: &str, node: &str) -> kube::Result<()> {
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name.name, "namespace": name.namespace, "uid": uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    send(client, "POST", &path(Kind::Pod, name, "binding"), JSON, &binding).await?;
    Ok(())
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

async fn send(client: &Client, method: &str, path: &str, media: &str, body: &Value) -> kube::Result<Value> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .header("accept", JSON)
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await
}

/// The path of an object, or of all objects of its kind and namespace when the name is empty.
fn path(kind: Kind, name: &Name, subresource: &str) -> String {
    let (group, version, plural) = kind.path();
    let mut path = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    if !name.namespace.is_empty() {
        path = format!("{path}/namespaces/{}", name.namespace);
    }
    path = format!("{path}/{plural}");
    for part in [name.name.as_str(), subresource] {
        if !part.is_empty() {
            path = format!("{path}/{part}");
        }
    }
    path
}

fn failed(error: &kube::Error) -> Outcome {
    match error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => {
            Outcome::Stale(status.message.clone())
        }
        kube::Error::Api(status) => Outcome::Refused(status.message.clone()),
        other => Outcome::Refused(other.to_string()),
    }
}
