//! Ends what is marked for deletion: empties namespaces that go, removes the objects of definitions that go, and what is owned
//! only by owners that are gone or wait for it ([`owners`]; finalizers `foregroundDeletion` and `orphan`). Forgets events.

mod events;
mod owners;

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
use owners::{FOREGROUND, ORPHAN, Owned, Owners, Verdict};

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
    let mut owners = Owners::default();
    let mut marked = Vec::new();
    for resource in &kinds {
        for object in all(store, resource.clone(), None).await? {
            let value = object.value();
            owners.add(&object, &value);
            if value["metadata"]["deletionTimestamp"].is_string() {
                marked.push((object, value));
            }
        }
    }
    if owners.some_are_missing() {
        // An owner that was made after its kind was looked at, and before that of its dependents, is there now.
        for resource in &kinds {
            for object in all(store, resource.clone(), None).await? {
                owners.is_there(object.uid());
            }
        }
    }
    let mut changed = false;
    for (object, value) in &marked {
        changed |= finish(store, &kinds, object, value, &owners).await?;
    }
    for Owned { object, value } in owners.owned() {
        changed |= match owners.judge(object, value) {
            Verdict::Stays => false,
            Verdict::Changes(new) => replace(store, object, new).await?,
            Verdict::Goes(new) => remove(store, object, &new).await?,
        };
    }
    Ok(changed)
}

/// Goes on with one object that is marked.
async fn finish(
    store: &dyn Store,
    kinds: &BTreeSet<GroupResource>,
    object: &Object,
    value: &Value,
    owners: &Owners,
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
    if has(ORPHAN) {
        let mut orphans = owners.dependents(object.uid()).peekable();
        if orphans.peek().is_none() {
            return end(store, object, without(value, ORPHAN)).await;
        }
        // It goes when none is seen any more: one that somebody else changed at this moment is not let go of yet.
        for Owned {
            object: orphan,
            value,
        } in orphans
        {
            let mut new = value.clone();
            if let Some(owners) = new["metadata"]["ownerReferences"].as_array_mut() {
                owners.retain(|owner| owner["uid"] != object.uid());
            }
            changed |= replace(store, orphan, new).await?;
        }
        return Ok(changed);
    }
    if has(FOREGROUND) && !owners.is_blocked(object.uid()) {
        return end(store, object, without(value, FOREGROUND)).await;
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
        // A pod whose node has not ended it yet.
        || new["metadata"]["deletionGracePeriodSeconds"].as_i64() > Some(0)
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
