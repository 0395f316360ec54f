//! What the node holds, in memory: the objects of its own and of the cluster's `down` stream with the status the node gave
//! them itself, and how its interests and writes stand. Fed by the projection, entry by entry as they change.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use ledge_kubeapi::error::Reason;
use ledge_kubeapi::objects::{self, Limits, Objects, too_old};
use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::store::{Change, Event, Page, Resume, Selection, Store};
use ledge_kubeapi::{ApiError, Object, ObjectKey, Registry, Version};
use ledge_projection::{Changed, Changes};
use ledge_proto::fold::{FoldError, Read, Table, folded_stream, view};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::v1;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::kinds::{self, crds};
use crate::ledger::Ledger;
use crate::version;

/// The tables that are followed.
pub(crate) const TABLES: [Table; 6] = [
    Table::KubeObjects,
    Table::KubeStatuses,
    Table::Interests,
    Table::InterestStates,
    Table::KubeWrites,
    Table::KubeWriteResults,
];

/// See the module. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Mirror {
    shared: Arc<Shared>,
}

struct Shared {
    node: Scope,
    state: Mutex<State>,
    registry: Mutex<Arc<Registry>>,
    /// Counts what was taken in, for those that wait for something to be there.
    taken: watch::Sender<u64>,
}

struct State {
    objects: Objects,
    ledger: Ledger,
    told: Told,
}

/// Whether the cloud ever told this node anything in its own stream and in the cluster's: without, nothing can be said to
/// be missing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    pub(crate) node: bool,
    pub(crate) cluster: bool,
}

