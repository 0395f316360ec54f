//! A cloud without a hub: log, projection, a Kubernetes API and the controllers. The API is the embedded one, and a real
//! kube-apiserver where there is one: a test says what has to hold in both, in a namespace and under names of its own.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use ledge_cloud_testing::{Cluster, clusters};
use ledge_controllers::Controllers;
use ledge_controllers::links::{Link, Links};
use ledge_controllers::told::{Told, record};
use ledge_proto::fold::{Table, folded_stream, view};
use ledge_proto::ids::{Lane, Scope, Seq, StreamId};
use ledge_proto::record::{Payload, object_key};
use ledge_proto::v1;
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

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
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) told: Told,
    pub(crate) links: Arc<TestLinks>,
    /// As in [`Controllers`].
    pub(crate) every_node: bool,
    running: Option<(DropGuard, JoinHandle<()>)>,
}

/// Over every API there is, without controllers yet.
pub(crate) async fn places() -> Vec<Place> {
    let clusters = clusters(&ledge_crds::definitions()).await;
    clusters.into_iter().map(Place::over).collect()
}

impl Place {
    /// Over a real API server, without controllers; `None`, and a line that says so, where there is none.
    pub(crate) async fn real() -> Option<Place> {
        let cluster = ledge_cloud_testing::real(&ledge_crds::definitions()).await?;
        Some(Place::over(cluster))
    }

    fn over(cluster: Cluster) -> Place {
        let told = Told {
            log: cluster.log().clone(),
            projection: cluster.projection().clone(),
            appends: Default::default(),
        };
        Place {
            client: cluster.client("admin"),
            told,
            links: Arc::default(),
            every_node: !cluster.is_real(),
            running: None,
            cluster,
        }
    }

    pub(crate) fn run(&mut self) {
        println!("against {}", self.cluster.name());
        let controllers = Controllers {
            client: self.client.clone(),
            told: self.told.clone(),
            every_node: self.every_node,
            links: self.links.clone(),
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(controllers.run(shutdown.clone()));
        self.running = Some((shutdown.drop_guard(), task));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.running.take() {
            drop(shutdown);
            task.await.unwrap();
        }
    }

    /// The namespace of the test.
    pub(crate) fn namespace(&self) -> &str {
        self.cluster.namespace()
    }

    /// The test's own name for what has no namespace.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{name}-{}", self.namespace())
    }

    /// The key of an object of the core group in the test's namespace.
    pub(crate) fn key(&self, plural: &str, name: &str) -> String {
        object_key("", plural, self.namespace(), name)
    }

    /// The test's own name for a node that never reported itself. In a cluster it is ours by its Node's label.
    pub(crate) async fn edge(&self, name: &str) -> String {
        let name = self.own(name);
        if !self.every_node {
            self.node(&name, &json!({"node-role.kubernetes.io/edge": ""}))
                .await;
        }
        name
    }

    /// Makes a Node.
    pub(crate) async fn node(&self, name: &str, labels: &Value) -> DynamicObject {
        let node = json!({"metadata": {"name": name, "labels": labels}});
        self.create("v1/Node/nodes", node).await
    }

    /// The objects of a kind, such as `v1/Pod/pods`, that are in the test's namespace.
    pub(crate) fn objects_of(&self, kind: &str) -> Api<DynamicObject> {
        self.api(kind, self.namespace())
    }

    /// As [`Place::objects_of`], in another namespace, or in none.
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

