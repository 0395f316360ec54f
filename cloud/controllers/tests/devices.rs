//! Devices written in a Kubernetes API: down to their nodes, and up again, against every API there is.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use ledge_cloud_testing::{Cluster, becomes_true, clusters, eventually};
use ledge_controllers::device::{Behind, DeviceController, Kubernetes, Reports, UNCONVERTED};
use ledge_controllers::manifests::{Objects, Snapshot, SourceFile, load};
use ledge_controllers::told::{Told, record};
use ledge_projection::{Projection, ReadError};
use ledge_proto::fold::{Table, view};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What nodes say, and how their links stand as the test has it.
#[derive(Debug)]
struct Nodes {
    projection: Projection,
    behind: Mutex<Behind>,
    changes: broadcast::Sender<Scope>,
}

impl Reports for Nodes {
    fn device(&self, node: &Scope, key: &str) -> Result<view::Device, ReadError> {
        view::device(&self.projection.view(), node, key)
    }

    fn devices(&self, node: &Scope) -> Result<BTreeMap<String, view::Device>, ReadError> {
        view::devices(&self.projection.view(), node)
    }

    fn behind(&self, _: &Scope) -> Behind {
        *self.behind.lock().unwrap()
    }

    fn is_catching_up(&self, _: &Scope) -> bool {
        // What nodes say is folded before the test goes on.
        false
    }

    fn changes(&self) -> broadcast::Receiver<Scope> {
        self.changes.subscribe()
    }
}

/// cloudcore's part, over one API.
struct Place {
    cluster: Cluster,
    told: Told,
    nodes: Arc<Nodes>,
    node: Scope,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Place {
    fn new(cluster: Cluster) -> Place {
        let told = Told {
            log: cluster.log().clone(),
            projection: cluster.projection().clone(),
            appends: Default::default(),
        };
        let nodes = Arc::new(Nodes {
            projection: cluster.projection().clone(),
            behind: Mutex::new(Behind::No),
            changes: broadcast::Sender::new(16),
        });
        let node = Scope::node(&cluster.unique("edge")).unwrap();
        Place {
            cluster,
            told,
            nodes,
            node,
            running: None,
        }
    }

    fn start(&mut self, directory: Option<watch::Receiver<Arc<Snapshot>>>) {
        let controller = DeviceController {
            told: self.told.clone(),
            directory,
            kubernetes: Some(Kubernetes {
                client: self.cluster.client("system:device-controller"),
                reports: self.nodes.clone(),
            }),
        };
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(controller.run(shutdown.clone()));
        self.running = Some((running, shutdown));
    }

    async fn stop(&mut self) {
        let (running, shutdown) = self.running.take().unwrap();
        shutdown.cancel();
        running.await.unwrap();
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let plural = match kind {
            "DeviceStatus" => "devicestatuses".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let resource = ApiResource {
            group: "devices.kubeedge.io".to_owned(),
            version: "v1beta1".to_owned(),
            api_version: "devices.kubeedge.io/v1beta1".to_owned(),
            kind: kind.to_owned(),
            plural,
        };
        Api::default_namespaced_with(self.cluster.client("system:test"), &resource)
    }

    async fn make(&self, object: Value) {
        let api = self.api(object["kind"].as_str().unwrap());
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        api.create(&Default::default(), &object).await.unwrap();
    }

    async fn patch(&self, kind: &str, name: &str, patch: Value) {
        let patch = Patch::Merge(&patch);
        self.api(kind)
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// The object, as soon as `good` says so.
    async fn see(&self, kind: &str, name: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let what = format!("{} on {}", what, self.cluster.name());
        let api = self.api(kind);
        eventually(&what, async || {
            let object = api.get_opt(name).await.unwrap()?;
            let object = serde_json::to_value(object).unwrap();
            good(&object).then_some(object)
        })
        .await
    }

    /// Resource versions of the device and of its status: they tell whether anything was written.
    async fn versions(&self, name: &str) -> [Option<String>; 2] {
        let version = async |kind: &str| self.api(kind).get(name).await.unwrap().metadata.resource_version;
        [version("Device").await, version("DeviceStatus").await]
    }

    /// Counts the versions of an object from the present one on.
    fn count_writes(&self, kind: &str, name: &str) -> (JoinHandle<()>, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let events = watcher(self.api(kind), config);
        let counting = tokio::spawn(events.for_each(move |event| {
            if let Ok(Event::Apply(_) | Event::InitApply(_)) = event {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            std::future::ready(())
        }));
        (counting, count)
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.cluster.namespace())
    }

    fn told_of(&self, name: &str) -> view::Device {
        view::device(&self.told.view(), &self.node, &self.key(name)).unwrap()
    }

    /// What the node says.
    async fn say(&self, records: Vec<v1::Record>) {
        let stream = StreamId::new(self.node.clone(), Lane::UpState);
        self.told.append(stream, records).await.unwrap();
    }

    fn reported(&self, property: &str, value: f64) -> v1::Record {
        let value = Some(v1::Value {
            value: Some(v1::value::Value::Double(value)),
        });
        let payload = Payload::TwinReported(v1::TwinReported { value });
        record(format!("{}/{property}", self.key("pump")), &payload)
    }

    fn state(&self, state: &str) -> v1::Record {
        let payload = Payload::DeviceState(v1::DeviceState {
            state: state.to_owned(),
            message: String::new(),
        });
        record(self.key("pump"), &payload)
    }

    fn link(&self, behind: Behind) {
        *self.nodes.behind.lock().unwrap() = behind;
        self.nodes.changes.send(self.node.clone()).unwrap();
    }

    fn pump(&self) -> Value {
        json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "pump"},
            "spec": {
                "deviceModelRef": {"name": "pumps"},
                "protocol": {"modbus": {"slaveID": 1}, "common": {"tcp": {"ip": "127.0.0.1", "port": 1502}}},
                "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node.node_name().unwrap()]},
                ]}]},
                "propertyVisitors": [
                    {"propertyName": "t", "modbus": {"register": "holding", "offset": 0, "limit": 1}, "reportCycle": 1000},
                    {"propertyName": "u", "modbus": {"register": "holding", "offset": 1, "limit": 1}, "reportCycle": 1000},
                ],
                "data": {"dataTopic": "x"},
            },
            "status": {"twins": [{"propertyName": "t", "desired": {"value": "21"}}]},
        })
    }
}

