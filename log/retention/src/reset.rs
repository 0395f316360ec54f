//! A stream goes on under a new epoch, because its writer's history was lost or left.
//!
//! What both ends are known to hold is folded, and written as the snapshot the new epoch begins with; what this end
//! wrote since its log was opened is appended again after it, in the same order. Nothing else may be appended to the
//! stream meanwhile.

use ledge_log::{AppendError, BlockNo, Log, ReadError, SnapshotRef};
use ledge_proto::fold::State;
use ledge_proto::fold::snapshot::{self, SnapshotError};
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Epoch, Lane, Mark, Position, Seq, StreamId, StreamKey};
use ledge_proto::record::Payload;
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::{self, snapshot::Purpose};

/// Records of one append, bounded in bytes by the frames they come from.
const APPEND_RECORDS: usize = 4096;

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
    /// The last record both ends hold; `None`: everything that is held here stands.
    pub common: Option<Position>,
}

/// Records of a stream that the peer holds and this end lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostHistory {
    /// The stream.
    pub key: StreamKey,
    /// Under which epoch it goes on.
    pub epoch: Epoch,
    /// First and last record; `None` when nothing was lost.
    pub records: Option<(Seq, Seq)>,
    /// How many records were appended again.
    pub appended_again: u64,
}

/// Begins the epochs, all durably, and records in the node's own telemetry what was lost. Blocks until that is done.
///
/// # Errors
/// See [`ResetError`].
pub fn begin(log: &Log, resets: Vec<Reset>, now: Stamp) -> Result<Vec<LostHistory>, ResetError> {
    let lost: Result<Vec<_>, _> = resets.into_iter().map(|reset| one(log, reset)).collect();
    let lost = lost?;
    // After all of them: where it is told has begun its own new epoch by then.
    for lost in &lost {
        tell(log, lost, now)?;
    }
    Ok(lost)
}

fn one(log: &Log, reset: Reset) -> Result<LostHistory, ResetError> {
    let begun = log
        .durable(&reset.key)
        .is_some_and(|end| end.position.epoch >= reset.epoch);
    if begun {
        // A session before this one came so far, or was cut off after it.
        return Ok(LostHistory {
            appended_again: finish(log, &reset.key)?,
            key: reset.key,
            epoch: reset.epoch,
            records: None,
        });
    }
    let (parts, records) = prepare(log, &reset)?;
    log.append_snapshot_blocking(parts)?;
    let appended_again = append_again(log, &reset.key, records)?;
    let common = reset.common.map_or(reset.base.position.seq, |common| common.seq);
    let last = reset.base.position.seq;
    Ok(LostHistory {
        records: (common < last).then(|| (common.next(), last)),
        key: reset.key,
        epoch: reset.epoch,
        appended_again,
    })
}

fn append_again(log: &Log, key: &StreamKey, records: Vec<v1::Record>) -> Result<u64, ResetError> {
    let count = records.len() as u64;
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let some = records.by_ref().take(APPEND_RECORDS).collect();
        log.append_blocking(&key.id, some)?;
    }
    Ok(count)
}

/// Completes a new epoch of an own stream that was cut off, by a crash, between its snapshot and the records that are
/// appended again after it. To be called before anything else is appended to the stream. Returns how many records were
/// missing.
///
/// # Errors
/// See [`ResetError`].
pub fn finish(log: &Log, key: &StreamKey) -> Result<u64, ResetError> {
    let Some(began) = log.snapshot_of(key).filter(|at| at.purpose == Purpose::Rebase) else {
        return Ok(0);
    };
    let parts = log.read_snapshot(&began)?;
    let after = Seq(parts.first().map_or(0, |part| part.superseded_after));
    if after == Seq::ZERO {
        return Ok(0); // Everything from before stands.
    }
    let mut superseded = superseded(log, key, &began, after)?.into_iter();
    let mut reader = log.read_stream(key, began.mark.position.seq);
    while let Some(frame) = reader.next()? {
        for item in frame.records().map_err(|err| ResetError::Fold(err.to_string()))? {
            let (_, record) = item.map_err(|err| ResetError::Fold(err.to_string()))?;
            match superseded.next() {
                Some(expected) if expected == record => {}
                // All were appended before, and others since.
                _ => return Ok(0),
            }
        }
    }
    append_again(log, key, superseded.collect())
}

