//! Pods of nodes that are no more.
//!
//! A node without a link keeps its pods for as long as its Node object is there, whatever its conditions and taints say.

use crate::names::Name;
use crate::plan::{Action, Plan};
use crate::pods::{condition, node};
use crate::world::World;

/// Removes the pods of a node whose Node object is gone: there is nobody to end them. A pod that names a node which was
/// never there waits for it.
pub fn decide(world: &World, name: &str) -> Plan {
    if world.nodes.get(&Name::new("", name)).is_some() {
        return Plan::default();
    }
    let was_there = |pod: &k8s_openapi::api::core::v1::Pod| {
        condition(pod, "PodScheduled").is_some_and(|scheduled| scheduled.status == "True")
    };
    let strays = world
        .pods
        .iter()
        .filter(|pod| node(pod) == name && was_there(pod));
    Plan::of(strays.map(|pod| Action::delete_now(&**pod)).collect())
}
