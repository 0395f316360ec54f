//! The controllers over any Kubernetes API there is; what nodes say, a test says.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use ledge_cloud_testing::Cluster;
use ledge_controllers::Controllers;
use ledge_controllers::links::{Link, Links};
use ledge_controllers::told::{Told, record};
use ledge_proto::fold::{Table, folded_stream, view};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use prost::Message;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Links as a test says.
#[derive(Debug, Default)]
pub(crate) struct TestLinks {
    connected: Mutex<BTreeMap<Scope, bool>>,
    changes: watch::Sender<u64>,
}

impl Links for TestLinks {
    fn link(&self, node: &Scope) -> Option<Link> {
        let connected = self.connected.lock().unwrap().get(node).copied();
        connected.map(|connected| Link {
            connected,
            age: Duration::ZERO,
            lag: Duration::ZERO,
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

pub(crate) struct Anywhere {
    pub(crate) cluster: Cluster,
    pub(crate) told: Told,
    /// The one node of the test.
    pub(crate) node: Scope,
    links: Arc<TestLinks>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Anywhere {
    /// Without controllers.
    pub(crate) fn new(cluster: Cluster) -> Anywhere {
        rustls::crypto::ring::default_provider().install_default().ok();
        let told = Told {
            log: cluster.log().clone(),
            projection: cluster.projection().clone(),
            appends: Default::default(),
        };
        Anywhere {
            told,
            node: Scope::node(&cluster.unique("edge")).unwrap(),
            links: Arc::default(),
            running: None,
            cluster,
        }
    }

    /// Runs the controllers, through `client`.
    pub(crate) fn run_through(&mut self, client: Client) {
        let controllers = Controllers {
            client,
            told: self.told.clone(),
            every_node: !self.cluster.is_real(),
            links: self.links.clone(),
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(controllers.run(shutdown.clone()));
        self.running = Some((shutdown, task));
    }

    pub(crate) fn run(&mut self) {
        self.run_through(self.cluster.client("system:cloudcore"));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.running.take() {
            shutdown.cancel();
            task.await.unwrap();
        }
    }

    pub(crate) fn link(&self, connected: bool) {
        self.links
            .connected
            .lock()
            .unwrap()
            .insert(self.node.clone(), connected);
        self.links.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn name(&self) -> &str {
        self.node.node_name().unwrap()
    }

    /// As if the node had sent it; it is folded when this returns.
    pub(crate) async fn says(&self, lane: Lane, key: &str, payload: &Payload) {
        let stream = StreamId::new(self.node.clone(), lane);
        let records = vec![record(key.to_owned(), payload)];
        self.told.append(stream, records).await.unwrap();
    }

    /// The node reports itself.
    pub(crate) async fn registers(&self) {
        let state = Payload::NodeState(v1::NodeState::default());
        self.says(Lane::UpState, self.name(), &state).await;
    }

    /// The node reports the status of an object.
    pub(crate) async fn reports(&self, key: &str, uid: &str, status: &Value) {
        let status = Payload::KubeStatus(v1::KubeStatus {
            uid: uid.to_owned(),
            json: status.to_string().into_bytes(),
        });
        self.says(Lane::UpState, key, &status).await;
    }

    /// Objects of a kind such as `v1/Pod/pods`: in the namespace of the test, or, beginning with `/`, in none.
    pub(crate) fn api(&self, kind: &str) -> Api<DynamicObject> {
        let client = self.cluster.client("system:test");
        match kind.strip_prefix('/') {
            Some(kind) => Api::all_with(client, &resource(kind)),
            None => Api::default_namespaced_with(client, &resource(kind)),
        }
    }

    pub(crate) async fn make(&self, kind: &str, mut object: Value) -> DynamicObject {
        let resource = resource(kind.trim_start_matches('/'));
        object["apiVersion"] = resource.api_version.as_str().into();
        object["kind"] = resource.kind.as_str().into();
        let object = serde_json::from_value(object).unwrap();
        self.api(kind)
            .create(&PostParams::default(), &object)
            .await
            .unwrap()
    }

    /// Keys of what the node was told, without its Node and what belongs to every pod's account.
    pub(crate) fn objects(&self) -> Vec<String> {
        let entries = view::entries::<_, v1::KubeObject>(&self.told.view(), &self.node, Table::KubeObjects);
        let keys = entries.unwrap().into_iter().map(|(key, _)| key);
        keys.filter(|key| !key.starts_with("/nodes/")).collect()
    }

    /// One entry of a table.
    pub(crate) fn entry<T: Message + Default>(&self, table: Table, key: &str) -> Option<T> {
        Told::entry(&self.told.view(), &self.node, table, key).unwrap()
    }

    /// Last record of the node's stream.
    pub(crate) fn head(&self, lane: Lane) -> u64 {
        let stream = StreamId::new(self.node.clone(), lane);
        let folded = folded_stream(&self.told.view(), &stream).unwrap();
        folded.map_or(0, |folded| folded.seq)
    }
}

fn resource(kind: &str) -> ApiResource {
    let parts: Vec<&str> = kind.split('/').collect();
    let (group, version, kind, plural) = match parts[..] {
        [version, kind, plural] => ("", version, kind, plural),
        [group, version, kind, plural] => (group, version, kind, plural),
        _ => panic!("{kind}"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}
