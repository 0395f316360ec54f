//! Strategic merge patch, driven by the schema: lists are merged by key where their schema says so.
//!
//! Source: `k8s.io/apimachinery/pkg/util/strategicpatch`.

mod lists;

use serde_json::{Map, Value};

use super::{bounded, not_an_object};
use crate::error::ApiError;
use crate::schema::{MAX_DEPTH, PatchStrategy, Schema, cause::go_value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch. Objects are merged field by field, null takes a field away, lists are merged or
/// replaced as their schema says. Directives: `$patch` (`replace`, `delete`, `merge`), `$retainKeys`,
/// `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`.
///
/// # Errors
/// `BadRequest` for directives and shapes that make no sense; `Invalid` for a result nested deeper than the API can hold.
pub fn strategic(schema: &Schema, object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let (Value::Object(original), Value::Object(patch)) = (object, patch) else {
        return Err(not_an_object("", patch));
    };
    let merged = map(Some(schema), original.clone(), patch.clone(), 0)?;
    bounded(Value::Object(merged))
}

fn bad(why: impl Into<String>) -> ApiError {
    ApiError::bad_request(why)
}

fn map(
    schema: Option<&Schema>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    depth: usize,
) -> Result<Map<String, Value>, ApiError> {
    if depth > MAX_DEPTH {
        return Err(bad("the patch is nested too deeply"));
    }
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                match plain(Value::Object(patch), depth) {
                    Some(Value::Object(fields)) => Ok(fields),
                    _ => Ok(Map::new()),
                }
            }
            Some("delete") => Ok(Map::new()),
            // Upstream refuses it here too, though its documentation has it: it says what is done anyway.
            Some("merge") => {
                patch.remove(DIRECTIVE);
                map(schema, original, patch, depth)
            }
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    ordered_lists(schema, &mut original, &mut patch, depth)?;
    for (name, value) in patch {
        let (name, deleting) = match name.strip_prefix(DELETE_FROM) {
            Some(list) => (list.to_owned(), true),
            None => (name, false),
        };
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let field = schema.and_then(|schema| schema.field(&name)).map(AsRef::as_ref);
        let merged = match (original.remove(&name), value) {
            (Some(before), Value::Array(values)) if deleting => match before {
                Value::Array(before) => Some(lists::delete(before, &values).into()),
                _ => return Err(bad("invalid patch format of primitive list")),
            },
            (before, _) if deleting => before,
            (Some(Value::Object(before)), Value::Object(value)) => {
                Some(map(field, before, value, depth + 1)?.into())
            }
            (Some(Value::Array(before)), Value::Array(value)) => {
                Some(list(field, &name, before, value, depth + 1)?.into())
            }
            (_, value) => plain(value, depth + 1),
        };
        if let Some(merged) = merged {
            original.insert(name, merged);
        }
    }
    Ok(original)
}

/// Go's `%v` of a map, as upstream puts it into messages.
fn go_map(fields: &Map<String, Value>) -> String {
    go_value(&Value::Object(fields.clone()))
}

fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> ApiError {
    let name = directive
        .as_str()
        .map_or_else(|| directive.to_string(), str::to_owned);
    bad(format!("unknown patch type: {name} in map: {}", go_map(patch)))
}

/// `$retainKeys`: of the original, only the keys named stay; the patch may speak of no other.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), ApiError> {
    let Some(retain) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let wrong = || bad("invalid patch format of retainKeys");
    let retain = retain.as_array().ok_or_else(wrong)?;
    let retained = |name: &str| retain.iter().any(|key| key == name);
    let speaks = |(name, value): (&String, &Value)| {
        !value.is_null() && !name.starts_with(DELETE_FROM) && !name.starts_with(SET_ORDER)
    };
    if patch
        .iter()
        .filter(|field| speaks(*field))
        .any(|(name, _)| !retained(name))
    {
        return Err(wrong());
    }
    original.retain(|name, _| retained(name));
    Ok(())
}

