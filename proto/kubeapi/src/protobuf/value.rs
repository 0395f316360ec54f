//! Messages as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use serde_json::{Map, Number, Value};

use super::DecodeError;
use super::table::{Described, Kind, Shape, Table};
use super::wire::{Content, Field, Fields, varint};

/// Decodes a message; at most `depth` messages may stand within each other.
pub(super) fn message(
    table: &Table,
    message: usize,
    bytes: &[u8],
    depth: usize,
) -> Result<Value, DecodeError> {
    let mut out = Map::new();
    merge(table, message, bytes, depth, &mut out)?;
    Ok(Value::Object(out))
}

/// Decodes a message over what was there of it already: a message may come in parts.
fn merge(
    table: &Table,
    message: usize,
    bytes: &[u8],
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::Depth)?;
    let described = table.fields(message);
    for field in Fields::new(bytes) {
        let field = field?;
        // What a later version of Kubernetes added is passed over, as unknown fields are.
        let Ok(at) = described.binary_search_by_key(&field.number, |described| described.number) else {
            continue;
        };
        let Some(described) = described.get(at) else {
            continue;
        };
        take(table, described, &field, depth, out)?;
    }
    Ok(())
}

fn take(
    table: &Table,
    described: &Described,
    field: &Field<'_>,
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), DecodeError> {
    let Described { name, kind, .. } = described;
    match (described.shape, *kind) {
        (Shape::One, Kind::Message(message)) if described.inline => {
            merge(table, message, field.bytes(name)?, depth, out)
        }
        (Shape::One, Kind::Message(message)) => {
            let there = out
                .entry(name.as_str())
                .or_insert_with(|| Value::Object(Map::new()));
            match there {
                Value::Object(there) => merge(table, message, field.bytes(name)?, depth, there),
                _ => Err(DecodeError::Content(name.clone())),
            }
        }
        (Shape::One, kind) => {
            let value = one(table, kind, name, field, depth)?;
            if value.is_null() || (described.drop_zero && is_zero(&value)) {
                out.remove(name);
            } else {
                out.insert(name.clone(), value);
            }
            Ok(())
        }
        (Shape::List, kind) => {
            let there = out
                .entry(name.as_str())
                .or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(there) = there else {
                return Err(DecodeError::Content(name.clone()));
            };
            match (kind, field.content) {
                // Numbers may stand together in one field.
                (Kind::Int, Content::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        there.push(int(varint(&mut packed)?));
                    }
                }
                _ => there.push(one(table, kind, name, field, depth)?),
            }
            Ok(())
        }
        (Shape::Map, kind) => {
            let there = out
                .entry(name.as_str())
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(there) = there else {
                return Err(DecodeError::Content(name.clone()));
            };
            let mut key = String::new();
            let mut value = None;
            for field in Fields::new(field.bytes(name)?) {
                let field = field?;
                match field.number {
                    1 => key = field.text(name)?.to_owned(),
                    2 => value = Some(one(table, kind, name, &field, depth)?),
                    _ => {}
                }
            }
            there.insert(key, value.unwrap_or_else(|| zero(kind)));
            Ok(())
        }
    }
}

fn one(table: &Table, kind: Kind, name: &str, field: &Field<'_>, depth: usize) -> Result<Value, DecodeError> {
    let content = || DecodeError::Content(name.to_owned());
    Ok(match kind {
        Kind::Text => field.text(name)?.into(),
        Kind::Bytes => STANDARD.encode(field.bytes(name)?).into(),
        Kind::Int => int(field.varint(name)?),
        Kind::Bool => (field.varint(name)? != 0).into(),
        Kind::Double => match field.content {
            Content::Fixed64(bits) => {
                let number = Number::from_f64(f64::from_bits(bits));
                number.map(Value::Number).ok_or_else(content)?
            }
            _ => return Err(field.wrong(name)),
        },
        Kind::Time | Kind::MicroTime => time(kind, name, field.bytes(name)?)?,
        Kind::Duration => {
            let nanos = first(field.bytes(name)?, 1)?.map(|field| field.varint(name));
            let nanos = nanos.transpose()?.unwrap_or(0);
            go_duration(nanos.cast_signed()).into()
        }
        Kind::Quantity => {
            let text = first(field.bytes(name)?, 1)?.map(|field| field.text(name));
            text.transpose()?.unwrap_or("0").into()
        }
        Kind::IntOrString => int_or_string(name, field.bytes(name)?)?,
        Kind::Json => {
            let raw = first(field.bytes(name)?, 1)?.map(|field| field.bytes(name));
            match raw.transpose()? {
                None | Some([]) => Value::Null,
                Some(raw) => json(raw, name)?,
            }
        }
        Kind::Texts => {
            let mut list = Vec::new();
            for field in Fields::new(field.bytes(name)?) {
                let field = field?;
                if field.number == 1 {
                    list.push(field.text(name)?.into());
                }
            }
            Value::Array(list)
        }
        Kind::SchemaOrBool | Kind::SchemaOrArray | Kind::SchemaOrTexts => {
            schema_or(table, kind, name, field.bytes(name)?, depth)?
        }
        Kind::Message(of) => message(table, of, field.bytes(name)?, depth)?,
    })
}

