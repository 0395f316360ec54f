//! Groups of nodes, and workloads that run once in each of them: the kinds `NodeGroup` and `EdgeApplication`.
//!
//! Both controllers are functions from what the API holds to what it should hold; they write the difference, and look again
//! when something changes. What they made and somebody else changed is put right.
//!
//! Reading order: [`mirror`], [`membership`], [`nodes`]; [`image`], [`overriders`], [`plan`], [`availability`],
//! [`applications`].

mod applications;
mod availability;
mod image;
mod later;
mod membership;
mod mirror;
mod nodes;
mod overriders;
mod plan;

use kube::Client;
use tokio_util::sync::CancellationToken;

/// Keeps the label of each node and the status of each group right until `shutdown`.
pub async fn run_node_groups(client: Client, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(nodes::run(client)).await;
}

/// Keeps what applications make right, and their status, until `shutdown`.
pub async fn run_applications(client: Client, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(applications::run(client)).await;
}
