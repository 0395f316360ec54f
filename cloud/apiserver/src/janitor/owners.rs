//! Who owns what, and what comes of it: the decisions of upstream's garbage collector.
//!
//! An object goes when none of its owners is left. One that waits for its dependents (deleted in the foreground) is as good
//! as gone for them; as long as another owner is there, they only lose the reference.

use std::collections::{BTreeMap, BTreeSet};

use ledge_kubeapi::Object;
use serde_json::Value;

/// The finalizer of an owner that goes after its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner that leaves its dependents alone.
pub(super) const ORPHAN: &str = "orphan";

/// An object with owners.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) object: Object,
    pub(super) value: Value,
}

/// What is to be done with an object that has owners.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Stays,
    /// It is to be stored like this.
    Changes(Value),
    /// It is to be removed, as it is in this value.
    Goes(Value),
}

/// All objects, by what they have to do with each other.
#[derive(Debug, Default)]
pub(super) struct Owners {
    owned: Vec<Owned>,
    /// Places in `owned`, by the UID of an owner.
    dependents: BTreeMap<String, Vec<usize>>,
    /// The UIDs of all objects.
    there: BTreeSet<String>,
    /// The UIDs of those that wait for their dependents.
    waiting: BTreeSet<String>,
}

impl Owners {
    /// Takes note of an object.
    pub(super) fn add(&mut self, object: &Object, value: &Value) {
        self.is_there(object.uid());
        if marked(value) && has_finalizer(value, FOREGROUND) {
            self.waiting.insert(object.uid().to_owned());
        }
        let uids: BTreeSet<&str> = references(value).iter().map(uid).collect();
        if uids.is_empty() {
            return;
        }
        for uid in uids {
            let dependents = self.dependents.entry(uid.to_owned()).or_default();
            dependents.push(self.owned.len());
        }
        self.owned.push(Owned {
            object: object.clone(),
            value: value.clone(),
        });
    }

    /// The object of this UID exists.
    pub(super) fn is_there(&mut self, uid: &str) {
        self.there.insert(uid.to_owned());
    }

    /// Whether an owner of something was not seen.
    pub(super) fn some_are_missing(&self) -> bool {
        self.dependents.keys().any(|uid| !self.there.contains(uid))
    }

    /// All that have owners.
    pub(super) fn owned(&self) -> &[Owned] {
        &self.owned
    }

    /// What the object of this UID owns.
    pub(super) fn dependents(&self, owner: &str) -> impl Iterator<Item = &Owned> {
        let places = self.dependents.get(owner).into_iter().flatten();
        places.map(|place| &self.owned[*place])
    }

    /// Whether the object of this UID has to wait for a dependent.
    pub(super) fn is_blocked(&self, owner: &str) -> bool {
        self.dependents(owner).any(|dependent| {
            let mut references = references(&dependent.value).iter();
            references.any(|one| uid(one) == owner && one["blockOwnerDeletion"] == true)
        })
    }

    /// What is to be done with one that has owners.
    pub(super) fn judge(&self, object: &Object, value: &Value) -> Verdict {
        if marked(value) {
            return Verdict::Stays;
        }
        let references = references(value);
        let waits = |one: &Value| self.waiting.contains(uid(one));
        let solid: Vec<&Value> = references
            .iter()
            .filter(|one| self.there.contains(uid(one)) && !waits(one))
            .collect();
        if solid.len() == references.len() {
            return Verdict::Stays;
        }
        let mut new = value.clone();
        if !solid.is_empty() {
            new["metadata"]["ownerReferences"] = solid.into_iter().cloned().collect();
            return Verdict::Changes(new);
        }
        let mut below = self.dependents(object.uid()).peekable();
        if references.iter().any(waits) && below.peek().is_some() {
            // Its owner waits for it, so it waits for those below it.
            if below.any(|one| self.waiting.contains(one.object.uid())) {
                // Unless they wait for it: then nobody would ever go.
                let all = new["metadata"]["ownerReferences"].as_array_mut();
                for one in all.into_iter().flatten() {
                    one["blockOwnerDeletion"] = false.into();
                }
            }
            if !has_finalizer(&new, FOREGROUND) {
                match new["metadata"]["finalizers"].as_array_mut() {
                    Some(finalizers) => finalizers.push(FOREGROUND.into()),
                    None => new["metadata"]["finalizers"] = vec![FOREGROUND].into(),
                }
            }
        }
        Verdict::Goes(new)
    }
}

