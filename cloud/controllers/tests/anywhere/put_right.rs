//! What another writer makes of the status of pods and Nodes is put right.

use kube::api::{DynamicObject, Patch, PatchParams};
use ledge_cloud_testing::{clusters, eventually};
use serde_json::{Value, json};

use crate::place::Anywhere;

const NODE: &str = "/v1/Node/nodes";
const POD: &str = "v1/Pod/pods";

fn condition(object: &DynamicObject, kind: &str) -> Value {
    let conditions = object.data["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == kind)
        .map_or(Value::Null, |condition| condition["status"].clone())
}

async fn becomes(place: &Anywhere, kind: &str, name: &str, ready: &str) -> DynamicObject {
    let what = format!("{kind} is Ready: {ready}, on {}", place.cluster.name());
    eventually(&what, async || {
        let object = place.api(kind).get_opt(name).await.unwrap()?;
        (condition(&object, "Ready") == ready).then_some(object)
    })
    .await
}

/// As a cluster's controllers do to a node that they have not heard of.
async fn set_not_ready(place: &Anywhere, kind: &str, name: &str) {
    let status = if kind == NODE { "Unknown" } else { "False" };
    let patch = json!({"status": {"conditions": [
        {"type": "Ready", "status": status, "reason": "NodeStatusUnknown", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]}});
    let api = place.api(kind);
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
}

/// A pod that runs on the node, and is ready.
async fn runs_a_pod(place: &Anywhere) {
    let container = json!({"name": "main", "image": "example.org/app:1"});
    let pod = json!({
        "metadata": {"name": "till"},
        "spec": {"nodeName": place.name(), "automountServiceAccountToken": false, "containers": [container]},
    });
    if place.cluster.is_real() {
        // Nobody else makes it there, and pods are not admitted without it.
        place
            .make(
                "v1/ServiceAccount/serviceaccounts",
                json!({"metadata": {"name": "default"}}),
            )
            .await;
    }
    let pod = place.make(POD, pod).await;
    let key = format!("/pods/{}/till", place.cluster.namespace());
    let status = json!({
        "phase": "Running", "podIP": "10.0.0.7",
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    place.reports(&key, &pod.metadata.uid.unwrap(), &status).await;
    becomes(place, POD, "till", "True").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_make_of_a_pod_and_its_node_is_put_right() {
    for cluster in clusters(&ledge_crds::definitions()).await {
        let mut place = Anywhere::new(cluster);
        place.run();
        place.link(true);
        place.registers().await;
        becomes(&place, NODE, place.name(), "True").await;
        runs_a_pod(&place).await;
        set_not_ready(&place, POD, "till").await;
        set_not_ready(&place, NODE, place.name()).await;
        let pod = becomes(&place, POD, "till", "True").await;
        assert_eq!(pod.data["status"]["podIP"], "10.0.0.7");
        becomes(&place, NODE, place.name(), "True").await;
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_a_node_that_is_away_is_put_right_when_it_is_back() {
    for cluster in clusters(&ledge_crds::definitions()).await {
        let mut place = Anywhere::new(cluster);
        place.run();
        place.link(true);
        place.registers().await;
        runs_a_pod(&place).await;
        place.link(false);
        becomes(&place, NODE, place.name(), "Unknown").await;
        set_not_ready(&place, POD, "till").await;
        // What comes after that was seen, and would have been put right.
        let before = place.head(ledge_proto::ids::Lane::Down);
        let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        place
            .api(POD)
            .patch("till", &PatchParams::default(), &label)
            .await
            .unwrap();
        eventually("the label is told", async || {
            (place.head(ledge_proto::ids::Lane::Down) > before).then_some(())
        })
        .await;
        becomes(&place, POD, "till", "False").await;
        place.link(true);
        becomes(&place, POD, "till", "True").await;
        place.stop().await;
    }
}

/// cloudcore starts again over the same API and the same log.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_writes_no_node_that_is_right() {
    for cluster in clusters(&ledge_crds::definitions()).await {
        let mut place = Anywhere::new(cluster);
        let own = format!("/nodes//{}", place.name());
        let status = json!({
            "capacity": {"cpu": "4", "memory": "2Gi", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "conditions": [{"type": "MemoryPressure", "status": "False", "reason": "Fine", "message": ""}],
        });
        place.registers().await;
        place.reports(&own, "", &status).await;
        place.link(true);
        place.run();
        let known = async |place: &Anywhere| {
            eventually("what is known of the node", async || {
                let node = place.api(NODE).get_opt(place.name()).await.unwrap()?;
                let known = node.metadata.annotations?.contains_key("ledge.kubeedge.io/known");
                (known && node.data["status"]["capacity"]["cpu"] == "4")
                    .then_some(node.metadata.resource_version)
            })
            .await
        };
        let renewed = async |place: &Anywhere, before: Option<Value>| {
            eventually("a lease", async || {
                let resource = kube::core::ApiResource::from_gvk_with_plural(
                    &kube::core::GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease"),
                    "leases",
                );
                let client = place.cluster.client("system:test");
                let leases =
                    kube::Api::<DynamicObject>::namespaced_with(client, "kube-node-lease", &resource);
                let time = leases.get_opt(place.name()).await.unwrap()?.data["spec"]["renewTime"].clone();
                (time.is_string() && Some(&time) != before.as_ref()).then_some(time)
            })
            .await
        };
        known(&place).await;
        let lease = renewed(&place, None).await;
        place.stop().await;
        let version = known(&place).await;
        place.run();
        // After the Node was looked at.
        renewed(&place, Some(lease)).await;
        assert_eq!(known(&place).await, version, "on {}", place.cluster.name());
        place.stop().await;
    }
}
