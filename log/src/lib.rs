//! The physical log: segments, group commit, recovery, readers.
//!
//! Many streams share one log. Frames ([`ledge_proto::frame`]) that wait together are written as one block,
//! synced once, and only then acknowledged. The format is described in `docs/format/segment.md`.
//!
//! This crate touches files through [`storage`] and owns one thread; it opens no sockets and does not know what
//! records mean. It reads a clock only to measure and to linger, never to decide what is stored.
//!
//! Reading order: [`storage`], `format`, `catalog`, `writer`, `scan` and `recovery`, `read`, `log`, `view`,
//! `verify`.

mod catalog;
mod error;
mod format;
mod ids;
mod log;
mod options;
mod quarantine;
mod read;
mod recovery;
mod repair;
mod scan;
mod snapshot;
mod stats;
pub mod storage;
mod sync;
mod verify;
mod view;
mod writer;

pub use catalog::Quarantined;
pub use error::{AppendError, CloseError, OpenError, ReadError, RecycleError, RefillError};
pub use format::block::BlockKind;
pub use format::{FORMAT_VERSION, FormatError};
pub use ids::{BlockChain, BlockNo, SegmentNo};
pub use log::{
    Appended, CheckedFrame, FrameAppender, FrameTicket, Identity, Log, OldestSegment, Pin, StreamInfo, Ticket,
};
pub use options::{
    Committer, Linger, OnDamage, OnLostData, Options, Random, SEGMENT_MAX_BYTES, SEGMENT_MIN_BYTES,
};
pub use read::{Block, BlockReader, Frames, Skipped, StreamReader};
pub use recovery::Recovery;
pub use repair::{RepairReport, repair};
pub use snapshot::SnapshotRef;
pub use stats::{Histogram, LogStats};
pub use storage::{DiskStorage, SimDisk, Storage, StorageFile};
pub use verify::{Finding, FindingKind, VerifyReport, verify};
pub use view::{LogView, SegmentInfo};
pub use writer::room::Room;
