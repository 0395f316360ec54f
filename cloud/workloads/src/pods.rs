//! What controllers ask of pods.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::meta::{annotation, owner_reference, terminating};
use crate::world::Tracked;

/// Longest base of a name that the server completes.
const GENERATE_NAME_MAX_BYTES: usize = 253 - 5;

/// The pod's phase; `Pending` until somebody said more.
pub fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    status.unwrap_or("Pending")
}

/// Whether the pod has ended for good.
pub fn finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod runs or is to run.
pub fn active(pod: &Pod) -> bool {
    !finished(pod) && !terminating(&pod.metadata)
}

/// A condition of the pod.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the pod is ready to serve.
pub fn ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// The node the pod is on; empty when it has none yet.
pub fn node(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

/// Whether a pod counts as available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It was ready for long enough.
    Yes,
    /// It will be at that time, if it stays ready.
    At(Timestamp),
    /// It is not ready.
    No,
}

/// Whether the pod was ready for `min_ready_s` seconds `now`.
pub fn availability(pod: &Pod, min_ready_s: i32, now: Timestamp) -> Availability {
    let Some(ready) = condition(pod, "Ready").filter(|condition| condition.status == "True") else {
        return Availability::No;
    };
    if min_ready_s <= 0 {
        return Availability::Yes;
    }
    let Some(since) = &ready.last_transition_time else {
        return Availability::No;
    };
    let at = since
        .0
        .saturating_add(SignedDuration::from_secs(min_ready_s.into()));
    match at {
        Ok(at) if at <= now => Availability::Yes,
        Ok(at) => Availability::At(at),
        Err(_) => Availability::No,
    }
}

/// A pod of `owner` made from `template`, with a name that the server completes.
pub fn from_template<K: Tracked>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let metadata = k8s_openapi::Metadata::metadata(owner);
    let of_template = template.metadata.clone().unwrap_or_default();
    let base: String = metadata
        .name
        .iter()
        .flat_map(|name| name.chars())
        .take(GENERATE_NAME_MAX_BYTES)
        .collect();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{base}-")),
            namespace: metadata.namespace.clone(),
            labels: of_template.labels,
            annotations: of_template.annotations,
            finalizers: of_template.finalizers,
            owner_references: Some(vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Puts `pods` in the order in which they go when there are too many: the first is missed least. `related` are all pods of
/// their kind: of several on one node, one goes first. Upstream's order, with the name last, so that it is always the same.
pub fn by_dispensability(pods: &mut [Arc<Pod>], related: &[Arc<Pod>]) {
    let mut on_node: BTreeMap<String, usize> = BTreeMap::new();
    for pod in related {
        *on_node.entry(node(pod).to_owned()).or_default() += 1;
    }
    pods.sort_by(|a, b| dispensability(a, b, &on_node));
}

fn dispensability(a: &Pod, b: &Pod, on_node: &BTreeMap<String, usize>) -> Ordering {
    let progress = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let crowd = |pod: &Pod| on_node.get(node(pod)).copied().unwrap_or_default();
    let made = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let since = |pod: &Pod| {
        condition(pod, "Ready")?
            .last_transition_time
            .as_ref()
            .map(|time| time.0)
    };
    // Not on a node before on one.
    let key = |pod: &Pod| {
        (
            !node(pod).is_empty(),
            progress(pod),
            ready(pod),
            deletion_cost(pod),
        )
    };
    key(a)
        .cmp(&key(b))
        // More of its kind on its node first.
        .then_with(|| crowd(b).cmp(&crowd(a)))
        // Ready for a shorter time first.
        .then_with(|| Reverse(since(a)).cmp(&Reverse(since(b))))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        // Younger first.
        .then_with(|| Reverse(made(a)).cmp(&Reverse(made(b))))
        .then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost = annotation(&pod.metadata, "controller.kubernetes.io/pod-deletion-cost");
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let counts = statuses.into_iter().flatten().map(|status| status.restart_count);
    counts.max().unwrap_or(0)
}
