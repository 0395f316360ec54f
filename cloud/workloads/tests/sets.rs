//! DaemonSets and StatefulSets, against the embedded API in this process.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use serde_json::{Value, json};
use support::{Cluster, by_node, names};

fn agent(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    })
}

fn all_run(set: &DaemonSet, count: i32) -> bool {
    let status = set.status.clone().unwrap_or_default();
    let counts = [
        Some(status.desired_number_scheduled),
        Some(status.number_ready),
        status.number_available,
        status.updated_number_scheduled,
    ];
    status.observed_generation == set.metadata.generation && counts == [Some(count); 4]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_is_on_every_node_that_will_have_it() {
    let mut cluster = Cluster::start().await;
    let edge = json!({"node-role.kubernetes.io/edge": ""});
    cluster.node("a", json!({}), json!([])).await;
    cluster.node("edge", edge, json!([])).await;
    let taint = json!([{"key": "dedicated", "effect": "NoSchedule"}]);
    cluster.node("tainted", json!({}), taint).await;
    cluster.create::<DaemonSet>(agent("one")).await;
    cluster.until("agent", |set: &DaemonSet| all_run(set, 2)).await;
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 2).await;
    assert_eq!(
        by_node(&pods),
        [("a".to_owned(), 1), ("edge".to_owned(), 1)].into()
    );

    // A node without a link keeps its pod; a new node gets one.
    let taints = json!([
        {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
    ]);
    cluster
        .merge::<Node>("edge", json!({"spec": {"taints": taints}}))
        .await;
    cluster.node("b", json!({}), json!([])).await;
    let pods = cluster
        .until_all::<Pod>(|pods| by_node(pods).contains_key("b") && pods.len() == 3)
        .await;
    assert!(by_node(&pods).contains_key("edge"));
    cluster
        .merge::<Node>("edge", json!({"spec": {"taints": null}}))
        .await;
    cluster.until("agent", |set: &DaemonSet| all_run(set, 3)).await;

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    cluster.merge::<DaemonSet>("agent", image).await;
    cluster
        .until("agent", |set: &DaemonSet| {
            set.metadata.generation == Some(2) && all_run(set, 3)
        })
        .await;
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 3).await;
    assert!(
        pods.iter()
            .all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("two"))
    );

    // A node it is not for any more loses it.
    let selector =
        json!({"spec": {"template": {"spec": {"nodeSelector": {"node-role.kubernetes.io/edge": ""}}}}});
    cluster.merge::<DaemonSet>("agent", selector).await;
    cluster
        .until_all::<Pod>(|pods| by_node(pods) == [("edge".to_owned(), 1)].into())
        .await;
    cluster.until("agent", |set: &DaemonSet| all_run(set, 1)).await;
    cluster.stop().await;
}

fn store(replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "local-path",
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }],
        },
    })
}

fn rolled_out(set: &StatefulSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    let wanted = set.spec.as_ref().unwrap().replicas;
    status.observed_generation == set.metadata.generation
        && status.current_revision == status.update_revision
        && [
            Some(status.replicas),
            status.ready_replicas,
            status.updated_replicas,
        ] == [wanted; 3]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_goes_in_order_and_keeps_names_and_claims() {
    let mut cluster = Cluster::start().await;
    cluster.storage_class("local-path", "Immediate", false).await;
    cluster.node("a", json!({}), json!([])).await;
    cluster.create::<StatefulSet>(store(3, "one")).await;
    cluster.until("db", rolled_out).await;
    let pods = cluster
        .until_all::<Pod>(|pods| names(pods) == ["db-0", "db-1", "db-2"])
        .await;
    let made: Vec<_> = pods
        .iter()
        .map(|pod| pod.metadata.resource_version.clone())
        .collect();
    assert_eq!(made.len(), 3);
    let spec = pods[0].spec.clone().unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("db-0"), Some("db"))
    );
    assert_eq!(
        spec.volumes.unwrap()[0]
            .persistent_volume_claim
            .as_ref()
            .unwrap()
            .claim_name,
        "data-db-0"
    );
    let claims = cluster
        .until_all::<PersistentVolumeClaim>(|claims| claims.len() == 3)
        .await;
    assert_eq!(names(&claims), ["data-db-0", "data-db-1", "data-db-2"]);

    // One that does not come up stops the rollout at it: the last goes first.
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    cluster.merge::<StatefulSet>("db", image("wait")).await;
    let images = |pods: &[Pod]| -> Vec<String> {
        pods.iter()
            .map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap())
            .collect()
    };
    cluster
        .until_all::<Pod>(|pods| images(pods) == ["one", "one", "wait"])
        .await;
    cluster.merge::<StatefulSet>("db", image("two")).await;
    let stuck = Default::default();
    cluster.api::<Pod>().delete("db-2", &stuck).await.unwrap();
    cluster
        .until("db", |set: &StatefulSet| {
            set.metadata.generation == Some(3) && rolled_out(set)
        })
        .await;
    cluster
        .until_all::<Pod>(|pods| images(pods) == ["two", "two", "two"])
        .await;

    // Smaller: the last ones go, their claims stay.
    cluster
        .merge::<StatefulSet>("db", json!({"spec": {"replicas": 1}}))
        .await;
    cluster.until_all::<Pod>(|pods| names(pods) == ["db-0"]).await;
    cluster
        .until_all::<PersistentVolumeClaim>(|claims| claims.len() == 3)
        .await;
    cluster.stop().await;
}
