//! JSON patch (RFC 6902), with what upstream's library makes of the corners: `replace` of an absent field adds it, `copy`
//! of an absent field puts null, and indices below zero count from the end.

use serde_json::{Map, Value};

use super::{bounded, does_not_apply, within};
use crate::error::{ApiError, Reason};
use crate::schema::MAX_DEPTH;

/// Most operations of one patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// Most bytes that the `copy` operations of one patch put into the object.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies a JSON patch: all of it or nothing.
///
/// # Errors
/// `BadRequest` for what is not a patch; `RequestEntityTooLarge` for more than [`MAX_OPERATIONS`]; `Invalid` for one that
/// does not fit the object.
pub fn json(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let operations = decode(patch)?;
    let mut out = object.clone();
    let mut copied = 0;
    for operation in operations {
        apply(&mut out, operation, &mut copied).map_err(does_not_apply)?;
    }
    bounded(out)
}

fn decode(patch: &Value) -> Result<Vec<&Map<String, Value>>, ApiError> {
    let refused = |value: &Value, target: &str| {
        let what = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        ApiError::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {what} into Go value of type {target}"
        ))
    };
    let Value::Array(operations) = patch else {
        return Err(refused(patch, "[]handlers.jsonPatchOp"));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                operations.len()
            ),
        ));
    }
    let each = operations.iter();
    each.map(|one| {
        one.as_object()
            .ok_or_else(|| refused(one, "handlers.jsonPatchOp"))
    })
    .collect()
}

fn apply(doc: &mut Value, operation: &Map<String, Value>, copied: &mut usize) -> Result<(), String> {
    let name = operation.get("op").and_then(Value::as_str).unwrap_or("unknown");
    let text = |key: &str| {
        let found = operation.get(key).and_then(Value::as_str);
        found.ok_or_else(|| format!("{name} operation failed to decode {key}: missing value"))
    };
    let value = || operation.get("value").cloned().unwrap_or_default();
    let missing = |what: &str, path: &str| {
        format!("{name} operation does not apply: doc is missing {what}: {path}: missing value")
    };
    match name {
        "add" => {
            let path = text("path")?;
            let (place, key) = find(doc, path).ok_or_else(|| missing("path", path))?;
            add(place, &key, path, value())
        }
        "remove" => {
            let path = text("path")?;
            let (place, key) = find(doc, path).ok_or_else(|| missing("path", path))?;
            remove(place, &key)
                .map(drop)
                .map_err(|why| format!("error in remove for path: '{path}': {why}"))
        }
        "replace" => {
            let path = text("path")?;
            if path.is_empty() {
                let value = value();
                if !(value.is_object() || value.is_array()) {
                    return Err("replace operation value must be object or array".to_owned());
                }
                *doc = value;
                return Ok(());
            }
            let (place, key) = find(doc, path).ok_or_else(|| missing("path", path))?;
            match place {
                Value::Object(fields) => {
                    fields.insert(key, shallow_enough(path, value())?);
                }
                place => {
                    let element = element(place, &key).map_err(|_| missing("key", path))?;
                    *element = shallow_enough(path, value())?;
                }
            }
            Ok(())
        }
        "move" => {
            let (from, path) = (text("from")?, text("path")?);
            let (place, key) = find(doc, from).ok_or_else(|| missing("from path", from))?;
            let value =
                remove(place, &key).map_err(|why| format!("error in move for path: '{from}': {why}"))?;
            let (place, key) = find(doc, path).ok_or_else(|| missing("destination path", path))?;
            add(place, &key, path, value)
        }
        "copy" => {
            let (from, path) = (text("from")?, text("path")?);
            let (place, key) = find(doc, from).ok_or_else(|| missing("from path", from))?;
            let value = match place {
                Value::Object(fields) => fields.get(&key).cloned().unwrap_or_default(),
                place => {
                    let found = element(place, &key);
                    found
                        .cloned()
                        .map_err(|why| format!("error in copy for from: '{from}': {why}"))?
                }
            };
            *copied += value.to_string().len();
            if *copied > MAX_COPIED_BYTES {
                return Err(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the \
                     limit {MAX_COPIED_BYTES}"
                ));
            }
            let (place, key) = find(doc, path).ok_or_else(|| missing("destination path", path))?;
            add(place, &key, path, value)
        }
        "test" => {
            let path = text("path")?;
            let failed = || format!("testing value {path} failed: test failed");
            if path.is_empty() {
                return if *doc == value() { Ok(()) } else { Err(failed()) };
            }
            let (place, key) = find(doc, path).ok_or_else(|| missing("path", path))?;
            let found = match place {
                Value::Object(fields) => fields.get(&key).unwrap_or(&Value::Null),
                place => {
                    element(place, &key).map_err(|why| format!("error in test for path: '{path}': {why}"))?
                }
            };
            if same(found, &value()) {
                Ok(())
            } else {
                Err(failed())
            }
        }
        other => Err(format!("Unexpected kind: {other}")),
    }
}

