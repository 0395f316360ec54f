//! Durable blocks that cannot be read: where they end, and what is known to have been in them.

use std::collections::{HashMap, HashSet, VecDeque};

use ledge_proto::ids::Position;
use ledge_proto::mutants;

use super::segment::{Found, SegmentScan, Window, peek, span};
use super::{Mode, OnHole};
use crate::catalog::Damage;
use crate::error::OpenError;
use crate::format::block::{BLOCK_HEADER_LEN, BlockHeader, BlockKind};
use crate::format::seal::Seal;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::streams::StreamTail;
use crate::ids::BlockNo;

impl SegmentScan<'_> {
    /// Whether the frames of a block continue their streams, as far as that can be told without damage before it.
    pub(super) fn check_follows(&self, found: &Found) -> Result<(), OpenError> {
        if self.on_hole == OnHole::Refuse {
            return Ok(()); // Found out on the way.
        }
        let mut ends: HashMap<u32, Position> = HashMap::new();
        for entry in &found.dir {
            let have = match (ends.get(&entry.slot), self.streams.by_slot(entry.slot)) {
                (Some(end), _) => *end,
                (None, Some(stream)) => stream.state().durable.position,
                (None, None) => {
                    peek(self.segment, found.off + BLOCK_HEADER_LEN + entry.off, entry.len)?;
                    Position::ZERO
                }
            };
            if entry.first_seq != have.seq.next() || entry.epoch < have.epoch {
                return Err(self.damaged(found.off, "its directory does not continue".to_owned()));
            }
            let end = Position {
                epoch: entry.epoch,
                seq: entry.last_seq(),
            };
            ends.insert(entry.slot, end);
        }
        Ok(())
    }

    /// Whether everything can be read that the index of a finished segment does not say. Otherwise its blocks are
    /// looked at one by one.
    pub(super) fn can_use(&self, seal: &Seal, first: bool) -> Result<bool, OpenError> {
        if first {
            // Where the streams stood before it.
            let mut off = SEGMENT_HEADER_LEN;
            loop {
                let Some(found) = self.block_at(off)? else {
                    return Ok(false);
                };
                if found.header.kind != BlockKind::Streams {
                    break;
                }
                if self.check_body(&found)?.is_err() {
                    return Ok(false);
                }
                off += span(&found, self.segment);
            }
        }
        let mut known = HashSet::new();
        for entry in &seal.frames {
            let new = self.streams.by_slot(entry.slot).is_none() && known.insert(entry.slot);
            if new && peek(self.segment, entry.off, entry.len).is_err() {
                return Ok(false);
            }
        }
        for at in &seal.snapshots {
            let Some(found) = self.block_at(*at)? else {
                return Ok(false);
            };
            if self.check_body(&found)?.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lists the blocks from `off` on that cannot be read, when something proves that they were durable. Returns
    /// where it goes on.
    pub(super) fn skip_hole(
        &mut self,
        off: u32,
        expected: BlockNo,
        open: &mut VecDeque<Found>,
    ) -> Result<Option<u32>, OpenError> {
        let vouched = expected <= self.witness || self.until.is_some();
        if self.on_hole == OnHole::Refuse
            || mutants::on("truncate-on-crc-error")
            || self.until.is_some_and(|until| expected >= until)
            || self.tail.lost_end
            || self.mode == Mode::Live && !vouched
            || self.clean && expected > self.witness && self.until.is_none()
        {
            return Ok(None);
        }
        let later = self.later_header(off, expected)?;
        let (at, next) = match later {
            Some((at, ref header)) if vouched || header.durable_block >= expected => (at, header.block_no),
            Some(_) => return Ok(None),
            None if vouched => {
                // Nothing after it in this segment. Blank bytes in the last one are lost data, not damage.
                if self.until.is_none() && self.is_blank(off)? {
                    return Ok(None);
                }
                let end = u32::try_from(self.segment.header.segment_bytes).unwrap_or(u32::MAX);
                (end, self.until.unwrap_or(self.witness.next()))
            }
            None => return Ok(None),
        };
        let missing = next.0.saturating_sub(expected.0);
        if missing > u64::from((at - off) / u32::from(self.segment.header.align)) {
            let reason = format!(
                "blocks {expected} to {} are missing: they do not fit here",
                next.previous()
            );
            return Err(self.damaged(off, reason));
        }
        while let Some(found) = open.pop_front() {
            self.take(found)?;
        }
        self.hole(off, at, expected, next.previous());
        if self.until.is_none() && later.is_none() {
            self.tail.lost_end = true;
            self.tail.sealed = true; // Where it ends is not known: the next block begins a segment.
        }
        Ok(Some(at))
    }

    /// A block of which only the header is as it was.
    pub(super) fn hole_of(&mut self, found: &Found) -> Result<(), OpenError> {
        let no = found.header.block_no;
        let end = found.off + span(found, self.segment);
        if self.check_follows(found).is_err() {
            self.hole(found.off, end, no, no);
            return Ok(());
        }
        let suspects = std::mem::take(&mut self.damages.suspects);
        self.hole(found.off, end, no, no);
        self.damages.suspects = suspects;
        for entry in &found.dir {
            let Some(stream) = self.streams.by_slot(entry.slot).cloned() else {
                continue;
            };
            self.damages.lost(&stream.key, entry.first_seq, entry.last_seq());
            self.damages.suspects.insert(entry.slot);
        }
        Ok(())
    }

    /// Blocks `first` to `last`, from `off` to `end`, cannot be read.
    fn hole(&mut self, off: u32, end: u32, first: BlockNo, last: BlockNo) {
        tracing::error!(file = %self.segment.path.display(), off, %first, %last, "damaged blocks are left out");
        self.damages.all.push(Damage {
            segment: self.segment.no(),
            off,
            end,
            first,
            last,
            lost: Vec::new(),
            returned: Vec::new(),
        });
        let slots = self.streams.iter().map(|stream| stream.slot);
        self.damages.suspects.extend(slots);
        let count = usize::try_from(last.0.saturating_sub(first.0)).unwrap_or(0) + 1;
        crate::catalog::write(&self.segment.blocks).extend(std::iter::repeat_n(off, count));
        self.assembly.interrupt();
        self.tail.off = end;
        self.tail.last_block = None;
    }

    /// The first valid header behind `off` of a block after `expected`.
    fn later_header(&self, off: u32, expected: BlockNo) -> Result<Option<(u32, BlockHeader)>, OpenError> {
        let align = u32::from(self.segment.header.align);
        let file_end = u32::try_from(self.segment.header.segment_bytes).unwrap_or(u32::MAX);
        let mut window = Window::default();
        let mut at = off.saturating_add(align);
        while at.saturating_add(BLOCK_HEADER_LEN) <= file_end {
            let head = window.get(self.segment, at, file_end).map_err(self.io())?;
            if let Ok(header) = BlockHeader::decode(head, self.segment.header.seed())
                && header.block_no > expected
            {
                return Ok(Some((at, header)));
            }
            at += align;
        }
        Ok(None)
    }

    /// A segment says where a stream stood: what is missing before was in a damaged block.
    pub(super) fn prove_end(&mut self, tail: &StreamTail) {
        let Some(stream) = self.streams.by_slot(tail.slot).cloned() else {
            return;
        };
        self.damages.suspects.remove(&tail.slot);
        let mut state = stream.state();
        let (have, to) = (state.durable.position, tail.mark.position);
        if have < to && self.damages.lost(&tail.key, have.seq.next(), to.seq) {
            state.durable = tail.mark;
        }
    }
}