/// JSON that stands in a field as it is.
pub(super) fn json(raw: &[u8], name: &str) -> Result<Value, DecodeError> {
    serde_json::from_slice(raw).map_err(|_| DecodeError::Content(name.to_owned()))
}

/// Numbers below zero are sent as 64 bits, whatever their type.
fn int(value: u64) -> Value {
    value.cast_signed().into()
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        _ => false,
    }
}

fn zero(kind: Kind) -> Value {
    match kind {
        Kind::Int | Kind::Double => 0.into(),
        Kind::Bool => false.into(),
        Kind::Quantity => "0".into(),
        Kind::Texts => Value::Array(Vec::new()),
        Kind::Message(_) => Value::Object(Map::new()),
        _ => "".into(),
    }
}

/// The last field of that number.
fn first(bytes: &[u8], number: u32) -> Result<Option<Field<'_>>, DecodeError> {
    let mut found = None;
    for field in Fields::new(bytes) {
        let field = field?;
        if field.number == number {
            found = Some(field);
        }
    }
    Ok(found)
}

/// Seconds and nanoseconds since 1970; both zero is no time at all.
fn time(kind: Kind, name: &str, bytes: &[u8]) -> Result<Value, DecodeError> {
    let number = |number| -> Result<i64, DecodeError> {
        let field = first(bytes, number)?.map(|field| field.varint(name));
        Ok(field.transpose()?.unwrap_or(0).cast_signed())
    };
    let (seconds, nanos) = (number(1)?, number(2)?);
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let nanos = u32::try_from(nanos).ok();
    let time = nanos.and_then(|nanos| DateTime::from_timestamp(seconds, nanos));
    let time = time.ok_or_else(|| DecodeError::Content(name.to_owned()))?;
    let format = if kind == Kind::Time {
        "%Y-%m-%dT%H:%M:%SZ"
    } else {
        "%Y-%m-%dT%H:%M:%S%.6fZ"
    };
    Ok(time.format(format).to_string().into())
}

fn int_or_string(name: &str, bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for field in Fields::new(bytes) {
        let field = field?;
        match field.number {
            1 => is_text = field.varint(name)? == 1,
            2 => number = field.varint(name)?,
            3 => text = field.text(name)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { int(number) })
}

/// A schema, or what may stand in its place.
fn schema_or(
    table: &Table,
    kind: Kind,
    name: &str,
    bytes: &[u8],
    depth: usize,
) -> Result<Value, DecodeError> {
    let schema_number = if kind == Kind::SchemaOrBool { 2 } else { 1 };
    let mut schema = None;
    let mut other = Vec::new();
    let mut allows = false;
    for field in Fields::new(bytes) {
        let field = field?;
        match (field.number, kind) {
            (number, _) if number == schema_number => {
                schema = Some(message(table, table.schema, field.bytes(name)?, depth)?);
            }
            (1, Kind::SchemaOrBool) => allows = field.varint(name)? != 0,
            (2, Kind::SchemaOrArray) => {
                other.push(message(table, table.schema, field.bytes(name)?, depth)?);
            }
            (2, _) => other.push(field.text(name)?.into()),
            _ => {}
        }
    }
    Ok(match kind {
        Kind::SchemaOrBool => schema.unwrap_or(Value::Bool(allows)),
        _ if !other.is_empty() => Value::Array(other),
        _ => schema.unwrap_or(Value::Null),
    })
}

/// As Go prints durations: `1h2m3.5s`, `1.5ms`, `0s`.
fn go_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = |whole: u64, rest: u64, digits: usize| {
        let text = format!("{whole}.{rest:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let text = match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos / 1_000, nanos % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos / 1_000_000, nanos % 1_000_000, 6)),
        _ => {
            let seconds = nanos / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let seconds = fraction(seconds % 60, nanos % 1_000_000_000, 9);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}