/// A panic while a lock was held left a whole value behind: each object is taken up by one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mirror {
    /// Reads what `view` holds of `node` and of the cluster, in the `boot`th start of the log.
    ///
    /// # Errors
    /// When the projection cannot be read.
    pub fn load<R: Read>(
        view: &R,
        node: Scope,
        boot: u32,
        limits: Limits,
    ) -> Result<Mirror, FoldError<R::Error>> {
        let start = version::first(boot);
        let mirror = Mirror {
            shared: Arc::new(Shared {
                node,
                state: Mutex::new(State {
                    objects: Objects::new(limits, start, []),
                    ledger: Ledger::default(),
                    told: Told::default(),
                }),
                registry: Mutex::new(Arc::new(kinds::registry(&[]))),
                taken: watch::Sender::new(0),
            }),
        };
        mirror.take_in(view, &Changes::All)?;
        // What was there from the beginning is no change, and nobody saw the versions that it got on the way.
        let mut state = lock(&mirror.shared.state);
        let version = state.objects.version();
        let all = state.objects.all().cloned().collect::<Vec<_>>();
        state.objects = Objects::new(limits, version, all);
        drop(state);
        Ok(mirror)
    }

    /// Takes in what `changes` says is different in `view`.
    ///
    /// # Errors
    /// When the projection cannot be read. What was taken in before the error stays.
    pub fn take_in<R: Read>(&self, view: &R, changes: &Changes) -> Result<(), FoldError<R::Error>> {
        let all = match changes {
            Changes::All => self.everything(view)?,
            Changes::Entries(entries) => entries.clone(),
        };
        let (objects, rest): (BTreeSet<Changed>, BTreeSet<Changed>) = all
            .into_iter()
            .filter(|changed| self.concerns(changed))
            .partition(|changed| matches!(changed.table, Table::KubeObjects | Table::KubeStatuses));
        let objects: BTreeSet<String> = objects.into_iter().map(|changed| changed.key).collect();
        // Definitions first: they say what of an object a field selector may name.
        let definitions = format!("{}/{}/", crds().group, crds().resource);
        let (first, then): (Vec<&String>, Vec<&String>) =
            objects.iter().partition(|key| key.starts_with(&definitions));
        let mut redefined = BTreeSet::new();
        for key in first {
            redefined.extend(self.take_object(view, key)?);
        }
        if !redefined.is_empty() {
            self.define(view, &redefined)?;
        }
        for key in then {
            self.take_object(view, key)?;
        }
        // An interest's state says that its objects were sent before it: they are taken in already.
        for changed in rest {
            self.take_row(view, &changed)?;
        }
        let told = self.look_told(view)?;
        lock(&self.shared.state).told = told;
        self.shared.taken.send_modify(|taken| *taken += 1);
        Ok(())
    }

    fn concerns(&self, changed: &Changed) -> bool {
        changed.scope == self.shared.node
            || (changed.scope == Scope::cluster() && changed.table == Table::KubeObjects)
    }

    /// Every entry of the tables, and what is held already: that may be gone.
    fn everything<R: Read>(&self, view: &R) -> Result<BTreeSet<Changed>, FoldError<R::Error>> {
        let mut all = BTreeSet::new();
        for scope in [self.shared.node.clone(), Scope::cluster()] {
            for table in TABLES {
                let prefix = table.store_key(&scope, b"");
                let found = &mut all;
                let visit = &mut |key: &[u8], _: &[u8]| {
                    let key = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
                    let scope = scope.clone();
                    found.insert(Changed { scope, table, key });
                };
                view.scan(&prefix, visit).map_err(FoldError::Store)?;
            }
        }
        let state = lock(&self.shared.state);
        let node = &self.shared.node;
        let held = state.objects.all().filter(|object| !kinds::is_own(object.key()));
        let held = held.map(|object| (Table::KubeObjects, record_key(object.key())));
        all.extend(held.chain(state.ledger.keys()).map(|(table, key)| Changed {
            scope: node.clone(),
            table,
            key,
        }));
        Ok(all)
    }

    /// Takes up one object as the view has it. Of a definition that changed: which resource it defines.
    fn take_object<R: Read>(
        &self,
        view: &R,
        key: &str,
    ) -> Result<Option<GroupResource>, FoldError<R::Error>> {
        let Some(object_key) = object_key(key) else {
            tracing::error!(key, "an object under a key that is no object's is passed over");
            return Ok(None);
        };
        let value = self.read(view, key)?;
        let registry = self.registry();
        let stored = registry.stored(&object_key.resource);
        let selectable = stored.map(|stored| stored.selectable.clone()).unwrap_or_default();
        let mut state = lock(&self.shared.state);
        let objects = &mut state.objects;
        let next = |objects: &Objects| Version(objects.version().0 + 1);
        let before = objects.get(&object_key).cloned();
        match value {
            Some(mut value) => {
                if let Some(stored) = stored
                    && let Ok(converted) = registry.convert(stored, value.clone(), &stored.gvr.version)
                {
                    value = converted;
                }
                let object = Object::mirrored(object_key.clone(), next(objects), &value, &selectable);
                if let Some(before) = &before {
                    if before.json() == object.json() && before.fields() == object.fields() {
                        return Ok(None);
                    }
                    // Another object of the same name: the first one went.
                    if before.uid() != object.uid() {
                        objects.apply(gone(before, next(objects)), true);
                    }
                }
                let object = Object::mirrored(object_key.clone(), next(objects), &value, &selectable);
                objects.apply(object, false);
            }
            None => match &before {
                Some(before) => objects.apply(gone(before, next(objects)), true),
                None => return Ok(None),
            },
        }
        if object_key.resource != crds() {
            return Ok(None);
        }
        // `plural.group`
        let defines = object_key.name.split_once('.');
        Ok(defines.map(|(resource, group)| GroupResource {
            group: group.to_owned(),
            resource: resource.to_owned(),
        }))
    }

    /// The object as it is shown, or `None` when it is not needed here.
    fn read<R: Read>(&self, view: &R, key: &str) -> Result<Option<Value>, FoldError<R::Error>> {
        let of = |scope: &Scope| -> Result<Option<v1::KubeObject>, FoldError<R::Error>> {
            let found = view::entry(view, scope, Table::KubeObjects, key)?;
            Ok(found.map(|latest| latest.content))
        };
        let found = newer(of(&self.shared.node)?, of(&Scope::cluster())?);
        let Some(object) = found else {
            return Ok(None);
        };
        let value = serde_json::from_slice::<Value>(&object.json);
        let Some(mut value) = value.ok().filter(|value| value["metadata"].is_object()) else {
            tracing::error!(key, "an object that is not JSON with metadata is passed over");
            return Ok(None);
        };
        let status = view::entry::<_, v1::KubeStatus>(view, &self.shared.node, Table::KubeStatuses, key)?;
        if let Some(status) = status.map(|latest| latest.content)
            && (status.uid.is_empty() || value["metadata"]["uid"] == status.uid.as_str())
            && let Ok(status) = serde_json::from_slice::<Value>(&status.json)
        {
            value["status"] = status;
            if key == record_key(&self.own_node()) {
                say_ready(&mut value["status"]);
            }
        }
        Ok(Some(value))
    }

    /// Serves the definitions as they are now; objects of what was redefined are looked at again.
    fn define<R: Read>(
        &self,
        view: &R,
        redefined: &BTreeSet<GroupResource>,
    ) -> Result<(), FoldError<R::Error>> {
        let held: Vec<String> = {
            let state = lock(&self.shared.state);
            let all = state.objects.all();
            let definitions: Vec<Object> = all
                .filter(|object| object.key().resource == crds())
                .cloned()
                .collect();
            *lock(&self.shared.registry) = Arc::new(kinds::registry(&definitions));
            let all = state.objects.all();
            all.filter(|object| redefined.contains(&object.key().resource))
                .map(|object| record_key(object.key()))
                .collect()
        };
        for key in held {
            self.take_object(view, &key)?;
        }
        Ok(())
    }

    /// Takes up an interest, a write, or what became of one.
    fn take_row<R: Read>(&self, view: &R, changed: &Changed) -> Result<(), FoldError<R::Error>> {
        let mut state = lock(&self.shared.state);
        let State { objects, ledger, .. } = &mut *state;
        ledger.take_row(view, changed)?;
        if !matches!(changed.table, Table::KubeWrites | Table::KubeWriteResults) {
            return Ok(());
        }
        let key = kinds::write_key(&changed.key);
        let next = Version(objects.version().0 + 1);
        match ledger.shown(&changed.key) {
            Some(value) => objects.apply(Object::new(key, next, value, &[]), false),
            None => {
                if let Some(before) = objects.get(&key).cloned() {
                    objects.apply(Object::new(key, next, before.value(), &[]), true);
                }
            }
        }
        Ok(())
    }

    fn look_told<R: Read>(&self, view: &R) -> Result<Told, FoldError<R::Error>> {
        let folded = |scope: &Scope| folded_stream(view, &StreamId::new(scope.clone(), Lane::Down));
        Ok(Told {
            node: folded(&self.shared.node)?.is_some(),
            cluster: folded(&Scope::cluster())?.is_some(),
        })
    }

    pub(crate) fn told(&self) -> Told {
        lock(&self.shared.state).told
    }

    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        self.shared.node.node_name().unwrap_or_default()
    }

    /// Where this node's Node is.
    fn own_node(&self) -> ObjectKey {
        ObjectKey {
            resource: GroupResource {
                group: String::new(),
                resource: "nodes".to_owned(),
            },
            namespace: String::new(),
            name: self.node().to_owned(),
        }
    }

    /// The object as it is shown now.
    pub(crate) fn object(&self, key: &ObjectKey) -> Option<Object> {
        lock(&self.shared.state).objects.get(key).cloned()
    }

    /// Looks at how interests and writes stand.
    pub(crate) fn ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&lock(&self.shared.state).ledger)
    }

    /// Changes whenever something was taken in.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.taken.subscribe()
    }
}

