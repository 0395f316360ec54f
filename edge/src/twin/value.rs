//! Values of properties: when two are the same, and how one is shown.

use ledge_proto::v1;
use ledge_proto::v1::value::Value as Kind;

/// A value of kind double.
pub fn double(value: f64) -> v1::Value {
    v1::Value {
        value: Some(Kind::Double(value)),
    }
}

/// A value of kind int.
pub fn int(value: i64) -> v1::Value {
    v1::Value {
        value: Some(Kind::Int(value)),
    }
}

/// A value of kind bool.
pub fn boolean(value: bool) -> v1::Value {
    v1::Value {
        value: Some(Kind::Bool(value)),
    }
}

/// A value of kind string.
pub fn text(value: impl Into<String>) -> v1::Value {
    v1::Value {
        value: Some(Kind::String(value.into())),
    }
}

/// Whether two readings are the same value. Unlike `==`, not-a-number is the same as itself: a device that keeps
/// answering it has not changed.
pub fn same(a: &v1::Value, b: &v1::Value) -> bool {
    match (&a.value, &b.value) {
        (Some(Kind::Double(a)), Some(Kind::Double(b))) => a == b || (a.is_nan() && b.is_nan()),
        (a, b) => a == b,
    }
}

/// Longest text shown of one value, characters.
const SHOW_MAX_CHARS: usize = 80;

/// The value as shown to people, cut when it is long.
pub fn show(value: &v1::Value) -> String {
    match &value.value {
        None => "nothing".to_owned(),
        Some(Kind::Double(v)) => v.to_string(),
        Some(Kind::Int(v)) => v.to_string(),
        Some(Kind::Bool(v)) => v.to_string(),
        Some(Kind::String(v)) => format!("{:?}", v.chars().take(SHOW_MAX_CHARS).collect::<String>()),
        Some(Kind::Bytes(v)) => format!("{} bytes", v.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sameness_is_of_values_not_of_readings() {
        assert!(same(&double(f64::NAN), &double(f64::NAN)));
        assert!(same(&double(0.0), &double(-0.0)));
        assert!(!same(&double(1.0), &int(1)));
        assert!(same(&text("a"), &text("a")));
        assert!(!same(&boolean(true), &boolean(false)));
    }

    #[test]
    fn long_text_is_cut() {
        assert!(show(&text("x".repeat(10_000))).len() < 100);
        assert_eq!(show(&v1::Value::default()), "nothing");
    }
}
