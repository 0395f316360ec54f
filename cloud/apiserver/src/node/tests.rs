//! What a node may do, question by question.

use ledge_kubeapi::memory::MemoryStore;
use ledge_kubeapi::objects::Limits;
use ledge_kubeapi::store::Change;
use ledge_kubeapi::{Registry, builtin};
use serde_json::json;

use super::*;

async fn store() -> Arc<dyn Store> {
    let mut registry = Registry::default();
    builtin::resources()
        .into_iter()
        .for_each(|resource| registry.insert(resource));
    let store = MemoryStore::new(registry, Limits::default());
    let pod = |node: &str, spec: Value| {
        let mut pod = json!({"metadata": {}, "spec": spec});
        pod["spec"]["nodeName"] = node.into();
        pod
    };
    for (resource, namespace, name, value) in [
        (
            "pods",
            "a",
            "mine",
            pod(
                "n1",
                json!({
                    "serviceAccountName": "sa",
                    "imagePullSecrets": [{"name": "pull"}],
                    "initContainers": [{"envFrom": [{"secretRef": {"name": "env"}}]}],
                    "containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "map"}}}]}],
                    "volumes": [
                        {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}},
                        {"name": "p", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
                        {"name": "e", "ephemeral": {}},
                    ],
                }),
            ),
        ),
        (
            "pods",
            "a",
            "other",
            pod("n2", json!({"volumes": [{"secret": {"secretName": "theirs"}}]})),
        ),
        (
            "persistentvolumes",
            "",
            "volume",
            json!({"metadata": {}, "spec": {"claimRef": {"namespace": "a", "name": "claim"}}}),
        ),
    ] {
        let key = key(resource, namespace, name);
        let mut value: Value = value;
        value["metadata"]["name"] = name.into();
        store.commit(Change::Create { key, value }).await.unwrap();
    }
    Arc::new(store)
}

#[tokio::test]
async fn what_it_may() {
    let node = NodeAuthorizer::new(store().await);
    for (verb, resource, namespace, name, fields, expected) in [
        ("get", "nodes", "", "n1", "", true),
        ("get", "nodes", "", "n2", "", false),
        ("list", "nodes", "", "", "", false),
        ("delete", "nodes", "", "n1", "", false),
        ("patch", "nodes/status", "", "n1", "", true),
        ("get", "pods", "a", "mine", "", true),
        ("get", "pods", "a", "other", "", false),
        ("watch", "pods", "", "", "spec.nodeName=n1", true),
        ("watch", "pods", "", "", "spec.nodeName=n2", false),
        ("watch", "pods", "", "", "spec.nodeName!=n1", false),
        ("list", "pods", "", "", "", false),
        ("patch", "pods/status", "a", "mine", "", true),
        ("patch", "pods/status", "a", "other", "", false),
        ("patch", "pods/status", "a", "gone", "", true),
        ("delete", "pods", "a", "other", "", false),
        ("create", "pods/eviction", "a", "mine", "", true),
        ("create", "pods/exec", "a", "mine", "", false),
        ("update", "pods", "a", "mine", "", false),
        ("get", "secrets", "a", "pull", "", true),
        ("get", "secrets", "a", "env", "", true),
        ("watch", "secrets", "a", "projected", "", true),
        ("get", "secrets", "a", "theirs", "", false),
        ("get", "secrets", "b", "pull", "", false),
        ("list", "secrets", "a", "", "", false),
        ("update", "secrets", "a", "pull", "", false),
        ("get", "configmaps", "a", "map", "", true),
        ("get", "configmaps", "a", "pull", "", false),
        ("get", "persistentvolumeclaims", "a", "claim", "", true),
        ("get", "persistentvolumeclaims", "a", "mine-e", "", true),
        ("get", "persistentvolumes", "", "volume", "", true),
        ("get", "persistentvolumes", "", "none", "", false),
        ("create", "serviceaccounts/token", "a", "sa", "", true),
        ("create", "serviceaccounts/token", "a", "default", "", false),
        ("create", "events", "a", "", "", true),
        ("list", "events", "a", "", "", false),
        ("list", "services", "", "", "", true),
        ("create", "services", "a", "", "", false),
        ("list", "deployments", "a", "", "", false),
    ] {
        let question = Question {
            verb,
            resource: resource.to_owned(),
            namespace,
            name,
            fields,
            ..Question::default()
        };
        let decision = node.decide("n1", &question).await.unwrap();
        assert_eq!(decision.allowed, expected, "{question:?}: {decision:?}");
    }
    for (verb, namespace, name, expected) in [
        ("update", LEASES, "n1", true),
        ("update", LEASES, "n2", false),
        ("create", LEASES, "", true),
        ("list", LEASES, "", false),
        ("get", "default", "n1", false),
    ] {
        let question = Question {
            verb,
            group: "coordination.k8s.io",
            resource: "leases".to_owned(),
            namespace,
            name,
            ..Question::default()
        };
        let decision = node.decide("n1", &question).await.unwrap();
        assert_eq!(decision.allowed, expected, "{question:?}: {decision:?}");
    }
}

#[test]
fn who_is_a_node() {
    let user = User::new("system:node:n1", ["system:nodes"]);
    assert_eq!(of(&user), Some("n1"));
    assert_eq!(of(&User::new("system:node:n1", ["others"])), None);
    assert_eq!(of(&User::new("system:node:", ["system:nodes"])), None);
    assert_eq!(of(&User::new("n1", ["system:nodes"])), None);
}

#[test]
fn what_it_may_store() {
    let user = User::new("system:node:n1", ["system:nodes"]);
    let resources = builtin::resources();
    let told = |kind: &str, old: Option<&Value>, new: &Value| {
        let resource = resources.iter().find(|found| found.kind == kind).unwrap();
        let write = Write {
            user: &user,
            resource,
            subresource: "",
            old,
        };
        restrict(&write, new).map_err(|error| error.message)
    };
    let node = |labels: Value, taints: Value| json!({"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": taints}});
    let own = json!({"kubernetes.io/hostname": "n1", "example.com/a": "b", "a": "b", "x.kubelet.kubernetes.io/y": ""});
    let first = node(own, json!([]));
    assert_eq!(told("Node", None, &first), Ok(()));
    assert_eq!(
        told("Node", None, &node(json!({"node-restriction.kubernetes.io/a": "b", "kubernetes.io/foo": ""}), json!(null))),
        Err("nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: kubernetes.io/foo, node-restriction.kubernetes.io/a".to_owned())
    );
    let other = json!({"metadata": {"name": "n2"}});
    assert_eq!(
        told("Node", None, &other),
        Err("nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"".to_owned())
    );
    let tainted = json!({"metadata": first["metadata"], "spec": {"taints": [{"key": "a"}]}});
    assert_eq!(
        told("Node", Some(&tainted), &first),
        Err("nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints".to_owned())
    );
    let mut pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "serviceAccountName": "default"}});
    assert!(
        told("Pod", None, &pod)
            .unwrap_err()
            .contains("can only create mirror pods")
    );
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert!(told("Pod", None, &pod).unwrap_err().contains("owner reference"));
    pod["metadata"]["ownerReferences"] = json!([{"kind": "Node", "name": "n1", "controller": true}]);
    assert_eq!(told("Pod", None, &pod), Ok(()));
    pod["spec"]["volumes"] = json!([{"secret": {"secretName": "s"}}]);
    assert!(told("Pod", None, &pod).unwrap_err().contains("reference secrets"));
    let lease = json!({"metadata": {"name": "n2"}});
    assert!(told("Lease", None, &lease).is_err());
}
