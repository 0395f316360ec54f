//! Uniqueness in lists: `x-kubernetes-list-type` `set` and `map`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::cause;
use super::validate::Found;
use super::{ListType, Schema};

/// What is in `list` more than once.
pub(super) fn unique(schema: &Schema, list: &[Value], path: &str, found: &mut Found) {
    match &schema.list {
        ListType::Atomic => {}
        ListType::Set => {
            for at in repeated(list.iter().map(Value::to_string)) {
                if let Some(value) = list.get(at) {
                    found.add(cause::duplicate(format!("{path}[{at}]"), value));
                }
            }
        }
        ListType::Map(keys) => {
            for (at, element) in list.iter().enumerate() {
                if !matches!(element, Value::Object(_) | Value::Null) {
                    let why = "must be an object for an array of list-type map";
                    found.add(cause::invalid(format!("{path}[{at}]"), element, why));
                    return;
                }
            }
            let key_of = |element: &Value| key_of(schema, keys, element);
            for at in repeated(list.iter().map(|element| key_of(element).to_string())) {
                if let Some(element) = list.get(at) {
                    found.add(cause::duplicate(format!("{path}[{at}]"), &key_of(element)));
                }
            }
        }
    }
}

fn key_of(schema: &Schema, keys: &[String], element: &Value) -> Value {
    let of_field = |key: &String| {
        let default = || schema.items.as_ref()?.properties.get(key)?.default.clone();
        let value = element.get(key).cloned().or_else(default)?;
        Some((key.clone(), value))
    };
    Value::Object(keys.iter().filter_map(of_field).collect::<Map<_, _>>())
}

/// Places of the second of each group of equals.
fn repeated(texts: impl Iterator<Item = String>) -> BTreeSet<usize> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut out = BTreeSet::new();
    for (at, text) in texts.enumerate() {
        let times = seen.entry(text).or_default();
        *times = times.saturating_add(1);
        if *times == 2 {
            out.insert(at);
        }
    }
    out
}

/// Elements of a list before a change, to find those that elements are compared with: in a list of type `map`, those of
/// the same key. Elements of other lists cannot be told apart.
pub(super) struct Before<'a> {
    by_key: BTreeMap<String, &'a Value>,
}

impl<'a> Before<'a> {
    pub(super) fn new(schema: &Schema, old: Option<&'a Value>) -> Before<'a> {
        let mut by_key = BTreeMap::new();
        if let (ListType::Map(keys), Some(Value::Array(old))) = (&schema.list, old) {
            for element in old {
                by_key
                    .entry(key_of(schema, keys, element).to_string())
                    .or_insert(element);
            }
        }
        Before { by_key }
    }

    pub(super) fn get(&self, schema: &Schema, element: &Value) -> Option<&'a Value> {
        match &schema.list {
            ListType::Map(keys) if !self.by_key.is_empty() => self
                .by_key
                .get(&key_of(schema, keys, element).to_string())
                .copied(),
            _ => None,
        }
    }
}
