//! How DaemonSets and StatefulSets go over to a new template, each way that they may be told to.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use support::{Cluster, names};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn with_image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn daemon_set(strategy: Value) -> Value {
    json!({
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template("one"), "updateStrategy": strategy},
    })
}

fn stateful_set(more: Value) -> Value {
    let mut set = json!({
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"serviceName": "db", "selector": {"matchLabels": {"app": "x"}}, "template": template("one")},
    });
    let spec = set["spec"].as_object_mut().unwrap();
    spec.extend(more.as_object().unwrap().clone());
    set
}

fn image(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

fn node(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().node_name.clone().unwrap_or_default()
}

/// Image by the pod's name.
fn by_name(pods: &[Pod]) -> Vec<(String, String)> {
    let mut all: Vec<_> = pods.iter().map(|pod| (pod.name_any(), image(pod))).collect();
    all.sort();
    all
}

/// Images by node.
fn by_node(pods: &[Pod]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods {
        all.entry(node(pod)).or_default().push(image(pod));
    }
    all.values_mut().for_each(|images| images.sort());
    all
}

fn expected(nodes: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let text = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    nodes
        .iter()
        .map(|(node, images)| ((*node).to_owned(), text(images)))
        .collect()
}

/// What the set says of itself is about its latest generation, and so many pods are of its template.
fn seen(set: &DaemonSet, generation: i64, updated: Option<i32>) -> bool {
    let status = set.status.clone().unwrap_or_default();
    set.metadata.generation == Some(generation)
        && status.observed_generation == Some(generation)
        && status.updated_number_scheduled == updated
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_that_surges_has_the_new_pod_beside_the_old_one() {
    let mut cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.node(name, json!({}), json!([])).await;
    }
    let surge = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    cluster.create::<DaemonSet>(daemon_set(surge)).await;
    let available = |set: &DaemonSet| {
        let status = set.status.clone().unwrap_or_default();
        status.number_available.unwrap_or(0)
    };
    cluster
        .until("agent", |set: &DaemonSet| {
            seen(set, 1, Some(3)) && available(set) == 3
        })
        .await;

    // One that never runs: it stands beside the old one on one node, and nothing goes on.
    cluster.merge::<DaemonSet>("agent", with_image("wait")).await;
    cluster
        .until("agent", |set: &DaemonSet| seen(set, 2, Some(1)))
        .await;
    let pods = cluster
        .until_all::<Pod>(|pods| pods.len() == 4 && pods.iter().all(|pod| !node(pod).is_empty()))
        .await;
    let mut nodes: Vec<Vec<String>> = by_node(&pods).into_values().collect();
    nodes.sort();
    assert_eq!(nodes, [vec!["one"], vec!["one"], vec!["one", "wait"]]);

    // One that runs: it comes everywhere, and at no moment is a node without one that is available.
    cluster.merge::<DaemonSet>("agent", with_image("two")).await;
    cluster
        .until("agent", |set: &DaemonSet| {
            assert_eq!(available(set), 3, "{set:?}");
            seen(set, 3, Some(3))
        })
        .await;
    let all = expected(&[("a", &["two"]), ("b", &["two"]), ("c", &["two"])]);
    cluster.until_all::<Pod>(|pods| by_node(pods) == all).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_may_surge_on_a_share_of_its_nodes() {
    let mut cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.node(name, json!({}), json!([])).await;
    }
    // Half of three, rounded up.
    let surge = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}});
    cluster.create::<DaemonSet>(daemon_set(surge)).await;
    cluster
        .until("agent", |set: &DaemonSet| {
            let status = set.status.clone().unwrap_or_default();
            seen(set, 1, Some(3)) && status.number_available == Some(3)
        })
        .await;
    cluster.merge::<DaemonSet>("agent", with_image("wait")).await;
    cluster
        .until("agent", |set: &DaemonSet| seen(set, 2, Some(2)))
        .await;
    cluster.until_all::<Pod>(|pods| pods.len() == 5).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_on_delete_waits_for_its_pods_to_be_deleted() {
    let mut cluster = Cluster::start().await;
    for name in ["a", "b"] {
        cluster.node(name, json!({}), json!([])).await;
    }
    cluster
        .create::<DaemonSet>(daemon_set(json!({"type": "OnDelete"})))
        .await;
    cluster
        .until("agent", |set: &DaemonSet| {
            let status = set.status.clone().unwrap_or_default();
            seen(set, 1, Some(2)) && status.number_available == Some(2)
        })
        .await;
    cluster.merge::<DaemonSet>("agent", with_image("two")).await;
    // It has seen the new template, and left the pods as they are.
    cluster.until("agent", |set: &DaemonSet| seen(set, 2, None)).await;
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 2).await;
    assert_eq!(by_node(&pods), expected(&[("a", &["one"]), ("b", &["one"])]));

    let on_a = pods.iter().find(|pod| node(pod) == "a").unwrap().name_any();
    cluster
        .api::<Pod>()
        .delete(&on_a, &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until("agent", |set: &DaemonSet| seen(set, 2, Some(1)))
        .await;
    let mixed = expected(&[("a", &["two"]), ("b", &["one"])]);
    cluster.until_all::<Pod>(|pods| by_node(pods) == mixed).await;
    cluster.stop().await;
}

