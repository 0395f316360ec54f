//! Quantities (`500m`, `1.5Gi`, `12e6`) in their canonical form, which is how they are stored.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`.

/// Powers of ten that are the smallest unit kept: a billionth, and a thousandth in resource lists.
const NANO: u32 = 9;
const MILLI: u32 = 3;

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// The canonical form: no fraction, no trailing zeros that a suffix can say, same kind of suffix. `None` for what is no
/// quantity, or is too big for the server to count.
pub(super) fn canonical(text: &str) -> Option<String> {
    at_scale(text, NANO)
}

/// The same in a resource list, where a thousandth is the least (rounded up).
pub(super) fn canonical_resource(text: &str) -> Option<String> {
    at_scale(text, MILLI)
}

fn at_scale(text: &str, scale: u32) -> Option<String> {
    let text = text.trim();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(digits.len());
    let (digits, suffix) = digits.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || digits.len() > 30 {
        return None;
    }
    let mut value = 0_i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let (format, ten, two) = unit(suffix)?;
    value = value.checked_shl(two).filter(|shifted| shifted >> two == value)?;
    let exponent = ten.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let mut amount = rounded_up(value, exponent, scale, negative)?;
    if amount == 0 {
        return Some("0".to_owned());
    }
    let unit = 10_i128.pow(scale);
    let sign = if negative { "-" } else { "" };
    if format == Format::Binary && amount % unit == 0 && amount / unit >= 1024 {
        amount /= unit;
        let mut power = 0;
        while amount % 1024 == 0 && power < BINARY.len() - 1 {
            amount /= 1024;
            power += 1;
        }
        return Some(format!("{sign}{amount}{}", BINARY[power]));
    }
    let mut exponent = -i32::try_from(scale).ok()?;
    while amount % 1000 == 0 && (format == Format::Exponent || exponent < 18) {
        amount /= 1000;
        exponent += 3;
    }
    let suffix = match (format, exponent) {
        (_, 0) => String::new(),
        (Format::Exponent, exponent) => format!("e{exponent}"),
        (_, exponent) => DECIMAL.iter().find(|(_, power)| *power == exponent)?.0.to_owned(),
    };
    Some(format!("{sign}{amount}{suffix}"))
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// What a suffix means: its kind, a power of ten and a power of two.
fn unit(suffix: &str) -> Option<(Format, i32, u32)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Decimal, *power, 0));
    }
    let binary = BINARY.iter().zip((0_u32..).step_by(10));
    if let Some((_, power)) = binary.clone().find(|(name, _)| **name == suffix) {
        return Some((Format::Binary, 0, power));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    (exponent.abs() <= 30).then_some((Format::Exponent, exponent, 0))
}

/// `value` times ten to `exponent` in units of ten to minus `scale`, away from zero; up to the largest number kept.
fn rounded_up(value: i128, exponent: i32, scale: u32, negative: bool) -> Option<i128> {
    let shift = exponent.checked_add(i32::try_from(scale).ok()?)?;
    let factor = 10_i128.checked_pow(shift.unsigned_abs())?;
    let amount = if shift >= 0 {
        value.checked_mul(factor)?
    } else if negative {
        // Towards positive infinity in both cases.
        value / factor
    } else {
        value / factor + i128::from(value % factor != 0)
    };
    let most = i128::from(i64::MAX).checked_mul(10_i128.pow(scale))?;
    Some(amount.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (given, kept) in [
            ("0", "0"),
            ("0.0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-1", "-1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1023Ki", "1023Ki"),
            ("0.5Ki", "512"),
            ("0.0001Ki", "102400u"),
            ("512Mi", "512Mi"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("12000k", "12M"),
            ("1e3", "1e3"),
            ("12e5", "1200e3"),
            ("1E", "1E"),
            ("1E3", "1e3"),
            ("100n", "100n"),
            ("0.1n", "1n"),
            ("1500u", "1500u"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(kept), "{given}");
        }
        assert_eq!(canonical_resource("1500u").as_deref(), Some("2m"));
        assert_eq!(canonical_resource("-1500u").as_deref(), Some("-1m"));
        for wrong in [
            "",
            "a",
            "1.2.3",
            "1KI",
            "1 Gi",
            "e3",
            "-",
            "1e",
            "1e400",
            "99999999999999999999999999999999",
        ] {
            assert_eq!(canonical(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_canonical_stays() {
        for text in ["1536Mi", "500m", "1200e3", "102400u", "1k", "9223372036854775807"] {
            assert_eq!(canonical(text).as_deref(), Some(text));
        }
    }
}
