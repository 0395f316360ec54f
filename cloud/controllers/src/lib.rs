//! Controllers between the Kubernetes API and the log: what objects say goes to the nodes' `down` streams, what nodes
//! say goes back to the API. The same code runs against the embedded API and a real API server: all it has of either is
//! a [`kube::Client`].
//!
//! A controller keeps no state of its own. It compares what the API says with what nodes were told, which is the
//! projection of their streams, and appends the difference: after a restart it goes on where the log ends.
//!
//! Reading order: [`told`], [`links`], [`Controllers`] (this file), `edge`, `writes`, `sync`, [`manifests`] and [`device`],
//! [`definitions`], [`groups`].

mod as_node;
pub mod definitions;
pub mod device;
mod edge;
pub mod groups;
mod informer;
pub mod links;
pub mod manifests;
mod objects;
mod sync;
pub mod told;
mod writes;

use std::future::Future;
use std::sync::Arc;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::links::Links;
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
    /// Runs every controller until `shutdown`. A controller tries again by itself when the API or the log fails it.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut running = JoinSet::new();
        let down = edge::down::run(self.clone(), shutdown.clone());
        spawn(&mut running, "edge-down", down);
        let nodes = edge::up::nodes::run(self.clone(), shutdown.clone());
        spawn(&mut running, "nodes", nodes);
        let pods = edge::up::pods::run(self.clone(), shutdown.clone());
        spawn(&mut running, "pod-status", pods);
        let events = edge::up::events::run(self.clone(), shutdown.clone());
        spawn(&mut running, "events", events);
        let groups = groups::run_node_groups(self.client.clone(), shutdown.clone());
        spawn(&mut running, "node-groups", groups);
        let applications = groups::run_applications(self.client.clone(), shutdown.clone());
        spawn(&mut running, "edge-applications", applications);
        spawn(&mut running, "sync", sync::run(self.clone(), shutdown.clone()));
        spawn(
            &mut running,
            "writes",
            writes::run(self.clone(), shutdown.clone()),
        );
        while let Some(ended) = running.join_next().await {
            if let Err(err) = ended {
                tracing::error!(%err, "a controller failed: it runs again when cloudcore starts again");
            }
        }
    }
}

fn spawn(
    running: &mut JoinSet<()>,
    name: &'static str,
    controller: impl Future<Output = ()> + Send + 'static,
) {
    running.spawn(controller.instrument(tracing::info_span!("controller", name)));
}

impl std::fmt::Debug for Controllers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controllers")
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}
