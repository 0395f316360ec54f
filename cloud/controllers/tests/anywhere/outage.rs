//! What nodes tell of their devices is in the API as soon as it should be, and in no more writes than that takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event, watcher};
use ledge_cloud_testing::Cluster;
use ledge_controllers::device::{Behind, DeviceController, Kubernetes, Reports};
use ledge_controllers::told::{Told, record};
use ledge_projection::{Projection, ReadError};
use ledge_proto::fold::view;
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::{Instant, advance};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::{Held, hold_the_clock, meanwhile, soon};

const DEVICES: [&str; 3] = ["pump-1", "pump-2", "pump-3"];
/// Longer than the controller waits for a node that is back.
const A_MOMENT: Duration = Duration::from_millis(150);

/// What nodes say, and how their links stand as the test has it.
#[derive(Debug)]
struct Nodes {
    projection: Projection,
    behind: Mutex<Behind>,
    /// Whether the node is catching up, and how often that was asked.
    catching_up: Mutex<bool>,
    asked: AtomicUsize,
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
        let catching_up = *self.catching_up.lock().unwrap();
        self.asked.fetch_add(1, Ordering::SeqCst);
        catching_up
    }

    fn changes(&self) -> broadcast::Receiver<Scope> {
        self.changes.subscribe()
    }
}

struct Place {
    cluster: Cluster,
    told: Told,
    nodes: Arc<Nodes>,
    node: Scope,
    /// Everything that was written of devices, by kind and name.
    written: Arc<Mutex<Vec<Value>>>,
    _running: DropGuard,
    _held: Held,
}

impl Place {
    /// Devices of which the API shows that they are online, and 1 as the value of their property.
    async fn start(cycle_ms: Option<u64>) -> Place {
        rustls::crypto::ring::default_provider().install_default().ok();
        let held = hold_the_clock();
        let began = Instant::now();
        let cluster = ledge_cloud_testing::embedded(&ledge_crds::definitions()).await;
        let told = Told {
            log: cluster.log().clone(),
            projection: cluster.projection().clone(),
            appends: Default::default(),
        };
        let nodes = Arc::new(Nodes {
            projection: cluster.projection().clone(),
            behind: Mutex::new(Behind::No),
            catching_up: Mutex::new(false),
            asked: AtomicUsize::new(0),
            changes: broadcast::Sender::new(16),
        });
        let controller = DeviceController {
            told: told.clone(),
            directory: None,
            kubernetes: Some(Kubernetes {
                client: cluster.client("system:device-controller"),
                reports: nodes.clone(),
            }),
        };
        let shutdown = CancellationToken::new();
        drop(tokio::spawn(controller.run(shutdown.clone())));
        let place = Place {
            _running: shutdown.drop_guard(),
            node: Scope::node("edge-1").unwrap(),
            cluster,
            told,
            nodes,
            written: Arc::default(),
            _held: held,
        };
        for kind in ["Device", "DeviceStatus"] {
            drop(tokio::spawn(note(place.api(kind), place.written.clone())));
        }
        place.make_devices(cycle_ms).await;
        // Each device was written when it was resolved: the cycle that began then is not waited for.
        place.say(&[("state", 0.0), ("t", 1.0)]).await;
        place.sees("the first values", 1.0, "True").await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        // What was written a moment ago has been noted, and is a cycle ago then.
        meanwhile().await;
        advance(Duration::from_secs(61)).await;
        place
    }

