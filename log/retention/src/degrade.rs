//! What takes the place of telemetry that is about to go: per property and minute its average, or its last value.
//!
//! Pure: records in, summaries out. Summaries of summaries are coarser: an average becomes a last value, and of a last
//! value nothing is kept but what the latest state holds anyway.

use std::collections::BTreeMap;

use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1::Replacement;
use ledge_proto::v1::value::Value;
use ledge_proto::{mutants, v1};

use crate::policy::Degrade;

const MINUTE_US: i64 = 60_000_000;
/// Summaries must be worth it: with fewer records in for one out, a coarser method is taken.
const WORTH: u64 = 4;

/// A summary, and the last record in it, whose times it takes over.
#[derive(Debug, Default)]
struct Kept {
    summary: v1::SampleSummary,
    times: v1::Record,
}

/// What is kept of a stretch of records.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    degrade: Degrade,
    /// Of samples, by property, and by minute where averages are wanted.
    fresh: BTreeMap<(String, i64), Kept>,
    samples: u64,
    /// Of averages, by property. What they are about is older than any sample beside them.
    older: BTreeMap<String, Kept>,
    averages: u64,
    bytes: usize,
}

impl Summaries {
    pub(crate) fn new(degrade: Degrade) -> Self {
        Summaries {
            degrade,
            ..Summaries::default()
        }
    }

    /// About how much room the summaries take once encoded, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in a record that is about to go. Only samples and averages leave something behind.
    pub(crate) fn take(&mut self, record: &v1::Record) {
        if self.degrade == Degrade::None {
            return;
        }
        let before = self.fresh.len() + self.older.len();
        match RecordKind::from_wire(record.kind).map(|kind| (kind, Payload::decode(record))) {
            Some((RecordKind::Sample, Ok(Payload::Sample(sample)))) => {
                self.samples += 1;
                let into = self.fresh.entry(self.fresh_key(record)).or_default();
                into.take(&of_sample(sample.value, record.wall_us), record);
            }
            Some((RecordKind::SampleRun, Ok(Payload::SampleRun(run)))) => {
                self.samples += 1;
                let into = self.fresh.entry(self.fresh_key(record)).or_default();
                into.take(&of_run(run, record.wall_us), record);
            }
            Some((RecordKind::SampleSummary, Ok(Payload::SampleSummary(summary))))
                if summary.method() == Replacement::MinuteAverages =>
            {
                self.averages += 1;
                let into = self.older.entry(record.key.clone()).or_default();
                into.take(&summary, record);
            }
            _ => {}
        }
        if self.fresh.len() + self.older.len() > before {
            // Two times, three numbers and a value.
            self.bytes += record.key.len() + record.payload.len() + 96;
        }
    }

    /// Where a sample belongs; a run, where it ends.
    fn fresh_key(&self, record: &v1::Record) -> (String, i64) {
        let minute = match self.degrade {
            Degrade::Averages => record.wall_us.div_euclid(MINUTE_US),
            Degrade::Last | Degrade::None => 0,
        };
        (record.key.clone(), minute)
    }

    /// The summaries as records, and the finest method among them. None when they would not be worth their room.
    pub(crate) fn finish(self) -> (Replacement, Vec<v1::Record>) {
        let worth = |kept: usize, of: u64| kept > 0 && kept as u64 * WORTH <= of;
        let mut kept = Vec::new();
        let mut method = Replacement::None;
        let (mut last, mut behind_last) = (self.older, self.averages);
        if self.degrade == Degrade::Averages && worth(self.fresh.len(), self.samples) {
            method = Replacement::MinuteAverages;
            let averages = self.fresh.into_iter();
            kept.extend(averages.map(|((key, _), it)| it.record(key, Replacement::MinuteAverages)));
        } else {
            behind_last += self.samples;
            for ((key, _), fresh) in self.fresh {
                last.entry(key).or_default().take(&fresh.summary, &fresh.times);
            }
        }
        if worth(last.len(), behind_last) {
            if method == Replacement::None {
                method = Replacement::LastValue;
            }
            kept.extend(
                last.into_iter()
                    .map(|(key, it)| it.record(key, Replacement::LastValue)),
            );
        }
        (method, kept)
    }
}

