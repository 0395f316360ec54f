//! Objects as records of a stream. A change is decided against everything that has its place in the stream already, takes
//! its own place, and is visible to readers once it is durable. A watch that begins before what memory holds is replayed
//! from the log.

mod replay;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use ledge_kubeapi::objects::{Limits, Objects, events, outcome};
use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::store::{Change, Event, Page, Resume, Selection, Store};
use ledge_kubeapi::{ApiError, Object, ObjectKey, Reason, Registry, Version};
use ledge_log::{AppendError, Log};
use ledge_projection::Projection;
use ledge_proto::fold::{self, Table, view};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::stamp::Stamp;
use ledge_proto::v1;
use serde_json::Value;

use crate::environment::SystemEnvironment;

/// Why the objects cannot be read from the projection.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The projection cannot be read.
    #[error("the objects of the API cannot be read from the projection: {0}")]
    Projection(String),
    /// An object is not what was written.
    #[error(
        "the object `{key}` in the projection is damaged: {reason}; delete the projection's directory, it is folded again"
    )]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// Makes a registry from the CustomResourceDefinitions among the objects.
pub type MakeRegistry = dyn Fn(&[Object]) -> Registry + Send + Sync;

/// See the module.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    log: Log,
    stream: StreamId,
    /// Held from deciding a change to its place in the stream, so that decisions are in the order of the stream.
    order: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    registry: Mutex<Arc<Registry>>,
    make_registry: Box<MakeRegistry>,
}

struct State {
    objects: Objects,
    /// Changes that have their place in the stream and are not durable yet, in its order.
    queued: VecDeque<(Object, bool)>,
    /// What queued changes leave of each object.
    pending: BTreeMap<ObjectKey, Option<Object>>,
    /// The version the next change gets.
    next: Version,
}

/// A panic while a lock was held left a whole value behind: what is done under it cannot be interrupted halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn crds() -> GroupResource {
    GroupResource {
        group: "apiextensions.k8s.io".to_owned(),
        resource: "customresourcedefinitions".to_owned(),
    }
}

/// `group/resource/namespace/name`: the key of a record.
fn record_key(key: &ObjectKey) -> String {
    let ObjectKey {
        resource,
        namespace,
        name,
    } = key;
    format!("{}/{}/{namespace}/{name}", resource.group, resource.resource)
}

/// Reads what [`record_key`] wrote. Names hold no slash.
fn object_key(key: &str) -> Option<ObjectKey> {
    let mut parts = key.splitn(4, '/');
    let mut part = || parts.next().map(str::to_owned);
    Some(ObjectKey {
        resource: GroupResource {
            group: part()?,
            resource: part()?,
        },
        namespace: part()?,
        name: part()?,
    })
}

impl LogStore {
    /// Reads the objects from `projection`, which has folded all of `log`.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(
        log: Log,
        projection: &Projection,
        limits: Limits,
        make_registry: Box<MakeRegistry>,
    ) -> Result<LogStore, LoadError> {
        let stream = StreamId::new(Scope::cluster(), Lane::Api);
        let view = projection.view();
        let unreadable = |error: &dyn std::fmt::Display| LoadError::Projection(error.to_string());
        let folded = fold::folded_stream(&view, &stream).map_err(|error| unreadable(&error))?;
        let version = Version(folded.map_or(0, |folded| folded.seq));
        let entries = view::entries::<_, v1::ApiObject>(&view, &stream.scope, Table::ApiObjects)
            .map_err(|error| unreadable(&error))?;
        let mut found = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            let value: Value =
                serde_json::from_slice(&entry.content.json).map_err(|error| LoadError::Damaged {
                    key: key.clone(),
                    reason: error.to_string(),
                })?;
            let Some(object_key) = object_key(&key) else {
                return Err(LoadError::Damaged {
                    key,
                    reason: "it is not group/resource/namespace/name".to_owned(),
                });
            };
            found.push((object_key, Version(entry.position.seq.0), value));
        }
        // Definitions first: they say what of an object a field selector may name.
        let definitions: Vec<Object> = found
            .iter()
            .filter(|(key, ..)| key.resource == crds())
            .map(|(key, version, value)| Object::new(key.clone(), *version, value.clone(), &[]))
            .collect();
        let registry = make_registry(&definitions);
        let objects = found.into_iter().map(|(key, version, value)| {
            let stored = registry.stored(&key.resource);
            let selectable = stored.map_or(&[][..], |stored| &stored.selectable);
            Object::new(key, version, value, selectable)
        });
        let objects = Objects::new(limits, version, objects);
        Ok(LogStore {
            shared: Arc::new(Shared {
                log,
                stream,
                order: tokio::sync::Mutex::new(()),
                state: Mutex::new(State {
                    objects,
                    queued: VecDeque::new(),
                    pending: BTreeMap::new(),
                    next: Version(version.0 + 1),
                }),
                registry: Mutex::new(Arc::new(registry)),
                make_registry,
            }),
        })
    }

    /// How many objects there are, and how many watches.
    pub fn counts(&self) -> (usize, usize) {
        let mut state = lock(&self.shared.state);
        (state.objects.len(), state.objects.watchers())
    }
}

