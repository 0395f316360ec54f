//! Objects in memory with the changes that led to them: what lists, watches and paged lists are answered from. It is fed
//! with changes that are durable already, in the order of their versions; who makes them durable is the shell's business.

use std::collections::{BTreeMap, VecDeque};

use futures::channel::mpsc;
use futures::stream::{self, BoxStream, StreamExt};

use crate::error::{ApiError, Reason};
use crate::object::{Object, ObjectKey, Version};
use crate::resource::{GroupResource, Registry};
use crate::store::{Change, Event, EventKind, Page, Resume, Selection};

/// Largest object, bytes of JSON, as etcd's request limit.
pub const OBJECT_MAX_BYTES: usize = 1_572_864;

/// What is kept in memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of past changes that watches can begin from and paged lists go on in.
    pub window_bytes: usize,
    /// Changes a watcher may be behind before it is ended.
    pub watcher_backlog: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            window_bytes: 16 * 1024 * 1024,
            watcher_backlog: 1024,
        }
    }
}

/// The receiving end of a watch. It ends when the watcher did not keep up.
pub type Events = mpsc::Receiver<Event>;

struct Watcher {
    selection: Selection,
    sender: mpsc::Sender<Event>,
}

/// See the module.
pub struct Objects {
    limits: Limits,
    objects: BTreeMap<ObjectKey, Object>,
    version: Version,
    /// Past changes in order; every change after `before` is here.
    window: VecDeque<Event>,
    window_bytes: usize,
    before: Version,
    watchers: Vec<Watcher>,
}

impl Objects {
    /// What is there at `version`, with no memory of how it came about.
    pub fn new(limits: Limits, version: Version, objects: impl IntoIterator<Item = Object>) -> Objects {
        Objects {
            limits,
            objects: objects
                .into_iter()
                .map(|object| (object.key().clone(), object))
                .collect(),
            version,
            window: VecDeque::new(),
            window_bytes: 0,
            before: version,
            watchers: Vec::new(),
        }
    }

