//! After any records, the store lists exactly what a fold gives, and whoever watched has the same.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt};
use ledge_kubeapi::objects::Limits;
use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::store::{EventKind, Selection, Store};
use ledge_metaserver::Mirror;
use ledge_projection::{Changed, Changes};
use ledge_proto::fold::{State, Table};
use ledge_proto::frame::{FrameWriter, push_record};
use ledge_proto::ids::{Incarnation, Lane, Scope, StreamId, StreamKey};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use proptest::prelude::*;
use serde_json::{Value, json};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Step {
    Object {
        cluster: bool,
        name: usize,
        version: u8,
        life: u8,
    },
    Removed {
        cluster: bool,
        name: usize,
    },
    Status {
        name: usize,
        life: Option<u8>,
        value: u8,
    },
    /// The cloud's disk is a new one: what its old one said no longer stands.
    NewCloud {
        cluster: bool,
    },
    /// What was folded is told to the store; all of it, or what changed.
    Tell {
        all: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..NAMES.len();
    let step = prop_oneof![
        6 => (any::<bool>(), name(), any::<u8>(), 0..2u8)
            .prop_map(|(cluster, name, version, life)| Step::Object { cluster, name, version, life }),
        3 => (any::<bool>(), name()).prop_map(|(cluster, name)| Step::Removed { cluster, name }),
        2 => (name(), prop::option::of(0..2u8), any::<u8>())
            .prop_map(|(name, life, value)| Step::Status { name, life, value }),
        1 => any::<bool>().prop_map(|cluster| Step::NewCloud { cluster }),
        4 => prop::bool::weighted(0.2).prop_map(|all| Step::Tell { all }),
    ];
    prop::collection::vec(step, 1..60)
}

fn node() -> Scope {
    Scope::node("edge-1").unwrap()
}

fn key(name: usize) -> String {
    format!("/configmaps/default/{}", NAMES[name])
}

fn uid(name: usize, life: u8) -> String {
    format!("{}-{life}", NAMES[name])
}

fn value(name: usize, version: u8, life: u8) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": NAMES[name],
            "namespace": "default",
            "uid": uid(name, life),
            "resourceVersion": version.to_string(),
        },
    })
}

fn selection() -> Selection {
    Selection {
        resource: GroupResource {
            group: String::new(),
            resource: "configmaps".to_owned(),
        },
        namespace: None,
    }
}

fn writer(scope: Scope, lane: Lane, incarnation: u8) -> FrameWriter {
    FrameWriter::new(StreamKey {
        id: StreamId::new(scope, lane),
        incarnation: Incarnation([incarnation; 16]),
    })
}

/// What is told, folded by hand.
#[derive(Default)]
struct Model {
    /// By scope (cluster last) and name: version and life.
    objects: [BTreeMap<usize, (u8, u8)>; 2],
    statuses: BTreeMap<usize, (Option<u8>, u8)>,
}

