//! Reaching into objects of unknown shape.

use serde_json::{Map, Value};

use crate::builtin::quantity;
use crate::schema::MAX_DEPTH;

/// The fields of an object.
pub(super) type Fields = Map<String, Value>;

/// Sets `name` where it is absent. For what upstream has as a pointer: zero is a value.
pub(super) fn put(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    if !fields.contains_key(name) {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Sets `name` where it is absent, empty or zero. For what upstream has as a plain value.
pub(super) fn put_nonzero(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    let zero = match fields.get(name) {
        None => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(_) => false,
    };
    if zero {
        fields.insert(name.to_owned(), value.into());
    }
}

/// The object in field `name`, made when it is absent; `None` when something else is there.
pub(super) fn made<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    fields
        .entry(name)
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
}

/// The object in field `name`, when there is one.
pub(super) fn inner<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    fields.get_mut(name)?.as_object_mut()
}

/// The object at the end of a path, when there is one.
pub(super) fn at<'a>(fields: &'a mut Fields, path: &[&str]) -> Option<&'a mut Fields> {
    path.iter().try_fold(fields, |fields, name| inner(fields, name))
}

/// The objects of the list in field `name`.
pub(super) fn each<'a>(fields: &'a mut Fields, name: &str) -> impl Iterator<Item = &'a mut Fields> {
    fields
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// The text in field `name`; empty when there is none.
pub(super) fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether nothing is in field `name`, or an empty list or map.
pub(super) fn is_empty(fields: &Fields, name: &str) -> bool {
    match fields.get(name) {
        None => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

/// Writes the quantity in field `name` in its canonical form. What is no quantity stays.
pub(super) fn canonical(fields: &mut Fields, name: &str) {
    if let Some(value) = fields.get_mut(name) {
        rewrite(value, quantity::canonical);
    }
}

/// Writes the quantities of the resource list in field `name` in their canonical form.
pub(super) fn canonical_list(fields: &mut Fields, name: &str) {
    let Some(list) = inner(fields, name) else { return };
    for value in list.values_mut() {
        rewrite(value, quantity::canonical_resource);
    }
}

/// Writes limits and requests in field `name` in their canonical form. The field is always there.
pub(super) fn requirements(fields: &mut Fields, name: &str) {
    if let Some(resources) = made(fields, name) {
        canonical_list(resources, "limits");
        canonical_list(resources, "requests");
    }
}

fn rewrite(value: &mut Value, canonical: fn(&str) -> Option<String>) {
    let kept = match value {
        Value::String(text) => canonical(text),
        Value::Number(number) => canonical(&number.to_string()),
        _ => None,
    };
    if let Some(kept) = kept {
        *value = kept.into();
    }
}

/// Takes out fields that are null: to the typed decoder of the API server they are absent.
pub(super) fn drop_nulls(fields: &mut Fields, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    fields.retain(|_, value| !value.is_null());
    for value in fields.values_mut() {
        drop_nulls_in(value, depth + 1);
    }
}

fn drop_nulls_in(value: &mut Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(fields) => drop_nulls(fields, depth),
        Value::Array(elements) => elements
            .iter_mut()
            .for_each(|value| drop_nulls_in(value, depth + 1)),
        _ => {}
    }
}
