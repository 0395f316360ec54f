//! Blocks: 64 bytes of header, a directory of frames, then the frames as they travel.

use ledge_proto::checksum::crc32c_of;
use ledge_proto::ids::{Epoch, Seq, truncate16};
use ledge_proto::limits;

use super::FormatError;
use super::fields::{bytes, put, u16_at, u32_at, u64_at};
use crate::ids::{BlockChain, BlockNo};

/// Length of a block header.
pub(crate) const BLOCK_HEADER_LEN: u32 = 64;
/// The same as an index.
pub(crate) const BLOCK_HEADER_BYTES: usize = BLOCK_HEADER_LEN as usize;
/// Length of one directory entry.
pub(crate) const DIR_ENTRY_BYTES: usize = 28;
/// Largest body: what is left of the largest block after its header.
pub(crate) const BODY_MAX_BYTES: usize = limits::BLOCK_MAX_BYTES - BLOCK_HEADER_BYTES;
/// Most frames in one block.
pub(crate) const BLOCK_MAX_FRAMES: usize = u16::MAX as usize;

const MAGIC: &[u8; 4] = b"LBK1";
const WHAT: &str = "block header";

/// What a block holds. Persisted: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// Frames.
    Data = 1,
    /// A change of leadership (reserved).
    Epoch = 2,
    /// One part of a snapshot of a stream's folded state.
    Snapshot = 3,
    /// What was dropped under pressure (reserved).
    Gap = 4,
    /// A compression dictionary (reserved).
    Dict = 5,
    /// Last block of a segment: an index of what is in it.
    Seal = 6,
    /// First blocks of a segment: where every stream stood when it began.
    Streams = 7,
}

impl BlockKind {
    /// Every kind this version knows.
    pub const ALL: [BlockKind; 7] = [
        BlockKind::Data,
        BlockKind::Epoch,
        BlockKind::Snapshot,
        BlockKind::Gap,
        BlockKind::Dict,
        BlockKind::Seal,
        BlockKind::Streams,
    ];

    /// The name shown to people.
    pub fn name(self) -> &'static str {
        match self {
            BlockKind::Data => "DATA",
            BlockKind::Epoch => "EPOCH",
            BlockKind::Snapshot => "SNAPSHOT",
            BlockKind::Gap => "GAP",
            BlockKind::Dict => "DICT",
            BlockKind::Seal => "SEAL",
            BlockKind::Streams => "STREAMS",
        }
    }

    fn from_wire(number: u8) -> Option<BlockKind> {
        BlockKind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// First 64 bytes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) kind: BlockKind,
    pub(crate) flags: u8,
    /// Frames in the body.
    pub(crate) dir_count: u16,
    /// Length of directory and frames, bytes.
    pub(crate) body_len: u32,
    pub(crate) block_no: BlockNo,
    /// Last block known to be durable when this one was written.
    pub(crate) durable_block: BlockNo,
    /// Chain up to the block before.
    pub(crate) prev_chain: BlockChain,
    /// CRC-32C of the body, seeded.
    pub(crate) body_crc: u32,
    /// Of a SNAPSHOT: the number of its stream in this log. 0 otherwise.
    pub(crate) slot: u32,
    /// CRC-32C of the directory, seeded: whoever opens a log reads headers and directories, and no bodies.
    pub(crate) dir_crc: u32,
}

impl BlockHeader {
    pub(crate) fn encode(&self, seed: u32) -> [u8; BLOCK_HEADER_BYTES] {
        let mut buf = [0; BLOCK_HEADER_BYTES];
        put(&mut buf, 0, MAGIC);
        buf[4] = self.kind as u8;
        buf[5] = self.flags;
        put(&mut buf, 6, &self.dir_count.to_le_bytes());
        put(&mut buf, 8, &self.body_len.to_le_bytes());
        put(&mut buf, 16, &self.block_no.0.to_le_bytes());
        put(&mut buf, 24, &self.durable_block.0.to_le_bytes());
        put(&mut buf, 32, &self.prev_chain);
        put(&mut buf, 48, &self.body_crc.to_le_bytes());
        put(&mut buf, 52, &self.slot.to_le_bytes());
        put(&mut buf, 56, &self.dir_crc.to_le_bytes());
        let crc = header_crc(&buf, seed);
        put(&mut buf, 12, &crc.to_le_bytes());
        buf
    }

