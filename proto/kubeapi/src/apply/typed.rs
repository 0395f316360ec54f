//! Objects seen through their schema: which fields they have, how two differ, how two are merged.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/v6/typed`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::{Element, Fields};
use crate::schema::{ListType, Schema, Type, cause::go_value};

/// How a value is owned.
enum Shape<'a> {
    /// As a whole: scalars, and what the schema calls atomic.
    Leaf,
    /// Field by field.
    Map(&'a Map<String, Value>),
    /// Element by element.
    List(&'a Schema, &'a [Value]),
    /// Null: an empty object or list as well as a scalar.
    Null,
}

fn shape<'a>(schema: Option<&'a Schema>, value: &'a Value) -> Shape<'a> {
    match (value, schema) {
        (Value::Null, _) => Shape::Null,
        (Value::Object(_), Some(schema)) if schema.atomic_map => Shape::Leaf,
        (Value::Object(fields), _) => Shape::Map(fields),
        (Value::Array(elements), Some(schema)) if schema.list != ListType::Atomic => {
            Shape::List(schema, elements)
        }
        _ => Shape::Leaf,
    }
}

fn field<'a>(schema: Option<&'a Schema>, name: &str) -> Option<&'a Schema> {
    schema.and_then(|schema| schema.field(name)).map(AsRef::as_ref)
}

fn items(schema: &Schema) -> Option<&Schema> {
    schema.items.as_deref()
}

/// Elements of a list by what tells them apart, those that cannot be told left out. More than one are duplicates.
fn by_element<'a>(schema: &Schema, elements: &'a [Value]) -> BTreeMap<Element, Vec<&'a Value>> {
    let mut out: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for value in elements {
        if let Ok(element) = Element::of_list(schema, value) {
            out.entry(element).or_default().push(value);
        }
    }
    out
}

/// All fields of `value`.
pub(super) fn fields_of(schema: Option<&Schema>, value: &Value) -> Fields {
    let mut out = Fields::default();
    collect(schema, value, &mut Vec::new(), &mut out);
    out
}

fn collect(schema: Option<&Schema>, value: &Value, path: &mut Vec<Element>, out: &mut Fields) {
    match shape(schema, value) {
        Shape::Null => {}
        Shape::Leaf => out.insert(path),
        Shape::Map(fields) => {
            for (name, value) in fields {
                path.push(Element::field(name));
                collect(field(schema, name), value, path, out);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if empty || !schema.is_some_and(|schema| schema.lists(name)) {
                    out.insert(path);
                }
                path.pop();
            }
        }
        Shape::List(list, elements) => {
            for (element, values) in by_element(list, elements) {
                path.push(element);
                if let [value] = values.as_slice() {
                    collect(items(list), value, path, out);
                }
                out.insert(path);
                path.pop();
            }
        }
    }
}

/// How two objects differ. No path is in more than one of the sets, but for elements that are or were there twice.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: Fields,
    pub(super) modified: Fields,
    pub(super) added: Fields,
}

impl Comparison {
    /// What is there in the new object and was not so before.
    pub(super) fn set(&self) -> Fields {
        self.modified.union(&self.added)
    }

    /// Of all three only what is at or below a field of the root, or all but that.
    pub(super) fn filter_root(&self, name: &str, keep: bool) -> Comparison {
        Comparison {
            removed: self.removed.filter_root(name, keep),
            modified: self.modified.filter_root(name, keep),
            added: self.added.filter_root(name, keep),
        }
    }
}

/// What became of `old` in `new`.
pub(super) fn compare(schema: Option<&Schema>, old: &Value, new: &Value) -> Comparison {
    let mut out = Comparison::default();
    both(schema, old, new, &mut Vec::new(), &mut out);
    out
}

