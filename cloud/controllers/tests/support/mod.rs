//! A cloud without a hub: log, projection, the embedded API in the process, and the controllers.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use ledge_apiserver::embedded::{Config, Embedded, Limits};
use ledge_apiserver::local::Local;
use ledge_controllers::Controllers;
use ledge_controllers::links::{Link, Links};
use ledge_controllers::told::{Told, record};
use ledge_log::{DiskStorage, Log, Options};
use ledge_projection::{Follower, Projection};
use ledge_proto::fold::{Table, folded_stream, view};
use ledge_proto::ids::{ClusterId, Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use ledge_replication::reset::OwnAppends;
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for any machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Links as a test says.
#[derive(Debug, Default)]
pub(crate) struct TestLinks {
    links: Mutex<BTreeMap<Scope, Link>>,
    changes: watch::Sender<u64>,
}

impl TestLinks {
    pub(crate) fn set(&self, node: &str, connected: bool) {
        let link = Link {
            connected,
            age: Duration::ZERO,
            lag: Duration::ZERO,
        };
        self.links.lock().unwrap().insert(scope(node), link);
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Links for TestLinks {
    fn link(&self, node: &Scope) -> Option<Link> {
        self.links.lock().unwrap().get(node).copied()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

pub(crate) struct Place {
    _dir: tempfile::TempDir,
    /// The real API server.
    pub(crate) cluster: Option<ledge_cloud_testing::Cluster>,
    pub(crate) client: Client,
    pub(crate) told: Told,
    pub(crate) links: Arc<TestLinks>,
    /// As in [`Controllers`].
    pub(crate) every_node: bool,
    _follower: Follower,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Place {
    /// With the controllers running.
    pub(crate) async fn start() -> Place {
        let mut place = Place::still().await;
        place.run();
        place
    }

    /// Without controllers.
    pub(crate) async fn still() -> Place {
        Place::over(None).await
    }

    /// Over a real API server, without controllers; `None`, and a line that says so, where there is none.
    pub(crate) async fn real() -> Option<Place> {
        let cluster = ledge_cloud_testing::real(&ledge_crds::definitions()).await?;
        let mut place = Place::over(Some(cluster.client("admin"))).await;
        place.every_node = false;
        place.cluster = Some(cluster);
        Some(place)
    }

    async fn over(real: Option<Client>) -> Place {
        rustls::crypto::ring::default_provider().install_default().ok();
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 8 << 20,
            ..Options::new(ClusterId([7; 16]), "cloud".to_owned())
        };
        let (log, _) = Log::open(Arc::new(DiskStorage), &dir.path().join("log"), options).unwrap();
        let edge = ledge_projection::Options::edge();
        let (projection, _) = Projection::open(&dir.path().join("projection"), &log, &edge).unwrap();
        Follower::catch_up(&log, &projection, || false).unwrap();
        let client = match real {
            Some(client) => client,
            None => {
                let config = Config {
                    listen: "127.0.0.1:0".parse().unwrap(),
                    names: Vec::new(),
                    data_dir: dir.path().to_owned(),
                    limits: Limits::default(),
                };
                let definitions = ledge_crds::definitions();
                let embedded = Embedded::open(config, log.clone(), &projection, &definitions)
                    .await
                    .unwrap();
                Client::new(Local::privileged(embedded.api().clone(), "admin"), "default")
            }
        };
        let follower = Follower::start(log.clone(), projection.clone());
        let told = Told {
            log,
            projection,
            appends: OwnAppends::default(),
        };
        Place {
            _dir: dir,
            cluster: None,
            client,
            told,
            links: Arc::default(),
            every_node: true,
            _follower: follower,
            running: None,
        }
    }

    pub(crate) fn run(&mut self) {
        let controllers = Controllers {
            client: self.client.clone(),
            told: self.told.clone(),
            every_node: self.every_node,
            links: self.links.clone(),
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(controllers.run(shutdown.clone()));
        self.running = Some((shutdown, task));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.running.take() {
            shutdown.cancel();
            task.await.unwrap();
        }
    }

    pub(crate) fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        api(&self.client, kind, namespace)
    }

    /// Makes an object of `kind`, such as `v1/Pod/pods`.
    pub(crate) async fn create(&self, kind: &str, mut object: Value) -> DynamicObject {
        let resource = resource(kind);
        object["apiVersion"] = resource.api_version.as_str().into();
        object["kind"] = resource.kind.as_str().into();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let api = self.api(kind, namespace);
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    /// As [`Place::create`], in a namespace.
    pub(crate) async fn create_in(&self, kind: &str, namespace: &str, mut object: Value) -> DynamicObject {
        object["metadata"]["namespace"] = namespace.into();
        self.create(kind, object).await
    }

    /// Deletes an object, gracefully where its kind knows that, whoever else changes it meanwhile.
    pub(crate) async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let api = self.api(kind, namespace);
        self.until("the deletion", async |_| {
            match api.delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 409 => None,
                outcome => {
                    outcome.unwrap();
                    Some(())
                }
            }
        })
        .await;
    }

    /// A pod of one container with an environment from a config map.
    pub(crate) async fn pod(&self, name: &str, node: &str, map: &str) -> DynamicObject {
        let container = json!({"name": "main", "image": "example.org/app:1", "envFrom": [{"configMapRef": {"name": map}}]});
        let pod = json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {"nodeName": node, "containers": [container]},
        });
        self.create("v1/Pod/pods", pod).await
    }

    pub(crate) async fn config_map(&self, name: &str, value: &str) -> DynamicObject {
        let map = json!({"metadata": {"namespace": "default", "name": name}, "data": {"key": value}});
        self.create("v1/ConfigMap/configmaps", map).await
    }

    /// What the node (or, with an empty name, every node) was told, by key.
    pub(crate) fn objects(&self, node: &str) -> BTreeMap<String, Value> {
        let entries =
            view::entries::<_, v1::KubeObject>(&self.told.view(), &scope(node), Table::KubeObjects).unwrap();
        entries
            .into_iter()
            .map(|(key, entry)| (key, serde_json::from_slice(&entry.content.json).unwrap()))
            .collect()
    }

    /// One entry of a table.
    pub(crate) fn entry<T: Message + Default>(&self, node: &str, table: Table, key: &str) -> Option<T> {
        Told::entry(&self.told.view(), &scope(node), table, key).unwrap()
    }

    /// Last record of the node's stream.
    pub(crate) fn head(&self, node: &str, lane: Lane) -> u64 {
        let stream = StreamId::new(scope(node), lane);
        folded_stream(&self.told.view(), &stream)
            .unwrap()
            .map_or(0, |folded| folded.seq)
    }

    /// As if the node had sent it.
    pub(crate) async fn node_says(&self, node: &str, lane: Lane, key: &str, payload: &Payload) {
        let stream = StreamId::new(scope(node), lane);
        let record = record(key.to_owned(), payload);
        self.told.append(stream, vec![record]).await.unwrap();
    }

    /// Waits until it holds.
    pub(crate) async fn until<T>(&self, what: &str, mut holds: impl AsyncFnMut(&Place) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(found) = holds(self).await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until what nodes are told stands for everything that was done so far: an object made now has come down.
    pub(crate) async fn settled(&self, marker: &str) {
        self.create("v1/Namespace/namespaces", json!({"metadata": {"name": marker}}))
            .await;
        let key = format!("/namespaces//{marker}");
        self.until("the marker", async |place| {
            place.objects("").contains_key(&key).then_some(())
        })
        .await;
    }
}

pub(crate) fn scope(node: &str) -> Scope {
    Scope::from_wire(node).unwrap()
}

pub(crate) fn resource(kind: &str) -> ApiResource {
    let parts: Vec<&str> = kind.split('/').collect();
    let (group, version, kind, plural) = match parts[..] {
        [version, kind, plural] => ("", version, kind, plural),
        [group, version, kind, plural] => (group, version, kind, plural),
        _ => panic!("{kind}"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

pub(crate) fn api(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = resource(kind);
    match namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}
