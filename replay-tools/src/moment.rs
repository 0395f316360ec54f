//! Moments on the command line: RFC 3339, a date, or relative to now. Shown as RFC 3339 in UTC.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat};

/// A wall clock reading, microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    us: i64,
}

impl Moment {
    /// A reading of a record.
    pub fn from_us(us: i64) -> Self {
        Moment { us }
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn as_us(self) -> i64 {
        self.us
    }

    /// This machine's clock.
    pub fn now() -> Self {
        let us = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
        };
        Moment { us }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_micros(self.us) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            // A clock gone wild beyond the calendar.
            None => write!(f, "{}us", self.us),
        }
    }
}

/// A moment as written on the command line: absolute, or relative to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// As given.
    At(Moment),
    /// This many microseconds from now, negative for the past.
    FromNow(i64),
}

impl When {
    /// The moment, if it is `now`.
    pub(crate) fn resolve(self, now: Moment) -> Moment {
        match self {
            When::At(moment) => moment,
            When::FromNow(us) => Moment {
                us: now.us.saturating_add(us),
            },
        }
    }
}

const FORMS: &str = "write 2026-11-23T15:04:05Z, 2026-11-23 15:04 (UTC), 2026-11-23, now, -5m, -2h30m or -7d";

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "now" {
            return Ok(When::FromNow(0));
        }
        if let Some(rest) = text.strip_prefix('-') {
            return relative(rest)
                .map(|us| When::FromNow(-us))
                .ok_or_else(|| FORMS.to_owned());
        }
        if let Some(rest) = text.strip_prefix('+') {
            return relative(rest).map(When::FromNow).ok_or_else(|| FORMS.to_owned());
        }
        absolute(text).map(When::At).ok_or_else(|| FORMS.to_owned())
    }
}

fn absolute(text: &str) -> Option<Moment> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(Moment {
            us: time.timestamp_micros(),
        });
    }
    // Without a zone it is UTC: the same command must mean the same on every machine.
    for form in [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%d %H:%M",
    ] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return Some(Moment {
                us: time.and_utc().timestamp_micros(),
            });
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(Moment {
        us: date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros(),
    })
}

/// `2h30m` in microseconds.
fn relative(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_us: i64 = match &rest[..unit_len] {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" | "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            "w" => 604_800_000_000,
            _ => return None,
        };
        rest = &rest[unit_len..];
        total = total.checked_add(number.checked_mul(unit_us)?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> String {
        let now = Moment::from_us(1_795_446_000_000_000); // 2026-11-23T15:00:00Z
        text.parse::<When>().unwrap().resolve(now).to_string()
    }

    #[test]
    fn every_form_in_the_help_is_understood() {
        assert_eq!(at("2026-11-23T15:04:05Z"), "2026-11-23T15:04:05.000000Z");
        assert_eq!(at("2026-11-23T16:04:05.5+01:00"), "2026-11-23T15:04:05.500000Z");
        assert_eq!(at("2026-11-23 15:04"), "2026-11-23T15:04:00.000000Z");
        assert_eq!(at("2026-11-23"), "2026-11-23T00:00:00.000000Z");
        assert_eq!(at("now"), "2026-11-23T15:00:00.000000Z");
        assert_eq!(at("-5m"), "2026-11-23T14:55:00.000000Z");
        assert_eq!(at("-2h30m"), "2026-11-23T12:30:00.000000Z");
        assert_eq!(at("-7d"), "2026-11-16T15:00:00.000000Z");
        assert_eq!(at("+250ms"), "2026-11-23T15:00:00.250000Z");
    }

    #[test]
    fn nonsense_is_refused_with_the_forms() {
        for text in [
            "",
            "-",
            "-5",
            "-5x",
            "5m",
            "yesterday",
            "2026-13-01",
            "-99999999999999999999d",
            "--5m",
        ] {
            assert_eq!(text.parse::<When>().unwrap_err(), FORMS, "{text}");
        }
    }

    #[test]
    fn a_clock_beyond_the_calendar_is_still_shown() {
        assert_eq!(Moment::from_us(i64::MAX).to_string(), format!("{}us", i64::MAX));
    }
}
