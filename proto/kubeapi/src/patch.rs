//! Patches: a new object from an old one and a document that says what changes. Server-side apply, which also keeps
//! account of who says it, is in [`crate::apply`].

mod json;
mod strategic;

use serde_json::{Map, Value};

pub use json::{MAX_OPERATIONS, json};
pub use strategic::strategic;

use crate::error::{ApiError, Cause, Details, Reason};
use crate::schema::{MAX_DEPTH, cause};

/// Applies a JSON merge patch (RFC 7386): null takes a field away, objects are merged, all else is replaced.
///
/// # Errors
/// `BadRequest` for a patch that is not an object; `Invalid` for a result nested deeper than the API can hold.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    if !patch.is_object() {
        return Err(not_an_object("error decoding patch: ", patch));
    }
    let mut out = object.clone();
    merge_into(&mut out, patch, 0);
    bounded(out)
}

fn merge_into(target: &mut Value, patch: &Value, depth: usize) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if depth > MAX_DEPTH {
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                merge_into(
                    target.entry(name.clone()).or_insert(Value::Null),
                    value,
                    depth + 1,
                );
            }
        }
    }
}

/// A patch that is not of the shape its kind asks for.
fn not_an_object(before: &str, patch: &Value) -> ApiError {
    let what = go_type(patch);
    ApiError::bad_request(format!(
        "{before}json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
    ))
}

/// Whether what a patch left is still an object: a JSON patch may replace all of it.
///
/// # Errors
/// `Invalid`, as upstream says that it cannot decode it.
pub fn check_object(patched: &Value) -> Result<(), ApiError> {
    if patched.is_object() {
        return Ok(());
    }
    Err(invalid(
        &patched.to_string(),
        &format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            go_type(patched)
        ),
    ))
}

/// 422 of a patch, or of what it leaves, with the beginning of it.
pub(crate) fn invalid(shown: &str, why: &str) -> ApiError {
    let cause = cause::invalid("patch", &shown.into(), why);
    ApiError::invalid("", "", "", vec![cause])
}

/// What Go calls the type of a JSON value.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A patch that does not fit the object. The message is upstream's, which says nothing of the reason: that is in a cause.
fn does_not_apply(why: String) -> ApiError {
    let mut error = ApiError::new(
        Reason::Invalid,
        "the server rejected our request due to an error in our request",
    );
    error.details = Some(Box::new(Details {
        causes: vec![Cause {
            reason: "UnexpectedServerResponse",
            message: why,
            field: String::new(),
        }],
        ..Details::default()
    }));
    error
}

/// Refuses what could not be read back.
fn bounded(value: Value) -> Result<Value, ApiError> {
    if within(&value, MAX_DEPTH) {
        Ok(value)
    } else {
        Err(does_not_apply("the object would be nested too deeply".to_owned()))
    }
}

/// Whether `value` has at most `depth` levels of objects and lists.
fn within(value: &Value, depth: usize) -> bool {
    let below = |value: &Value| depth > 0 && within(value, depth - 1);
    match value {
        Value::Object(fields) => depth > 0 && fields.values().all(below),
        Value::Array(elements) => depth > 0 && elements.iter().all(below),
        _ => true,
    }
}

#[cfg(test)]
mod arbitrary;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patches() {
        // The cases of RFC 7386, appendix A, whose patches are objects.
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ];
        for (object, patch, expected) in cases {
            assert_eq!(merge(&object, &patch).unwrap(), expected, "{object} {patch}");
        }
        let error = merge(&json!({}), &json!([])).unwrap_err();
        assert_eq!(
            error.message,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
    }

    proptest! {
        #[test]
        fn merge_patches_are_those_of_the_reference(object in arbitrary::object(), patch in arbitrary::object()) {
            let mut expected = object.clone();
            json_patch::merge(&mut expected, &patch);
            let merged = merge(&object, &patch).unwrap();
            prop_assert_eq!(&merged, &expected);
            // Once more changes nothing.
            prop_assert_eq!(merge(&merged, &patch).unwrap(), expected);
        }
    }
}
