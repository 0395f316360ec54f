//! What the API says of devices, models and nodes: followed, decoded, and rewritten into one shape.
//!
//! Objects stay known while the API cannot be reached, and nothing counts as gone before the list is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use kube::api::{DynamicObject, PostParams};
use kube::runtime::watcher::Event;
use ledge_crds::devices::{GROUP, VERSION};
use ledge_proto::record::device_key;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{MANAGER, shape, status};
use crate::informer::{self, Followed};
use crate::manifests::{Accepted, FromApi, ObjectKey, Objects, Problem, Severity, Source, from_api};

/// Events that wait to be taken.
const WAITING: usize = 1024;
/// Events taken before the rest of the controller hears of them.
const TAKEN: usize = 1024;
/// Objects rewritten at once.
const REWRITTEN_AT_ONCE: usize = 16;
/// Before an object that could not be rewritten is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    Device,
    Model,
    Status,
    Node,
}

impl Which {
    const ALL: [Which; 4] = [Which::Device, Which::Model, Which::Status, Which::Node];

    pub(super) fn followed(self) -> Followed {
        match self {
            Which::Device => Followed::all(GROUP, VERSION, "Device", "devices"),
            Which::Model => Followed::all(GROUP, VERSION, "DeviceModel", "devicemodels"),
            Which::Status => Followed::all(GROUP, VERSION, "DeviceStatus", "devicestatuses"),
            Which::Node => Followed::all("", "v1", "Node", "nodes"),
        }
    }
}

/// Devices and models of the API, decoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ApiObjects {
    pub(super) objects: Objects,
    pub(super) problems: Vec<Problem>,
    /// Labels of Nodes.
    pub(super) nodes: BTreeMap<String, BTreeMap<String, String>>,
}

/// What the API says, for the parts of the controller.
#[derive(Debug, Clone)]
pub(super) struct Said {
    held: Arc<Mutex<Held>>,
    objects: watch::Receiver<Arc<ApiObjects>>,
    touched: Arc<Touched>,
}

/// The end that is filled.
#[derive(Debug)]
pub(super) struct Saying {
    held: Arc<Mutex<Held>>,
    objects: watch::Sender<Arc<ApiObjects>>,
    touched: Arc<Touched>,
    rewrites: Arc<Touched>,
}

/// Keys that something happened to, each once until it is taken.
#[derive(Debug, Default)]
pub(super) struct Touched {
    keys: Mutex<BTreeSet<String>>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Held {
    devices: BTreeMap<String, Known>,
    models: BTreeMap<String, Known>,
    statuses: BTreeMap<String, Arc<DynamicObject>>,
    nodes: BTreeMap<String, BTreeMap<String, String>>,
    /// Lists that are under way: what they have named so far.
    listing: BTreeMap<Which, BTreeSet<String>>,
    /// Lists that were whole once.
    whole: BTreeSet<Which>,
}

/// A device or a model.
#[derive(Debug)]
struct Known {
    raw: Arc<DynamicObject>,
    key: ObjectKey,
    /// What holds: as it is, or as it was when it was good last.
    in_force: Option<Accepted>,
    problems: Vec<Problem>,
}

impl Said {
    pub(super) fn channel() -> (Saying, Said) {
        let held = Arc::new(Mutex::new(Held::default()));
        let touched = Arc::new(Touched::default());
        let first = ApiObjects {
            objects: Objects {
                incomplete: true,
                ..Objects::default()
            },
            ..ApiObjects::default()
        };
        let (objects, receiver) = watch::channel(Arc::new(first));
        let saying = Saying {
            held: held.clone(),
            objects,
            touched: touched.clone(),
            rewrites: Arc::default(),
        };
        let said = Said {
            held,
            objects: receiver,
            touched,
        };
        (saying, said)
    }

    /// Devices and models, whenever they are others.
    pub(super) fn objects(&self) -> watch::Receiver<Arc<ApiObjects>> {
        self.objects.clone()
    }

