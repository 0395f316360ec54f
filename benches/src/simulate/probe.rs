//! Looks at a copy of a disk: what would happen if.

use std::collections::HashMap;
use std::path::PathBuf;

use ledge_log::storage::sim::{CrashKeeps, Rng};
use ledge_log::{Log, ReadError, RefillError, SimDisk, Storage};
use ledge_proto::ids::{Mark, Seq, StreamKey};

use super::machine::{Machine, MachineId};
use super::violation::{Checked, Violation, ensure};
use super::world::World;

impl World {
    /// The power goes now, and the machine keeps nothing that was not synced: what it promised is there.
    pub(super) fn probe_crash(&mut self, id: MachineId, key: &StreamKey, mark: Mark) -> Checked {
        let machine = &self.machines[id];
        let copy = machine.disk.after_crash(&CrashKeeps::Nothing);
        copy.heal();
        let (log, _) = machine.open_copy(&copy, 0).map_err(|err| {
            Violation::new("opens-again", format!("{} after a crash: {err}", machine.label))
        })?;
        self.check_duty(&machine.label, &log, key, mark)
    }

    /// A bit of a stopped machine's log flips: that is found out when the log is opened or when it is read, or it
    /// makes no difference. Only the very last block may be taken for one that was never written whole.
    pub(super) fn probe_rot(&mut self, id: MachineId) -> Checked {
        let machine = &self.machines[id];
        let sound = machine.disk.after_kill();
        sound.heal();
        let Ok((log, _)) = machine.open_copy(&sound, 0) else {
            return Ok(()); // Opening it in earnest says why.
        };
        let last = log.durable_block();
        // What an append that failed left behind may be there, too, and nobody is told of it before the next start.
        let there: HashMap<StreamKey, Vec<Mark>> = machine
            .duties
            .keys()
            .map(|key| (key.clone(), marks_of(&log, key)))
            .collect();
        drop(log);
        let rotten = machine.disk.after_kill();
        rotten.heal();
        let Some((path, at)) = flip(&rotten, &mut self.looks) else {
            return Ok(());
        };
        let machine = &self.machines[id];
        let place = format!("{} byte {at} of {}", machine.label, path.display());
        let Ok((log, recovery)) = machine.open_copy(&rotten, 0) else {
            return Ok(());
        };
        // What was never acknowledged may have survived a crash, and goes with the rot.
        let end = log.durable_block();
        let only_last = end.next() >= last && recovery.torn_at.is_none_or(|torn| torn >= last);
        let keeps = machine
            .duties
            .iter()
            .all(|(key, duty)| self.check_duty(&machine.label, &log, key, *duty).is_ok());
        ensure(only_last || keeps, "I4-rot-is-detected", || {
            format!(
                "{place}: cut off after {end} ({:?}), block {last} was durable",
                recovery.torn_at
            )
        })?;
        if recovery.torn_at.is_some() || end < last {
            return Ok(());
        }
        for (key, duty) in &machine.duties {
            self.check_rotten(&log, key, *duty, (&there[key], &place))?;
        }
        Ok(())
    }

