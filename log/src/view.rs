//! Reading a log's directory without writing to it, whether or not a process has it open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledge_proto::ids::{Mark, Seq, StreamKey};
use ledge_proto::v1;

use crate::catalog::{Catalog, Quarantined};
use crate::error::{OpenError, ReadError};
use crate::ids::{BlockChain, BlockNo};
use crate::log::{Identity, StreamInfo, durable, snapshots, streams};
use crate::read::{BlockReader, StreamReader, chain_of_block, mark_at};
use crate::scan::{Mode, OnHole, scan};
use crate::snapshot::SnapshotRef;
use crate::storage::{Access, Storage};

/// How often to start again when files change under the scan.
const ATTEMPTS: usize = 5;

/// A log opened read-only. Takes no lock, never writes.
///
/// It shows every whole block. When a process is writing, the last one may not have been synced and acknowledged
/// yet; when it died, the next opening for writing decides: a whole block stays.
pub struct LogView {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    identity: Identity,
    catalog: Arc<Catalog>,
}

impl LogView {
    /// Opens the log in `dir`.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::NotALog`] when there is none.
    pub fn open(storage: Arc<dyn Storage>, dir: &Path) -> Result<LogView, OpenError> {
        let (identity, catalog) = read(&storage, dir)?;
        Ok(LogView {
            storage,
            dir: dir.to_owned(),
            identity,
            catalog: Arc::new(catalog),
        })
    }

    /// Takes in what was written, or given up, since. Readers made before see it too.
    ///
    /// # Errors
    /// As [`LogView::open`]; the view then stays as it was.
    pub fn refresh(&mut self) -> Result<(), OpenError> {
        let (identity, catalog) = read(&self.storage, &self.dir)?;
        self.identity = identity;
        self.catalog.replace(catalog);
        Ok(())
    }

    /// Whose log it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// End of what is held of a stream; `None` when nothing is.
    pub fn durable(&self, key: &StreamKey) -> Option<Mark> {
        durable(&self.catalog, key)
    }

    /// Every stream, ordered by key.
    pub fn streams(&self) -> Vec<StreamInfo> {
        streams(&self.catalog)
    }

    /// First block held; one past the last when there is none.
    pub fn first_block(&self) -> BlockNo {
        self.catalog.first_block()
    }

    /// The last whole block.
    pub fn last_block(&self) -> BlockNo {
        self.catalog.head().block
    }

    /// Reads a stream from the record after `after`. See [`StreamReader`].
    pub fn read_stream(&self, key: &StreamKey, after: Seq) -> StreamReader {
        StreamReader::new(self.catalog.clone(), key.clone(), after)
    }

    /// Reads the log from the block after `after`. See [`BlockReader`].
    pub fn read_blocks(&self, after: BlockNo) -> BlockReader {
        BlockReader::new(self.catalog.clone(), after)
    }

    /// See [`crate::Log::mark_at`].
    ///
    /// # Errors
    /// When the frame cannot be read.
    pub fn mark_at(&self, key: &StreamKey, seq: Seq) -> Result<Option<Mark>, ReadError> {
        mark_at(&self.catalog, key, seq)
    }

    /// See [`crate::Log::snapshot_of`].
    pub fn snapshot_of(&self, key: &StreamKey) -> Option<SnapshotRef> {
        snapshots::snapshot_of(&self.catalog, key)
    }

    /// See [`crate::Log::bases`].
    pub fn bases(&self) -> Vec<SnapshotRef> {
        snapshots::bases(&self.catalog)
    }

    /// See [`crate::Log::read_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn read_snapshot(&self, at: &SnapshotRef) -> Result<Vec<v1::Snapshot>, ReadError> {
        snapshots::read_snapshot(&self.catalog, at)
    }

    /// Records that were found unreadable when the log was opened, or looked at again. Reading may meet others.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.catalog.damages().listed()
    }

    /// What is wrong, when records of a stream after `after` may be in blocks that cannot be read: those that are known
    /// to be there, a stream that begins in the middle, or blocks of which nothing is known.
    pub fn unreadable(&self, key: &StreamKey, after: Seq) -> Option<ReadError> {
        let damages = self.catalog.damages();
        let info = self.streams().into_iter().find(|info| info.key == *key);
        let begins_late = info.is_some_and(|info| info.first_seq > after.next())
            && snapshots::snapshot_of(&self.catalog, key).is_none();
        for damage in &damages.all {
            let lost = damage
                .lost
                .iter()
                .find(|lost| lost.key == *key && lost.last > after);
            if let Some(lost) = lost {
                return Some(crate::quarantine::error(&self.catalog, lost));
            }
            if begins_late || damage.lost.is_empty() {
                let segment = self.catalog.segment(damage.segment)?;
                let reason = format!("blocks {} to {} cannot be read", damage.first, damage.last);
                return Some(crate::read::damaged(&segment, damage.off, reason));
            }
        }
        None
    }

    /// See [`crate::Log::chain_of_block`].
    pub fn chain_of_block(&self, no: BlockNo) -> Option<BlockChain> {
        chain_of_block(&self.catalog, no)
    }

    /// Segment files that hold blocks, with their numbers of blocks and length in bytes, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let describe = |segment: &Arc<crate::catalog::Segment>| SegmentInfo {
            path: segment.path.clone(),
            first_block: segment.header.first_block,
            last_block: segment.last_block(),
            bytes: segment.header.segment_bytes,
            created_ms: segment.header.created_ms,
            boot: segment.header.boot,
        };
        self.catalog.segments().iter().map(describe).collect()
    }
}

/// A segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file.
    pub path: PathBuf,
    /// Its first block.
    pub first_block: BlockNo,
    /// Its last block so far; the one before the first when it has none.
    pub last_block: BlockNo,
    /// Length of the file.
    pub bytes: u64,
    /// Wall clock when it was begun, milliseconds since 1970.
    pub created_ms: u64,
    /// Which opening of the log began it.
    pub boot: u32,
}

fn read(storage: &Arc<dyn Storage>, dir: &Path) -> Result<(Identity, Catalog), OpenError> {
    let mut attempt = 1;
    let found = loop {
        match scan(storage.clone(), dir, Access::Read, Mode::Live, OnHole::Skip) {
            // A segment was recycled between listing and reading: its name is gone, or its header is another's.
            Err(OpenError::Io { .. } | OpenError::Damaged { .. } | OpenError::MissingSegment { .. })
                if attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            other => break other?,
        }
    };
    let not_a_log = || OpenError::NotALog { dir: dir.to_owned() };
    let found = found.ok_or_else(not_a_log)?;
    let last = found
        .catalog
        .segments()
        .back()
        .map(|segment| segment.header.clone())
        .ok_or_else(not_a_log)?;
    let boot = found
        .superblock
        .map_or(last.boot, |(_, superblock)| superblock.boot);
    let identity = Identity {
        cluster: last.cluster,
        node: last.node,
        incarnation: last.incarnation,
        boot,
    };
    Ok((identity, found.catalog))
}
