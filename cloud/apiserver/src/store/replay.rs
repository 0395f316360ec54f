//! Watches that begin before what memory holds: changes are read from the log until memory can go on.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use ledge_kubeapi::objects::{events, too_old};
use ledge_kubeapi::store::{Event, EventKind, Selection};
use ledge_kubeapi::{ApiError, Object, Reason, Registry, Version};
use ledge_log::{ReadError, StreamReader};
use ledge_proto::frame::Frame;
use ledge_proto::ids::Seq;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::Value;

use super::{Shared, lock, object_key};

/// A watch that is behind memory.
struct Replay {
    shared: Arc<Shared>,
    selection: Selection,
    /// What was read last; memory is asked whether it can go on from here.
    at: Version,
    reader: Option<StreamReader>,
    read: VecDeque<Event>,
    /// Memory goes on.
    live: Option<BoxStream<'static, Result<Event, ApiError>>>,
    ended: bool,
}

/// Every change after `from`, as [`ledge_kubeapi::Store::watch`] gives them.
///
/// # Errors
/// `Expired`, when the log no longer holds the changes after `from`.
pub(super) fn watch(
    shared: &Arc<Shared>,
    selection: &Selection,
    from: Version,
) -> Result<BoxStream<'static, Result<Event, ApiError>>, ApiError> {
    let key = shared.log.own_key(&shared.stream);
    let oldest = Version(shared.log.held_after(&key).0);
    if from < oldest {
        return Err(too_old(from, oldest));
    }
    let replay = Replay {
        shared: Arc::clone(shared),
        selection: selection.clone(),
        at: from,
        reader: Some(shared.log.read_stream(&key, Seq(from.0))),
        read: VecDeque::new(),
        live: None,
        ended: false,
    };
    let events = stream::unfold(replay, |mut replay| async move {
        let event = replay.next().await?;
        Some((event, replay))
    });
    Ok(events.boxed())
}

impl Replay {
    async fn next(&mut self) -> Option<Result<Event, ApiError>> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            if let Some(live) = &mut self.live {
                return live.next().await;
            }
            let watch = lock(&self.shared.state).objects.watch(&self.selection, self.at);
            if let Ok((past, to_come)) = watch {
                self.live = Some(events(past, to_come, &self.selection.resource));
                self.reader = None;
                continue;
            }
            if let Err(error) = self.read_on().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    /// Reads one frame.
    async fn read_on(&mut self) -> Result<(), ApiError> {
        let at = self.at;
        let Some(mut reader) = self.reader.take() else {
            return Err(ApiError::internal("a watch lost its place in the log"));
        };
        // Another thread waits for the disk: this one answers other requests.
        let read = tokio::task::spawn_blocking(move || {
            let frame = reader.next();
            (reader, frame)
        });
        let (reader, frame) = read.await.map_err(ApiError::internal)?;
        self.reader = Some(reader);
        let frame = match frame {
            Ok(Some(frame)) => frame,
            // Memory begins at what is durable, and what is durable is in the log.
            Ok(None) => return Err(ApiError::internal("the log ends before memory begins")),
            Err(ReadError::Jump { resume_after, .. }) => return Err(too_old(at, Version(resume_after.0))),
            Err(ReadError::Recycled { first_held, .. }) => {
                return Err(too_old(at, Version(first_held.saturating_sub(1))));
            }
            Err(error) => {
                let told = format!("the changes after {at} cannot be read: {error}");
                return Err(ApiError::new(Reason::ServiceUnavailable, told));
            }
        };
        let registry = Arc::clone(&lock(&self.shared.registry));
        self.take(&frame, &registry)
    }

    fn take(&mut self, frame: &Frame, registry: &Registry) -> Result<(), ApiError> {
        let damaged = |error: &dyn std::fmt::Display| {
            let told = format!("a change in the log cannot be read: {error}");
            ApiError::new(Reason::ServiceUnavailable, told)
        };
        for record in frame.records().map_err(|error| damaged(&error))? {
            let (position, record) = record.map_err(|error| damaged(&error))?;
            let version = Version(position.seq.0);
            // A frame may begin before the version asked for.
            if version <= self.at {
                continue;
            }
            self.at = version;
            let event = event(version, &record, &self.selection, registry);
            self.read.extend(event.map_err(|error| damaged(&error))?);
        }
        Ok(())
    }
}

/// The change that a record is about, when `selection` is about it too.
fn event(
    version: Version,
    record: &v1::Record,
    selection: &Selection,
    registry: &Registry,
) -> Result<Option<Event>, String> {
    let Some(key) = object_key(&record.key) else {
        return Err(format!("the key `{}` is none", record.key));
    };
    if !selection.covers(&key) {
        return Ok(None);
    }
    let (content, deleted) = match Payload::decode(record).map_err(|error| error.to_string())? {
        Payload::ApiObject(content) => (content, false),
        Payload::ApiObjectDeleted(content) => (content, true),
        _ => return Ok(None),
    };
    let value: Value = serde_json::from_slice(&content.json).map_err(|error| error.to_string())?;
    let stored = registry.stored(&key.resource);
    let selectable = stored.map_or(&[][..], |stored| &stored.selectable);
    let object = Object::new(key.clone(), version, value, selectable);
    let previous = content
        .previous
        .map(|previous| Object::remembered(key, previous.labels, previous.fields));
    let kind = match (deleted, &previous) {
        (true, _) => EventKind::Deleted,
        (false, Some(_)) => EventKind::Modified,
        (false, None) => EventKind::Added,
    };
    Ok(Some(Event {
        kind,
        object,
        previous,
    }))
}
