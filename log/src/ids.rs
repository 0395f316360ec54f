//! Positions in the physical log. (Positions in streams are in [`ledge_proto::ids`].)

use std::fmt;

/// Number of a block in the log, dense from 1; 0 stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockNo(pub u64);

impl BlockNo {
    /// Before the first block.
    pub const ZERO: BlockNo = BlockNo(0);

    /// The next block.
    #[must_use]
    pub fn next(self) -> BlockNo {
        BlockNo(self.0 + 1)
    }

    /// The block before; [`BlockNo::ZERO`] stays.
    #[must_use]
    pub fn previous(self) -> BlockNo {
        BlockNo(self.0.saturating_sub(1))
    }
}

impl fmt::Display for BlockNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of a segment file, dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentNo(pub u32);

impl SegmentNo {
    /// The file's name.
    pub fn file_name(self) -> String {
        format!("seg-{:016x}.ldg", self.0)
    }

    /// Reads what [`SegmentNo::file_name`] wrote; `None` for any other name.
    pub fn from_file_name(name: &str) -> Option<SegmentNo> {
        let hex = name.strip_prefix("seg-")?.strip_suffix(".ldg")?;
        let no = SegmentNo(u32::from_str_radix(hex, 16).ok()?);
        (no.file_name() == name).then_some(no)
    }
}

impl fmt::Display for SegmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The chain up to and including a block: BLAKE3 over its header, its directory and the chains of its frames,
/// first 16 bytes. Two logs with the same chain at a block hold the same blocks up to there.
pub type BlockChain = [u8; 16];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_round_trip_and_nothing_else_is_one() {
        for no in [0, 1, 0xdead_beef, u32::MAX] {
            let name = SegmentNo(no).file_name();
            assert_eq!(SegmentNo::from_file_name(&name), Some(SegmentNo(no)));
        }
        for name in [
            "seg-1.ldg",
            "seg-000000000000000G.ldg",
            "seg-0000000000000001.tmp",
            "seg-000000000000000A.ldg",
            "",
        ] {
            assert_eq!(SegmentNo::from_file_name(name), None, "{name}");
        }
    }
}
