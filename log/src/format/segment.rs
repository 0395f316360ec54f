//! First 4096 bytes of a segment file.

use ledge_proto::checksum::crc32c;
use ledge_proto::ids::{ClusterId, Incarnation};

use super::fields::{bytes, name_at, put, put_name, u16_at, u32_at, u64_at};
use super::{FORMAT_VERSION, FormatError};
use crate::ids::{BlockChain, BlockNo, SegmentNo};

/// Length of the header; the first block starts here.
pub(crate) const SEGMENT_HEADER_LEN: u32 = 4096;
/// The same as an index.
pub(crate) const SEGMENT_HEADER_BYTES: usize = SEGMENT_HEADER_LEN as usize;

const MAGIC: &[u8; 8] = b"LDGSEG01";
const WHAT: &str = "segment header";
const CRC_AT: usize = SEGMENT_HEADER_BYTES - 4;

/// What a segment says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Blocks start at multiples of this many bytes: 512 or 4096.
    pub(crate) align: u16,
    pub(crate) cluster: ClusterId,
    pub(crate) node: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) segment_no: SegmentNo,
    /// Number its first block has.
    pub(crate) first_block: BlockNo,
    /// Chain of the last block of the segment before.
    pub(crate) prev_seg_chain: BlockChain,
    /// Drawn anew whenever a file becomes a segment: blocks of an earlier life of the file do not verify.
    pub(crate) salt: u32,
    /// Which opening of the log made this segment.
    pub(crate) boot: u32,
    /// Wall clock when it was made, milliseconds since 1970; for people only.
    pub(crate) created_ms: u64,
    /// Length of the file, bytes.
    pub(crate) segment_bytes: u64,
    /// Where the segment before has its SEAL block, or 0.
    pub(crate) prev_seal_at: u32,
}

impl SegmentHeader {
    /// Seed of every checksum in this segment.
    pub(crate) fn seed(&self) -> u32 {
        self.salt ^ self.segment_no.0
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut buf = vec![0; SEGMENT_HEADER_BYTES];
        put(&mut buf, 0, MAGIC);
        put(&mut buf, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut buf, 10, &self.align.to_le_bytes());
        put(&mut buf, 12, &self.salt.to_le_bytes());
        put(&mut buf, 16, &self.cluster.0);
        put(&mut buf, 32, &self.incarnation.0);
        put(&mut buf, 48, &u64::from(self.segment_no.0).to_le_bytes());
        put(&mut buf, 56, &self.first_block.0.to_le_bytes());
        put(&mut buf, 64, &self.prev_seg_chain);
        put(&mut buf, 80, &self.created_ms.to_le_bytes());
        put(&mut buf, 88, &self.segment_bytes.to_le_bytes());
        put(&mut buf, 96, &self.boot.to_le_bytes());
        put(&mut buf, 100, &self.prev_seal_at.to_le_bytes());
        put_name(&mut buf, 104, &self.node);
        let crc = crc32c(&buf[..CRC_AT]);
        put(&mut buf, CRC_AT, &crc.to_le_bytes());
        buf
    }

    pub(crate) fn decode(buf: &[u8]) -> Result<SegmentHeader, FormatError> {
        let buf = buf
            .get(..SEGMENT_HEADER_BYTES)
            .ok_or(FormatError::NotA("segment: too short"))?;
        if &buf[..8] != MAGIC {
            return Err(FormatError::NotA("segment: no magic number"));
        }
        // The version comes before the checksum: a later version may compute it differently.
        let version = u16_at(buf, 8);
        if version > FORMAT_VERSION {
            return Err(FormatError::Version(version));
        }
        if crc32c(&buf[..CRC_AT]) != u32_at(buf, CRC_AT) {
            return Err(FormatError::Checksum(WHAT));
        }
        let field = |field| FormatError::Field { what: WHAT, field };
        let align = u16_at(buf, 10);
        if !matches!(align, 512 | 4096) {
            return Err(field("align"));
        }
        let segment_no = u32::try_from(u64_at(buf, 48)).map_err(|_| field("segment_no"))?;
        let first_block = BlockNo(u64_at(buf, 56));
        if first_block == BlockNo::ZERO || first_block.0 > u64::MAX / 2 {
            return Err(field("first_block"));
        }
        let segment_bytes = u64_at(buf, 88);
        if segment_bytes < SEGMENT_HEADER_BYTES as u64 || segment_bytes > u64::from(u32::MAX) {
            return Err(field("segment_bytes"));
        }
        Ok(SegmentHeader {
            align,
            cluster: ClusterId(bytes(buf, 16)),
            node: name_at(buf, 104).ok_or(field("node"))?.to_owned(),
            incarnation: Incarnation(bytes(buf, 32)),
            segment_no: SegmentNo(segment_no),
            first_block,
            prev_seg_chain: bytes(buf, 64),
            salt: u32_at(buf, 12),
            boot: u32_at(buf, 96),
            created_ms: u64_at(buf, 80),
            segment_bytes,
            prev_seal_at: u32_at(buf, 100),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        pub(crate) fn headers()(
            align in prop::sample::select(vec![512u16, 4096]), cluster: [u8; 16], node in "[a-z0-9.-]{0,253}",
            incarnation: [u8; 16], no: u32, first_block in 1..u64::MAX / 2, chain: [u8; 16], salt: u32, boot: u32,
            created_ms: u64, segment_bytes in 4096..=u64::from(u32::MAX), prev_seal_at: u32,
        ) -> SegmentHeader {
            SegmentHeader {
                align, cluster: ClusterId(cluster), node, incarnation: Incarnation(incarnation),
                segment_no: SegmentNo(no), first_block: BlockNo(first_block), prev_seg_chain: chain, salt, boot,
                created_ms, segment_bytes, prev_seal_at,
            }
        }
    }

    proptest! {
        #[test]
        fn headers_round_trip(header in headers()) {
            let bytes = header.encode();
            prop_assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES);
            prop_assert_eq!(SegmentHeader::decode(&bytes).unwrap(), header);
        }

        #[test]
        fn any_flipped_bit_is_noticed(header in headers(), at in 0..SEGMENT_HEADER_BYTES, bit in 0u8..8) {
            let mut bytes = header.encode();
            bytes[at] ^= 1 << bit;
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }
    }
}
