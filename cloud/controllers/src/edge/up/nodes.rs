//! Nodes in the API: made when they report themselves, Ready while their link is up.
//!
//! A node that loses its link keeps everything: it becomes Unknown and takes nothing new (a taint without eviction).
//! When it is back, it is Ready, and nothing is made again. What another writer made of it meanwhile is put right.

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use ledge_projection::Changes;
use ledge_proto::fold::{FoldError, Table, view};
use ledge_proto::ids::Scope;
use ledge_proto::record::object_key;
use ledge_proto::v1;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::status::{labels, metadata_patch, says, stamp, status};
use super::{UpError, stands};
use crate::Controllers;
use crate::edge::seen::{Paced, Seen, until};
use crate::told::Told;

/// A link that is back within this time was never away, for the API.
const GRACE: Duration = Duration::from_secs(5);
/// Nodes have this long to come back after cloudcore started.
const GRACE_AT_START: Duration = Duration::from_secs(40);
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 64;
const LEASES: &str = "kube-node-lease";
const MANAGER: &str = "ledge-edge-controller";
/// What is known of the node, and how old that is.
const KNOWN: &str = "ledge.kubeedge.io/known";

/// How long a lease lasts, and how often it is renewed. A cluster's controllers take a node for lost after 40 s; where
/// there are none, a renewal would only be a record in the log.
fn lease_times(in_cluster: bool) -> (i32, Duration) {
    match in_cluster {
        true => (40, Duration::from_secs(10)),
        false => (3600, Duration::from_secs(1200)),
    }
}

/// Keeps Nodes as their nodes are until `shutdown`.
pub(crate) async fn run(controllers: Controllers, seen: Seen, shutdown: CancellationToken) {
    let mut feed = controllers
        .told
        .projection
        .changes(&[Table::NodeStates, Table::KubeStatuses]);
    let mut links = controllers.links.changes();
    let mut nodes = Nodes {
        controllers,
        all: BTreeMap::new(),
        wrong: Paced::new(),
        started: Instant::now(),
    };
    loop {
        let next = nodes.next_due();
        tokio::select! {
            objects = seen.nodes.take() => nodes.seen(&objects),
            () = until(nodes.wrong.next()) => nodes.put_right(),
            changes = feed.next() => nodes.changed(changes),
            changed = links.changed() => match changed {
                Ok(()) => nodes.links_changed(),
                Err(_) => return,
            },
            () = until(next) => {}
            () = shutdown.cancelled() => return,
        }
        nodes.look().await;
    }
}

struct Nodes {
    controllers: Controllers,
    all: BTreeMap<Scope, Known>,
    /// Nodes that another writer changed.
    wrong: Paced<Scope>,
    started: Instant,
}

/// What is to be done about a node.
#[derive(Debug, Clone)]
struct Known {
    /// Look at it then.
    due: Option<Instant>,
    link: LinkState,
    lease_due: Option<Instant>,
    /// What was written last.
    written: Option<Written>,
}

/// What is written of a node.
#[derive(Debug, Clone, PartialEq)]
struct Written {
    status: Value,
    labels: BTreeMap<String, String>,
    ready: bool,
}

impl Written {
    /// Whether the Node still says so.
    fn is_in(&self, node: &Value) -> bool {
        // What is no Node is not looked at again.
        let Ok(typed) = serde_json::from_value::<Node>(node.clone()) else {
            return true;
        };
        stands(&node["status"], &self.status)
            && metadata_patch(&typed, self.labels.clone(), self.ready).is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Up,
    /// Gone, or not seen yet; it counts as lost from then on.
    Away(Instant),
}

impl Nodes {
    fn next_due(&self) -> Option<Instant> {
        let due = |known: &Known| [known.due, known.lease_due].into_iter().flatten().min();
        self.all.values().filter_map(due).min()
    }

    fn changed(&mut self, changes: Changes) {
        let scopes = match changes {
            Changes::All => match view::scopes(&self.controllers.told.view()).map_err(FoldError::Store) {
                Ok(scopes) => scopes.into_iter().collect(),
                Err(err) => {
                    tracing::error!(%err, "nodes cannot be read");
                    return;
                }
            },
            Changes::Entries(entries) => entries
                .into_iter()
                .filter(|entry| entry.table == Table::NodeStates || entry.key.starts_with("/nodes/"))
                .map(|entry| entry.scope)
                .collect::<BTreeSet<Scope>>(),
        };
        for scope in scopes {
            if scope.node_name().is_some() {
                self.touch(&scope);
            }
        }
    }