fn both(schema: Option<&Schema>, old: &Value, new: &Value, path: &mut Vec<Element>, out: &mut Comparison) {
    if old == new {
        return;
    }
    match (shape(schema, old), shape(schema, new)) {
        (Shape::Map(before), Shape::Map(after)) => {
            for (name, old) in before {
                path.push(Element::field(name));
                match after.get(name) {
                    Some(new) => both(field(schema, name), old, new, path, out),
                    None => one(field(schema, name), old, path, &mut out.removed),
                }
                path.pop();
            }
            for (name, new) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
                path.push(Element::field(name));
                one(field(schema, name), new, path, &mut out.added);
                path.pop();
            }
        }
        (Shape::List(list, before), Shape::List(_, after)) => {
            let (mut before, after) = (by_element(list, before), by_element(list, after));
            for (element, new) in after {
                path.push(element.clone());
                let old = before.remove(&element).unwrap_or_default();
                match (old.as_slice(), new.as_slice()) {
                    ([old], [new]) => both(items(list), old, new, path, out),
                    ([], [new]) => one(items(list), new, path, &mut out.added),
                    ([], _) => out.added.insert(path),
                    ([old], _) => {
                        one(items(list), old, path, &mut out.removed);
                        out.added.insert(path);
                    }
                    (_, [new]) => {
                        one(items(list), new, path, &mut out.added);
                        out.removed.insert(path);
                    }
                    (old, new) => {
                        if old != new {
                            out.modified.insert(path);
                        }
                    }
                }
                path.pop();
            }
            for (element, old) in before {
                path.push(element);
                if let [old] = old.as_slice() {
                    one(items(list), old, path, &mut out.removed);
                } else {
                    out.removed.insert(path);
                }
                path.pop();
            }
        }
        (Shape::Null, Shape::Map(_) | Shape::List(..)) => children(schema, new, path, &mut out.added),
        (Shape::Map(_) | Shape::List(..), Shape::Null) => children(schema, old, path, &mut out.removed),
        _ => {
            out.modified.insert(path);
            children(schema, old, path, &mut out.removed);
            children(schema, new, path, &mut out.added);
        }
    }
}

/// `value` and all below it, where the other side has nothing.
fn one(schema: Option<&Schema>, value: &Value, path: &mut Vec<Element>, out: &mut Fields) {
    children(schema, value, path, out);
    out.insert(path);
}

fn children(schema: Option<&Schema>, value: &Value, path: &mut Vec<Element>, out: &mut Fields) {
    match shape(schema, value) {
        Shape::Leaf | Shape::Null => {}
        Shape::Map(fields) => {
            for (name, value) in fields {
                path.push(Element::field(name));
                one(field(schema, name), value, path, out);
                path.pop();
            }
        }
        Shape::List(list, elements) => {
            for (element, values) in by_element(list, elements) {
                path.push(element);
                match values.as_slice() {
                    [value] => one(items(list), value, path, out),
                    _ => out.insert(path),
                }
                path.pop();
            }
        }
    }
}

