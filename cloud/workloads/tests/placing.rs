//! What a pod prefers of a node, and ports of a node that only one can have.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use support::Cluster;

fn on(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .unwrap()
        .node_name
        .as_deref()
        .unwrap_or_default()
}

impl Cluster {
    /// Makes a pod and waits for its node.
    async fn placed(&self, name: &str, spec: Value) -> String {
        self.pod(name, spec).await;
        let pod = self.until(name, |pod: &Pod| !on(pod).is_empty()).await;
        on(&pod).to_owned()
    }

    async fn pod(&self, name: &str, spec: Value) {
        let pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        self.create::<Pod>(pod).await;
    }
}

fn preferring(terms: &[(i32, &str, &str)]) -> Value {
    let terms: Vec<Value> = terms
        .iter()
        .map(|(weight, key, value)| {
            json!({"weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}})
        })
        .collect();
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}});
    json!({"containers": [{"name": "c", "image": "i"}], "affinity": affinity})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_goes_where_most_of_what_it_prefers_is() {
    let mut cluster = Cluster::start().await;
    cluster.node("a", json!({}), json!([])).await;
    cluster
        .node("b", json!({"zone": "x", "gpu": "yes"}), json!([]))
        .await;
    cluster.node("c", json!({"disk": "ssd"}), json!([])).await;
    let taint = json!([{"key": "dedicated", "effect": "NoSchedule"}]);
    cluster.node("d", json!({"arm": "yes"}), taint).await;

    // The heaviest, though another node comes first by name and has as little to do.
    let spec = preferring(&[(1, "zone", "x"), (50, "disk", "ssd")]);
    assert_eq!(cluster.placed("heaviest", spec).await, "c");
    // Two lighter ones together.
    let spec = preferring(&[(30, "zone", "x"), (30, "gpu", "yes"), (50, "disk", "ssd")]);
    assert_eq!(cluster.placed("together", spec).await, "b");
    // It is a wish: what forbids the node, forbids it. The one with nothing on it is left.
    let spec = preferring(&[(100, "arm", "yes")]);
    assert_eq!(cluster.placed("forbidden", spec).await, "a");
    // And what no node has does not matter.
    let spec = preferring(&[(100, "no", "such")]);
    assert_ne!(cluster.placed("nowhere", spec).await, "d");
    cluster.stop().await;
}

fn with_port(port: Value) -> Value {
    json!({"containers": [{"name": "c", "image": "i", "ports": [port]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_a_node_is_for_one_pod() {
    let mut cluster = Cluster::start().await;
    for name in ["a", "b"] {
        cluster.node(name, json!({}), json!([])).await;
    }
    let web = || with_port(json!({"containerPort": 80, "hostPort": 8080}));
    let mut both = [
        cluster.placed("one", web()).await,
        cluster.placed("two", web()).await,
    ];
    both.sort();
    assert_eq!(both, ["a", "b"]);
    cluster.pod("three", web()).await;
    let why = "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.";
    assert_eq!(cluster.event("three", "FailedScheduling").await, why);
    cluster
        .until("three", |pod: &Pod| {
            let conditions = pod.status.clone().unwrap_or_default().conditions;
            conditions
                .into_iter()
                .flatten()
                .any(|one| one.type_ == "PodScheduled" && one.message.as_deref() == Some(why))
        })
        .await;

    // Another protocol is another port; an address of its own is not, while somebody has the port at every address.
    let spec = with_port(json!({"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}));
    cluster.placed("udp", spec).await;
    let spec = with_port(json!({"containerPort": 80, "hostPort": 8080, "hostIP": "192.0.2.1"}));
    cluster.pod("address", spec).await;
    assert_eq!(cluster.event("address", "FailedScheduling").await, why);
    let at = |address: &str| {
        let mut spec = with_port(json!({"containerPort": 80, "hostPort": 9090, "hostIP": address}));
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": "a"});
        spec
    };
    assert_eq!(cluster.placed("first", at("192.0.2.1")).await, "a");
    assert_eq!(cluster.placed("second", at("192.0.2.2")).await, "a");

    // A pod on the node's own network has the ports of its containers there, those that run beside the others too.
    let own = |name: &str| {
        json!({
            "hostNetwork": true,
            "nodeSelector": {"kubernetes.io/hostname": "a"},
            "containers": [{"name": "c", "image": "i"}],
            "initContainers": [
                {"name": name, "image": "i", "restartPolicy": "Always", "ports": [{"containerPort": 7070}]},
            ],
        })
    };
    assert_eq!(cluster.placed("own", own("x")).await, "a");
    cluster.pod("own-too", own("y")).await;
    let told = cluster.event("own-too", "FailedScheduling").await;
    assert!(told.contains("didn't have free ports"), "{told}");

    // What is left behind is for the next one.
    cluster
        .api::<Pod>()
        .delete("one", &DeleteParams::default())
        .await
        .unwrap();
    let next = cluster
        .until_all::<Pod>(|pods| {
            let waits = |name: &str| {
                let mut pods = pods.iter();
                pods.any(|pod| pod.metadata.name.as_deref() == Some(name) && on(pod).is_empty())
            };
            // Whichever is first in line: both want it.
            !waits("three") || !waits("address")
        })
        .await;
    assert!(next.iter().all(|pod| pod.metadata.name.as_deref() != Some("one")));
    cluster.stop().await;
}
