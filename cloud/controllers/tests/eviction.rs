//! A real controller manager beside a real kube-apiserver: what it does to the pods of a node that it no longer hears of is
//! not done to those of an edge node, whether the node's link is lost or cloudcore is away.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use support::{Place, ready, tainted};
use tokio::task::JoinHandle;

const DEPLOYMENT: &str = "apps/v1/Deployment/deployments";
const LEASE: &str = "coordination.k8s.io/v1/Lease/leases";
const NODE: &str = "v1/Node/nodes";
const POD: &str = "v1/Pod/pods";

/// It waits for less than it does by default, but for more than twice the time in which a lease is renewed.
const SETTINGS: [&str; 3] = [
    "--node-monitor-grace-period=21s",
    "--node-monitor-period=1s",
    "--node-eviction-rate=10",
];

/// A node as a kubelet shows it: its lease is renewed for as long as this is there.
struct Kubelet(JoinHandle<()>);

impl Kubelet {
    async fn start(place: &Place, name: &str) -> Kubelet {
        place.node(name, &json!({})).await;
        let now = Timestamp::now().to_string();
        let ready =
            json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now});
        let status = Patch::Merge(json!({"status": {"conditions": [ready]}}));
        let nodes = place.api(NODE, "");
        nodes
            .patch_status(name, &PatchParams::default(), &status)
            .await
            .unwrap();
        let leases = place.api(LEASE, "kube-node-lease");
        let name = name.to_owned();
        Kubelet(tokio::spawn(async move {
            loop {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                    "spec": {"holderIdentity": name, "renewTime": MicroTime(Timestamp::now())},
                });
                let params = PatchParams::apply("kubelet").force();
                leases.patch(&name, &params, &Patch::Apply(lease)).await.unwrap();
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }))
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a pod says of how long it stays on a node that cannot be reached: a second, where it may say it.
fn spec() -> Value {
    let soon = |taint: &str| {
        let key = format!("node.kubernetes.io/{taint}");
        json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1})
    };
    json!({
        "containers": [{"name": "main", "image": "example.org/app:1"}],
        "tolerations": [soon("unreachable"), soon("not-ready")],
    })
}

async fn pods_of(place: &Place, app: &str) -> Vec<DynamicObject> {
    let of_app = ListParams::default().labels(&format!("app={app}"));
    place.objects_of(POD).list(&of_app).await.unwrap().items
}

/// Makes a Deployment, and binds its pods as a scheduler does.
async fn deploy(place: &Place, app: &str, replicas: usize, node: &str) -> Vec<DynamicObject> {
    let deployment = json!({
        "metadata": {"name": app},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": app}},
            "template": {"metadata": {"labels": {"app": app}}, "spec": spec()},
        },
    });
    place.create_here(DEPLOYMENT, deployment).await;
    let pods = place
        .until("pods of the deployment", async |place| {
            let pods = pods_of(place, app).await;
            (pods.len() == replicas).then_some(pods)
        })
        .await;
    for pod in &pods {
        let name = pod.metadata.name.as_deref().unwrap();
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let path = format!("/api/v1/namespaces/{}/pods/{name}/binding", place.namespace());
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(binding.to_string().into_bytes()).unwrap();
        place.client.request::<Value>(request).await.unwrap();
    }
    pods
}

fn is_ready(pod: &DynamicObject) -> bool {
    ready(pod).is_some_and(|ready| ready["status"] == "True")
}

fn is_leaving(pod: &DynamicObject) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// What is not to change: which pods there are, and what the Deployment wants.
async fn identities(place: &Place, app: &str) -> Value {
    let pods = pods_of(place, app).await;
    let pods: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let meta = &pod.metadata;
            json!([
                meta.name,
                meta.uid,
                meta.generation,
                is_leaving(pod),
                pod.data["spec"]
            ])
        })
        .collect();
    let deployment = place.objects_of(DEPLOYMENT).get(app).await.unwrap();
    let status = &deployment.data["status"];
    json!({
        "pods": pods,
        "uid": deployment.metadata.uid,
        "generation": deployment.metadata.generation,
        "observed": status["observedGeneration"],
        "replicas": status["replicas"],
    })
}

async fn available(place: &Place, app: &str) -> usize {
    let deployment = place.objects_of(DEPLOYMENT).get(app).await.unwrap();
    let available = deployment.data["status"]["availableReplicas"].as_u64();
    usize::try_from(available.unwrap_or_default()).unwrap()
}

