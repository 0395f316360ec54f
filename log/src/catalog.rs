//! What is where: segments, and for every stream the frames it has. Shared by the writer and all readers.

mod damage;
mod stream;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};

use ledge_proto::ids::{Chain, Mark, Position, StreamKey};

pub use self::damage::Quarantined;
pub(crate) use self::damage::{Damage, Damages};
pub(crate) use self::stream::{Following, FrameRef, Stream};
use crate::format::block::DirEntry;
use crate::format::segment::SegmentHeader;
use crate::ids::{BlockChain, BlockNo, SegmentNo};
use crate::storage::{Storage, StorageFile};
use crate::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Everything readers need.
pub(crate) struct Catalog {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: PathBuf,
    segments: RwLock<VecDeque<Arc<Segment>>>,
    streams: RwLock<Streams>,
    head: Mutex<Head>,
    /// First blocks that readers hold, by number of the pin.
    pins: Mutex<(u64, BTreeMap<u64, BlockNo>)>,
    /// Blocks that cannot be read.
    damages: Mutex<Damages>,
    /// Readers met damage that the writer has not looked at.
    pub(crate) new_damage: AtomicBool,
    /// Readers that meet damage copy it here and list it; without, they only report it.
    pub(crate) quarantines: bool,
    /// Some frame was superseded: blocks have to be looked at for such.
    superseded: AtomicBool,
}

/// The last block readers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) block: BlockNo,
    pub(crate) chain: BlockChain,
}

/// One segment file.
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn StorageFile>,
    /// Where each block starts, bytes from the start of the file.
    pub(crate) blocks: RwLock<Vec<u32>>,
    /// End of the last block readers may see, bytes from the start of the file.
    pub(crate) end: AtomicU32,
}

impl Segment {
    /// A segment of which nothing is known but its header.
    pub(crate) fn new(header: SegmentHeader, path: PathBuf, file: Box<dyn StorageFile>) -> Segment {
        Segment {
            header,
            path,
            file,
            blocks: RwLock::new(Vec::new()),
            end: AtomicU32::new(0),
        }
    }

    /// End of the last block readers may see.
    pub(crate) fn end(&self) -> u32 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn no(&self) -> SegmentNo {
        self.header.segment_no
    }

    /// Where block `no` starts, if it is in this segment.
    pub(crate) fn offset_of(&self, no: BlockNo) -> Option<u32> {
        let n = usize::try_from(no.0.checked_sub(self.header.first_block.0)?).ok()?;
        read(&self.blocks).get(n).copied()
    }

    /// The block in which byte `at` lies: its number, where it starts, and where the next one starts.
    pub(crate) fn block_around(&self, at: u32) -> Option<(BlockNo, u32, u32)> {
        let blocks = read(&self.blocks);
        let n = blocks.partition_point(|off| *off <= at).checked_sub(1)?;
        let end = blocks.get(n + 1).copied().unwrap_or_else(|| self.end());
        Some((BlockNo(self.header.first_block.0 + n as u64), blocks[n], end))
    }

    /// Blocks readers may see.
    pub(crate) fn block_count(&self) -> usize {
        read(&self.blocks).len()
    }

    /// The last block known, or the one before the first.
    pub(crate) fn last_block(&self) -> BlockNo {
        BlockNo(self.header.first_block.0 - 1 + read(&self.blocks).len() as u64)
    }
}

/// All streams, by name and by number.
#[derive(Default)]
pub(crate) struct Streams {
    by_key: HashMap<StreamKey, Arc<Stream>>,
    by_slot: HashMap<u32, Arc<Stream>>,
    next_slot: u32,
}

impl Streams {
    pub(crate) fn get(&self, key: &StreamKey) -> Option<&Arc<Stream>> {
        self.by_key.get(key)
    }

    pub(crate) fn by_slot(&self, slot: u32) -> Option<&Arc<Stream>> {
        self.by_slot.get(&slot)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.by_key.values()
    }

    /// Takes in a stream under a number it already has. `false` when number or name is taken by another.
    pub(crate) fn adopt(&mut self, slot: u32, key: &StreamKey, mark: Mark) -> bool {
        if self.by_slot.contains_key(&slot) || self.by_key.contains_key(key) {
            return false;
        }
        let stream = Arc::new(Stream::new(slot, key.clone(), mark));
        self.by_slot.insert(slot, stream.clone());
        self.by_key.insert(key.clone(), stream);
        self.next_slot = self.next_slot.max(slot.saturating_add(1));
        true
    }

