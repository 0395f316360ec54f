//! What may be wrong with a field, in upstream's words (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::fmt::Write as _;

use serde_json::Value;

use crate::error::Cause;

/// Most causes that one check reports: the answer stays readable and bounded.
pub const MAX_CAUSES: usize = 100;
/// Longest value that is repeated in a message, bytes; of longer ones, the beginning.
const MAX_VALUE_BYTES: usize = 1024;

/// A field that must be there is not.
pub fn required(field: impl Into<String>, detail: &str) -> Cause {
    cause("FieldValueRequired", field, "Required value".to_owned(), detail)
}

/// A value that is not allowed; `value` is repeated.
pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
    cause("FieldValueInvalid", field, told("Invalid value", value), detail)
}

/// A value of the wrong type.
pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
    cause(
        "FieldValueTypeInvalid",
        field,
        told("Invalid value", value),
        detail,
    )
}

/// A value that is not one of `supported`.
pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[Value]) -> Cause {
    let supported: Vec<String> = supported
        .iter()
        .map(|value| match value {
            Value::String(text) => quote(text),
            other => quote(&other.to_string()),
        })
        .collect();
    let detail = if supported.is_empty() {
        String::new()
    } else {
        format!("supported values: {}", supported.join(", "))
    };
    cause(
        "FieldValueNotSupported",
        field,
        told("Unsupported value", value),
        &detail,
    )
}

/// CEL rules were not asked, because of what else is wrong.
pub(super) fn rules_not_checked() -> Cause {
    let why = "some validation rules were not checked because the object was invalid; correct the existing errors to \
               complete validation";
    invalid("<nil>", &Value::Null, why)
}

/// Something that may not be said here.
pub fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
    cause("FieldValueForbidden", field, "Forbidden".to_owned(), detail)
}

/// A value that may be there only once.
pub fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
    cause("FieldValueDuplicate", field, told("Duplicate value", value), "")
}

/// A text of more than `max` characters.
pub fn too_long(field: impl Into<String>, max: u64) -> Cause {
    let bytes = if max == 1 { "byte" } else { "bytes" };
    let detail = format!("may not be more than {max} {bytes}");
    cause("FieldValueTooLong", field, "Too long".to_owned(), &detail)
}

/// `count` elements, where at most `max` may be.
pub fn too_many(field: impl Into<String>, count: usize, max: u64) -> Cause {
    let items = if max == 1 { "item" } else { "items" };
    let detail = format!("must have at most {max} {items}");
    cause(
        "FieldValueTooMany",
        field,
        told("Too many", &count.into()),
        &detail,
    )
}

fn cause(reason: &'static str, field: impl Into<String>, mut message: String, detail: &str) -> Cause {
    if !detail.is_empty() {
        message.push_str(": ");
        message.push_str(detail);
    }
    Cause {
        reason,
        message,
        field: field.into(),
    }
}

fn told(what: &str, value: &Value) -> String {
    match value {
        Value::String(text) => format!("{what}: {}", quote(text)),
        Value::Number(number) => format!("{what}: {}", go_number(number)),
        other => {
            let text = other.to_string();
            format!("{what}: {}", shortened(&text))
        }
    }
}

fn shortened(text: &str) -> &str {
    if text.len() <= MAX_VALUE_BYTES {
        return text;
    }
    let end = (0..=MAX_VALUE_BYTES).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// A text in quotes as Go's `%q` writes it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in shortened(text).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => write!(out, "\\x{:02x}", u32::from(c)).unwrap_or_default(),
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A JSON value as Go's `%v` writes it, as upstream puts it into some messages.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => shortened(text).to_owned(),
        Value::Number(number) => go_number(number),
        Value::Bool(value) => value.to_string(),
        Value::Array(list) => {
            let each: Vec<String> = list.iter().map(go_value).collect();
            format!("[{}]", each.join(" "))
        }
        Value::Object(fields) => {
            let each: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}:{}", go_value(value)))
                .collect();
            format!("map[{}]", each.join(" "))
        }
    }
}

/// A number as Go's `%v` writes it.
fn go_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => go_float(value),
        _ => number.to_string(),
    }
}

/// A `float64` as Go's `%v` writes it: without exponent from 1e-4 to below 1e21.
pub fn go_float(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (1e-4..1e21).contains(&size) {
        return value.to_string();
    }
    // Rust writes `1e21` and `1e-5`, Go `1e+21` and `1e-05`.
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_go_writes_them() {
        assert_eq!(quote("a\"b\n\u{1}ü"), "\"a\\\"b\\n\\x01ü\"");
        assert_eq!(go_float(1.5), "1.5");
        assert_eq!(go_float(100.0), "100");
        assert_eq!(go_float(1e21), "1e+21");
        assert_eq!(go_float(0.000_01), "1e-05");
        assert_eq!(invalid("a", &json!(5), "x").message, "Invalid value: 5: x");
        assert_eq!(
            invalid("a", &json!({"b": 1}), "").message,
            "Invalid value: {\"b\":1}"
        );
        assert_eq!(
            too_many("a", 3, 1).message,
            "Too many: 3: must have at most 1 item"
        );
        assert_eq!(
            not_supported("a", &json!("x"), &[json!("A"), json!(2)]).message,
            "Unsupported value: \"x\": supported values: \"A\", \"2\""
        );
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let text = quote(&"ü".repeat(2000));
        assert_eq!(text.len(), MAX_VALUE_BYTES + 2);
    }
}
