//! Deployments from the object to pods that run, against the embedded API in this process.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use support::{Cluster, by_node};

fn web(replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    })
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn reason(deployment: &Deployment, kind: &str) -> String {
    let conditions = deployment
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut reasons = conditions
        .filter(|one| one.type_ == kind)
        .filter_map(|one| one.reason.clone());
    reasons.next().unwrap_or_default()
}

/// Rolled out: all replicas are of the newest template and available, and the status is of the newest generation.
fn done(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.as_ref().unwrap().replicas;
    status.observed_generation == deployment.metadata.generation
        && [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ] == [wanted; 3]
        && reason(deployment, "Progressing") == "NewReplicaSetAvailable"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_runs_rolls_and_scales() {
    let mut cluster = Cluster::start().await;
    for node in ["a", "b"] {
        cluster.node(node, json!({}), json!([])).await;
    }
    cluster.create::<Deployment>(web(4, "one")).await;
    let first = cluster.until("web", done).await;
    assert_eq!(
        first.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"],
        "1"
    );
    assert_eq!(
        reason(&cluster.until("web", done).await, "Available"),
        "MinimumReplicasAvailable"
    );
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 4).await;
    assert_eq!(by_node(&pods), [("a".to_owned(), 2), ("b".to_owned(), 2)].into());

    cluster.merge::<Deployment>("web", image("two")).await;
    let second = cluster
        .until("web", |web: &Deployment| {
            done(web) && web.metadata.generation == Some(2)
        })
        .await;
    assert_eq!(
        second.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"],
        "2"
    );
    let sets = cluster.until_all::<ReplicaSet>(|sets| sets.len() == 2).await;
    let mut sizes: Vec<_> = sets
        .iter()
        .map(|set| set.spec.as_ref().unwrap().replicas.unwrap())
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 4]);
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 4).await;
    assert!(
        pods.iter()
            .all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("two"))
    );

    cluster
        .merge::<Deployment>("web", json!({"spec": {"replicas": 1}}))
        .await;
    cluster.until("web", done).await;
    cluster.until_all::<Pod>(|pods| pods.len() == 1).await;

    let said = cluster.event("web", "ScalingReplicaSet").await;
    assert!(said.starts_with("Scaled up replica set web-"), "{said}");
    let pod = &pods[0].metadata.name.clone().unwrap();
    let said = cluster.event(pod, "Scheduled").await;
    assert!(said.starts_with("Successfully assigned default/web-"), "{said}");

    cluster
        .api::<Deployment>()
        .delete("web", &DeleteParams::background())
        .await
        .unwrap();
    cluster.until_all::<Pod>(<[Pod]>::is_empty).await;
    cluster.until_all::<ReplicaSet>(<[ReplicaSet]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_cannot_go_on_keeps_what_serves() {
    let mut cluster = Cluster::start().await;
    cluster.node("a", json!({}), json!([])).await;
    cluster.create::<Deployment>(web(4, "one")).await;
    cluster.until("web", done).await;
    // 25 %: one more, and one fewer.
    cluster.merge::<Deployment>("web", image("wait")).await;
    let stuck = cluster
        .until("web", |web: &Deployment| {
            let status = web.status.clone().unwrap_or_default();
            status.updated_replicas == Some(2) && status.replicas == Some(5)
        })
        .await;
    assert_eq!(stuck.status.unwrap().available_replicas, Some(3));
    // Back to what was: the old set takes over again, with a new revision.
    cluster.merge::<Deployment>("web", image("one")).await;
    let back = cluster
        .until("web", |web: &Deployment| {
            done(web) && web.metadata.generation == Some(3)
        })
        .await;
    assert_eq!(
        back.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"],
        "3"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_ends_all_before_it_begins() {
    let mut cluster = Cluster::start().await;
    cluster.node("a", json!({}), json!([])).await;
    let mut web = web(2, "one");
    web["spec"]["strategy"] = json!({"type": "Recreate"});
    web["spec"]["revisionHistoryLimit"] = 1.into();
    cluster.create::<Deployment>(web).await;
    cluster.until("web", done).await;
    for (generation, name) in [(2, "two"), (3, "three")] {
        cluster.merge::<Deployment>("web", image(name)).await;
        cluster
            .until("web", |web: &Deployment| {
                done(web) && web.metadata.generation == Some(generation)
            })
            .await;
    }
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 2).await;
    assert!(
        pods.iter()
            .all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("three"))
    );
    cluster.until_all::<ReplicaSet>(|sets| sets.len() == 2).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_wait_for_a_node_that_will_do() {
    let mut cluster = Cluster::start().await;
    let edge = json!({"node-role.kubernetes.io/edge": ""});
    let taint = json!([{"key": "dedicated", "value": "x", "effect": "NoSchedule"}]);
    cluster.node("plain", json!({}), json!([])).await;
    cluster.node("tainted", edge.clone(), taint).await;
    let mut web = web(1, "one");
    web["spec"]["template"]["spec"]["nodeSelector"] = edge.clone();
    cluster.create::<Deployment>(web).await;
    let said = |pod: &Pod| {
        let conditions = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let mut scheduled = conditions.filter(|one| one.type_ == "PodScheduled" && one.status == "False");
        scheduled
            .next()
            .and_then(|one| one.message.clone())
            .unwrap_or_default()
    };
    let pods = cluster
        .until_all::<Pod>(|pods| pods.len() == 1 && !said(&pods[0]).is_empty())
        .await;
    assert_eq!(
        said(&pods[0]),
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s)."
    );
    cluster
        .event(pods[0].metadata.name.as_deref().unwrap(), "FailedScheduling")
        .await;
    cluster.node("edge", edge, json!([])).await;
    cluster.until("web", done).await;
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 1).await;
    assert_eq!(by_node(&pods), [("edge".to_owned(), 1)].into());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_be_reached_keeps_its_pods_and_one_that_is_gone_does_not() {
    let mut cluster = Cluster::start().await;
    cluster.node("a", json!({}), json!([])).await;
    cluster.create::<Deployment>(web(2, "one")).await;
    cluster.until("web", done).await;
    let before: Vec<_> = cluster.until_all::<Pod>(|pods| pods.len() == 2).await;
    let taints = json!([
        {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
    ]);
    cluster
        .merge::<Node>("a", json!({"spec": {"taints": taints}}))
        .await;
    cluster.node("b", json!({}), json!([])).await;
    // A third pod goes elsewhere: what was told of the node was taken in, and moved nothing.
    cluster
        .merge::<Deployment>("web", json!({"spec": {"replicas": 3}}))
        .await;
    cluster.until("web", done).await;
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 3).await;
    assert_eq!(by_node(&pods), [("a".to_owned(), 2), ("b".to_owned(), 1)].into());
    for pod in &before {
        assert!(pods.iter().any(|now| now.metadata.uid == pod.metadata.uid));
    }
    cluster
        .api::<Node>()
        .delete("a", &DeleteParams::default())
        .await
        .unwrap();
    let pods = cluster
        .until_all::<Pod>(|pods| by_node(pods) == [("b".to_owned(), 3)].into())
        .await;
    assert_eq!(pods.len(), 3);
    cluster.stop().await;
}