async fn until_available(place: &Place, app: &str, wanted: usize) {
    place
        .until(&format!("{wanted} of {app} are available"), async |place| {
            (available(place, app).await == wanted).then_some(())
        })
        .await;
}

/// How often the node was told of pods.
fn told_of_pods(place: &Place, node: &str) -> usize {
    let told = place.ever_told(node);
    told.iter().filter(|(key, _)| key.starts_with("/pods/")).count()
}

/// Whether the controller manager has given the node up: whoever does not tolerate it has to leave.
fn given_up(node: &DynamicObject) -> bool {
    ready(node).is_some_and(|ready| ready["status"] == "Unknown") && tainted(node, "NoExecute")
}

fn well(node: &DynamicObject) -> bool {
    let untouched = !tainted(node, "NoExecute") && !tainted(node, "NoSchedule");
    ready(node).is_some_and(|ready| ready["status"] == "True") && untouched
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_node_that_is_not_heard_of_keeps_its_pods_and_nothing_is_rebuilt_when_it_is_back() {
    let Some(mut place) = Place::real().await else {
        return;
    };
    if !place.cluster.controller_manager(&SETTINGS).await {
        return;
    }
    place.run();
    let [edge, lost, kept] = ["edge", "lost", "kept"].map(|name| place.own(name));
    place.links.set(&edge, true);
    place.registers(&edge).await;
    place.until_node(&edge, well).await;
    // A cluster of which no node is heard evicts nothing: this one is.
    let _kept = Kubelet::start(&place, &kept).await;

    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let mut keys = Vec::new();
    for pod in deploy(&place, "shop", 2, &edge).await {
        let key = place.key("pods", pod.metadata.name.as_deref().unwrap());
        let uid = pod.metadata.uid.as_deref().unwrap();
        place.reports(&edge, &key, uid, &status).await;
        keys.push(key);
    }
    // The controller manager makes one in each namespace.
    keys.push(place.key("serviceaccounts", "default"));
    keys.sort();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    place.holds(&edge, &keys).await;
    until_available(&place, "shop", 2).await;
    let before = identities(&place, "shop").await;
    let told = told_of_pods(&place, &edge);

    // The link is lost, and with it a worker: when the worker's pod is evicted, the link has been away for longer than the
    // controller manager waits, and for longer than pods stay that do not say otherwise.
    place.links.set(&edge, false);
    let kubelet = Kubelet::start(&place, &lost).await;
    let [worker_pod] = &deploy(&place, "moves", 1, &lost).await[..] else {
        panic!("one pod");
    };
    drop(kubelet);
    place
        .until("the worker's pod is evicted", async |place| {
            let pods = pods_of(place, "moves").await;
            let uid = &worker_pod.metadata.uid;
            let evicted = pods.iter().find(|pod| pod.metadata.uid == *uid);
            evicted.is_none_or(is_leaving).then_some(())
        })
        .await;
    place.until_node(&edge, given_up).await;
    assert_eq!(identities(&place, "shop").await, before);
    assert_eq!(available(&place, "shop").await, 2);

    place.links.set(&edge, true);
    place.until_node(&edge, well).await;
    assert_eq!(identities(&place, "shop").await, before);
    assert_eq!(available(&place, "shop").await, 2);
    assert_eq!(told_of_pods(&place, &edge), told);

    // cloudcore is away, so nobody renews the lease: the controller manager itself says that the node is lost, and that its
    // pods are not ready. A pod that cloudcore has not seen is evicted from that very node.
    place.stop().await;
    let mut unseen = json!({"metadata": {"name": "unseen"}, "spec": spec()});
    unseen["spec"]["nodeName"] = edge.as_str().into();
    place.create_here(POD, unseen).await;
    place.until_node(&edge, given_up).await;
    place
        .until("the unseen pod is evicted", async |place| {
            let pod = place.objects_of(POD).get_opt("unseen").await.unwrap();
            pod.as_ref().is_none_or(is_leaving).then_some(())
        })
        .await;
    until_available(&place, "shop", 0).await;
    assert_eq!(identities(&place, "shop").await, before);

    place.run();
    place.until_node(&edge, well).await;
    until_available(&place, "shop", 2).await;
    assert!(pods_of(&place, "shop").await.iter().all(is_ready));
    assert_eq!(identities(&place, "shop").await, before);
    place.stop().await;
}
