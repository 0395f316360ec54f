//! The controllers against a real kube-apiserver: a node, its pod, what comes down and goes up, in its own name. What has
//! to hold with the embedded API too is in the other files.

use crate::support::{Place, ready, tainted};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DynamicObject, Patch, PatchParams};
use ledge_proto::fold::Table;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};

const POD: &str = "v1/Pod/pods";

fn says_ready(node: &DynamicObject, wanted: &str) -> bool {
    ready(node).is_some_and(|ready| ready["status"] == wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_and_its_pod() {
    let Some(mut place) = Place::real().await else {
        return;
    };
    let name = place.own("edge");
    let node = name.as_str();
    place.run();
    place.links.set(node, true);
    place.registers(node).await;
    let up = |node: &DynamicObject| says_ready(node, "True") && !tainted(node, "NoSchedule");
    place.until_node(node, up).await;
    place.config_map("prices", "1").await;
    let pod = place.pod("till", node, "prices").await;
    let uid = pod.metadata.uid.unwrap();
    let (map, key) = (place.key("configmaps", "prices"), place.key("pods", "till"));
    // With what keeps it from eviction.
    place.holds(node, &[&map, &key]).await;
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    place.reports(node, &key, &uid, &status).await;
    place
        .until("the status", async |place| {
            let pod = place.objects_of(POD).get("till").await.unwrap();
            (pod.data["status"]["phase"] == "Running").then_some(())
        })
        .await;
    // While its link is away it is given nothing new, and keeps what it has.
    place.links.set(node, false);
    let away = |node: &DynamicObject| says_ready(node, "Unknown") && tainted(node, "NoSchedule");
    place.until_node(node, away).await;
    place.links.set(node, true);
    place.until_node(node, up).await;
    // As its own user: a node may not write config maps, and the API server says so.
    let path = format!("/api/v1/namespaces/{}/configmaps/prices", place.namespace());
    let write = Payload::KubeWrite(v1::KubeWrite {
        method: "PATCH".to_owned(),
        path,
        content_type: "application/merge-patch+json".to_owned(),
        body: json!({"data": {"key": "2"}}).to_string().into_bytes().into(),
        ..Default::default()
    });
    place.node_says(node, Lane::UpState, "w-1", &write).await;
    let result = place
        .until("the result", async |place| {
            place.entry::<v1::KubeWriteResult>(node, Table::KubeWriteResults, "w-1")
        })
        .await;
    let refusal: Value = serde_json::from_slice(&result.json).unwrap();
    assert_eq!(result.code, 403, "{refusal}");
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .contains(&format!("system:node:{node}")),
        "{refusal}"
    );
    // A change comes down.
    let change = Patch::Merge(json!({"data": {"key": "3"}}));
    let maps = place.objects_of("v1/ConfigMap/configmaps");
    maps.patch("prices", &PatchParams::default(), &change)
        .await
        .unwrap();
    place
        .until("the change", async |place| {
            (place.objects(node).get(&map)?["data"]["key"] == "3").then_some(())
        })
        .await;
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_link_is_up_the_lease_is_renewed_long_before_it_runs_out() {
    let Some(mut place) = Place::real().await else {
        return;
    };
    let name = place.own("edge");
    place.run();
    place.links.set(&name, true);
    place.registers(&name).await;
    let renewed_after = async |before: Option<Timestamp>| {
        place
            .until("a renewal", async |place| {
                let leases = place.api("coordination.k8s.io/v1/Lease/leases", "kube-node-lease");
                let lease = leases.get_opt(&name).await.unwrap()?;
                let spec = &lease.data["spec"];
                // As long as a controller manager waits before it takes a node for lost, with its default settings.
                assert_eq!(spec["leaseDurationSeconds"], 40);
                assert_eq!(spec["holderIdentity"], name.as_str());
                let renewed: Timestamp = spec["renewTime"].as_str()?.parse().unwrap();
                (Some(renewed) != before).then_some(renewed)
            })
            .await
    };
    let first = renewed_after(None).await;
    let second = renewed_after(Some(first)).await;
    let between = second.duration_since(first);
    // Every 10 s, on a machine that has the time.
    assert!(between > SignedDuration::from_secs(5), "{between}");
    assert!(between < SignedDuration::from_secs(40), "{between}");
    place.stop().await;
}
