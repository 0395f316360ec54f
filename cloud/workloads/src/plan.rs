//! What a decision comes to: changes of objects, and events that tell of them.

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::meta::uid;
use crate::names::Name;
use crate::world::{Kind, Tracked};

/// What is to be done for one task. Its actions do not depend on each other; what follows from them is decided when they
/// are done, by looking again.
#[derive(Debug, Default)]
pub struct Plan {
    /// Changes.
    pub actions: Vec<Action>,
    /// Events that tell of what no action does.
    pub notes: Vec<Note>,
    /// When to look again even if nothing changes.
    pub again: Option<Timestamp>,
}

impl Plan {
    /// Only `actions`.
    pub fn of(actions: Vec<Action>) -> Plan {
        Plan {
            actions,
            ..Plan::default()
        }
    }

    /// Looks again at `at`, or at the time chosen before if that is earlier.
    pub fn again_at(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |before| before.min(at)));
    }
}

/// One change.
#[derive(Debug, Clone)]
pub struct Action {
    /// What kind of object.
    pub kind: Kind,
    /// Which; the name is empty when the server makes one.
    pub name: Name,
    /// The change.
    pub verb: Verb,
    /// The event that tells of it.
    pub told: Option<Told>,
}

/// Ways to change an object.
#[derive(Debug, Clone)]
pub enum Verb {
    /// Makes it.
    Create(Value),
    /// Merges a patch into it, or into its subresource.
    Patch {
        /// The patch.
        body: Value,
        /// Empty for the object itself.
        subresource: &'static str,
        /// Lists are merged by the key of their elements.
        strategic: bool,
    },
    /// Removes it if it is still the one of this UID.
    Delete {
        /// Its UID.
        uid: String,
        /// Does not wait for a node to end it.
        now: bool,
    },
    /// Gives a pod its node.
    Bind {
        /// The pod's UID.
        uid: String,
        /// The node's name.
        node: String,
    },
}

impl Action {
    /// Makes `object`.
    pub fn create<K: Tracked>(object: &K) -> Action {
        let metadata = Metadata::metadata(object);
        Action {
            kind: K::WHICH,
            name: Name::of(metadata),
            // Kubernetes' own types are always JSON.
            verb: Verb::Create(serde_json::to_value(object).unwrap_or_default()),
            told: None,
        }
    }

    /// Merges `body` into the object or its subresource.
    pub fn merge(kind: Kind, name: &Name, subresource: &'static str, body: Value) -> Action {
        Action::patch(kind, name, subresource, body, false)
    }

    /// Merges `body` into the object or its subresource; lists by the key of their elements.
    pub fn strategic(kind: Kind, name: &Name, subresource: &'static str, body: Value) -> Action {
        Action::patch(kind, name, subresource, body, true)
    }

    fn patch(kind: Kind, name: &Name, subresource: &'static str, body: Value, strategic: bool) -> Action {
        Action {
            kind,
            name: name.clone(),
            verb: Verb::Patch {
                body,
                subresource,
                strategic,
            },
            told: None,
        }
    }

    /// Removes the object.
    pub fn delete<K: Tracked>(object: &K) -> Action {
        let metadata = Metadata::metadata(object);
        Action {
            kind: K::WHICH,
            name: Name::of(metadata),
            verb: Verb::Delete {
                uid: uid(metadata).to_owned(),
                now: false,
            },
            told: None,
        }
    }

    /// Removes the object without waiting for a node to end it.
    pub fn delete_now<K: Tracked>(object: &K) -> Action {
        let mut action = Action::delete(object);
        if let Verb::Delete { now, .. } = &mut action.verb {
            *now = true;
        }
        action
    }

    /// Makes an object's status `new`; `None` when it is that already.
    pub fn status<K: Tracked, S: serde::Serialize>(object: &K, old: Option<&S>, new: &S) -> Option<Action> {
        let old = old
            .and_then(|old| serde_json::to_value(old).ok())
            .unwrap_or_else(|| json!({}));
        let new = serde_json::to_value(new).ok()?;
        let status = difference(&old, &new)?;
        let metadata = Metadata::metadata(object);
        let body = json!({"metadata": {"uid": uid(metadata)}, "status": status});
        Some(Action::merge(K::WHICH, &Name::of(metadata), "status", body))
    }

    /// With the event that tells of it.
    pub fn told(mut self, told: Told) -> Action {
        self.told = Some(told);
        self
    }
}

/// The merge patch that makes `new` of `old`, whose fields are replaced whole; `None` when they are the same.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return None;
    };
    let mut patch = Map::new();
    for (key, value) in new {
        if old.get(key) == Some(value) {
            continue;
        }
        if value.is_object() {
            // A merge patch would merge it.
            let inner = old.get(key).and_then(|old| difference(old, value));
            patch.insert(key.clone(), inner.unwrap_or_else(|| value.clone()));
        } else {
            patch.insert(key.clone(), value.clone());
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The events of an action: `{}` in a message stands for the object's name when it was done, and for the reason when it
/// was refused.
#[derive(Debug, Clone)]
pub struct Told {
    /// What the event is about.
    pub about: ObjectReference,
    /// Reason and message when it was done; an empty reason: no event.
    pub done: (&'static str, String),
    /// Reason and message when it was refused; an empty reason: no event.
    pub refused: (&'static str, String),
}

impl Told {
    /// Events about `object`.
    pub fn about<K: Tracked>(
        object: &K,
        done: (&'static str, impl Into<String>),
        refused: (&'static str, impl Into<String>),
    ) -> Told {
        Told {
            about: reference(object),
            done: (done.0, done.1.into()),
            refused: (refused.0, refused.1.into()),
        }
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What it is about.
    pub about: ObjectReference,
    /// Whether it is a warning.
    pub warning: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
}

impl Note {
    /// A normal event about `object`.
    pub fn normal<K: Tracked>(object: &K, reason: &'static str, message: impl Into<String>) -> Note {
        Note {
            about: reference(object),
            warning: false,
            reason,
            message: message.into(),
        }
    }

    /// A warning about `object`.
    pub fn warning<K: Tracked>(object: &K, reason: &'static str, message: impl Into<String>) -> Note {
        Note {
            warning: true,
            ..Note::normal(object, reason, message)
        }
    }
}

/// What events say of the object they are about.
pub fn reference<K: Tracked>(object: &K) -> ObjectReference {
    let metadata: &ObjectMeta = Metadata::metadata(object);
    ObjectReference {
        api_version: Some(<K as k8s_openapi::Resource>::API_VERSION.to_owned()),
        kind: Some(<K as k8s_openapi::Resource>::KIND.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_replaces_removes_and_leaves() {
        let old = json!({"same": 1, "gone": [1], "list": [1, 2], "map": {"a": 1, "b": 2}});
        let new = json!({"same": 1, "list": [2], "map": {"a": 2}});
        let patch = difference(&old, &new).unwrap();
        assert_eq!(
            patch,
            json!({"gone": null, "list": [2], "map": {"a": 2, "b": null}})
        );
        assert_eq!(difference(&new, &new), None);
    }
}