    /// Reads and checks a header. The body is not looked at.
    pub(crate) fn decode(buf: &[u8], seed: u32) -> Result<BlockHeader, FormatError> {
        let buf = buf
            .get(..BLOCK_HEADER_BYTES)
            .ok_or(FormatError::NotA("block: too short"))?;
        if &buf[..4] != MAGIC {
            return Err(FormatError::NotA("block: no magic number"));
        }
        if header_crc(buf, seed) != u32_at(buf, 12) {
            return Err(FormatError::Checksum(WHAT));
        }
        let field = |field| FormatError::Field { what: WHAT, field };
        let header = BlockHeader {
            kind: BlockKind::from_wire(buf[4]).ok_or(field("kind"))?,
            flags: buf[5],
            dir_count: u16_at(buf, 6),
            body_len: u32_at(buf, 8),
            block_no: BlockNo(u64_at(buf, 16)),
            durable_block: BlockNo(u64_at(buf, 24)),
            prev_chain: bytes(buf, 32),
            body_crc: u32_at(buf, 48),
            slot: u32_at(buf, 52),
            dir_crc: u32_at(buf, 56),
        };
        if header.body_len() > BODY_MAX_BYTES {
            return Err(field("body_len"));
        }
        if header.dir_len() > header.body_len() {
            return Err(field("dir_count"));
        }
        if header.block_no == BlockNo::ZERO || header.durable_block >= header.block_no {
            return Err(field("block_no"));
        }
        Ok(header)
    }

    pub(crate) fn body_len(&self) -> usize {
        self.body_len as usize
    }

    pub(crate) fn dir_len(&self) -> usize {
        usize::from(self.dir_count) * DIR_ENTRY_BYTES
    }

    /// Checks the directory, the first bytes of a body, and reads it.
    pub(crate) fn directory(&self, dir: &[u8], seed: u32) -> Result<Vec<DirEntry>, FormatError> {
        let dir = dir
            .get(..self.dir_len())
            .ok_or(FormatError::NotA("block directory: too short"))?;
        if seeded_crc(seed, std::iter::once(dir)) != self.dir_crc {
            return Err(FormatError::Checksum("block directory"));
        }
        decode_dir(dir, dir.len(), self.body_len())
    }

    /// Header and body, bytes.
    pub(crate) fn block_len(&self) -> usize {
        BLOCK_HEADER_BYTES + self.body_len()
    }

    /// Bytes the block takes in its segment.
    pub(crate) fn span(&self, align: u16) -> usize {
        self.block_len().next_multiple_of(usize::from(align))
    }
}

fn header_crc(buf: &[u8], seed: u32) -> u32 {
    crc32c_of(&[&seed.to_le_bytes(), &buf[..12], &buf[16..BLOCK_HEADER_BYTES]])
}

/// CRC-32C of a body, or a directory, given in pieces, seeded.
pub(crate) fn seeded_crc<'a>(seed: u32, pieces: impl Iterator<Item = &'a [u8]>) -> u32 {
    let seed = seed.to_le_bytes();
    let mut all: Vec<&[u8]> = Vec::with_capacity(pieces.size_hint().0 + 1);
    all.push(&seed);
    for piece in pieces {
        all.push(piece);
    }
    crc32c_of(&all)
}

/// Where one frame of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirEntry {
    /// Log-wide number of the stream.
    pub(crate) slot: u32,
    pub(crate) epoch: Epoch,
    pub(crate) first_seq: Seq,
    /// Records in the frame.
    pub(crate) count: u32,
    /// Where the frame starts, bytes from the start of the body.
    pub(crate) off: u32,
    pub(crate) len: u32,
}

impl DirEntry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.slot.to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.first_seq.0.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.off.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
    }

    fn decode(buf: &[u8]) -> DirEntry {
        DirEntry {
            slot: u32_at(buf, 0),
            epoch: Epoch(u32_at(buf, 4)),
            first_seq: Seq(u64_at(buf, 8)),
            count: u32_at(buf, 16),
            off: u32_at(buf, 20),
            len: u32_at(buf, 24),
        }
    }

    /// Whether the numbers make sense and the frame ends by `end`.
    fn check(&self, start: usize, end: usize) -> Result<(), FormatError> {
        let field = |field| FormatError::Field {
            what: "block directory",
            field,
        };
        let (off, len) = (self.off as usize, self.len as usize);
        if len == 0 || len > limits::FRAME_MAX_BYTES || off < start || off.saturating_add(len) > end {
            return Err(field("off or len"));
        }
        if self.count == 0 || self.first_seq == Seq::ZERO {
            return Err(field("count or first_seq"));
        }
        if self.first_seq.0.checked_add(u64::from(self.count)).is_none() {
            return Err(field("first_seq"));
        }
        Ok(())
    }

    /// Sequence number of the frame's last record.
    pub(crate) fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + u64::from(self.count) - 1)
    }
}

