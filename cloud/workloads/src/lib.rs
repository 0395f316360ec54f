//! What a cluster would provide, for the embedded API: workload controllers, a scheduler, addresses and endpoints of
//! services, volumes.
//!
//! All it has of the API is a [`kube::Client`]. Watches fill a [`world::World`]; what a change concerns becomes a
//! [`names::Task`]; [`decide::decide`], a pure function, compares what is wanted with what is there and gives a
//! [`plan::Plan`]; the plan is carried out, and what the API answers is in the world before the next decision, so that no
//! decision is made twice. Nothing is kept beside the API's objects.
//!
//! Nothing is ever evicted or replaced because a node lost its link: only a deleted Node object frees its pods.
//!
//! Reading order: [`names`], [`world`], `feed`, [`wake`], [`plan`], [`decide`] and what it calls, `carry`, `notes`, `run`.

pub mod clock;
pub mod decide;
pub mod deployment;
pub mod meta;
pub mod names;
pub mod plan;
pub mod pods;
pub mod quantity;
pub mod replica_set;
pub mod scheduler;
pub mod strays;
pub mod wake;
pub mod world;

mod carry;
mod feed;
mod hash;
mod notes;
mod run;

use std::sync::Arc;

use kube::Client;
use tokio_util::sync::CancellationToken;

pub use crate::clock::{Clock, ManualClock, SystemClock};

/// What can be chosen.
#[derive(Debug, Clone, Default)]
pub struct Settings {}

/// All controllers of this crate.
pub struct Workloads {
    runner: run::Runner,
}

impl Workloads {
    /// Controllers that speak to the API through `client`, which must be allowed everything they do.
    pub fn new(client: Client) -> Workloads {
        Workloads::with(client, Settings::default(), Arc::new(SystemClock))
    }

    /// With settings and a clock.
    pub fn with(client: Client, settings: Settings, clock: Arc<dyn Clock>) -> Workloads {
        Workloads {
            runner: run::Runner::new(client, clock, settings),
        }
    }

    /// Works until `shutdown`. What is under way then is finished.
    pub async fn run(self, shutdown: CancellationToken) {
        self.runner.run(shutdown).await;
    }
}

impl std::fmt::Debug for Workloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workloads").finish_non_exhaustive()
    }
}
