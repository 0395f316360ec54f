//! Up: what is known of devices, written to the API on change only. The first change is written at once, further ones
//! together once in the device's report cycle; a loss of the link and its return do not wait. What a node told while it
//! was away does not wait either: when all of it is known, its devices are written. Nor does the first value of a property,
//! or the first state of a device.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use ledge_crds::devices::{GROUP, VERSION};
use ledge_projection::{Changes, Projection, ReadError};
use ledge_proto::fold::{Table, view};
use ledge_proto::ids::Scope;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::{Said, Which};
use super::assign::Outcome;
use super::plan::{DEFAULT_CYCLE, Plan, Wrote};
use super::status::{self, Known};
use super::{Behind, MANAGER, Reports};
use crate::manifests::{Kind, ObjectKey};

/// Devices written at once.
const AT_ONCE: usize = 32;
/// As many of one node are read in one go.
const READ_TOGETHER: usize = 8;
/// Bounds of what counts as a report cycle here.
const SHORTEST_CYCLE: Duration = Duration::from_secs(1);
const LONGEST_CYCLE: Duration = Duration::from_secs(60);
/// What a node told while it was away is known within this time, as a rule: one write then says that the link is back, and
/// what there is. While it is not, it is looked at again after this time.
const CATCHES_UP: Duration = Duration::from_millis(100);
/// By then every node had the time to connect to a cloudcore that just started.
const EVERYBODY_AFTER: Duration = Duration::from_secs(65);

/// Writes what is known of devices.
pub(super) struct Report {
    pub(super) client: Client,
    pub(super) projection: Projection,
    pub(super) reports: Arc<dyn Reports>,
    pub(super) said: Said,
    pub(super) outcomes: watch::Receiver<Arc<Outcome>>,
}

