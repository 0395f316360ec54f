//! The status of pods, as their nodes report it: written once however often it changed meanwhile, and only to the pod that it
//! is about. What another writer made of it is put right while the node has a link: as long as it has none, others may
//! know better.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use ledge_projection::{Changes, ReadError};
use ledge_proto::fold::{FoldError, Table, view};
use ledge_proto::ids::Scope;
use ledge_proto::v1;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{UpError, stands, tolerations};
use crate::Controllers;
use crate::edge::seen::{Paced, Seen, until};
use crate::told::Told;

const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AT_ONCE: usize = 64;

/// Writes what nodes report of their pods until `shutdown`.
pub(crate) async fn run(controllers: Controllers, seen: Seen, shutdown: CancellationToken) {
    // A pod that is being deleted goes when its node says that it ended, whichever comes first.
    let mut feed = controllers
        .told
        .projection
        .changes(&[Table::KubeStatuses, Table::KubeObjects]);
    let mut links = controllers.links.changes();
    let mut pending: BTreeSet<Reported> = BTreeSet::new();
    let mut wrong = Paced::new();
    // Of nodes without a link.
    let mut later: BTreeSet<Reported> = BTreeSet::new();
    let linked = |of: &Reported| {
        controllers
            .links
            .link(&of.scope)
            .is_some_and(|link| link.connected)
    };
    loop {
        let again = !pending.is_empty();
        tokio::select! {
            pods = seen.pods.take() => match changed_by_others(&controllers, &pods) {
                Ok(changed) => later.extend(changed),
                Err(err) => tracing::error!(%err, "the status of pods cannot be read"),
            },
            changed = links.changed() => if changed.is_err() {
                return;
            },
            () = until(wrong.next()) => pending.extend(wrong.take()),
            changes = feed.next() => match reported(&controllers, changes) {
                Ok(reported) => pending.extend(reported),
                Err(err) => tracing::error!(%err, "the status of pods cannot be read"),
            },
            () = tokio::time::sleep(AGAIN_AFTER), if again => {}
            () = shutdown.cancelled() => return,
        }
        for reported in later.extract_if(.., &linked) {
            wrong.add(reported);
        }
        let controllers = &controllers;
        let rounds = std::mem::take(&mut pending)
            .into_iter()
            .map(|reported| async move {
                let outcome = round(controllers, &reported).await;
                (reported, outcome)
            });
        let outcomes: Vec<_> = stream::iter(rounds).buffer_unordered(AT_ONCE).collect().await;
        for (reported, outcome) in outcomes {
            let Reported { scope, key, .. } = &reported;
            match outcome {
                Ok(()) => {}
                Err(err) if err.is_final() => {
                    tracing::error!(node = %scope, pod = %key, %err, "the API does not take the pod's status");
                }
                Err(err) => {
                    tracing::warn!(node = %scope, pod = %key, %err, "the pod's status is not written; trying again");
                    pending.insert(reported);
                }
            }
        }
    }
}

/// A pod about which there is something new.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Reported {
    scope: Scope,
    key: String,
    /// By its node; otherwise in what its node was told.
    by_node: bool,
}

fn reported(controllers: &Controllers, changes: Changes) -> Result<BTreeSet<Reported>, ReadError> {
    let mut found = BTreeSet::new();
    match changes {
        Changes::Entries(entries) => {
            let pods = entries
                .into_iter()
                .filter(|entry| entry.key.starts_with("/pods/"));
            found.extend(pods.map(|entry| Reported {
                scope: entry.scope,
                key: entry.key,
                by_node: entry.table == Table::KubeStatuses,
            }));
        }
        Changes::All => {
            let view = controllers.told.view();
            for scope in view::scopes(&view).map_err(FoldError::Store)? {
                let statuses = view::entries::<_, v1::KubeStatus>(&view, &scope, Table::KubeStatuses)?;
                let objects = view::entries::<_, v1::KubeObject>(&view, &scope, Table::KubeObjects)?;
                let statuses = statuses.into_iter().map(|(key, _)| (key, true));
                let keys = statuses.chain(objects.into_iter().map(|(key, _)| (key, false)));
                let pods = keys.filter(|(key, _)| key.starts_with("/pods/"));
                found.extend(pods.map(|(key, by_node)| Reported {
                    scope: scope.clone(),
                    key,
                    by_node,
                }));
            }
        }
    }
    Ok(found)
}