    /// The stream, with a new number when it has none.
    pub(crate) fn get_or_create(&mut self, key: &StreamKey) -> Arc<Stream> {
        if let Some(stream) = self.by_key.get(key) {
            return stream.clone();
        }
        self.adopt(self.next_slot, key, start_of(key));
        self.by_key[key].clone()
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Before the first frame of a stream.
pub(crate) fn start_of(key: &StreamKey) -> Mark {
    Mark {
        position: Position::ZERO,
        chain: key.genesis_chain(),
    }
}

/// What recovery found in a directory entry, before the chain is known.
pub(crate) fn frame_ref(segment: SegmentNo, body_at: u32, entry: &DirEntry) -> (FrameRef, Mark) {
    let frame = FrameRef {
        first_seq: entry.first_seq,
        epoch: entry.epoch,
        segment,
        off: body_at + entry.off,
        len: entry.len,
        count: entry.count,
    };
    let position = Position {
        epoch: entry.epoch,
        seq: entry.last_seq(),
    };
    (
        frame,
        Mark {
            position,
            chain: Chain::default(),
        },
    )
}

impl Catalog {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        dir: &Path,
        segments: VecDeque<Arc<Segment>>,
        streams: Streams,
        head: Head,
        damages: Damages,
    ) -> Catalog {
        let superseded = streams.iter().any(|stream| stream.state().supersedes());
        Catalog {
            storage,
            dir: dir.to_owned(),
            segments: RwLock::new(segments),
            streams: RwLock::new(streams),
            head: Mutex::new(head),
            pins: Mutex::new((0, BTreeMap::new())),
            damages: Mutex::new(damages),
            new_damage: AtomicBool::new(false),
            quarantines: false,
            superseded: AtomicBool::new(superseded),
        }
    }

    /// Takes over what a later scan of the same directory found.
    pub(crate) fn replace(&self, newer: Catalog) {
        let Catalog {
            segments,
            streams,
            head,
            superseded,
            damages,
            ..
        } = newer;
        *lock(&self.damages) = damages.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.superseded.store(superseded.into_inner(), Ordering::Release);
        *self.segments_mut() = segments.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.streams_mut() = streams.into_inner().unwrap_or_else(PoisonError::into_inner);
        *lock(&self.head) = head.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    pub(crate) fn segments(&self) -> RwLockReadGuard<'_, VecDeque<Arc<Segment>>> {
        read(&self.segments)
    }

    pub(crate) fn segments_mut(&self) -> RwLockWriteGuard<'_, VecDeque<Arc<Segment>>> {
        write(&self.segments)
    }

    pub(crate) fn streams(&self) -> RwLockReadGuard<'_, Streams> {
        read(&self.streams)
    }

    pub(crate) fn streams_mut(&self) -> RwLockWriteGuard<'_, Streams> {
        write(&self.streams)
    }

    pub(crate) fn stream(&self, key: &StreamKey) -> Option<Arc<Stream>> {
        self.streams().get(key).cloned()
    }

    pub(crate) fn head(&self) -> Head {
        *lock(&self.head)
    }

    pub(crate) fn set_head(&self, head: Head) {
        *lock(&self.head) = head;
    }

    pub(crate) fn damages(&self) -> MutexGuard<'_, Damages> {
        lock(&self.damages)
    }

    /// Keeps `block` and what comes after it. Returns the number of the pin.
    pub(crate) fn pin(&self, block: BlockNo) -> u64 {
        let (next, pins) = &mut *lock(&self.pins);
        *next += 1;
        pins.insert(*next, block);
        *next
    }

    pub(crate) fn unpin(&self, id: u64) {
        lock(&self.pins).1.remove(&id);
    }

    /// The first block that somebody holds.
    pub(crate) fn first_pin(&self) -> Option<BlockNo> {
        lock(&self.pins).1.values().min().copied()
    }

    /// Whether any frame was superseded.
    pub(crate) fn has_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }

    pub(crate) fn note_superseded(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    /// Segment number `no`, if it is still held.
    pub(crate) fn segment(&self, no: SegmentNo) -> Option<Arc<Segment>> {
        let segments = self.segments();
        let first = segments.front()?.no();
        segments
            .get(usize::try_from(no.0.checked_sub(first.0)?).ok()?)
            .cloned()
    }

    /// The segment that holds block `no`, if it is held.
    pub(crate) fn segment_of_block(&self, no: BlockNo) -> Option<Arc<Segment>> {
        let segments = self.segments();
        let n = segments
            .partition_point(|segment| segment.header.first_block <= no)
            .checked_sub(1)?;
        segments.get(n).cloned()
    }

    /// The block of the last frame held of a stream, or of the rebase that moved it, whichever is later; 0 when neither is
    /// held.
    pub(crate) fn last_block_of(&self, stream: &Stream) -> BlockNo {
        let (frame, rebase) = {
            let state = stream.state();
            let rebase = state.rebases.last().map(|rebase| rebase.at.block);
            (state.frames.last().copied(), rebase)
        };
        let frame = frame.and_then(|frame| self.segment(frame.segment)?.block_around(frame.off));
        let frame = frame.map(|(block, ..)| block);
        frame.into_iter().chain(rebase).max().unwrap_or(BlockNo::ZERO)
    }

    /// First block held; one past the head when none is.
    pub(crate) fn first_block(&self) -> BlockNo {
        self.segments()
            .front()
            .map_or(BlockNo(1), |segment| segment.header.first_block)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code here panics while it holds a lock; if it did, the data would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