impl Report {
    /// Runs until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let tables = [
            Table::Reported,
            Table::DeviceStates,
            Table::Devices,
            Table::Desired,
        ];
        let mut feed = self.projection.changes(&tables);
        let mut links = self.reports.changes();
        let mut plan = Plan::new();
        let mut outcome = self.outcomes.borrow_and_update().clone();
        let everybody = plan.started + EVERYBODY_AFTER;
        let mut waited_for_everybody = false;
        loop {
            let next = plan.next();
            tokio::select! {
                () = shutdown.cancelled() => return,
                keys = self.said.touched() => keys.into_iter().for_each(|key| plan.touch(key, false)),
                changes = feed.next() => match changes {
                    Changes::All => self.touch_all(&mut plan),
                    Changes::Entries(entries) => {
                        for entry in entries {
                            if let Some(key) = device_of(entry.table, &entry.key) {
                                let first = self.is_first(entry.table, &entry.key) && !plan.fails(key);
                                plan.touch(key.to_owned(), first);
                            }
                        }
                    }
                },
                event = links.recv() => match event {
                    Ok(node) => {
                        let nodes = drained(&mut links, node).unwrap_or_else(|| all_nodes(&outcome));
                        self.links_changed(nodes, &outcome, &mut plan);
                    }
                    Err(RecvError::Lagged(_)) => self.links_changed(all_nodes(&outcome), &outcome, &mut plan),
                    Err(RecvError::Closed) => return,
                },
                changed = self.outcomes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = self.outcomes.borrow_and_update().clone();
                    let differing = differing(&outcome, &now);
                    let nodes = differing.iter().filter_map(|key| now.nodes.get(key).cloned());
                    self.links_changed(nodes.collect(), &now, &mut plan);
                    differing.into_iter().for_each(|key| plan.touch(key, true));
                    outcome = now;
                }
                () = until(plan.look) => self.look_at_returned(&outcome, &mut plan),
                () = sleep_until(everybody), if !waited_for_everybody => {
                    waited_for_everybody = true;
                    self.touch_all(&mut plan);
                }
                () = until(next) => self.write(&mut plan, &outcome).await,
            }
        }
    }

    /// Whether an entry is of what the API shows nothing of yet: whoever makes a device does not wait for a report cycle to
    /// see that it is there.
    fn is_first(&self, table: Table, key: &str) -> bool {
        let (device, property) = match table {
            Table::DeviceStates => (key, None),
            Table::Reported => match key.rsplit_once('/') {
                Some((device, property)) => (device, Some(property)),
                None => return false,
            },
            _ => return false,
        };
        let Some((object, report)) = self.said.device(device) else {
            return false;
        };
        let of_property = |list: &Value, name: &str, property: &str| {
            let list = list.as_array().into_iter().flatten();
            let mut found = list.filter(|one| one[name] == property);
            found.next().cloned()
        };
        match property {
            None => object.data["status"]["state"].is_null(),
            // One that is not in the manifest is not shown.
            Some(property) if of_property(&object.data["spec"]["properties"], "name", property).is_some() => {
                let twins = report.as_ref().map(|report| &report.data["status"]["twins"]);
                let twin = twins.and_then(|twins| of_property(twins, "propertyName", property));
                twin.is_none_or(|twin| twin["reported"].is_null())
            }
            Some(_) => false,
        }
    }

    fn touch_all(&self, plan: &mut Plan) {
        self.said
            .devices()
            .into_iter()
            .for_each(|key| plan.touch(key, false));
    }

    /// These nodes are connected, or no longer, or told something ahead of their history.
    fn links_changed(&self, nodes: BTreeSet<Scope>, outcome: &Outcome, plan: &mut Plan) {
        let now = Instant::now();
        let (back, others): (BTreeSet<Scope>, _) = nodes
            .into_iter()
            .partition(|node| self.reports.is_catching_up(node));
        plan.catching_up.retain(|node| !others.contains(node));
        for (nodes, due) in [(&back, now + CATCHES_UP), (&others, now)] {
            of_nodes(outcome, nodes)
                .into_iter()
                .for_each(|key| plan.plan(key, due));
        }
        if !back.is_empty() {
            plan.look = plan.look.or(Some(now + CATCHES_UP));
            plan.catching_up.extend(back);
        }
    }

    /// Plans the devices of nodes of which all is known now that they told while they were away.
    fn look_at_returned(&self, outcome: &Outcome, plan: &mut Plan) {
        let now = Instant::now();
        let (still, known): (BTreeSet<Scope>, _) = std::mem::take(&mut plan.catching_up)
            .into_iter()
            .partition(|node| self.reports.is_catching_up(node));
        of_nodes(outcome, &known)
            .into_iter()
            .for_each(|key| plan.plan(key, now));
        plan.look = (!still.is_empty()).then_some(now + CATCHES_UP);
        plan.catching_up = still;
    }

    /// Writes what is due.
    async fn write(&self, plan: &mut Plan, outcome: &Outcome) {
        let keys = plan.take();
        if !self.said.is_whole() || !outcome.known {
            // Every device is touched when it is.
            return;
        }
        let mut of_node: BTreeMap<Option<Scope>, Vec<String>> = BTreeMap::new();
        for key in keys {
            of_node.entry(self.node_of(&key, outcome)).or_default().push(key);
        }
        let mut devices = Vec::new();
        for (node, keys) in of_node {
            let read = self.read(node.as_ref(), &keys);
            match read {
                Ok(mut read) => {
                    for key in keys {
                        let device = read.remove(&key).unwrap_or_default();
                        devices.push((key, node.clone(), device));
                    }
                }
                Err(err) => {
                    tracing::error!(%err, "devices cannot be read now; trying again");
                    keys.into_iter().for_each(|key| plan.again(key));
                }
            }
        }
        let plans: &Plan = plan;
        let wrote: Vec<(String, Duration, Wrote)> = futures::stream::iter(devices)
            .map(|(key, node, device)| async move {
                let not_before = plans.times_not_before(&key);
                let wrote = self
                    .write_one(&key, node.as_ref(), &device, outcome, not_before)
                    .await;
                (key, cycle_of(&device), wrote)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (key, cycle, wrote) in wrote {
            plan.wrote(key, cycle, wrote);
        }
    }

    /// The node a device is at: because of what is written now, or as it was before.
    fn node_of(&self, key: &str, outcome: &Outcome) -> Option<Scope> {
        outcome.nodes.get(key).cloned().or_else(|| {
            let (object, _) = self.said.device(key)?;
            Scope::node(object.data["status"]["node"].as_str()?).ok()
        })
    }

    fn read(
        &self,
        node: Option<&Scope>,
        keys: &[String],
    ) -> Result<BTreeMap<String, view::Device>, ReadError> {
        let Some(node) = node else {
            return Ok(BTreeMap::new());
        };
        if keys.len() >= READ_TOGETHER {
            return self.reports.devices(node);
        }
        let read = keys
            .iter()
            .map(|key| Ok((key.clone(), self.reports.device(node, key)?)));
        read.collect()
    }

    async fn write_one(
        &self,
        key: &str,
        node: Option<&Scope>,
        device: &view::Device,
        outcome: &Outcome,
        times_not_before: Instant,
    ) -> Wrote {
        let (Some((object, report)), Some((namespace, name))) = (self.said.device(key), key.split_once('/'))
        else {
            return Wrote::Gone;
        };
        if object.metadata.deletion_timestamp.is_some() {
            return Wrote::Nothing;
        }
        let value = serde_json::to_value(&*object).unwrap_or_default();
        let object_key = ObjectKey {
            kind: Kind::Device,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let resolved = outcome.nodes.contains_key(key);
        // Where it was before, as long as that node was not told that it is gone.
        let node = node.filter(|_| resolved || device.spec.is_some());
        let known = Known {
            object: &value,
            node,
            resolved,
            problems: outcome
                .problems
                .get(&object_key.to_string())
                .map(Vec::as_slice)
                .unwrap_or_default(),
            device,
            behind: node.map_or(Behind::No, |node| self.reports.behind(node)),
            now: SystemTime::now(),
        };
        let own = status::of_device(&known);
        let current = report
            .as_ref()
            .map_or(&Value::Null, |report| &report.data["status"]);
        let reported = Value::Object(status::report(device, current));
        // Nothing was ever said of a device that no node has: then there is nothing to show.
        let reports = device.spec.is_some() && reported != *current;
        if own.is_empty() && !reports {
            return Wrote::Nothing;
        }
        let only_times = own
            .keys()
            .all(|name| ["reportedAt", "lastOnlineTime"].contains(&name.as_str()))
            && (!reports || status::substance(&reported) == status::substance(current));
        if only_times && Instant::now() < times_not_before {
            return Wrote::Times(times_not_before);
        }
        let mut done = Ok(());
        if reports {
            done = self.write_report(&object, report.is_some(), reported).await;
        }
        if done.is_ok() && !own.is_empty() {
            done = self.write_own(&object, own).await;
        }
        match done {
            Ok(()) => Wrote::Something,
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Wrote::Failed,
            Err(err) => {
                tracing::warn!(device = key, %err, "what is known of the device cannot be written now; trying again");
                Wrote::Failed
            }
        }
    }

    /// The status of the `Device` itself.
    async fn write_own(&self, object: &DynamicObject, status: Map<String, Value>) -> Result<(), kube::Error> {
        let patch = json!({
            "metadata": {"resourceVersion": object.metadata.resource_version},
            "status": status,
        });
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let api = self.api(Which::Device, object);
        let written = api.patch(name, &params(), &Patch::Merge(&patch)).await?;
        self.said.wrote(Which::Device, written);
        Ok(())
    }

    /// The `DeviceStatus` of the device, made when there is none.
    async fn write_report(
        &self,
        device: &DynamicObject,
        exists: bool,
        status: Value,
    ) -> Result<(), kube::Error> {
        let name = device.metadata.name.as_deref().unwrap_or_default();
        let api = self.api(Which::Status, device);
        let written = if exists {
            let patch = json!({"status": status});
            api.patch(name, &params(), &Patch::Merge(&patch)).await?
        } else {
            let whole = json!({
                "apiVersion": format!("{GROUP}/{VERSION}"),
                "kind": "DeviceStatus",
                "metadata": {
                    "name": name,
                    "namespace": device.metadata.namespace,
                    "ownerReferences": [{
                        "apiVersion": format!("{GROUP}/{VERSION}"),
                        "kind": "Device",
                        "name": name,
                        "uid": device.metadata.uid,
                    }],
                },
                "spec": {},
                "status": status,
            });
            let whole: DynamicObject = serde_json::from_value(whole).map_err(kube::Error::SerdeError)?;
            let params = PostParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PostParams::default()
            };
            api.create(&params, &whole).await?
        };
        self.said.wrote(Which::Status, written);
        Ok(())
    }

    fn api(&self, which: Which, device: &DynamicObject) -> kube::Api<DynamicObject> {
        let mut followed = which.followed();
        followed.namespace = device.metadata.namespace.clone().unwrap_or_default();
        followed.api(self.client.clone())
    }
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// All nodes that are told of now, beginning with `first`; `None`: too many to be told.
fn drained(links: &mut broadcast::Receiver<Scope>, first: Scope) -> Option<BTreeSet<Scope>> {
    let mut nodes = BTreeSet::from([first]);
    loop {
        match links.try_recv() {
            Ok(node) => {
                nodes.insert(node);
            }
            Err(TryRecvError::Lagged(_)) => return None,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(nodes),
        }
    }
}

fn all_nodes(outcome: &Outcome) -> BTreeSet<Scope> {
    outcome.nodes.values().cloned().collect()
}

fn of_nodes(outcome: &Outcome, nodes: &BTreeSet<Scope>) -> Vec<String> {
    let of = outcome.nodes.iter().filter(|(_, node)| nodes.contains(*node));
    of.map(|(key, _)| key.clone()).collect()
}

/// Devices of which another thing is known than before.
fn differing(before: &Outcome, now: &Outcome) -> BTreeSet<String> {
    let devices = |problems: &str| problems.strip_prefix("Device ").map(str::to_owned);
    let mut keys = BTreeSet::new();
    for (one, other) in [(before, now), (now, before)] {
        let moved = one
            .nodes
            .iter()
            .filter(|(key, node)| other.nodes.get(*key) != Some(*node));
        keys.extend(moved.map(|(key, _)| key.clone()));
        let wrong = one
            .problems
            .iter()
            .filter(|(key, found)| other.problems.get(*key) != Some(*found));
        keys.extend(wrong.filter_map(|(key, _)| devices(key)));
    }
    keys
}

/// The device an entry is about.
fn device_of(table: Table, key: &str) -> Option<&str> {
    match table {
        Table::Devices | Table::DeviceStates => Some(key),
        _ => Some(key.rsplit_once('/')?.0),
    }
}

/// The shortest report cycle of the device's properties, within bounds.
fn cycle_of(device: &view::Device) -> Duration {
    let properties = device
        .spec
        .as_ref()
        .map(|spec| spec.content.properties.as_slice());
    let shortest = properties
        .unwrap_or_default()
        .iter()
        .map(|property| Duration::from_millis(property.report_cycle_ms))
        .min();
    shortest
        .unwrap_or(DEFAULT_CYCLE)
        .clamp(SHORTEST_CYCLE, LONGEST_CYCLE)
}
