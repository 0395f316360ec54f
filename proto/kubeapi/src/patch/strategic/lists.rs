//! Lists of a strategic merge patch. Elements are told apart by their merge key, scalars by themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{DIRECTIVE, bad, go_map, unknown_directive};
use crate::error::ApiError;
use crate::schema::cause::go_value;

/// What tells elements apart; `None` for an object without its key.
fn identity(value: &Value, key: Option<&str>) -> Option<String> {
    match (value, key) {
        (Value::Object(fields), Some(key)) => fields.get(key).map(Value::to_string),
        (value, _) => Some(value.to_string()),
    }
}

fn places(list: &[Value], key: Option<&str>) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for (at, value) in list.iter().enumerate() {
        if let Some(identity) = identity(value, key) {
            out.entry(identity).or_insert(at);
        }
    }
    out
}

/// `before` without `values`.
pub(super) fn delete(before: Vec<Value>, values: &[Value]) -> Vec<Value> {
    let values: BTreeSet<String> = values.iter().map(Value::to_string).collect();
    before
        .into_iter()
        .filter(|value| !values.contains(&value.to_string()))
        .collect()
}

/// Scalars of both, each once. Those of the change are in its order, the others where they were.
pub(super) fn union(before: Vec<Value>, change: Vec<Value>) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let both = before.iter().chain(&change).cloned();
    let merged = both.filter(|value| seen.insert(value.to_string())).collect();
    sort(merged, &change, &before, None)
}

/// Merges elements of `change` into those of `before` with the same value of `key`.
pub(super) fn merge(
    before: Vec<Value>,
    change: Vec<Value>,
    key: &str,
    merge: impl Fn(Map<String, Value>, Map<String, Value>) -> Result<Map<String, Value>, ApiError>,
) -> Result<Vec<Value>, ApiError> {
    let no_key = |fields: &Map<String, Value>| {
        bad(format!(
            "map: {} does not contain declared merge key: {key}",
            go_map(fields)
        ))
    };
    let mut deleted = BTreeSet::new();
    let mut changes = Vec::new();
    let mut replace = false;
    for value in change {
        let Value::Object(fields) = value else { continue };
        let named = fields.get(key).map(Value::to_string);
        match fields
            .get(DIRECTIVE)
            .map(|directive| (directive, directive.as_str()))
        {
            None => {
                let named = named.ok_or_else(|| no_key(&fields))?;
                changes.push((named, fields));
            }
            Some((_, Some("delete"))) => {
                deleted.insert(named.ok_or_else(|| no_key(&fields))?);
            }
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("merge"))) => {
                return Err(bad("merging lists cannot yet be specified in the patch"));
            }
            Some((directive, _)) => return Err(unknown_directive(directive, &fields)),
        }
    }
    if replace {
        return Ok(changes
            .into_iter()
            .map(|(_, fields)| Value::Object(fields))
            .collect());
    }
    let stays = |value: &Value| identity(value, Some(key)).is_none_or(|named| !deleted.contains(&named));
    let mut out: Vec<Value> = before.into_iter().filter(stays).collect();
    let mut at = places(&out, Some(key));
    for (named, fields) in changes {
        match at.get(&named).and_then(|at| out.get_mut(*at)) {
            Some(place) => {
                if let Value::Object(before) = place.take() {
                    *place = Value::Object(merge(before, fields)?);
                }
            }
            None => {
                at.insert(named, out.len());
                out.push(Value::Object(fields));
            }
        }
    }
    Ok(out)
}

/// Whether the elements of `change` come in the order that `order` gives, and none is missing there.
pub(super) fn agrees(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), ApiError> {
    let places = places(order, key);
    let deletes = |value: &Value| value.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
    let named = change
        .iter()
        .filter(|value| !deletes(value) && value.get(DIRECTIVE).is_none());
    let mut last = None;
    for value in named {
        let at = identity(value, key).and_then(|named| places.get(&named).copied());
        let Some(at) = at.filter(|at| last.is_none_or(|last| last <= *at)) else {
            return Err(bad(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_value(&change.to_vec().into()),
                go_value(&order.to_vec().into())
            )));
        };
        last = Some(at);
    }
    Ok(())
}

/// Elements that `order` names come in its order; between them, the others stay as they were towards their neighbours in
/// `before`.
pub(super) fn sort(merged: Vec<Value>, order: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let (wanted, were) = (places(order, key), places(before, key));
    let place = |value: &Value, places: &BTreeMap<String, usize>| {
        identity(value, key).and_then(|named| places.get(&named).copied())
    };
    let is_named = |value: &Value| place(value, &wanted).is_some();
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(is_named);
    named.sort_by_key(|value| place(value, &wanted));
    others.sort_by_key(|value| place(value, &were).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (Some(other), Some(named)) => match (place(other, &were), place(named, &were)) {
                (Some(other), Some(named)) => other < named,
                _ => false,
            },
            (Some(_), None) => true,
            (None, _) => false,
        };
        match if other_first { others.next() } else { named.next() } {
            Some(value) => out.push(value),
            None => return out,
        }
    }
}
