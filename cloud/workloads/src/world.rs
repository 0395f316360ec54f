//! What the API holds, as far as it was told: the objects every decision is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::meta::controller_of;
use crate::names::{Name, Task};
use crate::wake::Wake;

/// Declares the kinds that are followed: [`Kind`], [`Input`], [`World`], and what goes by kind.
macro_rules! kinds {
    ($($field:ident: $kind:ident),+ $(,)?) => {
        /// A kind that is followed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each is the kind of its name")]
        pub enum Kind { $($kind),+ }

        impl Kind {
            /// Its path below the server's root, without a namespace: prefix and plural.
            pub(crate) fn path(self) -> (&'static str, &'static str, &'static str) {
                match self {
                    $(Kind::$kind => (
                        <$kind as k8s_openapi::Resource>::GROUP,
                        <$kind as k8s_openapi::Resource>::VERSION,
                        <$kind as k8s_openapi::Resource>::URL_PATH_SEGMENT,
                    )),+
                }
            }
        }

        /// What a watch told.
        #[derive(Debug)]
        #[allow(missing_docs, reason = "each is of the kind of its name")]
        #[allow(clippy::large_enum_variant, reason = "one at a time is handled")]
        pub enum Input { $($kind(Event<$kind>)),+ }

        /// All objects of the kinds that are followed.
        #[derive(Debug, Default)]
        #[allow(missing_docs, reason = "each holds the objects of the kind of its name")]
        pub struct World {
            $(pub $field: Cache<$kind>,)+
            /// What the API last answered to a task that it refused.
            pub troubles: BTreeMap<Task, String>,
        }

        $(impl Tracked for $kind {
            const WHICH: Kind = Kind::$kind;
            fn cache(world: &World) -> &Cache<Self> { &world.$field }
            fn cache_mut(world: &mut World) -> &mut Cache<Self> { &mut world.$field }
            fn input(event: Event<Self>) -> Input { Input::$kind(event) }
        })+

        impl World {
            /// Whether every kind was listed, and none is being listed again: before, an object that is not here may be
            /// there.
            pub fn listed(&self) -> bool {
                $(self.$field.listed())&&+
            }

            /// Takes in what a watch told, and adds what it concerns to `tasks`.
            pub fn fold(&mut self, input: Input, tasks: &mut BTreeSet<Task>) {
                match input { $(Input::$kind(event) => self.fold_event(event, tasks)),+ }
            }

            /// Takes in an object as the API answered a write.
            pub(crate) fn written(
                &mut self, kind: Kind, value: Value, tasks: &mut BTreeSet<Task>,
            ) -> Result<(), serde_json::Error> {
                match kind { $(Kind::$kind => {
                    let object: $kind = serde_json::from_value(value)?;
                    self.fold_event(Event::Apply(object), tasks);
                })+ }
                Ok(())
            }

            /// Takes in that the API said of an object that it is gone.
            pub(crate) fn removed(&mut self, kind: Kind, name: &Name, uid: &str, tasks: &mut BTreeSet<Task>) {
                match kind { $(Kind::$kind => {
                    let change = self.$field.bury(name, uid);
                    self.woken::<$kind>(change, tasks);
                })+ }
            }
        }

        /// One watch for each kind.
        pub(crate) fn watches(client: &kube::Client) -> Vec<futures::stream::BoxStream<'static, Input>> {
            vec![$(crate::feed::watch::<$kind>(client)),+]
        }
    };
}

kinds! {
    deployments: Deployment,
    replica_sets: ReplicaSet,
    stateful_sets: StatefulSet,
    daemon_sets: DaemonSet,
    jobs: Job,
    cron_jobs: CronJob,
    services: Service,
    endpoints: Endpoints,
    slices: EndpointSlice,
    claims: PersistentVolumeClaim,
    volumes: PersistentVolume,
    classes: StorageClass,
    namespaces: Namespace,
    accounts: ServiceAccount,
    pods: Pod,
    nodes: Node,
}

/// A kind that is followed.
pub trait Tracked:
    k8s_openapi::Resource
    + kube::Resource<DynamicType = ()>
    + Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Wake
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
    /// Which.
    const WHICH: Kind;
    /// Where its objects are.
    fn cache(world: &World) -> &Cache<Self>;
    /// As [`Tracked::cache`], to change them.
    fn cache_mut(world: &mut World) -> &mut Cache<Self>;
    /// What its watch told, as a value of the common type.
    fn input(event: Event<Self>) -> Input;
}

impl World {
    /// Adds or replaces an object, as if a watch had told of it: for worlds that are made up.
    pub fn insert<K: Tracked>(&mut self, object: K) {
        self.fold_event(Event::Apply(object), &mut BTreeSet::new());
    }