impl Kept {
    /// Takes in what came later.
    fn take(&mut self, one: &v1::SampleSummary, times: &v1::Record) {
        merge(&mut self.summary, one);
        self.times = v1::Record {
            wall_us: times.wall_us,
            clock: times.clock,
            mono_us: times.mono_us,
            boot: times.boot,
            ..Default::default()
        };
    }

    fn record(mut self, key: String, method: Replacement) -> v1::Record {
        self.summary.set_method(method);
        if method == Replacement::LastValue {
            (self.summary.mean, self.summary.min, self.summary.max) = (None, None, None);
        }
        let (kind, payload) = Payload::SampleSummary(self.summary).encode();
        v1::Record {
            kind,
            key,
            payload: payload.into(),
            ..self.times
        }
    }
}

/// A summary of one sample.
fn of_sample(value: Option<v1::Value>, wall_us: i64) -> v1::SampleSummary {
    let number = value.as_ref().and_then(number);
    v1::SampleSummary {
        count: 1,
        from_us: wall_us,
        to_us: wall_us,
        mean: number,
        min: number,
        max: number,
        last: value,
        ..Default::default()
    }
}

/// A summary of a run that ended at `wall_us`.
fn of_run(run: v1::SampleRun, wall_us: i64) -> v1::SampleSummary {
    let span_us = i64::try_from(run.span_us).unwrap_or(i64::MAX);
    v1::SampleSummary {
        count: run.count,
        from_us: wall_us.saturating_sub(span_us),
        ..of_sample(run.value, wall_us)
    }
}

/// Takes `one`, which came later, into `into`.
fn merge(into: &mut v1::SampleSummary, one: &v1::SampleSummary) {
    if into.count == 0 {
        into.clone_from(one);
        return;
    }
    #[allow(clippy::cast_precision_loss, reason = "counts of samples stay far below 2^53")]
    let (have, more) = (into.count as f64, one.count as f64);
    into.mean = both(into.mean, one.mean, |a, b| {
        // Weighted without adding first: large values must not overflow.
        a * (have / (have + more)) + b * (more / (have + more))
    });
    into.min = both(into.min, one.min, f64::min);
    into.max = both(into.max, one.max, f64::max);
    into.count += one.count;
    into.from_us = into.from_us.min(one.from_us);
    into.to_us = into.to_us.max(one.to_us);
    if !mutants::on("degrade-loses-last") {
        into.last.clone_from(&one.last);
    }
}

