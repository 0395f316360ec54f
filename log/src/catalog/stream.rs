//! One stream of a log: where its frames are, how far it is durable, and the snapshots that stand for what is not
//! held.

use std::sync::PoisonError;

use ledge_proto::frame::Frame;
use ledge_proto::ids::{Epoch, Mark, Position, Seq, StreamKey};
use ledge_proto::v1::snapshot::Purpose;

use crate::ids::{BlockNo, SegmentNo};
use crate::snapshot::{SnapshotHead, SnapshotRef};
use crate::sync::{Mutex, MutexGuard};

/// Where one frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameRef {
    pub(crate) first_seq: Seq,
    pub(crate) epoch: Epoch,
    pub(crate) segment: SegmentNo,
    /// Bytes from the start of the segment.
    pub(crate) off: u32,
    pub(crate) len: u32,
    /// Records in it.
    pub(crate) count: u32,
}

impl FrameRef {
    /// Sequence number of its last record.
    pub(crate) fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + u64::from(self.count) - 1)
    }

    /// Position of its last record.
    pub(crate) fn last(&self) -> Position {
        Position {
            epoch: self.epoch,
            seq: self.last_seq(),
        }
    }
}

/// Records of a stream that later history replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Those after this one,
    pub(crate) after: Seq,
    /// of lower epochs than this.
    pub(crate) below: Epoch,
}

impl Cut {
    pub(crate) fn takes(&self, seq: Seq, epoch: Epoch) -> bool {
        seq > self.after && epoch < self.below
    }
}

/// A REBASE snapshot in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rebase {
    pub(crate) at: SnapshotRef,
    superseded_after: Option<Seq>,
}

impl Rebase {
    /// What is no longer part of the stream: what was superseded, and whatever has a sequence number that the new
    /// epoch uses again.
    fn leaves_out(&self) -> Cut {
        let mark = self.at.mark.position;
        Cut {
            after: self.superseded_after.unwrap_or(mark.seq).min(mark.seq),
            below: mark.epoch,
        }
    }

    /// What no longer stands, for readers of blocks.
    fn supersedes(&self) -> Option<Cut> {
        self.superseded_after.map(|after| Cut {
            after,
            below: self.at.mark.position.epoch,
        })
    }
}

/// One stream of one incarnation.
pub(crate) struct Stream {
    /// Its number in this log.
    pub(crate) slot: u32,
    pub(crate) key: StreamKey,
    state: Mutex<StreamState>,
}

impl Stream {
    pub(crate) fn new(slot: u32, key: StreamKey, mark: Mark) -> Stream {
        let state = StreamState {
            accepted: mark,
            staged: mark.position,
            durable: mark,
            frames: Vec::new(),
            bytes: 0,
            base: None,
            rebases: Vec::new(),
        };
        Stream {
            slot,
            key,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct StreamState {
    /// Last frame accepted; ahead of `durable` while frames wait for their commit.
    pub(crate) accepted: Mark,
    /// End of the last frame taken into a group.
    pub(crate) staged: Position,
    /// Last frame synced.
    pub(crate) durable: Mark,
    /// Frames held that still stand, by position.
    pub(crate) frames: Vec<FrameRef>,
    /// Sum of their lengths.
    pub(crate) bytes: u64,
    /// The newest base.
    pub(crate) base: Option<SnapshotRef>,
    /// Rebases held, oldest first.
    pub(crate) rebases: Vec<Rebase>,
}

/// What comes after a place in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Following {
    /// This frame of the index.
    Frame(usize),
    /// Nothing yet.
    Nothing,
    /// What comes next does not follow.
    Jump {
        snapshot: Option<SnapshotRef>,
        resume_after: Seq,
    },
}

impl StreamState {
    /// Sequence number of the first record held; one past the end when none is.
    pub(crate) fn first_seq(&self) -> Seq {
        self.frames
            .first()
            .map_or(self.durable.position.seq.next(), |frame| frame.first_seq)
    }

    /// Records held.
    pub(crate) fn records(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.count)).sum()
    }

    /// The frame that ends at `seq`, if one does.
    pub(crate) fn ending_at(&self, seq: Seq) -> Option<FrameRef> {
        let at = self.frames.partition_point(|frame| frame.last_seq() < seq);
        self.frames
            .get(at)
            .copied()
            .filter(|frame| frame.last_seq() == seq)
    }

    /// The frame that starts at `seq`, if one does.
    pub(crate) fn starting_at(&self, seq: Seq) -> Option<FrameRef> {
        let at = self.frames.partition_point(|frame| frame.first_seq < seq);
        self.frames
            .get(at)
            .copied()
            .filter(|frame| frame.first_seq == seq)
    }