    /// The version of the last change.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Watches can begin from this version on.
    pub fn oldest_version(&self) -> Version {
        self.before
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// An object as it is now.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    /// Every object as it is now, by resource, namespace and name.
    pub fn all(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// Takes a change up: `object` is new or replaces what was there; `deleted` says that it is gone, and `object` is what
    /// it was last, with the version of its deletion. A change that was taken up before is passed over.
    pub fn apply(&mut self, object: Object, deleted: bool) {
        if object.version() <= self.version {
            return;
        }
        self.version = object.version();
        let previous = if deleted {
            self.objects.remove(object.key())
        } else {
            self.objects.insert(object.key().clone(), object.clone())
        };
        let kind = match (deleted, &previous) {
            (true, _) => EventKind::Deleted,
            (false, Some(_)) => EventKind::Modified,
            (false, None) => EventKind::Added,
        };
        let event = Event {
            kind,
            object,
            previous,
        };
        self.watchers.retain_mut(|watcher| {
            let concerns = watcher.selection.covers(event.object.key());
            // One that is full lost its place: dropping the sender ends it, and it begins again.
            !watcher.sender.is_closed() && (!concerns || watcher.sender.try_send(event.clone()).is_ok())
        });
        self.window_bytes += event.object.json().len();
        self.window.push_back(event);
        while self.window_bytes > self.limits.window_bytes {
            let Some(oldest) = self.window.pop_front() else {
                break;
            };
            self.window_bytes -= oldest.object.json().len();
            self.before = oldest.version();
        }
    }

    /// See [`crate::Store::list`].
    ///
    /// # Errors
    /// `Expired`, when the version of `resume` is not held any more.
    pub fn list(
        &self,
        selection: &Selection,
        limit: Option<usize>,
        resume: Option<&Resume>,
    ) -> Result<Page, ApiError> {
        let (mut first, last) = selection.range();
        if let Some(resume) = resume {
            // Where to go on came from a client: another list's place would show what that list is allowed for.
            if resume.from < first || resume.from >= last {
                return Err(ApiError::bad_request(
                    "continue key is not valid: it is not in this list",
                ));
            }
            if resume.version > self.version {
                return Err(ApiError::expired(format!(
                    "The provided continue parameter is of version {}, which is not there yet. You can start a new list without the continue parameter.",
                    resume.version
                )));
            }
            first.clone_from(&resume.from);
        }
        let version = resume.map_or(self.version, |resume| resume.version);
        let undone = self.undo_to(selection, version)?;
        let now = self.objects.range(first.clone()..last.clone());
        if undone.is_empty() {
            return Ok(page(now.map(|(_, object)| object), version, limit));
        }
        let mut then: BTreeMap<&ObjectKey, &Object> = now.collect();
        for (key, object) in undone {
            match object {
                _ if *key < first => {}
                Some(object) => {
                    then.insert(key, object);
                }
                None => {
                    then.remove(key);
                }
            }
        }
        Ok(page(then.into_values(), version, limit))
    }

    /// Every key of `selection` that changed after `version`, with what it was then.
    fn undo_to(
        &self,
        selection: &Selection,
        version: Version,
    ) -> Result<BTreeMap<&ObjectKey, Option<&Object>>, ApiError> {
        if version < self.before {
            return Err(ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
            ));
        }
        let mut then = BTreeMap::new();
        for event in self
            .after(version)
            .filter(|event| selection.covers(event.object.key()))
        {
            then.entry(event.object.key()).or_insert(event.previous.as_ref());
        }
        Ok(then)
    }

    fn after(&self, version: Version) -> impl Iterator<Item = &Event> {
        let first = self.window.partition_point(|event| event.version() <= version);
        self.window.range(first..)
    }

    /// Changes after `from` that are over, and those to come. The second ends when the watcher falls behind by more than
    /// [`Limits::watcher_backlog`] changes.
    ///
    /// # Errors
    /// `Expired`, when the changes after `from` are not held any more.
    pub fn watch(&mut self, selection: &Selection, from: Version) -> Result<(Vec<Event>, Events), ApiError> {
        if from < self.before {
            return Err(too_old(from, self.before));
        }
        let past = self
            .after(from)
            .filter(|event| selection.covers(event.object.key()))
            .cloned()
            .collect();
        let (sender, receiver) = mpsc::channel(self.limits.watcher_backlog);
        self.watchers.push(Watcher {
            selection: selection.clone(),
            sender,
        });
        Ok((past, receiver))
    }

    /// The first change that is held of `selection` whose object shows `foreign` as its `metadata.resourceVersion`
    /// ([`Object::mirrored`]). From there on, nothing is missing to whoever saw that.
    pub fn shown_as(&self, selection: &Selection, foreign: &str) -> Option<Version> {
        let mut events = self.window.iter();
        let found = events.find(|event| {
            event.object.foreign_version() == Some(foreign) && selection.covers(event.object.key())
        });
        found.map(Event::version)
    }

    /// How many watches are open.
    pub fn watchers(&mut self) -> usize {
        self.watchers.retain(|watcher| !watcher.sender.is_closed());
        self.watchers.len()
    }
}

/// Checks a change against what is there, and gives the object it leaves (of a deletion, what it was last).
///
/// # Errors
/// As [`Change`] says; `RequestEntityTooLarge` for an object over [`OBJECT_MAX_BYTES`].
pub fn outcome(
    change: Change,
    current: Option<&Object>,
    version: Version,
    registry: &Registry,
) -> Result<(Object, bool), ApiError> {
    let (resource, name) = {
        let key = change.key();
        (key.resource.clone(), key.name.clone())
    };
    let selectable = registry.stored(&resource).map(|stored| stored.selectable.clone());
    let selectable = selectable.unwrap_or_default();
    let expect = |expected: Version| match current {
        None => Err(ApiError::not_found(&resource, &name)),
        Some(current) if current.version() != expected => Err(ApiError::modified(&resource, &name)),
        Some(current) => Ok(current),
    };
    let within = |object: Object| match object.json().len() {
        found if found > OBJECT_MAX_BYTES => Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {OBJECT_MAX_BYTES} bytes, the object has {found}"),
        )),
        _ => Ok(object),
    };
    Ok(match change {
        Change::Create { key, value } => {
            if current.is_some() {
                return Err(ApiError::already_exists(&resource, &name));
            }
            (within(Object::new(key, version, value, &selectable))?, false)
        }
        Change::Update { key, expected, value } => {
            expect(expected)?;
            (within(Object::new(key, version, value, &selectable))?, false)
        }
        Change::Delete { key, expected } => {
            let last = expect(expected)?.value();
            (Object::new(key, version, last, &selectable), true)
        }
    })
}

