//! Events: what happened, for those who ask `kubectl describe`.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::json;

use crate::carry::{patch_event, post_event};
use crate::names::Name;
use crate::plan::Note;

/// Events that are remembered, so that one that happens again is counted and not told again.
const REMEMBERED: usize = 1024;
/// So many are written at once.
const AT_ONCE: usize = 16;

/// Writes events. They are best effort, as upstream: one that is refused is logged, and its cause goes on.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// By UID, reason and message: the event, and how often it was seen.
    seen: BTreeMap<(String, &'static str, String), (Name, u32)>,
}

impl Notes {
    /// Writes `notes`, which were made `now`.
    pub(crate) async fn write(&mut self, client: &Client, notes: Vec<Note>, now: Timestamp) {
        if self.seen.len() > REMEMBERED {
            self.seen.clear();
        }
        let mut written = Vec::with_capacity(notes.len());
        for (nth, note) in notes.into_iter().enumerate() {
            let uid = note.about.uid.clone().unwrap_or_default();
            let key = (uid, note.reason, note.message.clone());
            let (name, count) = self
                .seen
                .entry(key)
                .or_insert_with(|| (event_name(&note, now, nth), 0));
            *count = count.saturating_add(1);
            written.push((name.clone(), *count, note));
        }
        stream::iter(written)
            .for_each_concurrent(AT_ONCE, async |(name, count, note)| {
                write_one(client, &name, &note, count, now).await;
            })
            .await;
    }
}

async fn write_one(client: &Client, name: &Name, note: &Note, count: u32, now: Timestamp) {
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    if count > 1 {
        let patch = json!({"count": count, "lastTimestamp": time});
        match patch_event(client, name, &patch).await {
            Ok(_) => return,
            // It was removed meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return tracing::warn!(event = %name, %error, "an event was not written"),
        }
    }
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name.name, "namespace": name.namespace},
        "involvedObject": note.about,
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": note.reason,
        "message": note.message,
        "count": count,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "source": {"component": "cloudcore"},
    });
    if let Err(error) = post_event(client, &name.namespace, &event).await {
        tracing::warn!(event = %name, %error, "an event was not written");
    }
}

/// Events of cluster-wide objects are in `default`, as upstream.
fn event_name(note: &Note, now: Timestamp, nth: usize) -> Name {
    let namespace = note.about.namespace.as_deref().unwrap_or("default");
    let name = note.about.name.as_deref().unwrap_or_default();
    let nanos = now
        .as_nanosecond()
        .saturating_add(i128::try_from(nth).unwrap_or_default());
    Name::new(namespace, &format!("{name}.{nanos:x}"))
}
