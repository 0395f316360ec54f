//! A stream goes on under a new epoch, because its writer's history was lost or left.
//!
//! What both ends are known to hold is folded, and written as the snapshot the new epoch begins with; what this end
//! holds beyond is appended again after it, in the same order, and what it no longer holds is declared. Nothing else may
//! be appended to the stream meanwhile.
//!
//! The snapshot says what is to be done after it, so that [`finish`] completes an epoch that a crash cut off.

use std::collections::VecDeque;

use ledge_log::{AppendError, Block, BlockNo, Log, ReadError, SnapshotRef};
use ledge_proto::fold::State;
use ledge_proto::fold::snapshot::{self, SnapshotError};
use ledge_proto::ids::{Epoch, Lane, Mark, Position, Seq, StreamId, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::{self, snapshot::Purpose};

use crate::error::RetentionError;
use crate::gaps::PeerGaps;

/// Records of one append, at most.
const APPEND_RECORDS: usize = 4096;
/// And bytes of their payloads, once that many are reached.
const APPEND_BYTES: usize = 1 << 20;

/// Why a stream could not go on under its new epoch. It is as it was, or has begun the epoch: doing it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The log took nothing.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What it holds cannot be folded.
    #[error("it cannot be folded: {0}")]
    Fold(String),
    /// A snapshot in it cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What is no longer held could not be declared.
    #[error(transparent)]
    Gaps(RetentionError),
}

impl From<RetentionError> for ResetError {
    fn from(err: RetentionError) -> Self {
        match err {
            RetentionError::Append(err) => ResetError::Append(err),
            RetentionError::Read(err) => ResetError::Read(err),
            other => ResetError::Gaps(other),
        }
    }
}

fn unfolded(err: impl std::fmt::Display) -> ResetError {
    ResetError::Fold(err.to_string())
}

/// A new epoch to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Reset {
    /// A stream of this log.
    pub key: StreamKey,
    /// The new epoch.
    pub epoch: Epoch,
    /// Its records follow this mark.
    pub base: Mark,
    /// The last record both ends hold; `None` when none is known: then everything held here is appended again.
    pub common: Option<Position>,
}

/// Records of a stream that the peer holds and this end lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostHistory {
    /// The stream.
    pub key: StreamKey,
    /// Under which epoch it goes on.
    pub epoch: Epoch,
    /// First and last record; `None` when nothing was lost, or when that is recorded already.
    pub records: Option<(Seq, Seq)>,
    /// How many records were appended again.
    pub appended_again: u64,
}

/// Begins the epochs, all durably, and records in the node's own telemetry what was lost. Blocks until that is done.
///
/// # Errors
/// See [`ResetError`].
pub fn begin(log: &Log, resets: &[Reset], now: Stamp) -> Result<Vec<LostHistory>, ResetError> {
    // What is to be appended again must not go before it is.
    let _pin = log.pin(BlockNo(0));
    for reset in resets {
        let begun = log
            .durable(&reset.key)
            .is_some_and(|end| end.position.epoch >= reset.epoch);
        // A session before this one may have come so far, or have been cut off after it.
        if !begun {
            start(log, reset, now)?;
        }
    }
    let keys: Vec<StreamKey> = resets.iter().map(|reset| reset.key.clone()).collect();
    finish(log, &keys, now)
}

/// Completes new epochs of own streams that were cut off, by a crash, after the snapshot they begin with: appends again
/// what is missing after it, and records what was lost. To be called before anything else is appended to the streams.
/// Changes nothing where nothing is missing.
///
/// # Errors
/// See [`ResetError`].
pub fn finish(log: &Log, keys: &[StreamKey], now: Stamp) -> Result<Vec<LostHistory>, ResetError> {
    let mut begun = Vec::new();
    for key in keys {
        let Some(at) = log.snapshot_of(key).filter(|at| at.purpose == Purpose::Rebase) else {
            continue;
        };
        let Some(after) = log
            .read_snapshot(&at)?
            .first()
            .and_then(|part| part.superseded_after)
        else {
            continue; // Everything from before stands.
        };
        let appended_again = append_again(log, &at, Seq(after))?;
        begun.push((at, Seq(after), appended_again));
    }
    let mut all = Vec::new();
    // After all of them: where it is told has begun its own new epoch by then.
    for (at, after, appended_again) in begun {
        let last = at.mark.position.seq;
        let mut lost = LostHistory {
            records: (after < last).then(|| (after.next(), last)),
            key: at.key.clone(),
            epoch: at.mark.position.epoch,
            appended_again,
        };
        if !tell(log, &at, &lost, now)? {
            lost.records = None;
        }
        all.push(lost);
    }
    Ok(all)
}

