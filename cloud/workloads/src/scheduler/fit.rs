//! Finds the node for a pod.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::affinity::{admits, preference, untolerated};
use super::requests::{Amounts, HostPort, add, host_ports, of_node, of_pod};
use crate::meta::controller_of;
use crate::pods::{finished, node};
use crate::world::World;

/// All nodes and what is taken of them.
#[derive(Debug)]
pub struct Nodes {
    nodes: Vec<Room>,
}

/// A node, what it has and what is taken of it.
#[derive(Debug)]
struct Room {
    node: Arc<Node>,
    has: Amounts,
    taken: Amounts,
    /// What is taken when pods that ask for nothing count too.
    load: Amounts,
    pods: i128,
    ports: BTreeSet<HostPort>,
    /// Pods by the UID of their controller.
    siblings: BTreeMap<String, i128>,
}

impl Room {
    fn take(&mut self, pod: &Pod) {
        add(&mut self.taken, &of_pod(pod, false));
        add(&mut self.load, &of_pod(pod, true));
        self.pods += 1;
        self.ports.extend(host_ports(pod));
        if let Some(owner) = controller_of(&pod.metadata) {
            *self.siblings.entry(owner.uid.clone()).or_default() += 1;
        }
    }

    fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// Why the pod cannot be here, in upstream's words and order.
    fn refuses(&self, pod: &Pod, spec: &PodSpec, asks: &Amounts, ports: &BTreeSet<HostPort>) -> Vec<String> {
        let one = |why: &str| vec![why.to_owned()];
        if !self.is_schedulable(spec) {
            return one("node(s) were unschedulable");
        }
        if untolerated(pod, &self.node, &["NoSchedule", "NoExecute"])
            .next()
            .is_some()
        {
            return one("node(s) had untolerated taint(s)");
        }
        if !admits(spec, &self.node) {
            return one("node(s) didn't match Pod's node affinity/selector");
        }
        if ports
            .iter()
            .any(|port| self.ports.iter().any(|taken| collide(port, taken)))
        {
            return one("node(s) didn't have free ports for the requested pod ports");
        }
        self.lacks(asks)
    }

    fn is_schedulable(&self, spec: &PodSpec) -> bool {
        let closed = self.node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        let taint = k8s_openapi::api::core::v1::Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        };
        !closed || super::affinity::tolerated(&taint, spec.tolerations.as_deref().unwrap_or_default())
    }

    /// Resources that are not left.
    fn lacks(&self, asks: &Amounts) -> Vec<String> {
        let mut lacks = Vec::new();
        if self
            .has
            .get("pods")
            .is_some_and(|most| (self.pods + 1) * 1000 > *most)
        {
            lacks.push("Too many pods".to_owned());
        }
        for (name, amount) in asks.iter().filter(|(_, amount)| **amount > 0) {
            let has = match self.has.get(name) {
                Some(has) => *has,
                // It does not say how much it has of what every node has.
                None if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") => continue,
                None => 0,
            };
            let taken = self.taken.get(name).copied().unwrap_or(0);
            if taken.saturating_add(*amount) > has {
                lacks.push(format!("Insufficient {name}"));
            }
        }
        lacks
    }

    /// What is taken of processor and memory, in millionths, with `more`.
    fn load_with(&self, more: &Amounts) -> i128 {
        let part = |name: &str| {
            let has = self.has.get(name).copied().filter(|has| *has > 0);
            let amount = |from: &Amounts| from.get(name).copied().unwrap_or(0);
            let taken = amount(&self.load).saturating_add(amount(more));
            has.map_or(0, |has| taken.saturating_mul(1_000_000) / has)
        };
        (part("cpu") + part("memory")) / 2
    }
}

/// Whether two ports cannot be had together: an address that is every address collides with each.
fn collide(a: &HostPort, b: &HostPort) -> bool {
    let any = |address: &str| matches!(address, "0.0.0.0" | "::");
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || any(&a.1) || any(&b.1))
}

impl Nodes {
    /// The nodes of `world` with the pods that they have.
    pub fn of(world: &World) -> Nodes {
        let mut nodes: Vec<Room> = world
            .nodes
            .iter()
            .map(|node| Room {
                has: of_node(node),
                node: Arc::clone(node),
                taken: Amounts::new(),
                load: Amounts::new(),
                pods: 0,
                ports: BTreeSet::new(),
                siblings: BTreeMap::new(),
            })
            .collect();
        // The world has them by name.
        for pod in world.pods.iter().filter(|pod| !finished(pod)) {
            if let Ok(nth) = nodes.binary_search_by(|room| room.name().cmp(node(pod))) {
                nodes[nth].take(pod);
            }
        }
        Nodes { nodes }
    }

    /// Takes the best node for `pod` and gives its name.
    ///
    /// # Errors
    /// Why no node will do, such as `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).`
    pub fn place(&mut self, _world: &World, pod: &Pod) -> Result<String, String> {
        if self.nodes.is_empty() {
            return Err("no nodes available to schedule pods".to_owned());
        }
        let spec = pod.spec.clone().unwrap_or_default();
        let (asks, load, ports) = (of_pod(pod, false), of_pod(pod, true), host_ports(pod));
        let owner = controller_of(&pod.metadata)
            .map(|owner| owner.uid.clone())
            .unwrap_or_default();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut best = None;
        for (nth, room) in self.nodes.iter().enumerate() {
            let refused = room.refuses(pod, &spec, &asks, &ports);
            if !refused.is_empty() {
                for why in refused {
                    *reasons.entry(why).or_default() += 1;
                }
                continue;
            }
            let disliked = untolerated(pod, &room.node, &["PreferNoSchedule"]).count();
            let score = (
                disliked,
                Reverse(preference(&spec, &room.node)),
                room.load_with(&load),
                room.siblings.get(&owner).copied().unwrap_or(0),
                room.pods,
            );
            if best.as_ref().is_none_or(|(_, least)| score < *least) {
                best = Some((nth, score));
            }
        }
        let Some((nth, _)) = best else {
            return Err(self.explain(&reasons));
        };
        let room = &mut self.nodes[nth];
        room.take(pod);
        Ok(room.name().to_owned())
    }

    fn explain(&self, reasons: &BTreeMap<String, usize>) -> String {
        let mut told: Vec<String> = reasons
            .iter()
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        told.sort();
        format!("0/{} nodes are available: {}.", self.nodes.len(), told.join(", "))
    }
}
