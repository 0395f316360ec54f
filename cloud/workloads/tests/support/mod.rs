//! An embedded API with the controllers on it, and nodes that only say that they do what they are told.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use ledge_apiserver::embedded::{Config, Embedded, Limits};
use ledge_apiserver::local::Local;
use ledge_log::{DiskStorage, Log, Options};
use ledge_projection::{Follower, Projection};
use ledge_proto::ids::ClusterId;
use ledge_workloads::{Clock, Settings, SystemClock, Workloads};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Longest wait for something that comes.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) dir: tempfile::TempDir,
    shutdown: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    follower: Option<Follower>,
    log: Log,
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        Cluster::with(Arc::new(SystemClock)).await
    }

    pub(crate) async fn with(clock: Arc<dyn Clock>) -> Cluster {
        rustls::crypto::ring::default_provider().install_default().ok();
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ClusterId([7; 16]), "cloud".to_owned());
        let (log, _) = Log::open(Arc::new(DiskStorage), &dir.path().join("log"), options).unwrap();
        let cloud = ledge_projection::Options::cloud();
        let (projection, _) = Projection::open(&dir.path().join("projection"), &log, &cloud).unwrap();
        Follower::catch_up(&log, &projection, || false).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            names: Vec::new(),
            data_dir: dir.path().to_owned(),
            limits: Limits::default(),
        };
        let embedded = Embedded::open(config, log.clone(), &projection, &[])
            .await
            .unwrap();
        let follower = Follower::start(log.clone(), projection);
        let kubeconfig = embedded.kubeconfig().to_owned();
        let api = embedded.api().clone();
        let shutdown = CancellationToken::new();
        let controllers = Client::new(Local::privileged(api.clone(), "system:workloads"), "default");
        let workloads = Workloads::with(controllers, Settings::default(), clock);
        let tasks = vec![
            tokio::spawn(embedded.run(shutdown.clone())),
            tokio::spawn(workloads.run(shutdown.clone())),
        ];
        Cluster {
            client: Client::new(Local::privileged(api, "system:test"), "default"),
            kubeconfig,
            dir,
            shutdown,
            tasks,
            follower: Some(follower),
            log,
        }
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
        self.follower.take().unwrap().stop().unwrap();
        self.log.close().unwrap();
    }

    /// Makes an object of one of Kubernetes' own kinds.
    pub(crate) async fn create<K>(&self, value: Value) -> K
    where
        K: kube::Resource<DynamicType = ()>
            + serde::de::DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
        Api<K>: Scoped,
    {
        let object: K = serde_json::from_value(value).unwrap();
        let api = <Api<K> as Scoped>::scoped(&self.client);
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        Api<K>: Scoped,
    {
        <Api<K> as Scoped>::scoped(&self.client)
    }

    pub(crate) async fn merge<K>(&self, name: &str, patch: Value)
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
        Api<K>: Scoped,
    {
        let patch = Patch::Merge(patch);
        self.api::<K>()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Waits until the object is as `wanted` says, and gives it.
    pub(crate) async fn until<K>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> K
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
        Api<K>: Scoped,
    {
        let started = tokio::time::Instant::now();
        loop {
            let object = self.api::<K>().get_opt(name).await.unwrap();
            if let Some(object) = &object
                && wanted(object)
            {
                return object.clone();
            }
            assert!(started.elapsed() < DEADLINE, "{name} is {object:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all objects of the kind are as `wanted` says, and gives them.
    pub(crate) async fn until_all<K>(&self, wanted: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
        Api<K>: Scoped,
    {
        let started = tokio::time::Instant::now();
        loop {
            let objects = self.api::<K>().list(&Default::default()).await.unwrap().items;
            if wanted(&objects) {
                return objects;
            }
            assert!(
                started.elapsed() < DEADLINE,
                "{}",
                serde_json::to_string(&objects).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A node with `labels` and taints that plays its part until the cluster stops. When this returns, the scheduler knows
    /// it, and all that was said of nodes before.
    pub(crate) async fn node(&mut self, name: &str, mut labels: Value, taints: Value) {
        labels["kubernetes.io/hostname"] = name.into();
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": taints},
            "status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "20"}},
        });
        let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        let made = api
            .create(
                &PostParams::default(),
                &serde_json::from_value(node.clone()).unwrap(),
            )
            .await
            .unwrap();
        if made.status.and_then(|status| status.allocatable).is_none() {
            let status = Patch::Merge(json!({"status": node["status"]}));
            api.patch_status(name, &PatchParams::default(), &status)
                .await
                .unwrap();
        }
        let probe = format!("probe-{name}");
        let pod = json!({
            "metadata": {"name": probe, "namespace": "default"},
            "spec": {
                "containers": [{"name": "c", "image": "wait"}],
                "nodeSelector": {"kubernetes.io/hostname": name},
                "tolerations": [{"operator": "Exists"}],
            },
        });
        self.create::<Pod>(pod).await;
        self.until(&probe, |pod: &Pod| pod.spec.as_ref().unwrap().node_name.is_some())
            .await;
        let now = DeleteParams::default().grace_period(0);
        self.api::<Pod>().delete(&probe, &now).await.unwrap();
        let (client, name, shutdown) = (self.client.clone(), name.to_owned(), self.shutdown.clone());
        self.tasks.push(tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = play(client, name) => {}
            }
        }));
    }

    /// Waits for an event about an object with this reason, and gives its message.
    pub(crate) async fn event(&self, about: &str, reason: &str) -> String {
        let events: Api<k8s_openapi::api::core::v1::Event> = Api::all(self.client.clone());
        let started = tokio::time::Instant::now();
        loop {
            let list = events.list(&Default::default()).await.unwrap().items;
            let mut list = list.into_iter();
            let found = list.find(|event| {
                event.involved_object.name.as_deref() == Some(about)
                    && event.reason.as_deref() == Some(reason)
            });
            if let Some(event) = found {
                return event.message.unwrap_or_default();
            }
            assert!(started.elapsed() < DEADLINE, "no event {reason} about {about}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Says of each pod of the node that it runs, and ends those that are to end. An image `wait` never runs, `succeed` and
/// `fail` end.
async fn play(client: Client, name: String) {
    let mut changes = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).boxed();
    while let Some(change) = changes.next().await {
        let Ok(Event::Apply(pod) | Event::InitApply(pod)) = change else {
            continue;
        };
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(&name) {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams::default().grace_period(0);
            api.delete(&pod.name_any(), &now).await.ok();
            continue;
        }
        let image = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.containers[0].image.clone())
            .unwrap_or_default();
        let phase = match image.as_str() {
            "wait" => continue,
            "succeed" => "Succeeded",
            "fail" => "Failed",
            _ => "Running",
        };
        let status = pod.status.clone().unwrap_or_default();
        if status.phase.as_deref() == Some(phase) {
            continue;
        }
        let ready = if phase == "Running" { "True" } else { "False" };
        let address = status.pod_ip.unwrap_or_else(|| address(&pod));
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {
            "phase": phase,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }});
        api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .ok();
    }
}

/// An address for the pod: from its UID, so that it is its own.
fn address(pod: &Pod) -> String {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let sum = uid
        .bytes()
        .fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let [_, a, b, c] = sum.to_be_bytes();
    format!("10.{a}.{b}.{}", c.max(1))
}

/// How an object is reached: by its namespace `default`, or cluster-wide.
pub(crate) trait Scoped: Sized {
    fn scoped(client: &Client) -> Self;
}

macro_rules! scoped {
    ($way:ident: $($kind:ty),+) => {
        $(impl Scoped for Api<$kind> {
            fn scoped(client: &Client) -> Self { scoped!(@$way client) }
        })+
    };
    (@namespaced $client:ident) => { Api::namespaced($client.clone(), "default") };
    (@all $client:ident) => { Api::all($client.clone()) };
}

scoped!(namespaced:
    k8s_openapi::api::apps::v1::Deployment,
    k8s_openapi::api::apps::v1::ReplicaSet,
    k8s_openapi::api::apps::v1::DaemonSet,
    k8s_openapi::api::apps::v1::StatefulSet,
    k8s_openapi::api::batch::v1::Job,
    k8s_openapi::api::batch::v1::CronJob,
    k8s_openapi::api::core::v1::Pod,
    k8s_openapi::api::core::v1::Service,
    k8s_openapi::api::core::v1::Endpoints,
    k8s_openapi::api::core::v1::PersistentVolumeClaim,
    k8s_openapi::api::core::v1::ServiceAccount,
    k8s_openapi::api::discovery::v1::EndpointSlice
);
scoped!(all:
    k8s_openapi::api::core::v1::Node,
    k8s_openapi::api::core::v1::Namespace,
    k8s_openapi::api::core::v1::PersistentVolume,
    k8s_openapi::api::storage::v1::StorageClass
);

/// Pods by the node they are on.
pub(crate) fn by_node(pods: &[Pod]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in pods {
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default();
        *counts.entry(node).or_default() += 1;
    }
    counts
}