/// Writes the snapshot that `reset` begins with.
fn start(log: &Log, reset: &Reset, now: Stamp) -> Result<(), ResetError> {
    let (parts, gone) = prepare(log, reset)?;
    if let Some(at) = gone {
        // It is neither at the peer, as far as is known, nor can it be appended again.
        let common = reset.common.map_or(Seq::ZERO, |common| common.seq);
        PeerGaps::new(reset.key.clone()).declare(log, common, at, now)?;
    }
    Ok(log.append_snapshot_blocking(parts)?)
}

/// Appends what the snapshot `began` superseded, as far as that has not been done. Returns how many records that was.
fn append_again(log: &Log, began: &SnapshotRef, after: Seq) -> Result<u64, ResetError> {
    let mut superseded = Superseded::find(log, began, after)?;
    let mut reader = log.read_stream(&began.key, began.mark.position.seq);
    loop {
        let frame = match reader.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            // So long ago that what came first was given up since.
            Err(ReadError::Jump { .. }) => return Ok(0),
            Err(err) => return Err(err.into()),
        };
        for item in frame.records().map_err(unfolded)? {
            let (_, record) = item.map_err(unfolded)?;
            match superseded.next()? {
                Some(expected) if expected == record => {}
                // All were appended before, and others since.
                _ => return Ok(0),
            }
        }
    }
    let (mut count, mut bytes, mut some) = (0, 0, Vec::new());
    while let Some(record) = superseded.next()? {
        count += 1;
        bytes += record.payload.len() + record.key.len();
        some.push(record);
        if some.len() == APPEND_RECORDS || bytes >= APPEND_BYTES {
            bytes = 0;
            log.append_blocking(&began.key.id, std::mem::take(&mut some))?;
        }
    }
    if !some.is_empty() {
        log.append_blocking(&began.key.id, some)?;
    }
    Ok(count)
}

/// The records that a snapshot superseded, in order, read as they are needed.
struct Superseded<'a> {
    log: &'a Log,
    /// Block and place in it of each frame that was not read yet.
    frames: VecDeque<(BlockNo, usize)>,
    block: Option<Block>,
    records: VecDeque<v1::Record>,
}

impl<'a> Superseded<'a> {
    /// Those of the stream after `after`, of lower epochs than `began`, before it.
    fn find(log: &'a Log, began: &SnapshotRef, after: Seq) -> Result<Self, ResetError> {
        let key = &began.key;
        let mut reader = log.read_blocks(BlockNo(0));
        let mut frames: Vec<(Position, BlockNo, usize)> = Vec::new();
        loop {
            let block = match reader.next_block() {
                Ok(Some(block)) if block.no < began.block => block,
                Ok(_) => break,
                Err(ReadError::Recycled { first_held, .. }) => {
                    reader = log.read_blocks(BlockNo(first_held).previous());
                    continue;
                }
                Err(err) => return Err(err.into()),
            };
            if let Some(part) = block.snapshot().map_err(unfolded)? {
                // What an earlier epoch left behind was not in the stream any more.
                if part.purpose() == Purpose::Rebase && snapshot::key_of(&part)? == *key {
                    let after = part.superseded_after.unwrap_or(part.seq);
                    frames.retain(|(last, ..)| last.epoch.0 >= part.epoch || last.seq.0 <= after);
                }
                continue;
            }
            for (n, (frame, _)) in block.all_frames().enumerate() {
                let frame = frame.map_err(unfolded)?;
                if frame.key() == key
                    && frame.epoch() < began.mark.position.epoch
                    && frame.first_seq() > after
                {
                    frames.push((frame.mark().position, block.no, n));
                }
            }
        }
        Ok(Superseded {
            log,
            frames: frames.into_iter().map(|(_, block, n)| (block, n)).collect(),
            block: None,
            records: VecDeque::new(),
        })
    }

    fn next(&mut self) -> Result<Option<v1::Record>, ResetError> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(Some(record));
            }
            let Some((no, n)) = self.frames.pop_front() else {
                return Ok(None);
            };
            if self.block.as_ref().is_none_or(|block| block.no != no) {
                self.block = self.log.read_blocks(no.previous()).next_block()?;
            }
            let frame = self.block.as_ref().and_then(|block| block.all_frames().nth(n));
            let Some((frame, _)) = frame else {
                return Err(unfolded(format!("block {no} has changed")));
            };
            for item in frame.map_err(unfolded)?.records().map_err(unfolded)? {
                self.records.push_back(item.map_err(unfolded)?.1);
            }
        }
    }
}

