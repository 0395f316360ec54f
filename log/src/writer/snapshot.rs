//! Writing snapshots: all parts, then one sync, then they take effect.

use std::sync::Arc;

use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::{Mark, Position, Seq};
use ledge_proto::mutants;
use ledge_proto::v1::snapshot::Purpose;

use super::Writer;
use crate::catalog::Stream;
use crate::error::AppendError;
use crate::format::block::{BLOCK_HEADER_BYTES, BlockKind};
use crate::ids::BlockNo;
use crate::snapshot::{NewSnapshot, SnapshotHead};

/// Whether a stream may be moved from `have` to the mark of a snapshot: only upwards.
pub(crate) fn check_rebase(stream: &Stream, have: Mark, to: Mark) -> Result<(), AppendError> {
    let stream = stream.key.clone();
    if to.position < have.position && !mutants::on("rebase-backwards") {
        return Err(AppendError::RebaseBackwards {
            stream,
            have: have.position,
            got: to.position,
        });
    }
    if to.position == have.position && to.chain != have.chain {
        return Err(AppendError::Fork {
            stream,
            have: have.position,
            got: to.position,
        });
    }
    Ok(())
}

impl Writer {
    /// Checks a snapshot against what is durable, where nothing can come between.
    pub(crate) fn stage_snapshot(&self, stream: &Stream, head: &SnapshotHead) -> Result<(), AppendError> {
        let refuse = |reason: String| AppendError::Snapshot {
            stream: stream.key.clone(),
            reason,
        };
        if head.purpose == Purpose::Rebase {
            let mut state = stream.state();
            check_rebase(stream, state.durable, head.mark)?;
            let splits = |after: Seq, first: Seq, last: Seq| first <= after && after < last;
            if let Some(after) = head.superseded_after
                && state
                    .frames
                    .iter()
                    .any(|f| f.epoch < head.mark.position.epoch && splits(after, f.first_seq, f.last_seq()))
            {
                return Err(refuse(format!(
                    "no frame ends at {after}, where what stands should end"
                )));
            }
            state.staged = head.mark.position;
            return Ok(());
        }
        let held = {
            let state = stream.state();
            if state.durable.position == Position::ZERO || head.mark.position > state.durable.position {
                return Err(refuse(format!(
                    "its mark {} is after the end of the stream, {}",
                    head.mark.position, state.durable.position
                )));
            }
            if let Some(base) = &state.base
                && head.mark.position < base.mark.position
            {
                return Err(refuse(format!(
                    "its mark {} is before that of the base held, {}",
                    head.mark.position, base.mark.position
                )));
            }
            state.at(head.mark.position)
        };
        let held = match held {
            Some(Ok(mark)) => mark,
            Some(Err(frame)) => crate::read::mark_of_frame(&self.catalog, &stream.key, frame)?,
            // Where the oldest segment's part of the stream ends, if that end cannot be read.
            None => crate::read::stood_after_oldest(&self.catalog, &stream.key)
                .filter(|mark| mark.position == head.mark.position)
                .ok_or_else(|| refuse(format!("no frame held ends at its mark {}", head.mark.position)))?,
        };
        if held == head.mark {
            Ok(())
        } else {
            Err(refuse(format!(
                "it tells another history up to {}",
                held.position
            )))
        }
    }

    /// Writes snapshots and makes them durable; only then they count.
    pub(super) fn write_snapshots(
        &mut self,
        snapshots: &[(Arc<Stream>, NewSnapshot)],
    ) -> Result<(), AppendError> {
        let mut blocks = Vec::with_capacity(snapshots.len());
        for (stream, snapshot) in snapshots {
            let mut first = None;
            for body in &snapshot.bodies {
                if let Err(err) = self.ensure_room(BLOCK_HEADER_BYTES + body.len(), 0) {
                    // What was written of it stays, and counts for nothing.
                    self.sync()?;
                    self.durable.send_replace(self.synced.block);
                    return Err(err);
                }
                let at =
                    self.write_block(BlockKind::Snapshot, stream.slot, 0, body, &[], std::iter::empty())?;
                if let Some(active) = &mut self.active {
                    active.snapshots.push(at);
                }
                first.get_or_insert(self.head.block);
            }
            blocks.extend(first);
        }
        self.sync()?;
        for ((stream, snapshot), block) in snapshots.iter().zip(blocks) {
            self.take_effect(stream, &snapshot.head, block);
        }
        self.durable.send_replace(self.head.block);
        Ok(())
    }

    fn take_effect(&mut self, stream: &Arc<Stream>, head: &SnapshotHead, block: BlockNo) {
        let mut state = stream.state();
        state.add_snapshot(head, block);
        if head.purpose != Purpose::Rebase {
            return;
        }
        state.staged = state.durable.position;
        if state.accepted.position < state.durable.position {
            state.accepted = state.durable;
        }
        if head.superseded_after.is_some() {
            self.catalog.note_superseded();
        }
        if stream.key.incarnation == self.identity.incarnation {
            let writer = FrameWriter::resume(stream.key.clone(), head.mark);
            self.own.insert(stream.slot, writer);
        }
    }
}
