//! When a reading becomes a report: on change, and at the report cycle even when unchanged.

use std::time::Duration;

use ledge_proto::v1;
use tokio::time::Instant;

use super::value::same;

/// Decides which readings of one property are reported.
#[derive(Debug, Clone, Default)]
pub struct Reporter {
    last: Option<v1::Value>,
    /// When an unchanged value is reported again; `None` before the first reading.
    next: Option<Instant>,
}

impl Reporter {
    /// Starts from the last value that was reported, perhaps before a restart.
    pub fn new(last: Option<v1::Value>) -> Self {
        Reporter { last, next: None }
    }

    /// Whether `value`, read at the tick `now`, is to be reported. Takes it as reported if so. A `cycle` of zero
    /// means on change only.
    pub fn observe(&mut self, value: &v1::Value, now: Instant, cycle: Duration) -> bool {
        let changed = self.last.as_ref().is_none_or(|last| !same(last, value));
        let due = !cycle.is_zero() && self.next.is_some_and(|next| now >= next);
        if changed || due || self.next.is_none() {
            self.next = Some(now + cycle);
        }
        if changed {
            self.last = Some(value.clone());
        }
        changed || due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::value::double;

    const CYCLE: Duration = Duration::from_secs(10);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_change_is_reported_at_once_and_an_unchanged_value_at_the_cycle() {
        let start = Instant::now();
        let mut reporter = Reporter::default();
        assert!(reporter.observe(&double(1.0), start, CYCLE), "the first value");
        assert!(!reporter.observe(&double(1.0), at(start, 5), CYCLE));
        assert!(reporter.observe(&double(1.0), at(start, 10), CYCLE));
        assert!(reporter.observe(&double(2.0), at(start, 15), CYCLE));
        assert!(
            !reporter.observe(&double(2.0), at(start, 20), CYCLE),
            "ten seconds after the change"
        );
        assert!(reporter.observe(&double(2.0), at(start, 25), CYCLE));
    }

    #[test]
    fn without_a_cycle_only_changes_are_reported() {
        let start = Instant::now();
        let mut reporter = Reporter::new(Some(double(1.0)));
        assert!(!reporter.observe(&double(1.0), start, Duration::ZERO));
        assert!(!reporter.observe(&double(1.0), at(start, 100_000), Duration::ZERO));
        assert!(reporter.observe(&double(1.5), at(start, 100_001), Duration::ZERO));
    }

    #[test]
    fn after_a_restart_the_value_reported_before_counts() {
        let start = Instant::now();
        let mut reporter = Reporter::new(Some(double(f64::NAN)));
        assert!(!reporter.observe(&double(f64::NAN), start, CYCLE));
        assert!(reporter.observe(&double(f64::NAN), at(start, 10), CYCLE));
    }
}
