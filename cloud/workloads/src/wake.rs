//! Which tasks a change concerns.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::{controller_of, selects};
use crate::names::{Name, Task};
use crate::pods;
use crate::scheduler;
use crate::world::World;

/// A kind whose changes concern tasks.
pub trait Wake: Sized {
    /// Adds what the change from `before` to `after` concerns to `tasks`; `world` is what it is after the change.
    fn wake(before: Option<&Self>, after: Option<&Self>, world: &World, tasks: &mut BTreeSet<Task>);
}

/// The task of an object of `kind`, as its dependents name it.
fn task(kind: &str, name: Name) -> Option<Task> {
    Some(match kind {
        "Deployment" => Task::Deployment(name),
        "ReplicaSet" => Task::ReplicaSet(name),
        _ => return None,
    })
}

/// Wakes the object's controller.
fn wake_controller(metadata: &ObjectMeta, tasks: &mut BTreeSet<Task>) {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let owner = controller_of(metadata);
    tasks.extend(owner.and_then(|owner| task(&owner.kind, Name::new(namespace, &owner.name))));
}

/// The metadata of what is there before and after a change.
fn both<'a, K: k8s_openapi::Metadata<Ty = ObjectMeta> + 'a>(
    before: Option<&'a K>,
    after: Option<&'a K>,
) -> impl Iterator<Item = &'a ObjectMeta> {
    before.into_iter().chain(after).map(K::metadata)
}

impl Wake for Deployment {
    fn wake(before: Option<&Self>, after: Option<&Self>, _: &World, tasks: &mut BTreeSet<Task>) {
        tasks.extend(both(before, after).map(|metadata| Task::Deployment(Name::of(metadata))));
    }
}

impl Wake for ReplicaSet {
    fn wake(before: Option<&Self>, after: Option<&Self>, world: &World, tasks: &mut BTreeSet<Task>) {
        for metadata in both(before, after) {
            tasks.insert(Task::ReplicaSet(Name::of(metadata)));
            wake_controller(metadata, tasks);
        }
        // An orphan may be adopted.
        if let Some(orphan) = after
            .map(|set| &set.metadata)
            .filter(|set| controller_of(set).is_none())
        {
            let namespace = orphan.namespace.as_deref().unwrap_or_default();
            for deployment in world.deployments.of_namespace(namespace) {
                let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
                if selector.is_some_and(|selector| selects(selector, orphan.labels.as_ref())) {
                    tasks.insert(Task::Deployment(Name::of(&deployment.metadata)));
                }
            }
        }
    }
}

impl Wake for Pod {
    fn wake(before: Option<&Self>, after: Option<&Self>, world: &World, tasks: &mut BTreeSet<Task>) {
        for metadata in both(before, after) {
            wake_controller(metadata, tasks);
        }
        wake_adopters(after, world, tasks);
        // A Deployment that recreates waits for the last of its old pods to go.
        if let (Some(before), None) = (before, after)
            && let Some(owner) = controller_of(&before.metadata)
        {
            let name = Name::of(&before.metadata).beside(&owner.name);
            if let Some(set) = world.replica_sets.get(&name) {
                wake_controller(&set.metadata, tasks);
            }
        }
        if scheduler::concerns_pod(before, after) {
            tasks.insert(Task::Schedule);
        }
        let node = after.map(pods::node).filter(|node| !node.is_empty());
        if let Some(node) = node.filter(|node| world.nodes.get(&Name::new("", node)).is_none()) {
            tasks.insert(Task::Strays(node.to_owned()));
        }
    }
}

/// Wakes who may adopt a pod without a controller.
fn wake_adopters(pod: Option<&Pod>, world: &World, tasks: &mut BTreeSet<Task>) {
    let Some(orphan) = pod
        .map(|pod| &pod.metadata)
        .filter(|pod| controller_of(pod).is_none())
    else {
        return;
    };
    let namespace = orphan.namespace.as_deref().unwrap_or_default();
    let labels = orphan.labels.as_ref();
    for set in world.replica_sets.of_namespace(namespace) {
        if set
            .spec
            .as_ref()
            .is_some_and(|spec| selects(&spec.selector, labels))
        {
            tasks.insert(Task::ReplicaSet(Name::of(&set.metadata)));
        }
    }
}

impl Wake for Node {
    fn wake(before: Option<&Self>, after: Option<&Self>, _: &World, tasks: &mut BTreeSet<Task>) {
        if scheduler::concerns_node(before, after) {
            tasks.insert(Task::Schedule);
        }
        if let (Some(gone), None) = (before, after) {
            tasks.insert(Task::Strays(gone.metadata.name.clone().unwrap_or_default()));
        }
    }
}
