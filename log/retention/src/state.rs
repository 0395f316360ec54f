//! The state of a stream at a place in the log: its base, and what was folded on top.

use ledge_log::{Log, OldestSegment, ReadError, SnapshotRef};
use ledge_proto::fold::{State, folded_stream, snapshot};
use ledge_proto::ids::{Mark, Seq, StreamKey};
use ledge_proto::v1;
use ledge_proto::v1::snapshot::Purpose;

use crate::error::RetentionError;
use crate::replay::{Rebase, load_rebase};

/// What the records of `key` up to `end` fold to, as the parts of a base.
pub(crate) fn base_at(
    log: &Log,
    base: Option<&SnapshotRef>,
    (key, end): (&StreamKey, Mark),
    oldest: &OldestSegment,
) -> Result<Vec<v1::Snapshot>, RetentionError> {
    let mut state = State::new();
    let mut at = Seq::ZERO;
    if let Some(base) = base.filter(|base| base.mark.position <= end.position) {
        at = load(log, &mut state, base)?;
    }
    read_on(log, &mut state, key, at, end)?;
    if !is_at(&state, key, end)? {
        // The stream went back to an earlier sequence number under a later epoch: what is folded does not lead to where it
        // went on, the rebase does.
        if let Some(parts) = rebase_before(log, oldest, key, end)? {
            let fold = |source| RetentionError::fold(key, source);
            load_rebase(&mut state, &parts).map_err(fold)?;
            at = parts.first().map_or(at, |part| Seq(part.seq));
            read_on(log, &mut state, key, at, end)?;
        }
    }
    let there = is_at(&state, key, end)?;
    let parts = snapshot::extract(&state, key, Purpose::Base)
        .map_err(|source| RetentionError::fold(key, source))?
        .filter(|_| there);
    parts.ok_or_else(|| RetentionError::NotThere {
        stream: key.clone(),
        end: end.position,
    })
}

/// Folds the records of `key` after `at`, no further than `end`.
fn read_on(log: &Log, state: &mut State, key: &StreamKey, at: Seq, end: Mark) -> Result<(), RetentionError> {
    let mut reader = log.read_stream(key, at);
    loop {
        match reader.next() {
            Ok(Some(frame)) if frame.mark().position <= end.position => {
                state
                    .apply_frame(&frame)
                    .map_err(|source| RetentionError::fold(key, source))?;
            }
            Err(ReadError::Jump {
                snapshot: Some(to), ..
            }) if to.mark.position <= end.position => {
                let at = load(log, state, &to)?;
                reader = log.read_stream(key, at);
            }
            Ok(_) | Err(ReadError::Jump { .. }) => return Ok(()),
            Err(err) => return Err(err.into()),
        }
    }
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
        && let Some(block) = reader.next_block()?
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

fn load(log: &Log, state: &mut State, at: &SnapshotRef) -> Result<Seq, RetentionError> {
    let parts = log.read_snapshot(at)?;
    snapshot::load(state, &parts).map_err(|source| RetentionError::fold(&at.key, source))?;
    Ok(at.mark.position.seq)
}
