//! What a Node says of its node. Functions of their arguments: no clock, no client.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use ledge_proto::v1;
use serde_json::{Value, json};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The labels of a Node of ours.
pub(super) fn labels(name: &str, state: &v1::NodeState) -> BTreeMap<String, String> {
    let mut labels = state.labels.clone();
    for (label, value) in [
        ("kubernetes.io/hostname", name),
        ("node-role.kubernetes.io/edge", ""),
    ] {
        labels.insert(label.to_owned(), value.to_owned());
    }
    labels
}

/// Labels that are missing, and the taint of a node that is away.
pub(super) fn metadata_patch(node: &Node, labels: BTreeMap<String, String>, ready: bool) -> Option<Value> {
    let mut patch = json!({});
    let there = node.metadata.labels.clone().unwrap_or_default();
    let missing: BTreeMap<String, String> = labels
        .into_iter()
        .filter(|(label, value)| there.get(label) != Some(value))
        .collect();
    if !missing.is_empty() {
        patch["metadata"]["labels"] = json!(missing);
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
    let mut taints: Vec<Taint> = taints.unwrap_or_default();
    let count = taints.len();
    let ours = |taint: &Taint| taint.key == UNREACHABLE && taint.effect == "NoSchedule";
    if ready {
        taints.retain(|taint| !ours(taint));
    } else if !taints.iter().any(ours) {
        taints.push(Taint {
            key: UNREACHABLE.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        });
    }
    if taints.len() != count {
        patch["spec"]["taints"] = json!(taints);
        // The list is replaced as a whole: not over another one's change.
        patch["metadata"]["resourceVersion"] = json!(node.metadata.resource_version);
    }
    patch
        .as_object()
        .is_some_and(|patch| !patch.is_empty())
        .then_some(patch)
}

/// What the node says of itself, and whether it can be reached, without times.
pub(super) fn status(mut reported: Value, state: &v1::NodeState, ready: bool) -> Value {
    if !reported.is_object() {
        reported = json!({});
    }
    if reported["nodeInfo"].is_null() {
        // All that is known of a node that says no more.
        reported["nodeInfo"] = json!({
            "kubeletVersion": format!("ledge-{}", state.version), "bootID": state.boot_id,
            "architecture": state.labels.get("kubernetes.io/arch"), "operatingSystem": state.labels.get("kubernetes.io/os"),
        });
        let info = reported["nodeInfo"].as_object_mut().into_iter();
        info.for_each(|info| {
            const REQUIRED: [&str; 9] = [
                "machineID",
                "systemUUID",
                "bootID",
                "kernelVersion",
                "osImage",
                "containerRuntimeVersion",
                "kubeProxyVersion",
                "operatingSystem",
                "architecture",
            ];
            for member in REQUIRED {
                let value = info.entry(member).or_insert(Value::Null);
                if value.is_null() {
                    *value = "".into();
                }
            }
        });
    }
    let conditions = reported["conditions"].as_array().cloned().unwrap_or_default();
    let own = conditions
        .iter()
        .find(|condition| condition["type"] == "Ready")
        .cloned();
    let mut conditions: Vec<Value> = conditions
        .into_iter()
        .filter(|condition| condition["type"] != "Ready")
        .collect();
    let away = "cloudcore has no link to the node; what is known of it is as old as the annotation says";
    conditions.push(match (ready, own) {
        (true, Some(own)) => own,
        (true, None) => {
            json!({"type": "Ready", "status": "True", "reason": "LinkUp", "message": "the node's link is up"})
        }
        (false, _) => {
            json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": away})
        }
    });
    for condition in &mut conditions {
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("lastHeartbeatTime");
            condition.remove("lastTransitionTime");
        }
    }
    reported["conditions"] = conditions.into();
    reported
}

/// Whether the API says all of it already, whatever else it says.
pub(super) fn says(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        // What says nothing may be left out.
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (Value::Null, Value::String(wanted)) => wanted.is_empty(),
        (_, Value::Null) => true,
        (Value::Object(current), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| says(current.get(name).unwrap_or(&Value::Null), wanted)),
        (Value::Array(current), Value::Array(wanted)) => {
            let there = |wanted: &Value| current.iter().any(|current| says(current, wanted));
            // Others may have conditions of their own.
            let whole = |list: &[Value]| list.iter().any(|one| one["type"].is_null());
            wanted.iter().all(there) && (!whole(current) || current.len() == wanted.len())
        }
        (current, wanted) => current == wanted,
    }
}

/// Gives conditions their times: a condition whose status stays keeps when it became so.
pub(super) fn stamp(mut wanted: Value, current: &Value, now: &str) -> Value {
    let before = current["conditions"].as_array().cloned().unwrap_or_default();
    for condition in wanted["conditions"].as_array_mut().into_iter().flatten() {
        let same = before
            .iter()
            .find(|before| before["type"] == condition["type"] && before["status"] == condition["status"]);
        let since = same
            .and_then(|same| same["lastTransitionTime"].as_str())
            .unwrap_or(now);
        condition["lastTransitionTime"] = since.into();
        condition["lastHeartbeatTime"] = now.into();
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_already_is_not_written_again() {
        let ready = |status: &str| json!({"type": "Ready", "status": status, "message": ""});
        let wanted = json!({
            "capacity": {"cpu": "4"}, "nodeInfo": {"bootID": "b", "osImage": ""}, "images": [],
            "conditions": [ready("True")],
        });
        let current = json!({
            "capacity": {"cpu": "4", "pods": "110"}, "nodeInfo": {"bootID": "b", "osImage": ""}, "phase": "Running",
            "conditions": [
                {"type": "NetworkUnavailable", "status": "False"},
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"},
            ],
        });
        assert!(says(&current, &wanted));
        let differs = |change: &dyn Fn(&mut Value)| {
            let mut other = wanted.clone();
            change(&mut other);
            !says(&current, &other)
        };
        assert!(differs(&|other| other["conditions"][0]["status"] = "False".into()));
        assert!(differs(&|other| other["capacity"]["cpu"] = "8".into()));
        assert!(differs(&|other| other["images"] = json!([{"names": ["a"]}])));
        assert!(differs(&|other| other["nodeInfo"]["bootID"] = "c".into()));
        // An image that is not there any more.
        let images = json!({"images": [{"names": ["a"]}, {"names": ["b"]}]});
        assert!(!says(&images, &json!({"images": [{"names": ["a"]}]})));
        assert!(!says(&Value::Null, &wanted));
    }
}