    /// Takes in a frame that was missing from the index, at its place.
    pub(crate) fn put_back(&mut self, segment: SegmentNo, off: u32, frame: &Frame) {
        if self.starting_at(frame.first_seq()).is_some() {
            return;
        }
        let at = self
            .frames
            .partition_point(|known| known.first_seq < frame.first_seq());
        let len = u32::try_from(frame.bytes().len()).unwrap_or(u32::MAX);
        let held = FrameRef {
            first_seq: frame.first_seq(),
            epoch: frame.epoch(),
            segment,
            off,
            len,
            count: frame.count(),
        };
        self.frames.insert(at, held);
        self.bytes += u64::from(len);
    }

    /// What comes after the record `after`, for a reader that knows no more than its number.
    pub(crate) fn after_seq(&self, after: Seq) -> Following {
        let at = self.frames.partition_point(|frame| frame.last_seq() <= after);
        match self.frames.get(at) {
            Some(frame) if frame.first_seq <= after.next() => Following::Frame(at),
            Some(frame) => self.jump_to(Seq(frame.first_seq.0 - 1), frame.epoch),
            None if after < self.durable.position.seq => {
                self.jump_to(self.durable.position.seq, self.durable.position.epoch)
            }
            None => Following::Nothing,
        }
    }

    /// What comes after `last`, the end of the frame read last. That one may have been superseded since.
    pub(crate) fn after_mark(&self, last: Mark) -> Following {
        let at = self.frames.partition_point(|frame| frame.last() <= last.position);
        let frame = self.frames.get(at);
        let until = frame.map_or(Seq(u64::MAX), |frame| frame.first_seq);
        let between =
            self.rebases.iter().rev().find(|rebase| {
                rebase.at.mark.position > last.position && rebase.at.mark.position.seq < until
            });
        if let Some(rebase) = between {
            let mark = rebase.at.mark;
            // A new epoch that begins exactly here, with the same history.
            let follows = mark.position.seq == last.position.seq && mark.chain == last.chain;
            if !follows {
                return Following::Jump {
                    snapshot: Some(rebase.at.clone()),
                    resume_after: mark.position.seq,
                };
            }
        }
        match frame {
            Some(frame) if frame.first_seq <= last.position.seq.next() => Following::Frame(at),
            Some(frame) => self.jump_to(Seq(frame.first_seq.0 - 1), frame.epoch),
            None => Following::Nothing,
        }
    }

    fn jump_to(&self, resume_after: Seq, epoch: Epoch) -> Following {
        // A base of a later epoch stands for everything before it, whatever its number.
        let fits = |at: &&SnapshotRef| {
            let mark = at.mark.position;
            mark.seq >= resume_after || mark.epoch > epoch
        };
        let exact = self
            .rebases
            .iter()
            .rev()
            .map(|rebase| &rebase.at)
            .find(|at| at.mark.position.seq == resume_after && at.mark.position.epoch <= epoch);
        let snapshot = exact.or(self.base.as_ref().filter(fits)).cloned();
        Following::Jump {
            snapshot,
            resume_after,
        }
    }

    /// How many frames from index `from` on follow each other, at most `most`.
    pub(crate) fn run(&self, from: usize, most: usize) -> &[FrameRef] {
        let all = self.frames.get(from..).unwrap_or_default();
        let all = &all[..all.len().min(most)];
        let breaks = |pair: &[FrameRef]| {
            let (one, next) = (pair[0], pair[1]);
            let rebased = |rebase: &Rebase| {
                let mark = rebase.at.mark.position;
                mark > one.last() && mark.seq < next.first_seq
            };
            next.first_seq != one.last_seq().next() || self.rebases.iter().any(rebased)
        };
        let len = all.windows(2).position(breaks).map_or(all.len(), |at| at + 1);
        &all[..len]
    }

    /// The mark of a snapshot at `seq`, if one is held there.
    pub(crate) fn snapshot_mark(&self, seq: Seq) -> Option<Mark> {
        let mut limit = Seq(u64::MAX);
        for rebase in self.rebases.iter().rev() {
            if rebase.at.mark.position.seq == seq && seq <= limit {
                return Some(rebase.at.mark);
            }
            limit = limit.min(rebase.leaves_out().after);
        }
        let base = self.base.as_ref()?;
        (base.mark.position.seq == seq).then_some(base.mark)
    }

    /// The mark at a position that still stands: known, or that of a frame.
    pub(crate) fn at(&self, position: Position) -> Option<Result<Mark, FrameRef>> {
        let snapshots = self.rebases.iter().map(|rebase| &rebase.at).chain(&self.base);
        let known = snapshots.map(|at| at.mark).chain([self.durable]);
        match known.into_iter().find(|mark| mark.position == position) {
            Some(mark) => Some(Ok(mark)),
            None => self
                .ending_at(position.seq)
                .filter(|frame| frame.epoch == position.epoch)
                .map(Err),
        }
    }

