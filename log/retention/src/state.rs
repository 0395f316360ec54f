//! The state of a stream at a place in the log: its base, and what was folded on top.

use ledge_log::{Block, BlockNo, BlockReader, Log, OldestSegment, ReadError, Skipped, SnapshotRef};
use ledge_proto::fold::{FoldError, State, folded_stream, snapshot};
use ledge_proto::ids::{Mark, Position, Seq, StreamKey};
use ledge_proto::v1;
use ledge_proto::v1::snapshot::Purpose;

use crate::error::RetentionError;
use crate::replay::{Held, Rebase, load_rebase};

/// What is to be kept of a stream.
pub(crate) struct BaseAt {
    /// The parts of the base.
    pub(crate) parts: Vec<v1::Snapshot>,
    /// Records that should be folded in it and cannot be read.
    pub(crate) lost: Vec<Skipped>,
}

/// What the records of `key` up to `end` fold to, as far as they can be read.
pub(crate) fn base_at(
    log: &Log,
    base: Option<&SnapshotRef>,
    (key, end): (&StreamKey, Mark),
    oldest: &OldestSegment,
) -> Result<BaseAt, RetentionError> {
    let mut state = State::new();
    let mut lost = Vec::new();
    let mut at = Seq::ZERO;
    if let Some(base) = base.filter(|base| base.mark.position <= end.position) {
        at = load(log, &mut state, base, &mut lost)?;
    }
    read_on(log, &mut state, (key, at, end), &mut lost)?;
    if !is_at(&state, key, end)? {
        // The stream went back to an earlier sequence number under a later epoch: what is folded does not lead to where it
        // went on, the rebase does.
        if let Some(parts) = rebase_before(log, oldest, key, end)? {
            let fold = |source| RetentionError::fold(key, source);
            load_rebase(&mut state, &parts).map_err(fold)?;
            at = parts.first().map_or(at, |part| Seq(part.seq));
            read_on(log, &mut state, (key, at, end), &mut lost)?;
        }
    }
    lost.sort_unstable_by_key(|lost| (lost.epoch, lost.first));
    lost.dedup();
    let folded =
        snapshot::extract(&state, key, Purpose::Base).map_err(|source| RetentionError::fold(key, source))?;
    let parts = if is_at(&state, key, end)? {
        folded
    } else if lost.is_empty() {
        None
    } else {
        // The records that would lead there cannot be read.
        let parts = folded.unwrap_or_else(|| vec![snapshot::nothing(key, Purpose::Base)]);
        Some(moved(parts, end))
    };
    let parts = parts.ok_or_else(|| RetentionError::NotThere {
        stream: key.clone(),
        end: end.position,
    })?;
    Ok(BaseAt { parts, lost })
}

/// Folds the records of `key` up to `end` into `state`, from its base on, as far as they can be read.
pub(crate) fn fold_readable(
    log: &impl Held,
    state: &mut State,
    key: &StreamKey,
    end: Mark,
) -> Result<(), RetentionError> {
    let (mut lost, mut at) = (Vec::new(), Seq::ZERO);
    let base = log.bases().into_iter().find(|base| base.key == *key);
    if let Some(base) = base.filter(|base| base.mark.position <= end.position) {
        at = load(log, state, &base, &mut lost)?;
    }
    read_on(log, state, (key, at, end), &mut lost)
}

/// What the records of `key` up to `mark` fold to, as far as they can be read: a snapshot that stands at `mark`.
pub(crate) fn folded_at(log: &Log, key: &StreamKey, mark: Mark) -> Result<Vec<v1::Snapshot>, RetentionError> {
    let mut state = State::new();
    fold_readable(log, &mut state, key, mark)?;
    let parts =
        snapshot::extract(&state, key, Purpose::Base).map_err(|source| RetentionError::fold(key, source))?;
    Ok(moved(
        parts.unwrap_or_else(|| vec![snapshot::nothing(key, Purpose::Base)]),
        mark,
    ))
}

