//! What nodes report is in the API: Nodes, leases, the status of pods.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use ledge_proto::fold::Table;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};
use support::Place;

const NODE: &str = "v1/Node/nodes";
const POD: &str = "v1/Pod/pods";

async fn registers(place: &Place, node: &str) {
    let state = v1::NodeState {
        version: "1.2.3".to_owned(),
        boot_id: "b".to_owned(),
        labels: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
    };
    place
        .node_says(node, Lane::UpState, node, &Payload::NodeState(state))
        .await;
}

async fn reports(place: &Place, node: &str, key: &str, uid: &str, status: &Value) {
    let payload = Payload::KubeStatus(v1::KubeStatus {
        uid: uid.to_owned(),
        json: status.to_string().into_bytes(),
    });
    place.node_says(node, Lane::UpState, key, &payload).await;
}

fn ready(node: &DynamicObject) -> Option<&Value> {
    let conditions = node.data["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")
}

/// Waits until the Node is as it should be.
async fn until_node(place: &Place, node: &str, holds: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
    place
        .until("the Node", async |place| {
            let found = place.api(NODE, "").get_opt(node).await.unwrap();
            found.filter(&holds)
        })
        .await
}

fn tainted(node: &DynamicObject) -> bool {
    let taints = node.data["spec"]["taints"].as_array();
    taints.is_some_and(|taints| {
        taints
            .iter()
            .any(|taint| taint["key"] == "node.kubernetes.io/unreachable" && taint["effect"] == "NoSchedule")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_registers_and_keeps_everything_while_it_is_away() {
    let place = Place::start().await;
    place.links.set("edge-1", true);
    registers(&place, "edge-1").await;
    let node = until_node(&place, "edge-1", |node| {
        ready(node).is_some_and(|ready| ready["status"] == "True")
    })
    .await;
    let labels = node.metadata.labels.clone().unwrap();
    for (label, value) in [
        ("site", "north"),
        ("kubernetes.io/hostname", "edge-1"),
        ("node-role.kubernetes.io/edge", ""),
    ] {
        assert_eq!(labels.get(label).map(String::as_str), Some(value), "{label}");
    }
    assert_eq!(
        node.data["status"]["nodeInfo"]["kubeletVersion"],
        json!("ledge-1.2.3")
    );
    place
        .until("a lease", async |place| {
            let leases = place.api("coordination.k8s.io/v1/Lease/leases", "kube-node-lease");
            let lease = leases.get_opt("edge-1").await.unwrap()?;
            lease.data["spec"]["renewTime"].is_string().then_some(())
        })
        .await;
    // What the node says of itself.
    let status = json!({
        "capacity": {"cpu": "4", "memory": "2Gi", "pods": "110"},
        "conditions": [{"type": "MemoryPressure", "status": "False", "reason": "Fine", "message": ""}],
    });
    reports(&place, "edge-1", "/nodes//edge-1", "", &status).await;
    until_node(&place, "edge-1", |node| {
        node.data["status"]["capacity"]["cpu"] == "4"
    })
    .await;
    place.pod("till", "edge-1", "prices").await;
    let uid = node.metadata.uid.clone();
    let pod = place.api(POD, "default").get("till").await.unwrap();
    place.links.set("edge-1", false);
    let away = until_node(&place, "edge-1", |node| {
        ready(node).is_some_and(|ready| ready["status"] == "Unknown") && tainted(node)
    })
    .await;
    assert_eq!(away.metadata.uid, uid);
    let since = ready(&away).unwrap()["lastTransitionTime"].clone();
    assert!(since.is_string());
    place.links.set("edge-1", true);
    let back = until_node(&place, "edge-1", |node| {
        ready(node).is_some_and(|ready| ready["status"] == "True") && !tainted(node)
    })
    .await;
    assert_eq!(back.metadata.uid, uid);
    assert_eq!(back.data["status"]["capacity"]["cpu"], "4");
    let still = place.api(POD, "default").get("till").await.unwrap();
    assert_eq!(still.metadata.uid, pod.metadata.uid);
    assert_eq!(still.metadata.generation, pod.metadata.generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_deleted_registers_again_while_it_is_there() {
    let place = Place::start().await;
    place.links.set("edge-1", true);
    registers(&place, "edge-1").await;
    let first = until_node(&place, "edge-1", |node| ready(node).is_some()).await;
    place.delete(NODE, "", "edge-1").await;
    registers(&place, "edge-1").await;
    let second = until_node(&place, "edge-1", |node| ready(node).is_some()).await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_pod_is_written_to_that_pod_only_and_a_pod_that_ended_goes() {
    let place = Place::start().await;
    let pod = place.pod("till", "edge-1", "prices").await;
    let uid = pod.metadata.uid.unwrap();
    let key = "/pods/default/till";
    let running = json!({
        "phase": "Running", "podIP": "10.0.0.7",
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    reports(&place, "edge-1", key, "another", &json!({"phase": "Failed"})).await;
    // Of a pod that is not bound there.
    reports(&place, "edge-2", key, &uid, &json!({"phase": "Failed"})).await;
    reports(&place, "edge-1", key, &uid, &running).await;
    let phase = async |wanted: &str| {
        place
            .until(&format!("phase {wanted}"), async |place| {
                let pod = place.api(POD, "default").get("till").await.unwrap();
                (pod.data["status"]["phase"] == wanted).then_some(pod)
            })
            .await
    };
    let pod = phase("Running").await;
    assert_eq!(pod.data["status"]["podIP"], "10.0.0.7");
    assert!(pod.data["status"]["qosClass"].is_string());
    // Graceful: it stays until its node says that it ended.
    let pods = place.api(POD, "default");
    place.delete(POD, "default", "till").await;
    place
        .until("the node is told that it goes", async |place| {
            let told = place.objects("edge-1");
            told.get(key)?["metadata"]["deletionTimestamp"]
                .is_string()
                .then_some(())
        })
        .await;
    assert!(pods.get_opt("till").await.unwrap().is_some());
    reports(&place, "edge-1", key, &uid, &json!({"phase": "Succeeded"})).await;
    place
        .until("it is gone", async |place| {
            let pods = place.api(POD, "default");
            pods.get_opt("till").await.unwrap().is_none().then_some(())
        })
        .await;
    place
        .until("the node is told", async |place| {
            (!place.objects("edge-1").contains_key(key)).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_its_node_no_longer_runs_goes() {
    let place = Place::start().await;
    let pod = place.pod("till", "edge-1", "prices").await;
    let uid = pod.metadata.uid.unwrap();
    let key = "/pods/default/till";
    reports(&place, "edge-1", key, &uid, &json!({"phase": "Running"})).await;
    place.delete(POD, "default", "till").await;
    place
        .node_says("edge-1", Lane::UpState, key, &Payload::KubeStatusRemoved)
        .await;
    place
        .until("it is gone", async |place| {
            let pods = place.api(POD, "default");
            pods.get_opt("till").await.unwrap().is_none().then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_only_edge_nodes_are_ours_and_their_pods_are_not_evicted() {
    let mut place = Place::still().await;
    place.every_node = false;
    for (name, labels) in [
        ("edge-1", json!({"node-role.kubernetes.io/edge": ""})),
        ("worker", json!({})),
    ] {
        let node = json!({"metadata": {"name": name, "labels": labels}});
        place.create(NODE, node).await;
        place.pod(&format!("pod-{name}"), name, "prices").await;
    }
    place.run();
    place
        .until("tolerations", async |place| {
            let told = place.objects("edge-1");
            let tolerations = told.get("/pods/default/pod-edge-1")?["spec"]["tolerations"]
                .as_array()?
                .clone();
            tolerations
                .iter()
                .any(|toleration| toleration["key"] == "node.kubernetes.io/unreachable")
                .then_some(())
        })
        .await;
    assert!(place.objects("worker").is_empty());
    let other = place.api(POD, "default").get("pod-worker").await.unwrap();
    let none = other.data["spec"]["tolerations"].as_array().is_none_or(|all| {
        all.iter()
            .all(|toleration| !toleration["tolerationSeconds"].is_null())
    });
    assert!(none, "{other:?}");
}

async fn tells(place: &Place, node: &str, about: &str, message: &str) {
    let event = json!({
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": about},
        "type": "Normal", "reason": "Started", "message": message, "source": {"component": "edgecore", "host": node},
    });
    let payload = Payload::KubeEvent(v1::KubeEvent {
        json: event.to_string().into_bytes(),
    });
    let key = format!("/pods/default/{about}");
    place.node_says(node, Lane::UpData, &key, &payload).await;
}

async fn events(place: &Place) -> Vec<String> {
    let events = place.api("v1/Event/events", "default");
    let list = events.list(&kube::api::ListParams::default()).await.unwrap();
    let mut told: Vec<String> = list
        .items
        .iter()
        .map(|event| event.data["message"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_nodes_are_written_once_over_restarts() {
    let mut place = Place::start().await;
    tells(&place, "edge-1", "till", "1").await;
    tells(&place, "edge-1", "till", "2").await;
    tells(&place, "edge-2", "other", "3").await;
    let all = async |place: &Place, wanted: &[&str]| {
        place
            .until(&format!("events {wanted:?}"), async |place| {
                (events(place).await == wanted).then_some(())
            })
            .await;
    };
    all(&place, &["1", "2", "3"]).await;
    place
        .until("the cursor", async |place| {
            let cursor: v1::EventCursor = place.entry("edge-1", Table::EventCursors, "edge-1")?;
            (cursor.position?.seq == 2).then_some(())
        })
        .await;
    place.stop().await;
    tells(&place, "edge-1", "till", "4").await;
    // It was deleted: what comes after the cursor only is written.
    let list = place.api("v1/Event/events", "default");
    let first = list.list(&kube::api::ListParams::default()).await.unwrap();
    let gone = first
        .items
        .iter()
        .find(|event| event.data["message"] == "1")
        .unwrap();
    place
        .delete(
            "v1/Event/events",
            "default",
            gone.metadata.name.as_deref().unwrap(),
        )
        .await;
    place.run();
    all(&place, &["2", "3", "4"]).await;
}