fn references(value: &Value) -> &[Value] {
    let references = value["metadata"]["ownerReferences"].as_array();
    references.map(Vec::as_slice).unwrap_or_default()
}

fn uid(reference: &Value) -> &str {
    reference["uid"].as_str().unwrap_or_default()
}

fn marked(value: &Value) -> bool {
    value["metadata"]["deletionTimestamp"].is_string()
}

fn has_finalizer(value: &Value, name: &str) -> bool {
    let finalizers = value["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|all| all.iter().any(|one| one == name))
}

#[cfg(test)]
mod tests {
    use ledge_kubeapi::resource::GroupResource;
    use ledge_kubeapi::{ObjectKey, Version};
    use serde_json::json;

    use super::*;

    /// An object whose owners wait for it.
    fn object(uid: &str, owners: &[&str]) -> Value {
        let owners: Vec<Value> = owners
            .iter()
            .map(|uid| json!({"uid": uid, "blockOwnerDeletion": true}))
            .collect();
        json!({"metadata": {"name": uid, "uid": uid, "ownerReferences": owners}})
    }

    /// One that is deleted in the foreground.
    fn waiting(uid: &str, owners: &[&str]) -> Value {
        let mut value = object(uid, owners);
        value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        value["metadata"]["finalizers"] = json!([FOREGROUND]);
        value
    }

    fn all(values: &[Value]) -> Owners {
        let mut owners = Owners::default();
        for value in values {
            let key = ObjectKey {
                resource: GroupResource {
                    group: String::new(),
                    resource: "configmaps".to_owned(),
                },
                namespace: "default".to_owned(),
                name: value["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            };
            let object = Object::new(key, Version(1), value.clone(), &[]);
            owners.add(&object, value);
        }
        owners
    }

    fn verdict(owners: &Owners, uid: &str) -> Verdict {
        let owned = owners.owned().iter().find(|one| one.object.uid() == uid);
        owned.map_or(Verdict::Stays, |one| owners.judge(&one.object, &one.value))
    }

    #[test]
    fn one_goes_with_its_last_owner() {
        let owners = all(&[
            object("a", &[]),
            object("x", &["a", "gone"]),
            object("y", &["gone"]),
        ]);
        assert_eq!(verdict(&owners, "a"), Verdict::Stays);
        assert_eq!(verdict(&owners, "x"), Verdict::Changes(object("x", &["a"])));
        assert_eq!(verdict(&owners, "y"), Verdict::Goes(object("y", &["gone"])));
    }

    #[test]
    fn an_owner_that_was_not_seen_is_asked_for() {
        let mut owners = all(&[object("x", &["late"])]);
        assert!(owners.some_are_missing());
        owners.is_there("late");
        assert!(!owners.some_are_missing());
        assert_eq!(verdict(&owners, "x"), Verdict::Stays);
    }

    #[test]
    fn who_has_dependents_waits_for_them_when_its_owner_waits() {
        let owners = all(&[waiting("a", &[]), object("x", &["a"]), object("y", &["x"])]);
        assert!(owners.is_blocked("a") && owners.is_blocked("x") && !owners.is_blocked("y"));
        let mut new = object("x", &["a"]);
        new["metadata"]["finalizers"] = json!([FOREGROUND]);
        assert_eq!(verdict(&owners, "x"), Verdict::Goes(new));
        // Its owner is there until it is asked to go.
        assert_eq!(verdict(&owners, "y"), Verdict::Stays);
        let owners = all(&[waiting("a", &[]), waiting("x", &["a"]), object("y", &["x"])]);
        assert_eq!(verdict(&owners, "x"), Verdict::Stays);
        assert_eq!(verdict(&owners, "y"), Verdict::Goes(object("y", &["x"])));
    }

    #[test]
    fn a_circle_is_broken() {
        let owners = all(&[waiting("a", &["x"]), object("x", &["a"])]);
        let Verdict::Goes(new) = verdict(&owners, "x") else {
            panic!("it stays");
        };
        let owners = all(&[waiting("a", &["x"]), {
            let mut marked = waiting("x", &["a"]);
            marked["metadata"]["ownerReferences"] = new["metadata"]["ownerReferences"].clone();
            marked
        }]);
        assert!(!owners.is_blocked("a"));
    }
}