/// Reads a directory whose frames must lie in `start..end`.
pub(crate) fn decode_dir(dir: &[u8], start: usize, end: usize) -> Result<Vec<DirEntry>, FormatError> {
    dir.chunks_exact(DIR_ENTRY_BYTES)
        .map(|chunk| {
            let entry = DirEntry::decode(chunk);
            entry.check(start, end).map(|()| entry)
        })
        .collect()
}

/// The chain up to and including a block: over the header (which holds the chain before and the body's CRC), the
/// rest of `own` (the directory, or the whole body where there are no frames), and the chains of the frames,
/// which in turn cover the frames' bytes.
pub(crate) fn block_chain(header: &[u8], own: &[u8], frames: impl Iterator<Item = [u8; 16]>) -> BlockChain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header);
    hasher.update(own);
    for chain in frames {
        hasher.update(&chain);
    }
    truncate16(&hasher)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn headers()(
            kind in prop::sample::select(BlockKind::ALL.to_vec()), flags: u8, dir_count: u16, extra in 0u32..100_000,
            block_no in 1u64.., behind in 1u64.., prev_chain: [u8; 16], body_crc: u32,
            slot: u32, dir_crc: u32,
        ) -> BlockHeader {
            let body_len = u32::from(dir_count) * 28 + extra;
            BlockHeader {
                kind, flags, dir_count, body_len, block_no: BlockNo(block_no),
                durable_block: BlockNo(block_no.saturating_sub(behind)), prev_chain, body_crc, slot, dir_crc,
            }
        }
    }

    proptest! {
        #[test]
        fn headers_round_trip(header in headers(), seed: u32) {
            prop_assert_eq!(BlockHeader::decode(&header.encode(seed), seed).unwrap(), header);
        }

        #[test]
        fn any_flipped_bit_or_other_seed_is_noticed(header in headers(), seed: u32, at in 0usize..64, bit in 0u8..8) {
            let mut bytes = header.encode(seed);
            prop_assert!(BlockHeader::decode(&bytes, seed ^ 1).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(BlockHeader::decode(&bytes, seed).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), seed: u32) {
            prop_assert!(BlockHeader::decode(&bytes, seed).is_err());
            let _ = decode_dir(&bytes, 0, 1000);
        }

        #[test]
        fn directories_round_trip(slot: u32, epoch: u32, seq in 1u64..u64::MAX / 2, count in 1u32.., off in 0u32..1000, len in 1u32..1000) {
            let entry = DirEntry { slot, epoch: Epoch(epoch), first_seq: Seq(seq), count, off, len };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), DIR_ENTRY_BYTES);
            prop_assert_eq!(decode_dir(&bytes, 0, 2000).unwrap(), vec![entry]);
            prop_assert!(decode_dir(&bytes, 0, (off + len - 1) as usize).is_err());
        }

        #[test]
        fn any_flipped_bit_of_a_directory_is_noticed(seq in 1u64..1 << 40, seed: u32, at in 0usize..56, bit in 0u8..8) {
            let mut dir = Vec::new();
            for n in 0..2 {
                let entry = DirEntry { slot: n, epoch: Epoch(1), first_seq: Seq(seq), count: 3, off: 56 + n, len: 1 };
                entry.encode(&mut dir);
            }
            let header = BlockHeader {
                kind: BlockKind::Data, flags: 0, dir_count: 2, body_len: 58, block_no: BlockNo(1),
                durable_block: BlockNo(0), prev_chain: [0; 16], body_crc: 0, slot: 0,
                dir_crc: seeded_crc(seed, std::iter::once(&dir[..])),
            };
            prop_assert_eq!(header.directory(&dir, seed).unwrap().len(), 2);
            prop_assert!(header.directory(&dir, seed ^ 1).is_err());
            prop_assert!(header.directory(&dir[..55], seed).is_err());
            dir[at] ^= 1 << bit;
            prop_assert!(header.directory(&dir, seed).is_err());
        }
    }

    #[test]
    fn kinds_keep_their_numbers() {
        let numbers: Vec<u8> = BlockKind::ALL.iter().map(|kind| *kind as u8).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    }
}
