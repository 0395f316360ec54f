//! DaemonSets: one pod of a template on each node that will have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::deployment::rollout::share;
use crate::hash;
use crate::meta::{claim, selects_all, terminating};
use crate::names::Name;
use crate::plan::{Action, Note, Plan, Told};
use crate::pods::{Availability, REVISION_HASH, availability, finished, from_template, label, node, ready};
use crate::scheduler::affinity::{admits, untolerated};
use crate::world::World;

/// A pod that failed is replaced when it is this old, so that one that fails at once does not come and go without end.
const FAILED_FOR: SignedDuration = SignedDuration::from_secs(10);
/// So many pods are made or removed before it is looked again.
const AT_ONCE: usize = 250;

/// Brings the pods of a DaemonSet nearer to what it says.
pub fn decide(world: &World, name: &Name, now: Timestamp) -> Plan {
    let Some(set) = world.daemon_sets.get(name) else {
        return Plan::default();
    };
    let Some(spec) = &set.spec else {
        return Plan::default();
    };
    if selects_all(&spec.selector) {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        let mut plan = Plan::default();
        plan.notes.push(Note::warning(&**set, "SelectingAll", message));
        return plan;
    }
    let claimed = claim(&**set, &spec.selector, &world.pods);
    if !claimed.actions.is_empty() {
        return Plan::of(claimed.actions);
    }
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in claimed.objects {
        by_node.entry(target(&pod)).or_default().push(pod);
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            // The one to keep comes first. Times are in seconds: of two as old as each other, the one that is ready.
            (node(pod).is_empty(), !ready(pod), made, pod.metadata.name.clone())
        });
    }
    let daemon = Daemon {
        world,
        set,
        spec,
        revision: hash::short(&spec.template, 0),
        by_node,
        now,
    };
    daemon.decide()
}

/// Where a DaemonSet's pod is, or is to be.
fn target(pod: &Pod) -> String {
    if !node(pod).is_empty() {
        return node(pod).to_owned();
    }
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let terms = required
        .into_iter()
        .flat_map(|required| &required.node_selector_terms);
    let mut fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let name = fields.find(|field| field.key == "metadata.name");
    let name = name.and_then(|field| field.values.as_ref()?.first().cloned());
    name.unwrap_or_default()
}

/// Whether a node is to have the pod, and whether one that is there may stay.
struct Wants {
    run: bool,
    stay: bool,
}

struct Daemon<'a> {
    world: &'a World,
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    revision: String,
    by_node: BTreeMap<String, Vec<Arc<Pod>>>,
    now: Timestamp,
}