    /// As [`Place::create`], in the test's namespace.
    pub(crate) async fn create_here(&self, kind: &str, mut object: Value) -> DynamicObject {
        object["metadata"]["namespace"] = self.namespace().into();
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
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [container]}});
        self.create_here("v1/Pod/pods", pod).await
    }

    pub(crate) async fn config_map(&self, name: &str, value: &str) -> DynamicObject {
        let map = json!({"metadata": {"name": name}, "data": {"key": value}});
        self.create_here("v1/ConfigMap/configmaps", map).await
    }

    /// Lets every node do everything with a resource in the test's namespace, and waits until the API knows it.
    pub(crate) async fn nodes_may(&self, group: &str, resource: &str) {
        let rules = json!([{"apiGroups": [group], "resources": [resource], "verbs": ["*"]}]);
        let role = json!({"metadata": {"name": "nodes"}, "rules": rules});
        self.create_here("rbac.authorization.k8s.io/v1/Role/roles", role)
            .await;
        let binding = json!({
            "metadata": {"name": "nodes"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "nodes"},
            "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"}],
        });
        self.create_here("rbac.authorization.k8s.io/v1/RoleBinding/rolebindings", binding)
            .await;
        let review = json!({"spec": {
            "user": "system:node:any", "groups": ["system:nodes", "system:authenticated"],
            "resourceAttributes": {"group": group, "resource": resource, "verb": "list", "namespace": self.namespace()},
        }});
        let review: SubjectAccessReview = serde_json::from_value(review).unwrap();
        self.until("the role counts", async |place| {
            let reviews: Api<SubjectAccessReview> = Api::all(place.client.clone());
            let reviewed = reviews.create(&PostParams::default(), &review).await.unwrap();
            reviewed.status?.allowed.then_some(())
        })
        .await;
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

    /// The key of everything that the node (or, with an empty name, every node) was ever told, and the version of the
    /// object if it is one.
    pub(crate) fn ever_told(&self, node: &str) -> Vec<(String, String)> {
        let stream = StreamId::new(scope(node), Lane::Down);
        let streams = self.told.log.streams();
        let Some(found) = streams.iter().find(|found| found.key.id == stream) else {
            return Vec::new();
        };
        let mut told = Vec::new();
        let mut reader = self.told.log.read_stream(&found.key, Seq(0));
        while let Some(frame) = reader.next().unwrap() {
            for record in frame.records().unwrap() {
                let (_, record) = record.unwrap();
                let version = match Payload::decode(&record).unwrap() {
                    Payload::KubeObject(object) => object.resource_version,
                    _ => String::new(),
                };
                told.push((record.key, version));
            }
        }
        told
    }

    /// Waits until the node holds exactly these objects besides its Node and, in a cluster, until its pods will stay when
    /// its link is lost.
    pub(crate) async fn holds(&self, node: &str, keys: &[&str]) {
        self.until(&format!("{node} holds {keys:?}"), async |place| {
            let mut objects = place.objects(node);
            objects.retain(|key, _| !key.starts_with("/nodes/"));
            let held: Vec<&str> = objects.keys().map(String::as_str).collect();
            let mut pods = objects.iter().filter(|(key, _)| key.starts_with("/pods/"));
            (held == keys && (place.every_node || pods.all(|(_, pod)| stays(pod)))).then_some(())
        })
        .await;
    }

    /// The node reports itself.
    pub(crate) async fn registers(&self, node: &str) {
        let state = v1::NodeState {
            version: "1.2.3".to_owned(),
            boot_id: "b".to_owned(),
            labels: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
        };
        self.node_says(node, Lane::UpState, node, &Payload::NodeState(state))
            .await;
    }

    /// The node reports the status of an object, such as a pod of this `uid`.
    pub(crate) async fn reports(&self, node: &str, key: &str, uid: &str, status: &Value) {
        let payload = Payload::KubeStatus(v1::KubeStatus {
            uid: uid.to_owned(),
            json: status.to_string().into_bytes(),
        });
        self.node_says(node, Lane::UpState, key, &payload).await;
    }

    /// Waits until the Node is as it should be.
    pub(crate) async fn until_node(
        &self,
        node: &str,
        holds: impl Fn(&DynamicObject) -> bool,
    ) -> DynamicObject {
        self.until("the Node", async |place| {
            let found = place.api("v1/Node/nodes", "").get_opt(node).await.unwrap();
            found.filter(&holds)
        })
        .await
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
            let against = self.cluster.name();
            assert!(
                tokio::time::Instant::now() < deadline,
                "never against {against}: {what}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until what nodes are told stands for everything that was done so far: an object made now has come down.
    pub(crate) async fn settled(&self, marker: &str) {
        let marker = self.own(marker);
        self.create("v1/Namespace/namespaces", json!({"metadata": {"name": marker}}))
            .await;
        let key = format!("/namespaces//{marker}");
        self.until("the marker", async |place| {
            place.objects("").contains_key(&key).then_some(())
        })
        .await;
    }
}

/// The Node's condition `Ready`.
pub(crate) fn ready(node: &DynamicObject) -> Option<&Value> {
    let conditions = node.data["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")
}

/// Whether the Node is marked as one that cannot be reached.
pub(crate) fn tainted(node: &DynamicObject, effect: &str) -> bool {
    let mut taints = node.data["spec"]["taints"].as_array().into_iter().flatten();
    taints.any(|taint| taint["key"] == "node.kubernetes.io/unreachable" && taint["effect"] == effect)
}

/// Whether the pod stays on a node that cannot be reached, however long.
pub(crate) fn stays(pod: &Value) -> bool {
    let mut tolerations = pod["spec"]["tolerations"].as_array().into_iter().flatten();
    tolerations.any(|toleration| {
        toleration["key"] == "node.kubernetes.io/unreachable" && toleration["tolerationSeconds"].is_null()
    })
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
