//! The fences of one process: what it noted last about who may go on with which history.
//!
//! A session decides by them and asks for the next one to be made durable. Decisions about one node must not overtake
//! each other, so whoever decides holds [`NodeFences::order`] from the decision until the record that follows from it
//! is in the log's queue. From then on everybody decides by the new one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledge_log::{AppendError, Log, Ticket};
use ledge_proto::fence::FenceUpdate;
use ledge_proto::fold::{Read, State, view};
use ledge_proto::ids::Scope;
use ledge_proto::v1;
use tokio_util::sync::CancellationToken;

/// A fence could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the fence of {node} cannot be read: {reason}")]
pub struct FenceError {
    node: String,
    reason: String,
}

/// What a log says about the fences of a scope.
#[derive(Debug, Clone, Default, PartialEq)]
struct Noted {
    node: v1::NodeFence,
    edge: v1::EdgeFence,
    cloud: v1::CloudFence,
}

type Load = dyn Fn(&Scope) -> Result<Noted, String> + Send + Sync;

/// The fences of one log. Clones share them.
#[derive(Clone)]
pub struct Fences {
    load: Arc<Load>,
    /// Kept for each node that ever said HELLO since the start: a few hundred bytes.
    scopes: Arc<Mutex<BTreeMap<Scope, Arc<NodeFences>>>>,
}

impl std::fmt::Debug for Fences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fences").finish_non_exhaustive()
    }
}

impl Default for Fences {
    /// Nothing was noted before.
    fn default() -> Self {
        Fences::new(State::new)
    }
}

impl Fences {
    /// Fences as folded in what `view` gives, which must be up to the log's end when it is asked first.
    pub fn new<S: Read>(view: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let load = move |scope: &Scope| {
            let store = view();
            let text = |err: &dyn std::fmt::Display| err.to_string();
            let node = view::node_fence(&store, scope).map_err(|err| text(&err))?;
            let edge = view::edge_fence(&store, scope).map_err(|err| text(&err))?;
            let cloud = view::cloud_fence(&store).map_err(|err| text(&err))?;
            Ok(Noted {
                node: node.map(|latest| latest.content).unwrap_or_default(),
                edge: edge.map(|latest| latest.content).unwrap_or_default(),
                cloud: cloud.map(|latest| latest.content).unwrap_or_default(),
            })
        };
        Fences {
            load: Arc::new(load),
            scopes: Arc::default(),
        }
    }

    /// The fences of a node.
    ///
    /// # Errors
    /// When what was noted of it cannot be read: then nobody may decide anything about it.
    pub fn of(&self, scope: &Scope) -> Result<Arc<NodeFences>, FenceError> {
        let mut scopes = lock(&self.scopes);
        if let Some(known) = scopes.get(scope) {
            return Ok(known.clone());
        }
        let noted = (self.load)(scope).map_err(|reason| FenceError {
            node: scope.to_string(),
            reason,
        })?;
        let fences = Arc::new(NodeFences {
            scope: scope.clone(),
            noted: Mutex::new(noted),
            order: tokio::sync::Mutex::default(),
            sessions: Mutex::default(),
        });
        scopes.insert(scope.clone(), fences.clone());
        Ok(fences)
    }

    /// What the cloud notes of itself.
    ///
    /// # Errors
    /// As [`Fences::of`].
    pub fn of_cloud(&self) -> Result<Arc<NodeFences>, FenceError> {
        self.of(&Scope::cluster())
    }
}

/// The fences of one node, and its sessions in this process.
#[derive(Debug)]
pub struct NodeFences {
    scope: Scope,
    noted: Mutex<Noted>,
    order: tokio::sync::Mutex<()>,
    sessions: Mutex<BTreeMap<u64, LiveSession>>,
}

#[derive(Debug)]
struct LiveSession {
    established: bool,
    end: CancellationToken,
}

/// Held from a decision until its record is in the log's queue.
#[derive(Debug)]
pub struct Order<'a> {
    fences: &'a NodeFences,
    _held: tokio::sync::MutexGuard<'a, ()>,
}

impl NodeFences {
    /// On the cloud: what is noted of the node's disk.
    pub fn node(&self) -> v1::NodeFence {
        lock(&self.noted).node.clone()
    }

    /// On the edge: what is noted of the cloud.
    pub fn edge(&self) -> v1::EdgeFence {
        lock(&self.noted).edge.clone()
    }

    /// On the cloud: what is noted of itself.
    pub fn cloud(&self) -> v1::CloudFence {
        lock(&self.noted).cloud
    }

    /// Waits until nobody else decides about this node.
    pub async fn order(&self) -> Order<'_> {
        Order {
            fences: self,
            _held: self.order.lock().await,
        }
    }

    /// A session of the node begins, which `end` ends.
    pub(crate) fn begin(self: &Arc<Self>, end: CancellationToken) -> SessionEntry {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let live = LiveSession {
            established: false,
            end,
        };
        lock(&self.sessions).insert(serial, live);
        SessionEntry {
            fences: self.clone(),
            serial,
        }
    }

    fn end_others(&self, but: Option<u64>) {
        for (serial, session) in &*lock(&self.sessions) {
            if Some(*serial) != but {
                session.end.cancel();
            }
        }
    }

    /// Ends every session of the node.
    pub fn end_sessions(&self) {
        self.end_others(None);
    }
}

impl Order<'_> {
    /// Takes `update` for what holds from now on, and gives it to the log. It is durable when the ticket resolves.
    ///
    /// # Errors
    /// When the log takes nothing; then nothing has changed.
    pub async fn note(
        &self,
        log: &Log,
        update: &FenceUpdate,
        wall_us: i64,
        boot: u32,
    ) -> Result<Ticket, AppendError> {
        let before = lock(&self.fences.noted).clone();
        self.set(update);
        let record = v1::Record {
            wall_us,
            boot,
            ..update.record()
        };
        let queued = log
            .enqueue(&update.stream(&self.fences.scope), vec![record])
            .await;
        if queued.is_err() {
            *lock(&self.fences.noted) = before;
        }
        queued
    }

    fn set(&self, update: &FenceUpdate) {
        let mut noted = lock(&self.fences.noted);
        match update {
            FenceUpdate::Node(node) => noted.node = (**node).clone(),
            FenceUpdate::Edge(edge) => noted.edge = edge.clone(),
            FenceUpdate::Cloud(cloud) => noted.cloud = *cloud,
        }
    }
}

/// A session among those of its node; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct SessionEntry {
    fences: Arc<NodeFences>,
    serial: u64,
}

impl SessionEntry {
    pub(crate) fn fences(&self) -> &Arc<NodeFences> {
        &self.fences
    }

    /// Whether another session of the node is established.
    pub(crate) fn other(&self) -> bool {
        lock(&self.fences.sessions)
            .iter()
            .any(|(serial, session)| *serial != self.serial && session.established)
    }

    /// This one is established: it takes the place of all others.
    pub(crate) fn established(&self) {
        if let Some(session) = lock(&self.fences.sessions).get_mut(&self.serial) {
            session.established = true;
        }
        self.end_others();
    }

    pub(crate) fn end_others(&self) {
        self.fences.end_others(Some(self.serial));
    }
}

impl Drop for SessionEntry {
    fn drop(&mut self) {
        lock(&self.fences.sessions).remove(&self.serial);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain values: a panic elsewhere leaves them as they were.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
