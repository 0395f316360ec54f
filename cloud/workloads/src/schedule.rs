//! Schedules of CronJobs: the five fields of cron, or a name such as `@hourly`, in a time zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Longest text that is read.
const MAX_BYTES: usize = 1024;

/// When something is to happen, again and again.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// Why a schedule cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Its times cannot be understood.
    #[error("{0}")]
    Times(String),
    /// Its time zone is not known.
    #[error("{0}")]
    Zone(String),
}

impl Schedule {
    /// Reads a schedule; without a time zone, it is in UTC.
    ///
    /// # Errors
    /// See [`ScheduleError`].
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Schedule, ScheduleError> {
        if text.len() > MAX_BYTES {
            return Err(ScheduleError::Times(format!("longer than {MAX_BYTES} bytes")));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            // `0/10` is what everybody's manifests have.
            .sloppy_ranges(true)
            .build();
        let cron = parser
            .parse(text)
            .map_err(|error| ScheduleError::Times(error.to_string()))?;
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|error| ScheduleError::Zone(error.to_string()))?,
        };
        Ok(Schedule { cron, zone })
    }

    /// The last time that is not after `now`; `None` when there is none.
    pub fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.zone.clone());
        self.cron
            .find_previous_occurrence(&now, true)
            .ok()
            .map(|at| at.timestamp())
    }

    /// The first time after `now`; `None` when there is none.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.zone.clone());
        self.cron
            .find_next_occurrence(&now, false)
            .ok()
            .map(|at| at.timestamp())
    }

    /// The zone its times are in.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn in_a_time_zone_over_a_change_of_clocks() {
        let schedule = Schedule::parse("30 8 * * 1-5", Some("Europe/Berlin")).unwrap();
        // The Friday before clocks go forward, and the Monday after.
        assert_eq!(
            schedule.next(at("2026-03-27T00:00:00Z")),
            Some(at("2026-03-27T07:30:00Z"))
        );
        assert_eq!(
            schedule.next(at("2026-03-27T07:30:00Z")),
            Some(at("2026-03-30T06:30:00Z"))
        );
        assert_eq!(
            schedule.last(at("2026-03-30T06:30:00Z")),
            Some(at("2026-03-30T06:30:00Z"))
        );
        assert_eq!(
            schedule.last(at("2026-03-30T06:29:59Z")),
            Some(at("2026-03-27T07:30:00Z"))
        );
    }

    #[test]
    fn what_manifests_have() {
        for text in [
            "*/5 * * * *",
            "0/10 * * * *",
            "@hourly",
            "0 0 1,15 * MON",
            "0 22 * * 1-5",
            "0 0 ? * 0",
        ] {
            assert!(Schedule::parse(text, None).is_ok(), "{text}");
        }
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * * * * *",
            "TZ=UTC 0 0 * * *",
            "nonsense",
        ] {
            assert!(Schedule::parse(text, None).is_err(), "{text}");
        }
        assert!(matches!(
            Schedule::parse("* * * * *", Some("Nowhere/Town")),
            Err(ScheduleError::Zone(_))
        ));
        // A day that never comes.
        assert_eq!(
            Schedule::parse("0 0 30 2 *", None)
                .unwrap()
                .next(at("2026-01-01T00:00:00Z")),
            None
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What was last and what is next agree, for any time of any schedule.
        #[test]
        fn last_and_next_agree(
            minute in prop_oneof![Just("*".to_owned()), (0..60u8).prop_map(|m| m.to_string()), (1..30u8).prop_map(|m| format!("*/{m}"))],
            hour in prop_oneof![Just("*".to_owned()), (0..24u8).prop_map(|h| h.to_string())],
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
            seconds in 1_700_000_000i64..1_900_000_000,
        ) {
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), Some(zone)).unwrap();
            let now = Timestamp::from_second(seconds).unwrap();
            let next = schedule.next(now).unwrap();
            prop_assert!(next > now);
            prop_assert_eq!(schedule.last(next), Some(next));
            let last = schedule.last(now).unwrap();
            prop_assert!(last <= now);
            prop_assert_eq!(schedule.next(last), Some(next));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Ok(schedule) = Schedule::parse(&text, None) {
                schedule.next(at("2026-01-01T00:00:00Z"));
            }
        }
    }
}
