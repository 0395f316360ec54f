//! What nodes are told of the Kubernetes API.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use kube::api::{DeleteParams, Patch, PatchParams};
use ledge_proto::fold::Table;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::json;
use support::Place;

const POD: &str = "/pods/default/till";
const MAP: &str = "/configmaps/default/prices";

/// Waits until the node holds exactly these objects, besides its Node.
async fn holds(place: &Place, node: &str, keys: &[&str]) {
    place
        .until(&format!("{node} holds {keys:?}"), async |place| {
            let objects = place.objects(node);
            let held: Vec<&str> = objects.keys().map(String::as_str).collect();
            (held == keys).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_connected_is_told_what_its_pods_need_and_nothing_else() {
    let place = Place::start().await;
    place.config_map("prices", "1").await;
    place.config_map("unrelated", "1").await;
    place.pod("till", "edge-1", "prices").await;
    place.pod("other", "edge-2", "absent").await;
    holds(&place, "edge-1", &[MAP, POD]).await;
    holds(&place, "edge-2", &["/pods/default/other"]).await;
    // What a pod refers to may come after it.
    place.config_map("absent", "1").await;
    holds(
        &place,
        "edge-2",
        &["/configmaps/default/absent", "/pods/default/other"],
    )
    .await;
    let pod = &place.objects("edge-1")[POD];
    assert_eq!((&pod["apiVersion"], &pod["kind"]), (&json!("v1"), &json!("Pod")));
    assert!(pod["metadata"].get("managedFields").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_go_down_but_not_the_status_that_the_node_itself_reports() {
    let place = Place::start().await;
    place.config_map("prices", "1").await;
    place.pod("till", "edge-1", "prices").await;
    holds(&place, "edge-1", &[MAP, POD]).await;
    let maps = place.api("v1/ConfigMap/configmaps", "default");
    let change = Patch::Merge(json!({"data": {"key": "2"}}));
    maps.patch("prices", &PatchParams::default(), &change)
        .await
        .unwrap();
    place
        .until("the change", async |place| {
            (place.objects("edge-1")[MAP]["data"]["key"] == "2").then_some(())
        })
        .await;
    let head = place.head("edge-1", Lane::Down);
    let pods = place.api("v1/Pod/pods", "default");
    let status = Patch::Merge(json!({"status": {"phase": "Running"}}));
    pods.patch_status("till", &PatchParams::default(), &status)
        .await
        .unwrap();
    place.settled("after-status").await;
    assert_eq!(place.head("edge-1", Lane::Down), head);
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    pods.patch("till", &PatchParams::default(), &label).await.unwrap();
    place
        .until("the label", async |place| {
            (place.objects("edge-1")[POD]["metadata"]["labels"]["a"] == "b").then_some(())
        })
        .await;
    assert_eq!(place.head("edge-1", Lane::Down), head + 1);
    // What goes with the pod is not needed any more.
    let now = DeleteParams::default().grace_period(0);
    pods.delete("till", &now).await.unwrap();
    holds(&place, "edge-1", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_objects_are_written_once_for_all_nodes() {
    let place = Place::start().await;
    for node in ["edge-1", "edge-2", "edge-3"] {
        place.pod(&format!("pod-{node}"), node, "prices").await;
    }
    place.settled("before").await;
    let before = place.head("", Lane::Down);
    for number in 0..20 {
        let service = json!({
            "metadata": {"namespace": "default", "name": format!("service-{number}")},
            "spec": {"clusterIP": "None", "selector": {"app": "a"}, "ports": [{"port": 80}]},
        });
        place.create("v1/Service/services", service).await;
    }
    place.settled("after").await;
    let services = place
        .objects("")
        .into_keys()
        .filter(|key| key.starts_with("/services/default/service-"))
        .count();
    assert_eq!(services, 20);
    assert_eq!(place.head("", Lane::Down), before + 21);
    for node in ["edge-1", "edge-2", "edge-3"] {
        assert!(place.objects(node).keys().all(|key| !key.contains("services")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_only_the_difference_is_told() {
    let mut place = Place::start().await;
    place.config_map("prices", "1").await;
    place.pod("till", "edge-1", "prices").await;
    place.pod("gone", "edge-1", "prices").await;
    holds(&place, "edge-1", &[MAP, "/pods/default/gone", POD]).await;
    place.settled("before").await;
    place.stop().await;
    let heads = ["edge-1", ""].map(|node| place.head(node, Lane::Down));
    place.run();
    place.settled("meanwhile").await;
    assert_eq!(place.head("edge-1", Lane::Down), heads[0]);
    assert_eq!(place.head("", Lane::Down), heads[1] + 1);
    place.stop().await;
    let now = DeleteParams::default().grace_period(0);
    let pods = place.api("v1/Pod/pods", "default");
    pods.delete("gone", &now).await.unwrap();
    place.run();
    holds(&place, "edge-1", &[MAP, POD]).await;
    assert_eq!(place.head("edge-1", Lane::Down), heads[0] + 1);
}

fn interest() -> v1::Interest {
    v1::Interest {
        group: "batch".to_owned(),
        resource: "cronjobs".to_owned(),
        namespace: "default".to_owned(),
        ..Default::default()
    }
}

async fn cron_job(place: &Place, name: &str) {
    let container = json!({"name": "c", "image": "i"});
    let template =
        json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}});
    let object = json!({
        "metadata": {"namespace": "default", "name": name},
        "spec": {"schedule": "* * * * *", "jobTemplate": template},
    });
    place.create("batch/v1/CronJob/cronjobs", object).await;
}

fn state(place: &Place) -> Option<v1::InterestState> {
    place.entry("edge-1", Table::InterestStates, "i-1")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interest_brings_objects_that_the_node_may_see_and_keeps_them_current() {
    let mut place = Place::start().await;
    cron_job(&place, "one").await;
    let asked = Payload::Interest(interest());
    place.node_says("edge-1", Lane::UpState, "i-1", &asked).await;
    let refused = place
        .until("a refusal", async |place| {
            state(place).filter(|state| state.code != 0)
        })
        .await;
    assert_eq!((refused.code, refused.reason.as_str()), (403, "Forbidden"));
    place.stop().await;
    let rules = json!([{"apiGroups": ["batch"], "resources": ["cronjobs"], "verbs": ["list", "watch"]}]);
    let role = json!({"metadata": {"name": "nodes-see-cronjobs"}, "rules": rules});
    place
        .create("rbac.authorization.k8s.io/v1/ClusterRole/clusterroles", role)
        .await;
    let binding = json!({
        "metadata": {"name": "nodes-see-cronjobs"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "nodes-see-cronjobs"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"}],
    });
    place
        .create(
            "rbac.authorization.k8s.io/v1/ClusterRoleBinding/clusterrolebindings",
            binding,
        )
        .await;
    place.run();
    let key = "batch/cronjobs/default/one";
    let listed = place
        .until("the list", async |place| {
            state(place).filter(|state| state.code == 200)
        })
        .await;
    assert!(!listed.resource_version.is_empty());
    // Everything it takes was sent before the state.
    let object = &place.objects("edge-1")[key];
    assert_eq!(
        (&object["apiVersion"], &object["kind"]),
        (&json!("batch/v1"), &json!("CronJob"))
    );
    cron_job(&place, "two").await;
    holds(&place, "edge-1", &[key, "batch/cronjobs/default/two"]).await;
    // A restart takes nothing away, and tells nothing again.
    let head = place.head("edge-1", Lane::Down);
    place.stop().await;
    place.run();
    cron_job(&place, "three").await;
    let three = "batch/cronjobs/default/three";
    holds(&place, "edge-1", &[key, three, "batch/cronjobs/default/two"]).await;
    assert_eq!(place.head("edge-1", Lane::Down), head + 1);
    place
        .node_says("edge-1", Lane::UpState, "i-1", &Payload::InterestRemoved)
        .await;
    holds(&place, "edge-1", &[]).await;
    assert_eq!(state(&place), None);
}
