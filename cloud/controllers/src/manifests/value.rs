//! Desired values: text, given the type and the range of the model.

use ledge_proto::v1;
use ledge_proto::v1::DataType;
use ledge_proto::v1::value::Value;
use ledge_yaml::units::shown;

use super::fields::{finite_number, whole_number, yes_or_no};
use super::modbus::is_writable;

/// Types `text` as a value of `property`, and checks that the device can take it.
///
/// # Errors
/// What is wrong, a sentence that names the range, and the way out where there is one.
pub(super) fn desired(
    text: &str,
    property: &v1::DeviceProperty,
) -> Result<v1::Value, (String, Option<String>)> {
    if property
        .modbus
        .as_ref()
        .is_some_and(|visitor| !is_writable(visitor))
    {
        let hint = "coils and holding registers can".to_owned();
        return Err(("registers of this kind cannot be written".to_owned(), Some(hint)));
    }
    if !property.writable {
        let hint = "its model says so; for a property that can be written, accessMode: ReadWrite".to_owned();
        return Err(("the property is read-only".to_owned(), Some(hint)));
    }
    let data_type = property.data_type();
    let wrong = |expected: &str| (format!("`{}` is not {expected}", shown(text)), None);
    let trimmed = text.trim();
    let value = match data_type {
        DataType::Int => Value::Int(whole_number(trimmed).ok_or_else(|| wrong("a whole number"))?),
        DataType::Float => {
            let value = finite_number(trimmed).filter(|v| v.abs() <= f64::from(f32::MAX));
            Value::Double(value.ok_or_else(|| wrong("a number of 32 bits"))?)
        }
        DataType::Double => Value::Double(finite_number(trimmed).ok_or_else(|| wrong("a number"))?),
        DataType::Boolean => Value::Bool(yes_or_no(trimmed).ok_or_else(|| wrong("true or false"))?),
        DataType::String => Value::String(text.to_owned()),
        DataType::Bytes => Value::Bytes(text.as_bytes().to_vec()),
        DataType::Stream | DataType::Unspecified => {
            return Err((
                format!("a value of type {} cannot be written", data_type.as_str_name()),
                None,
            ));
        }
    };
    check_range(&value, property)?;
    check_size(&value, property)?;
    Ok(v1::Value { value: Some(value) })
}

fn check_range(value: &Value, property: &v1::DeviceProperty) -> Result<(), (String, Option<String>)> {
    let Some(number) = number(value) else {
        return Ok(());
    };
    let below = property.minimum.is_some_and(|minimum| number < minimum);
    let above = property.maximum.is_some_and(|maximum| number > maximum);
    if !below && !above {
        return Ok(());
    }
    let range = match (property.minimum, property.maximum) {
        (Some(minimum), Some(maximum)) => format!("from {minimum} to {maximum}"),
        (Some(minimum), None) => format!("at least {minimum}"),
        (None, Some(maximum)) => format!("at most {maximum}"),
        (None, None) => return Ok(()),
    };
    let unit = if property.unit.is_empty() {
        String::new()
    } else {
        format!(" {}", property.unit)
    };
    Err((format!("{number} is out of range: {range}{unit}"), None))
}

/// Whether the registers can hold the value at all.
fn check_size(value: &Value, property: &v1::DeviceProperty) -> Result<(), (String, Option<String>)> {
    let Some(visitor) = &property.modbus else {
        return Ok(());
    };
    let bits = visitor.register() == v1::modbus_visitor::Register::Coil;
    match value {
        Value::String(text) if text.len() > visitor.limit as usize * 2 => Err((
            format!("{} bytes do not fit {} registers", text.len(), visitor.limit),
            None,
        )),
        Value::Bytes(bytes) if !bits && bytes.len() > visitor.limit as usize * 2 => Err((
            format!("{} bytes do not fit {} registers", bytes.len(), visitor.limit),
            None,
        )),
        Value::Int(_) | Value::Double(_) => {
            let raw = number(value).unwrap_or_default() / visitor.scale;
            let (low, high, what) = if bits {
                (0.0, 1.0, "a coil")
            } else if visitor.limit == 1 {
                (-32_768.0, 65_535.0, "one register")
            } else {
                return Ok(());
            };
            if (low..=high).contains(&raw) {
                return Ok(());
            }
            Err((
                format!("divided by the scale, {}, it does not fit {what}", visitor.scale),
                None,
            ))
        }
        _ => Ok(()),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        // The range is in doubles; beyond 2^53 the comparison is as exact as the range is.
        #[allow(clippy::cast_precision_loss, reason = "compared with a range of doubles")]
        Value::Int(number) => Some(*number as f64),
        Value::Double(number) => Some(*number),
        Value::String(_) | Value::Bool(_) | Value::Bytes(_) => None,
    }
}
