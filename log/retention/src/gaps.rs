//! Which of its own telemetry the node has already written down as given up.
//!
//! A crash may come between the gap record and the segment going. The log remembers the record, so it is looked for before
//! another is written: in the stream itself, once after the log was opened.

use std::collections::BTreeMap;

use ledge_log::{Log, ReadError};
use ledge_proto::fold::{State, snapshot, view};
use ledge_proto::ids::{Epoch, Lane, Mark, Seq, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::stamp::Stamp;
use ledge_proto::v1;

use crate::error::RetentionError;

/// Reason of gap records about telemetry that a cloud had acknowledged, that the one there is now does not hold, and that
/// is no longer held here either.
pub const CLOUD_LOST: &str = "CloudLost";

/// A stretch of a stream that is recorded as given up.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    last: Seq,
    /// Key of the gap record, shared by records about stretches that follow each other.
    key: String,
    reason: String,
    replaced_by: i32,
}

/// What gap records say about one stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded {
    /// By epoch and first record.
    stretches: BTreeMap<(Epoch, Seq), Stretch>,
    /// How far the stream was read for them.
    read: Option<Seq>,
}

impl Recorded {
    /// Reads what the log holds: the gap records folded into the base, and those in the records held.
    pub(crate) fn read(log: &Log, key: &StreamKey) -> Result<Recorded, RetentionError> {
        let mut recorded = Recorded::default();
        recorded.read_on(log, key)?;
        Ok(recorded)
    }

    /// Reads what came since it was read last.
    fn read_on(&mut self, log: &Log, key: &StreamKey) -> Result<(), RetentionError> {
        let mut at = self.read.unwrap_or(Seq::ZERO);
        if self.read.is_none()
            && let Some(base) = log.bases().into_iter().find(|base| base.key == *key)
        {
            let mut state = State::new();
            let parts = log.read_snapshot(&base)?;
            let fold = |source| RetentionError::fold(key, source);
            snapshot::load(&mut state, &parts).map_err(fold)?;
            for (name, gap) in view::gaps(&state, &key.id.scope).map_err(fold)? {
                self.take(key, &name, &gap.content);
            }
            at = base.mark.position.seq;
        }
        let mut reader = log.read_stream(key, at);
        loop {
            match reader.next() {
                Ok(None) => {
                    self.read = Some(reader.position());
                    return Ok(());
                }
                Ok(Some(frame)) => {
                    let unreadable = |source| RetentionError::frame(key, source);
                    for item in frame.records().map_err(unreadable)? {
                        let (_, record) = item.map_err(unreadable)?;
                        if record.kind == RecordKind::Gap.as_wire()
                            && let Ok(Payload::Gap(gap)) = Payload::decode(&record)
                        {
                            self.take(key, &record.key, &gap);
                        }
                    }
                }
                Err(ReadError::Jump { .. }) => reader.skip_jump(),
                Err(err) => return Err(err.into()),
            }
        }
    }

    /// Takes in a gap record, when it is about `stream`.
    fn take(&mut self, stream: &StreamKey, name: &str, gap: &v1::Gap) {
        if gap.scope != stream.id.scope.as_wire() || gap.lane != stream.id.lane.as_wire() {
            return;
        }
        self.stretches.insert(
            (Epoch(gap.epoch), Seq(gap.first_seq)),
            Stretch {
                last: Seq(gap.last_seq),
                key: name.to_owned(),
                reason: gap.reason.clone(),
                replaced_by: gap.replaced_by,
            },
        );
    }

    /// Whether the record is recorded as given up.
    pub(crate) fn covers(&self, epoch: Epoch, seq: Seq) -> bool {
        let before = self.stretches.range(..=(epoch, seq)).next_back();
        before.is_some_and(|((of, _), stretch)| *of == epoch && stretch.last >= seq)
    }