    fn touch(&mut self, scope: &Scope) {
        let link = self.link_of(scope, None);
        let known = self.all.entry(scope.clone()).or_insert(Known {
            due: None,
            link,
            lease_due: (link == LinkState::Up).then(Instant::now),
            written: None,
        });
        let now = Instant::now();
        known.due = Some(now);
        if known.link == LinkState::Up {
            known.lease_due = known.lease_due.or(Some(now));
        }
    }

    /// Somebody wrote these Nodes, perhaps this controller.
    fn seen(&mut self, nodes: &BTreeMap<String, Value>) {
        for node in nodes.values() {
            let Some(scope) = node["metadata"]["name"]
                .as_str()
                .and_then(|name| Scope::node(name).ok())
            else {
                continue;
            };
            let known = self.all.get(&scope);
            let written = known.and_then(|known| known.written.as_ref());
            // What was never written will be as soon as its node is heard.
            if written.is_some_and(|written| !written.is_in(node)) {
                self.wrong.add(scope);
            }
        }
    }

    fn put_right(&mut self) {
        let now = Instant::now();
        for scope in self.wrong.take() {
            if let Some(known) = self.all.get_mut(&scope) {
                known.due = Some(known.due.map_or(now, |due| due.min(now)));
            }
        }
    }

    fn links_changed(&mut self) {
        let scopes: Vec<Scope> = self.all.keys().cloned().collect();
        for scope in scopes {
            let Some(before) = self.all.get(&scope).map(|known| known.link) else {
                continue;
            };
            let link = self.link_of(&scope, Some(before));
            if let Some(known) = self.all.get_mut(&scope).filter(|_| link != before) {
                known.link = link;
                let now = Instant::now();
                (known.due, known.lease_due) = match link {
                    LinkState::Up => (Some(now), Some(now)),
                    LinkState::Away(lost) => (Some(known.due.map_or(lost, |due| due.min(lost))), None),
                };
            }
        }
    }

    fn link_of(&self, scope: &Scope, before: Option<LinkState>) -> LinkState {
        let link = self.controllers.links.link(scope);
        match (link, before) {
            (Some(link), _) if link.connected => LinkState::Up,
            (_, Some(LinkState::Away(lost))) => LinkState::Away(lost),
            (None, None) => LinkState::Away(self.started + GRACE_AT_START),
            _ => LinkState::Away(Instant::now() + GRACE),
        }
    }

    /// Brings every Node that is due to what it should be.
    async fn look(&mut self) {
        let now = Instant::now();
        let due = |when: Option<Instant>| when.is_some_and(|when| when <= now);
        let nodes: Vec<(Scope, Known)> = self
            .all
            .iter()
            .filter(|(_, known)| due(known.due) || due(known.lease_due))
            .map(|(scope, known)| (scope.clone(), known.clone()))
            .collect();
        let controllers = &self.controllers;
        let rounds = nodes.into_iter().map(|(scope, mut known)| async move {
            let outcome = round(controllers, &scope, &mut known, now).await;
            (scope, known, outcome)
        });
        let outcomes: Vec<_> = stream::iter(rounds).buffer_unordered(AT_ONCE).collect().await;
        for (scope, mut known, outcome) in outcomes {
            if let Err(err) = outcome {
                let pause = if err.is_conflict() {
                    Duration::ZERO
                } else {
                    AGAIN_AFTER
                };
                tracing::warn!(node = %scope, %err, "its Node is not up to date; trying again");
                let again = Instant::now() + pause;
                known.due = Some(again);
                known.lease_due = known.lease_due.map(|due| due.max(again));
            }
            self.all.insert(scope, known);
        }
    }
}

async fn round(
    controllers: &Controllers,
    scope: &Scope,
    known: &mut Known,
    now: Instant,
) -> Result<(), UpError> {
    let api: Api<Node> = Api::all(controllers.client.clone());
    let Some(name) = scope.node_name() else {
        return Ok(());
    };
    let mut uid = None;
    if known.due.is_some_and(|due| due <= now) {
        known.due = None;
        let view = controllers.told.view();
        // A node that never reported itself has no Node of its own making.
        let Some(state) = view::node(&view, scope)?.map(|state| state.content) else {
            known.lease_due = None;
            return Ok(());
        };
        let ready = match known.link {
            LinkState::Up => true,
            LinkState::Away(lost) if lost > now => {
                // Neither the one nor the other yet: what the API says stays.
                known.due = Some(lost);
                return Ok(());
            }
            LinkState::Away(_) => false,
        };
        let node = match api.get_opt(name).await? {
            Some(node) => node,
            // Whoever deleted it does not want it back while it is away.
            None if !ready => return Ok(()),
            None => {
                known.written = None;
                let node = new(name, &state);
                tracing::info!(node = name, "registering the node");
                api.create(&PostParams::default(), &node).await?
            }
        };
        uid = node.metadata.uid.clone();
        bring_up_to_date(&api, controllers, scope, &node, &state, ready, known).await?;
    }
    if known.lease_due.is_some_and(|due| due <= now) {
        let (seconds, every) = lease_times(!controllers.every_node);
        known.lease_due = Some(now + every);
        if let Err(err) = renew(controllers, name, uid, seconds).await {
            known.lease_due = Some(now + AGAIN_AFTER);
            return Err(err);
        }
    }
    Ok(())
}

/// A Node as a node registers itself.
fn new(name: &str, state: &v1::NodeState) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node.metadata.labels = Some(labels(name, state));
    node
}

