//! When a reading becomes a report, or a sample: on change, and after a while even when unchanged.

use std::time::Duration;

use ledge_proto::v1;
use tokio::time::Instant;

use super::value::same;

/// How long a value that stays the same is not told again. What does not change costs the link, the disk and the history as
/// much as what does. Nothing is lost by it: a reading that fails, and one that was not taken, is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unchanged {
    /// Longest time between two samples; zero makes every reading a sample.
    pub samples: Duration,
    /// Longest time between two reports, where it is longer than the property's report cycle.
    pub reports: Duration,
}

/// Decides which readings of one property are samples.
#[derive(Debug, Clone, Default)]
pub struct Sampler {
    last: Option<v1::Value>,
    /// When an unchanged value is a sample again.
    next: Option<Instant>,
}

impl Sampler {
    /// Whether `value`, read at the tick `now`, is a sample, if an unchanged one is only after `longest`. Takes it as
    /// recorded if so.
    pub fn observe(&mut self, value: &v1::Value, now: Instant, longest: Duration) -> bool {
        let unchanged = self.last.as_ref().is_some_and(|last| same(last, value));
        if unchanged && self.next.is_some_and(|next| now < next) {
            return false;
        }
        if !unchanged {
            self.last = Some(value.clone());
        }
        self.next = Some(now + longest);
        true
    }

    /// The next reading is a sample, whatever it says.
    pub fn reset(&mut self) {
        self.next = None;
    }
}

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
    fn an_unchanged_value_is_a_sample_again_only_after_the_longest_time() {
        let start = Instant::now();
        let mut sampler = Sampler::default();
        let mut samples = Vec::new();
        for second in 0..30 {
            let value = double(if second < 13 { 1.0 } else { 2.0 });
            if sampler.observe(&value, at(start, second), CYCLE) {
                samples.push(second);
            }
        }
        assert_eq!(samples, [0, 10, 13, 23]);
        assert!(!sampler.observe(&double(2.0), at(start, 30), CYCLE));
        sampler.reset();
        assert!(sampler.observe(&double(2.0), at(start, 31), CYCLE));
    }

    #[test]
    fn without_a_longest_time_every_reading_is_a_sample() {
        let start = Instant::now();
        let mut sampler = Sampler::default();
        for second in 0..5 {
            assert!(sampler.observe(&double(1.0), at(start, second), Duration::ZERO));
        }
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
