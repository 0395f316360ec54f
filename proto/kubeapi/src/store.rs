//! What the protocol needs of whoever keeps the objects.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;

use crate::error::ApiError;
use crate::object::{Object, ObjectKey, Version};
use crate::resource::{GroupResource, Registry};

/// Which objects a list or a watch is about. Label and field selectors are applied by the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// What they are.
    pub resource: GroupResource,
    /// Only this namespace; `None` means all, and cluster-scoped objects.
    pub namespace: Option<String>,
}

/// Part of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Objects by namespace and name.
    pub objects: Vec<Object>,
    /// The version of the store that the whole list shows.
    pub version: Version,
    /// Where the list goes on; `None` at its end.
    pub next: Option<ObjectKey>,
    /// How many objects follow, when that is known.
    pub remaining: Option<u64>,
}

/// From where a list goes on.
#[derive(Debug, Clone)]
pub struct Resume {
    /// The version of the first part: all parts show the same moment.
    pub version: Version,
    /// The first object that was not in the part before.
    pub from: ObjectKey,
}

/// A change to one object. The store carries out all of it or nothing, and answers once it is durable.
#[derive(Debug, Clone)]
pub enum Change {
    /// Stores an object under a name that is free, else `AlreadyExists`.
    Create {
        /// Its name.
        key: ObjectKey,
        /// The object in its storage version.
        value: Value,
    },
    /// Replaces the object of version `expected`, else `Conflict`; `NotFound` when there is none.
    Update {
        /// Its name.
        key: ObjectKey,
        /// The version the new value was made from.
        expected: Version,
        /// The object in its storage version.
        value: Value,
    },
    /// Removes the object of version `expected`, else `Conflict`; `NotFound` when there is none.
    Delete {
        /// Its name.
        key: ObjectKey,
        /// The version the decision was made about.
        expected: Version,
    },
}

impl Change {
    /// The object's name.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Change::Create { key, .. } | Change::Update { key, .. } | Change::Delete { key, .. } => key,
        }
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It is new.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// A change that took effect.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; of a deleted one, what it was last, with the version of the deletion.
    pub object: Object,
    /// What it was before, when it was there: with a selector, a change may look like the object came or went. Only what
    /// selectors ask for is certain to be known of it (see [`Object::remembered`]).
    pub previous: Option<Object>,
}

impl Event {
    /// The version of the change.
    pub fn version(&self) -> Version {
        self.object.version()
    }
}

/// Keeps versioned objects. Versions are those of one totally ordered stream of changes over all resources.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What is served now. Asked at every request, so that a new kind is there at once.
    fn registry(&self) -> Arc<Registry>;

    /// The version of the last change that took effect.
    fn version(&self) -> Version;

    /// The object as it is now.
    ///
    /// # Errors
    /// `NotFound`; for a store that has to ask somebody else, `ServiceUnavailable` or `Timeout`.
    async fn get(&self, key: &ObjectKey) -> Result<Object, ApiError>;

    /// At most `limit` objects (all with `None`) by namespace and name; from `resume` on, as of its version.
    ///
    /// # Errors
    /// `Expired` when the version of `resume` is not held any more.
    async fn list(
        &self,
        selection: &Selection,
        limit: Option<usize>,
        resume: Option<&Resume>,
    ) -> Result<Page, ApiError>;

    /// Carries out a change and answers once it is durable: the object as stored (of a deletion, as in
    /// [`Event::object`]).
    ///
    /// # Errors
    /// See [`Change`]; `RequestEntityTooLarge` for an object over the limit.
    async fn commit(&self, change: Change) -> Result<Object, ApiError>;

    /// Every change after `from`, in order, without end. A watcher that does not keep up is ended with `Expired`.
    ///
    /// # Errors
    /// `Expired` when the changes after `from` are not held any more.
    fn watch(
        &self,
        selection: &Selection,
        from: Version,
    ) -> Result<BoxStream<'static, Result<Event, ApiError>>, ApiError>;
}