async fn bring_up_to_date(
    api: &Api<Node>,
    controllers: &Controllers,
    scope: &Scope,
    node: &Node,
    state: &v1::NodeState,
    ready: bool,
    known: &mut Known,
) -> Result<(), UpError> {
    let name = scope.node_name().unwrap_or_default();
    let key = object_key("", "nodes", "", name);
    let told: Option<v1::KubeStatus> =
        Told::entry(&controllers.told.view(), scope, Table::KubeStatuses, &key)?;
    let reported: Value = match &told {
        Some(told) => serde_json::from_slice(&told.json)?,
        None => json!({}),
    };
    let link = controllers.links.link(scope);
    let age = link.map(|link| link.age);
    if let Some(patch) = metadata_patch(node, labels(name, state), ready) {
        api.patch(name, &params(), &Patch::Merge(&patch)).await?;
    }
    let wanted = Written {
        status: status(reported, state, ready),
        labels: labels(name, state),
        ready,
    };
    let current = serde_json::to_value(&node.status)?;
    let annotations = node.metadata.annotations.as_ref();
    let there = match &known.written {
        Some(written) => *written == wanted && stands(&current, &wanted.status),
        // After a start: somebody wrote it before.
        None => annotations.is_some_and(|all| all.contains_key(KNOWN)) && says(&current, &wanted.status),
    };
    if there {
        known.written = Some(wanted);
        return Ok(());
    }
    let stamped = stamp(wanted.status.clone(), &current, &Timestamp::now().to_string());
    api.patch_status(name, &params(), &Patch::Strategic(&json!({"status": stamped})))
        .await?;
    let heard = age
        .map(|age| Timestamp::now() - age)
        .map(|heard| heard.to_string());
    let lag = link.map_or(0.0, |link| link.lag.as_secs_f64());
    let knowledge = json!({"ready": ready, "heard": heard, "lagSeconds": lag}).to_string();
    let patch = json!({"metadata": {"annotations": {KNOWN: knowledge}}});
    api.patch(name, &params(), &Patch::Merge(&patch)).await?;
    known.written = Some(wanted);
    Ok(())
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

async fn renew(
    controllers: &Controllers,
    name: &str,
    uid: Option<String>,
    seconds: i32,
) -> Result<(), UpError> {
    let api: Api<Lease> = Api::namespaced(controllers.client.clone(), LEASES);
    let now = MicroTime(Timestamp::now());
    let renewed =
        json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": now}});
    match api.patch(name, &params(), &Patch::Merge(&renewed)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        outcome => return outcome.map(|_| ()).map_err(UpError::from),
    }
    let mut lease: Lease = serde_json::from_value(renewed)?;
    lease.metadata.name = Some(name.to_owned());
    if let Some(uid) = uid {
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]);
        lease.metadata.owner_references = serde_json::from_value(owner)?;
    }
    api.create(&PostParams::default(), &lease).await?;
    Ok(())
}
