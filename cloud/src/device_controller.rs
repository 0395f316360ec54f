//! The device controller: what manifests say, compared with what nodes were told, and the difference appended to
//! the nodes' `down` streams.
//!
//! What nodes were told is the projection of those very streams, so the controller keeps no state: after a restart
//! it goes on where the log ends, and an unchanged manifest appends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ledge_log::{AppendError, Log};
use ledge_projection::{Projection, ReadError, StoreError};
use ledge_proto::fold::view::{self, Latest};
use ledge_proto::fold::{FoldError, Table, folded_stream};
use ledge_proto::ids::{Lane, Position, Scope, StreamId};
use ledge_proto::record::{Payload, property_key};
use ledge_proto::v1;
use ledge_replication::reset::OwnAppends;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::manifests::{Assigned, Assignments, KnownNodes, Problem, Severity, Snapshot, resolve};

/// Nodes and their labels are looked at again at most this often.
const NODES_EVERY: Duration = Duration::from_secs(1);

/// Why a round of the controller failed; the next round tries again.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("projection: {0}")]
    Read(#[from] ReadError),
    #[error("log: {0}")]
    Append(#[from] AppendError),
    #[error("the projection no longer follows the log")]
    ProjectionStopped,
}

impl From<StoreError> for RoundError {
    fn from(err: StoreError) -> Self {
        RoundError::Read(FoldError::Store(err))
    }
}

/// Compares and appends until `shutdown`.
#[derive(Debug)]
pub struct DeviceController {
    /// The cloud's log.
    pub log: Log,
    /// Its projection.
    pub projection: Projection,
    /// Lets appends to the cloud's own streams through.
    pub appends: OwnAppends,
    /// What the manifests say.
    pub manifests: watch::Receiver<Arc<Snapshot>>,
}

impl DeviceController {
    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut applied = self.projection.subscribe();
        let mut last = None;
        let mut told = BTreeSet::new();
        loop {
            applied.borrow_and_update();
            let manifests = self.manifests.borrow_and_update().clone();
            match self.round(&manifests, &mut last, &mut told).await {
                Ok(()) => {}
                Err(err) => tracing::error!(%err, "devices cannot be assigned now; trying again"),
            }
            let pause = tokio::time::sleep(NODES_EVERY);
            tokio::select! {
                changed = self.manifests.changed() => if changed.is_err() { return },
                // A node that reports itself for the first time may match a selector.
                () = async { pause.await; applied.changed().await.ok(); } => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn round(
        &self,
        manifests: &Arc<Snapshot>,
        last: &mut Option<(Arc<Snapshot>, KnownNodes)>,
        told: &mut BTreeSet<Problem>,
    ) -> Result<(), RoundError> {
        let nodes = self.known_nodes()?;
        if last
            .as_ref()
            .is_some_and(|(m, n)| Arc::ptr_eq(m, manifests) && *n == nodes)
        {
            return Ok(());
        }
        let assignments = resolve(&manifests.objects, &nodes);
        tell(manifests.problems.iter().chain(&assignments.problems), told);
        for scope in self.scopes(&assignments)? {
            let records = self.difference(&scope, &assignments)?;
            if records.is_empty() {
                continue;
            }
            tracing::info!(node = %scope, records = records.len(), "telling the node what changed");
            let stream = StreamId::new(scope, Lane::Down);
            let appended = {
                let _through = self.appends.append().await;
                self.log.append(&stream, records).await?
            };
            self.wait_applied(&stream, appended.last).await?;
        }
        *last = Some((manifests.clone(), nodes));
        Ok(())
    }

    fn known_nodes(&self) -> Result<KnownNodes, RoundError> {
        let view = self.projection.view();
        let mut nodes = BTreeMap::new();
        for scope in view::scopes(&view)? {
            let Some(name) = scope.node_name() else { continue };
            let labels = view::node(&view, &scope)?
                .map(|state| state.content.labels)
                .unwrap_or_default();
            nodes.insert(name.to_owned(), labels);
        }
        Ok(KnownNodes(nodes))
    }

    /// Nodes that have devices, or should have.
    fn scopes(&self, assignments: &Assignments) -> Result<BTreeSet<Scope>, RoundError> {
        let mut scopes: BTreeSet<Scope> = assignments
            .nodes
            .keys()
            .filter_map(|node| Scope::node(node).ok())
            .collect();
        scopes.extend(
            view::scopes(&self.projection.view())?
                .into_iter()
                .filter(|s| s.node_name().is_some()),
        );
        Ok(scopes)
    }

    /// The records that bring the node from what it was told to what it should be told.
    fn difference(&self, scope: &Scope, assignments: &Assignments) -> Result<Vec<v1::Record>, RoundError> {
        let view = self.projection.view();
        let told: BTreeMap<String, Latest<v1::DeviceSpec>> =
            view::entries(&view, scope, Table::Devices)?.into_iter().collect();
        let told_desired: BTreeMap<String, Latest<v1::TwinDesired>> =
            view::entries(&view, scope, Table::Desired)?.into_iter().collect();
        let nothing = BTreeMap::new();
        let wanted = assignments
            .nodes
            .get(scope.node_name().unwrap_or_default())
            .unwrap_or(&nothing);
        let mut records = Vec::new();
        for key in told
            .keys()
            .filter(|key| !wanted.contains_key(*key) && assignments.may_remove(key))
        {
            records.push(record(key.clone(), &Payload::DeviceRemoved));
        }
        for (key, device) in wanted {
            if told.get(key).is_none_or(|told| told.content != device.spec) {
                records.push(record(
                    key.clone(),
                    &Payload::DeviceSpec(Box::new(device.spec.clone())),
                ));
            }
            for (property, want) in wishes(device) {
                let key = property_key(&device.spec.namespace, &device.spec.name, property);
                let have = told_desired
                    .get(&key)
                    .and_then(|told| told.content.value.as_ref());
                if want != have {
                    records.push(record(
                        key,
                        &Payload::TwinDesired(v1::TwinDesired { value: want.cloned() }),
                    ));
                }
            }
        }
        Ok(records)
    }

    /// Waits until the projection shows what was just appended, so that the next comparison sees it.
    async fn wait_applied(&self, stream: &StreamId, last: Position) -> Result<(), RoundError> {
        let mut applied = self.projection.subscribe();
        loop {
            applied.borrow_and_update();
            let folded = folded_stream(&self.projection.view(), stream)?;
            if folded.is_some_and(|folded| folded.seq >= last.seq.0) {
                return Ok(());
            }
            applied
                .changed()
                .await
                .map_err(|_| RoundError::ProjectionStopped)?;
        }
    }
}

/// Logs what is wrong with the manifests, each thing once, and what was repaired.
fn tell<'a>(problems: impl Iterator<Item = &'a Problem>, told: &mut BTreeSet<Problem>) {
    let now: BTreeSet<Problem> = problems.cloned().collect();
    for problem in now.difference(told) {
        match problem.severity {
            Severity::Info => tracing::info!("manifest {problem}"),
            Severity::Warning => tracing::warn!("manifest {problem}"),
            Severity::Error => tracing::error!("manifest {problem}"),
        }
    }
    for problem in told
        .difference(&now)
        .filter(|problem| problem.severity != Severity::Info)
    {
        tracing::info!("manifest repaired: {problem}");
    }
    *told = now;
}

/// What each property should be, if anything; a wish that is there but wrong leaves what was told in force.
fn wishes(device: &Assigned) -> impl Iterator<Item = (&str, Option<&v1::Value>)> {
    let told = device
        .spec
        .properties
        .iter()
        .map(|property| property.name.as_str());
    told.filter(|name| !device.held_desired.contains(*name))
        .map(|name| (name, device.desired.get(name)))
}

fn record(key: String, payload: &Payload) -> v1::Record {
    let (kind, payload) = payload.encode();
    let wall_us = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    v1::Record {
        kind,
        key,
        wall_us,
        payload: payload.into(),
        ..Default::default()
    }
}
