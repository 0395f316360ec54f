//! One error type per operation. Messages name the file or stream, and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ledge_proto::fold::snapshot::SnapshotError;
use ledge_proto::frame::FrameError;
use ledge_proto::ids::{ClusterId, Epoch, Position, Seq, StreamKey};
use ledge_proto::limits;

use crate::format::FormatError;
use crate::ids::{BlockNo, SegmentNo};
use crate::snapshot::SnapshotRef;

/// Why a log could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("cannot {op} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process is writing to it.
    #[error("the log {} is in use{holder}: stop that process first, or open the log read-only", dir.display())]
    Locked {
        /// The log's directory.
        dir: PathBuf,
        /// ` by process N`, or empty when that is not known.
        holder: String,
    },
    /// There is no log in the directory.
    #[error("there is no log in {}", dir.display())]
    NotALog {
        /// The directory.
        dir: PathBuf,
    },
    /// It belongs to another cluster.
    #[error(
        "the log {} belongs to cluster {found}, this configuration to cluster {expected}: \
         point to the right data directory, or reset this one with `ledge reset`", dir.display()
    )]
    ForeignCluster {
        /// The log's directory.
        dir: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Who asked.
        expected: ClusterId,
    },
    /// It was written by another node.
    #[error(
        "the log {} was written by `{found}`, this is `{expected}`: \
         point to the right data directory, or reset this one with `ledge reset`", dir.display()
    )]
    ForeignNode {
        /// The log's directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        expected: String,
    },
    /// Written by a later version.
    #[error("{}: {source}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        source: FormatError,
    },
    /// Durable data is damaged. Nothing was changed: truncating would lose what comes after.
    #[error(
        "{} is damaged at byte {offset}: {reason}; run `ledge log verify {}` to see what is affected",
        path.display(), dir_of(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, bytes from its start.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A segment between others is not there.
    #[error("segment {missing} is missing from {}: restore the file, or reset the log", dir.display())]
    MissingSegment {
        /// The log's directory.
        dir: PathBuf,
        /// Which one.
        missing: SegmentNo,
    },
    /// The log ends before a block that was durable once: the disk lost data, or an old copy was put back.
    #[error(
        "the log {} ends at block {found}, but block {witness} was durable: the disk lost data, or this is an \
         older copy; restore it, or open with a new epoch to go on without the lost part", dir.display()
    )]
    LostDurable {
        /// The log's directory.
        dir: PathBuf,
        /// Where it ends.
        found: BlockNo,
        /// What was durable.
        witness: BlockNo,
    },
    /// The options contradict themselves.
    #[error("log options: {0}")]
    Options(String),
}

impl OpenError {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io {
            op,
            path,
            source: Arc::new(source),
        }
    }

    pub(crate) fn format(path: impl Into<PathBuf>, offset: u64, err: FormatError) -> OpenError {
        let path = path.into();
        match err {
            FormatError::Version(_) => OpenError::Version { path, source: err },
            other => OpenError::Damaged {
                path,
                offset,
                reason: other.to_string(),
            },
        }
    }
}

fn hint(err: &io::Error) -> &'static str {
    match err.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (the user running this program must be able to write there)"
        }
        io::ErrorKind::StorageFull => " (free some space and try again)",
        _ => "",
    }
}

fn dir_of(path: &std::path::Path) -> String {
    path.parent()
        .map(|dir| dir.display().to_string())
        .unwrap_or_default()
}