impl Daemon<'_> {
    fn decide(&self) -> Plan {
        let mut plan = Plan::default();
        if !terminating(&self.set.metadata) {
            self.manage(&mut plan);
            if plan.actions.is_empty() {
                plan.actions = self.update();
            }
            plan.actions.truncate(AT_ONCE);
        }
        let status = self.status(&mut plan);
        plan.actions
            .extend(Action::status(self.set, self.set.status.as_ref(), &status));
        plan
    }

    /// The pod as it would be on the node of this name.
    fn pod(&self, name: &str) -> Pod {
        let mut pod = from_template(self.set, &self.spec.template);
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(REVISION_HASH.to_owned(), self.revision.clone());
        let spec = pod.spec.get_or_insert_default();
        tolerate(spec);
        pin(spec, name);
        pod
    }

    fn wants(&self, node: &Node) -> Wants {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let pod = self.pod(name);
        let spec = pod.spec.clone().unwrap_or_default();
        let named = spec
            .node_name
            .as_deref()
            .is_none_or(|wanted| wanted.is_empty() || wanted == name);
        let fits = named && admits(&spec, node);
        let free_of = |effects: &[&str]| untolerated(&pod, node, effects).next().is_none();
        Wants {
            run: fits && free_of(&["NoSchedule", "NoExecute"]),
            stay: fits && free_of(&["NoExecute"]),
        }
    }

    /// Makes missing pods and removes those that are too many, failed, or where they are not wanted.
    fn manage(&self, plan: &mut Plan) {
        for node in self.world.nodes.iter() {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let pods = self.on(name);
            let wants = self.wants(node);
            if !wants.stay {
                plan.actions.extend(
                    pods.iter()
                        .filter(|pod| !terminating(&pod.metadata))
                        .map(|pod| self.death(pod)),
                );
                continue;
            }
            let mut kept: Vec<&Arc<Pod>> = Vec::new();
            for pod in pods.iter().filter(|pod| !terminating(&pod.metadata)) {
                if finished(pod) {
                    self.replace_failed(pod, name, plan);
                } else if kept.is_empty() || self.surge() > 0 && self.is_other(pod, &kept) {
                    kept.push(pod);
                } else {
                    plan.actions.push(self.death(pod));
                }
            }
            // One that ends may still hold what the next one needs.
            if pods.is_empty() && wants.run {
                plan.actions.push(self.birth(name));
            }
        }
        // A node that is gone has no place for a pod that still waits for it.
        let known = |name: &str| self.world.nodes.get(&Name::new("", name)).is_some();
        for (name, pods) in self.by_node.iter().filter(|(name, _)| !known(name)) {
            let waiting = pods
                .iter()
                .filter(|pod| node(pod).is_empty() && !terminating(&pod.metadata));
            plan.actions.extend(waiting.map(|pod| self.death(pod)));
            tracing::trace!(node = name, "a pod's node is gone");
        }
    }

    fn replace_failed(&self, pod: &Arc<Pod>, node: &str, plan: &mut Plan) {
        let made = pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(self.now, |time| time.0);
        match made.saturating_add(FAILED_FOR) {
            Ok(at) if at > self.now => plan.again_at(at),
            _ => {
                let pod_name = Name::of(&pod.metadata);
                let message =
                    format!("Found failed daemon pod {pod_name} on node {node}, will try to kill it");
                plan.notes
                    .push(Note::warning(self.set, "FailedDaemonPod", message));
                plan.actions.push(self.death(pod));
            }
        }
    }

    /// Replaces pods of older templates, as many at once as the strategy lets.
    fn update(&self) -> Vec<Action> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return Vec::new();
        }
        let (wanted, surge) = (self.wanted(), self.surge());
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let unavailable = share(unavailable.unwrap_or(&IntOrString::Int(1)), wanted, true);
        let (mut gone, mut coming) = (0, 0);
        let (mut broken, mut old, mut to_surge) = (Vec::new(), Vec::new(), Vec::new());
        for node in self.world.nodes.iter().filter(|node| self.wants(node).run) {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let alive = |pod: &&Arc<Pod>| !terminating(&pod.metadata) && !finished(pod);
            let pods: Vec<&Arc<Pod>> = self.on(name).iter().filter(alive).collect();
            let available = pods.iter().any(|pod| self.is_available(pod));
            let newer = pods.iter().find(|pod| !self.is_old(pod));
            let older = pods.iter().find(|pod| self.is_old(pod));
            gone += i32::from(!available);
            match (older, newer) {
                (Some(older), Some(newer)) if self.is_available(newer) => broken.push(*older),
                (Some(_), Some(_)) => coming += 1,
                (Some(older), None) if !self.is_available(older) => broken.push(*older),
                (Some(older), None) => {
                    old.push(*older);
                    to_surge.push(name);
                }
                (None, _) => {}
            }
        }
        let mut actions: Vec<Action> = broken.into_iter().map(|pod| self.death(pod)).collect();
        if surge > 0 {
            let room = usize::try_from(surge - coming).unwrap_or(0);
            actions.extend(to_surge.into_iter().take(room).map(|name| self.birth(name)));
        } else {
            let room = usize::try_from(unavailable - gone).unwrap_or(0);
            actions.extend(old.into_iter().take(room).map(|pod| self.death(pod)));
        }
        actions
    }

    fn on(&self, name: &str) -> &[Arc<Pod>] {
        self.by_node.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    fn surge(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        surge.map_or(0, |surge| share(surge, self.wanted(), true))
    }

    /// Nodes that are to have a pod.
    fn wanted(&self) -> i32 {
        let nodes = self.world.nodes.iter().filter(|node| self.wants(node).run);
        i32::try_from(nodes.count()).unwrap_or(i32::MAX)
    }

    fn is_old(&self, pod: &Pod) -> bool {
        label(&pod.metadata, REVISION_HASH) != Some(&self.revision)
    }

    /// While one comes in place of the other, two are there: one of an older template, one of the newest.
    fn is_other(&self, pod: &Pod, kept: &[&Arc<Pod>]) -> bool {
        kept.iter().all(|one| self.is_old(one) != self.is_old(pod))
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        availability(pod, min_ready, self.now) == Availability::Yes
    }

    fn birth(&self, node: &str) -> Action {
        Action::create(&self.pod(node)).told(Told::about(
            self.set,
            ("SuccessfulCreate", "Created pod: {}"),
            ("FailedCreate", "Error creating: {}"),
        ))
    }

    fn death(&self, pod: &Arc<Pod>) -> Action {
        Action::delete(&**pod).told(Told::about(
            self.set,
            ("SuccessfulDelete", "Deleted pod: {}"),
            ("FailedDelete", "Error deleting: {}"),
        ))
    }

    fn status(&self, plan: &mut Plan) -> DaemonSetStatus {
        let old = self.set.status.clone().unwrap_or_default();
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: old.collision_count,
            conditions: old.conditions,
            ..DaemonSetStatus::default()
        };
        let (mut available, mut updated) = (0, 0);
        for node in self.world.nodes.iter() {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let pods = self.on(name);
            let runs = !pods.is_empty();
            if !self.wants(node).run {
                status.number_misscheduled += i32::from(runs);
                continue;
            }
            status.desired_number_scheduled += 1;
            status.current_number_scheduled += i32::from(runs);
            status.number_ready += i32::from(pods.iter().any(|pod| ready(pod)));
            updated += i32::from(pods.iter().any(|pod| !self.is_old(pod)));
            let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
            available += i32::from(pods.iter().any(|pod| self.is_available(pod)));
            for pod in pods {
                if let Availability::At(at) = availability(pod, min_ready, self.now) {
                    plan.again_at(at);
                }
            }
        }
        let nonzero = |count: i32| Some(count).filter(|count| *count > 0);
        status.number_available = nonzero(available);
        status.number_unavailable = nonzero(status.desired_number_scheduled - available);
        status.updated_number_scheduled = nonzero(updated);
        status
    }
}

/// Lets the pod stay where others may not: as upstream.
fn tolerate(spec: &mut PodSpec) {
    let tolerations = spec.tolerations.get_or_insert_default();
    let mut add = |key: &str, effect: &str| {
        let there = tolerations
            .iter()
            .any(|one| one.key.as_deref() == Some(key) && one.effect.as_deref() == Some(effect));
        if !there {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(effect.to_owned()),
                ..Toleration::default()
            });
        }
    };
    add("node.kubernetes.io/not-ready", "NoExecute");
    add("node.kubernetes.io/unreachable", "NoExecute");
    for pressure in [
        "disk-pressure",
        "memory-pressure",
        "pid-pressure",
        "unschedulable",
    ] {
        add(&format!("node.kubernetes.io/{pressure}"), "NoSchedule");
    }
    if spec.host_network == Some(true) {
        add("node.kubernetes.io/network-unavailable", "NoSchedule");
    }
}

/// Leaves one node for the pod, whatever else its affinity asks for.
fn pin(spec: &mut PodSpec, name: &str) {
    let affinity = spec
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default();
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(NodeSelector::default);
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![name.to_owned()]),
        }]);
    }
}
