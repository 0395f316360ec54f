//! What a daemon does with its log by itself: it gives up the oldest when there is no more room.

use ledge_proto::ids::{Lane, Seq, StreamKey};
use ledge_proto::v1;
use ledge_retention::{Outcome, RetentionError};

use super::machine::{Machine, MachineId};
use super::violation::{Checked, Violation, ensure};
use super::world::{World, note};

/// Segments given up at once, at most.
const AT_ONCE: usize = 8;

impl World {
    /// What a daemon does that is told of every change of the room there is.
    pub(super) fn retain_if_blocked(&mut self, id: MachineId) -> Checked {
        let machine = &self.machines[id];
        let blocked = |process: &super::machine::Process| process.log.room().blocked.is_some();
        if (machine.limit.is_some() || self.crowded(id)) && machine.process.as_ref().is_some_and(blocked) {
            return self.retain(id);
        }
        Ok(())
    }

    /// A gap was written down, as far as the machine knows.
    pub(super) fn gap_declared(&mut self, id: MachineId) {
        self.machines[id].gap_in_lie |= self.machines[id].lie.is_some();
    }

    /// Whether others fill the machine's disk.
    fn crowded(&self, id: MachineId) -> bool {
        let disk = &self.machines[id].disk;
        ledge_log::Storage::free_bytes(disk, &Machine::dir())
            .is_ok_and(|free| free < self.machines[id].segment_bytes)
    }

    /// Gives up segments until there is room.
    pub(super) fn retain(&mut self, id: MachineId) -> Checked {
        for _ in 0..AT_ONCE {
            let now = self.stamp(id);
            let machine = &mut self.machines[id];
            let is_cloud = machine.scope.is_none();
            let Some(process) = &mut machine.process else {
                return Ok(());
            };
            let log = process.log.clone();
            let told = &process.archived;
            // Without an archive, what the cloud holds counts as archived.
            let archived = |key: &StreamKey| match is_cloud {
                true => log.durable(key).map_or(Seq::ZERO, |mark| mark.position.seq),
                false => told.get(key).copied().unwrap_or(Seq::ZERO),
            };
            let outcome = process.retention.step(&log, &archived, now);
            match outcome {
                Ok(Outcome::GaveUp(gone)) => {
                    note!(self, "{} gives up {gone:?}", self.machines[id].label);
                    self.count_event("segments-given-up");
                    self.gap_declared(id);
                    for stream in self.written_by(id) {
                        self.harvest(id, &stream, true)?;
                    }
                    self.fold(id)?;
                    self.check_gaps(id)?;
                }
                Ok(Outcome::Nothing) => break,
                Ok(other) => {
                    note!(
                        self,
                        "{} keeps its oldest segment: {other:?}",
                        self.machines[id].label
                    );
                    break;
                }
                Err(RetentionError::Append(err)) => {
                    // What it appended before that is there: a gap record in the reserve, say.
                    if !self.machines[id].disk.has_crashed() {
                        for stream in self.written_by(id) {
                            self.harvest(id, &stream, true)?;
                        }
                    }
                    return self.append_failed(id, &err);
                }
                Err(err) => {
                    if self.machines[id].disk.has_crashed() {
                        return self.power_loss(id);
                    }
                    note!(
                        self,
                        "{} cannot give up its oldest segment: {err}",
                        self.machines[id].label
                    );
                    let passes = matches!(
                        &err,
                        RetentionError::Recycle(ledge_log::RecycleError::File(_)) | RetentionError::Read(_)
                    );
                    return if passes {
                        self.kill(id)
                    } else {
                        Err(Violation::new(
                            "retention",
                            format!("{}: {err}", self.machines[id].label),
                        ))
                    };
                }
            }
        }
        self.check_room(id)
    }

    /// The log keeps to its limit.
    fn check_room(&self, id: MachineId) -> Checked {
        let machine = &self.machines[id];
        let Some(limit) = machine.limit else { return Ok(()) };
        let used = machine.disk.used();
        ensure(used <= limit, "bounded", || {
            format!("{} uses {used} bytes, its limit is {limit}", machine.label)
        })
    }

    /// Telemetry that an edge no longer holds was archived, or a gap says that it is gone.
    pub(super) fn check_gaps(&self, id: MachineId) -> Checked {
        let machine = &self.machines[id];
        let (Some(process), Some(scope)) = (&machine.process, &machine.scope) else {
            return Ok(());
        };
        for info in process.log.streams() {
            let own = info.key.incarnation == process.log.identity().incarnation;
            if !own || info.key.id.lane != Lane::UpData || info.key.id.scope != *scope {
                continue;
            }
            let archived = machine.ever_archived.get(&info.key).copied().unwrap_or(Seq::ZERO);
            let mut gone = Ranges::default();
            gone.add(1, archived.0);
            for gap in self.gaps(id, &info.key)? {
                gone.add(gap.first_seq, gap.last_seq);
            }
            if let Some(missing) = gone.first_missing(1, info.first_seq.0.saturating_sub(1)) {
                return Err(Violation::new(
                    "gaps-are-declared",
                    format!(
                        "{}: {} {missing} is gone, and no gap says so",
                        machine.label, info.key
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The gaps a machine knows of in a stream.
    pub(super) fn gaps(&self, id: MachineId, key: &StreamKey) -> Checked<Vec<v1::Gap>> {
        let gaps = ledge_proto::fold::view::gaps(&self.machines[id].projection.state, &key.id.scope)
            .map_err(|err| Violation::new("I7-replay", err.to_string()))?;
        Ok(gaps
            .into_iter()
            .map(|(_, gap)| gap.content)
            .filter(|gap| gap.lane == key.id.lane.as_wire())
            .collect())
    }
}

/// Sequence numbers, as ranges.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges(std::collections::BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `first` to `last`; nothing when `last` is before `first`.
    pub(super) fn add(&mut self, mut first: u64, mut last: u64) {
        if last < first {
            return;
        }
        while let Some((from, to)) = self
            .0
            .range(..=last.saturating_add(1))
            .next_back()
            .map(|(a, b)| (*a, *b))
        {
            if to.saturating_add(1) < first {
                break;
            }
            first = first.min(from);
            last = last.max(to);
            self.0.remove(&from);
        }
        self.0.insert(first, last);
    }

    /// The first of `first` to `last` that is not in here.
    pub(super) fn first_missing(&self, first: u64, last: u64) -> Option<u64> {
        if last < first {
            return None;
        }
        match self.0.range(..=first).next_back() {
            Some((_, to)) if *to >= last => None,
            Some((_, to)) if *to >= first => Some(to + 1),
            _ => Some(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let mut ranges = Ranges::default();
        ranges.add(5, 7);
        ranges.add(1, 2);
        assert_eq!(ranges.first_missing(1, 7), Some(3));
        ranges.add(3, 4);
        assert_eq!(ranges.first_missing(1, 7), None);
        assert_eq!(ranges.first_missing(2, 9), Some(8));
        ranges.add(9, 8);
        assert_eq!(ranges.first_missing(8, 8), Some(8));
    }
}