/// Why something was not appended. Unless it says otherwise, nothing of it is in the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// A write or sync failed. What was not acknowledged is in an unknown state until the log is opened again.
    #[error(
        "the log accepts no more writes after an error ({reason}): restart to recover from what is on disk"
    )]
    Poisoned {
        /// The first error.
        reason: Arc<str>,
    },
    /// No room for another segment. Nothing is lost; the same append succeeds once there is space.
    #[error("cannot make a new log segment in {}: {reason}; free some space there, raise the limit of the log or lower the retention", dir.display())]
    DiskFull {
        /// The log's directory.
        dir: PathBuf,
        /// What the system said.
        reason: Arc<str>,
    },
    /// The log is being closed.
    #[error("the log is closed")]
    Closed,
    /// An append of no records.
    #[error("an append needs at least one record")]
    Empty,
    /// A record over the limit.
    #[error("a record of {len} bytes is over the limit of {limit} bytes")]
    RecordTooLarge {
        /// Its encoded length.
        len: usize,
        /// The most that fits.
        limit: usize,
    },
    /// A record's key over the limit.
    #[error("a record key of {0} bytes is over the limit of {limit} bytes", limit = limits::RECORD_KEY_MAX_BYTES)]
    KeyTooLong(usize),
    /// A frame that fits no block of this log.
    #[error("a frame of {len} bytes does not fit the segments of this log: raise segment_bytes above {need}")]
    FrameTooLarge {
        /// Its length.
        len: usize,
        /// Segment size that would do.
        need: u64,
    },
    /// Records between what is held and this frame are missing.
    #[error("{stream} ends at {have}, the frame begins at {got}: records between are missing")]
    Gap {
        /// The stream.
        stream: StreamKey,
        /// Last position held.
        have: Position,
        /// First position offered.
        got: Position,
    },
    /// The frame tells another history than what is held.
    #[error(
        "{stream} ends at {have}, the frame from {got} does not continue it: two histories under one name"
    )]
    Fork {
        /// The stream.
        stream: StreamKey,
        /// Last position held.
        have: Position,
        /// First position offered.
        got: Position,
    },
    /// The frame was written under a leadership that is over.
    #[error("{stream} is at epoch {have}, the frame from {got} is of an older one")]
    OldEpoch {
        /// The stream.
        stream: StreamKey,
        /// Epoch held.
        have: Epoch,
        /// First position offered.
        got: Position,
    },
    /// The frame lies before what is still held, so it cannot be compared.
    #[error("{stream} is held from {first_held} on, the frame ends at {got}: it was recycled here")]
    Recycled {
        /// The stream.
        stream: StreamKey,
        /// First sequence number held.
        first_held: Seq,
        /// Last position offered.
        got: Position,
    },
    /// A snapshot that this log may not hold.
    #[error("snapshot of {stream} refused: {reason}")]
    Snapshot {
        /// The stream.
        stream: StreamKey,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of a snapshot that cannot be read.
    #[error(transparent)]
    SnapshotPart(#[from] SnapshotError),
    /// A snapshot would take the stream back.
    #[error("{stream} is at {have}, a snapshot at {got} would take it back")]
    RebaseBackwards {
        /// The stream.
        stream: StreamKey,
        /// Last position held.
        have: Position,
        /// Position of the snapshot.
        got: Position,
    },
    /// A frame of a stream only this log writes.
    #[error("{stream} is written by this log: it takes records, not frames")]
    OwnStream {
        /// The stream.
        stream: StreamKey,
    },
    /// The frame is damaged or out of bounds.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Comparing with what is held failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why something could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The device refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The bytes are not what was written.
    #[error(
        "{} is damaged at byte {offset}: {reason}; run `ledge log verify {}` to see what is affected",
        path.display(), dir_of(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, bytes from its start.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// What comes next does not follow: it was recycled, or the stream was moved to where a snapshot stands.
    #[error("{key} goes on after seq {resume_after}: what is between that and seq {after} is not in the log")]
    Jump {
        /// The stream.
        key: StreamKey,
        /// The last sequence number before the jump: the reader's position.
        after: Seq,
        /// What stands for the records that are not there. Its mark may be later than `resume_after`, when records
        /// folded into it are still held; whoever loads it reads on after its mark.
        snapshot: Option<SnapshotRef>,
        /// What is held goes on after this one.
        resume_after: Seq,
    },
    /// What comes next is no longer held.
    #[error("{what} is no longer in the log: it begins at {first_held}")]
    Recycled {
        /// What was asked for.
        what: String,
        /// What is held: a sequence number or a block number.
        first_held: u64,
    },
}

/// Why a segment was not given up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecycleError {
    /// The state of a stream at the end of the segment would be lost.
    #[error("segment {segment} stays: {stream} has no base at {end} or after in a later segment")]
    NeedsBase {
        /// The segment.
        segment: SegmentNo,
        /// The stream.
        stream: StreamKey,
        /// Where the segment's part of the stream ends.
        end: Position,
    },
    /// A reader holds it.
    #[error("segment {segment} stays: a reader holds block {block}")]
    Pinned {
        /// The segment.
        segment: SegmentNo,
        /// The first block held.
        block: BlockNo,
    },
    /// Its file could not be renamed or removed.
    #[error(transparent)]
    File(#[from] OpenError),
}

/// Why the log was not closed in order. Whatever was acknowledged is durable all the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CloseError {
    /// The log was poisoned before.
    #[error("the log was not closed in order: {reason}")]
    Poisoned {
        /// The first error.
        reason: Arc<str>,
    },
    /// The mark that says so could not be written.
    #[error("the log's closing mark could not be written: {0}")]
    Mark(OpenError),
}