/// Past changes, then those to come, then `Expired` when the watcher fell behind.
pub fn events(
    past: Vec<Event>,
    to_come: Events,
    resource: &GroupResource,
) -> BoxStream<'static, Result<Event, ApiError>> {
    let late = ApiError::expired(format!("the watch of {resource} fell behind: list again"));
    let to_come = to_come.map(Ok).chain(stream::once(async move { Err(late) }));
    stream::iter(past.into_iter().map(Ok)).chain(to_come).boxed()
}

/// 410 as a watch gives it.
pub fn too_old(asked: Version, oldest: Version) -> ApiError {
    ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
}

impl Selection {
    /// Whether it is about the object of that name.
    pub fn covers(&self, key: &ObjectKey) -> bool {
        key.resource == self.resource && self.namespace.as_ref().is_none_or(|name| *name == key.namespace)
    }

    /// Where its objects stand in the order of keys: the first key and the one after the last.
    fn range(&self) -> (ObjectKey, ObjectKey) {
        // Neither namespaces nor names of resources hold a zero byte, so nothing lies between a name and the name with one.
        let mut after = self.resource.clone();
        let (first, last) = match &self.namespace {
            Some(namespace) => (namespace.clone(), format!("{namespace}\0")),
            None => {
                after.resource.push('\0');
                (String::new(), String::new())
            }
        };
        let key = |resource: GroupResource, namespace: String| ObjectKey {
            resource,
            namespace,
            name: String::new(),
        };
        (key(self.resource.clone(), first), key(after, last))
    }
}

