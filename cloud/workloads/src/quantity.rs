//! Quantities of resources.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Longest text that is read: the API's own are far shorter.
const MAX_BYTES: usize = 64;

/// A quantity in thousandths, rounded up; `None` when it cannot be understood. What is more than there can be is the most
/// there can be.
pub fn milli(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    if text.is_empty() || text.len() > MAX_BYTES {
        return None;
    }
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // Digits after the point take away from the exponent.
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let value = match suffix {
        "Ki" => scale(digits, 1 << 10, 3 - places),
        "Mi" => scale(digits, 1 << 20, 3 - places),
        "Gi" => scale(digits, 1 << 30, 3 - places),
        "Ti" => scale(digits, 1 << 40, 3 - places),
        "Pi" => scale(digits, 1 << 50, 3 - places),
        "Ei" => scale(digits, 1 << 60, 3 - places),
        _ => scale(digits, 1, decimal(suffix)? + 3 - places),
    };
    Some(if negative { -value } else { value })
}

/// The power of ten that a suffix stands for.
fn decimal(suffix: &str) -> Option<i32> {
    Some(match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            exponent.clamp(-1000, 1000)
        }
    })
}

fn scale(digits: i128, factor: i128, exponent: i32) -> i128 {
    let value = digits.saturating_mul(factor);
    let power = |exponent: u32| 10_i128.checked_pow(exponent);
    match u32::try_from(exponent) {
        Ok(exponent) => power(exponent).map_or(if value == 0 { 0 } else { i128::MAX }, |power| {
            value.saturating_mul(power)
        }),
        Err(_) => match power(exponent.unsigned_abs()) {
            Some(power) => value / power + i128::from(value % power != 0),
            None => i128::from(value != 0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_kubernetes_writes_them() {
        for (text, value) in [
            ("0", 0),
            ("100m", 100),
            ("1", 1000),
            ("1.5", 1500),
            (".5", 500),
            ("64Mi", 64 * (1 << 20) * 1000),
            ("0.5Gi", 500 * (1 << 30)),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("2E", 2_000_000_000_000_000_000_000),
            ("1n", 1),
            ("-1", -1000),
        ] {
            assert_eq!(milli(&Quantity(text.to_owned())), Some(value), "{text}");
        }
        for text in ["", "m", "1.2.3", "1 Mi", "1Q", "1e", "--1", "1é"] {
            assert_eq!(milli(&Quantity(text.to_owned())), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            milli(&Quantity(text));
        }
    }
}
