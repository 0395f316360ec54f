//! One cycle of a device: read what is due, record it, report changes, then see to the wishes.

use std::time::Duration;

use ledge_proto::record::Payload;
use ledge_proto::v1;
use tokio::time::Instant;

use super::device::{DeviceTask, event};
use super::health::Condition;
use super::modbus::{CallError, Range, Raw};
use super::property::{Group, groups};
use crate::twin::report::Run;
use crate::twin::{Journal, NewRecord, Stamp};

/// Shortest time between two events that tell of missed ticks.
const SKIPPED_EVENT_EVERY: Duration = Duration::from_secs(60);

/// What a cycle found at one property.
struct Reading {
    index: usize,
    raw: Result<Raw, CallError>,
    stamp: Stamp,
}

impl<J: Journal> DeviceTask<J> {
    /// Runs one cycle.
    pub(super) async fn cycle(&mut self) {
        let now = Instant::now();
        let ticks = self.take_due(now);
        let due = ticks
            .iter()
            .filter_map(|(index, _)| self.properties[*index].range().map(|range| (*index, range)))
            .collect();
        let readings = self.read(groups(due, self.together)).await;
        if readings.is_empty() {
            return;
        }
        let held = self.keep(readings, &ticks).await;
        for (index, raw) in held {
            if self.stop.is_cancelled() || !self.health.may_be_online() {
                break;
            }
            self.reconcile(index, raw).await;
        }
        self.tell_skipped(now).await;
    }

    /// The properties to read now, each with its tick if it is for one.
    fn take_due(&mut self, now: Instant) -> Vec<(usize, Option<Instant>)> {
        let awake = self.health.may_be_online();
        let mut due = Vec::new();
        for (index, property) in self.properties.iter_mut().enumerate() {
            if property.point.is_err() {
                continue;
            }
            let wanted = property.look || property.reconciler.retry_at().is_some_and(|retry| retry <= now);
            let tick = property.ticks.take(now).map(|(tick, missed)| {
                // While it does not answer, that is what the log says.
                self.skipped.ticks += if awake { missed } else { 0 };
                tick
            });
            if wanted || tick.is_some() {
                due.push((index, tick));
            }
        }
        if due.is_empty() && self.health.probe_at().is_some() {
            due.extend(
                self.properties
                    .iter()
                    .position(|property| property.point.is_ok())
                    .map(|i| (i, None)),
            );
        }
        due
    }

    /// Asks the device. Stops at the first sign that it does not answer.
    async fn read(&mut self, groups: Vec<Group>) -> Vec<Reading> {
        let mut readings = Vec::new();
        let mut queue: std::collections::VecDeque<Group> = groups.into();
        while let Some(group) = queue.pop_front() {
            if self.stop.is_cancelled() {
                break;
            }
            match self.ask(group.range).await {
                Err(err) if err.is_of_device() => {
                    self.lost(&err).await;
                    return readings;
                }
                Err(_) if group.members.len() > 1 => {
                    // Some devices do not allow reading across the borders of their own values.
                    self.together = false;
                    queue.extend(group.members.into_iter().map(|member| Group {
                        range: member.1,
                        members: vec![member],
                    }));
                }
                answer => {
                    let stamp = self.shared.clock.stamp();
                    readings.extend(group.members.iter().map(|(index, range)| {
                        let raw = answer.clone().map(|raw| part(&raw, group.range, *range));
                        Reading {
                            index: *index,
                            raw,
                            stamp,
                        }
                    }));
                }
            }
        }
        if !readings.is_empty() && self.health.answered() {
            self.tell_health("").await;
            // It may have come back with its factory settings.
            for property in &mut self.properties {
                property.look = property.reconciler.wish().is_some();
            }
        }
        readings
    }

    /// Reads once, and once more when the device was fine until now: it may just have closed an idle connection.
    async fn ask(&self, range: Range) -> Result<Raw, CallError> {
        let Ok((connection, unit)) = &self.link else {
            return Err(CallError::Closed);
        };
        match connection.read(*unit, self.timeout, range).await {
            Err(CallError::NoAnswer(_) | CallError::Broken(_) | CallError::Malformed(_))
                if self.health.may_be_online() =>
            {
                connection.read(*unit, self.timeout, range).await
            }
            answer => answer,
        }
    }

