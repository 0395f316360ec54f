//! When a reading becomes a report, or a sample: on change; and after a while even when unchanged, then as a run of readings.

use std::time::Duration;

use ledge_proto::record::Payload;
use ledge_proto::v1;
use tokio::time::Instant;

use super::Stamp;
use super::value::same;

/// How long a value that stays the same is not told again. What does not change costs the link, the disk and the history as
/// much as what does. Nothing is lost by it: readings that give the same value again are counted and recorded as a run, a
/// reading that fails is an event, and so is one that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unchanged {
    /// Longest time until readings of the same value are recorded; zero makes every reading a sample.
    pub samples: Duration,
    /// Longest time between two reports, where it is longer than the property's report cycle.
    pub reports: Duration,
}

/// The wall clock may stray so far from the monotonic one within a run, microseconds: a run is of one clock.
const CLOCK_JUMP_US: i64 = 2_000_000;

/// Readings in a row that gave the value recorded before them.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    value: v1::Value,
    count: u64,
    first: Stamp,
    last: Stamp,
    longest_us: u64,
}

impl Run {
    /// When the last of them was taken: the record's time.
    pub fn stamp(&self) -> Stamp {
        self.last
    }

    /// What is recorded of it. One reading alone is a sample.
    pub fn payload(self) -> Payload {
        let value = Some(self.value);
        match self.count {
            1 => Payload::Sample(v1::Sample { value }),
            count => Payload::SampleRun(v1::SampleRun {
                value,
                count,
                span_us: self.last.mono_us.saturating_sub(self.first.mono_us),
                longest_us: self.longest_us,
            }),
        }
    }
}

/// Decides what is recorded of the readings of one property.
#[derive(Debug, Clone, Default)]
pub struct Sampler {
    /// The value recorded last, and when it was read last.
    last: Option<(v1::Value, Stamp)>,
    /// Readings since, all of that value.
    run: Option<Run>,
    /// When they are recorded. `None`: the next reading is a sample, whatever it says.
    next: Option<Instant>,
}

impl Sampler {
    /// Takes in `value`, read at `stamp` for the tick `now`, if unchanged ones are recorded after `longest`. Returns what is
    /// to be recorded: a run that ended, and whether `value` is a sample, which comes after it.
    pub fn observe(
        &mut self,
        value: &v1::Value,
        now: Instant,
        stamp: Stamp,
        longest: Duration,
    ) -> (Option<Run>, bool) {
        if let (Some((last, at)), Some(next)) = (&mut self.last, self.next)
            && same(last, value)
            && is_of_one_clock(*at, stamp)
        {
            let since_us = stamp.mono_us.saturating_sub(at.mono_us);
            *at = stamp;
            let run = self.run.get_or_insert_with(|| Run {
                value: last.clone(),
                count: 0,
                first: stamp,
                last: stamp,
                longest_us: 0,
            });
            run.count += 1;
            run.last = stamp;
            run.longest_us = run.longest_us.max(since_us);
            if now < next {
                return (None, false);
            }
            self.next = Some(now + longest);
            return (self.run.take(), false);
        }
        self.last = Some((value.clone(), stamp));
        self.next = Some(now + longest);
        (self.run.take(), true)
    }

    /// The readings that are not recorded yet.
    pub fn take(&mut self) -> Option<Run> {
        self.run.take()
    }

    /// As [`Sampler::take`]; and the next reading is a sample, whatever it says.
    pub fn reset(&mut self) -> Option<Run> {
        self.next = None;
        self.run.take()
    }
}

