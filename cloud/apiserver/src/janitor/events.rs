//! Events are for looking at what just happened: they go some time after they were last seen.

use std::time::Duration;

use futures::{StreamExt, stream};
use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::store::{Change, Store};
use ledge_kubeapi::{ApiError, Object, Reason, meta};
use serde_json::Value;

/// How many are removed at once: they share the log's syncs.
const AT_ONCE: usize = 64;

/// Removes the events that were last seen `ttl` before `now_us` (microseconds since 1970) or earlier; how many.
pub(super) async fn expire(store: &dyn Store, ttl: Duration, now_us: i64) -> Result<usize, ApiError> {
    let ttl_us = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    let before_us = now_us.saturating_sub(ttl_us);
    let resource = GroupResource {
        group: String::new(),
        resource: "events".to_owned(),
    };
    let events = super::all(store, resource, None).await?;
    let old = events
        .into_iter()
        .filter(|event| last_seen_us(&event.value()).is_some_and(|seen| seen <= before_us));
    let removed = stream::iter(old).map(|event| remove(store, event));
    let removed: Vec<_> = removed.buffer_unordered(AT_ONCE).collect().await;
    let mut count = 0;
    for removed in removed {
        count += usize::from(removed?);
    }
    Ok(count)
}

/// One that was seen again meanwhile stays.
async fn remove(store: &dyn Store, event: Object) -> Result<bool, ApiError> {
    let change = Change::Delete {
        key: event.key().clone(),
        expected: event.version(),
    };
    match store.commit(change).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// When an event was last seen, by what it says itself.
fn last_seen_us(event: &Value) -> Option<i64> {
    let times = [
        &event["metadata"]["creationTimestamp"],
        &event["eventTime"],
        &event["lastTimestamp"],
        &event["series"]["lastObservedTime"],
    ];
    let times = times.into_iter().filter_map(|time| meta::time_us(time.as_str()?));
    times.max()
}

#[cfg(test)]
mod tests {
    use ledge_kubeapi::memory::MemoryStore;
    use ledge_kubeapi::objects::Limits;
    use ledge_kubeapi::{ObjectKey, Registry};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_was_seen_lately_stays() {
        let store = MemoryStore::new(Registry::default(), Limits::default());
        let now_us = meta::time_us("2026-01-01T12:00:00Z").unwrap();
        for (name, created, last) in [
            ("old", "2026-01-01T10:00:00Z", Value::Null),
            ("again", "2026-01-01T10:00:00Z", "2026-01-01T11:30:00Z".into()),
            ("new", "2026-01-01T11:00:01Z", Value::Null),
            ("edge", "2026-01-01T11:00:00Z", "2026-01-01T10:00:00Z".into()),
            ("timeless", "", Value::Null),
        ] {
            let key = ObjectKey {
                resource: GroupResource {
                    group: String::new(),
                    resource: "events".to_owned(),
                },
                namespace: "a".to_owned(),
                name: name.to_owned(),
            };
            let value = json!({"metadata": {"creationTimestamp": created}, "lastTimestamp": last});
            store.commit(Change::Create { key, value }).await.unwrap();
        }
        let ttl = Duration::from_secs(3600);
        assert_eq!(expire(&store, ttl, now_us).await.unwrap(), 2);
        let resource = GroupResource {
            group: String::new(),
            resource: "events".to_owned(),
        };
        let left = crate::janitor::all(&store, resource, None).await.unwrap();
        let names: Vec<&str> = left.iter().map(|event| event.key().name.as_str()).collect();
        assert_eq!(names, ["again", "new", "timeless"]);
        assert_eq!(expire(&store, ttl, now_us).await.unwrap(), 0);
    }
}