/// Records in the node's own telemetry what was lost of its history, unless that was done. Returns whether it was now.
fn tell(log: &Log, began: &SnapshotRef, lost: &LostHistory, now: Stamp) -> Result<bool, ResetError> {
    let StreamId { scope, lane } = &lost.key.id;
    let (Some((first, last)), true) = (lost.records, matches!(lane, Lane::UpState | Lane::UpData)) else {
        return Ok(lost.records.is_some());
    };
    let told_in = log.own_key(&StreamId::new(scope.clone(), Lane::UpData));
    let name = format!("{}/{}/{first}", lane.name(), lost.epoch);
    if was_told(log, began.block, &told_in, &name)? {
        return Ok(false);
    }
    let boot = log.identity().boot;
    let event = v1::Event {
        reason: "HistoryLost".to_owned(),
        message: format!(
            "{}: records {first} to {last}, which the cloud holds, are not on this disk; {} records are sent again under epoch {}",
            lost.key.id, lost.appended_again, lost.epoch
        ),
    };
    let gap = v1::Gap {
        scope: scope.as_wire().to_owned(),
        lane: lane.as_wire(),
        epoch: lost.epoch.0,
        first_seq: first.0,
        last_seq: last.0,
        reason: "HistoryLost".to_owned(),
        count: last.0 - first.0 + 1,
        ..Default::default()
    };
    let records = vec![
        now.record(boot, scope.to_string(), &Payload::DaemonEvent(event)),
        now.record(boot, name, &Payload::Gap(gap)),
    ];
    log.append_blocking(&told_in.id, records)?;
    Ok(true)
}

/// Whether a gap record called `name` was written to `key` after `since`. Where it was, it is soon found.
fn was_told(log: &Log, since: BlockNo, key: &StreamKey, name: &str) -> Result<bool, ResetError> {
    let mut reader = log.read_blocks(since);
    while let Some(block) = reader.next_block()? {
        for (frame, _) in block.all_frames() {
            let frame = frame.map_err(unfolded)?;
            if frame.key() != key {
                continue;
            }
            for item in frame.records().map_err(unfolded)? {
                let (_, record) = item.map_err(unfolded)?;
                if record.kind == RecordKind::Gap.as_wire() && record.key == name {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// The snapshot the epoch begins with; and, when records after the common one are no longer held here, where what is
/// held begins.
fn prepare(log: &Log, reset: &Reset) -> Result<(Vec<v1::Snapshot>, Option<Mark>), ResetError> {
    let key = &reset.key;
    let mut state = State::new();
    let mut gone = None;
    let mut read_any = false;
    let until = reset.common.unwrap_or(Position::ZERO);
    let mut reader = log.read_stream(key, Seq::ZERO);
    loop {
        match reader.next() {
            Ok(Some(frame)) if frame.mark().position <= until => {
                state.apply_frame(&frame).map_err(unfolded)?;
                read_any = true;
            }
            Ok(_) => break,
            Err(ReadError::Jump {
                snapshot: Some(at), ..
            }) => {
                let beyond = at.mark.position > until;
                if beyond && read_any {
                    break; // An epoch that began after the common record.
                }
                // Records before it are gone. What it folds beyond the common record is appended again, if it is
                // still held; latest values come out the same.
                snapshot::load(&mut state, &log.read_snapshot(&at)?).map_err(unfolded)?;
                if beyond {
                    gone = Some(at.mark);
                    break;
                }
                reader = log.read_stream(key, at.mark.position.seq);
                read_any = true;
            }
            Err(err) => return Err(err.into()),
        }
    }
    let parts = snapshot::extract(&state, key, Purpose::Rebase)
        .map_err(unfolded)?
        .unwrap_or_else(|| vec![snapshot::nothing(key, Purpose::Rebase)]);
    let parts = parts.into_iter().map(|part| v1::Snapshot {
        epoch: reset.epoch.0,
        seq: reset.base.position.seq.0,
        chain: reset.base.chain.0.to_vec(),
        superseded_after: Some(until.seq.0),
        ..part
    });
    Ok((parts.collect(), gone))
}
