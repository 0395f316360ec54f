//! Desired values as they come: which kinds are taken for which type, and why one is refused.

use ledge_proto::v1;
use ledge_proto::v1::value::Value as Kind;

use crate::twin::value::show;

/// Why a value is not written. Says the value and what was allowed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// The value is of another kind than the property.
    #[error("{value} is not {wanted}")]
    Kind {
        /// The value, shown.
        value: String,
        /// What it should have been.
        wanted: &'static str,
    },
    /// Outside the device model's minimum and maximum.
    #[error("{value} is outside {range} (the device model's range)")]
    Model {
        /// The value, shown.
        value: String,
        /// The range, shown.
        range: String,
    },
    /// More than the registers can hold.
    #[error("{value} does not fit {room}")]
    Width {
        /// The value, shown.
        value: String,
        /// What the registers hold, shown.
        room: String,
    },
}

pub(super) fn wrong_kind(value: &v1::Value, wanted: &'static str) -> EncodeError {
    EncodeError::Kind {
        value: show(value),
        wanted,
    }
}

pub(super) fn width(value: &v1::Value, room: String) -> EncodeError {
    EncodeError::Width {
        value: show(value),
        room,
    }
}

/// Desired values written by hand in a manifest are strings: `"25"` is taken as 25.
pub(super) fn as_number(value: &v1::Value) -> Result<f64, EncodeError> {
    let number = match &value.value {
        Some(Kind::Double(number)) => Some(*number),
        #[allow(clippy::cast_precision_loss, reason = "exact integers take another way")]
        Some(Kind::Int(number)) => Some(*number as f64),
        Some(Kind::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    number
        .filter(|number| number.is_finite())
        .ok_or_else(|| wrong_kind(value, "a number"))
}

/// The value as an integer, when it is written as one.
pub(super) fn as_exact_int(value: &v1::Value) -> Option<i64> {
    match &value.value {
        Some(Kind::Int(number)) => Some(*number),
        Some(Kind::String(text)) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn as_bool(value: &v1::Value) -> Result<bool, EncodeError> {
    match &value.value {
        Some(Kind::Bool(on)) => Some(*on),
        Some(Kind::Int(number @ (0 | 1))) => Some(*number == 1),
        Some(Kind::String(text)) => match text.trim() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
    .ok_or_else(|| wrong_kind(value, "true or false"))
}

pub(super) fn as_text(value: &v1::Value) -> Result<&str, EncodeError> {
    match &value.value {
        Some(Kind::String(text)) if !text.contains('\0') => Ok(text),
        Some(Kind::String(_)) => Err(wrong_kind(value, "text without zero bytes")),
        _ => Err(wrong_kind(value, "text")),
    }
}
