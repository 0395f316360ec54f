//! Putting default values where fields are absent.

use serde_json::Value;

use super::{MAX_DEPTH, Schema, Type};

/// Above it, floating point numbers skip integers.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// Puts defaults where fields are absent, or null without null being a value, and writes integers as such. Then nulls that are still not values are
/// taken out of objects, as upstream does when it stores them.
pub fn default(schema: &Schema, value: &mut Value) {
    put(schema, value, 0);
    drop_nulls(schema, value, 0);
}

fn put(schema: &Schema, value: &mut Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in &schema.properties {
                let Some(default) = &field.default else { continue };
                if fields.get(name).is_none_or(|value| misplaced_null(field, value)) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                let Some(field) = schema.field(name) else { continue };
                if !schema.lists(name) {
                    replace_null(field, value);
                }
                put(field, value, depth + 1);
            }
        }
        Value::Array(elements) => {
            let Some(items) = &schema.items else { return };
            for element in elements {
                replace_null(items, element);
                put(items, element, depth + 1);
            }
        }
        Value::Number(number)
            if number.is_f64() && matches!(schema.kind, Type::Integer | Type::IntOrString) =>
        {
            // `1.0` is an integer, which not every client reads as one.
            let whole = number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() < WHOLE);
            #[allow(clippy::cast_possible_truncation, reason = "whole and in range")]
            if let Some(float) = whole {
                *value = Value::from(float as i64);
            }
        }
        _ => {}
    }
}

fn misplaced_null(schema: &Schema, value: &Value) -> bool {
    value.is_null() && !schema.nullable
}

fn replace_null(schema: &Schema, value: &mut Value) {
    if misplaced_null(schema, value)
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
}

fn drop_nulls(schema: &Schema, value: &mut Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            let Some(field) = schema.field(name) else {
                return true;
            };
            if misplaced_null(field, value) {
                return false;
            }
            drop_nulls(field, value, depth + 1);
            true
        }),
        Value::Array(elements) => {
            let Some(items) = &schema.items else { return };
            for element in elements {
                drop_nulls(items, element, depth + 1);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_nulls() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object",
            "default": {"list": [{}]}, "properties": {
                "a": {"type": "integer", "default": 1},
                "n": {"type": "string", "nullable": true, "default": "x"},
                "d": {"type": "string", "default": "y"},
                "z": {"type": "string"}, "i": {"type": "integer"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "boolean", "default": true}}}},
                "map": {"type": "object", "additionalProperties": {"type": "string", "default": "m"}},
            }}}}))
        .unwrap();
        let mut value = json!({});
        default(&schema, &mut value);
        assert_eq!(
            value,
            json!({"spec": {"a": 1, "n": "x", "d": "y", "list": [{"b": true}]}})
        );
        let mut value = json!({"spec": {"a": 2, "n": null, "d": null, "z": null, "i": 3.0, "map": {"k": null, "l": "v"}}});
        default(&schema, &mut value);
        assert_eq!(
            value,
            json!({"spec": {"a": 2, "n": null, "d": "y", "i": 3, "map": {"k": "m", "l": "v"}}})
        );
    }
}