    /// The device `namespace/name` and its `DeviceStatus`, as they were seen last.
    pub(super) fn device(&self, key: &str) -> Option<(Arc<DynamicObject>, Option<Arc<DynamicObject>>)> {
        let held = lock(&self.held);
        let device = held.devices.get(key)?.raw.clone();
        Some((device, held.statuses.get(key).cloned()))
    }

    /// Every device's key.
    pub(super) fn devices(&self) -> Vec<String> {
        lock(&self.held).devices.keys().cloned().collect()
    }

    /// Whether the lists of devices and of their statuses were whole once.
    pub(super) fn is_whole(&self) -> bool {
        lock(&self.held).is_whole()
    }

    /// Takes an object that was just written: the API's own word for it is on its way.
    pub(super) fn wrote(&self, which: Which, object: DynamicObject) {
        let mut held = lock(&self.held);
        let Some(key) = key_of(which, &object) else { return };
        match which {
            Which::Device => {
                if let Some(known) = held.devices.get_mut(&key) {
                    known.raw = Arc::new(object);
                }
            }
            Which::Status => {
                held.statuses.insert(key, Arc::new(object));
            }
            Which::Model | Which::Node => {}
        }
    }

    /// Waits until something happened to devices or statuses: their keys.
    pub(super) async fn touched(&self) -> BTreeSet<String> {
        self.touched.take().await
    }
}

impl Touched {
    fn touch(&self, key: String) {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key);
        self.more.notify_one();
    }

    async fn take(&self) -> BTreeSet<String> {
        loop {
            let taken = std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken;
            }
            self.more.notified().await;
        }
    }
}