impl Model {
    fn shown(&self) -> BTreeMap<String, Value> {
        let mut out = BTreeMap::new();
        for (name, text) in NAMES.iter().enumerate() {
            let [node, cluster] = [0, 1].map(|scope: usize| self.objects[scope].get(&name).copied());
            let found = match (node, cluster) {
                (Some(node), Some(cluster)) if cluster.0 > node.0 => Some(cluster),
                (node, cluster) => node.or(cluster),
            };
            let Some((version, life)) = found else { continue };
            let mut object = value(name, version, life);
            if let Some((of, status)) = self.statuses.get(&name)
                && of.is_none_or(|of| of == life)
            {
                object["status"] = json!({ "value": status });
            }
            out.insert((*text).to_owned(), object);
        }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_fold_and_a_watch_is_the_store(steps in steps()) {
        let mut state = State::new();
        let mut model = Model::default();
        let mut incarnations = [1_u8, 1];
        let scopes = [node(), Scope::cluster()];
        let mut down = [0, 1].map(|scope: usize| writer(scopes[scope].clone(), Lane::Down, 1));
        let mut up = writer(node(), Lane::UpState, 9);
        let mirror = Mirror::load(&state, node(), 3, Limits::default()).unwrap();
        let mut watch = mirror.watch(&selection(), mirror.version()).unwrap();
        let mut watched: BTreeMap<String, Value> = BTreeMap::new();
        let mut changed: BTreeSet<Changed> = BTreeSet::new();
        let last = [Step::Tell { all: false }];
        for step in steps.iter().chain(&last) {
            let mut fold = |writer: &mut FrameWriter, key: &str, payload: &Payload| {
                let (kind, payload) = payload.encode();
                let record = v1::Record { kind, key: key.to_owned(), payload: payload.into(), ..Default::default() };
                let mut bytes = Vec::new();
                push_record(&mut bytes, &record);
                state.apply_frame(&writer.frame(1, &bytes).unwrap()).unwrap();
            };
            let mut touch = |scope: &Scope, table, key: String| {
                changed.insert(Changed { scope: scope.clone(), table, key });
            };
            match step {
                Step::Object { cluster, name, version, life } => {
                    let scope = usize::from(*cluster);
                    let json = serde_json::to_vec(&value(*name, *version, *life)).unwrap().into();
                    let object = v1::KubeObject { json, uid: uid(*name, *life), resource_version: version.to_string() };
                    fold(&mut down[scope], &key(*name), &Payload::KubeObject(object));
                    touch(&scopes[scope], Table::KubeObjects, key(*name));
                    model.objects[scope].insert(*name, (*version, *life));
                }
                Step::Removed { cluster, name } => {
                    let scope = usize::from(*cluster);
                    fold(&mut down[scope], &key(*name), &Payload::KubeObjectRemoved(v1::KubeObjectRemoved::default()));
                    touch(&scopes[scope], Table::KubeObjects, key(*name));
                    model.objects[scope].remove(name);
                }
                Step::Status { name, life, value } => {
                    let uid = life.map(|life| uid(*name, life)).unwrap_or_default();
                    let json = serde_json::to_vec(&json!({ "value": value })).unwrap();
                    fold(&mut up, &key(*name), &Payload::KubeStatus(v1::KubeStatus { uid, json }));
                    touch(&node(), Table::KubeStatuses, key(*name));
                    model.statuses.insert(*name, (*life, *value));
                }
                Step::NewCloud { cluster } => {
                    let scope = usize::from(*cluster);
                    for name in std::mem::take(&mut model.objects[scope]).into_keys() {
                        touch(&scopes[scope], Table::KubeObjects, key(name));
                    }
                    incarnations[scope] += 1;
                    down[scope] = writer(scopes[scope].clone(), Lane::Down, incarnations[scope]);
                    // Its first record says so.
                    fold(&mut down[scope], "none", &Payload::DeviceRemoved);
                }
                Step::Tell { all } => {
                    let told = std::mem::take(&mut changed);
                    let told = if *all { Changes::All } else { Changes::Entries(told) };
                    mirror.take_in(&state, &told).unwrap();
                    let page = mirror.list(&selection(), None, None).now_or_never().unwrap().unwrap();
                    let listed: BTreeMap<String, Value> = page
                        .objects
                        .iter()
                        .map(|object| (object.key().name.clone(), object.value()))
                        .collect();
                    prop_assert_eq!(&listed, &model.shown());
                    while let Some(Some(event)) = watch.next().now_or_never() {
                        let event = event.unwrap();
                        let name = event.object.key().name.clone();
                        match event.kind {
                            EventKind::Added => prop_assert!(watched.insert(name, event.object.value()).is_none()),
                            EventKind::Modified => {
                                let before = watched.insert(name, event.object.value()).unwrap();
                                prop_assert_eq!(&before["metadata"]["uid"], event.object.uid());
                            }
                            EventKind::Deleted => prop_assert!(watched.remove(&name).is_some()),
                        }
                    }
                    prop_assert_eq!(&watched, &listed);
                    // Another one that is loaded now shows the same.
                    let loaded = Mirror::load(&state, node(), 4, Limits::default()).unwrap();
                    let page = loaded.list(&selection(), None, None).now_or_never().unwrap().unwrap();
                    let objects = page.objects.iter().map(|object| (object.key().name.clone(), object.value()));
                    prop_assert_eq!(&objects.collect::<BTreeMap<_, _>>(), &listed);
                    prop_assert!(loaded.version() > mirror.version());
                }
            }
        }
    }
}
