//! Sizes and durations as people write them.

use std::time::Duration;

/// Reads a size: `64MiB`, `64 Mi`, `10MB`, `4096`. Without a unit it is bytes.
///
/// # Errors
/// A sentence that says what was expected.
pub fn bytes(text: &str) -> Result<u64, String> {
    let expected = || {
        format!(
            "`{}` is not a size: write for example 64MiB, 10MB or 4096",
            shown(text)
        )
    };
    let (number, unit) = split(text).ok_or_else(expected)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    number.scaled(factor).ok_or_else(expected)
}

/// Reads a duration: `30s`, `1500ms`, `1h30m`. A number without a unit counts `bare`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn duration(text: &str, bare: Duration) -> Result<Duration, String> {
    let expected = || {
        format!(
            "`{}` is not a duration: write for example 500ms, 30s or 5m",
            shown(text)
        )
    };
    let mut rest = text.trim();
    let mut total_us: u64 = 0;
    if rest.is_empty() {
        return Err(expected());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(rest.len());
        let after = &rest[digits..];
        let letters = after
            .find(|c: char| !(c.is_alphabetic() || c == ' '))
            .unwrap_or(after.len());
        let number = Number::parse(&rest[..digits]).ok_or_else(expected)?;
        let unit_us = match after[..letters].trim() {
            "" if digits == text.trim().len() => u64::try_from(bare.as_micros()).ok(),
            "us" | "µs" => Some(1),
            "ms" => Some(1_000),
            "s" | "sec" => Some(1_000_000),
            "m" | "min" => Some(60_000_000),
            "h" => Some(3_600_000_000),
            "d" => Some(86_400_000_000),
            _ => None,
        };
        let part = unit_us.and_then(|us| number.scaled(us)).ok_or_else(expected)?;
        total_us = total_us.checked_add(part).ok_or_else(expected)?;
        rest = &after[letters..];
    }
    Ok(Duration::from_micros(total_us))
}

/// A decimal number without sign or exponent, kept exactly.
struct Number {
    digits: u64,
    decimals: u32,
}

impl Number {
    fn parse(text: &str) -> Option<Number> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if whole.is_empty() || fraction.len() > 9 {
            return None;
        }
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Some(Number {
            digits,
            decimals: u32::try_from(fraction.len()).ok()?,
        })
    }

    /// `self * factor`, when that is a whole number that fits.
    fn scaled(&self, factor: u64) -> Option<u64> {
        let product = u128::from(self.digits) * u128::from(factor);
        let divisor = 10u128.pow(self.decimals);
        if product % divisor != 0 {
            return None;
        }
        u64::try_from(product / divisor).ok()
    }
}

fn split(text: &str) -> Option<(Number, &str)> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    Some((Number::parse(&text[..digits])?, text[digits..].trim()))
}

/// A text from outside may be huge: its beginning.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("4096", Some(4096)),
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("10MB", Some(10_000_000)),
            ("0", Some(0)),
            ("1.0000000001", None),
            ("0.5", None),
            ("-1", None),
            ("64 parsecs", None),
            ("", None),
            ("18446744073709551615k", None),
        ] {
            assert_eq!(bytes(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn durations() {
        let s = Duration::from_secs(1);
        for (text, want) in [
            ("15", Some(15_000)),
            ("30s", Some(30_000)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("0.25s", Some(250)),
            ("5 min", Some(300_000)),
            ("1h30", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration(text, s).ok(), want.map(Duration::from_millis), "{text}");
        }
    }
}