/// Of pods that somebody wrote, perhaps this controller, those that do not say what their nodes say.
fn changed_by_others(
    controllers: &Controllers,
    pods: &BTreeMap<String, Value>,
) -> Result<Vec<Reported>, ReadError> {
    let view = controllers.told.view();
    let mut changed = Vec::new();
    for (key, pod) in pods {
        let node = pod["spec"]["nodeName"].as_str();
        let Some(scope) = node.and_then(|node| Scope::node(node).ok()) else {
            continue;
        };
        let Some(told) = Told::entry::<v1::KubeStatus>(&view, &scope, Table::KubeStatuses, key)? else {
            continue;
        };
        let of_another = !told.uid.is_empty() && pod["metadata"]["uid"] != told.uid.as_str();
        // What is no status is told of where it is written.
        let said: Value = serde_json::from_slice(&told.json).unwrap_or_default();
        if !of_another && !stands(&pod["status"], &said) {
            changed.push(Reported {
                scope,
                key: key.clone(),
                by_node: true,
            });
        }
    }
    Ok(changed)
}

async fn round(controllers: &Controllers, reported: &Reported) -> Result<(), UpError> {
    let Reported { scope, key, by_node } = reported;
    let view = controllers.told.view();
    let told: Option<v1::KubeStatus> = Told::entry(&view, scope, Table::KubeStatuses, key)?;
    let object: Option<v1::KubeObject> = Told::entry(&view, scope, Table::KubeObjects, key)?;
    let object: Value = object.map_or(Ok(Value::Null), |object| serde_json::from_slice(&object.json))?;
    let in_cluster = !controllers.every_node;
    let patch = in_cluster.then(|| tolerations::missing(&object)).flatten();
    // What a node said is written when it says it: of what it is told only a pod that is to go is news here.
    let leaving = !object["metadata"]["deletionTimestamp"].is_null();
    if patch.is_none() && !by_node && (told.is_none() || !leaving) {
        return Ok(());
    }
    let mut parts = key.rsplit('/');
    let (Some(name), Some(namespace)) = (parts.next(), parts.next()) else {
        return Ok(());
    };
    let api: Api<Pod> = Api::namespaced(controllers.client.clone(), namespace);
    let Some(mut pod) = api.get_opt(name).await? else {
        return Ok(());
    };
    if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != scope.node_name() {
        return Ok(());
    }
    if let Some(patch) = patch.filter(|_| pod.metadata.uid.as_deref() == object["metadata"]["uid"].as_str()) {
        let patch = Patch::Merge(&patch);
        pod = api.patch(name, &PatchParams::default(), &patch).await?;
    }
    if !by_node && !leaving {
        return Ok(());
    }
    status(&api, name, told, pod).await
}

/// Writes what the node reports; a pod that its node does not run any more goes, if it is to go.
async fn status(
    api: &Api<Pod>,
    name: &str,
    told: Option<v1::KubeStatus>,
    mut pod: Pod,
) -> Result<(), UpError> {
    let uid = pod.metadata.uid.clone();
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let Some(told) = told else {
        return if leaving {
            remove(api, name, uid).await
        } else {
            Ok(())
        };
    };
    if !told.uid.is_empty() && uid.as_ref() != Some(&told.uid) {
        // Of another pod of the same name; the node learns of it by what it is told of its pods.
        return Ok(());
    }
    let current = serde_json::to_value(&pod.status)?;
    let wanted = merge(serde_json::from_slice(&told.json)?, &current);
    let ended = matches!(wanted["phase"].as_str(), Some("Succeeded" | "Failed"));
    // Through the typed status, so that what the API leaves out does not count as different.
    let typed: PodStatus = serde_json::from_value(wanted)?;
    if pod.status.as_ref() != Some(&typed) {
        pod.status = Some(typed);
        api.replace_status(name, &PostParams::default(), &pod).await?;
    }
    if ended && leaving {
        remove(api, name, uid).await?;
    }
    Ok(())
}

async fn remove(api: &Api<Pod>, name: &str, uid: Option<String>) -> Result<(), UpError> {
    let now = DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            ..Preconditions::default()
        }),
        ..DeleteParams::default().grace_period(0)
    };
    match api.delete(name, &now).await {
        // Somebody was faster, or it is another pod by now.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        outcome => outcome.map(|_| ()).map_err(UpError::from),
    }
}

/// The node's status, with the conditions that others gave the pod and what only the API server knows.
fn merge(mut reported: Value, current: &Value) -> Value {
    if !reported.is_object() {
        reported = serde_json::json!({});
    }
    let mut conditions = reported["conditions"].as_array().cloned().unwrap_or_default();
    for condition in current["conditions"].as_array().into_iter().flatten() {
        if !conditions.iter().any(|own| own["type"] == condition["type"]) {
            conditions.push(condition.clone());
        }
    }
    if !conditions.is_empty() {
        reported["conditions"] = conditions.into();
    }
    for member in ["qosClass", "nominatedNodeName"] {
        if reported[member].is_null() && !current[member].is_null() {
            reported[member] = current[member].clone();
        }
    }
    reported
}
