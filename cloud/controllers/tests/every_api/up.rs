//! What nodes report is in the API: Nodes, leases, the status of pods, events.

use crate::support::{Place, places, ready, stays, tainted};
use kube::api::{DynamicObject, ListParams};
use ledge_proto::fold::Table;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::json;

const NODE: &str = "v1/Node/nodes";
const POD: &str = "v1/Pod/pods";
const EVENT: &str = "v1/Event/events";

fn says_ready(node: &DynamicObject, wanted: &str) -> bool {
    ready(node).is_some_and(|ready| ready["status"] == wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_registers_and_keeps_everything_while_it_is_away() {
    for mut place in places().await {
        place.run();
        let name = place.own("edge-1");
        place.links.set(&name, true);
        place.registers(&name).await;
        let node = place.until_node(&name, |node| says_ready(node, "True")).await;
        let labels = node.metadata.labels.clone().unwrap();
        for (label, value) in [
            ("site", "north"),
            ("kubernetes.io/hostname", name.as_str()),
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
                let lease = leases.get_opt(&name).await.unwrap()?;
                lease.data["spec"]["renewTime"].is_string().then_some(())
            })
            .await;
        // What the node says of itself.
        let status = json!({
            "capacity": {"cpu": "4", "memory": "2Gi", "pods": "110"},
            "conditions": [{"type": "MemoryPressure", "status": "False", "reason": "Fine", "message": ""}],
        });
        place
            .reports(&name, &format!("/nodes//{name}"), "", &status)
            .await;
        place
            .until_node(&name, |node| node.data["status"]["capacity"]["cpu"] == "4")
            .await;
        place.pod("till", &name, "prices").await;
        place.holds(&name, &[&place.key("pods", "till")]).await;
        let uid = node.metadata.uid.clone();
        let pod = place.objects_of(POD).get("till").await.unwrap();
        place.links.set(&name, false);
        let away = place
            .until_node(&name, |node| {
                says_ready(node, "Unknown") && tainted(node, "NoSchedule")
            })
            .await;
        assert_eq!(away.metadata.uid, uid);
        let since = ready(&away).unwrap()["lastTransitionTime"].clone();
        assert!(since.is_string());
        place.links.set(&name, true);
        let back = place
            .until_node(&name, |node| {
                says_ready(node, "True") && !tainted(node, "NoSchedule")
            })
            .await;
        assert_eq!(back.metadata.uid, uid);
        assert_eq!(back.data["status"]["capacity"]["cpu"], "4");
        let still = place.objects_of(POD).get("till").await.unwrap();
        assert_eq!(still.metadata.uid, pod.metadata.uid);
        assert_eq!(still.metadata.generation, pod.metadata.generation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_deleted_registers_again_while_it_is_there() {
    for mut place in places().await {
        place.run();
        let name = place.own("edge-1");
        place.links.set(&name, true);
        place.registers(&name).await;
        let first = place.until_node(&name, |node| ready(node).is_some()).await;
        place.delete(NODE, "", &name).await;
        place.registers(&name).await;
        let second = place.until_node(&name, |node| ready(node).is_some()).await;
        assert_ne!(first.metadata.uid, second.metadata.uid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_pod_is_written_to_that_pod_only_and_a_pod_that_ended_goes() {
    for mut place in places().await {
        place.run();
        let (node, other) = (place.edge("edge-1").await, place.own("edge-2"));
        let uid = place.pod("till", &node, "prices").await.metadata.uid.unwrap();
        let key = place.key("pods", "till");
        let running = json!({
            "phase": "Running", "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        let failed = json!({"phase": "Failed"});
        place.reports(&node, &key, "another", &failed).await;
        // Of a pod that is not bound there.
        place.reports(&other, &key, &uid, &failed).await;
        place.reports(&node, &key, &uid, &running).await;
        let pod = place
            .until("phase Running", async |place| {
                let pod = place.objects_of(POD).get("till").await.unwrap();
                (pod.data["status"]["phase"] == "Running").then_some(pod)
            })
            .await;
        assert_eq!(pod.data["status"]["podIP"], "10.0.0.7");
        assert!(pod.data["status"]["qosClass"].is_string());
        // Graceful: it stays until its node says that it ended.
        let pods = place.objects_of(POD);
        place.delete(POD, place.namespace(), "till").await;
        place
            .until("the node is told that it goes", async |place| {
                let told = place.objects(&node);
                told.get(&key)?["metadata"]["deletionTimestamp"]
                    .is_string()
                    .then_some(())
            })
            .await;
        assert!(pods.get_opt("till").await.unwrap().is_some());
        place
            .reports(&node, &key, &uid, &json!({"phase": "Succeeded"}))
            .await;
        gone(&place, "till").await;
        place
            .until("the node is told", async |place| {
                (!place.objects(&node).contains_key(&key)).then_some(())
            })
            .await;
    }
}

async fn gone(place: &Place, pod: &str) {
    place
        .until("it is gone", async |place| {
            let pods = place.objects_of(POD);
            pods.get_opt(pod).await.unwrap().is_none().then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_its_node_no_longer_runs_goes() {
    for mut place in places().await {
        place.run();
        let node = place.edge("edge-1").await;
        let uid = place.pod("till", &node, "prices").await.metadata.uid.unwrap();
        let key = place.key("pods", "till");
        place
            .reports(&node, &key, &uid, &json!({"phase": "Running"}))
            .await;
        place.delete(POD, place.namespace(), "till").await;
        place
            .node_says(&node, Lane::UpState, &key, &Payload::KubeStatusRemoved)
            .await;
        gone(&place, "till").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_only_edge_nodes_are_ours_and_their_pods_are_not_evicted() {
    for mut place in places().await {
        place.every_node = false;
        let (edge, worker) = (place.edge("edge-1").await, place.own("worker"));
        place.node(&worker, &json!({})).await;
        place.pod("on-edge", &edge, "prices").await;
        place.pod("on-worker", &worker, "prices").await;
        place.run();
        place.holds(&edge, &[&place.key("pods", "on-edge")]).await;
        assert!(place.objects(&worker).is_empty());
        let other = place.objects_of(POD).get("on-worker").await.unwrap();
        assert!(!stays(&other.data), "{other:?}");
    }
}

async fn tells(place: &Place, node: &str, about: &str, message: &str) {
    let event = json!({
        "involvedObject": {"kind": "Pod", "namespace": place.namespace(), "name": about},
        "type": "Normal", "reason": "Started", "message": message, "source": {"component": "edgecore", "host": node},
    });
    let payload = Payload::KubeEvent(v1::KubeEvent {
        json: event.to_string().into_bytes(),
    });
    let key = place.key("pods", about);
    place.node_says(node, Lane::UpData, &key, &payload).await;
}

async fn events(place: &Place) -> Vec<DynamicObject> {
    let list = place.objects_of(EVENT).list(&ListParams::default()).await;
    list.unwrap().items
}

async fn messages(place: &Place, wanted: &[&str]) {
    place
        .until(&format!("events {wanted:?}"), async |place| {
            let events = events(place).await;
            let mut told: Vec<_> = events.iter().map(|event| &event.data["message"]).collect();
            told.sort_by_key(|message| message.to_string());
            (told == wanted).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_nodes_are_written_once_over_restarts() {
    for mut place in places().await {
        place.run();
        let (node, other) = (place.own("edge-1"), place.own("edge-2"));
        tells(&place, &node, "till", "1").await;
        tells(&place, &node, "till", "2").await;
        tells(&place, &other, "other", "3").await;
        messages(&place, &["1", "2", "3"]).await;
        place
            .until("the cursor", async |place| {
                let cursor: v1::EventCursor = place.entry(&node, Table::EventCursors, &node)?;
                (cursor.position?.seq == 2).then_some(())
            })
            .await;
        place.stop().await;
        tells(&place, &node, "till", "4").await;
        // It was deleted: what comes after the cursor only is written.
        let all = events(&place).await;
        let first = all.iter().find(|event| event.data["message"] == "1").unwrap();
        let name = first.metadata.name.as_deref().unwrap();
        place.delete(EVENT, place.namespace(), name).await;
        place.run();
        messages(&place, &["2", "3", "4"]).await;
    }
}