/// Folds the records of `key` after `at`, no further than `end`. What cannot be read is left out, and added to `lost`.
fn read_on(
    log: &impl Held,
    state: &mut State,
    (key, at, end): (&StreamKey, Seq, Mark),
    lost: &mut Vec<Skipped>,
) -> Result<(), RetentionError> {
    let mut reader = log.read_stream(key, at);
    loop {
        match reader.next() {
            Ok(Some(frame)) if frame.mark().position <= end.position => match state.apply_frame(&frame) {
                Ok(()) => {}
                // Whole by its checksum, and nobody can tell what it says.
                Err(FoldError::Frame(_)) => {
                    let whole = Skipped {
                        epoch: frame.epoch(),
                        first: frame.first_seq(),
                        last: frame.last_seq(),
                    };
                    lost.push(whole);
                    go_behind(state, key, whole)?;
                }
                Err(source) => return Err(RetentionError::fold(key, source)),
            },
            Err(ReadError::Jump {
                snapshot: Some(to), ..
            }) if to.mark.position <= end.position => {
                let before = lost.len();
                let at = load(log, state, &to, lost)?;
                if lost.len() > before {
                    // It cannot be read: with what is held behind it.
                    reader.skip_jump();
                } else {
                    reader = log.read_stream(key, at);
                }
            }
            Err(err @ ReadError::Damaged { .. }) if reader.position() < end.position.seq => {
                let Some(skipped) = reader.skip_damage() else {
                    return Err(err.into());
                };
                let skipped = Skipped {
                    last: skipped.last.min(end.position.seq),
                    ..skipped
                };
                lost.push(skipped);
                go_behind(state, key, skipped)?;
            }
            Ok(_) | Err(ReadError::Jump { .. } | ReadError::Damaged { .. }) => return Ok(()),
            Err(err) => return Err(err.into()),
        }
    }
}

/// Lets what follows `lost` be folded next.
fn go_behind(state: &mut State, key: &StreamKey, lost: Skipped) -> Result<(), RetentionError> {
    let fold = |source| RetentionError::fold(key, source);
    let Some(parts) = snapshot::extract(state, key, Purpose::Base).map_err(fold)? else {
        return Ok(()); // Of nothing, anything is the first.
    };
    let mark = Mark {
        position: Position {
            epoch: lost.epoch,
            seq: lost.last,
        },
        chain: key.genesis_chain(), // Not looked at when records are folded.
    };
    snapshot::load(state, &moved(parts, mark)).map_err(fold)
}

/// The same entries, folded up to `mark`.
fn moved(parts: Vec<v1::Snapshot>, mark: Mark) -> Vec<v1::Snapshot> {
    let moved = parts.into_iter().map(|part| v1::Snapshot {
        epoch: mark.position.epoch.0,
        seq: mark.position.seq.0,
        chain: mark.chain.0.to_vec(),
        ..part
    });
    moved.collect()
}

/// Whether `state` has folded exactly up to `end`.
fn is_at(state: &State, key: &StreamKey, end: Mark) -> Result<bool, RetentionError> {
    let folded = folded_stream(state, &key.id).map_err(|source| RetentionError::fold(key, source))?;
    Ok(folded.is_some_and(|folded| {
        folded.incarnation == key.incarnation.0.as_slice()
            && (folded.epoch, folded.seq) == (end.position.epoch.0, end.position.seq.0)
            && (folded.seq == 0 || folded.chain == end.chain.0)
    }))
}

/// The last rebase of `key` that begins in the oldest segment and does not lead beyond `end`.
fn rebase_before(
    log: &Log,
    oldest: &OldestSegment,
    key: &StreamKey,
    end: Mark,
) -> Result<Option<Vec<v1::Snapshot>>, RetentionError> {
    let (mut rebase, mut found) = (Rebase::default(), None);
    let mut reader = log.read_blocks(oldest.first_block.previous());
    // The last parts of one may be in the next segment.
    while (reader.position() < oldest.last_block || rebase.is_open())
        && let Some(block) = next_readable(log, &mut reader, oldest.last_block)?
    {
        let Some(parts) = rebase.part(&block).map_err(RetentionError::Replay)? else {
            continue;
        };
        let of = parts
            .first()
            .map(|part| (snapshot::key_of(part), snapshot::mark_of(part)));
        if let Some((Ok(of), Ok(mark))) = of
            && of == *key
            && mark.position <= end.position
        {
            found = Some(parts);
        }
    }
    Ok(found)
}

/// The next block that can be read; those up to `until` that cannot are passed over.
pub(crate) fn next_readable(
    log: &Log,
    reader: &mut BlockReader,
    until: BlockNo,
) -> Result<Option<Block>, RetentionError> {
    loop {
        match reader.next_block() {
            Err(ReadError::Damaged { .. }) if reader.position() < until => {
                *reader = log.read_blocks(reader.position().next());
            }
            Err(ReadError::Damaged { .. }) => return Ok(None),
            read => return Ok(read?),
        }
    }
}

/// Loads a snapshot. One that cannot be read is added to `lost`, and changes nothing.
fn load(
    log: &impl Held,
    state: &mut State,
    at: &SnapshotRef,
    lost: &mut Vec<Skipped>,
) -> Result<Seq, RetentionError> {
    match log.read_snapshot(at) {
        Ok(parts) => {
            snapshot::load(state, &parts).map_err(|source| RetentionError::fold(&at.key, source))?;
        }
        Err(ReadError::Damaged { .. }) => lost.push(Skipped {
            epoch: at.mark.position.epoch,
            first: Seq(1),
            last: at.mark.position.seq,
        }),
        Err(err) => return Err(err.into()),
    }
    Ok(at.mark.position.seq)
}
