//! `DeviceModel`: types that are the name of a map.

use serde_json::{Map, Value, json};

use super::{Leftover, Shaped, annotate, take, take_map};

/// The model in the shape that is stored.
pub(crate) fn model(given: &Value) -> Shaped {
    let mut object = given.clone();
    let mut leftover = Leftover::default();
    let properties = object
        .get_mut("spec")
        .and_then(|spec| spec.get_mut("properties"))
        .and_then(Value::as_array_mut);
    for property in properties.into_iter().flatten() {
        if let Value::Object(property) = property {
            property_type(property, &mut leftover);
        }
    }
    if !annotate(&mut object, leftover) {
        return Shaped {
            object: given.clone(),
            changed: false,
        };
    }
    let changed = object != *given;
    Shaped { object, changed }
}

fn property_type(property: &mut Map<String, Value>, leftover: &mut Leftover) {
    let Some(older) = property.get("type").and_then(Value::as_object) else {
        return;
    };
    // Not what the older shape is: the decoder says so.
    if older.len() != 1 {
        return;
    }
    let Some((ty, inner)) = take_map(property, "type").and_then(|older| older.into_iter().next()) else {
        return;
    };
    let mut inner = match inner {
        Value::Object(inner) => inner,
        _ => Map::new(),
    };
    property.insert("type".to_owned(), json!(ty.to_ascii_uppercase()));
    for field in ["accessMode", "unit"] {
        if let Some(value) = take(&mut inner, field) {
            property.insert(field.to_owned(), value);
        }
    }
    let number = |value: Option<Value>| match value {
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let minimum = number(take(&mut inner, "minimum"));
    let maximum = number(take(&mut inner, "maximum"));
    // The older API has no "unset": both at 0 is how it writes a property without a range.
    let zero = |text: &str| text.parse::<f64>().is_ok_and(|number| number == 0.0);
    let unset = minimum.as_deref().is_none_or(zero) && maximum.as_deref().is_some_and(zero);
    for (field, bound) in [("minimum", minimum), ("maximum", maximum)] {
        match bound {
            Some(bound) if !unset => property.insert(field.to_owned(), json!(bound)),
            _ => property.remove(field),
        };
    }
    inner.retain(|_, value| !value.is_null());
    if !inner.is_empty() {
        let name = property.get("name").and_then(Value::as_str).unwrap_or_default();
        leftover.keep(&["spec", "properties", name], Value::Object(inner));
    }
}