/// The records of `key` that the snapshot `began` superseded: those after `after`, of lower epochs, before it.
fn superseded(
    log: &Log,
    key: &StreamKey,
    began: &SnapshotRef,
    after: Seq,
) -> Result<Vec<v1::Record>, ResetError> {
    let fold = |err: &dyn std::fmt::Display| ResetError::Fold(err.to_string());
    let mut reader = log.read_blocks(BlockNo(0));
    let mut frames: Vec<Frame> = Vec::new();
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
        if let Some(part) = block.snapshot().map_err(|err| fold(&err))? {
            // What an earlier epoch left behind was not in the stream any more.
            if part.purpose() == Purpose::Rebase
                && part.superseded_after > 0
                && snapshot::key_of(&part)? == *key
            {
                let (epoch, after) = (Epoch(part.epoch), Seq(part.superseded_after));
                frames.retain(|frame| frame.epoch() >= epoch || frame.first_seq() <= after);
            }
            continue;
        }
        for (frame, _) in block.all_frames() {
            let frame = frame.map_err(|err| fold(&err))?;
            if frame.key() == key && frame.epoch() < began.mark.position.epoch && frame.first_seq() > after {
                frames.push(frame);
            }
        }
    }
    let mut records = Vec::new();
    for frame in frames {
        for item in frame.records().map_err(|err| fold(&err))? {
            records.push(item.map_err(|err| fold(&err))?.1);
        }
    }
    Ok(records)
}

/// Records in the node's own telemetry what was lost of its history.
fn tell(log: &Log, lost: &LostHistory, now: Stamp) -> Result<(), ResetError> {
    let StreamId { scope, lane } = &lost.key.id;
    let (Some((first, last)), true) = (lost.records, matches!(lane, Lane::UpState | Lane::UpData)) else {
        return Ok(());
    };
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
        now.record(
            boot,
            format!("{}/{}/{first}", lane.name(), lost.epoch),
            &Payload::Gap(gap),
        ),
    ];
    log.append_blocking(&StreamId::new(scope.clone(), Lane::UpData), records)?;
    Ok(())
}

type Prepared = (Vec<v1::Snapshot>, Vec<v1::Record>);

/// The snapshot the epoch begins with, and the records to append again.
fn prepare(log: &Log, reset: &Reset) -> Result<Prepared, ResetError> {
    let key = &reset.key;
    let mut state = State::new();
    let mut again = Vec::new();
    let until = reset.common.unwrap_or(Position {
        epoch: Epoch(u32::MAX),
        seq: Seq(u64::MAX),
    });
    let mut reader = log.read_stream(key, Seq::ZERO);
    loop {
        match reader.next() {
            Ok(Some(frame)) => {
                let end = frame.mark().position;
                if end <= until {
                    state
                        .apply_frame(&frame)
                        .map_err(|err| ResetError::Fold(err.to_string()))?;
                    continue;
                }
                for item in frame.records().map_err(|err| ResetError::Fold(err.to_string()))? {
                    let (_, record) = item.map_err(|err| ResetError::Fold(err.to_string()))?;
                    again.push(record);
                }
            }
            Ok(None) => break,
            Err(ReadError::Jump {
                snapshot: Some(at), ..
            }) => {
                // Records before it are gone. What it folds beyond the common record is appended again, if it is
                // still held; latest values come out the same.
                snapshot::load(&mut state, &log.read_snapshot(&at)?)
                    .map_err(|err| ResetError::Fold(err.to_string()))?;
                reader = log.read_stream(key, at.mark.position.seq);
            }
            Err(err) => return Err(err.into()),
        }
    }
    let superseded_after = reset.common.map_or(Seq::ZERO, |common| common.seq);
    let parts = snapshot::extract(&state, key, Purpose::Rebase)
        .map_err(|err| ResetError::Fold(err.to_string()))?
        .unwrap_or_else(|| vec![snapshot::nothing(key, Purpose::Rebase)]);
    let parts = parts.into_iter().map(|part| v1::Snapshot {
        epoch: reset.epoch.0,
        seq: reset.base.position.seq.0,
        chain: reset.base.chain.0.to_vec(),
        superseded_after: superseded_after.0,
        ..part
    });
    Ok((parts.collect(), again))
}
