//! Snapshots on a lane: where they come from, and how their parts are put together again.

use ledge_proto::fold::snapshot::{self, SnapshotError, SnapshotSource};
use ledge_proto::ids::{Mark, Position, StreamKey};
use ledge_proto::limits;
use ledge_proto::v1::{self, snapshot::Purpose};

/// For ends that fold nothing: peers that are behind what the log holds get what the log keeps as its base.
#[derive(Debug)]
pub struct NoSnapshots;

impl SnapshotSource for NoSnapshots {
    fn live(&self, _key: &StreamKey) -> Option<Vec<v1::Snapshot>> {
        None
    }

    fn mark(&self, _key: &StreamKey) -> Option<Mark> {
        None
    }

    fn changes(&self, _key: &StreamKey, _after: Position) -> Option<Vec<v1::Snapshot>> {
        None
    }
}

/// Why a part of a snapshot was refused.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It cannot be used by itself.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It is not the next one.
    #[error("{key}: part {part} of {parts} of a snapshot where part {expected} should come")]
    Order {
        /// The stream.
        key: StreamKey,
        /// Its number.
        part: u32,
        /// Of how many.
        parts: u32,
        /// The number it should have.
        expected: usize,
    },
    /// There is too much of it.
    #[error(
        "{key}: a snapshot of {parts} parts and at least {bytes} bytes is over the limit of {max_parts} parts and {most} bytes",
        max_parts = limits::SNAPSHOT_MAX_PARTS
    )]
    TooLarge {
        /// The stream.
        key: StreamKey,
        /// Parts it claims to have.
        parts: u32,
        /// Bytes so far.
        bytes: usize,
        /// Bytes allowed.
        most: usize,
    },
}

/// A whole snapshot, as it arrived.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) key: StreamKey,
    pub(super) mark: Mark,
    pub(super) purpose: Purpose,
    pub(super) parts: Vec<v1::Snapshot>,
    pub(super) bytes: u64,
}

/// Puts parts together. Bounded: neither their number nor their bytes are taken on trust.
#[derive(Debug, Default)]
pub(super) struct Collector {
    parts: Vec<v1::Snapshot>,
    /// In memory, once decompressed.
    bytes: usize,
    wire_bytes: usize,
}

impl Collector {
    /// Takes the next part, of `len` bytes on the wire; gives the snapshot with its last part.
    pub(super) fn push(&mut self, part: v1::Snapshot, len: usize) -> Result<Option<Whole>, PartError> {
        let key = snapshot::key_of(&part)?;
        let mark = snapshot::mark_of(&part)?;
        let (number, count) = (part.part, part.parts);
        // What it takes in memory once it is used.
        let bytes = self.bytes + len.max(part.raw_len as usize);
        let most = match part.purpose() {
            Purpose::Hint => limits::HINT_MAX_BYTES,
            _ => limits::SNAPSHOT_MAX_BYTES,
        };
        if count > limits::SNAPSHOT_MAX_PARTS || bytes > most {
            return Err(PartError::TooLarge {
                key,
                parts: count,
                bytes,
                most,
            });
        }
        let expected = self.parts.len();
        let alike = self.parts.first().is_none_or(|first| {
            (&first.scope, first.lane, &first.incarnation) == (&part.scope, part.lane, &part.incarnation)
                && (first.epoch, first.seq, &first.chain) == (part.epoch, part.seq, &part.chain)
                && (first.parts, first.purpose) == (count, part.purpose)
        });
        if number as usize != expected || number >= count || !alike {
            return Err(PartError::Order {
                key,
                part: number,
                parts: count,
                expected,
            });
        }
        let purpose = part.purpose();
        self.parts.push(part);
        self.bytes = bytes;
        self.wire_bytes += len;
        if number + 1 < count {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some(Whole {
            key,
            mark,
            purpose,
            parts: whole.parts,
            bytes: whole.wire_bytes as u64,
        }))
    }

    /// Whether a snapshot has begun and not ended.
    pub(super) fn in_the_middle(&self) -> bool {
        !self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(part: u32, parts: u32) -> v1::Snapshot {
        v1::Snapshot {
            scope: "edge-1".into(),
            lane: 2,
            incarnation: vec![7; 16],
            epoch: 1,
            seq: 5,
            chain: vec![1; 16],
            part,
            parts,
            purpose: Purpose::Rebase.into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_last_part_completes_it_and_the_next_one_begins_afresh() {
        let mut collector = Collector::default();
        for _ in 0..2 {
            assert!(collector.push(part(0, 2), 10).unwrap().is_none());
            assert!(collector.in_the_middle());
            let whole = collector.push(part(1, 2), 10).unwrap().unwrap();
            assert_eq!((whole.parts.len(), whole.bytes), (2, 20));
            assert!(!collector.in_the_middle());
        }
    }

    #[test]
    fn parts_out_of_order_or_of_another_snapshot_are_refused() {
        let order = |first: v1::Snapshot, second: v1::Snapshot| {
            let mut collector = Collector::default();
            collector.push(first, 1).unwrap();
            matches!(collector.push(second, 1), Err(PartError::Order { .. }))
        };
        assert!(order(part(0, 3), part(2, 3)));
        assert!(order(part(0, 3), part(0, 3)));
        assert!(order(part(0, 3), part(1, 4)));
        assert!(order(part(0, 3), v1::Snapshot { seq: 6, ..part(1, 3) }));
        assert!(order(
            part(0, 3),
            v1::Snapshot {
                lane: 3,
                ..part(1, 3)
            }
        ));
        let nothing = Collector::default().push(part(0, 0), 1);
        assert!(matches!(nothing, Err(PartError::Order { .. })));
    }

    #[test]
    fn neither_parts_nor_bytes_grow_without_end() {
        let many = Collector::default().push(part(0, u32::MAX), 1);
        assert!(matches!(many, Err(PartError::TooLarge { .. })));
        let mut collector = Collector::default();
        let half = limits::SNAPSHOT_MAX_BYTES / 2 + 1;
        collector.push(part(0, 3), half).unwrap();
        let large = collector.push(part(1, 3), half);
        assert!(matches!(large, Err(PartError::TooLarge { .. })));
    }
}
