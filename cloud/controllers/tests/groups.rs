//! Groups of nodes and applications for them, against the embedded API and a real API server.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use ledge_cloud_testing::{Cluster, becomes_true, clusters, eventually};
use ledge_controllers::groups;
use ledge_crds::apps::{BELONGING_TO, EdgeApplication, ManifestCondition, NodeGroup};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A controller that runs until it is stopped.
struct Running(CancellationToken, JoinHandle<()>);

impl Running {
    async fn stop(self) {
        self.0.cancel();
        self.1.await.unwrap();
    }
}

fn node_groups(cluster: &Cluster) -> Running {
    let stop = CancellationToken::new();
    let run = groups::run_node_groups(cluster.client("system:node-groups"), stop.clone());
    Running(stop, tokio::spawn(run))
}

fn applications(cluster: &Cluster) -> Running {
    let stop = CancellationToken::new();
    let run = groups::run_applications(cluster.client("system:edge-applications"), stop.clone());
    Running(stop, tokio::spawn(run))
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

async fn merge<K>(api: &Api<K>, name: &str, patch: Value)
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let params = PatchParams::default();
    api.patch(name, &params, &Patch::Merge(patch)).await.unwrap();
}

async fn label(nodes: &Api<Node>, name: &str) -> Option<String> {
    nodes.get(name).await.unwrap().labels().get(BELONGING_TO).cloned()
}

