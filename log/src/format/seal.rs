//! Body of a SEAL block: where every block and frame of its segment is, so that recovery need not look for them.

use super::FormatError;
use super::block::{DIR_ENTRY_BYTES, DirEntry, decode_dir};
use super::fields::u32_at;

const WHAT: &str = "SEAL block";
const HEAD: usize = 8;

/// Index of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    /// Where each block before the SEAL starts, bytes from the start of the segment.
    pub(crate) blocks: Vec<u32>,
    /// Every frame, in order; offsets are from the start of the segment.
    pub(crate) frames: Vec<DirEntry>,
    /// Where each SNAPSHOT block starts.
    pub(crate) snapshots: Vec<u32>,
}

impl Seal {
    /// Length of the encoded form, bytes.
    pub(crate) fn encoded_len(blocks: usize, frames: usize, snapshots: usize) -> usize {
        HEAD + 4 * (blocks + snapshots) + DIR_ENTRY_BYTES * frames
    }

    /// `None` when there is more than the format can count.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(Seal::encoded_len(
            self.blocks.len(),
            self.frames.len(),
            self.snapshots.len(),
        ));
        out.extend_from_slice(&u32::try_from(self.blocks.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.frames.len()).ok()?.to_le_bytes());
        for at in &self.blocks {
            out.extend_from_slice(&at.to_le_bytes());
        }
        for frame in &self.frames {
            frame.encode(&mut out);
        }
        for at in &self.snapshots {
            out.extend_from_slice(&at.to_le_bytes());
        }
        Some(out)
    }

    /// Reads the SEAL that starts at `end` of its segment; everything it lists lies before.
    pub(crate) fn decode(buf: &[u8], end: usize) -> Result<Seal, FormatError> {
        let field = |field| FormatError::Field { what: WHAT, field };
        if buf.len() < HEAD {
            return Err(FormatError::NotA(WHAT));
        }
        let (blocks, frames) = (u32_at(buf, 0) as usize, u32_at(buf, 4) as usize);
        // The lengths come from outside: check them against what is there before allocating anything.
        let indexed = blocks <= buf.len() && frames <= buf.len();
        let len = if indexed {
            Seal::encoded_len(blocks, frames, 0)
        } else {
            usize::MAX
        };
        if len > buf.len() || !(buf.len() - len).is_multiple_of(4) {
            return Err(field("length"));
        }
        let (indexed, snapshots) = buf.split_at(len);
        let (offsets, dir) = indexed[HEAD..].split_at(4 * blocks);
        let blocks: Vec<u32> = offsets.chunks_exact(4).map(|chunk| u32_at(chunk, 0)).collect();
        if !blocks.is_sorted_by(|a, b| a < b) || blocks.last().is_some_and(|last| *last as usize >= end) {
            return Err(field("block offsets"));
        }
        let snapshots: Vec<u32> = snapshots.chunks_exact(4).map(|chunk| u32_at(chunk, 0)).collect();
        let known = snapshots.iter().all(|at| blocks.binary_search(at).is_ok());
        if !known || !snapshots.is_sorted_by(|a, b| a < b) {
            return Err(field("snapshots"));
        }
        Ok(Seal {
            blocks,
            frames: decode_dir(dir, super::segment::SEGMENT_HEADER_BYTES, end)?,
            snapshots,
        })
    }
}

#[cfg(test)]
mod tests {
    use ledge_proto::ids::{Epoch, Seq};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn seals_round_trip(steps in prop::collection::vec(1u32..1000, 0..50), frames in 0u32..50) {
            let blocks: Vec<u32> = steps.iter().scan(4096, |at, step| { *at += step; Some(*at) }).collect();
            let frames = (0..frames).map(|n| DirEntry {
                slot: n, epoch: Epoch(1), first_seq: Seq(1 + u64::from(n)), count: 1, off: 4096 + n, len: 7,
            }).collect();
            let snapshots = blocks.iter().copied().step_by(3).collect();
            let seal = Seal { blocks, frames, snapshots };
            prop_assert_eq!(Seal::decode(&seal.encode().unwrap(), 1 << 20).unwrap(), seal);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), end in 0usize..10_000) {
            let _ = Seal::decode(&bytes, end);
        }
    }
}