fn pumps() -> Value {
    let property = |name: &str| json!({"name": name, "type": {"double": {"accessMode": "ReadWrite", "minimum": -50, "maximum": 100}}});
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "pumps"},
        "spec": {"properties": [property("t"), property("u")]},
    })
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array();
    let mut all = all.into_iter().flatten();
    all.find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

fn twin(object: &Value, property: &str, part: &str) -> Option<String> {
    let twins = object["status"]["twins"].as_array()?;
    let twin = twins.iter().find(|twin| twin["propertyName"] == property)?;
    Some(twin[part]["value"].as_str()?.to_owned())
}

/// One test for all of it: the controller looks at every device of a cluster, and the real one is shared.
#[tokio::test(flavor = "multi_thread")]
async fn devices_go_down_and_come_up() {
    rustls::crypto::ring::default_provider().install_default().ok();
    for cluster in clusters(&ledge_crds::definitions()).await {
        let mut place = Place::new(cluster);
        place.start(None);
        down(&place).await;
        up(&place).await;
        restarted(&mut place).await;
        twice(&mut place).await;
        gone(&place).await;
        place.stop().await;
    }
}

async fn down(place: &Place) {
    // The device comes before its model, in the older shape.
    place.make(place.pump()).await;
    let no_model = |device: &Value| condition(device, "Resolved")["reason"] == "NoModel";
    let device = place
        .see("Device", "pump", "the model is missing", no_model)
        .await;
    assert_eq!(condition(&device, "Resolved")["status"], "False");
    assert!(place.told_of("pump").spec.is_none());
    place.make(pumps()).await;
    let device = place
        .see("Device", "pump", "the device is resolved", |device| {
            condition(device, "Resolved")["status"] == "True"
                && device["spec"].get("propertyVisitors").is_none()
        })
        .await;
    let spec = &device["spec"];
    assert_eq!(spec["nodeName"], place.node.node_name().unwrap());
    assert_eq!(spec["protocol"]["protocolName"], "modbus");
    assert_eq!(spec["protocol"]["configData"]["port"], 1502);
    assert_eq!(spec["properties"][0]["desired"]["value"], "21");
    assert_eq!(device["status"]["node"], place.node.node_name().unwrap());
    let kept = device["metadata"]["annotations"][UNCONVERTED].as_str().unwrap();
    assert_eq!(kept, json!({"spec": {"data": {"dataTopic": "x"}}}).to_string());
    let warned = |device: &Value| condition(device, "Warning")["reason"] == "NotConverted";
    place.see("Device", "pump", "a warning", warned).await;
    let older = |model: &Value| model["spec"]["properties"][0]["type"] == "DOUBLE";
    let model = place
        .see("DeviceModel", "pumps", "the model is rewritten", older)
        .await;
    assert_eq!(model["spec"]["properties"][0]["minimum"], "-50");
    becomes_true("the node is told", async || {
        let told = place.told_of("pump");
        let t = told.twins.get("t").and_then(|twin| twin.desired.as_ref());
        told.spec.is_some() && t.is_some_and(|t| t.content.value.is_some())
    })
    .await;
    // A user wishes for another value; a wish that cannot be carried out is told, and what was told before stays.
    let wish = |value: &str| {
        let property = |name: &str, offset| {
            json!({"name": name, "reportCycle": 1000, "visitors": {"protocolName": "modbus", "configData": {
                "register": "holding", "offset": offset, "limit": 1,
            }}})
        };
        let mut t = property("t", 0);
        t["desired"] = json!({"value": value});
        json!({"spec": {"properties": [t, property("u", 1)]}})
    };
    place.patch("Device", "pump", wish("22.5")).await;
    let desired = || {
        let told = place.told_of("pump");
        told.twins["t"]
            .desired
            .as_ref()
            .unwrap()
            .content
            .value
            .clone()
            .unwrap()
            .value
            .unwrap()
    };
    becomes_true("the wish is told", async || {
        desired() == v1::value::Value::Double(22.5)
    })
    .await;
    place.patch("Device", "pump", wish("500")).await;
    let mistakes = |device: &Value| condition(device, "Warning")["reason"] == "Mistakes";
    let device = place
        .see("Device", "pump", "the wrong wish is told", mistakes)
        .await;
    let message = condition(&device, "Warning")["message"].as_str().unwrap();
    assert!(
        message.contains("500 is out of range: from -50 to 100"),
        "{message}"
    );
    assert_eq!(desired(), v1::value::Value::Double(22.5));
    place.patch("Device", "pump", wish("22.5")).await;
    place.see("Device", "pump", "the wish is mended", warned).await;
    // The model changes.
    let mut model = pumps();
    model["spec"]["properties"][1]["type"]["double"]["unit"] = json!("bar");
    place.patch("DeviceModel", "pumps", model).await;
    becomes_true("the model's change is told", async || {
        place.told_of("pump").spec.unwrap().content.properties[1].unit == "bar"
    })
    .await;
}

