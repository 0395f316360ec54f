//! Blocks that were durable and cannot be read, and the frames that were in them.

use std::collections::HashSet;

use ledge_proto::frame::Frame;
use ledge_proto::ids::{Seq, StreamKey};

use super::{FrameRef, Segment};
use crate::ids::{BlockNo, SegmentNo};

/// Records that were durable and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The stream.
    pub key: StreamKey,
    /// The first record.
    pub first: Seq,
    /// The last record.
    pub last: Seq,
    /// The damaged block, or the first of several that cannot be told apart.
    pub block: BlockNo,
    /// The segment it is in.
    pub segment: SegmentNo,
    /// Where it starts, bytes from the start of the segment.
    pub off: u32,
}

/// A stretch of a segment that is not what was written.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    pub(crate) segment: SegmentNo,
    pub(crate) off: u32,
    /// Where the next block starts, or the end of what it may reach to.
    pub(crate) end: u32,
    pub(crate) first: BlockNo,
    pub(crate) last: BlockNo,
    /// What is known to have been in it.
    pub(crate) lost: Vec<Quarantined>,
    /// Frames a peer gave back, until the block can be written again as a whole.
    pub(crate) returned: Vec<Frame>,
}

/// All damage found so far.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    pub(crate) all: Vec<Damage>,
    /// Numbers of streams whose end may have been in a damaged block: nothing later proves otherwise.
    pub(crate) suspects: HashSet<u32>,
}

impl Damages {
    pub(crate) fn listed(&self) -> Vec<Quarantined> {
        self.all.iter().flat_map(|damage| damage.lost.clone()).collect()
    }

    /// The damage in which record `seq` of a stream was.
    pub(crate) fn holding(&self, key: &StreamKey, seq: Seq) -> Option<&Quarantined> {
        let all = self.all.iter().flat_map(|damage| &damage.lost);
        all.into_iter()
            .find(|lost| lost.key == *key && lost.first <= seq && seq <= lost.last)
    }

    pub(crate) fn at(&self, segment: SegmentNo, off: u32) -> Option<&Damage> {
        let inside = |damage: &&Damage| {
            damage.segment == segment && (damage.off..damage.end.max(damage.off + 1)).contains(&off)
        };
        self.all.iter().find(inside)
    }

    /// Records between others that are missing: they were in the damaged block before. `false` when there is none.
    pub(crate) fn lost(&mut self, key: &StreamKey, first: Seq, last: Seq) -> bool {
        let Some(damage) = self.all.last_mut() else {
            return false;
        };
        damage.lost.push(Quarantined {
            key: key.clone(),
            first,
            last,
            block: damage.first,
            segment: damage.segment,
            off: damage.off,
        });
        true
    }

    /// A frame whose place is known.
    pub(crate) fn add_frame(&mut self, segment: &Segment, key: &StreamKey, frame: FrameRef) {
        let Some((block, off, end)) = segment.block_around(frame.off) else {
            return;
        };
        let lost = Quarantined {
            key: key.clone(),
            first: frame.first_seq,
            last: frame.last_seq(),
            block,
            segment: segment.no(),
            off,
        };
        let known = self
            .all
            .iter_mut()
            .find(|d| d.segment == segment.no() && d.off == off);
        match known {
            Some(damage) if damage.lost.contains(&lost) => {}
            Some(damage) => damage.lost.push(lost),
            None => self.all.push(Damage {
                segment: segment.no(),
                off,
                end,
                first: block,
                last: block,
                lost: vec![lost],
                returned: Vec::new(),
            }),
        }
    }

    /// Whether anything in the segment cannot be read.
    pub(crate) fn touches(&self, segment: SegmentNo) -> bool {
        self.all.iter().any(|damage| damage.segment == segment)
    }

    pub(crate) fn forget(&mut self, segment: SegmentNo) {
        self.all.retain(|damage| damage.segment > segment);
    }
}

impl Damage {
    /// Whether every record of it that is known is among the returned frames.
    pub(crate) fn is_complete(&self) -> bool {
        self.lost.iter().all(|lost| self.has_returned(lost))
    }

    /// Whether every record of `lost` is among the returned frames.
    pub(crate) fn has_returned(&self, lost: &Quarantined) -> bool {
        let mut next = lost.first;
        let mut frames: Vec<&Frame> = self
            .returned
            .iter()
            .filter(|frame| *frame.key() == lost.key)
            .collect();
        frames.sort_unstable_by_key(|frame| frame.first_seq());
        for frame in frames {
            if frame.first_seq() == next {
                next = frame.last_seq().next();
            }
        }
        next > lost.last
    }
}
