//! Telling nodes what they need: objects into the `down` streams, once each however often they change meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use ledge_projection::{Changes, View};
use ledge_proto::fold::{FoldError, Table, view};
use ledge_proto::ids::Scope;
use ledge_proto::limits;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::interests::{Interests, Told as OfInterest};
use super::needs::{Entry, Needs, is_per_node};
use super::seen::Seen;
use crate::Controllers;
use crate::informer::{self, Followed};
use crate::objects::{self, Object};
use crate::told::{TellError, Told, record};

/// Events that wait to be taken.
const WAITING: usize = 1024;
/// Events taken before nodes are told: what changes several times meanwhile is told once.
const TAKEN: usize = 1024;
/// Nodes told at once; the log makes one commit of what they are told.
const AT_ONCE: usize = 256;
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What a record has besides the object.
const RECORD_EXTRA: usize = 4096;

/// Kinds that nodes need, and after which nobody has to ask: group, version, kind, resource.
const KINDS: [[&str; 4]; 13] = [
    ["", "v1", "Node", "nodes"],
    ["", "v1", "Pod", "pods"],
    ["", "v1", "ConfigMap", "configmaps"],
    ["", "v1", "Secret", "secrets"],
    ["", "v1", "ServiceAccount", "serviceaccounts"],
    ["", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"],
    ["", "v1", "PersistentVolume", "persistentvolumes"],
    ["", "v1", "Namespace", "namespaces"],
    ["", "v1", "Service", "services"],
    ["", "v1", "Endpoints", "endpoints"],
    ["discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"],
    [
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    ],
    ["apps.kubeedge.io", "v1alpha1", "NodeGroup", "nodegroups"],
];

/// What is heard.
pub(super) enum Heard {
    Kind(usize, Box<Event<DynamicObject>>),
    /// Of an interest of a node, by its id.
    Interest(Scope, String, OfInterest),
}

/// Tells nodes what they need until `shutdown`.
pub(crate) async fn run(controllers: Controllers, seen: Seen, shutdown: CancellationToken) {
    let (heard, mut hearing) = mpsc::channel(WAITING);
    let mut informers = JoinSet::new();
    for (number, [group, version, kind, plural]) in KINDS.into_iter().enumerate() {
        let followed = Followed::all(group, version, kind, plural);
        let events = heard.clone();
        let client = controllers.client.clone();
        informers.spawn(async move {
            let (forward, mut forwarded) = mpsc::channel(1);
            let follow = informer::follow(client, followed, forward, Result::ok);
            let pass = async {
                while let Some(event) = forwarded.recv().await {
                    let Some(event) = event else { continue };
                    if events.send(Heard::Kind(number, Box::new(event))).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(follow, pass);
        });
    }
    let mut feed = controllers
        .told
        .projection
        .changes(&[Table::Interests, Table::NodeStates]);
    let mut down = Down::new(&controllers, seen, heard);
    loop {
        let again = !down.pending.is_empty() || down.everything;
        tokio::select! {
            event = hearing.recv() => {
                let mut taken = 0;
                let mut event = event;
                while let Some(next) = event {
                    down.take(next);
                    taken += 1;
                    event = if taken < TAKEN { hearing.try_recv().ok() } else { None };
                }
            }
            changes = feed.next() => down.reported(changes),
            () = tokio::time::sleep(AGAIN_AFTER), if again => {}
            () = shutdown.cancelled() => return,
        }
        down.tell().await;
    }
}

/// What nodes need, what is to be compared with what they were told.
struct Down {
    told: Told,
    needs: Needs,
    kinds: Vec<Kind>,
    interests: Interests,
    pending: BTreeMap<Scope, Pending>,
    /// Everything is to be compared.
    everything: bool,
    /// Resource version of the deletion of what is gone.
    gone: HashMap<String, String>,
    seen: Seen,
}

struct Kind {
    followed: Followed,
    prefix: String,
    /// Listed completely at least once: what is not there is gone.
    listed: bool,
    /// Found by the list under way.
    found: HashSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) objects: BTreeSet<String>,
    pub(super) interests: BTreeSet<String>,
}

impl Down {
    fn new(controllers: &Controllers, seen: Seen, heard: mpsc::Sender<Heard>) -> Down {
        let kinds = KINDS.into_iter().map(|[group, version, kind, plural]| Kind {
            followed: Followed::all(group, version, kind, plural),
            prefix: format!("{group}/{plural}/"),
            listed: false,
            found: HashSet::new(),
        });
        Down {
            told: controllers.told.clone(),
            needs: Needs::new(controllers.every_node),
            kinds: kinds.collect(),
            interests: Interests::new(controllers.client.clone(), heard),
            pending: BTreeMap::new(),
            everything: false,
            gone: HashMap::new(),
            seen,
        }
    }

    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Kind(number, event) => self.take_event(number, *event),
            Heard::Interest(scope, id, told) => {
                let pending = self.pending.entry(scope.clone()).or_default();
                self.interests.take(&scope, &id, told, pending);
            }
        }
    }

    fn take_event(&mut self, number: usize, event: Event<DynamicObject>) {
        let Some(kind) = self.kinds.get_mut(number) else {
            return;
        };
        let changed = match event {
            Event::Init => {
                kind.found.clear();
                return;
            }
            Event::InitApply(object) => {
                kind.found
                    .insert(objects::key_of(&kind.followed.resource, &object));
                self.put(number, object)
            }
            Event::Apply(object) => self.put(number, object),
            Event::Delete(object) => {
                let key = objects::key_of(&kind.followed.resource, &object);
                let version = object.metadata.resource_version.unwrap_or_default();
                self.gone.insert(key.clone(), version);
                self.needs.remove(&key)
            }
            Event::InitDone => {
                self.everything |= !std::mem::replace(&mut kind.listed, true);
                let found = std::mem::take(&mut kind.found);
                let gone = self.needs.of_kind(&kind.prefix);
                let gone: Vec<String> = gone.into_iter().filter(|key| !found.contains(key)).collect();
                gone.iter().flat_map(|key| self.needs.remove(key)).collect()
            }
        };
        self.compare(changed);
    }

    fn put(&mut self, number: usize, object: DynamicObject) -> BTreeSet<Entry> {
        let Some(kind) = self.kinds.get(number) else {
            return BTreeSet::new();
        };
        let resource = &kind.followed.resource;
        let key = objects::key_of(resource, &object);
        let Some((object, value)) = objects::read(resource, object) else {
            return BTreeSet::new();
        };
        let changed = self.needs.put(&key, object, &value);
        if key.starts_with("/nodes/") {
            self.seen.nodes.put(key, value);
        } else if key.starts_with("/pods/") && value["spec"]["nodeName"].is_string() {
            self.seen.pods.put(key, value);
        }
        changed
    }

    fn compare(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for (scope, key) in entries {
            self.pending.entry(scope).or_default().objects.insert(key);
        }
    }

    /// Nodes told something that matters here.
    fn reported(&mut self, changes: Changes) {
        let view = self.told.view();
        let outcome = match changes {
            Changes::All => self.all_reported(&view),
            Changes::Entries(entries) => entries.into_iter().try_for_each(|entry| {
                if entry.table == Table::NodeStates {
                    let changed = self.needs.reported(&entry.scope);
                    self.compare(changed);
                    return Ok(());
                }
                let interest = Told::entry(&view, &entry.scope, entry.table, &entry.key)?;
                self.interest(entry.scope, entry.key, interest);
                Ok(())
            }),
        };
        if let Err(err) = outcome {
            tracing::error!(%err, "what nodes asked for cannot be read");
        }
    }

    fn all_reported(&mut self, view: &View) -> Result<(), ledge_projection::ReadError> {
        let mut asked = BTreeSet::new();
        for scope in view::scopes(view).map_err(FoldError::Store)? {
            if view::node(view, &scope)?.is_some() {
                let changed = self.needs.reported(&scope);
                self.compare(changed);
            }
            for (id, interest) in view::entries::<_, v1::Interest>(view, &scope, Table::Interests)? {
                asked.insert((scope.clone(), id.clone()));
                self.interest(scope.clone(), id, Some(interest.content));
            }
            for (id, _) in view::entries::<_, v1::InterestState>(view, &scope, Table::InterestStates)? {
                self.pending
                    .entry(scope.clone())
                    .or_default()
                    .interests
                    .insert(id);
            }
        }
        for (scope, id) in self.interests.others(&asked) {
            self.interest(scope, id, None);
        }
        Ok(())
    }

    fn interest(&mut self, scope: Scope, id: String, interest: Option<v1::Interest>) {
        let pending = self.pending.entry(scope.clone()).or_default();
        self.interests.set(&scope, id, interest, pending);
    }

    /// Appends what nodes have to be told. What cannot be appended stays pending.
    async fn tell(&mut self) {
        if std::mem::take(&mut self.everything)
            && let Err(err) = self.compare_everything()
        {
            tracing::error!(%err, "what nodes were told cannot be read; trying again");
            self.everything = true;
        }
        let pending = std::mem::take(&mut self.pending);
        let view = Arc::new(self.told.view());
        let this = &*self;
        let rounds = pending.into_iter().map(|(scope, pending)| {
            let view = Arc::clone(&view);
            async move {
                let outcome = this.tell_one(&view, &scope, &pending).await;
                (scope, pending, outcome)
            }
        });
        let outcomes: Vec<_> = stream::iter(rounds).buffer_unordered(AT_ONCE).collect().await;
        for (scope, pending, outcome) in outcomes {
            if let Err(err) = outcome {
                tracing::error!(node = %scope, %err, "cannot be told what it needs; trying again");
                self.pending.insert(scope, pending);
            }
        }
        if self.pending.is_empty() {
            self.gone.clear();
        }
    }

    fn compare_everything(&mut self) -> Result<(), ledge_projection::ReadError> {
        let view = self.told.view();
        for scope in view::scopes(&view).map_err(FoldError::Store)? {
            let told = view::entries::<_, v1::KubeObject>(&view, &scope, Table::KubeObjects)?;
            self.compare(told.into_iter().map(|(key, _)| (scope.clone(), key)));
        }
        let all: Vec<Entry> = self.needs.all().collect();
        self.compare(all);
        Ok(())
    }

    async fn tell_one(&self, view: &View, scope: &Scope, pending: &Pending) -> Result<(), TellError> {
        let mut records = Vec::new();
        for key in &pending.objects {
            records.extend(self.difference(view, scope, key)?);
        }
        for id in &pending.interests {
            let told = Told::entry(view, scope, Table::InterestStates, id)?;
            records.extend(self.interests.answer(scope, id, told));
        }
        if !records.is_empty() {
            self.told.tell(scope.clone(), records).await?;
        }
        Ok(())
    }

    /// The record that brings the entry to what it should be.
    fn difference(&self, view: &View, scope: &Scope, key: &str) -> Result<Option<v1::Record>, TellError> {
        let told: Option<v1::KubeObject> = Told::entry(view, scope, Table::KubeObjects, key)?;
        let wanted = self.needs.wanted(scope, key);
        let wanted = wanted.or_else(|| self.interests.wanted(scope, key));
        let payload = match (wanted, told) {
            (Some(object), told) => {
                let status_is_the_nodes = key.starts_with("/pods/") || key.starts_with("/nodes/");
                if told.is_some_and(|told| !object.differs(&told, status_is_the_nodes)) || !fits(key, object)
                {
                    return Ok(None);
                }
                Payload::KubeObject(object.told())
            }
            (None, Some(told)) if self.may_remove(scope, key) => {
                let resource_version = self.gone.get(key).cloned().unwrap_or(told.resource_version);
                Payload::KubeObjectRemoved(v1::KubeObjectRemoved {
                    uid: told.uid,
                    resource_version,
                })
            }
            (None, _) => return Ok(None),
        };
        Ok(Some(record(key.to_owned(), &payload)))
    }

    /// Whether everything that could ask for the object was read.
    fn may_remove(&self, scope: &Scope, key: &str) -> bool {
        let per_node = is_per_node(key);
        let read = |kind: &Kind| {
            let matters = match per_node {
                true => is_per_node(&kind.prefix),
                false => key.starts_with(&kind.prefix),
            };
            kind.listed || !matters
        };
        self.kinds.iter().all(read) && self.interests.may_remove(scope, key)
    }
}

/// Whether a record can hold the object. One that is larger is not sent down, and that is told.
fn fits(key: &str, object: &Object) -> bool {
    let fits = object.json.len() + RECORD_EXTRA <= limits::RECORD_MAX_BYTES
        && key.len() <= limits::RECORD_KEY_MAX_BYTES;
    if !fits {
        tracing::error!(
            key,
            bytes = object.json.len(),
            "the object is too large to be sent to nodes"
        );
    }
    fits
}
