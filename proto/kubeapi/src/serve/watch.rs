//! `watch`: what is there, if that was asked for, then every change from a version on, until the client has enough.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, Shared};
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};

use super::Call;
use super::options::Options;
use super::read::Filter;
use super::respond::{Body, Format, Response, metadata_of};
use crate::Environment;
use crate::error::ApiError;
use crate::object::{Object, Version};
use crate::resource::{Registry, Resource};
use crate::store::{Event, EventKind};
use crate::table;

/// How long a watch lasts when the client does not say, seconds. Upstream draws 30 to 60 minutes.
const TIMEOUT_S: u64 = 45 * 60;

/// How long a watch lasts at most, seconds: a day.
const TIMEOUT_MAX_S: u64 = 24 * 60 * 60;

/// How often a watch tells how far it is, seconds, as upstream.
const BOOKMARK_S: u64 = 60;

/// What a watch needs for as long as it lasts.
struct Watch {
    registry: std::sync::Arc<Registry>,
    resource: std::sync::Arc<Resource>,
    format: Format,
    options: Options,
    filter: Filter,
    env: std::sync::Arc<dyn Environment>,
    store: std::sync::Arc<dyn crate::Store>,
    events: BoxStream<'static, Result<Event, ApiError>>,
    /// Lines that come before the next event.
    ready: VecDeque<Bytes>,
    over: Shared<BoxFuture<'static, ()>>,
    bookmark: Shared<BoxFuture<'static, ()>>,
    /// The first table of a watch has the definitions of its columns.
    told_columns: bool,
    ended: bool,
}

impl Call<'_> {
    pub(super) async fn watch(&self) -> Result<Response, ApiError> {
        let filter = self.filter()?;
        let selection = self.selection();
        let store = &self.api.store;
        // From 0 or from nothing, what is there comes first, as changes that made it.
        let initial = match (self.options.version, self.options.initial_events) {
            (_, Some(wanted)) => wanted,
            (None | Some(Version(0)), None) => true,
            (Some(_), None) => false,
        };
        let (page, from) = if initial {
            let page = store.list(&selection, None, None).await?;
            let version = page.version;
            (page.objects, version)
        } else {
            (Vec::new(), self.options.version.unwrap_or(store.version()))
        };
        let events = match store.watch(&selection, from) {
            Ok(events) => events,
            // A watch that cannot begin is a stream of one error, as clients expect it.
            Err(error) => return Ok(stream_of(stream::iter([line("ERROR", &error.status())]).boxed())),
        };
        let timeout_s = self.options.timeout_s.unwrap_or(TIMEOUT_S).min(TIMEOUT_MAX_S);
        let mut watch = Watch {
            registry: self.registry.clone(),
            resource: self.resource.clone(),
            format: self.format,
            options: self.options.clone(),
            filter,
            env: self.api.env.clone(),
            store: store.clone(),
            events,
            ready: VecDeque::new(),
            over: self.api.env.timer(timeout_s * 1000).shared(),
            bookmark: self.api.env.timer(BOOKMARK_S * 1000).shared(),
            told_columns: false,
            ended: false,
        };
        for object in &page {
            if watch.filter.lets(object) {
                let line = watch.line("ADDED", object);
                watch.ready.push_back(line);
            }
        }
        if self.options.initial_events == Some(true) && self.options.bookmarks {
            let line = watch.bookmark_line(from, true);
            watch.ready.push_back(line);
        }
        let lines = stream::unfold(watch, |mut watch| async move {
            let line = watch.next().await?;
            Some((line, watch))
        });
        Ok(stream_of(lines.boxed()))
    }
}

fn stream_of(lines: BoxStream<'static, Bytes>) -> Response {
    Response {
        status: 200,
        headers: vec![("content-type", "application/json".to_owned())],
        body: Body::Stream(lines),
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            futures::select_biased! {
                () = self.over.clone().fuse() => return None,
                event = self.events.next().fuse() => self.take(event),
                () = self.bookmark.clone().fuse() => {
                    self.bookmark = self.env.timer(BOOKMARK_S * 1000).shared();
                    if self.options.bookmarks {
                        self.take_bookmark();
                    }
                }
            }
        }
    }

    fn take(&mut self, event: Option<Result<Event, ApiError>>) {
        match event {
            None => self.ended = true,
            Some(Err(error)) => {
                self.ended = true;
                self.ready.push_back(line("ERROR", &error.status()));
            }
            Some(Ok(event)) => {
                if let Some((kind, object)) = seen(&self.filter, &event) {
                    let line = self.line(kind, object);
                    self.ready.push_back(line);
                }
            }
        }
    }

    /// A bookmark at the store's version, behind every change up to it: those are in the stream when the store says so.
    fn take_bookmark(&mut self) {
        let version = self.store.version();
        while !self.ended
            && let Some(event) = self.events.next().now_or_never()
        {
            self.take(event);
        }
        if !self.ended {
            let line = self.bookmark_line(version, false);
            self.ready.push_back(line);
        }
    }

    fn line(&mut self, kind: &str, object: &Object) -> Bytes {
        if self.format == Format::Object && self.resource.storage {
            return framed(kind, object.json());
        }
        let value = match self.registry.from_stored(&self.resource, object.value()) {
            Ok(value) => value,
            Err(error) => return line("ERROR", &error.status()),
        };
        match self.format {
            Format::Object => line(kind, &value),
            Format::Metadata => line(kind, &metadata_of(&value)),
            Format::Table => {
                let columns = !std::mem::replace(&mut self.told_columns, true);
                let metadata = json!({ "resourceVersion": object.version().to_string() });
                let table = table::render(&table::Table {
                    resource: &self.resource,
                    objects: &[value],
                    metadata,
                    include: table::Include::parse(&self.options.include_object),
                    columns,
                    now_us: self.env.now_us(),
                });
                line(kind, &table)
            }
        }
    }

    /// Says how far the watch is: an object that has nothing but a version.
    fn bookmark_line(&self, version: Version, initial_end: bool) -> Bytes {
        let mut object = json!({
            "kind": self.resource.kind,
            "apiVersion": self.resource.api_version(),
            "metadata": { "resourceVersion": version.to_string(), "creationTimestamp": null },
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        if self.format == Format::Table {
            let metadata = json!({ "resourceVersion": version.to_string() });
            object = json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": null, "rows": []});
        }
        line("BOOKMARK", &object)
    }
}

/// What a change looks like through a selector: an object that begins to match was added, one that ceases to was deleted.
fn seen<'a>(filter: &Filter, event: &'a Event) -> Option<(&'static str, &'a Object)> {
    let before = event.previous.as_ref().is_some_and(|object| filter.lets(object));
    let now = event.kind != EventKind::Deleted && filter.lets(&event.object);
    match (before, now) {
        (false, false) => None,
        (false, true) => Some(("ADDED", &event.object)),
        (true, true) => Some(("MODIFIED", &event.object)),
        (true, false) => Some(("DELETED", &event.object)),
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    framed(kind, &serde_json::to_vec(object).unwrap_or_default())
}

fn framed(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

#[cfg(test)]
mod tests;
