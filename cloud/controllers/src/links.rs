//! Which nodes are connected: what the hub knows and the log does not.

use std::time::Duration;

use ledge_proto::ids::Scope;
use tokio::sync::watch;

/// How one node's link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether there is one.
    pub connected: bool,
    /// Since the node was heard last.
    pub age: Duration,
    /// How much older than that its oldest record is that is still on its way.
    pub lag: Duration,
}

/// The links of all nodes.
pub trait Links: Send + Sync + std::fmt::Debug {
    /// How the link of `node` stands; `None` when it has not connected since cloudcore started.
    fn link(&self, node: &Scope) -> Option<Link>;

    /// Changes whenever a node connects or loses its link.
    fn changes(&self) -> watch::Receiver<u64>;
}
