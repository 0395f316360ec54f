//! Ends what is marked for deletion: empties namespaces that go, removes the objects of definitions that go, and lets go of
//! dependents whose owners are gone (background deletion; `foregroundDeletion` and `orphan` finalizers too). Forgets events.

mod events;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::serve::Api;
use ledge_kubeapi::store::{Change, Selection, Store};
use ledge_kubeapi::{ApiError, Environment, Object, Reason, meta};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::admission::CRD_FINALIZER;
use crate::environment::SystemEnvironment;

/// After a change the janitor waits this long for more, so that a burst is one round.
const SETTLE: Duration = Duration::from_millis(50);
/// A round at least this often: a change that a full watch lost is found then.
const PERIOD: Duration = Duration::from_secs(30);

/// Works until `shutdown`; events are kept for `event_ttl`.
pub async fn run(api: Api, event_ttl: Duration, shutdown: CancellationToken) {
    let store = Arc::clone(api.store());
    let mut seen = None;
    let mut expired = None;
    loop {
        if expired.is_none_or(|at: Instant| at.elapsed() >= PERIOD) {
            let now_us = Environment::now_us(&SystemEnvironment);
            match events::expire(&*store, event_ttl, now_us).await {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "old events are forgotten"),
                Err(error) => tracing::warn!(%error, "old events cannot be forgotten; it is tried again"),
            }
            expired = Some(Instant::now());
        }
        let version = store.version();
        let mut again = false;
        if seen != Some(version) {
            again = match round(&*store).await {
                Ok(changed) => changed,
                Err(error) => {
                    tracing::warn!(%error, "cleaning up after deletions failed; it is tried again");
                    true
                }
            };
            seen = Some(version);
        }
        let wait = async {
            if again {
                return;
            }
            tokio::select! {
                () = changed(&*store, version) => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = wait => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(SETTLE) => {}
        }
    }
}

/// Waits until something changed after `version` that may leave work: any kind, since anything can own something.
async fn changed(store: &dyn Store, version: ledge_kubeapi::Version) {
    let registry = store.registry();
    let watches = resources(&registry).into_iter().filter_map(|resource| {
        let selection = Selection {
            resource,
            namespace: None,
        };
        store.watch(&selection, version).ok()
    });
    let mut all = futures::stream::select_all(watches);
    while let Some(event) = all.next().await {
        let Ok(event) = event else { return };
        let value = event.object.value();
        let gone = event.kind == ledge_kubeapi::EventKind::Deleted;
        if gone || value["metadata"]["deletionTimestamp"].is_string() {
            return;
        }
    }
}

fn resources(registry: &ledge_kubeapi::Registry) -> BTreeSet<GroupResource> {
    let kept = registry.iter().filter(|resource| resource.storage);
    kept.map(|resource| resource.group_resource()).collect()
}

async fn all(
    store: &dyn Store,
    resource: GroupResource,
    namespace: Option<String>,
) -> Result<Vec<Object>, ApiError> {
    let selection = Selection { resource, namespace };
    Ok(store.list(&selection, None, None).await?.objects)
}