/// What the set says of itself is about its latest generation: pods that there are, that are ready, of the newest template.
fn told(set: &StatefulSet, generation: i64) -> Option<(i32, i32, i32)> {
    let status = set.status.clone().unwrap_or_default();
    let current =
        set.metadata.generation == Some(generation) && status.observed_generation == Some(generation);
    current.then(|| {
        (
            status.replicas,
            status.ready_replicas.unwrap_or(0),
            status.updated_replicas.unwrap_or(0),
        )
    })
}

fn pods(images: &[&str]) -> Vec<(String, String)> {
    let images = images.iter().enumerate();
    images
        .map(|(nth, image)| (format!("db-{nth}"), (*image).to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_on_delete_waits_for_its_pods_to_be_deleted() {
    let mut cluster = Cluster::start().await;
    cluster.node("a", json!({}), json!([])).await;
    let set = stateful_set(json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}}));
    cluster.create::<StatefulSet>(set).await;
    cluster
        .until("db", |set: &StatefulSet| told(set, 1) == Some((2, 2, 2)))
        .await;
    cluster.merge::<StatefulSet>("db", with_image("two")).await;
    cluster
        .until("db", |set: &StatefulSet| told(set, 2) == Some((2, 2, 0)))
        .await;
    cluster
        .until_all::<Pod>(|all| by_name(all) == pods(&["one", "one"]))
        .await;
    cluster
        .api::<Pod>()
        .delete("db-0", &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until("db", |set: &StatefulSet| told(set, 2) == Some((2, 2, 1)))
        .await;
    cluster
        .until_all::<Pod>(|all| by_name(all) == pods(&["two", "one"]))
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_with_a_partition_leaves_those_below_it() {
    let mut cluster = Cluster::start().await;
    cluster.node("a", json!({}), json!([])).await;
    let partition = |at: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": at}});
    let set = stateful_set(json!({"replicas": 4, "updateStrategy": partition(2)}));
    cluster.create::<StatefulSet>(set).await;
    cluster
        .until("db", |set: &StatefulSet| told(set, 1) == Some((4, 4, 4)))
        .await;
    cluster.merge::<StatefulSet>("db", with_image("two")).await;
    let set = cluster
        .until("db", |set: &StatefulSet| told(set, 2) == Some((4, 4, 2)))
        .await;
    let status = set.status.unwrap();
    assert_ne!(status.current_revision, status.update_revision);
    assert_eq!(status.current_replicas, Some(2));
    cluster
        .until_all::<Pod>(|all| by_name(all) == pods(&["one", "one", "two", "two"]))
        .await;

    // Lower: the rest follows, and the new template is the current one.
    let lower = json!({"spec": {"updateStrategy": partition(0)}});
    cluster.merge::<StatefulSet>("db", lower).await;
    let set = cluster
        .until("db", |set: &StatefulSet| told(set, 3) == Some((4, 4, 4)))
        .await;
    let status = set.status.unwrap();
    assert_eq!(status.current_revision, status.update_revision);
    cluster
        .until_all::<Pod>(|all| by_name(all) == pods(&["two", "two", "two", "two"]))
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parallel_stateful_set_waits_for_none_of_its_pods() {
    let mut cluster = Cluster::start().await;
    cluster.node("a", json!({}), json!([])).await;
    // None of these ever runs: in order, the second would never come.
    let mut set = stateful_set(json!({"replicas": 3, "podManagementPolicy": "Parallel"}));
    set["spec"]["template"] = template("wait");
    cluster.create::<StatefulSet>(set).await;
    cluster
        .until("db", |set: &StatefulSet| told(set, 1) == Some((3, 0, 3)))
        .await;
    cluster
        .until_all::<Pod>(|pods| names(pods) == ["db-0", "db-1", "db-2"])
        .await;
    cluster
        .merge::<StatefulSet>("db", json!({"spec": {"replicas": 1}}))
        .await;
    cluster
        .until("db", |set: &StatefulSet| told(set, 2) == Some((1, 0, 1)))
        .await;
    // A new template still goes from pod to pod.
    cluster
        .merge::<StatefulSet>("db", json!({"spec": {"replicas": 2}}))
        .await;
    cluster
        .until("db", |set: &StatefulSet| told(set, 3) == Some((2, 0, 2)))
        .await;
    cluster.merge::<StatefulSet>("db", with_image("two")).await;
    cluster
        .until("db", |set: &StatefulSet| told(set, 4) == Some((2, 2, 2)))
        .await;
    cluster
        .until_all::<Pod>(|all| by_name(all) == pods(&["two", "two"]))
        .await;
    cluster.stop().await;
}