    /// The snapshot that reaches furthest.
    pub(crate) fn newest_snapshot(&self) -> Option<&SnapshotRef> {
        let rebase = self.rebases.last().map(|rebase| &rebase.at);
        rebase
            .into_iter()
            .chain(&self.base)
            .max_by_key(|at| (at.mark.position, at.block))
    }

    /// Whether any frame may be superseded.
    pub(crate) fn supersedes(&self) -> bool {
        self.rebases.iter().any(|rebase| rebase.supersedes().is_some())
    }

    /// Whether the frame was superseded.
    pub(crate) fn is_superseded(&self, first_seq: Seq, epoch: Epoch) -> bool {
        self.rebases
            .iter()
            .filter_map(Rebase::supersedes)
            .any(|cut| cut.takes(first_seq, epoch))
    }

    /// Takes in a frame that is durable at `off` of `segment`.
    pub(crate) fn add(&mut self, segment: SegmentNo, off: u32, frame: &Frame) {
        let len = u32::try_from(frame.bytes().len()).unwrap_or(u32::MAX); // Frames are at most 2 MiB.
        self.frames.push(FrameRef {
            first_seq: frame.first_seq(),
            epoch: frame.epoch(),
            segment,
            off,
            len,
            count: frame.count(),
        });
        self.bytes += u64::from(len);
        self.durable = frame.mark();
    }

    /// Takes in a whole snapshot that is durable from `block` on.
    pub(crate) fn add_snapshot(&mut self, head: &SnapshotHead, block: BlockNo) {
        let at = head.at(block);
        if head.purpose != Purpose::Rebase {
            let further = |base: &SnapshotRef| base.mark.position <= at.mark.position;
            if self.base.as_ref().is_none_or(further) {
                self.base = Some(at);
            }
            return;
        }
        let rebase = Rebase {
            at,
            superseded_after: head.superseded_after,
        };
        let cut = rebase.leaves_out();
        self.frames
            // One that spans where the new epoch begins has numbers that are used again.
            .retain(|frame| !cut.takes(frame.last_seq(), frame.epoch));
        self.bytes = self.frames.iter().map(|frame| u64::from(frame.len)).sum();
        self.durable = head.mark;
        self.rebases.push(rebase);
    }

    /// A snapshot whose beginning was recycled moved the stream.
    pub(crate) fn was_moved(&mut self, head: &SnapshotHead) {
        if head.purpose == Purpose::Rebase {
            self.durable = head.mark;
        }
    }

    /// Gives up what lies in segments up to `segment`, whose last block is `last`.
    pub(crate) fn forget(&mut self, segment: SegmentNo, last: BlockNo) {
        self.frames.retain(|frame| frame.segment > segment);
        self.bytes = self.frames.iter().map(|frame| u64::from(frame.len)).sum();
        self.rebases.retain(|rebase| rebase.at.block > last);
        if self.base.as_ref().is_some_and(|base| base.block <= last) {
            self.base = None;
        }
    }

    /// The end of what the oldest segments up to `segment`, whose last block is `last`, hold of the stream: a
    /// frame of the index, or the mark of a snapshot.
    pub(crate) fn end_in(&self, segment: SegmentNo, last: BlockNo) -> (Option<FrameRef>, Option<Mark>) {
        let frame = self
            .frames
            .iter()
            .rev()
            .find(|frame| frame.segment <= segment)
            .copied();
        let base = self.base.as_ref().filter(|base| base.block <= last);
        let rebases = self.rebases.iter().map(|rebase| &rebase.at);
        let mark = rebases
            .filter(|at| at.block <= last)
            .chain(base)
            .map(|at| at.mark)
            .max_by_key(|mark| mark.position);
        (frame, mark)
    }

    /// Whether a snapshot after block `last` stands for everything up to `end`, which lies in `segment` or before.
    pub(crate) fn is_covered(&self, end: Position, segment: SegmentNo, last: BlockNo) -> bool {
        let base = self
            .base
            .as_ref()
            .is_some_and(|base| base.block > last && base.mark.position >= end);
        let first_left = self.frames.iter().find(|frame| frame.segment > segment);
        // A rebase covers nothing that is left before it.
        base || self.rebases.iter().any(|rebase| {
            let at = &rebase.at;
            at.block > last
                && at.mark.position >= end
                && first_left.is_none_or(|frame| frame.last() > at.mark.position)
        })
    }
}