/// Follows the API until `shutdown`.
pub(super) async fn follow(client: Client, saying: Saying, shutdown: CancellationToken) {
    let (heard, mut hearing) = mpsc::channel(WAITING);
    let mut informers = JoinSet::new();
    for which in Which::ALL {
        let wrap = move |event: Result<Event<DynamicObject>, _>| (which, event.ok());
        let follow = informer::follow(client.clone(), which.followed(), heard.clone(), wrap);
        informers.spawn(follow);
    }
    let rewriting = rewrite(client, saying.held.clone(), saying.rewrites.clone());
    let taking = async {
        while let Some(first) = hearing.recv().await {
            let mut dirty = false;
            let mut event = Some(first);
            let mut taken = 0;
            while let Some((which, one)) = event {
                if let Some(one) = one {
                    dirty |= saying.take(which, one);
                }
                taken += 1;
                event = if taken < TAKEN {
                    hearing.try_recv().ok()
                } else {
                    None
                };
            }
            if dirty {
                saying.publish();
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = async { tokio::join!(rewriting, taking); } => {}
    }
}

impl Saying {
    /// Takes an event; whether devices, models or nodes are others than before.
    fn take(&self, which: Which, event: Event<DynamicObject>) -> bool {
        let mut held = lock(&self.held);
        match event {
            Event::Init => {
                held.listing.insert(which, BTreeSet::new());
                false
            }
            Event::InitApply(object) => {
                if let (Some(key), Some(listing)) = (key_of(which, &object), held.listing.get_mut(&which)) {
                    listing.insert(key);
                }
                self.apply(&mut held, which, object)
            }
            Event::InitDone => {
                let named = held.listing.remove(&which).unwrap_or_default();
                let gone: Vec<String> = held
                    .keys(which)
                    .filter(|key| !named.contains(*key))
                    .cloned()
                    .collect();
                for key in gone {
                    self.remove(&mut held, which, &key);
                }
                held.whole.insert(which);
                // Nothing was written while it was not known what there is.
                if held.is_whole() {
                    for key in held.devices.keys() {
                        self.touched.touch(key.clone());
                    }
                }
                true
            }
            // Word of it comes after the answer to a write of ours.
            Event::Apply(object) if held.has_later(which, &object) => false,
            Event::Apply(object) => self.apply(&mut held, which, object),
            Event::Delete(object) => {
                key_of(which, &object).is_some_and(|key| self.remove(&mut held, which, &key))
            }
        }
    }

    fn apply(&self, held: &mut Held, which: Which, object: DynamicObject) -> bool {
        let Some(key) = key_of(which, &object) else {
            return false;
        };
        match which {
            Which::Node => {
                let labels = object.metadata.labels.unwrap_or_default();
                held.nodes.insert(key, labels.clone()) != Some(labels)
            }
            Which::Status => {
                held.statuses.insert(key.clone(), Arc::new(object));
                self.touched.touch(key);
                false
            }
            Which::Device | Which::Model => {
                let shaped = shaped(which, &object);
                if shaped.changed {
                    self.rewrites.touch(rewrite_key(which, &key));
                }
                let Some(FromApi {
                    key: object_key,
                    accepted,
                    mut problems,
                }) = from_api(&shaped.object)
                else {
                    return false;
                };
                let before = held.of_kind(which).remove(&key);
                let (was, told) = before.map_or((None, Vec::new()), |known| (known.in_force, known.problems));
                let in_force = accepted.or_else(|| {
                    if was.is_some() {
                        let message = "the version accepted before stays in force".to_owned();
                        let source = Source::api();
                        problems.push(Problem::of_object(
                            &object_key,
                            &source,
                            Severity::Warning,
                            message,
                        ));
                    }
                    was.clone()
                });
                let changed = in_force != was || problems != told || in_force.is_none();
                let known = Known {
                    raw: Arc::new(object),
                    key: object_key,
                    in_force,
                    problems,
                };
                held.of_kind(which).insert(key.clone(), known);
                if which == Which::Device {
                    self.touched.touch(key);
                }
                changed
            }
        }
    }

    fn remove(&self, held: &mut Held, which: Which, key: &str) -> bool {
        match which {
            Which::Node => held.nodes.remove(key).is_some(),
            Which::Status => {
                held.statuses.remove(key);
                self.touched.touch(key.to_owned());
                false
            }
            Which::Device | Which::Model => {
                if which == Which::Device {
                    self.touched.touch(key.to_owned());
                }
                held.of_kind(which).remove(key).is_some()
            }
        }
    }

    fn publish(&self) {
        let objects = Arc::new(lock(&self.held).objects());
        self.objects.send_if_modified(|current| {
            let differs = **current != *objects;
            if differs {
                *current = objects;
            }
            differs
        });
    }
}

impl Held {
    fn of_kind(&mut self, which: Which) -> &mut BTreeMap<String, Known> {
        match which {
            Which::Model => &mut self.models,
            _ => &mut self.devices,
        }
    }

    /// Whether a later version of the same object is known.
    fn has_later(&self, which: Which, object: &DynamicObject) -> bool {
        let Some(key) = key_of(which, object) else {
            return false;
        };
        let known = match which {
            Which::Device => self.devices.get(&key).map(|known| &known.raw),
            Which::Status => self.statuses.get(&key),
            Which::Model | Which::Node => None,
        };
        let version = |object: &DynamicObject| object.metadata.resource_version.as_ref()?.parse::<u64>().ok();
        known.is_some_and(|known| {
            known.metadata.uid == object.metadata.uid
                && version(known)
                    .zip(version(object))
                    .is_some_and(|(known, it)| it < known)
        })
    }

    fn is_whole(&self) -> bool {
        self.whole.contains(&Which::Device) && self.whole.contains(&Which::Status)
    }

    fn keys(&self, which: Which) -> Box<dyn Iterator<Item = &String> + '_> {
        match which {
            Which::Device => Box::new(self.devices.keys()),
            Which::Model => Box::new(self.models.keys()),
            Which::Status => Box::new(self.statuses.keys()),
            Which::Node => Box::new(self.nodes.keys()),
        }
    }

    fn objects(&self) -> ApiObjects {
        let mut all = ApiObjects {
            nodes: self.nodes.clone(),
            ..ApiObjects::default()
        };
        all.objects.incomplete = [Which::Device, Which::Model, Which::Node]
            .iter()
            .any(|which| !self.whole.contains(which));
        for known in self.devices.values().chain(self.models.values()) {
            all.problems.extend(known.problems.iter().cloned());
            let key = known.key.clone();
            match &known.in_force {
                Some(Accepted::Device(device)) => {
                    all.objects.devices.insert(key, (**device).clone());
                }
                Some(Accepted::Model(model)) => {
                    all.objects.models.insert(key, (**model).clone());
                }
                None => {
                    all.objects.refused.insert(key);
                }
            }
        }
        all
    }
}

/// `namespace/name`, or the name of a Node.
fn key_of(which: Which, object: &DynamicObject) -> Option<String> {
    let name = object.metadata.name.as_deref()?;
    match which {
        Which::Node => Some(name.to_owned()),
        _ => Some(device_key(object.metadata.namespace.as_deref()?, name)),
    }
}

/// The object with its kind, which items of lists may lack, in the shape that is stored.
fn shaped(which: Which, object: &DynamicObject) -> shape::Shaped {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let kind = which.followed().resource.kind;
    value["apiVersion"] = json!(format!("{GROUP}/{VERSION}"));
    value["kind"] = json!(kind);
    match which {
        Which::Model => shape::model(&value),
        _ => shape::device(&value),
    }
}

fn rewrite_key(which: Which, key: &str) -> String {
    let kind = if which == Which::Model { "model" } else { "device" };
    format!("{kind}:{key}")
}

/// Stores what is in the older shape in the newer one. An object that changed meanwhile is seen again.
async fn rewrite(client: Client, held: Arc<Mutex<Held>>, wanted: Arc<Touched>) {
    loop {
        let keys = wanted.take().await;
        let again: Vec<String> = futures::stream::iter(keys)
            .map(|key| {
                let (client, held) = (client.clone(), held.clone());
                async move { (!rewrite_one(&client, &held, &key).await).then_some(key) }
            })
            .buffer_unordered(REWRITTEN_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        if !again.is_empty() {
            tokio::time::sleep(AGAIN_AFTER).await;
            again.into_iter().for_each(|key| wanted.touch(key));
        }
    }
}

/// `false`: it has to be tried again.
async fn rewrite_one(client: &Client, held: &Mutex<Held>, key: &str) -> bool {
    let (which, key) = match key.split_once(':') {
        Some(("model", key)) => (Which::Model, key),
        Some((_, key)) => (Which::Device, key),
        None => return true,
    };
    let raw = lock(held).of_kind(which).get(key).map(|known| known.raw.clone());
    let (Some(raw), Some((namespace, name))) = (raw, key.split_once('/')) else {
        return true;
    };
    let mut shaped = shaped(which, &raw);
    if !shaped.changed {
        return true;
    }
    if which == Which::Model {
        warn_of_model(&mut shaped.object);
    }
    let Ok(object) = serde_json::from_value::<DynamicObject>(shaped.object) else {
        return true;
    };
    let mut followed = which.followed();
    namespace.clone_into(&mut followed.namespace);
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    match followed.api(client.clone()).replace(name, &params, &object).await {
        Ok(_) => {
            tracing::info!(
                kind = followed.resource.kind,
                key,
                "rewritten into the shape of {VERSION}"
            );
            true
        }
        // Gone, or changed: then it comes again.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => true,
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
            let why = status.message;
            tracing::warn!(
                kind = followed.resource.kind,
                key,
                why,
                "stays in the older shape"
            );
            true
        }
        Err(err) => {
            tracing::warn!(kind = followed.resource.kind, key, %err, "not rewritten yet; trying again");
            false
        }
    }
}

/// A model has no other status than what has no place in it.
fn warn_of_model(object: &mut Value) {
    let places = shape::unconverted(object);
    if places.is_empty() {
        return;
    }
    let mut conditions = status::conditions_of(object);
    status::set_condition(&mut conditions, status::unconverted(&places));
    object["status"]["conditions"] = json!(conditions);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
