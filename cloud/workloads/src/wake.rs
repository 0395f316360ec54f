//! Which tasks a change concerns.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::{controller_of, selects};
use crate::names::{Name, Task};
use crate::pods;
use crate::scheduler;
use crate::service::backends::chooses;
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
        "StatefulSet" => Task::StatefulSet(name),
        "DaemonSet" => Task::DaemonSet(name),
        "Job" => Task::Job(name),
        "CronJob" => Task::CronJob(name),
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

/// Kinds whose changes concern themselves and their controllers.
macro_rules! wakes_itself {
    ($($kind:ident),+) => { $(
        impl Wake for $kind {
            fn wake(before: Option<&Self>, after: Option<&Self>, _: &World, tasks: &mut BTreeSet<Task>) {
                for metadata in both(before, after) {
                    tasks.insert(Task::$kind(Name::of(metadata)));
                    wake_controller(metadata, tasks);
                }
            }
        }
    )+ };
}

wakes_itself!(Deployment, StatefulSet, DaemonSet, Job, CronJob);

impl Wake for Service {
    fn wake(before: Option<&Self>, after: Option<&Self>, _: &World, tasks: &mut BTreeSet<Task>) {
        for metadata in both(before, after) {
            tasks.insert(Task::Service(Name::of(metadata)));
            tasks.insert(Task::Endpoints(Name::of(metadata)));
        }
    }
}

impl Wake for Endpoints {
    fn wake(before: Option<&Self>, after: Option<&Self>, _: &World, tasks: &mut BTreeSet<Task>) {
        tasks.extend(both(before, after).map(|metadata| Task::Endpoints(Name::of(metadata))));
    }
}

impl Wake for EndpointSlice {
    fn wake(before: Option<&Self>, after: Option<&Self>, _: &World, tasks: &mut BTreeSet<Task>) {
        for metadata in both(before, after) {
            if let Some(owner) = controller_of(metadata).filter(|owner| owner.kind == "Service") {
                tasks.insert(Task::Endpoints(Name::of(metadata).beside(&owner.name)));
            }
        }
    }
}

/// All claims that may still get a volume.
fn open_claims(world: &World) -> impl Iterator<Item = Task> {
    let open = world
        .claims
        .iter()
        .filter(|claim| claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound"));
    open.map(|claim| Task::Claim(Name::of(&claim.metadata)))
}

impl Wake for PersistentVolumeClaim {
    fn wake(before: Option<&Self>, after: Option<&Self>, world: &World, tasks: &mut BTreeSet<Task>) {
        for metadata in both(before, after) {
            let name = Name::of(metadata);
            let holds = world.volumes.iter().filter(|volume| {
                let holder = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
                holder.is_some_and(|holder| holder.uid == metadata.uid)
            });
            tasks.extend(holds.map(|volume| Task::Volume(Name::of(&volume.metadata))));
            // A StatefulSet makes its claims before its pods.
            let sets = world.stateful_sets.of_namespace(&name.namespace);
            tasks.extend(sets.map(|set| Task::StatefulSet(Name::of(&set.metadata))));
            tasks.insert(Task::Claim(name));
        }
        tasks.insert(Task::Schedule);
    }
}

impl Wake for PersistentVolume {
    fn wake(before: Option<&Self>, after: Option<&Self>, world: &World, tasks: &mut BTreeSet<Task>) {
        tasks.extend(both(before, after).map(|metadata| Task::Volume(Name::of(metadata))));
        let holders = before
            .into_iter()
            .chain(after)
            .filter_map(|volume| volume.spec.as_ref()?.claim_ref.as_ref());
        tasks.extend(holders.map(|holder| {
            let namespace = holder.namespace.as_deref().unwrap_or_default();
            Task::Claim(Name::new(namespace, holder.name.as_deref().unwrap_or_default()))
        }));
        tasks.extend(open_claims(world));
        tasks.insert(Task::Schedule);
    }
}

impl Wake for StorageClass {
    fn wake(_: Option<&Self>, _: Option<&Self>, world: &World, tasks: &mut BTreeSet<Task>) {
        tasks.extend(open_claims(world));
        tasks.insert(Task::Schedule);
    }
}

impl Wake for Namespace {
    fn wake(_: Option<&Self>, after: Option<&Self>, _: &World, tasks: &mut BTreeSet<Task>) {
        let name = after.and_then(|namespace| namespace.metadata.name.clone());
        tasks.extend(name.map(Task::Account));
    }
}

impl Wake for ServiceAccount {
    fn wake(before: Option<&Self>, after: Option<&Self>, _: &World, tasks: &mut BTreeSet<Task>) {
        let namespaces = both(before, after).filter_map(|metadata| metadata.namespace.clone());
        tasks.extend(namespaces.map(Task::Account));
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
        let namespace = both(before, after).find_map(|metadata| metadata.namespace.as_deref());
        for service in world.services.of_namespace(namespace.unwrap_or_default()) {
            if before.into_iter().chain(after).any(|pod| chooses(service, pod)) {
                tasks.insert(Task::Endpoints(Name::of(&service.metadata)));
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
    let mut offer = |selector: Option<&LabelSelector>, task: Task| {
        if selector.is_some_and(|selector| selects(selector, labels)) {
            tasks.insert(task);
        }
    };
    for set in world.replica_sets.of_namespace(namespace) {
        let selector = set.spec.as_ref().map(|spec| &spec.selector);
        offer(selector, Task::ReplicaSet(Name::of(&set.metadata)));
    }
    for set in world.stateful_sets.of_namespace(namespace) {
        let selector = set.spec.as_ref().map(|spec| &spec.selector);
        offer(selector, Task::StatefulSet(Name::of(&set.metadata)));
    }
    for set in world.daemon_sets.of_namespace(namespace) {
        let selector = set.spec.as_ref().map(|spec| &spec.selector);
        offer(selector, Task::DaemonSet(Name::of(&set.metadata)));
    }
    for job in world.jobs.of_namespace(namespace) {
        let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        offer(selector, Task::Job(Name::of(&job.metadata)));
    }
}

impl Wake for Node {
    fn wake(before: Option<&Self>, after: Option<&Self>, world: &World, tasks: &mut BTreeSet<Task>) {
        if scheduler::concerns_node(before, after) {
            tasks.insert(Task::Schedule);
            let sets = world.daemon_sets.iter();
            tasks.extend(sets.map(|set| Task::DaemonSet(Name::of(&set.metadata))));
        }
        if let (Some(gone), None) = (before, after) {
            tasks.insert(Task::Strays(gone.metadata.name.clone().unwrap_or_default()));
        }
    }
}