async fn up(place: &Place) {
    let device = place.see("Device", "pump", "the device", |_| true).await;
    place
        .say(vec![place.state("online"), place.reported("t", 20.0)])
        .await;
    let status = place
        .see("DeviceStatus", "pump", "the first report", |status| {
            twin(status, "t", "reported").as_deref() == Some("20")
        })
        .await;
    let owner = &status["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("Device"), &device["metadata"]["uid"])
    );
    assert_eq!(status["status"]["state"], "online");
    assert_eq!(twin(&status, "t", "observedDesired").as_deref(), Some("22.5"));
    let ready = |device: &Value| condition(device, "Ready")["status"] == "True";
    place.see("Device", "pump", "the device is ready", ready).await;
    // The first report of another property, and many changes of the first: each a record by itself, and one write in a
    // report cycle, which is a second.
    let (counting, written) = place.count_writes("DeviceStatus", "pump");
    becomes_true("the watch begins", async || written.load(Ordering::SeqCst) == 1).await;
    let began = Instant::now();
    for n in 0..50 {
        place.say(vec![place.reported("t", f64::from(n))]).await;
    }
    place.say(vec![place.reported("u", 1.5)]).await;
    place
        .see("DeviceStatus", "pump", "both properties", |status| {
            twin(status, "t", "reported").as_deref() == Some("49")
                && twin(status, "u", "reported").as_deref() == Some("1.5")
        })
        .await;
    // The first one at once, and what was there when the watch began.
    let most = began.elapsed().as_secs() + 3;
    let seen = written.load(Ordering::SeqCst) as u64;
    assert!(seen <= most, "{seen} of at most {most}");
    counting.abort();
    // The link is lost, and comes back.
    place.link(Behind::Lost(SystemTime::now() - Duration::from_secs(30)));
    let lost = |device: &Value| {
        condition(device, "Ready")["reason"] == "NodeUnreachable"
            && device["status"]["behindSince"].is_string()
    };
    place.see("Device", "pump", "the link is lost", lost).await;
    place.say(vec![place.reported("t", 7.0)]).await;
    place.link(Behind::No);
    let back = |device: &Value| {
        device["status"].get("behindSince").is_none() && condition(device, "Ready")["status"] == "True"
    };
    place.see("Device", "pump", "the link is back", back).await;
    place
        .see("DeviceStatus", "pump", "the value of meanwhile", |status| {
            twin(status, "t", "reported").as_deref() == Some("7")
        })
        .await;
}

