//! Values and functions of CEL as Kubernetes has them, where the library leaves them out or has them otherwise: names of
//! fields, formats, `type`, `optionalOldSelf`.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use kube_cel::KubeCelExt;
use kube_cel::cel::objects::{Key, Map, OptionalValue};
use kube_cel::cel::{Context, ExecutionError, Value as Cel};
use serde_json::Value;

use crate::schema::{Schema, Type};

/// All functions. `type(x)` gives the name of a type, and the names of types stand for themselves.
pub(super) fn context() -> Context<'static> {
    let mut context = Context::default().with_all();
    context.add_function("type", |value: Cel| Arc::new(type_name(&value).to_owned()));
    for name in [
        "int",
        "uint",
        "double",
        "bool",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
    ] {
        context.add_variable_from_value(name, name);
    }
    context
}

fn type_name(value: &Cel) -> &'static str {
    match value {
        Cel::List(_) => "list",
        Cel::Map(_) => "map",
        Cel::Int(_) => "int",
        Cel::UInt(_) => "uint",
        Cel::Float(_) => "double",
        Cel::String(_) => "string",
        Cel::Bytes(_) => "bytes",
        Cel::Bool(_) => "bool",
        Cel::Duration(_) => "google.protobuf.Duration",
        Cel::Timestamp(_) => "google.protobuf.Timestamp",
        Cel::Null => "null_type",
        _ => "dyn",
    }
}

/// `oldSelf` of a rule with `optionalOldSelf`.
pub(super) fn optional(value: Option<Cel>) -> Cel {
    Cel::Opaque(Arc::new(match value {
        Some(value) => OptionalValue::of(value),
        None => OptionalValue::none(),
    }))
}

/// An error in upstream's words, where it has some.
pub(super) fn told(error: &ExecutionError) -> String {
    match error {
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        other => other.to_string(),
    }
}

/// `value` as rules see it.
pub(super) fn value(schema: &Schema, value: &Value) -> Cel {
    convert(Some(schema), value)
}

fn convert(schema: Option<&Schema>, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match (number.as_i64(), schema.map(|schema| schema.kind)) {
            (Some(int), kind) if kind != Some(Type::Number) => Cel::Int(int),
            _ => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => {
            let format = schema.map_or("", |schema| schema.format.as_str());
            formatted(format, text).unwrap_or_else(|| text.as_str().into())
        }
        Value::Array(elements) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            Cel::List(Arc::new(
                elements.iter().map(|element| convert(items, element)).collect(),
            ))
        }
        Value::Object(fields) => {
            // Keys of maps are data: only names of fields are written as names.
            let map = schema.is_some_and(|schema| schema.additional.is_some());
            let each = fields.iter().map(|(name, value)| {
                let below = schema.and_then(|schema| schema.field(name)).map(AsRef::as_ref);
                let key = if map { name.clone() } else { field_name(name) };
                (Key::from(key), convert(below, value))
            });
            #[allow(
                clippy::disallowed_types,
                reason = "the library's type; its order is never seen"
            )]
            let map: HashMap<Key, Cel> = each.collect();
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

fn formatted(format: &str, text: &str) -> Option<Cel> {
    match format {
        "date-time" => DateTime::parse_from_rfc3339(text).ok().map(Cel::Timestamp),
        "duration" => duration(text).map(Cel::Duration),
        "byte" => base64(text).map(|bytes| Cel::Bytes(Arc::new(bytes))),
        _ => None,
    }
}

/// The name of a field in rules.
fn field_name(name: &str) -> String {
    const RESERVED: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let name = name.replace("__", "__underscores__").replace('.', "__dot__");
    name.replace('-', "__dash__").replace('/', "__slash__")
}

/// Go's duration, such as `1h30m`.
fn duration(text: &str) -> Option<TimeDelta> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(unit);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    let nanos = if negative { -nanos } else { nanos };
    #[allow(clippy::cast_possible_truncation, reason = "in range")]
    (nanos.abs() < 9e18).then(|| TimeDelta::nanoseconds(nanos as i64))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(digit)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields() {
        let cases = [
            ("a_b", "a_b"),
            ("a__b", "a__underscores__b"),
            ("a-b.c/d", "a__dash__b__dot__c__slash__d"),
            ("in", "__in__"),
        ];
        for (name, expected) in cases {
            assert_eq!(field_name(name), expected);
        }
    }

    #[test]
    fn formats() {
        assert_eq!(duration("1h30m"), Some(TimeDelta::minutes(90)));
        assert_eq!(duration("-1.5s"), Some(TimeDelta::milliseconds(-1500)));
        assert_eq!(duration("1 day"), None);
        assert_eq!(base64("aGVsbG8="), Some(b"hello".to_vec()));
        assert_eq!(base64("?"), None);
    }
}