/// One round over everything that is marked, or whose owner is gone. True when something was changed.
async fn round(store: &dyn Store) -> Result<bool, ApiError> {
    let registry = store.registry();
    let kinds = resources(&registry);
    let mut uids = BTreeSet::new();
    let mut owned = Vec::new();
    let mut marked = Vec::new();
    for resource in &kinds {
        for object in all(store, resource.clone(), None).await? {
            uids.insert(object.uid().to_owned());
            let value = object.value();
            if value["metadata"]["deletionTimestamp"].is_string() {
                marked.push((object.clone(), value.clone()));
            }
            if value["metadata"]["ownerReferences"]
                .as_array()
                .is_some_and(|owners| !owners.is_empty())
            {
                owned.push((object, value));
            }
        }
    }
    let mut changed = false;
    for (object, value) in &marked {
        changed |= finish(store, &kinds, object, value, &owned).await?;
    }
    for (object, value) in &owned {
        let owners = value["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        let mut owners = owners.filter_map(|owner| owner["uid"].as_str());
        if owners.all(|uid| !uids.contains(uid)) {
            changed |= remove(store, object, value).await?;
        }
    }
    Ok(changed)
}

/// Goes on with one object that is marked.
async fn finish(
    store: &dyn Store,
    kinds: &BTreeSet<GroupResource>,
    object: &Object,
    value: &Value,
    owned: &[(Object, Value)],
) -> Result<bool, ApiError> {
    let finalizers = |value: &Value| {
        value["metadata"]["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let has = |name: &str| finalizers(value).iter().any(|one| one == name);
    let mut changed = false;
    let key = object.key();
    if key.resource.group.is_empty() && key.resource.resource == "namespaces" {
        let mut left = 0;
        for resource in kinds {
            for inside in all(store, resource.clone(), Some(key.name.clone())).await? {
                left += 1;
                let inside_value = inside.value();
                changed |= remove(store, &inside, &inside_value).await?;
            }
        }
        if left == 0 {
            let mut new = value.clone();
            new["spec"]["finalizers"] = Value::Array(Vec::new());
            return end(store, object, new).await;
        }
        return Ok(changed);
    }
    if has(CRD_FINALIZER) {
        let resource = GroupResource {
            group: value["spec"]["group"].as_str().unwrap_or_default().to_owned(),
            resource: value["spec"]["names"]["plural"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        };
        let objects = all(store, resource, None).await?;
        for inside in &objects {
            changed |= remove(store, inside, &inside.value()).await?;
        }
        if objects.is_empty() {
            return end(store, object, without(value, CRD_FINALIZER)).await;
        }
        return Ok(changed);
    }
    let dependents = owned.iter().filter(|(_, value)| {
        let owners = value["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        owners.into_iter().any(|owner| owner["uid"] == object.uid())
    });
    if has("orphan") {
        for (dependent, dependent_value) in dependents {
            let mut new = dependent_value.clone();
            if let Some(owners) = new["metadata"]["ownerReferences"].as_array_mut() {
                owners.retain(|owner| owner["uid"] != object.uid());
            }
            replace(store, dependent, new).await?;
        }
        return end(store, object, without(value, "orphan")).await;
    }
    if has("foregroundDeletion") {
        let mut waiting = false;
        for (dependent, dependent_value) in dependents {
            waiting = true;
            changed |= remove(store, dependent, dependent_value).await?;
        }
        if !waiting {
            return end(store, object, without(value, "foregroundDeletion")).await;
        }
    }
    Ok(changed)
}

fn without(value: &Value, finalizer: &str) -> Value {
    let mut new = value.clone();
    if let Some(finalizers) = new["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|one| one != finalizer);
    }
    new
}

/// Stores `new`, or removes the object when nothing keeps it any more.
async fn end(store: &dyn Store, object: &Object, new: Value) -> Result<bool, ApiError> {
    let list = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    let kept = list(&new["metadata"]["finalizers"])
        || (new["kind"] == "Namespace" && list(&new["spec"]["finalizers"]));
    if kept {
        return replace(store, object, new).await;
    }
    let change = Change::Delete {
        key: object.key().clone(),
        expected: object.version(),
    };
    done(store.commit(change).await)
}

async fn replace(store: &dyn Store, object: &Object, value: Value) -> Result<bool, ApiError> {
    let change = Change::Update {
        key: object.key().clone(),
        expected: object.version(),
        value,
    };
    done(store.commit(change).await)
}

/// Removes an object, or marks it when it has finalizers or is a pod that a node has to end.
async fn remove(store: &dyn Store, object: &Object, value: &Value) -> Result<bool, ApiError> {
    let metadata = &value["metadata"];
    let finalizers = metadata["finalizers"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    let phase = value["status"]["phase"].as_str();
    let running = value["kind"] == "Pod"
        && value["spec"]["nodeName"]
            .as_str()
            .is_some_and(|node| !node.is_empty())
        && !matches!(phase, Some("Succeeded" | "Failed"));
    if metadata["deletionTimestamp"].is_string() {
        return Ok(false);
    }
    if !finalizers && !running {
        let change = Change::Delete {
            key: object.key().clone(),
            expected: object.version(),
        };
        return done(store.commit(change).await);
    }
    let grace = if running {
        value["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(30)
            .clamp(0, meta::GRACE_MAX_S)
    } else {
        0
    };
    let mut new = value.clone();
    let now = Environment::now_us(&SystemEnvironment);
    new["metadata"]["deletionTimestamp"] = meta::time(meta::after(now, grace)).into();
    new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    replace(store, object, new).await
}

/// What somebody else changed or removed meanwhile is looked at again in the next round.
fn done(outcome: Result<Object, ApiError>) -> Result<bool, ApiError> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => Ok(true),
        Err(error) => Err(error),
    }
}