    async fn make_devices(&self, cycle_ms: Option<u64>) {
        let version = "devices.kubeedge.io/v1beta1";
        let model = json!({
            "apiVersion": version, "kind": "DeviceModel", "metadata": {"name": "pumps"},
            "spec": {"protocol": "modbus", "properties": [{"name": "t", "type": "DOUBLE", "accessMode": "ReadOnly"}]},
        });
        self.make(model).await;
        for name in DEVICES {
            let mut property = json!({"name": "t", "visitors": {"protocolName": "modbus", "configData": {
                "register": "holding", "offset": 0, "limit": 1,
            }}});
            if let Some(cycle_ms) = cycle_ms {
                property["reportCycle"] = cycle_ms.into();
            }
            let device = json!({
                "apiVersion": version, "kind": "Device", "metadata": {"name": name},
                "spec": {
                    "deviceModelRef": {"name": "pumps"}, "nodeName": "edge-1", "properties": [property],
                    "protocol": {"protocolName": "modbus", "configData": {"slaveID": 1, "ip": "127.0.0.1", "port": 1502}},
                },
            });
            self.make(device).await;
        }
        soon("the devices are told", async || {
            let devices = view::devices(&self.told.view(), &self.node).unwrap();
            (devices.values().filter(|device| device.spec.is_some()).count() == DEVICES.len()).then_some(())
        })
        .await;
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

    /// What the node says of each of its devices; it is folded when this returns.
    async fn say(&self, what: &[(&str, f64)]) {
        let mut records = Vec::new();
        for name in DEVICES {
            let device = format!("{}/{name}", self.cluster.namespace());
            records.extend(what.iter().map(|(property, value)| match *property {
                "state" => {
                    let state = v1::DeviceState {
                        state: "online".to_owned(),
                        message: String::new(),
                    };
                    record(device.clone(), &Payload::DeviceState(state))
                }
                property => {
                    let value = Some(v1::Value {
                        value: Some(v1::value::Value::Double(*value)),
                    });
                    let payload = Payload::TwinReported(v1::TwinReported { value });
                    record(format!("{device}/{property}"), &payload)
                }
            }));
        }
        let stream = StreamId::new(self.node.clone(), Lane::UpState);
        self.told.append(stream, records).await.unwrap();
    }

    /// Whether every device has this value in the API, and its condition `Ready` this status.
    async fn shows(&self, value: f64, ready: &str) -> bool {
        for name in DEVICES {
            let Some(status) = self.api("DeviceStatus").get_opt(name).await.unwrap() else {
                return false;
            };
            let device = self.api("Device").get(name).await.unwrap();
            if value_of(&status.data) != Some(value.to_string()) || ready_of(&device.data) != Some(ready) {
                return false;
            }
        }
        true
    }

    async fn sees(&self, what: &str, value: f64, ready: &str) {
        soon(what, async || self.shows(value, ready).await.then_some(())).await;
    }

    fn link(&self, behind: Behind, catching_up: bool) {
        *self.nodes.behind.lock().unwrap() = behind;
        *self.nodes.catching_up.lock().unwrap() = catching_up;
        self.nodes.changes.send(self.node.clone()).unwrap();
    }

    /// The link is lost, and that is seen; a while passes that is shorter than a report cycle.
    async fn loses_its_link(&self) {
        self.link(Behind::Lost(SystemTime::now()), false);
        self.sees("the link is lost", 1.0, "Unknown").await;
        advance(Duration::from_secs(3)).await;
    }

    /// Waits until the controller asks, after `before` times, whether the node is catching up.
    async fn asked(&self, before: usize) -> usize {
        soon("the controller looks at the node", async || {
            let asked = self.nodes.asked.load(Ordering::SeqCst);
            (asked > before).then_some(asked)
        })
        .await
    }

    /// How often each object of `kind` was written since `written` was as long as `from`.
    fn writes(&self, kind: &str, from: usize) -> Vec<usize> {
        let written = self.written.lock().unwrap();
        let since = written.iter().skip(from);
        let of_kind: Vec<&Value> = since.filter(|object| object["kind"] == kind).collect();
        let of = |name: &&str| {
            of_kind
                .iter()
                .filter(|object| object["metadata"]["name"] == **name)
                .count()
        };
        DEVICES.iter().map(of).collect()
    }

    /// Waits until the watches have told everything that is there.
    async fn watched(&self) {
        for kind in ["Device", "DeviceStatus"] {
            for name in DEVICES {
                let version = self.api(kind).get(name).await.unwrap().metadata.resource_version;
                soon("the watch tells it", async || {
                    let written = self.written.lock().unwrap();
                    let told = written.iter().any(|object| {
                        object["kind"] == kind
                            && object["metadata"]["resourceVersion"].as_str() == version.as_deref()
                    });
                    told.then_some(())
                })
                .await;
            }
        }
    }

    async fn written(&self) -> usize {
        self.watched().await;
        self.written.lock().unwrap().len()
    }
}

async fn note(api: Api<DynamicObject>, written: Arc<Mutex<Vec<Value>>>) {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        if let Ok(Event::Apply(object) | Event::InitApply(object)) = event {
            written
                .lock()
                .unwrap()
                .push(serde_json::to_value(object).unwrap());
        }
    }
}

fn value_of(status: &Value) -> Option<String> {
    let twin = status["status"]["twins"].as_array()?.first()?;
    Some(twin["reported"]["value"].as_str()?.to_owned())
}

fn ready_of(device: &Value) -> Option<&str> {
    let conditions = device["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    ready["status"].as_str()
}

/// Whatever the report cycle is.
async fn cycles(test: impl AsyncFn(Place)) {
    for cycle_ms in [None, Some(60_000)] {
        test(Place::start(cycle_ms).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_back_shows_what_it_told_meanwhile_in_one_write() {
    cycles(async |place| {
        place.loses_its_link().await;
        let from = place.written().await;
        let back = Instant::now();
        let asked = place.nodes.asked.load(Ordering::SeqCst);
        place.link(Behind::No, true);
        place.asked(asked).await;
        place.say(&[("t", 6.0)]).await;
        place.say(&[("t", 7.0)]).await;
        *place.nodes.catching_up.lock().unwrap() = false;
        advance(A_MOMENT).await;
        place.sees("what the node told meanwhile", 7.0, "True").await;
        assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
        place.watched().await;
        assert_eq!(place.writes("DeviceStatus", from), [1; 3]);
        assert_eq!(place.writes("Device", from), [1; 3]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_its_time_is_ready_first_and_shows_the_values_when_they_are_known() {
    cycles(async |place| {
        place.loses_its_link().await;
        let asked = place.nodes.asked.load(Ordering::SeqCst);
        place.link(Behind::No, true);
        let asked = place.asked(asked).await;
        advance(A_MOMENT).await;
        place.sees("the link is back", 1.0, "True").await;
        place.asked(asked).await;
        // Within the cycle that began with this write.
        let known = Instant::now();
        place.say(&[("t", 7.0)]).await;
        *place.nodes.catching_up.lock().unwrap() = false;
        advance(A_MOMENT).await;
        place.sees("what the node told meanwhile", 7.0, "True").await;
        assert!(known.elapsed() < Duration::from_secs(1), "{:?}", known.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn changes_within_a_cycle_are_one_write() {
    cycles(async |place| {
        let from = place.written().await;
        place.say(&[("t", 2.0)]).await;
        place.sees("the first change", 2.0, "True").await;
        for value in 3..50 {
            place.say(&[("t", f64::from(value))]).await;
        }
        advance(Duration::from_secs(61)).await;
        place.sees("the last change", 49.0, "True").await;
        place.watched().await;
        assert_eq!(place.writes("DeviceStatus", from), [2; 3]);
    })
    .await;
}
