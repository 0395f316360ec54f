//! OpenAPI formats of texts. Formats that are not here are not checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, NaiveDate};

/// Whether `text` is of `format`. Formats that are not known hold for every text.
pub(super) fn holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => date_time(text),
        "date" => NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() && text.len() == 10,
        "duration" => duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "ip" => text.parse::<IpAddr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some(b'3')),
        "uuid4" => uuid(text, Some(b'4')),
        "uuid5" => uuid(text, Some(b'5')),
        "hostname" => hostname(text),
        "email" => email(text),
        "uri" => uri(text),
        "byte" => base64(text),
        "k8s-short-name" => label(text),
        "k8s-long-name" => text.len() <= 253 && text.split('.').all(label),
        "quantity" => quantity(text),
        _ => true,
    }
}

/// RFC 3339, as `date-time` is read: the separator may also be a small `t`.
fn date_time(text: &str) -> bool {
    // Only what RFC 3339 writes: a space between date and time is refused.
    text.as_bytes()
        .get(10)
        .is_some_and(|byte| matches!(byte, b'T' | b't'))
        && DateTime::parse_from_rfc3339(text).is_ok()
}

/// Go's duration (`1h30m`, `1.5s`), or a count with a unit in words (`3 days`).
fn duration(text: &str) -> bool {
    const UNITS: &[&str] = &[
        "ns",
        "us",
        "µs",
        "μs",
        "ms",
        "s",
        "m",
        "h",
        "d",
        "w",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "sec",
        "secs",
        "second",
        "seconds",
        "min",
        "mins",
        "minute",
        "minutes",
        "hr",
        "hour",
        "hours",
        "day",
        "days",
        "wk",
        "week",
        "weeks",
    ];
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if number.len() == rest.len() || rest.starts_with("..") {
            return false;
        }
        let unit = number.trim_start();
        let end = unit.find(|c: char| !c.is_alphabetic()).unwrap_or(unit.len());
        let (name, after) = unit.split_at(end);
        if !UNITS.contains(&name) {
            return false;
        }
        rest = after.trim_start();
    }
    true
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.bytes().all(|byte| byte.is_ascii_digit())
        && length.parse::<u8>().is_ok_and(|length| length <= most)
}

fn mac(text: &str) -> bool {
    let pairs = |separator: char| {
        let parts: Vec<&str> = text.split(separator).collect();
        let hex = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(hex)
    };
    pairs(':') || pairs('-')
}

fn uuid(text: &str, version: Option<u8>) -> bool {
    // Dashes may be left out, all or some, as upstream's expression has it.
    let dashes = [8, 12, 16, 20];
    let mut hex = Vec::with_capacity(32);
    for byte in text.bytes() {
        if byte == b'-' {
            if !dashes.contains(&hex.len()) {
                return false;
            }
        } else if byte.is_ascii_hexdigit() && hex.len() < 32 {
            hex.push(byte);
        } else {
            return false;
        }
    }
    hex.len() == 32 && version.is_none_or(|version| hex.get(12) == Some(&version))
}

fn label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn hostname(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    text.len() <= 255 && text.split('.').all(part)
}

fn email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    !local.is_empty() && !local.contains(char::is_whitespace) && hostname(domain)
}

/// As Go's `url.ParseRequestURI` takes it: absolute, or an absolute path.
fn uri(text: &str) -> bool {
    if text.is_empty() || text.contains(|c: char| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let start = scheme
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic());
    start
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !rest.is_empty()
}

fn base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.len().is_multiple_of(4) && text.len() - body.len() <= 2 && body.bytes().all(digit)
}

/// `resource.Quantity`: a decimal number with an optional suffix or exponent.
pub(super) fn quantity(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 || number.matches('.').count() > 1 {
        return false;
    }
    let exponent = |rest: &str| {
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" => true,
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
        suffix => suffix.strip_prefix(['e', 'E']).is_some_and(exponent),
    }
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn what_holds_and_what_does_not() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "date-time",
                &["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.123+01:00"],
                &[
                    "2024-01-02",
                    "2024-01-02 03:04:05Z",
                    "yesterday",
                    "2024-13-02T03:04:05Z",
                ],
            ),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-1-1"]),
            (
                "duration",
                &["1h30m", "1.5s", "0", "3 days"],
                &["", "1", "1x", "h"],
            ),
            ("ipv4", &["1.2.3.4"], &["1.2.3", "::1", "1.2.3.256"]),
            ("ipv6", &["::1"], &["1.2.3.4"]),
            (
                "cidr",
                &["10.0.0.0/8", "::/0"],
                &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8"],
            ),
            (
                "mac",
                &["00:11:22:33:44:55", "00-11-22-33-44-55"],
                &["00:11", "00:11:22:33:44:5g"],
            ),
            (
                "uuid",
                &["0d0a6e2c-6f8e-4b52-9a0e-5f4a3a1b2c3d"],
                &["x", "0d0a6e2c-6f8e"],
            ),
            (
                "uuid4",
                &["0d0a6e2c-6f8e-4b52-9a0e-5f4a3a1b2c3d"],
                &["0d0a6e2c-6f8e-3b52-9a0e-5f4a3a1b2c3d"],
            ),
            ("hostname", &["a.example", "a"], &["-a", "a..b", ""]),
            ("email", &["a@b.example"], &["a", "@b"]),
            ("uri", &["https://a.example/b", "/a"], &["a", "", "a b"]),
            ("byte", &["aGk=", ""], &["a", "aG=k"]),
            (
                "quantity",
                &["1", "100m", "1.5Gi", "1e3", "-2", ".5"],
                &["", "x", "1.2.3", "1Zi", "1e", "e3"],
            ),
            ("something", &["whatever"], &[]),
        ];
        for (format, good, bad) in cases {
            for text in *good {
                assert!(holds(format, text), "{format} {text:?}");
            }
            for text in *bad {
                assert!(!holds(format, text), "{format} {text:?}");
            }
        }
    }
}
