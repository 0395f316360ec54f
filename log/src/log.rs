//! The handle of an open log.

mod append;
mod frames;
pub(crate) mod retention;
pub(crate) mod snapshots;
#[cfg(test)]
mod threads;
mod wait;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use ledge_proto::ids::{ClusterId, Epoch, Incarnation, Mark, Position, Seq, StreamId, StreamKey};
use tokio::sync::watch;

pub use self::append::Ticket;
pub use self::frames::{CheckedFrame, FrameAppender, FrameTicket};
pub use self::retention::{OldestSegment, Pin};
use crate::catalog::{Catalog, lock, start_of};
use crate::error::{CloseError, OpenError, ReadError};
use crate::ids::{BlockChain, BlockNo};
use crate::options::{Committer, Options};
use crate::read::{BlockReader, StreamReader};
use crate::recovery::{self, Recovery};
use crate::stats::LogStats;
use crate::storage::Storage;
use crate::sync::Mutex;
use crate::writer::queue::{Next, Shared};
use crate::writer::room::Room;

/// While one writes and syncs, the other wakes those whose records the last sync made durable.
const COMMITTING_THREADS: usize = 2;

/// Whose log it is, and which life of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that writes it, or `cloud`.
    pub node: String,
    /// Drawn when the log was created.
    pub incarnation: Incarnation,
    /// How often it was opened for writing, this time included.
    pub boot: u32,
}

/// Where records ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first.
    pub first: Position,
    /// Position of the last.
    pub last: Position,
}

/// A stream this log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// The stream and incarnation.
    pub key: StreamKey,
    /// First sequence number held; one past the last when everything was recycled.
    pub first_seq: Seq,
    /// End of what is durable.
    pub durable: Mark,
    /// Length of the frames held, bytes.
    pub bytes: u64,
    /// Records held.
    pub records: u64,
}

/// A log open for writing. Clones are the same log; it closes when the last one goes.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    identity: Identity,
    durable: watch::Receiver<BlockNo>,
    room: watch::Receiver<Room>,
    /// Where each stream ended when the log was opened.
    opened: HashMap<StreamKey, Mark>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `dir`, or creates it there. One process at a time may have it open for writing.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing that was durable is ever removed: when that would be needed, opening fails.
    pub fn open(
        storage: Arc<dyn Storage>,
        dir: &Path,
        options: Options,
    ) -> Result<(Log, Recovery), OpenError> {
        let (writer, recovery, durable) = recovery::open(storage, dir, options)?;
        let identity = writer.identity.clone();
        let room = writer.room.subscribe();
        let opened = retention::ends(&writer.catalog);
        let committer = writer.options.committer;
        let shared = Arc::new(Shared::new(writer));
        let count = if committer == Committer::Thread {
            COMMITTING_THREADS
        } else {
            0
        };
        let mut threads = Vec::with_capacity(count);
        for _ in 0..count {
            let thread = std::thread::Builder::new().name("ledge-log".to_owned());
            let own = shared.clone();
            match thread.spawn(move || run(&own)) {
                Ok(spawned) => threads.push(spawned),
                Err(err) => {
                    shared.begin_close();
                    return Err(OpenError::io("start a thread for", dir)(err));
                }
            }
        }
        let handle = Handle {
            shared,
            identity,
            durable,
            room,
            opened,
            threads: Mutex::new(threads),
        };
        Ok((
            Log {
                handle: Arc::new(handle),
            },
            recovery,
        ))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.handle.shared.catalog
    }

    /// Whose log it is.
    pub fn identity(&self) -> &Identity {
        &self.handle.identity
    }

    /// The key of a stream this log writes itself.
    pub fn own_key(&self, stream: &StreamId) -> StreamKey {
        StreamKey {
            id: stream.clone(),
            incarnation: self.handle.identity.incarnation,
        }
    }

    /// End of what is durable of a stream; `None` when nothing is.
    pub fn durable(&self, key: &StreamKey) -> Option<Mark> {
        durable(self.catalog(), key)
    }

    /// The last record of a stream before those that are still held; 0 when all of them are, or nothing is known of it.
    pub fn held_after(&self, key: &StreamKey) -> Seq {
        let stream = self.catalog().stream(key);
        stream.map_or(Seq::ZERO, |stream| {
            Seq(stream.state().first_seq().0.saturating_sub(1))
        })
    }

    /// Every stream of which something is or was held, ordered by key.
    pub fn streams(&self) -> Vec<StreamInfo> {
        streams(self.catalog())
    }

    /// The last durable block.
    pub fn durable_block(&self) -> BlockNo {
        *self.handle.durable.borrow()
    }

    /// Tells of every advance of the last durable block. What it says is readable.
    pub fn subscribe(&self) -> watch::Receiver<BlockNo> {
        let mut receiver = self.handle.durable.clone();
        receiver.mark_unchanged();
        receiver
    }

    /// Reads a stream from the record after `after`. See [`StreamReader`].
    pub fn read_stream(&self, key: &StreamKey, after: Seq) -> StreamReader {
        StreamReader::new(self.catalog().clone(), key.clone(), after)
    }

    /// The frame that holds the first record of a stream after `after`; `None` when there is none yet. Reads that frame only, where a
    /// reader that is to go on reads ahead.
    ///
    /// # Errors
    /// As [`StreamReader::next`].
    pub fn first_after(
        &self,
        key: &StreamKey,
        after: Seq,
    ) -> Result<Option<ledge_proto::frame::Frame>, ReadError> {
        let mut reader = self.read_stream(key, after);
        reader.look_at_one()?;
        reader.next()
    }

    /// Reads the log from the block after `after`. See [`BlockReader`].
    pub fn read_blocks(&self, after: BlockNo) -> BlockReader {
        BlockReader::new(self.catalog().clone(), after)
    }

    /// The mark of the frame that ends exactly at `seq`; `None` when no frame held does. Sequence number 0 has
    /// the mark before the first frame. Of a frame that cannot be read, it is the mark that the frame behind it continues,
    /// where that is still to be found.
    ///
    /// # Errors
    /// When the frame cannot be read, nor its chain be told otherwise.
    pub fn mark_at(&self, key: &StreamKey, seq: Seq) -> Result<Option<Mark>, ReadError> {
        crate::read::mark_at(self.catalog(), key, seq)
    }

    /// Where the first epoch of a stream after `epoch` begins of which a frame is held: the mark, under that epoch, that its
    /// first frame held continues. `None` when no such frame is held, or what is before it cannot be told.
    pub fn epoch_after(&self, key: &StreamKey, epoch: Epoch) -> Option<Mark> {
        crate::read::epoch_after(self.catalog(), key, epoch)
    }

    /// The chain up to and including block `no`; `None` when it is not held or cannot be read. The block before
    /// the first one held has one too.
    pub fn chain_of_block(&self, no: BlockNo) -> Option<BlockChain> {
        crate::read::chain_of_block(self.catalog(), no)
    }

    /// State and totals since the log was opened.
    pub fn stats(&self) -> LogStats {
        let shared = self.shared();
        let counters = &shared.counters;
        let room = self.handle.room.borrow().clone();
        let segments = shared.catalog.segments();
        let begun = |segment: Option<&Arc<crate::catalog::Segment>>| {
            segment.map_or(0, |segment| segment.header.created_ms)
        };
        let (oldest_created_ms, newest_created_ms) = (begun(segments.front()), begun(segments.back()));
        let (count, segment_bytes) = (
            segments.len(),
            segments.iter().map(|segment| segment.header.segment_bytes).sum(),
        );
        drop(segments);
        LogStats {
            blocks: counters.blocks.load(Relaxed),
            frames: counters.frames.load(Relaxed),
            records: counters.records.load(Relaxed),
            payload_bytes: counters.payload_bytes.load(Relaxed),
            written_bytes: counters.written_bytes.load(Relaxed),
            commits: counters.commits.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            duplicates: counters.duplicates.load(Relaxed),
            sync_time: counters.sync_time.snapshot(),
            commit_time: counters.commit_time.snapshot(),
            queue_bytes: shared.queue_bytes(),
            lane_bytes: counters.lanes(),
            spare_bytes: room.spare,
            used_bytes: room.used,
            limit_bytes: room.limit,
            oldest_block: shared.catalog.first_block().0,
            oldest_created_ms,
            newest_created_ms,
            segments: count,
            segment_bytes,
            damaged: shared.catalog.damages().all.len(),
            durable_block: self.durable_block().0,
            poisoned: lock(&counters.poisoned).as_ref().map(ToString::to_string),
        }
    }

    /// Commits what waits, records that the log was closed in order, and unlocks it. Appends through other
    /// handles fail from now on; readers go on working.
    ///
    /// Blocks until that is done. Dropping the last handle does the same, without saying how it went.
    ///
    /// # Errors
    /// See [`CloseError`].
    pub fn close(self) -> Result<(), CloseError> {
        self.handle.close()
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.catalog().dir)
            .field("identity", self.identity())
            .finish()
    }
}

