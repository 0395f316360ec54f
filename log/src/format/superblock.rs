//! The superblock: who the log belongs to, how often it was opened, and a witness of how far it was durable.
//! Two files take turns, so that one is always whole.

use ledge_proto::checksum::crc32c;
use ledge_proto::ids::{ClusterId, Incarnation};

use super::fields::{bytes, name_at, put, put_name, u16_at, u32_at, u64_at};
use super::{FORMAT_VERSION, FormatError};
use crate::ids::{BlockChain, BlockNo};

/// Names of the two files.
pub(crate) const SUPERBLOCK_FILES: [&str; 2] = ["super-a", "super-b"];
/// Length of each.
pub(crate) const SUPERBLOCK_BYTES: usize = 512;

const MAGIC: &[u8; 8] = b"LDGSUP01";
const WHAT: &str = "superblock";
const CRC_AT: usize = SUPERBLOCK_BYTES - 4;
const LOST_FROM_AT: usize = CRC_AT - 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Counts writings; the higher one is the newer one.
    pub(crate) generation: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) node: String,
    pub(crate) incarnation: Incarnation,
    /// How often the log was opened for writing.
    pub(crate) boot: u32,
    /// A block known to be durable, and the chain up to it.
    pub(crate) durable_block: BlockNo,
    pub(crate) durable_chain: BlockChain,
    /// The log was closed in order after `durable_block`.
    pub(crate) clean: bool,
    /// The first of the durable blocks that were gone when the log was opened last with some gone; 0 when none ever
    /// were. Streams this log writes that have nothing in it or after it go on in a new epoch.
    pub(crate) lost_from: BlockNo,
}

impl Superblock {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut buf = vec![0; SUPERBLOCK_BYTES];
        put(&mut buf, 0, MAGIC);
        put(&mut buf, 8, &FORMAT_VERSION.to_le_bytes());
        buf[10] = u8::from(self.clean);
        put(&mut buf, 12, &self.boot.to_le_bytes());
        put(&mut buf, 16, &self.generation.to_le_bytes());
        put(&mut buf, 24, &self.durable_block.0.to_le_bytes());
        put(&mut buf, 32, &self.durable_chain);
        put(&mut buf, 48, &self.cluster.0);
        put(&mut buf, 64, &self.incarnation.0);
        put_name(&mut buf, 80, &self.node);
        put(&mut buf, LOST_FROM_AT, &self.lost_from.0.to_le_bytes());
        let crc = crc32c(&buf[..CRC_AT]);
        put(&mut buf, CRC_AT, &crc.to_le_bytes());
        buf
    }

    pub(crate) fn decode(buf: &[u8]) -> Result<Superblock, FormatError> {
        let buf = buf
            .get(..SUPERBLOCK_BYTES)
            .ok_or(FormatError::NotA("superblock: too short"))?;
        if &buf[..8] != MAGIC {
            return Err(FormatError::NotA("superblock: no magic number"));
        }
        let version = u16_at(buf, 8);
        if version > FORMAT_VERSION {
            return Err(FormatError::Version(version));
        }
        if crc32c(&buf[..CRC_AT]) != u32_at(buf, CRC_AT) {
            return Err(FormatError::Checksum(WHAT));
        }
        let field = |field| FormatError::Field { what: WHAT, field };
        Ok(Superblock {
            generation: u64_at(buf, 16),
            cluster: ClusterId(bytes(buf, 48)),
            node: name_at(buf, 80).ok_or(field("node"))?.to_owned(),
            incarnation: Incarnation(bytes(buf, 64)),
            boot: u32_at(buf, 12),
            durable_block: BlockNo(u64_at(buf, 24)),
            durable_chain: bytes(buf, 32),
            clean: buf[10] == 1,
            lost_from: BlockNo(u64_at(buf, LOST_FROM_AT)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn superblocks()(
            generation: u64, cluster: [u8; 16], node in "[a-z0-9.-]{0,253}", incarnation: [u8; 16], boot: u32,
            durable_block: u64, durable_chain: [u8; 16], clean: bool, lost_from: u64,
        ) -> Superblock {
            Superblock {
                generation, cluster: ClusterId(cluster), node, incarnation: Incarnation(incarnation), boot,
                durable_block: BlockNo(durable_block), durable_chain, clean, lost_from: BlockNo(lost_from),
            }
        }
    }

    proptest! {
        #[test]
        fn superblocks_round_trip(superblock in superblocks()) {
            prop_assert_eq!(Superblock::decode(&superblock.encode()).unwrap(), superblock);
        }

        #[test]
        fn any_flipped_bit_is_noticed(superblock in superblocks(), at in 0..SUPERBLOCK_BYTES, bit in 0u8..8) {
            let mut bytes = superblock.encode();
            bytes[at] ^= 1 << bit;
            prop_assert!(Superblock::decode(&bytes).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Superblock::decode(&bytes).is_err());
        }
    }
}
