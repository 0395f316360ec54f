//! The device controller: what devices should be goes down to their nodes, what they are comes up to the API.
//!
//! Devices are written in a directory of manifests, in a Kubernetes API, or in both. Down ([`assign`]): they are resolved
//! with their models and nodes, compared with what nodes were told, and the difference is appended. Up ([`report`]): what
//! nodes say of their devices becomes the `DeviceStatus` of the same name and the status of the `Device`, on change only,
//! the first change at once and others once in a report cycle.
//!
//! The controller keeps no state: after a restart it goes on where the log ends, and an unchanged manifest appends and
//! patches nothing.
//!
//! Reading order: [`api`] (what the API says), [`shape`] (one shape of two), [`sources`] (directory and API together),
//! [`assign`], [`status`] (what is known of a device, as the API shows it), [`plan`] (when it is written), [`report`].

mod api;
mod assign;
mod plan;
mod report;
mod shape;
mod sources;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

use kube::Client;
use ledge_projection::ReadError;
use ledge_proto::fold::view;
use ledge_proto::ids::Scope;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use self::shape::UNCONVERTED;
use self::sources::Sources;
use crate::manifests::Snapshot;
use crate::restart::again;
use crate::told::Told;

/// The name under which fields of objects are managed.
const MANAGER: &str = "ledge-device-controller";

/// What nodes say of their devices, the latest there is.
pub trait Reports: Send + Sync + Debug {
    /// A device at `node`, by its key `namespace/name`: hints before history.
    ///
    /// # Errors
    /// When the projection cannot be read.
    fn device(&self, node: &Scope, key: &str) -> Result<view::Device, ReadError>;

    /// All devices at `node`.
    ///
    /// # Errors
    /// When the projection cannot be read.
    fn devices(&self, node: &Scope) -> Result<BTreeMap<String, view::Device>, ReadError>;

    /// How far the cloud is behind `node`.
    fn behind(&self, node: &Scope) -> Behind;

    /// Whether `node` is connected, and had told more of its state when it connected than is known here yet.
    fn is_catching_up(&self, node: &Scope) -> bool;

    /// Nodes about which [`Reports::behind`] says something else, or that said something ahead of their history.
    fn changes(&self) -> broadcast::Receiver<Scope>;
}

/// How far the cloud is behind a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// It has all of it, or nearly.
    No,
    /// History of this time is still on its way; the latest is known.
    Lagging(SystemTime),
    /// The node was heard last at this time.
    Lost(SystemTime),
    /// The node has not connected since cloudcore started, which is not long ago.
    NotKnown,
}

/// Where there is a Kubernetes API.
#[derive(Clone)]
pub struct Kubernetes {
    /// The API: everything may be read and written of `devices.kubeedge.io`, and Nodes be read.
    pub client: Client,
    /// What nodes say.
    pub reports: Arc<dyn Reports>,
}

impl Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes")
            .field("reports", &self.reports)
            .finish_non_exhaustive()
    }
}

/// The device controller.
#[derive(Debug, Clone)]
pub struct DeviceController {
    /// What nodes were told, and how they are told more.
    pub told: Told,
    /// What the manifests directory says, if there is one.
    pub directory: Option<watch::Receiver<Arc<Snapshot>>>,
    /// The Kubernetes API, if there is one.
    pub kubernetes: Option<Kubernetes>,
}

impl DeviceController {
    /// Runs until `shutdown`. Whatever fails is told and tried again.
    pub async fn run(self, shutdown: CancellationToken) {
        let run = || self.clone().run_once(shutdown.clone());
        again("devices", shutdown.clone(), run).await;
    }

    async fn run_once(self, shutdown: CancellationToken) {
        let DeviceController {
            told,
            directory,
            kubernetes,
        } = self;
        let (outcome, outcomes) = watch::channel(Arc::new(assign::Outcome::default()));
        let assign = assign::Assign {
            told: told.clone(),
            outcome,
        };
        let Some(Kubernetes { client, reports }) = kubernetes else {
            return assign.run(Sources::new(directory, None), shutdown).await;
        };
        let (api, said) = api::Said::channel();
        let sources = Sources::new(directory, Some(&said));
        let report = report::Report {
            client: client.clone(),
            projection: told.projection.clone(),
            reports,
            said,
            outcomes,
        };
        tokio::join!(
            api::follow(client, api, shutdown.clone()),
            assign.run(sources, shutdown.clone()),
            report.run(shutdown),
        );
    }
}