    /// The device does not answer.
    pub(super) async fn lost(&mut self, err: &CallError) {
        let condition = if matches!(err, CallError::Malformed(_)) {
            Condition::Unhealthy
        } else {
            Condition::Offline
        };
        self.health.failed(condition, Instant::now());
        // Up to here it was so; the first reading afterwards is a sample.
        let ended = self.properties.iter_mut();
        let ended = ended.filter_map(|property| run_record(&property.key, property.sampler.reset()));
        let ended = ended.collect();
        self.shared.recorder.data(ended).await;
        self.tell_health(&err.to_string()).await;
    }

    /// Records what was read: samples, reports, and properties that have gone bad or good. Returns what writable
    /// properties with a wish hold.
    async fn keep(
        &mut self,
        readings: Vec<Reading>,
        ticks: &[(usize, Option<Instant>)],
    ) -> Vec<(usize, Raw)> {
        let (mut data, mut state, mut held) = (Vec::new(), Vec::new(), Vec::new());
        let now = Instant::now();
        for Reading { index, raw, stamp } in readings {
            let tick = ticks
                .iter()
                .find(|(i, _)| *i == index)
                .and_then(|(_, tick)| *tick);
            let property = &mut self.properties[index];
            property.look = false;
            let Ok(point) = &property.point else { continue };
            let decoded = raw.map_err(|err| err.to_string()).and_then(|raw| {
                point
                    .decode(&raw)
                    .map(|v| (raw, v))
                    .map_err(|err| err.to_string())
            });
            let (raw, value) = match decoded {
                Ok(read) => read,
                Err(reason) => {
                    property.reconciler.postpone(now, &self.shared.writes);
                    data.extend(run_record(&property.key, property.sampler.reset()));
                    if property.trouble.as_ref() != Some(&reason) {
                        data.push(event(&property.key, "PropertyUnreadable", reason.clone(), stamp));
                        property.trouble = Some(reason);
                    }
                    continue;
                }
            };
            if property.trouble.take().is_some() {
                data.push(event(&property.key, "PropertyReadable", String::new(), stamp));
            }
            if property.report
                && property.reporter.observe(
                    &value,
                    tick.unwrap_or(now),
                    property.report_every(&self.shared.unchanged),
                )
            {
                state.push(reported(&property.key, value.clone(), stamp));
            }
            if let Some(tick) = tick {
                let longest = self.shared.unchanged.samples;
                let (run, is_sample) = property.sampler.observe(&value, tick, stamp, longest);
                data.extend(run_record(&property.key, run));
                if is_sample {
                    data.push(NewRecord {
                        key: property.key.clone(),
                        payload: Payload::Sample(v1::Sample { value: Some(value) }),
                        stamp,
                        cause: None,
                    });
                }
            }
            if point.writable && property.reconciler.wish().is_some() {
                held.push((index, raw));
            }
        }
        self.shared.recorder.data(data).await;
        self.shared.recorder.state(state).await;
        held
    }

    /// Tells of ticks that were missed because the device or the log was slower than the collect cycles.
    async fn tell_skipped(&mut self, now: Instant) {
        let recently = self
            .skipped
            .told_at
            .is_some_and(|at| now.duration_since(at) < SKIPPED_EVENT_EVERY);
        if self.skipped.ticks == 0 || recently {
            return;
        }
        let ticks = std::mem::take(&mut self.skipped.ticks);
        self.skipped.told_at = Some(now);
        let message =
            format!("{ticks} samples not taken: the device or the log is slower than the collect cycles");
        let event = event(&self.key, "SamplesSkipped", message, self.shared.clock.stamp());
        self.shared.recorder.data(vec![event]).await;
    }
}

/// What is recorded of a run that ended.
pub(super) fn run_record(key: &str, run: Option<Run>) -> Option<NewRecord> {
    let run = run?;
    Some(NewRecord {
        key: key.to_owned(),
        stamp: run.stamp(),
        payload: run.payload(),
        cause: None,
    })
}

/// A `TwinReported` record.
pub(super) fn reported(key: &str, value: v1::Value, stamp: Stamp) -> NewRecord {
    let payload = Payload::TwinReported(v1::TwinReported { value: Some(value) });
    NewRecord {
        key: key.to_owned(),
        payload,
        stamp,
        cause: None,
    }
}

/// The registers or bits of `range` out of those of `whole`, which contains it.
fn part(raw: &Raw, whole: Range, range: Range) -> Raw {
    let from = usize::from(range.first.saturating_sub(whole.first));
    let to = from + usize::from(range.count);
    match raw {
        Raw::Words(words) => Raw::Words(words.get(from..to).unwrap_or_default().to_vec()),
        Raw::Bits(bits) => Raw::Bits(bits.get(from..to).unwrap_or_default().to_vec()),
    }
}