    /// The first stretch of `first` to `last` that no gap record is about, under whatever epoch.
    fn first_missing(&self, mut first: Seq, last: Seq) -> Option<(Seq, Seq)> {
        // Epochs may use numbers again, so stretches may overlap: until none moves the beginning any more.
        while let Some(until) = self
            .stretches
            .iter()
            .filter(|((_, from), stretch)| *from <= first && stretch.last >= first)
            .map(|(_, stretch)| stretch.last)
            .max()
        {
            first = until.next();
        }
        if first > last {
            return None;
        }
        let next = self.stretches.keys().map(|(_, from)| *from);
        let next = next.filter(|from| *from > first).min();
        let until = next.map_or(last, |next| Seq(next.0 - 1).min(last));
        Some((first, until))
    }

    /// The record for a stretch that is about to go, and its key: that of the stretch before, where this one continues it,
    /// so that a long outage is one entry of the state.
    pub(crate) fn describe(
        &self,
        stream: &StreamKey,
        epoch: Epoch,
        (first, last): (Seq, Seq),
        reason: &str,
        replaced_by: v1::Replacement,
    ) -> (String, v1::Gap) {
        let mut gap = v1::Gap {
            scope: stream.id.scope.as_wire().to_owned(),
            lane: stream.id.lane.as_wire(),
            epoch: epoch.0,
            first_seq: first.0,
            last_seq: last.0,
            reason: reason.to_owned(),
            count: last.0 + 1 - first.0,
            ..Default::default()
        };
        gap.set_replaced_by(replaced_by);
        let before = self.stretches.range(..(epoch, first)).next_back();
        let key = match before {
            Some(((of, _), before))
                if *of == epoch
                    && before.last.next() == first
                    && before.reason == reason
                    && before.replaced_by == gap.replaced_by =>
            {
                before.key.clone()
            }
            _ => format!("{}/{}-{first}", stream.id.lane, epoch.0),
        };
        (key, gap)
    }

    /// As [`Recorded::take`], for what was just written.
    pub(crate) fn wrote(&mut self, stream: &StreamKey, name: &str, gap: &v1::Gap) {
        self.take(stream, name, gap);
    }
}

/// Declares what a peer will never get of a stream of telemetry this log writes, before a snapshot goes there in the
/// place of records.
///
/// What was given up unarchived is recorded already. What a cloud had acknowledged was given up without a word; where
/// the cloud there is now is an older copy, or another one, it does not hold that.
#[derive(Debug)]
pub struct PeerGaps {
    key: StreamKey,
    recorded: Recorded,
}

impl PeerGaps {
    /// For one stream of one opening of a log.
    pub fn new(key: StreamKey) -> PeerGaps {
        PeerGaps {
            key,
            recorded: Recorded::default(),
        }
    }

    /// Appends a gap record for what is in none yet of the records after `after`, the last one the peer has, up to
    /// `at`, where the snapshot stands; they are durable when this returns. Returns how many records that is: 0 for
    /// streams of state, which the snapshot says all of, and for streams of others.
    ///
    /// # Errors
    /// When the log cannot be read or takes nothing.
    pub fn declare(&mut self, log: &Log, after: Seq, at: Mark, now: Stamp) -> Result<u64, RetentionError> {
        let key = &self.key;
        let own = key.incarnation == log.identity().incarnation;
        let last = at.position.seq;
        if key.id.lane != Lane::UpData || !own || last <= after {
            return Ok(0);
        }
        self.recorded.read_on(log, key)?;
        let (boot, mut count) = (log.identity().boot, 0);
        while let Some(stretch) = self.recorded.first_missing(after.next(), last) {
            let (name, gap) =
                self.recorded
                    .describe(key, at.position.epoch, stretch, CLOUD_LOST, v1::Replacement::None);
            let record = now.record(boot, name.clone(), &Payload::Gap(gap.clone()));
            log.append_blocking(&key.id, vec![record])?;
            count += gap.count;
            self.recorded.wrote(key, &name, &gap);
        }
        Ok(count)
    }
}