    /// A bit of a stopped machine's log flips, and the log is opened all the same, with what it cannot read in quarantine.
    /// Whoever else holds those frames gives them: what comes back is what was there, whatever is offered.
    pub(super) fn probe_refill(&mut self, id: MachineId) -> Checked {
        let machine = &self.machines[id];
        let sound = machine.disk.after_kill();
        sound.heal();
        let Ok((log, _)) = machine.open_copy(&sound, 0) else {
            return Ok(()); // Opening it in earnest says why.
        };
        let there: HashMap<StreamKey, Vec<Mark>> = log
            .streams()
            .into_iter()
            .map(|info| (info.key.clone(), marks_of(&log, &info.key)))
            .collect();
        drop(log);
        let rotten = machine.disk.after_kill();
        rotten.heal();
        let Some((path, at)) = flip(&rotten, &mut self.looks) else {
            return Ok(());
        };
        let machine = &self.machines[id];
        let place = format!("{} byte {at} of {}", machine.label, path.display());
        let Ok((log, recovery)) = machine.open_in_quarantine(&rotten) else {
            return Ok(());
        };
        if recovery.torn_at.is_some() {
            return Ok(());
        }
        // Readers find what opening does not look at.
        for key in there.keys() {
            marks_of(&log, key);
        }
        let missing = log.quarantined();
        if missing.is_empty() {
            return Ok(());
        }
        for lost in &missing {
            for peer in &self.machines {
                let Some(process) = &peer.process else { continue };
                let mut reader = process
                    .log
                    .read_stream(&lost.key, Seq(lost.first.0.saturating_sub(1)));
                while let Ok(Some(frame)) = reader.next() {
                    let whole = frame.last_seq() >= lost.last;
                    // Of a copy that went its own way it may be another history, which is refused.
                    if let Err(RefillError::Append(err)) = log.refill(frame) {
                        return Err(Violation::new("refill", format!("{place}: {err}")));
                    }
                    if whole {
                        break;
                    }
                }
            }
        }
        let whole = log.quarantined().is_empty() && log.stats().damaged == 0;
        for (key, marks) in &there {
            let read = marks_of(&log, key);
            let as_it_was = read == *marks || !whole && read.iter().all(|mark| marks.contains(mark));
            ensure(as_it_was, "refill", || {
                format!("{place}: {key} has {read:?} after {missing:?} came back, and had {marks:?}")
            })?;
        }
        self.count_event(if whole { "rot-refilled" } else { "rot-not-held" });
        Ok(())
    }

    /// A stream of a log with rot in it: an error of reading, or what was written.
    fn check_rotten(
        &self,
        log: &Log,
        key: &StreamKey,
        duty: Mark,
        (there, place): (&[Mark], &str),
    ) -> Checked {
        let mut reader = log.read_stream(key, Seq::ZERO);
        let mut last = None;
        loop {
            match reader.next() {
                Ok(Some(frame)) => {
                    let mark = frame.mark();
                    let written = there.contains(&mark) || self.oracle.was_written(key, mark);
                    ensure(written, "I4-rot-is-detected", || {
                        format!("{place}: {key} {} is read, and nobody wrote it", mark.position)
                    })?;
                    last = Some(mark);
                }
                Ok(None) => break,
                Err(ReadError::Jump { .. }) => reader.skip_jump(),
                Err(_) => return Ok(()),
            }
        }
        // An epoch may have begun with a snapshot behind the last record: its checksum was compared when it was opened.
        let durable = log.durable(key);
        let end = match (last, durable) {
            (Some(last), Some(durable)) if durable.position.seq > last.position.seq => Some(last),
            _ => durable,
        };
        ensure(
            end.is_some_and(|end| end.position >= duty.position),
            "I4-rot-is-detected",
            || {
                format!(
                    "{place}: {key} ends at {end:?}, {} was acknowledged",
                    duty.position
                )
            },
        )
    }
}

/// Flips a bit of a log, and says where.
fn flip(disk: &SimDisk, looks: &mut Rng) -> Option<(PathBuf, usize)> {
    let dir = Machine::dir();
    let names: Vec<String> = disk.list(&dir).unwrap_or_default();
    let segments: Vec<&String> = names.iter().filter(|name| name.starts_with("seg-")).collect();
    if segments.is_empty() {
        return None;
    }
    let path = dir.join(segments[looks.index(segments.len())]);
    let mut at = 0;
    disk.corrupt(&path, |bytes| {
        // Where something is written: zeros tell nothing.
        for _ in 0..8 {
            at = looks.index(bytes.len());
            if bytes[at] != 0 {
                break;
            }
        }
        bytes[at] ^= 1 << looks.below(8);
    });
    Some((path, at))
}

/// Where the frames of a stream end, as far as it can be read.
fn marks_of(log: &Log, key: &StreamKey) -> Vec<Mark> {
    let mut reader = log.read_stream(key, Seq::ZERO);
    let mut marks = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(frame)) => marks.push(frame.mark()),
            Err(ReadError::Jump { .. }) => reader.skip_jump(),
            Ok(None) | Err(_) => return marks,
        }
    }
}
