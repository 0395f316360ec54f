//! One shape of devices and models: what people write in the older one, in the one that is stored.
//!
//! [`device()`] and [`model()`] are functions of the object. What has no place in the stored shape is kept, as JSON, in the
//! annotation [`UNCONVERTED`]; nothing is lost. Applying the older manifest again gives the same object again: where both
//! shapes say something, the older one was written later, because what is stored has none of it.
//!
//! Reading order: [`device`](device()), [`model`](model()).

mod device;
mod model;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

pub(crate) use self::device::device;
pub(crate) use self::model::model;

/// Annotation: what of an object in the older shape has no place in the one that is stored.
pub const UNCONVERTED: &str = "devices.kubeedge.io/unconverted";
/// Longest annotation made: the API refuses objects whose annotations are much larger together.
const UNCONVERTED_MAX_BYTES: usize = 128 << 10;

/// An object in the shape that is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shaped {
    /// The object.
    pub(crate) object: Value,
    /// Whether it is another one than was given.
    pub(crate) changed: bool,
}

/// What is left over, as a tree with the places it had.
#[derive(Debug, Default)]
struct Leftover(Map<String, Value>);

impl Leftover {
    /// Keeps `value`, which was at `path`.
    fn keep(&mut self, path: &[&str], value: Value) {
        let Some((last, way)) = path.split_last() else {
            return;
        };
        let mut at = &mut self.0;
        for step in way {
            let next = at.entry(*step).or_insert_with(|| json!({}));
            if !next.is_object() {
                *next = json!({});
            }
            let Some(next) = next.as_object_mut() else { return };
            at = next;
        }
        at.insert((*last).to_owned(), value);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes what is left over into the object's annotation, beside what is there already. `false`: it is too large.
fn annotate(object: &mut Value, leftover: Leftover) -> bool {
    if leftover.is_empty() {
        return true;
    }
    let before = object["metadata"]["annotations"][UNCONVERTED].as_str();
    let mut kept: Map<String, Value> = before
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    overlay(&mut kept, leftover.0);
    let text = Value::Object(kept).to_string();
    if text.len() > UNCONVERTED_MAX_BYTES {
        return false;
    }
    object["metadata"]["annotations"][UNCONVERTED] = Value::String(text);
    true
}

/// Maps are joined, everything else is replaced.
fn overlay(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (Some(Value::Object(under)), Value::Object(over)) => overlay(under, over),
            (_, value) => {
                under.insert(name, value);
            }
        }
    }
}

/// The places whose content is in the annotation, such as `spec.data`.
pub(crate) fn unconverted(object: &Value) -> Vec<String> {
    let text = object["metadata"]["annotations"][UNCONVERTED].as_str();
    let kept: Option<Map<String, Value>> = text.and_then(|text| serde_json::from_str(text).ok());
    let mut places = Vec::new();
    for (first, rest) in kept.unwrap_or_default() {
        match rest {
            Value::Object(rest) => places.extend(rest.keys().map(|second| format!("{first}.{second}"))),
            _ => places.push(first),
        }
    }
    places
}

/// Takes the member out, if there is one that is not null.
fn take(map: &mut Map<String, Value>, name: &str) -> Option<Value> {
    map.remove(name).filter(|value| !value.is_null())
}

/// Takes the member out if it is a map.
fn take_map(map: &mut Map<String, Value>, name: &str) -> Option<Map<String, Value>> {
    if !map.get(name).is_some_and(Value::is_object) {
        return None;
    }
    match map.remove(name) {
        Some(Value::Object(inner)) => Some(inner),
        _ => None,
    }
}
