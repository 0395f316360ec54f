//! ReplicaSets: so many pods of one template.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::meta::{Labels, claim, controller_of, terminating};
use crate::names::{Name, Task};
use crate::plan::{Action, Plan, Told};
use crate::pods::{Availability, active, availability, by_dispensability, from_template, ready};
use crate::world::World;

/// So many pods are made or removed before it is looked again.
const AT_ONCE: usize = 100;

/// Makes the pods of a ReplicaSet as many as it says.
pub fn decide(world: &World, name: &Name, now: Timestamp) -> Plan {
    let Some(set) = world.replica_sets.get(name) else {
        return Plan::default();
    };
    let Some(spec) = &set.spec else {
        return Plan::default();
    };
    let claimed = claim(&**set, &spec.selector, &world.pods);
    if !claimed.actions.is_empty() {
        return Plan::of(claimed.actions);
    }
    let mut pods = claimed.objects;
    pods.retain(|pod| active(pod));
    let trouble = world.troubles.get(&Task::ReplicaSet(name.clone()));
    let mut plan = Plan::default();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !terminating(&set.metadata) {
        if pods.len() < wanted {
            // What was refused is tried with one.
            let most = if trouble.is_some() { 1 } else { AT_ONCE };
            let missing = (wanted - pods.len()).min(most);
            plan.actions.extend(std::iter::repeat_n(birth(set), missing));
        } else {
            let mut going = ranked(world, set, pods.clone());
            going.truncate((pods.len() - wanted).min(AT_ONCE));
            plan.actions.extend(going.iter().map(|pod| death(set, pod)));
        }
    }
    let status = status(set, &pods, trouble, now, &mut plan);
    plan.actions
        .extend(Action::status(&**set, set.status.as_ref(), &status));
    plan
}

fn birth(set: &ReplicaSet) -> Action {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone());
    let pod = from_template(set, &template.unwrap_or_default());
    Action::create(&pod).told(Told::about(
        set,
        ("SuccessfulCreate", "Created pod: {}"),
        ("FailedCreate", "Error creating: {}"),
    ))
}

fn death(set: &ReplicaSet, pod: &Arc<Pod>) -> Action {
    Action::delete(&**pod).told(Told::about(
        set,
        ("SuccessfulDelete", "Deleted pod: {}"),
        ("FailedDelete", "Error deleting: {}"),
    ))
}

/// `pods`, those that are missed least first. Where the other ReplicaSets of the same Deployment have pods counts, so that
/// a node with two of them loses one first.
fn ranked(world: &World, set: &ReplicaSet, mut pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut related = pods.clone();
    if let Some(owner) = controller_of(&set.metadata) {
        for sibling in world.replica_sets.owned_by(namespace, &owner.uid) {
            if sibling.metadata.uid != set.metadata.uid {
                let uid = sibling.metadata.uid.as_deref().unwrap_or_default();
                let alive = world.pods.owned_by(namespace, uid).filter(|pod| active(pod));
                related.extend(alive.cloned());
            }
        }
    }
    by_dispensability(&mut pods, &related);
    pods
}

fn status(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    trouble: Option<&String>,
    now: Timestamp,
    plan: &mut Plan,
) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let template = spec.and_then(|spec| spec.template.as_ref());
    let labels = template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let (mut labeled, mut ready_count, mut available) = (0, 0, 0);
    for pod in pods {
        labeled += i32::from(has_labels(pod.metadata.labels.as_ref(), labels));
        ready_count += i32::from(ready(pod));
        match availability(pod, min_ready, now) {
            Availability::Yes => available += 1,
            Availability::At(at) => plan.again_at(at),
            Availability::No => {}
        }
    }
    let old = set.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.unwrap_or_default();
    match trouble {
        Some(why) if conditions.is_empty() => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some("FailedCreate".to_owned()),
            message: Some(why.clone()),
            last_transition_time: Some(Time(now)),
        }),
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Some(_) => {}
    }
    ReplicaSetStatus {
        replicas: i32::try_from(pods.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: Some(labeled).filter(|count| *count > 0),
        ready_replicas: Some(ready_count).filter(|count| *count > 0),
        available_replicas: Some(available).filter(|count| *count > 0),
        terminating_replicas: old.terminating_replicas,
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

fn has_labels(labels: Option<&Labels>, wanted: Option<&Labels>) -> bool {
    let mut wanted = wanted.into_iter().flatten();
    wanted.all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}