/// A node that says nothing of being ready is ready here as long as it answers, as it is in the cloud as long as its link
/// is up.
fn say_ready(status: &mut Value) {
    let Some(status) = status.as_object_mut() else {
        return;
    };
    let conditions = status
        .entry("conditions")
        .or_insert_with(|| Value::Array(Vec::new()));
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    if !conditions.iter().any(|condition| condition["type"] == "Ready") {
        conditions.push(json!({
            "type": "Ready",
            "status": "True",
            "reason": "EdgecoreRunning",
            "message": "edgecore runs; whether the cloud can reach this node, the cloud says",
        }));
    }
}

/// What an object was last, at the version of its deletion.
fn gone(before: &Object, version: Version) -> Object {
    Object::mirrored(before.key().clone(), version, &before.value(), &[])
}

/// Of an object in both streams, what the API server gave later.
fn newer(node: Option<v1::KubeObject>, cluster: Option<v1::KubeObject>) -> Option<v1::KubeObject> {
    let (Some(node), Some(cluster)) = (&node, &cluster) else {
        return node.or(cluster);
    };
    let number = |object: &v1::KubeObject| object.resource_version.parse::<u64>().unwrap_or(0);
    Some(if number(cluster) > number(node) {
        cluster.clone()
    } else {
        node.clone()
    })
}

/// `group/resource/namespace/name`: the key of a record.
pub(crate) fn record_key(key: &ObjectKey) -> String {
    let ObjectKey {
        resource,
        namespace,
        name,
    } = key;
    ledge_proto::record::object_key(&resource.group, &resource.resource, namespace, name)
}

/// Reads what [`record_key`] wrote. Names hold no slash.
fn object_key(key: &str) -> Option<ObjectKey> {
    let mut parts = key.splitn(4, '/');
    let mut part = || parts.next().map(str::to_owned);
    Some(ObjectKey {
        resource: GroupResource {
            group: part()?,
            resource: part()?,
        },
        namespace: part()?,
        name: part()?,
    })
}

#[async_trait]
impl Store for Mirror {
    fn registry(&self) -> Arc<Registry> {
        Arc::clone(&lock(&self.shared.registry))
    }

    fn version(&self) -> Version {
        lock(&self.shared.state).objects.version()
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, ApiError> {
        self.object(key)
            .ok_or_else(|| ApiError::not_found(&key.resource, &key.name))
    }

    async fn list(
        &self,
        selection: &Selection,
        limit: Option<usize>,
        resume: Option<&Resume>,
    ) -> Result<Page, ApiError> {
        lock(&self.shared.state).objects.list(selection, limit, resume)
    }

    async fn commit(&self, _: Change) -> Result<Object, ApiError> {
        // Whatever changes something goes another way (`door`).
        Err(ApiError::new(
            Reason::MethodNotAllowed,
            "this node's objects are changed by the API server only",
        ))
    }

    fn watch(
        &self,
        selection: &Selection,
        from: Version,
    ) -> Result<BoxStream<'static, Result<Event, ApiError>>, ApiError> {
        let mut state = lock(&self.shared.state);
        let objects = &mut state.objects;
        let from = if version::is_foreign(from) {
            let shown = objects.shown_as(selection, &from.to_string());
            shown.ok_or_else(|| too_old(from, objects.oldest_version()))?
        } else if from > objects.version() {
            // Of a log that is not this node's any more: what came after it is not known.
            return Err(too_old(from, objects.oldest_version()));
        } else {
            from
        };
        let (past, to_come) = objects.watch(selection, from)?;
        Ok(objects::events(past, to_come, &selection.resource))
    }
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror")
            .field("node", &self.shared.node)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
