//! The bytes on disk, format LDG1: one file per persisted kind, encode beside decode. Everything is little
//! endian. The tables and the reasons are in `docs/format/segment.md`.

pub(crate) mod block;
pub(crate) mod fields;
pub(crate) mod seal;
pub(crate) mod segment;
pub(crate) mod streams;
pub(crate) mod superblock;

/// Version written into segment headers and superblocks.
pub const FORMAT_VERSION: u16 = 1;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Too short, or without the magic number.
    #[error("not a {0}")]
    NotA(&'static str),
    /// The checksum does not match.
    #[error("the checksum of the {0} does not match: the bytes are damaged")]
    Checksum(&'static str),
    /// Written by a later version.
    #[error(
        "format version {0} is newer than this program knows (up to {FORMAT_VERSION}): upgrade to read it"
    )]
    Version(u16),
    /// The checksum matches but a field makes no sense.
    #[error("{what}: {field} is out of range")]
    Field {
        /// Which structure.
        what: &'static str,
        /// Which field.
        field: &'static str,
    },
}
