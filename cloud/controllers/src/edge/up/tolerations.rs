//! Pods of nodes whose links come and go are not evicted for it: they tolerate what a cluster's controllers do to a node they
//! have not heard of.

use serde_json::{Value, json};

const TAINTS: [&str; 2] = ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"];

/// The merge patch that gives `pod` what it lacks; `None` when it lacks nothing.
pub(super) fn missing(pod: &Value) -> Option<Value> {
    let spec = pod.get("spec")?;
    let before = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let mut tolerations = before.clone();
    for taint in TAINTS {
        if tolerations.iter().any(|toleration| forever(toleration, taint)) {
            continue;
        }
        let of_taint = |toleration: &&mut Value| {
            toleration["key"] == taint
                && toleration["effect"] == "NoExecute"
                && toleration["operator"] == "Exists"
        };
        // An API server takes additions, and other times for what is there.
        match tolerations
            .iter_mut()
            .find(of_taint)
            .and_then(Value::as_object_mut)
        {
            Some(limited) => {
                limited.remove("tolerationSeconds");
            }
            None => tolerations.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute"})),
        }
    }
    let version = &pod["metadata"]["resourceVersion"];
    (tolerations != before)
        .then(|| json!({"metadata": {"resourceVersion": version}, "spec": {"tolerations": tolerations}}))
}

/// Whether a pod with this toleration stays on a node with the taint, however long.
fn forever(toleration: &Value, taint: &str) -> bool {
    let text = |member: &str| toleration[member].as_str().unwrap_or_default();
    let key = [taint, ""].contains(&text("key"));
    let effect = ["NoExecute", ""].contains(&text("effect"));
    text("operator") == "Exists" && key && effect && toleration["tolerationSeconds"].is_null()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(tolerations: &Value) -> Option<Value> {
        let pod = json!({"metadata": {"resourceVersion": "7"}, "spec": {"tolerations": tolerations}});
        missing(&pod).map(|patch| patch["spec"]["tolerations"].clone())
    }

    #[test]
    fn a_pod_tolerates_for_ever_what_a_lost_link_leads_to() {
        let both = json!([
            {"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"},
            {"key": TAINTS[1], "operator": "Exists", "effect": "NoExecute"},
        ]);
        assert_eq!(patched(&json!([])), Some(both.clone()));
        let limited = json!([
            {"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": TAINTS[1], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ]);
        assert_eq!(patched(&limited), Some(both.clone()));
        assert_eq!(patched(&both), None);
        assert_eq!(patched(&json!([{"operator": "Exists"}])), None);
    }
}
