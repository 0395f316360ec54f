//! The state of a stream at a place in the log: its base, and what was folded on top.

use ledge_log::{Log, ReadError, SnapshotRef};
use ledge_proto::fold::{State, folded_stream, snapshot};
use ledge_proto::ids::{Mark, Seq, StreamKey};
use ledge_proto::v1;
use ledge_proto::v1::snapshot::Purpose;

use crate::error::RetentionError;

/// What the records of `key` up to `end` fold to, as the parts of a base.
pub(crate) fn base_at(
    log: &Log,
    base: Option<&SnapshotRef>,
    key: &StreamKey,
    end: Mark,
) -> Result<Vec<v1::Snapshot>, RetentionError> {
    let mut state = State::new();
    let mut at = Seq::ZERO;
    if let Some(base) = base.filter(|base| base.mark.position <= end.position) {
        at = load(log, &mut state, base)?;
    }
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
                at = load(log, &mut state, &to)?;
                reader = log.read_stream(key, at);
            }
            Ok(_) | Err(ReadError::Jump { .. }) => break,
            Err(err) => return Err(err.into()),
        }
    }
    let folded = folded_stream(&state, &key.id).map_err(|source| RetentionError::fold(key, source))?;
    let there = folded.is_some_and(|folded| {
        (folded.epoch, folded.seq) == (end.position.epoch.0, end.position.seq.0)
            && (folded.seq == 0 || folded.chain == end.chain.0)
    });
    let parts = snapshot::extract(&state, key, Purpose::Base)
        .map_err(|source| RetentionError::fold(key, source))?
        .filter(|_| there);
    parts.ok_or_else(|| RetentionError::NotThere {
        stream: key.clone(),
        end: end.position,
    })
}

fn load(log: &Log, state: &mut State, at: &SnapshotRef) -> Result<Seq, RetentionError> {
    let parts = log.read_snapshot(at)?;
    snapshot::load(state, &parts).map_err(|source| RetentionError::fold(&at.key, source))?;
    Ok(at.mark.position.seq)
}