/// `(node, ready, selection, reason)` of each node in the status.
async fn statuses(groups: &Api<NodeGroup>, name: &str) -> Vec<(String, String, String, String)> {
    let status = groups.get(name).await.unwrap().status.unwrap_or_default();
    let told = status.node_statuses.into_iter().map(|told| {
        let reason = told.selection_status_reason.unwrap_or_default();
        (told.node_name, told.ready_status, told.selection_status, reason)
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_belong_to_groups() {
    for cluster in clusters(&ledge_crds::definitions()).await {
        println!("against {}", cluster.name());
        let running = node_groups(&cluster);
        let client: Client = cluster.client("system:test");
        let nodes: Api<Node> = Api::all(client.clone());
        let groups: Api<NodeGroup> = Api::all(client.clone());
        let pods: Api<Pod> = Api::default_namespaced(client);
        let id = cluster.unique("x");
        let [a, b, c, missing] = ["a", "b", "c", "missing"].map(|name| format!("{name}-{id}"));
        let [first, second] = ["first", "second"].map(|name| format!("{name}-{id}"));
        let node = |name: &str, zone: &str| json!({"metadata": {"name": name, "labels": {"zone": zone}}});
        let group = |name: &str, spec: Value| json!({"apiVersion": "apps.kubeedge.io/v1alpha1", "kind": "NodeGroup", "metadata": {"name": name}, "spec": spec});
        create(&nodes, node(&a, "none")).await;
        create(&nodes, node(&b, &id)).await;
        create(&nodes, node(&c, "none")).await;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        nodes
            .patch_status(&b, &PatchParams::default(), &Patch::Merge(ready))
            .await
            .unwrap();

        // By name and by label; what is named and not there is told.
        create(
            &groups,
            group(
                &first,
                json!({"nodes": [a, missing], "matchLabels": {"zone": id}}),
            ),
        )
        .await;
        let text = str::to_owned;
        let wanted = [
            (a.clone(), text("Unknown"), text("Succeeded"), String::new()),
            (b.clone(), text("Ready"), text("Succeeded"), String::new()),
            (
                missing.clone(),
                text("Unknown"),
                text("Failed"),
                text("node does not exist"),
            ),
        ];
        becomes_true("the status tells of three nodes", async || {
            statuses(&groups, &first).await == wanted
        })
        .await;
        assert_eq!(label(&nodes, &a).await.as_ref(), Some(&first));
        assert_eq!(label(&nodes, &b).await.as_ref(), Some(&first));
        assert_eq!(label(&nodes, &c).await, None);

        // A node that another group has.
        create(&groups, group(&second, json!({"nodes": [a]}))).await;
        let reason = format!("node {a} has already belonged to NodeGroup {first}");
        let wanted = [(a.clone(), text("Unknown"), text("Failed"), reason)];
        becomes_true("the second group is told", async || {
            statuses(&groups, &second).await == wanted
        })
        .await;
        assert_eq!(label(&nodes, &a).await.as_ref(), Some(&first));

        // A label that somebody takes away comes back; one of no group goes.
        merge(&nodes, &b, json!({"metadata": {"labels": {BELONGING_TO: null}}})).await;
        becomes_true("b is labelled", async || {
            label(&nodes, &b).await.as_ref() == Some(&first)
        })
        .await;
        merge(
            &nodes,
            &c,
            json!({"metadata": {"labels": {BELONGING_TO: "nobody"}}}),
        )
        .await;
        becomes_true("c is not labelled", async || label(&nodes, &c).await.is_none()).await;

        // The first group lets go of `a`: the second has it, and pods of the first go.
        let pod = |name: &str, group: &str| {
            json!({"metadata": {"name": name}, "spec": {
                "nodeName": a, "nodeSelector": {BELONGING_TO: group}, "containers": [{"name": "c", "image": "i"}],
            }})
        };
        create(&pods, pod("of-first", &first)).await;
        create(&pods, pod("of-second", &second)).await;
        merge(&groups, &first, json!({"spec": {"nodes": [b]}})).await;
        becomes_true("a is the second's", async || {
            label(&nodes, &a).await.as_ref() == Some(&second)
        })
        .await;
        becomes_true("the first's pod goes", async || {
            let pod = pods.get_opt("of-first").await.unwrap();
            pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
        })
        .await;
        let stays = pods.get("of-second").await.unwrap();
        assert_eq!(stays.metadata.deletion_timestamp, None);

        // What happened while it did not run; KubeEdge's finalizer is taken away when the label is.
        running.stop().await;
        let finalizers = json!({"metadata": {"finalizers": ["apps.kubeedge.io/nodegroup-controller"]}});
        merge(&groups, &first, finalizers).await;
        groups.delete(&first, &DeleteParams::default()).await.unwrap();
        nodes.delete(&a, &DeleteParams::default()).await.unwrap();
        let running = node_groups(&cluster);
        becomes_true("b is nobody's", async || label(&nodes, &b).await.is_none()).await;
        becomes_true("the group has gone", async || {
            groups.get_opt(&first).await.unwrap().is_none()
        })
        .await;
        let wanted = [(
            a.clone(),
            text("Unknown"),
            text("Failed"),
            text("node does not exist"),
        )];
        becomes_true("the second is told", async || {
            statuses(&groups, &second).await == wanted
        })
        .await;
        running.stop().await;
    }
}

/// `(kind, name, condition)` of each object in the status.
async fn made(applications: &Api<EdgeApplication>) -> Vec<(String, String, ManifestCondition)> {
    let status = applications.get("app").await.unwrap().status.unwrap_or_default();
    let told = status.workload_status.into_iter().map(|told| {
        let id = told.identifier;
        (
            id.kind.unwrap_or_default(),
            id.name.unwrap_or_default(),
            told.conditions.unwrap(),
        )
    });
    told.collect()
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nginx"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "nginx"}},
            "template": {
                "metadata": {"labels": {"app": "nginx"}},
                "spec": {"containers": [{"name": "nginx", "image": "nginx:1.25", "resources": {"limits": {"cpu": "1000m"}}}]},
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_run_once_in_each_group() {
    use ManifestCondition::{Available, Processing};
    for cluster in clusters(&ledge_crds::definitions()).await {
        println!("against {}", cluster.name());
        let running = applications(&cluster);
        let client: Client = cluster.client("system:test");
        let apps: Api<EdgeApplication> = Api::default_namespaced(client.clone());
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let services: Api<Service> = Api::default_namespaced(client.clone());
        let events: Api<Event> = Api::default_namespaced(client);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"a": "1"}});
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "svc"},
            "spec": {"selector": {"app": "nginx"}, "ports": [{"port": 80}]},
        });
        let tag = json!({"component": "Tag", "operator": "replace", "value": "1.26"});
        let app = json!({
            "apiVersion": "apps.kubeedge.io/v1alpha1", "kind": "EdgeApplication", "metadata": {"name": "app"},
            "spec": {
                "workloadTemplate": {"manifests": [deployment(), map, service]},
                "workloadScope": {"targetNodeGroups": [
                    {"name": "a"},
                    {"name": "b", "overriders": {"replicas": 3, "imageOverriders": [tag]}},
                ]},
            },
        });
        let uid = create(&apps, app).await.uid().unwrap();
        let entry = |kind: &str, name: &str, condition| (kind.to_owned(), name.to_owned(), condition);
        let rest = [
            entry("ConfigMap", "conf", Available),
            entry("Service", "svc", Available),
        ];
        let wanted = [
            &[
                entry("Deployment", "nginx-a", Processing),
                entry("Deployment", "nginx-b", Processing),
            ],
            &rest[..],
        ]
        .concat();
        becomes_true("everything is made", async || made(&apps).await == wanted).await;

        let of_b = deployments.get("nginx-b").await.unwrap();
        assert_eq!(of_b.owner_references()[0].uid, uid);
        let spec = of_b.spec.unwrap();
        assert_eq!(spec.replicas, Some(3));
        let pod = spec.template.spec.unwrap();
        assert_eq!(pod.node_selector.unwrap()[BELONGING_TO], "b");
        assert_eq!(pod.containers[0].image.as_deref(), Some("nginx:1.26"));
        let annotations = services.get("svc").await.unwrap();
        assert_eq!(
            annotations.annotations()["apps.kubeedge.io/service-topology"],
            "range-nodegroup"
        );

        // What a deployment says of itself.
        let generation = deployments
            .get("nginx-a")
            .await
            .unwrap()
            .metadata
            .generation
            .unwrap();
        let status = json!({"status": {
            "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        }});
        deployments
            .patch_status("nginx-a", &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
        becomes_true("nginx-a is available", async || {
            made(&apps).await[0] == entry("Deployment", "nginx-a", Available)
        })
        .await;

        // Somebody else's changes do not last.
        merge(&deployments, "nginx-b", json!({"spec": {"replicas": 7}})).await;
        becomes_true("nginx-b has three replicas", async || {
            deployments.get("nginx-b").await.unwrap().spec.unwrap().replicas == Some(3)
        })
        .await;
        maps.delete("conf", &DeleteParams::default()).await.unwrap();
        eventually("the map is there again", async || {
            maps.get_opt("conf").await.unwrap()
        })
        .await;

        // A place and a manifest less, also while nobody looked.
        running.stop().await;
        let somebodys = json!({"metadata": {"name": "nginx-c"}, "data": {}});
        create(&maps, somebodys).await;
        merge(
            &apps,
            "app",
            json!({"spec": {
                "workloadTemplate": {"manifests": [deployment(), map]},
                "workloadScope": {"targetNodeGroups": [{"name": "a"}]},
            }}),
        )
        .await;
        let running = applications(&cluster);
        becomes_true("what is not asked for goes", async || {
            let deployment = deployments.get_opt("nginx-b").await.unwrap();
            let service = services.get_opt("svc").await.unwrap();
            deployment.is_none_or(|one| one.metadata.deletion_timestamp.is_some()) && service.is_none()
        })
        .await;
        let wanted = [entry("Deployment", "nginx-a", Available), rest[0].clone()];
        becomes_true("nor is it in the status", async || made(&apps).await == wanted).await;
        assert!(maps.get_opt("nginx-c").await.unwrap().is_some());

        // What cannot be made is told, and the rest is made.
        let elsewhere = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}});
        let unknown = json!({"apiVersion": "example.com/v9", "kind": "Gadget", "metadata": {"name": "x"}});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"}});
        let invalid = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Not A Name"}});
        merge(
            &apps,
            "app",
            json!({"spec": {"workloadTemplate": {"manifests": [elsewhere, unknown, node, invalid, map]}}}),
        )
        .await;
        let told = eventually("an event tells", async || {
            let events = events.list(&ListParams::default()).await.unwrap();
            events
                .items
                .into_iter()
                .find(|event| event.reason.as_deref() == Some("NotMade"))
        })
        .await;
        let message = told.message.unwrap();
        for part in [
            "it is for namespace default",
            "Gadget is not served in example.com/v9",
            "nodes have no namespace",
            "\"Not A Name\" is no name",
        ] {
            assert!(message.contains(part), "{message}");
        }
        becomes_true("the last one is made", async || {
            made(&apps).await.last() == Some(&rest[0])
        })
        .await;
        assert_eq!(made(&apps).await.len(), 5);
        running.stop().await;
    }
}
