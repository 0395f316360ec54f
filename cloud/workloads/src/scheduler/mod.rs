//! The scheduler: gives each pod a node.
//!
//! A node must admit the pod (name, labels, required affinity, taints) and have what it asks for; among those, the least
//! loaded one is taken, by name if they are equal. A resource of which a node tells nothing is not limited there.
//!
//! Reading order: [`affinity`], [`requests`], [`fit`] (one pod, all nodes), this file.

pub mod affinity;
pub mod fit;
pub mod requests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::meta::terminating;
use crate::names::Name;
use crate::plan::{Action, Note, Plan, Told, Verb};
use crate::pods::{active, condition, finished, node};
use crate::world::{Kind, World};
use fit::Nodes;

/// The scheduler a pod asks for when it is this one.
const NAME: &str = "default-scheduler";
/// So many pods get their nodes before it is looked again.
const AT_ONCE: usize = 256;

/// Whether a change of a pod may let it, or another, be scheduled.
pub(crate) fn concerns_pod(before: Option<&Pod>, after: Option<&Pod>) -> bool {
    let takes = |pod: &Pod| !node(pod).is_empty() && !finished(pod);
    let freed = before.is_some_and(takes) && !after.is_some_and(takes);
    let waits = after.is_some_and(waits);
    freed || waits
}

/// Whether a change of a node may let a pod be scheduled.
pub(crate) fn concerns_node(before: Option<&Node>, after: Option<&Node>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return true;
    };
    let status = |node: &Node| {
        let status = node.status.as_ref();
        status.map(|status| (status.allocatable.clone(), status.capacity.clone()))
    };
    before.metadata.labels != after.metadata.labels
        || before.spec != after.spec
        || status(before) != status(after)
}

/// Whether the pod is to be given a node here.
fn waits(pod: &Pod) -> bool {
    let scheduler = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    node(pod).is_empty() && active(pod) && scheduler.is_none_or(|name| name == NAME || name.is_empty())
}

/// Gives nodes to pods that wait, those that wait longest first.
pub fn decide(world: &World, now: Timestamp) -> Plan {
    let mut waiting: Vec<&Arc<Pod>> = world.pods.iter().filter(|pod| waits(pod)).collect();
    if waiting.is_empty() {
        return Plan::default();
    }
    waiting.sort_by_key(|pod| {
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(priority), made, Name::of(&pod.metadata))
    });
    let mut nodes = Nodes::of(world);
    let mut plan = Plan::default();
    for pod in waiting {
        if plan.actions.len() >= AT_ONCE {
            // What is done wakes this task again.
            break;
        }
        let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
        if gates.is_some_and(|gates| !gates.is_empty()) {
            let why = "Scheduling is blocked due to non-empty scheduling gates";
            plan.actions.extend(unscheduled(pod, "SchedulingGated", why, now));
            continue;
        }
        match nodes.place(world, pod) {
            Ok(node) => plan.actions.push(bind(pod, &node)),
            Err(why) => {
                let told = unscheduled(pod, "Unschedulable", &why, now);
                if told.is_some() {
                    plan.notes.push(Note::warning(&**pod, "FailedScheduling", why));
                }
                plan.actions.extend(told);
            }
        }
    }
    plan
}

fn bind(pod: &Pod, node: &str) -> Action {
    let name = Name::of(&pod.metadata);
    let message = format!("Successfully assigned {name} to {node}");
    Action {
        kind: Kind::Pod,
        verb: Verb::Bind {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node: node.to_owned(),
        },
        told: Some(Told::about(
            pod,
            ("Scheduled", message),
            ("FailedScheduling", "{}"),
        )),
        name,
    }
}

/// Says in the pod's status that it has no node, and why; `None` when that is said already.
fn unscheduled(pod: &Pod, reason: &str, why: &str, now: Timestamp) -> Option<Action> {
    let said = condition(pod, "PodScheduled").filter(|said| said.status == "False");
    let same = said
        .is_some_and(|said| said.reason.as_deref() == Some(reason) && said.message.as_deref() == Some(why));
    if same || terminating(&pod.metadata) {
        return None;
    }
    let since = said.and_then(|said| said.last_transition_time.as_ref());
    let body = json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": why,
            "lastTransitionTime": since.map_or(now, |since| since.0).strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]},
    });
    Some(Action::strategic(
        Kind::Pod,
        &Name::of(&pod.metadata),
        "status",
        body,
    ))
}