    /// Takes in that a pod has its node; the watch tells the rest.
    pub(crate) fn bound(&mut self, name: &Name, node: &str, tasks: &mut BTreeSet<Task>) {
        let Some(mut pod) = self.pods.get(name).map(|pod| Pod::clone(pod)) else {
            return;
        };
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        self.fold_event(Event::Apply(pod), tasks);
    }

    fn fold_event<K: Tracked>(&mut self, event: Event<K>, tasks: &mut BTreeSet<Task>) {
        let changes = K::cache_mut(self).fold(event);
        for change in changes {
            self.woken::<K>(Some(change), tasks);
        }
    }

    fn woken<K: Tracked>(&self, change: Option<Changed<K>>, tasks: &mut BTreeSet<Task>) {
        if let Some((before, after)) = change {
            K::wake(before.as_deref(), after.as_deref(), self, tasks);
        }
    }
}

/// An object before and after a change.
pub type Changed<K> = (Option<Arc<K>>, Option<Arc<K>>);

/// The objects of one kind.
#[derive(Debug)]
pub struct Cache<K> {
    objects: BTreeMap<Name, Arc<K>>,
    /// Names of objects by namespace and UID of their controller; an empty UID for those without one.
    by_owner: BTreeMap<(String, String), BTreeSet<String>>,
    /// UIDs of objects that a write removed and whose end the watch has not told yet: what it tells of them is old.
    buried: BTreeSet<String>,
    /// A list that is under way.
    listing: Option<BTreeMap<Name, Arc<K>>>,
    listed: bool,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Cache {
            objects: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            buried: BTreeSet::new(),
            listing: None,
            listed: false,
        }
    }
}

impl<K: Metadata<Ty = ObjectMeta>> Cache<K> {
    /// The object of this name.
    pub fn get(&self, name: &Name) -> Option<&Arc<K>> {
        self.objects.get(name)
    }

    /// All objects, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// All objects of a namespace, by name.
    pub fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        let from = Name::new(namespace, "");
        self.objects
            .range(from..)
            .take_while(move |(name, _)| name.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// All objects of a namespace whose controller is `uid`, by name; those without a controller if it is empty.
    pub fn owned_by(&self, namespace: &str, uid: &str) -> impl Iterator<Item = &Arc<K>> {
        let names = self.by_owner.get(&(namespace.to_owned(), uid.to_owned()));
        names
            .into_iter()
            .flatten()
            .filter_map(move |name| self.objects.get(&Name::new(namespace, name)))
    }

    fn listed(&self) -> bool {
        self.listed && self.listing.is_none()
    }

    fn fold(&mut self, event: Event<K>) -> Vec<Changed<K>> {
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let object = lean(object);
                if let Some(listing) = &mut self.listing {
                    listing.insert(Name::of(object.metadata()), Arc::new(object));
                }
                Vec::new()
            }
            Event::InitDone => self.replace(),
            Event::Apply(object) => {
                let object = lean(object);
                let metadata = object.metadata();
                let uid = metadata.uid.as_deref().unwrap_or_default();
                let held = self.objects.get(&Name::of(metadata));
                if self.buried.contains(uid) || held.is_some_and(|held| !newer(metadata, held.metadata())) {
                    return Vec::new();
                }
                vec![self.put(object)]
            }
            Event::Delete(object) => {
                let metadata = object.metadata();
                let uid = metadata.uid.clone().unwrap_or_default();
                let name = Name::of(metadata);
                self.buried.remove(&uid);
                self.take(&name, &uid).into_iter().collect()
            }
        }
    }

    /// The list is complete: it is what there is.
    fn replace(&mut self) -> Vec<Changed<K>> {
        let Some(listing) = self.listing.take() else {
            return Vec::new();
        };
        self.listed = true;
        self.buried.clear();
        let gone: Vec<Name> = self
            .objects
            .keys()
            .filter(|name| !listing.contains_key(*name))
            .cloned()
            .collect();
        let mut changes = Vec::with_capacity(gone.len() + listing.len());
        for name in gone {
            self.unlink(&name);
            changes.push((self.objects.remove(&name), None));
        }
        for object in listing.into_values() {
            changes.push(self.put(object));
        }
        changes
    }

    /// Removes an object that a write removed.
    fn bury(&mut self, name: &Name, uid: &str) -> Option<Changed<K>> {
        let change = self.take(name, uid)?;
        self.buried.insert(uid.to_owned());
        Some(change)
    }

    fn put(&mut self, object: impl Into<Arc<K>>) -> Changed<K> {
        let object: Arc<K> = object.into();
        let name = Name::of(object.metadata());
        self.unlink(&name);
        self.by_owner
            .entry(owner_key(object.metadata()))
            .or_default()
            .insert(name.name.clone());
        let before = self.objects.insert(name, Arc::clone(&object));
        (before, Some(object))
    }

    fn take(&mut self, name: &Name, uid: &str) -> Option<Changed<K>> {
        let held = self.objects.get(name)?;
        if held.metadata().uid.as_deref().unwrap_or_default() != uid {
            return None;
        }
        self.unlink(name);
        Some((self.objects.remove(name), None))
    }

    fn unlink(&mut self, name: &Name) {
        let Some(object) = self.objects.get(name) else {
            return;
        };
        let key = owner_key(object.metadata());
        if let Some(names) = self.by_owner.get_mut(&key) {
            names.remove(&name.name);
            if names.is_empty() {
                self.by_owner.remove(&key);
            }
        }
    }
}