/// `$setElementOrder/LIST`, together with the list it is about.
fn ordered_lists(
    schema: Option<&Schema>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ApiError> {
    let named: Vec<String> = patch
        .keys()
        .filter(|name| name.starts_with(SET_ORDER))
        .cloned()
        .collect();
    for directive in named {
        let wrong = || bad("invalid patch format of setElementOrder list");
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(wrong());
        };
        let name = directive.strip_prefix(SET_ORDER).unwrap_or_default();
        let field = schema.and_then(|schema| schema.field(name)).map(AsRef::as_ref);
        let key = merge_key(field);
        let before = match original.get(name) {
            None => None,
            Some(Value::Array(list)) => Some(list.clone()),
            Some(_) => return Err(wrong()),
        };
        let change = match patch.remove(name) {
            None => None,
            Some(Value::Array(list)) => Some(list),
            Some(other) => {
                // Null: the list goes away, whatever its order.
                patch.insert(name.to_owned(), other);
                continue;
            }
        };
        if let Some(change) = &change {
            lists::agrees(change, &order, key)?;
        }
        let merged = match (&before, change) {
            (None, None) => continue,
            (Some(before), None) => before.clone(),
            (None, Some(change)) => match plain(Value::Array(change), depth + 1) {
                Some(Value::Array(list)) => list,
                _ => continue,
            },
            (Some(before), Some(change)) => list(field, name, before.clone(), change, depth + 1)?,
        };
        let sorted = lists::sort(merged, &order, before.as_deref().unwrap_or_default(), key);
        original.insert(name.to_owned(), sorted.into());
    }
    Ok(())
}

fn merge_key(field: Option<&Schema>) -> Option<&str> {
    match field.map(|field| &field.patch) {
        Some(PatchStrategy::Merge { key, .. }) => key.as_deref(),
        _ => None,
    }
}

fn list(
    field: Option<&Schema>,
    name: &str,
    before: Vec<Value>,
    change: Vec<Value>,
    depth: usize,
) -> Result<Vec<Value>, ApiError> {
    let Some(Schema {
        patch: PatchStrategy::Merge { key, .. },
        items,
        ..
    }) = field
    else {
        return Ok(change);
    };
    if before.iter().chain(&change).any(Value::is_array) {
        return Err(super::does_not_apply(
            "lists of lists are not supported".to_owned(),
        ));
    }
    let objects = before
        .iter()
        .chain(&change)
        .filter(|value| value.is_object())
        .count();
    if objects == 0 {
        return Ok(lists::union(before, change));
    }
    if objects != before.len() + change.len() {
        return Err(bad("list element types are not identical"));
    }
    let Some(key) = key else {
        return Err(bad(format!("cannot merge lists without merge key for {name}")));
    };
    let order = change.clone();
    let merge = |before, change| map(items.as_deref(), before, change, depth);
    let server_order = before.clone();
    let merged = lists::merge(before, change, key, merge)?;
    let merged = merged
        .into_iter()
        .filter_map(|value| plain(value, depth))
        .collect();
    Ok(lists::sort(merged, &order, &server_order, Some(key)))
}

/// A value of the patch that meets nothing in the original: itself, without directives and nulls in objects. `None` when
/// it only says what to delete.
fn plain(value: Value, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return Some(value);
    }
    match value {
        Value::Object(fields) => {
            if fields.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                return None;
            }
            let kept = fields.into_iter().filter(|(name, value)| {
                !(value.is_null()
                    || name == DIRECTIVE
                    || name == RETAIN_KEYS
                    || name.starts_with(SET_ORDER)
                    || name.starts_with(DELETE_FROM))
            });
            let kept = kept.filter_map(|(name, value)| Some((name, plain(value, depth + 1)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(elements) => {
            let kept = elements.into_iter().filter_map(|value| plain(value, depth + 1));
            Some(Value::Array(kept.collect()))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests;
