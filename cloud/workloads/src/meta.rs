//! Owners, labels and selectors.

use std::collections::BTreeMap;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde_json::json;

use crate::names::Name;
use crate::plan::Action;
use crate::world::{Cache, Tracked};

/// Labels, as objects have them.
pub type Labels = BTreeMap<String, String>;

/// The owner that controls the object.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// The reference that a dependent has to `owner`, its controller.
pub fn owner_reference<K: Tracked>(owner: &K) -> OwnerReference {
    let metadata = Metadata::metadata(owner);
    OwnerReference {
        api_version: <K as k8s_openapi::Resource>::API_VERSION.to_owned(),
        kind: <K as k8s_openapi::Resource>::KIND.to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether the object is about to go.
pub fn terminating(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// The object's UID; empty for one that has none yet.
pub fn uid(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}

/// An annotation.
pub fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether `labels` are chosen by `selector`. An empty selector chooses everything, one that cannot be understood nothing.
pub fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let get = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    equal.into_iter().all(|(key, value)| get(key) == Some(value))
        && expressions.into_iter().all(|expression| {
            let value = get(&expression.key);
            let among = |value: &String| expression.values.iter().flatten().any(|one| one == value);
            match expression.operator.as_str() {
                "In" => value.is_some_and(among),
                "NotIn" => !value.is_some_and(among),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Whether a selector chooses everything.
pub fn selects_all(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// The dependents of one owner, and what makes them so.
#[derive(Debug)]
pub struct Claimed<K> {
    /// Those that the owner controls and its selector chooses.
    pub objects: Vec<std::sync::Arc<K>>,
    /// Adopts orphans that the selector chooses, releases dependents that it does not choose any more.
    pub actions: Vec<Action>,
}

/// Finds the dependents of `owner` among `cache`.
pub fn claim<O: Tracked, K: Tracked>(owner: &O, selector: &LabelSelector, cache: &Cache<K>) -> Claimed<K> {
    let metadata = Metadata::metadata(owner);
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let mut claimed = Claimed {
        objects: Vec::new(),
        actions: Vec::new(),
    };
    for object in cache.owned_by(namespace, uid(metadata)) {
        let dependent = Metadata::metadata(&**object);
        if selects(selector, dependent.labels.as_ref()) {
            claimed.objects.push(object.clone());
        } else if !terminating(metadata) {
            let owners = dependent.owner_references.iter().flatten();
            let left: Vec<_> = owners.filter(|owner| owner.uid != uid(metadata)).collect();
            claimed.actions.push(owners_patch::<K>(dependent, json!(left)));
        }
    }
    if terminating(metadata) || selects_all(selector) {
        return claimed;
    }
    for object in cache.owned_by(namespace, "") {
        let orphan = Metadata::metadata(&**object);
        if !terminating(orphan) && selects(selector, orphan.labels.as_ref()) {
            let mut owners = orphan.owner_references.clone().unwrap_or_default();
            owners.push(owner_reference(owner));
            claimed.actions.push(owners_patch::<K>(orphan, json!(owners)));
        }
    }
    claimed
}

/// Changes an object's owners if it is still what it was when that was decided.
fn owners_patch<K: Tracked>(metadata: &ObjectMeta, owners: serde_json::Value) -> Action {
    let body = json!({"metadata": {
        "uid": uid(metadata),
        "resourceVersion": metadata.resource_version,
        "ownerReferences": owners,
    }});
    Action::merge(K::WHICH, &Name::of(metadata), "", body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn requirement(operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "k".to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn every_operator() {
        let labels: Labels = [("k".to_owned(), "a".to_owned())].into();
        let has = Some(&labels);
        for (operator, values, with, without) in [
            ("In", &["a", "b"][..], true, false),
            ("In", &["b"], false, false),
            ("NotIn", &["a"], false, true),
            ("NotIn", &["b"], true, true),
            ("Exists", &[], true, false),
            ("DoesNotExist", &[], false, true),
            ("Unheard", &["a"], false, false),
        ] {
            let selector = requirement(operator, values);
            assert_eq!(selects(&selector, has), with, "{operator} {values:?}");
            assert_eq!(selects(&selector, None), without, "{operator} {values:?}");
        }
        assert!(selects(&LabelSelector::default(), None));
    }
}
