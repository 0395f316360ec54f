//! Around records that cannot be read, for a peer that never had them: a snapshot in their place, and what is readable
//! behind it.
//!
//! A peer takes frames only where it can follow their chain. So the snapshot stands exactly where the damage ends, when
//! the chain there can still be told (see [`Log::mark_at`]); and otherwise behind the first frame that can be read, whose
//! records nothing connects with what the peer has.

use ledge_log::{Log, ReadError, Skipped};
use ledge_proto::fold::State;
use ledge_proto::ids::{Mark, Seq, StreamKey};
use ledge_proto::v1;

use crate::error::RetentionError;
use crate::replay::Held;
use crate::state::folded_at;

/// How a stream of telemetry goes on behind records that cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Around {
    /// What the peer never gets.
    pub lost: Skipped,
    /// What goes in its place, standing at the last of them; `None` when another snapshot of the stream comes next anyway.
    pub parts: Option<Vec<v1::Snapshot>>,
}

/// How `key` goes on for a peer that has it up to `after`; `None` when what comes next can be read. Reads what is held of
/// the stream up to there, to fold it.
///
/// # Errors
/// When the log cannot be read otherwise, or what can be read does not fold.
pub fn around(log: &Log, key: &StreamKey, after: Seq) -> Result<Option<Around>, RetentionError> {
    let mut reader = log.read_stream(key, after);
    let mut lost: Option<Skipped> = None;
    let behind = loop {
        match reader.next() {
            Err(err @ ReadError::Damaged { .. }) => {
                let Some(more) = reader.skip_damage() else {
                    return Err(err.into());
                };
                let first = lost.map_or(more.first, |lost| lost.first);
                lost = Some(Skipped { first, ..more });
            }
            // Another snapshot comes next, or nothing yet.
            Err(ReadError::Jump { .. }) => break None,
            read => break read?,
        }
    };
    let Some(mut lost) = lost else {
        return Ok(None);
    };
    let end = |mark: &Mark| mark.position.seq == lost.last;
    let at = match behind {
        None => log.durable(key).filter(end),
        Some(frame) => {
            let before = Seq(frame.first_seq().0.saturating_sub(1));
            let proven = log.mark_at(key, before).ok().flatten().filter(end);
            Some(proven.unwrap_or_else(|| {
                lost.last = frame.last_seq();
                frame.mark()
            }))
        }
    };
    let parts = at.map(|at| folded_at(log, key, at)).transpose()?;
    Ok(Some(Around { lost, parts }))
}

/// The snapshot of `key` that stands exactly at `mark`: what its records up to there fold to, as far as they can be read.
/// Reads what is held of the stream up to there.
///
/// # Errors
/// As [`around`].
pub fn standing_at(log: &Log, key: &StreamKey, mark: Mark) -> Result<Vec<v1::Snapshot>, RetentionError> {
    folded_at(log, key, mark)
}

/// Folds what can be read of the streams `keys`, each up to its mark. What cannot be read is left out.
///
/// # Errors
/// When the log cannot be read otherwise, or what can be read does not fold.
pub fn fold_readable(held: &impl Held, keys: &[(StreamKey, Mark)]) -> Result<State, RetentionError> {
    let mut state = State::new();
    for (key, end) in keys {
        crate::state::fold_readable(held, &mut state, key, *end)?;
    }
    Ok(state)
}