impl Shared {
    /// Decides `change` and gives it its place in the stream.
    async fn enqueue(self: &Arc<Self>, change: Change) -> Result<(Object, ledge_log::Ticket), ApiError> {
        let order = self.order.lock().await;
        let registry = Arc::clone(&lock(&self.registry));
        let (object, deleted, record) = {
            let state = lock(&self.state);
            let current = match state.pending.get(change.key()) {
                Some(pending) => pending.as_ref(),
                None => state.objects.get(change.key()),
            };
            let (object, deleted) = outcome(change, current, state.next, &registry)?;
            let record = self.record(&object, deleted, current)?;
            (object, deleted, record)
        };
        let ticket = self
            .log
            .enqueue(&self.stream, vec![record])
            .await
            .map_err(not_stored)?;
        {
            let mut state = lock(&self.state);
            state.next = Version(object.version().0 + 1);
            let left = (!deleted).then(|| object.clone());
            state.pending.insert(object.key().clone(), left);
            state.queued.push_back((object.clone(), deleted));
        }
        drop(order);
        Ok((object, ticket))
    }

    fn record(
        &self,
        object: &Object,
        deleted: bool,
        before: Option<&Object>,
    ) -> Result<v1::Record, ApiError> {
        let mut value = object.value();
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
        let content = v1::ApiObject {
            json: json.into(),
            previous: before.map(|before| v1::Selectable {
                labels: before.labels().clone(),
                fields: before.fields().clone(),
            }),
        };
        let payload = if deleted {
            Payload::ApiObjectDeleted(content)
        } else {
            Payload::ApiObject(content)
        };
        let stamp = Stamp {
            wall_us: ledge_kubeapi::Environment::now_us(&SystemEnvironment),
            clock: v1::ClockQuality::ClockUnknown,
            mono_us: 0,
        };
        Ok(stamp.record(self.log.identity().boot, record_key(object.key()), &payload))
    }

    /// Shows readers every change up to `version`: what stands before a durable record in its stream is durable.
    fn apply(&self, version: Version) {
        let mut definitions_changed = false;
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        while let Some((object, deleted)) = state
            .queued
            .pop_front_if(|(object, _)| object.version() <= version)
        {
            let last = state.queued.iter().all(|(later, _)| later.key() != object.key());
            if last {
                state.pending.remove(object.key());
            }
            definitions_changed |= object.key().resource == crds();
            state.objects.apply(object, deleted);
        }
        if definitions_changed {
            let selection = Selection {
                resource: crds(),
                namespace: None,
            };
            if let Ok(page) = state.objects.list(&selection, None, None) {
                *lock(&self.registry) = Arc::new((self.make_registry)(&page.objects));
            }
        }
    }
}

/// An append that failed was not stored, and everything after it fails too: the daemon stops and checks its log.
fn not_stored(error: AppendError) -> ApiError {
    match error {
        AppendError::RecordTooLarge { len, limit } => ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {limit} bytes, the object has {len}"),
        ),
        error => ApiError::new(
            Reason::ServiceUnavailable,
            format!("the change cannot be stored: {error}"),
        ),
    }
}

#[async_trait]
impl Store for LogStore {
    fn registry(&self) -> Arc<Registry> {
        Arc::clone(&lock(&self.shared.registry))
    }

    fn version(&self) -> Version {
        lock(&self.shared.state).objects.version()
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, ApiError> {
        let found = lock(&self.shared.state).objects.get(key).cloned();
        found.ok_or_else(|| ApiError::not_found(&key.resource, &key.name))
    }

    async fn list(
        &self,
        selection: &Selection,
        limit: Option<usize>,
        resume: Option<&Resume>,
    ) -> Result<Page, ApiError> {
        lock(&self.shared.state).objects.list(selection, limit, resume)
    }

    async fn commit(&self, change: Change) -> Result<Object, ApiError> {
        let shared = Arc::clone(&self.shared);
        // A client that goes away takes nothing back: what has its place in the stream becomes visible.
        let committed = tokio::spawn(async move {
            let (object, ticket) = shared.enqueue(change).await?;
            let appended = ticket.await.map_err(not_stored)?;
            let version = Version(appended.last.seq.0);
            if version != object.version() {
                // Somebody else wrote to the stream: versions would lie.
                tracing::error!(expected = %object.version(), found = %version, "the stream of the API has a second writer");
                return Err(ApiError::internal("the stream of the API has a second writer"));
            }
            shared.apply(version);
            Ok(object)
        });
        committed.await.map_err(ApiError::internal)?
    }

    fn watch(
        &self,
        selection: &Selection,
        from: Version,
    ) -> Result<BoxStream<'static, Result<Event, ApiError>>, ApiError> {
        let watch = lock(&self.shared.state).objects.watch(selection, from);
        match watch {
            Ok((past, to_come)) => Ok(events(past, to_come, &selection.resource)),
            Err(_) => replay::watch(&self.shared, selection, from),
        }
    }
}