/// `config` laid over `live`.
pub(super) fn merge(schema: Option<&Schema>, live: &Value, config: &Value) -> Value {
    match (shape(schema, live), shape(schema, config)) {
        (Shape::Map(below), Shape::Map(above)) => {
            let mut out = below.clone();
            for (name, value) in above {
                let merged = match below.get(name) {
                    Some(live) => merge(field(schema, name), live, value),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Shape::List(list, below), Shape::List(_, above)) => Value::Array(merge_lists(list, below, above)),
        (Shape::Map(fields), Shape::Null) if !fields.is_empty() => live.clone(),
        (Shape::List(_, elements), Shape::Null) if !elements.is_empty() => live.clone(),
        _ => config.clone(),
    }
}

/// Elements of the live list that the configuration does not have stay before the shared ones they were before; shared
/// ones and new ones come in the configuration's order.
fn merge_lists(list: &Schema, live: &[Value], config: &[Value]) -> Vec<Value> {
    let told = |values: &[Value]| -> Vec<Option<Element>> {
        values
            .iter()
            .map(|value| Element::of_list(list, value).ok())
            .collect()
    };
    let (left, right) = (told(live), told(config));
    let (of_live, of_config) = (by_element(list, live), by_element(list, config));
    let merged = |element: &Option<Element>, value: &Value| {
        let live = element.as_ref().and_then(|element| of_live.get(element));
        match live.map(Vec::as_slice) {
            Some([live]) => merge(items(list), live, value),
            _ => value.clone(),
        }
    };
    let in_config = |element: &Option<Element>| element.as_ref().is_some_and(|e| of_config.contains_key(e));
    let is_shared = |element: &Option<Element>| element.as_ref().is_some_and(|e| of_live.contains_key(e));
    let mut shared = right.iter().filter(|element| is_shared(element)).peekable();
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut r) = (0, 0);
    while l < live.len() || r < config.len() {
        if let (Some(at_left), Some(at_right)) = (left.get(l), right.get(r)) {
            if at_left.is_some() && at_left == at_right {
                out.extend(config.get(r).map(|value| merged(at_right, value)));
                done.extend(at_right);
                shared.next();
                (l, r) = (l + 1, r + 1);
                continue;
            }
            if in_config(at_left) && shared.peek().is_some_and(|next| *next != at_left) {
                // Shared, but not the next one in the configuration's order.
                l += 1;
                continue;
            }
        }
        if let Some(at_left) = left.get(l) {
            if !in_config(at_left) {
                out.extend(live.get(l).cloned());
                l += 1;
                continue;
            }
            if at_left.as_ref().is_some_and(|element| done.contains(element)) {
                l += 1;
            }
        }
        if let (Some(at_right), Some(value)) = (right.get(r), config.get(r)) {
            out.push(merged(at_right, value));
            done.extend(at_right);
            if shared.peek().is_some_and(|next| *next == at_right) {
                shared.next();
            }
            r += 1;
        }
    }
    out
}

/// `value` without `fields`. What becomes empty by that becomes null, which is taken out of what it is in unless
/// `keep_emptied`.
pub(super) fn remove(schema: Option<&Schema>, value: &Value, fields: &Fields, keep_emptied: bool) -> Value {
    let left = |element: &Element, schema: Option<&Schema>, value: &Value| {
        if fields.has(element) {
            return None;
        }
        let Some(below) = fields.below(element) else {
            return Some(value.clone());
        };
        let left = remove(schema, value, below, keep_emptied);
        (keep_emptied || value.is_null() || !left.is_null()).then_some(left)
    };
    match shape(schema, value) {
        Shape::Map(map) if !map.is_empty() => {
            let kept = map.iter().filter_map(|(name, value)| {
                let kept = left(&Element::field(name), field(schema, name), value)?;
                Some((name.clone(), kept))
            });
            let kept: Map<String, Value> = kept.collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        Shape::List(list, elements) if !elements.is_empty() => {
            let kept = elements
                .iter()
                .filter_map(|value| match Element::of_list(list, value) {
                    Ok(element) => left(&element, items(list), value),
                    Err(_) => Some(value.clone()),
                });
            let kept: Vec<Value> = kept.collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
        _ => value.clone(),
    }
}

/// Most things that are told of one configuration.
const MAX_TOLD: usize = 20;

/// What keeps a configuration from being seen through the schema, in upstream's words.
pub(super) fn wrong(schema: &Schema, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    check(schema, value, &mut String::new(), &mut out);
    out.sort();
    out
}

fn check(schema: &Schema, value: &Value, path: &mut String, out: &mut Vec<String>) {
    if out.len() >= MAX_TOLD {
        return;
    }
    let mut told = |why: String| out.push(format!("{path}: {why}"));
    match (schema.kind, value) {
        (_, Value::Null) | (Type::Any | Type::IntOrString, _) if schema.properties.is_empty() => {}
        (Type::Integer | Type::Number, Value::Number(_))
        | (Type::String, Value::String(_))
        | (Type::Boolean, Value::Bool(_))
        | (_, Value::Null) => {}
        (Type::Integer | Type::Number, other) => {
            told(format!("expected numeric (int or float), got {}", go_type(other)));
        }
        (Type::String, other) => told(format!("expected string, got {}", go_pointer(other))),
        (Type::Boolean, other) => told(format!("expected boolean, got {}", go_pointer(other))),
        (Type::Array, Value::Array(elements)) => {
            let mut seen = BTreeSet::new();
            for (at, value) in elements.iter().enumerate() {
                let element = match (&schema.list, Element::of_list(schema, value)) {
                    (ListType::Atomic, _) => Element::Index(i64::try_from(at).unwrap_or(i64::MAX)),
                    (_, Ok(element)) => element,
                    (list, Err(why)) => {
                        // That a required key is missing is told as such later.
                        if !misses_required_key(schema, list, value) {
                            out.push(format!("{path}: element {at}: {why}"));
                        }
                        continue;
                    }
                };
                if !seen.insert(element.clone()) {
                    out.push(format!("{path}: duplicate entries for key {element}"));
                    continue;
                }
                if let Some(items) = items(schema) {
                    let end = path.len();
                    path.push_str(&element.to_string());
                    check(items, value, path, out);
                    path.truncate(end);
                }
            }
        }
        (Type::Array, other) => told(format!("expected list, got {}", go_pointer(other))),
        (_, Value::Object(fields)) => {
            for (name, value) in fields {
                let end = path.len();
                path.push('.');
                path.push_str(name);
                match schema.field(name) {
                    Some(field) => check(field, value, path, out),
                    None if schema.preserve_unknown || schema.kind == Type::Any => {}
                    None if out.len() < MAX_TOLD => out.push(format!("{path}: field not declared in schema")),
                    None => {}
                }
                path.truncate(end);
            }
        }
        (Type::Object, other) => told(format!("expected map, got {}", go_pointer(other))),
        (Type::Any | Type::IntOrString, _) => {}
    }
}

fn misses_required_key(schema: &Schema, list: &ListType, element: &Value) -> bool {
    let (ListType::Map(keys), Some(items)) = (list, items(schema)) else {
        return false;
    };
    element.is_object()
        && keys
            .iter()
            .any(|key| items.required.contains(key) && element.get(key).is_none())
}

/// As upstream shows a value it holds behind a pointer.
fn go_pointer(value: &Value) -> String {
    format!("&{{{}}}", go_value(value))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests;