/// A controller that starts again tells nodes nothing and writes nothing.
async fn restarted(place: &mut Place) {
    // What the node told last is written, with its time.
    let report = place.see("DeviceStatus", "pump", "the report", |_| true).await;
    let at = &report["status"]["twins"][0]["reported"]["metadata"]["timestamp"];
    let at: i64 = at.as_str().unwrap().parse().unwrap();
    let at = k8s_openapi::jiff::Timestamp::from_second(at / 1000)
        .unwrap()
        .to_string();
    let written = |device: &Value| device["status"]["reportedAt"] == at.as_str();
    place
        .see("Device", "pump", "the time of the report", written)
        .await;
    place.stop().await;
    let settled = place.versions("pump").await;
    let told = || {
        let view = place.told.view();
        let stream = StreamId::new(place.node.clone(), Lane::Down);
        ledge_proto::fold::folded_stream(&view, &stream)
            .unwrap()
            .unwrap()
            .seq
    };
    let before = told();
    // What comes after everything that is there was looked at.
    let mut marker = place.pump();
    marker["metadata"]["name"] = json!("marker");
    place.make(marker).await;
    place.start(None);
    becomes_true("the marker is told", async || {
        place.told_of("marker").spec.is_some()
    })
    .await;
    let resolved = |device: &Value| condition(device, "Resolved")["status"] == "True";
    place
        .see("Device", "marker", "the marker is resolved", resolved)
        .await;
    // One record for the marker and one for its wish.
    let view = place.told.view();
    let stream = StreamId::new(place.node.clone(), Lane::Down);
    let after = ledge_proto::fold::folded_stream(&view, &stream)
        .unwrap()
        .unwrap()
        .seq;
    assert_eq!(after, before + 2);
    assert_eq!(place.versions("pump").await, settled);
}

/// What is in a directory too is told, and the API's holds.
async fn twice(place: &mut Place) {
    place.stop().await;
    let mut both = place.pump();
    both["metadata"]["namespace"] = json!(place.cluster.namespace());
    both["spec"]["propertyVisitors"] = json!([]);
    both["status"] = Value::Null;
    let mut only = both.clone();
    only["metadata"]["name"] = json!("filed");
    let file = |name: &str, content: &Value| SourceFile {
        name: name.to_owned(),
        content: Ok(content.to_string()),
    };
    let loaded = load(
        &Objects::default(),
        &[file("both.json", &both), file("only.json", &only)],
    );
    let snapshot = Snapshot {
        objects: Arc::new(loaded.objects),
        problems: loaded.problems,
    };
    assert_eq!(snapshot.objects.devices.len(), 2, "{:?}", snapshot.problems);
    let (_sender, directory) = watch::channel(Arc::new(snapshot));
    place.start(Some(directory));
    becomes_true("the file's device is told", async || {
        place.told_of("filed").spec.is_some()
    })
    .await;
    let told = |device: &Value| {
        let warning = condition(device, "Warning");
        warning["message"]
            .as_str()
            .is_some_and(|message| message.contains("the API's holds"))
    };
    place.see("Device", "pump", "that it is there twice", told).await;
    assert_eq!(place.told_of("pump").spec.unwrap().content.properties.len(), 2);
}

/// What is deleted goes from its node; what a directory has too stays, as the directory has it.
async fn gone(place: &Place) {
    let devices = place.api("Device");
    devices.delete("pump", &Default::default()).await.unwrap();
    becomes_true("the directory's device is told", async || {
        place.told_of("pump").spec.unwrap().content.properties.is_empty()
    })
    .await;
    devices.delete("marker", &Default::default()).await.unwrap();
    becomes_true("the device is taken from its node", async || {
        place.told_of("marker").spec.is_none()
    })
    .await;
    let told = view::entries::<_, v1::DeviceSpec>(&place.told.view(), &place.node, Table::Devices).unwrap();
    let names: Vec<&str> = told
        .iter()
        .map(|(key, _)| key.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(names, ["filed", "pump"]);
}
