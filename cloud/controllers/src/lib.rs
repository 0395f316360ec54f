//! Controllers between the Kubernetes API and the log: what objects say goes to the nodes' `down` streams, what nodes
//! say goes back to the API. The same code runs against the embedded API and a real API server: all it has of either is
//! a [`kube::Client`].
//!
//! A controller keeps no state of its own. It compares what the API says with what nodes were told, which is the
//! projection of their streams, and appends the difference: after a restart it goes on where the log ends.
//!
//! Reading order: [`told`], [`links`], [`Controllers`] (this file), `restart`, `edge`, `writes`, `sync`, [`manifests`] and [`device`],
//! [`groups`], [`definitions`].

mod as_node;
pub mod definitions;
pub mod device;
mod edge;
pub mod groups;
mod informer;
pub mod links;
pub mod manifests;
mod objects;
mod restart;
mod sync;
pub mod told;
mod writes;

use std::sync::Arc;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::edge::seen::Seen;
use self::links::Links;
use self::restart::again;
use self::told::Told;

/// What every controller is given.
#[derive(Clone)]
pub struct Controllers {
    /// The API. Whoever it speaks for may read everything a node may need, write what nodes report, and impersonate
    /// nodes.
    pub client: Client,
    /// What nodes were told, and how they are told more.
    pub told: Told,
    /// Every Node is Ledge's, as with the embedded API. In a cluster only those are that reported themselves or have the
    /// label `node-role.kubernetes.io/edge`.
    pub every_node: bool,
    /// Which nodes are connected.
    pub links: Arc<dyn Links>,
}

impl Controllers {
    /// Runs every controller until `shutdown`. A controller tries again by itself when the API or the log fails it, and one
    /// that panics is started again.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut running = JoinSet::new();
        let seen = Seen::default();
        let (of, at) = (|| self.clone(), || shutdown.clone());
        running.spawn(again("edge-down", at(), {
            let (seen, this, shutdown) = (seen.clone(), of(), at());
            move || edge::down::run(this.clone(), seen.clone(), shutdown.clone())
        }));
        running.spawn(again("nodes", at(), {
            let (seen, this, shutdown) = (seen.clone(), of(), at());
            move || edge::up::nodes::run(this.clone(), seen.clone(), shutdown.clone())
        }));
        running.spawn(again("pod-status", at(), {
            let (this, shutdown) = (of(), at());
            move || edge::up::pods::run(this.clone(), seen.clone(), shutdown.clone())
        }));
        running.spawn(again("events", at(), {
            let (this, shutdown) = (of(), at());
            move || edge::up::events::run(this.clone(), shutdown.clone())
        }));
        running.spawn(again("node-groups", at(), {
            let (client, shutdown) = (self.client.clone(), at());
            move || groups::run_node_groups(client.clone(), shutdown.clone())
        }));
        running.spawn(again("edge-applications", at(), {
            let (client, shutdown) = (self.client.clone(), at());
            move || groups::run_applications(client.clone(), shutdown.clone())
        }));
        running.spawn(again("sync", at(), {
            let (this, shutdown) = (of(), at());
            move || sync::run(this.clone(), shutdown.clone())
        }));
        running.spawn(again("writes", at(), {
            let (this, shutdown) = (of(), at());
            move || writes::run(this.clone(), shutdown.clone())
        }));
        while running.join_next().await.is_some() {}
    }
}

impl std::fmt::Debug for Controllers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controllers")
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}