fn page<'a>(all: impl Iterator<Item = &'a Object>, version: Version, limit: Option<usize>) -> Page {
    let limit = limit.unwrap_or(usize::MAX);
    let mut objects = Vec::new();
    let mut next = None;
    let mut rest = 0;
    for object in all {
        if objects.len() < limit {
            objects.push(object.clone());
        } else {
            rest += 1;
            next.get_or_insert_with(|| object.key().clone());
        }
    }
    Page {
        objects,
        version,
        remaining: next.is_some().then_some(rest),
        next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods(namespace: Option<&str>) -> Selection {
        Selection {
            resource: GroupResource {
                group: String::new(),
                resource: "pods".to_owned(),
            },
            namespace: namespace.map(str::to_owned),
        }
    }

    fn pod(version: u64, namespace: &str, name: &str) -> Object {
        let key = ObjectKey {
            resource: pods(None).resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        Object::new(key, Version(version), json!({"metadata": {"name": name}}), &[])
    }

    fn names(page: &Page) -> Vec<String> {
        let names = page.objects.iter();
        names
            .map(|object| {
                format!(
                    "{}/{}@{}",
                    object.key().namespace,
                    object.key().name,
                    object.version()
                )
            })
            .collect()
    }

    fn three() -> Objects {
        let mut objects = Objects::new(Limits::default(), Version(0), []);
        objects.apply(pod(1, "a", "one"), false);
        objects.apply(pod(2, "a", "two"), false);
        objects.apply(pod(3, "ab", "three"), false);
        objects
    }

    #[test]
    fn all_parts_of_a_list_show_the_same_moment() {
        let mut objects = three();
        let first = objects.list(&pods(None), Some(1), None).unwrap();
        assert_eq!(names(&first), ["a/one@1"]);
        assert_eq!(first.remaining, Some(2));
        objects.apply(pod(4, "a", "two"), true);
        objects.apply(pod(5, "a", "zero"), false);
        objects.apply(pod(6, "ab", "three"), false);
        let resume = Resume {
            version: first.version,
            from: first.next.unwrap(),
        };
        let rest = objects.list(&pods(None), None, Some(&resume)).unwrap();
        assert_eq!(names(&rest), ["a/two@2", "ab/three@3"]);
        assert_eq!(
            (rest.version, rest.next, rest.remaining),
            (Version(3), None, None)
        );
        let now = objects.list(&pods(None), None, None).unwrap();
        assert_eq!(names(&now), ["a/one@1", "a/zero@5", "ab/three@6"]);
    }

    #[test]
    fn a_namespace_is_not_the_beginning_of_another() {
        let objects = three();
        assert_eq!(
            objects.list(&pods(Some("a")), None, None).unwrap().objects.len(),
            2
        );
        assert_eq!(
            objects.list(&pods(Some("ab")), None, None).unwrap().objects.len(),
            1
        );
        assert_eq!(
            objects.list(&pods(Some("")), None, None).unwrap().objects.len(),
            0
        );
    }

    #[test]
    fn a_list_goes_on_only_where_it_could_have_stopped() {
        let mut objects = three();
        objects.apply(pod(4, "a", "four"), false);
        let code = |namespace: Option<&str>, version: u64, from: &Object| {
            let resume = Resume {
                version: Version(version),
                from: from.key().clone(),
            };
            let page = objects.list(&pods(namespace), None, Some(&resume));
            page.map(|page| names(&page)).map_err(|error| error.reason.code())
        };
        let (before, within, after) = (pod(1, "a", "one"), pod(3, "ab", "three"), pod(3, "b", "x"));
        for version in [3, 4] {
            assert_eq!(
                code(Some("ab"), version, &within),
                Ok(vec!["ab/three@3".to_owned()])
            );
            assert_eq!(code(Some("ab"), version, &before), Err(400));
            assert_eq!(code(Some("ab"), version, &after), Err(400));
        }
        assert_eq!(code(Some("ab"), 5, &within), Err(410));
        let mut key = within.key().clone();
        key.resource.resource = "nodes".to_owned();
        let other = Object::new(key, Version(3), json!({}), &[]);
        assert_eq!(code(None, 3, &other), Err(400));
    }

    #[test]
    fn a_watch_replays_what_is_held_and_goes_on() {
        let mut objects = three();
        let (past, mut to_come) = objects.watch(&pods(Some("a")), Version(1)).unwrap();
        assert_eq!(past.len(), 1);
        objects.apply(pod(4, "ab", "three"), true);
        objects.apply(pod(5, "a", "two"), true);
        let event = to_come.try_recv().unwrap();
        assert_eq!((event.kind, event.version()), (EventKind::Deleted, Version(5)));
        assert!(to_come.try_recv().is_err());
    }

    #[test]
    fn what_is_not_held_is_expired() {
        let limits = Limits {
            window_bytes: 300,
            watcher_backlog: 2,
        };
        let mut objects = Objects::new(limits, Version(0), []);
        let (_, mut slow) = objects.watch(&pods(None), Version(0)).unwrap();
        for n in 1..=50 {
            objects.apply(pod(n, "a", &format!("pod-{n}")), false);
        }
        let oldest = objects.oldest_version();
        assert!(oldest > Version(0) && oldest < Version(50), "{oldest}");
        let Err(error) = objects.watch(&pods(None), Version(oldest.0 - 1)) else {
            panic!("a watch from a version that is not held");
        };
        assert_eq!(error.reason.code(), 410);
        assert!(objects.watch(&pods(None), oldest).is_ok());
        let resume = Resume {
            version: Version(1),
            from: pod(1, "a", "pod-1").key().clone(),
        };
        assert!(objects.list(&pods(None), None, Some(&resume)).is_err());
        // It did not keep up: what it has is in order, and then it ends.
        let mut seen = 0;
        while let Ok(event) = slow.try_recv() {
            seen += 1;
            assert_eq!(event.version(), Version(seen));
        }
        assert!(seen < 50);
    }
}