/// Equal as JSON: `1` is `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

/// The object or list that holds what `path` names, and the last name.
fn find<'a>(doc: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut names = path.strip_prefix('/')?.split('/').map(unescape);
    let mut place = doc;
    let mut name = names.next()?;
    for next in names {
        place = match place {
            Value::Object(fields) => fields.get_mut(&name)?,
            place => element(place, &name).ok()?,
        };
        name = next;
    }
    (place.is_object() || place.is_array()).then_some((place, name))
}

fn unescape(name: &str) -> String {
    if name.contains('~') {
        name.replace("~1", "/").replace("~0", "~")
    } else {
        name.to_owned()
    }
}

fn index(key: &str, length: usize) -> Result<usize, String> {
    let Ok(at) = key.parse::<i64>() else {
        return Err(format!(
            "strconv.Atoi: parsing {}: invalid syntax",
            crate::schema::cause::quote(key)
        ));
    };
    let counted = match usize::try_from(at) {
        Ok(at) => Some(at),
        Err(_) => usize::try_from(at.unsigned_abs())
            .ok()
            .and_then(|back| length.checked_sub(back)),
    };
    let counted = counted.filter(|at| *at < length);
    counted.ok_or_else(|| format!("Unable to access invalid index: {at}: invalid array index"))
}

fn element<'a>(place: &'a mut Value, key: &str) -> Result<&'a mut Value, String> {
    let elements = place.as_array_mut().ok_or("not a list")?;
    let at = index(key, elements.len())?;
    elements
        .get_mut(at)
        .ok_or_else(|| "invalid array index".to_owned())
}

fn add(place: &mut Value, key: &str, path: &str, value: Value) -> Result<(), String> {
    let value = shallow_enough(path, value)?;
    match place {
        Value::Object(fields) => {
            fields.insert(key.to_owned(), value);
        }
        Value::Array(elements) if key == "-" => elements.push(value),
        Value::Array(elements) => {
            let at = index(key, elements.len() + 1);
            let at = at.map_err(|why| format!("error in add for path: '{path}': {why}"))?;
            elements.insert(at, value);
        }
        _ => return Err(format!("error in add for path: '{path}': not a list")),
    }
    Ok(())
}

fn remove(place: &mut Value, key: &str) -> Result<Value, String> {
    match place {
        Value::Object(fields) => {
            let removed = fields.remove(key);
            removed.ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value"))
        }
        Value::Array(elements) => {
            let at = index(key, elements.len())?;
            Ok(elements.remove(at))
        }
        _ => Err("not a list".to_owned()),
    }
}

