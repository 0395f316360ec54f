//! What nodes are told of the Kubernetes API.

use std::collections::BTreeSet;

use crate::support::{Place, places, ready};
use kube::api::{DeleteParams, Patch, PatchParams};
use ledge_proto::fold::Table;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};

const POD: &str = "v1/Pod/pods";
const MAP: &str = "v1/ConfigMap/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_connected_is_told_what_its_pods_need_and_nothing_else() {
    for mut place in places().await {
        place.run();
        let (one, two) = (place.edge("edge-1").await, place.edge("edge-2").await);
        let (map, pod) = (place.key("configmaps", "prices"), place.key("pods", "till"));
        let (absent, other) = (place.key("configmaps", "absent"), place.key("pods", "other"));
        place.config_map("prices", "1").await;
        place.config_map("unrelated", "1").await;
        place.pod("till", &one, "prices").await;
        place.pod("other", &two, "absent").await;
        place.holds(&one, &[&map, &pod]).await;
        place.holds(&two, &[&other]).await;
        // What a pod refers to may come after it.
        place.config_map("absent", "1").await;
        place.holds(&two, &[&absent, &other]).await;
        let told = &place.objects(&one)[&pod];
        assert_eq!(
            (&told["apiVersion"], &told["kind"]),
            (&json!("v1"), &json!("Pod"))
        );
        assert!(told["metadata"].get("managedFields").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_bound_before_its_node_was_heard_of_comes_when_the_node_reports_itself() {
    for mut place in places().await {
        place.run();
        let node = place.own("edge-1");
        let (map, pod) = (place.key("configmaps", "prices"), place.key("pods", "till"));
        place.config_map("prices", "1").await;
        place.pod("till", &node, "prices").await;
        place.settled("bound").await;
        if !place.every_node {
            // It could be the name of a node with a kubelet.
            assert!(place.objects(&node).is_empty());
        }
        place.links.set(&node, true);
        place.registers(&node).await;
        place.holds(&node, &[&map, &pod]).await;
        let there = place
            .until_node(&node, |node| {
                ready(node).is_some_and(|ready| ready["status"] == "True")
            })
            .await;
        place
            .until("the node is told its own Node", async |place| {
                let told = place.objects(&node);
                let own = told.get(&format!("/nodes//{node}"))?;
                (own["metadata"]["uid"] == there.metadata.uid.as_deref()?).then_some(())
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_mounts_runs_as_and_pulls_with_comes_with_it() {
    for mut place in places().await {
        place.run();
        let node = place.edge("edge-1").await;
        let volume = place.own("disk");
        let pod = json!({
            "metadata": {"name": "till"},
            "spec": {
                "nodeName": node,
                "serviceAccountName": "clerk",
                "containers": [{"name": "main", "image": "example.org/app:1"}],
                "volumes": [
                    {"name": "tls", "secret": {"secretName": "tls"}},
                    {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                ],
            },
        });
        place.create_here(POD, pod).await;
        let secret = |name: &str| json!({"metadata": {"name": name}, "stringData": {"key": name}});
        for name in ["tls", "registry", "storage", "unrelated"] {
            place.create_here("v1/Secret/secrets", secret(name)).await;
        }
        let clerk = json!({"metadata": {"name": "clerk"}, "imagePullSecrets": [{"name": "registry"}]});
        place
            .create_here("v1/ServiceAccount/serviceaccounts", clerk)
            .await;
        let claim = json!({"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        }});
        place
            .create_here("v1/PersistentVolumeClaim/persistentvolumeclaims", claim)
            .await;
        let stage = json!({"name": "storage", "namespace": place.namespace()});
        let disk = json!({"metadata": {"name": volume}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "csi": {"driver": "example.org", "volumeHandle": "1", "nodeStageSecretRef": stage},
        }});
        place.create("v1/PersistentVolume/persistentvolumes", disk).await;
        let key = |plural: &str, name: &str| place.key(plural, name);
        let keys = [
            key("persistentvolumeclaims", "data"),
            format!("/persistentvolumes//{volume}"),
            key("pods", "till"),
            key("secrets", "registry"),
            key("secrets", "storage"),
            key("secrets", "tls"),
            key("serviceaccounts", "clerk"),
        ];
        place.holds(&node, &keys.each_ref().map(String::as_str)).await;
        // With what is in them.
        assert_eq!(place.objects(&node)[&keys[5]]["data"]["key"], "dGxz");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_go_down_but_not_the_status_that_the_node_itself_reports() {
    for mut place in places().await {
        place.run();
        let node = place.edge("edge-1").await;
        let (map, pod) = (place.key("configmaps", "prices"), place.key("pods", "till"));
        place.config_map("prices", "1").await;
        place.pod("till", &node, "prices").await;
        place.holds(&node, &[&map, &pod]).await;
        let maps = place.objects_of(MAP);
        let change = Patch::Merge(json!({"data": {"key": "2"}}));
        maps.patch("prices", &PatchParams::default(), &change)
            .await
            .unwrap();
        place
            .until("the change", async |place| {
                (place.objects(&node)[&map]["data"]["key"] == "2").then_some(())
            })
            .await;
        let head = place.head(&node, Lane::Down);
        let pods = place.objects_of(POD);
        let status = Patch::Merge(json!({"status": {"phase": "Running"}}));
        pods.patch_status("till", &PatchParams::default(), &status)
            .await
            .unwrap();
        place.settled("after-status").await;
        assert_eq!(place.head(&node, Lane::Down), head);
        let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        pods.patch("till", &PatchParams::default(), &label).await.unwrap();
        place
            .until("the label", async |place| {
                (place.objects(&node)[&pod]["metadata"]["labels"]["a"] == "b").then_some(())
            })
            .await;
        assert_eq!(place.head(&node, Lane::Down), head + 1);
        // What goes with the pod is not needed any more.
        let now = DeleteParams::default().grace_period(0);
        pods.delete("till", &now).await.unwrap();
        place.holds(&node, &[]).await;
    }
}

/// How often all nodes were told something of the test's own services.
fn services_told(place: &Place, node: &str) -> usize {
    let prefix = place.key("services", "");
    let told = place.ever_told(node);
    told.iter().filter(|(key, _)| key.starts_with(&prefix)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_objects_are_written_once_for_all_nodes() {
    for mut place in places().await {
        place.run();
        let mut nodes = Vec::new();
        for name in ["edge-1", "edge-2", "edge-3"] {
            let node = place.edge(name).await;
            place.pod(&format!("pod-{name}"), &node, "prices").await;
            nodes.push(node);
        }
        for number in 0..20 {
            let service = json!({
                "metadata": {"name": format!("service-{number}")},
                "spec": {"clusterIP": "None", "selector": {"app": "a"}, "ports": [{"port": 80}]},
            });
            place.create_here("v1/Service/services", service).await;
        }
        place.settled("after").await;
        let prefix = place.key("services", "service-");
        let all = place.objects("");
        assert_eq!(all.keys().filter(|key| key.starts_with(&prefix)).count(), 20);
        assert_eq!(services_told(&place, ""), 20);
        for node in nodes {
            assert_eq!(services_told(&place, &node), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_only_the_difference_is_told() {
    for mut place in places().await {
        place.run();
        let node = place.edge("edge-1").await;
        let (map, pod) = (place.key("configmaps", "prices"), place.key("pods", "till"));
        let gone = place.key("pods", "gone");
        place.config_map("prices", "1").await;
        place.pod("till", &node, "prices").await;
        place.pod("gone", &node, "prices").await;
        place.holds(&node, &[&map, &gone, &pod]).await;
        place.settled("before").await;
        place.stop().await;
        let head = place.head(&node, Lane::Down);
        place.run();
        place.settled("meanwhile").await;
        assert_eq!(place.head(&node, Lane::Down), head);
        // Whatever else happens in a cluster meanwhile: nothing is told twice.
        let told = place.ever_told("");
        let once: BTreeSet<_> = told.iter().collect();
        assert_eq!(once.len(), told.len(), "{told:?}");
        place.stop().await;
        let now = DeleteParams::default().grace_period(0);
        place.objects_of(POD).delete("gone", &now).await.unwrap();
        place.run();
        place.holds(&node, &[&map, &pod]).await;
        assert_eq!(place.head(&node, Lane::Down), head + 1);
    }
}

fn interest(place: &Place) -> Payload {
    Payload::Interest(v1::Interest {
        group: "batch".to_owned(),
        resource: "cronjobs".to_owned(),
        namespace: place.namespace().to_owned(),
        ..Default::default()
    })
}

async fn cron_job(place: &Place, name: &str) {
    let container = json!({"name": "c", "image": "i"});
    let template =
        json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}});
    let object = json!({
        "metadata": {"name": name},
        "spec": {"schedule": "* * * * *", "jobTemplate": template},
    });
    place.create_here("batch/v1/CronJob/cronjobs", object).await;
}

fn state(place: &Place, node: &str) -> Option<v1::InterestState> {
    place.entry(node, Table::InterestStates, "i-1")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interest_brings_objects_that_the_node_may_see_and_keeps_them_current() {
    for mut place in places().await {
        place.run();
        let node = place.own("edge-1");
        cron_job(&place, "one").await;
        let asked = interest(&place);
        place.node_says(&node, Lane::UpState, "i-1", &asked).await;
        let refused = place
            .until("a refusal", async |place| {
                state(place, &node).filter(|state| state.code != 0)
            })
            .await;
        assert_eq!((refused.code, refused.reason.as_str()), (403, "Forbidden"));
        place.stop().await;
        place.nodes_may("batch", "cronjobs").await;
        place.run();
        let [one, two, three] =
            ["one", "two", "three"].map(|name| format!("batch/cronjobs/{}/{name}", place.namespace()));
        let listed = place
            .until("the list", async |place| {
                state(place, &node).filter(|state| state.code == 200)
            })
            .await;
        assert!(!listed.resource_version.is_empty());
        // Everything it takes was sent before the state.
        let object: &Value = &place.objects(&node)[&one];
        assert_eq!(
            (&object["apiVersion"], &object["kind"]),
            (&json!("batch/v1"), &json!("CronJob"))
        );
        cron_job(&place, "two").await;
        place.holds(&node, &[&one, &two]).await;
        // A restart takes nothing away, and tells nothing again.
        let head = place.head(&node, Lane::Down);
        place.stop().await;
        place.run();
        cron_job(&place, "three").await;
        place.holds(&node, &[&one, &three, &two]).await;
        assert_eq!(place.head(&node, Lane::Down), head + 1);
        place
            .node_says(&node, Lane::UpState, "i-1", &Payload::InterestRemoved)
            .await;
        place.holds(&node, &[]).await;
        assert_eq!(state(&place, &node), None);
    }
}