fn owner_key(metadata: &ObjectMeta) -> (String, String) {
    let uid = controller_of(metadata).map(|owner| owner.uid.clone());
    (
        metadata.namespace.clone().unwrap_or_default(),
        uid.unwrap_or_default(),
    )
}

/// Whether `new` is not older than `held`. Versions that are no numbers are taken in the order in which they come.
fn newer(new: &ObjectMeta, held: &ObjectMeta) -> bool {
    let number = |metadata: &ObjectMeta| metadata.resource_version.as_deref()?.parse::<u64>().ok();
    match (number(new), number(held)) {
        (Some(new), Some(held)) => new >= held,
        _ => true,
    }
}

/// Nothing here reads who wrote which field.
fn lean<K: Metadata<Ty = ObjectMeta>>(mut object: K) -> K {
    object.metadata_mut().managed_fields = None;
    object
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn pod(name: &str, uid: &str, version: u64) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some("a".to_owned());
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata.resource_version = Some(version.to_string());
        pod
    }

    fn version(cache: &Cache<Pod>, name: &str) -> Option<String> {
        cache
            .get(&Name::new("a", name))?
            .metadata
            .resource_version
            .clone()
    }

    #[test]
    fn an_echo_of_an_older_write_changes_nothing() {
        let mut cache = Cache::default();
        cache.fold(Event::Apply(pod("p", "1", 10)));
        assert!(cache.fold(Event::Apply(pod("p", "1", 9))).is_empty());
        assert_eq!(version(&cache, "p").as_deref(), Some("10"));
    }

    #[test]
    fn what_a_write_removed_does_not_come_back() {
        let mut cache = Cache::default();
        cache.fold(Event::Apply(pod("p", "1", 10)));
        assert!(cache.bury(&Name::new("a", "p"), "1").is_some());
        cache.fold(Event::Apply(pod("p", "1", 11)));
        assert_eq!(version(&cache, "p"), None);
        // Another of the same name is another.
        cache.fold(Event::Apply(pod("p", "2", 13)));
        cache.fold(Event::Delete(pod("p", "1", 12)));
        assert_eq!(version(&cache, "p").as_deref(), Some("13"));
        assert!(cache.buried.is_empty());
    }

    #[test]
    fn nothing_is_gone_before_a_list_is_complete() {
        let mut cache = Cache::default();
        assert!(!cache.listed());
        for event in [Event::Init, Event::InitApply(pod("p", "1", 1)), Event::InitDone] {
            cache.fold(event);
        }
        assert!(cache.listed());
        cache.fold(Event::Init);
        cache.fold(Event::InitApply(pod("q", "2", 2)));
        assert!(!cache.listed());
        assert!(version(&cache, "p").is_some());
        let changes = cache.fold(Event::InitDone);
        assert_eq!(changes.len(), 2);
        assert!(version(&cache, "p").is_none() && version(&cache, "q").is_some());
    }

    #[test]
    fn the_index_of_owners_follows() {
        let mut cache = Cache::default();
        let mut owned = pod("p", "1", 1);
        cache.fold(Event::Apply(owned.clone()));
        assert_eq!(cache.owned_by("a", "").count(), 1);
        let owner = OwnerReference {
            uid: "o".to_owned(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        owned.metadata.owner_references = Some(vec![owner]);
        owned.metadata.resource_version = Some("2".to_owned());
        cache.fold(Event::Apply(owned.clone()));
        assert_eq!(cache.owned_by("a", "").count(), 0);
        assert_eq!(cache.owned_by("a", "o").count(), 1);
        cache.fold(Event::Delete(owned));
        assert!(cache.by_owner.is_empty());
    }
}
