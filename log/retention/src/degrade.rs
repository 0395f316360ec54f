//! What takes the place of telemetry that is about to go: per property and minute its average, or its last value.
//!
//! Pure: records in, summaries out. Summaries of summaries are coarser: an average becomes a last value, and of a last
//! value nothing is kept but what the latest state holds anyway.

use std::collections::BTreeMap;

use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1::sample_summary::Method;
use ledge_proto::v1::value::Value;
use ledge_proto::{mutants, v1};

use crate::policy::Degrade;

const MINUTE_US: i64 = 60_000_000;
/// Summaries must be worth it: with fewer records in for one out, a coarser method is taken.
const WORTH: u64 = 4;

/// What is kept of a stretch of records.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    degrade: Degrade,
    /// Of samples, by property, and by minute where averages are wanted.
    fresh: BTreeMap<(String, i64), v1::SampleSummary>,
    samples: u64,
    /// Of averages, by property. What they are about is older than any sample beside them.
    older: BTreeMap<String, v1::SampleSummary>,
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
                let minute = match self.degrade {
                    Degrade::Averages => record.wall_us.div_euclid(MINUTE_US),
                    Degrade::Last | Degrade::None => 0,
                };
                let into = self.fresh.entry((record.key.clone(), minute)).or_default();
                merge(into, &of_sample(sample, record.wall_us));
            }
            Some((RecordKind::SampleSummary, Ok(Payload::SampleSummary(summary))))
                if summary.method() == Method::MinuteAverage =>
            {
                self.averages += 1;
                merge(self.older.entry(record.key.clone()).or_default(), &summary);
            }
            _ => {}
        }
        if self.fresh.len() + self.older.len() > before {
            // Two times, three numbers and a value.
            self.bytes += record.key.len() + record.payload.len() + 96;
        }
    }

    /// The summaries, and the finest method among them. None when they would not be worth their room.
    pub(crate) fn finish(self) -> (Method, Vec<(String, v1::SampleSummary)>) {
        let worth = |kept: usize, of: u64| kept > 0 && kept as u64 * WORTH <= of;
        let mut kept = Vec::new();
        let mut method = Method::None;
        let (mut last, mut behind_last) = (self.older, self.averages);
        if self.degrade == Degrade::Averages && worth(self.fresh.len(), self.samples) {
            method = Method::MinuteAverage;
            kept.extend(self.fresh.into_iter().map(|((key, _), mut summary)| {
                summary.set_method(Method::MinuteAverage);
                (key, summary)
            }));
        } else {
            behind_last += self.samples;
            for ((key, _), summary) in self.fresh {
                merge(last.entry(key).or_default(), &summary);
            }
        }
        if worth(last.len(), behind_last) {
            method = if method == Method::None { Method::LastValue } else { method };
            kept.extend(last.into_iter().map(|(key, mut summary)| {
                summary.set_method(Method::LastValue);
                (summary.mean, summary.min, summary.max) = (None, None, None);
                (key, summary)
            }));
        }
        (method, kept)
    }
}

/// A summary of one sample.
fn of_sample(sample: v1::Sample, wall_us: i64) -> v1::SampleSummary {
    let number = sample.value.as_ref().and_then(number);
    v1::SampleSummary {
        count: 1,
        first_us: wall_us,
        last_us: wall_us,
        mean: number,
        min: number,
        max: number,
        last: sample.value,
        ..Default::default()
    }
}

/// Takes `one`, which came later, into `into`.
fn merge(into: &mut v1::SampleSummary, one: &v1::SampleSummary) {
    if into.count == 0 {
        into.clone_from(one);
        return;
    }
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of samples stay far below 2^53"
    )]
    let (have, more) = (into.count as f64, one.count as f64);
    into.mean = both(into.mean, one.mean, |a, b| {
        // Weighted without adding first: large values must not overflow.
        a * (have / (have + more)) + b * (more / (have + more))
    });
    into.min = both(into.min, one.min, f64::min);
    into.max = both(into.max, one.max, f64::max);
    into.count += one.count;
    into.first_us = into.first_us.min(one.first_us);
    into.last_us = into.last_us.max(one.last_us);
    if !mutants::on("degrade-loses-last") {
        into.last.clone_from(&one.last);
    }
}

/// A value that is a number in one sample and none in another has no average.
fn both(a: Option<f64>, b: Option<f64>, of: impl Fn(f64, f64) -> f64) -> Option<f64> {
    Some(of(a?, b?))
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

    fn kept(degrade: Degrade, records: &[v1::Record]) -> (Method, Vec<(String, v1::SampleSummary)>) {
        let mut summaries = Summaries::new(degrade);
        records.iter().for_each(|record| summaries.take(record));
        summaries.finish()
    }

    fn hour() -> Vec<v1::Record> {
        (0..3600)
            .map(|second| sample("d/p/t", second * 1_000_000, Value::Double(second as f64)))
            .collect()
    }

    #[test]
    fn an_hour_becomes_sixty_averages_and_then_one_value() {
        let (method, averages) = kept(Degrade::Averages, &hour());
        assert_eq!((method, averages.len()), (Method::MinuteAverage, 60));
        let (key, second_minute) = &averages[1];
        assert_eq!(key, "d/p/t");
        assert_eq!(second_minute.count, 60);
        assert!((second_minute.mean.unwrap() - 89.5).abs() < 1e-9);
        assert_eq!((second_minute.min, second_minute.max), (Some(60.0), Some(119.0)));
        assert_eq!(
            (second_minute.first_us, second_minute.last_us),
            (60_000_000, 119_000_000)
        );

        let again: Vec<v1::Record> = averages
            .iter()
            .map(|(key, summary)| {
                let (kind, payload) = Payload::SampleSummary(summary.clone()).encode();
                v1::Record {
                    kind,
                    key: key.clone(),
                    payload: payload.into(),
                    ..Default::default()
                }
            })
            .collect();
        let (method, last) = kept(Degrade::Averages, &again);
        assert_eq!((method, last.len()), (Method::LastValue, 1));
        assert_eq!(last[0].1.count, 3600);
        assert_eq!(last[0].1.mean, None);
        assert_eq!(
            last[0].1.last.clone().unwrap().value,
            Some(Value::Double(3599.0))
        );
        // And then nothing: the latest state has it.
        let (kind, payload) = Payload::SampleSummary(last[0].1.clone()).encode();
        let record = v1::Record {
            kind,
            payload: payload.into(),
            ..Default::default()
        };
        assert_eq!(kept(Degrade::Averages, &vec![record; 9]).0, Method::None);
    }

    #[test]
    fn the_last_value_is_the_last_record_whatever_the_clock_did() {
        let mut records = hour();
        records.push(sample("d/p/t", -5, Value::Double(-1.0)));
        let (method, last) = kept(Degrade::Last, &records);
        assert_eq!((method, last.len()), (Method::LastValue, 1));
        assert_eq!(last[0].1.last.clone().unwrap().value, Some(Value::Double(-1.0)));
        assert_eq!((last[0].1.first_us, last[0].1.count), (-5, 3601));
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
        assert_eq!((method, kept_of_it.len()), (Method::LastValue, 1));
        // A hundred properties with one sample each: nothing is saved at all.
        let wide: Vec<_> = (0..100)
            .map(|n| sample(&format!("d/p/{n}"), n, Value::Int(n)))
            .collect();
        assert_eq!(kept(Degrade::Averages, &wide), (Method::None, vec![]));
        assert_eq!(kept(Degrade::None, &hour()), (Method::None, vec![]));
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