/// Whether the wall clock went on from one moment to the other.
fn is_of_one_clock(before: Stamp, after: Stamp) -> bool {
    let offset = |stamp: Stamp| {
        stamp
            .wall_us
            .saturating_sub(i64::try_from(stamp.mono_us).unwrap_or(i64::MAX))
    };
    let strayed = offset(after).saturating_sub(offset(before)).saturating_abs();
    before.clock == after.clock && strayed <= CLOCK_JUMP_US
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

    fn stamp(second: u64) -> Stamp {
        Stamp {
            wall_us: i64::try_from(second).unwrap() * 1_000_000,
            clock: v1::ClockQuality::ClockSynced,
            mono_us: (second + 7) * 1_000_000,
        }
    }

    /// What is recorded of `values`, read once a second.
    fn recorded(values: &[f64], longest: Duration) -> Vec<(u64, Payload)> {
        let start = Instant::now();
        let (mut sampler, mut recorded) = (Sampler::default(), Vec::new());
        let push = |recorded: &mut Vec<_>, run: Option<Run>| {
            recorded.extend(run.map(|run| (run.stamp().mono_us / 1_000_000 - 7, run.payload())));
        };
        for (second, value) in (0..).zip(values) {
            let (run, is_sample) =
                sampler.observe(&double(*value), at(start, second), stamp(second), longest);
            push(&mut recorded, run);
            if is_sample {
                recorded.push((second, sample(*value)));
            }
        }
        push(&mut recorded, sampler.take());
        recorded
    }

    fn sample(value: f64) -> Payload {
        Payload::Sample(v1::Sample {
            value: Some(double(value)),
        })
    }

    fn run(value: f64, count: u64) -> Payload {
        Payload::SampleRun(v1::SampleRun {
            value: Some(double(value)),
            count,
            span_us: (count - 1) * 1_000_000,
            longest_us: 1_000_000,
        })
    }

    #[test]
    fn unchanged_values_are_runs_and_changes_are_samples() {
        let mut values = [1.0; 13].to_vec();
        values.extend([2.0; 17]);
        assert_eq!(
            recorded(&values, CYCLE),
            [
                (0, sample(1.0)),
                (10, run(1.0, 10)),
                (12, run(1.0, 2)),
                (13, sample(2.0)),
                (23, run(2.0, 10)),
                (29, run(2.0, 6)),
            ]
        );
        // One reading alone is told as the sample it is.
        assert_eq!(
            recorded(&[1.0, 1.0, 2.0], CYCLE),
            [(0, sample(1.0)), (1, sample(1.0)), (2, sample(2.0))]
        );
    }

    #[test]
    fn what_went_missing_within_a_run_shows() {
        let start = Instant::now();
        let mut sampler = Sampler::default();
        for second in [0, 1, 2, 6, 7] {
            sampler.observe(&double(1.0), at(start, second), stamp(second), CYCLE);
        }
        let Payload::SampleRun(run) = sampler.take().unwrap().payload() else {
            panic!("one reading only");
        };
        assert_eq!(
            (run.count, run.span_us, run.longest_us),
            (4, 6_000_000, 4_000_000)
        );
        assert_eq!(sampler.take(), None);
    }

    #[test]
    fn after_a_reset_any_value_is_a_sample() {
        let start = Instant::now();
        let mut sampler = Sampler::default();
        let read = |sampler: &mut Sampler, second| {
            sampler.observe(&double(1.0), at(start, second), stamp(second), CYCLE)
        };
        assert_eq!(read(&mut sampler, 0), (None, true));
        assert_eq!(read(&mut sampler, 1), (None, false));
        assert_eq!(sampler.reset().map(|run| run.count), Some(1));
        assert_eq!(read(&mut sampler, 2), (None, true));
    }

    #[test]
    fn a_run_ends_where_the_clock_is_set() {
        let start = Instant::now();
        let (mut sampler, synced) = (Sampler::default(), stamp(2));
        let unsynced = |second| Stamp {
            clock: v1::ClockQuality::ClockUnsynced,
            ..stamp(second)
        };
        sampler.observe(&double(1.0), at(start, 0), unsynced(0), CYCLE);
        sampler.observe(&double(1.0), at(start, 1), unsynced(1), CYCLE);
        let (ended, is_sample) = sampler.observe(&double(1.0), at(start, 2), synced, CYCLE);
        assert_eq!(
            (ended.map(|run| run.stamp()), is_sample),
            (Some(unsynced(1)), true)
        );
        let stepped = Stamp {
            wall_us: 1_800_000_000_000_000,
            ..stamp(3)
        };
        let (ended, is_sample) = sampler.observe(&double(1.0), at(start, 3), stepped, CYCLE);
        assert_eq!((ended, is_sample), (None, true));
    }

    #[test]
    fn without_a_longest_time_every_reading_is_a_sample() {
        let seconds: Vec<_> = (0..5).map(|second| (second, sample(1.0))).collect();
        assert_eq!(recorded(&[1.0; 5], Duration::ZERO), seconds);
    }

    proptest::proptest! {
        /// Whatever changes and however long a run may be: every reading is recorded, as a sample or counted in a run, in
        /// the order in which they were taken.
        #[test]
        fn no_reading_is_left_out(
            values in proptest::collection::vec(proptest::sample::select(vec![1.0, 2.0]), 0..80),
            longest in 0u64..20,
        ) {
            let mut told = Vec::new();
            for (second, payload) in recorded(&values, Duration::from_secs(longest)) {
                match payload {
                    Payload::Sample(sample) => told.push((sample.value.unwrap(), second)),
                    Payload::SampleRun(run) => {
                        let first = second - run.span_us / 1_000_000;
                        proptest::prop_assert_eq!(second - first + 1, run.count);
                        told.extend((first..=second).map(|at| (run.value.clone().unwrap(), at)));
                    }
                    other => panic!("{other:?}"),
                }
            }
            let read: Vec<_> = values.iter().zip(0..).map(|(value, second)| (double(*value), second)).collect();
            proptest::prop_assert_eq!(told, read);
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
