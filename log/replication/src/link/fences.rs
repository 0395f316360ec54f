//! The fences of a daemon: what its sessions ask, and the one way in which they change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ledge_log::{AppendError, Log, Ticket};
use ledge_proto::fence::FenceUpdate;
use ledge_proto::ids::Scope;
use ledge_proto::v1;

/// What is known of a node's disk by the records in the log.
type NodeSource = dyn Fn(&Scope) -> v1::NodeFence + Send + Sync;

/// The fences of one daemon, as last handed to its log. Clones share them.
#[derive(Clone)]
pub struct Fences(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    nodes: Box<NodeSource>,
    /// Held while a change is handed to the log: changes reach it in the order in which they are seen.
    order: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<Scope, v1::NodeFence>,
    edge: v1::EdgeFence,
    cloud: v1::CloudFence,
}

impl std::fmt::Debug for Fences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fences").finish_non_exhaustive()
    }
}

impl Default for Fences {
    /// Nothing is known yet.
    fn default() -> Self {
        Fences::edge(v1::EdgeFence::default())
    }
}

impl Fences {
    /// The fences of an edge.
    pub fn edge(fence: v1::EdgeFence) -> Fences {
        let state = State {
            edge: fence,
            ..Default::default()
        };
        Fences::new(state, |_| v1::NodeFence::default())
    }

    /// The fences of a cloud; `nodes` tells what its log says of a node.
    pub fn cloud(
        fence: v1::CloudFence,
        nodes: impl Fn(&Scope) -> v1::NodeFence + Send + Sync + 'static,
    ) -> Fences {
        Fences::new(
            State {
                cloud: fence,
                ..Default::default()
            },
            nodes,
        )
    }

    fn new(state: State, nodes: impl Fn(&Scope) -> v1::NodeFence + Send + Sync + 'static) -> Fences {
        Fences(Arc::new(Inner {
            state: Mutex::new(state),
            nodes: Box::new(nodes),
            order: tokio::sync::Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A change is one assignment: a panic elsewhere leaves it whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a node's disk.
    pub fn of_node(&self, node: &Scope) -> v1::NodeFence {
        let known = self.state().nodes.get(node).cloned();
        known.unwrap_or_else(|| (self.0.nodes)(node))
    }

    /// What the edge knows of the cloud.
    pub fn of_edge(&self) -> v1::EdgeFence {
        self.state().edge.clone()
    }

    /// What the cloud knows of itself.
    pub fn of_cloud(&self) -> v1::CloudFence {
        self.state().cloud
    }

    /// Hands a change to the log; sessions see it from now on, and it is durable when the ticket says so.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn change(&self, log: &Log, node: &Scope, update: FenceUpdate) -> Result<Ticket, AppendError> {
        let _order = self.0.order.lock().await;
        let record = v1::Record {
            wall_us: now_us(),
            ..update.record()
        };
        let stream = update.stream(node);
        {
            let mut state = self.state();
            match update {
                FenceUpdate::Node(fence) => {
                    state.nodes.insert(node.clone(), *fence);
                }
                FenceUpdate::Edge(fence) => state.edge = fence,
                FenceUpdate::Cloud(fence) => state.cloud = fence,
            }
        }
        log.enqueue(&stream, vec![record]).await
    }
}

/// The wall clock, microseconds since 1970.
pub(super) fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
