//! A store in memory, for tests and for what need not outlive the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::ApiError;
use crate::object::{Object, ObjectKey, Version};
use crate::objects::{Limits, Objects, events, outcome};
use crate::resource::Registry;
use crate::store::{Change, Event, Page, Resume, Selection, Store};

/// See the module.
pub struct MemoryStore {
    registry: Mutex<Arc<Registry>>,
    objects: Mutex<Objects>,
}

impl MemoryStore {
    /// An empty store that serves `registry`.
    pub fn new(registry: Registry, limits: Limits) -> MemoryStore {
        MemoryStore {
            registry: Mutex::new(Arc::new(registry)),
            objects: Mutex::new(Objects::new(limits, Version(0), [])),
        }
    }

    /// Serves another registry from now on.
    pub fn serve(&self, registry: Registry) {
        *lock(&self.registry) = Arc::new(registry);
    }
}

/// A panic while a lock was held left a whole value behind: each change to it is one assignment or one `apply`.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for MemoryStore {
    fn registry(&self) -> Arc<Registry> {
        Arc::clone(&lock(&self.registry))
    }

    fn version(&self) -> Version {
        lock(&self.objects).version()
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, ApiError> {
        let found = lock(&self.objects).get(key).cloned();
        found.ok_or_else(|| ApiError::not_found(&key.resource, &key.name))
    }

    async fn list(
        &self,
        selection: &Selection,
        limit: Option<usize>,
        resume: Option<&Resume>,
    ) -> Result<Page, ApiError> {
        lock(&self.objects).list(selection, limit, resume)
    }

    async fn commit(&self, change: Change) -> Result<Object, ApiError> {
        let registry = self.registry();
        let mut objects = lock(&self.objects);
        let version = Version(objects.version().0 + 1);
        let current = objects.get(change.key());
        let (object, deleted) = outcome(change, current, version, &registry)?;
        objects.apply(object.clone(), deleted);
        Ok(object)
    }

    fn watch(
        &self,
        selection: &Selection,
        from: Version,
    ) -> Result<BoxStream<'static, Result<Event, ApiError>>, ApiError> {
        let (past, to_come) = lock(&self.objects).watch(selection, from)?;
        Ok(events(past, to_come, &selection.resource))
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore")
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
