//! Down: what is written of devices, compared with what nodes were told, and the difference appended to the nodes' `down`
//! streams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledge_projection::{Changes, ReadError, StoreError};
use ledge_proto::fold::view::{self, Latest};
use ledge_proto::fold::{FoldError, Table};
use ledge_proto::ids::Scope;
use ledge_proto::record::{Payload, property_key};
use ledge_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::sources::{Sources, Written};
use crate::manifests::{Assigned, Assignments, KnownNodes, Problem, Severity, resolve};
use crate::told::{TellError, Told, record};

/// Label of Nodes that are at an edge.
const EDGE: &str = "node-role.kubernetes.io/edge";
/// Before a round that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What became of devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Outcome {
    /// Node of each device that has one, by the device's key.
    pub(super) nodes: BTreeMap<String, Scope>,
    /// What is wrong, by object as in [`Problem::object`].
    pub(super) problems: BTreeMap<String, Vec<Problem>>,
    /// Whether anything was resolved yet.
    pub(super) known: bool,
}

/// Compares and appends.
#[derive(Debug)]
pub(super) struct Assign {
    pub(super) told: Told,
    pub(super) outcome: watch::Sender<Arc<Outcome>>,
}

/// What the last round was about.
#[derive(Debug)]
struct Round {
    written: Written,
    nodes: KnownNodes,
    assignments: Assignments,
}

impl Assign {
    /// Runs until `shutdown`.
    pub(super) async fn run(self, mut sources: Sources, shutdown: CancellationToken) {
        // A node that reports itself for the first time may match a selector.
        let mut feed = self.told.projection.changes(&[Table::NodeStates]);
        let mut seen = BTreeMap::new();
        let mut stale = Changes::All;
        let mut last = None;
        let mut problems = BTreeSet::new();
        loop {
            let done = self
                .round(&mut sources, &mut seen, &mut stale, &mut last, &mut problems)
                .await;
            if let Err(err) = &done {
                tracing::error!(%err, "devices cannot be assigned now; trying again");
            }
            tokio::select! {
                () = sources.changed() => {}
                changes = feed.next() => stale = add(stale, changes),
                () = tokio::time::sleep(AGAIN_AFTER), if done.is_err() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn round(
        &self,
        sources: &mut Sources,
        seen: &mut BTreeMap<String, BTreeMap<String, String>>,
        stale: &mut Changes,
        last: &mut Option<Round>,
        told: &mut BTreeSet<Problem>,
    ) -> Result<(), TellError> {
        let written = sources.now();
        self.look_at_nodes(seen, stale)?;
        *stale = Changes::Entries(BTreeSet::new());
        let mut nodes = KnownNodes(seen.clone());
        // Of a cluster's Nodes, those that are Ledge's.
        let ours =
            |name: &String, labels: &BTreeMap<_, _>| seen.contains_key(name) || labels.contains_key(EDGE);
        for (name, labels) in written.nodes.iter().filter(|(name, labels)| ours(name, labels)) {
            let known = nodes.0.entry(name.clone()).or_default();
            known.extend(labels.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        if last
            .as_ref()
            .is_some_and(|last| last.written == written && last.nodes == nodes)
        {
            return Ok(());
        }
        let assignments = resolve(&written.objects, &nodes);
        tell(written.problems.iter().chain(&assignments.problems), told);
        self.publish(&written, &assignments);
        // What fails half-way is compared anew, everything.
        let before = last.take();
        for scope in self.scopes(before.as_ref(), &assignments, &nodes)? {
            let records = self.difference(&scope, &assignments)?;
            if records.is_empty() {
                continue;
            }
            tracing::info!(node = %scope, records = records.len(), "telling the node what changed");
            self.told.tell(scope, records).await?;
        }
        *last = Some(Round {
            written,
            nodes,
            assignments,
        });
        Ok(())
    }

    /// Brings up to date which nodes ever reported, with the labels they gave.
    fn look_at_nodes(
        &self,
        seen: &mut BTreeMap<String, BTreeMap<String, String>>,
        stale: &Changes,
    ) -> Result<(), TellError> {
        let view = self.told.view();
        let scopes = match stale {
            Changes::All => view::scopes(&view).map_err(store)?,
            Changes::Entries(entries) => entries.iter().map(|entry| entry.scope.clone()).collect(),
        };
        for scope in scopes {
            let Some(name) = scope.node_name() else { continue };
            let labels = view::node(&view, &scope)?
                .map(|state| state.content.labels.into_iter().collect())
                .unwrap_or_default();
            seen.insert(name.to_owned(), labels);
        }
        Ok(())
    }

    /// Nodes that may have to be told something: those for which something else is written than in the round before, or
    /// all that have devices, or should have.
    fn scopes(
        &self,
        before: Option<&Round>,
        assignments: &Assignments,
        nodes: &KnownNodes,
    ) -> Result<BTreeSet<Scope>, TellError> {
        let names = assignments.nodes.keys();
        let Some(before) = before else {
            let known = view::scopes(&self.told.view()).map_err(store)?;
            let named = names.filter_map(|node| Scope::node(node).ok());
            return Ok(named
                .chain(known.into_iter().filter(|scope| scope.node_name().is_some()))
                .collect());
        };
        let before = &before.assignments;
        // What could not be taken away then, can be now.
        let freed = before.incomplete != assignments.incomplete || before.held != assignments.held;
        let names = names
            .chain(before.nodes.keys())
            .chain(nodes.0.keys().filter(|_| freed));
        Ok(names
            .filter(|node| freed || before.nodes.get(*node) != assignments.nodes.get(*node))
            .filter_map(|node| Scope::node(node).ok())
            .collect())
    }

    /// The records that bring the node from what it was told to what it should be told.
    fn difference(&self, scope: &Scope, assignments: &Assignments) -> Result<Vec<v1::Record>, TellError> {
        let view = self.told.view();
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

    /// For those who tell it to the API.
    fn publish(&self, written: &Written, assignments: &Assignments) {
        let mut outcome = Outcome {
            known: true,
            ..Outcome::default()
        };
        for (node, devices) in &assignments.nodes {
            if let Ok(scope) = Scope::node(node) {
                outcome
                    .nodes
                    .extend(devices.keys().map(|key| (key.clone(), scope.clone())));
            }
        }
        for problem in written.problems.iter().chain(&assignments.problems) {
            if let Some(object) = &problem.object {
                outcome
                    .problems
                    .entry(object.clone())
                    .or_default()
                    .push(problem.clone());
            }
        }
        self.outcome.send_if_modified(|current| {
            let differs = **current != outcome;
            if differs {
                *current = Arc::new(outcome);
            }
            differs
        });
    }
}

/// Both together.
fn add(before: Changes, more: Changes) -> Changes {
    match (before, more) {
        (Changes::Entries(mut before), Changes::Entries(more)) => {
            before.extend(more);
            Changes::Entries(before)
        }
        _ => Changes::All,
    }
}

fn store(err: StoreError) -> TellError {
    let err: ReadError = FoldError::Store(err);
    TellError::Read(err)
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
