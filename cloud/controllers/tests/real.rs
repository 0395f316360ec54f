//! The controllers against a real kube-apiserver: a node, its pod, what comes down and goes up, in its own name.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use kube::api::{Patch, PatchParams};
use ledge_proto::fold::Table;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};
use support::Place;

const POD: &str = "v1/Pod/pods";

fn tolerates(pod: &Value) -> bool {
    let all = pod["spec"]["tolerations"].as_array();
    all.is_some_and(|all| {
        all.iter().any(|toleration| {
            toleration["key"] == "node.kubernetes.io/unreachable" && toleration["tolerationSeconds"].is_null()
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_and_its_pod() {
    let Some(mut place) = Place::real().await else {
        return;
    };
    let unique = place.cluster.as_ref().unwrap().unique("edge");
    let node = unique.as_str();
    place.run();
    place.links.set(node, true);
    place
        .node_says(
            node,
            Lane::UpState,
            node,
            &Payload::NodeState(v1::NodeState::default()),
        )
        .await;
    let ready = async |place: &Place, wanted: &str| {
        place
            .until(&format!("Ready {wanted}"), async |place| {
                let found = place.api("v1/Node/nodes", "").get_opt(node).await.unwrap()?;
                let conditions = found.data["status"]["conditions"].as_array()?.clone();
                let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
                (ready["status"] == wanted).then_some(found)
            })
            .await
    };
    ready(&place, "True").await;
    place.config_map(&unique, "1").await;
    let pod = place.pod(&unique, node, &unique).await;
    let uid = pod.metadata.uid.unwrap();
    let key = format!("/pods/default/{unique}");
    place
        .until(
            "the pod, its map, and what keeps it from eviction",
            async |place| {
                let objects = place.objects(node);
                objects.get(&format!("/configmaps/default/{unique}"))?;
                tolerates(objects.get(&key)?).then_some(())
            },
        )
        .await;
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let report = Payload::KubeStatus(v1::KubeStatus {
        uid,
        json: status.to_string().into_bytes(),
    });
    place.node_says(node, Lane::UpState, &key, &report).await;
    place
        .until("the status", async |place| {
            let pod = place.api(POD, "default").get(&unique).await.unwrap();
            (pod.data["status"]["phase"] == "Running").then_some(())
        })
        .await;
    place.links.set(node, false);
    ready(&place, "Unknown").await;
    place.links.set(node, true);
    ready(&place, "True").await;
    // As its own user: a node may not write config maps, and the API server says so.
    let path = format!("/api/v1/namespaces/default/configmaps/{unique}");
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
    let maps = place.api("v1/ConfigMap/configmaps", "default");
    maps.patch(&unique, &PatchParams::default(), &change)
        .await
        .unwrap();
    place
        .until("the change", async |place| {
            let objects = place.objects(node);
            (objects.get(&format!("/configmaps/default/{unique}"))?["data"]["key"] == "3").then_some(())
        })
        .await;
    place.stop().await;
}
