//! Whether an object is as it should be, as it says itself.

use serde_json::Value;

/// Whether what is asked for is there: all replicas of a workload, of its newest version; a Job that is complete; a Pod that
/// is ready. Everything else is as it should be by being there.
pub(super) fn is_available(group: &str, kind: &str, object: &Value) -> bool {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let condition = |name: &str| {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition["type"] == name && condition["status"] == "True")
    };
    let is_seen = || number("/status/observedGeneration") >= number("/metadata/generation");
    let replicas = || {
        let wanted = object
            .pointer("/spec/replicas")
            .and_then(Value::as_i64)
            .unwrap_or(1);
        number("/status/readyReplicas") == wanted
    };
    match (group, kind) {
        ("apps", "Deployment") => {
            is_seen() && replicas() && number("/status/updatedReplicas") == number("/status/replicas")
        }
        ("apps", "StatefulSet" | "ReplicaSet") => is_seen() && replicas(),
        ("apps", "DaemonSet") => {
            is_seen() && number("/status/numberReady") == number("/status/desiredNumberScheduled")
        }
        ("batch", "Job") => condition("Complete"),
        ("", "Pod") => {
            condition("Ready")
                || object
                    .pointer("/status/phase")
                    .is_some_and(|phase| phase == "Succeeded")
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_is_available_with_all_its_replicas() {
        let deployment = |generation: i64, replicas: i64, updated: i64, ready: i64| {
            json!({
                "metadata": {"generation": 2}, "spec": {"replicas": 2},
                "status": {
                    "observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated,
                    "readyReplicas": ready,
                },
            })
        };
        let available = |object: Value| is_available("apps", "Deployment", &object);
        assert!(available(deployment(2, 2, 2, 2)));
        assert!(!available(deployment(1, 2, 2, 2)), "an older version");
        assert!(!available(deployment(2, 3, 2, 2)), "an old pod is still there");
        assert!(!available(deployment(2, 2, 2, 1)));
        assert!(!available(json!({"metadata": {"generation": 1}, "spec": {}})));
        // Nothing is wanted, and nothing is there.
        assert!(available(
            json!({"metadata": {"generation": 1}, "spec": {"replicas": 0}, "status": {"observedGeneration": 1}})
        ));
    }

    #[test]
    fn others_say_it_in_their_own_way() {
        let with = |name: &str| json!({"status": {"conditions": [{"type": name, "status": "True"}]}});
        assert!(is_available("batch", "Job", &with("Complete")));
        assert!(!is_available("batch", "Job", &with("Failed")));
        assert!(is_available("", "Pod", &with("Ready")));
        assert!(!is_available("", "Pod", &json!({})));
        assert!(is_available("", "ConfigMap", &json!({})));
    }
}