/// Refuses `value` where it would make the object deeper than can be read back, before it is so deep that looking at it
/// is a danger.
fn shallow_enough(path: &str, value: Value) -> Result<Value, String> {
    let depth = path.matches('/').count();
    match MAX_DEPTH.checked_sub(depth) {
        Some(left) if within(&value, left) => Ok(value),
        _ => Err("the object would be nested too deeply".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::arbitrary;
    use super::*;

    fn why(object: &Value, patch: &Value) -> String {
        let error = json(object, patch).unwrap_err();
        assert_eq!(error.reason, Reason::Invalid);
        assert_eq!(
            error.message,
            "the server rejected our request due to an error in our request"
        );
        error.details.unwrap().causes[0].message.clone()
    }

    #[test]
    fn operations() {
        let object = json!({"a": {"b": 1}, "l": [1, 2]});
        let cases = [
            (
                json!([{"op": "add", "path": "/a/c", "value": 2}]),
                json!({"a": {"b": 1, "c": 2}, "l": [1, 2]}),
            ),
            (
                json!([{"op": "add", "path": "/l/1", "value": 9}]),
                json!({"a": {"b": 1}, "l": [1, 9, 2]}),
            ),
            (
                json!([{"op": "add", "path": "/l/-", "value": 9}]),
                json!({"a": {"b": 1}, "l": [1, 2, 9]}),
            ),
            (
                json!([{"op": "add", "path": "/l/-1", "value": 9}]),
                json!({"a": {"b": 1}, "l": [1, 2, 9]}),
            ),
            (
                json!([{"op": "remove", "path": "/a/b"}]),
                json!({"a": {}, "l": [1, 2]}),
            ),
            (
                json!([{"op": "remove", "path": "/l/0"}]),
                json!({"a": {"b": 1}, "l": [2]}),
            ),
            (
                json!([{"op": "replace", "path": "/a/new", "value": 2}]),
                json!({"a": {"b": 1, "new": 2}, "l": [1, 2]}),
            ),
            (
                json!([{"op": "move", "from": "/a/b", "path": "/m"}]),
                json!({"a": {}, "l": [1, 2], "m": 1}),
            ),
            (
                json!([{"op": "copy", "from": "/l", "path": "/a/b"}]),
                json!({"a": {"b": [1, 2]}, "l": [1, 2]}),
            ),
            (
                json!([{"op": "copy", "from": "/a/x", "path": "/m"}]),
                json!({"a": {"b": 1}, "l": [1, 2], "m": null}),
            ),
            (
                json!([{"op": "test", "path": "/a/b", "value": 1.0}]),
                object.clone(),
            ),
            (
                json!([{"op": "test", "path": "/a/x", "value": null}]),
                object.clone(),
            ),
            (
                json!([{"op": "add", "path": "/a~1b~0", "value": 1}]),
                json!({"a": {"b": 1}, "l": [1, 2], "a/b~": 1}),
            ),
        ];
        for (patch, expected) in cases {
            assert_eq!(json(&object, &patch).unwrap(), expected, "{patch}");
        }
    }

    #[test]
    fn what_does_not_fit() {
        let object = json!({"a": {"b": 1}, "l": [1, 2]});
        let cases = [
            (
                json!([{"op": "test", "path": "/a/b", "value": 2}]),
                "testing value /a/b failed: test failed",
            ),
            (
                json!([{"op": "remove", "path": "/a/x"}]),
                "error in remove for path: '/a/x': Unable to remove nonexistent key: x: missing value",
            ),
            (
                json!([{"op": "add", "path": "/x/y/z", "value": 1}]),
                "add operation does not apply: doc is missing path: /x/y/z: missing value",
            ),
            (
                json!([{"op": "replace", "path": "/l/2", "value": 1}]),
                "replace operation does not apply: doc is missing key: /l/2: missing value",
            ),
            (
                json!([{"op": "remove", "path": "/l/-3"}]),
                "error in remove for path: '/l/-3': Unable to access invalid index: -3: invalid array index",
            ),
            (json!([{"op": "foo", "path": "/a"}]), "Unexpected kind: foo"),
            (
                json!([{"op": "add", "value": 1}]),
                "add operation failed to decode path: missing value",
            ),
        ];
        for (patch, expected) in cases {
            assert_eq!(why(&object, &patch), expected, "{patch}");
        }
    }

    #[test]
    fn what_is_not_a_patch() {
        let error = json(&json!({}), &json!({})).unwrap_err();
        assert_eq!(
            error.message,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        );
        let many = vec![json!({"op": "test", "path": "", "value": {}}); MAX_OPERATIONS + 1];
        let error = json(&json!({}), &many.into()).unwrap_err();
        assert_eq!(error.reason, Reason::RequestEntityTooLarge);
    }

    #[test]
    fn copies_cannot_blow_up() {
        let mut patch = vec![json!({"op": "add", "path": "/a", "value": "x".repeat(1000)})];
        for _ in 0..40 {
            patch.push(json!({"op": "copy", "from": "", "path": "/a"}));
        }
        assert!(why(&json!({}), &patch.into()).contains("missing from path"));
        let mut patch = vec![json!({"op": "add", "path": "/l", "value": [["x".repeat(1000)]]})];
        for _ in 0..40 {
            patch.push(json!({"op": "copy", "from": "/l", "path": "/l/-"}));
        }
        let why = why(&json!({}), &patch.into());
        assert!(why.starts_with("Unable to complete the copy"), "{why}");
    }

    #[test]
    fn patches_cannot_nest_without_end() {
        let mut patch = vec![json!({"op": "add", "path": "/a", "value": {}})];
        for _ in 0..5000 {
            patch.push(json!({"op": "copy", "from": "/a", "path": "/b"}));
            patch.push(json!({"op": "add", "path": "/a", "value": {}}));
            patch.push(json!({"op": "move", "from": "/b", "path": "/a/b"}));
        }
        patch.truncate(MAX_OPERATIONS);
        assert_eq!(
            why(&json!({}), &patch.into()),
            "the object would be nested too deeply"
        );
    }

    proptest! {
        #[test]
        fn patches_lead_where_the_reference_says(from in arbitrary::object(), to in arbitrary::object()) {
            let patch = serde_json::to_value(json_patch::diff(&from, &to)).unwrap();
            prop_assert_eq!(json(&from, &patch).unwrap(), to);
        }
    }
}