impl Handle {
    fn close(&self) -> Result<(), CloseError> {
        self.shared.begin_close();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // They do not panic; if one did, what follows still holds.
            let _ = thread.join();
        }
        self.shared.commit_all();
        let mut writer = self.shared.writer();
        writer.mend();
        writer.abandon_spare();
        let marked = writer.mark(true);
        writer.lock = None;
        match &writer.poisoned {
            Some(reason) => Err(CloseError::Poisoned {
                reason: reason.clone(),
            }),
            None => marked.map_err(CloseError::Mark),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(err) = self.close() {
            tracing::warn!(dir = %self.shared.catalog.dir.display(), error = %err, "log closed");
        }
    }
}

/// The committing thread.
fn run(shared: &Shared) {
    let mut idle = shared.options.mark_after_idle;
    loop {
        match shared.wait(idle) {
            Next::Commit => {
                shared.commit_next();
                idle = shared.options.mark_after_idle;
            }
            Next::Idle => {
                if let Err(err) = shared.writer().mark(false) {
                    tracing::warn!(error = %err, "the superblock was not brought up to date");
                }
                idle = None;
            }
            Next::Close => return,
        }
    }
}

pub(crate) fn durable(catalog: &Catalog, key: &StreamKey) -> Option<Mark> {
    let mark = catalog.stream(key)?.state().durable;
    (mark.position > Position::ZERO).then_some(mark)
}

pub(crate) fn streams(catalog: &Catalog) -> Vec<StreamInfo> {
    let mut infos: Vec<StreamInfo> = catalog
        .streams()
        .iter()
        .filter_map(|stream| {
            let state = stream.state();
            let (first_seq, durable) = (state.first_seq(), state.durable);
            let records = state.records();
            (durable != start_of(&stream.key)).then(|| StreamInfo {
                key: stream.key.clone(),
                first_seq,
                durable,
                bytes: state.bytes,
                records,
            })
        })
        .collect();
    infos.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    infos
}