/// Of those that are numbers.
fn both(a: Option<f64>, b: Option<f64>, of: impl Fn(f64, f64) -> f64) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(of(a, b)),
        (one, other) => one.or(other),
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "an average of integers beyond 2^53 is not exact"
)]
fn number(value: &v1::Value) -> Option<f64> {
    match value.value.as_ref()? {
        Value::Double(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        Value::String(_) | Value::Bytes(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(key: &str, wall_us: i64, value: Value) -> v1::Record {
        let (kind, payload) = Payload::Sample(v1::Sample {
            value: Some(v1::Value { value: Some(value) }),
        })
        .encode();
        v1::Record {
            kind,
            key: key.to_owned(),
            wall_us,
            payload: payload.into(),
            ..Default::default()
        }
    }

    fn kept(degrade: Degrade, records: &[v1::Record]) -> (Replacement, Vec<(v1::Record, v1::SampleSummary)>) {
        let mut summaries = Summaries::new(degrade);
        records.iter().for_each(|record| summaries.take(record));
        let (method, kept) = summaries.finish();
        let decode = |record: v1::Record| match Payload::decode(&record).unwrap() {
            Payload::SampleSummary(summary) => (record, summary),
            other => panic!("{other:?}"),
        };
        (method, kept.into_iter().map(decode).collect())
    }

    fn hour() -> Vec<v1::Record> {
        (0..3600)
            .map(|second| sample("d/p/t", second * 1_000_000, Value::Double(second as f64)))
            .collect()
    }

    #[test]
    fn an_hour_becomes_sixty_averages_and_then_one_value() {
        let (method, averages) = kept(Degrade::Averages, &hour());
        assert_eq!((method, averages.len()), (Replacement::MinuteAverages, 60));
        let (record, second_minute) = &averages[1];
        assert_eq!((&record.key[..], record.wall_us), ("d/p/t", 119_000_000));
        assert_eq!(second_minute.count, 60);
        assert!((second_minute.mean.unwrap() - 89.5).abs() < 1e-9);
        assert_eq!((second_minute.min, second_minute.max), (Some(60.0), Some(119.0)));
        assert_eq!(
            (second_minute.from_us, second_minute.to_us),
            (60_000_000, 119_000_000)
        );

        let again: Vec<v1::Record> = averages.iter().map(|(record, _)| record.clone()).collect();
        let (method, last) = kept(Degrade::Averages, &again);
        assert_eq!((method, last.len()), (Replacement::LastValue, 1));
        assert_eq!(last[0].1.count, 3600);
        assert_eq!(last[0].1.mean, None);
        assert_eq!(last[0].1.last.clone().unwrap().value, Some(Value::Double(3599.0)));
        // And then nothing: the latest state has it.
        let record = last[0].0.clone();
        assert_eq!(kept(Degrade::Averages, &vec![record; 9]).0, Replacement::None);
    }

    #[test]
    fn a_run_counts_as_its_readings() {
        let run = v1::SampleRun {
            value: Some(v1::Value {
                value: Some(Value::Double(4.0)),
            }),
            count: 300,
            span_us: 299_000_000,
            longest_us: 1_000_000,
        };
        let (kind, payload) = Payload::SampleRun(run).encode();
        let mut records = hour();
        records.push(v1::Record {
            kind,
            payload: payload.into(),
            ..sample("d/p/t", 3_900_000_000, Value::Double(4.0))
        });
        let (_, averages) = kept(Degrade::Averages, &records);
        let (record, run) = &averages[60];
        assert_eq!(
            (record.wall_us, run.count, run.mean),
            (3_900_000_000, 300, Some(4.0))
        );
        assert_eq!((run.from_us, run.to_us), (3_601_000_000, 3_900_000_000));
        let (_, last) = kept(Degrade::Last, &records);
        assert_eq!(last[0].1.count, 3900);
    }

    #[test]
    fn the_last_value_is_the_last_record_whatever_the_clock_did() {
        let mut records = hour();
        records.push(sample("d/p/t", -5, Value::Double(-1.0)));
        let (method, last) = kept(Degrade::Last, &records);
        assert_eq!((method, last.len()), (Replacement::LastValue, 1));
        assert_eq!(last[0].1.last.clone().unwrap().value, Some(Value::Double(-1.0)));
        assert_eq!((last[0].1.from_us, last[0].1.count), (-5, 3601));
    }

    #[test]
    fn text_has_no_average_but_a_last_value() {
        let records: Vec<_> = (0..100)
            .map(|n| sample("d/p/s", n, Value::String(format!("v{n}"))))
            .collect();
        let (_, averages) = kept(Degrade::Averages, &records);
        assert_eq!(averages.len(), 1);
        assert_eq!((averages[0].1.mean, averages[0].1.count), (None, 100));
        assert_eq!(
            averages[0].1.last.clone().unwrap().value,
            Some(Value::String("v99".into()))
        );
    }

    #[test]
    fn summaries_that_save_nothing_are_not_made() {
        // One sample a minute: averages would be as many; the last value is not.
        let slow: Vec<_> = (0..60)
            .map(|n| sample("d/p/t", n * 60_000_000, Value::Int(n)))
            .collect();
        let (method, kept_of_it) = kept(Degrade::Averages, &slow);
        assert_eq!((method, kept_of_it.len()), (Replacement::LastValue, 1));
        // A hundred properties with one sample each: nothing is saved at all.
        let wide: Vec<_> = (0..100)
            .map(|n| sample(&format!("d/p/{n}"), n, Value::Int(n)))
            .collect();
        assert_eq!(kept(Degrade::Averages, &wide), (Replacement::None, vec![]));
        assert_eq!(kept(Degrade::None, &hour()), (Replacement::None, vec![]));
    }

    #[test]
    fn large_values_do_not_overflow() {
        let records: Vec<_> = (0..10)
            .map(|n| sample("d/p/t", n, Value::Double(f64::MAX)))
            .collect();
        let (_, averages) = kept(Degrade::Averages, &records);
        assert!(averages[0].1.mean.unwrap().is_finite());
    }
}
