//! What must hold: every frame ever written, and what was promised about it.

use std::collections::{BTreeMap, BTreeSet};

use ledge_log::{Log, ReadError};
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Chain, Epoch, Mark, Position, Seq, StreamKey};

use super::machine::MachineId;
use super::violation::{Checked, Violation, ensure};

/// Everything that was ever written, by whom it follows. A chain stands for all that came before it, so that a
/// chain that is in here is a history some writer really wrote.
#[derive(Default)]
pub(super) struct Oracle {
    written: BTreeMap<Chain, Written>,
    /// Where in which stream each record of telemetry was written, more than once where an epoch began anew.
    places: BTreeMap<u64, Vec<(StreamKey, Seq)>>,
    /// Disks that went on with each stream under a new epoch.
    went_on: BTreeMap<StreamKey, BTreeSet<(MachineId, u32)>>,
    /// Where writers went on under a new epoch.
    begun: BTreeSet<(StreamKey, Position, Chain)>,
}

struct Written {
    key: StreamKey,
    first: Position,
    last: Position,
    /// The frame before, in the same stream.
    after: Chain,
}

impl Oracle {
    /// Takes in a frame read from its writer's own log, which follows `after`.
    pub(super) fn write(&mut self, frame: &Frame, after: Chain) {
        let first = Position {
            epoch: frame.epoch(),
            seq: frame.first_seq(),
        };
        self.written.entry(frame.chain()).or_insert_with(|| Written {
            key: frame.key().clone(),
            first,
            last: frame.mark().position,
            after,
        });
    }

    /// A disk went on with `key` under a new epoch.
    pub(super) fn go_on(&mut self, key: &StreamKey, machine: MachineId, disk: u32) {
        self.went_on
            .entry(key.clone())
            .or_default()
            .insert((machine, disk));
    }

    /// Whether more than one disk went on with `key`, each under an epoch of its own.
    pub(super) fn went_on_twice(&self, key: &StreamKey) -> bool {
        self.went_on.get(key).is_some_and(|disks| disks.len() > 1)
    }

    /// Record `id` was written in `key`.
    pub(super) fn place(&mut self, id: u64, key: &StreamKey, seq: Seq) {
        self.places.entry(id).or_default().push((key.clone(), seq));
    }

    /// Where record `id` was written in `key`.
    pub(super) fn places<'a>(&'a self, id: u64, key: &'a StreamKey) -> impl Iterator<Item = Seq> + 'a {
        let places = self.places.get(&id).into_iter().flatten();
        places.filter(move |(of, _)| of == key).map(|(_, seq)| *seq)
    }

    /// A writer went on under a new epoch at `mark`.
    pub(super) fn begin(&mut self, key: &StreamKey, mark: Mark) {
        self.begun.insert((key.clone(), mark.position, mark.chain));
    }

    /// Whether some writer of `key` ever stood at `mark`.
    pub(super) fn was_written(&self, key: &StreamKey, mark: Mark) -> bool {
        if mark.position.seq == Seq::ZERO && mark.position.epoch <= Epoch::FIRST {
            return mark.chain == key.genesis_chain();
        }
        if self.begun.contains(&(key.clone(), mark.position, mark.chain)) {
            return true;
        }
        self.written
            .get(&mark.chain)
            .is_some_and(|written| written.key == *key && written.last == mark.position)
    }

    /// Whether the history that ends with `later` goes through `earlier`.
    pub(super) fn continues(&self, key: &StreamKey, earlier: Mark, later: Mark) -> bool {
        let mut at = later.chain;
        loop {
            if at == earlier.chain {
                return true;
            }
            match self.written.get(&at) {
                Some(written) if written.key == *key && written.first.seq > earlier.position.seq => {
                    at = written.after;
                }
                _ => return false,
            }
        }
    }

    /// Reads all of a stream that a log holds and checks every frame: dense, chained, written by its writer.
    pub(super) fn check_stream(&self, name: &str, log: &Log, key: &StreamKey) -> Checked {
        let Some(end) = log.durable(key) else {
            return Ok(());
        };
        let broken = |what: String| Violation::new("I1-dense", format!("{name} {key}: {what}"));
        let mut reader = log.read_stream(key, Seq::ZERO);
        let mut last: Option<Mark> = None;
        loop {
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(ReadError::Jump {
                    snapshot,
                    resume_after,
                    ..
                }) => {
                    let mark = snapshot.map(|at| at.mark);
                    last = mark.filter(|mark| mark.position.seq == resume_after);
                    reader.skip_jump();
                    continue;
                }
                Err(err) => return Err(broken(format!("cannot be read to its end: {err}"))),
            };
            if let Some(last) = last {
                ensure(frame.first_seq() == last.position.seq.next(), "I1-dense", || {
                    format!(
                        "{name} {key}: frame {} after {}",
                        frame.first_seq(),
                        last.position
                    )
                })?;
                frame
                    .follows(last.chain)
                    .map_err(|err| broken(format!("frame {}: {err}", frame.first_seq())))?;
            }
            let mark = frame.mark();
            ensure(self.was_written(key, mark), "prefix-of-its-writer", || {
                format!("{name} holds {key} {}, which nobody wrote", mark.position)
            })?;
            last = Some(mark);
        }
        // An epoch that has just begun ends where the one before it did.
        let same = |last: Mark| last.position.seq == end.position.seq && last.chain == end.chain;
        ensure(last.is_none_or(same), "I1-dense", || {
            format!("{name} {key}: readable to {last:?}, durable to {end:?}")
        })
    }
}
