//! Beginning, ending and reusing segments.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use ledge_proto::ids::Position;
use ledge_proto::mutants;

use super::Writer;
use crate::catalog::Segment;
use crate::error::{AppendError, OpenError, RecycleError};
use crate::format::block::{BLOCK_HEADER_BYTES, BODY_MAX_BYTES, BlockKind, DirEntry};
use crate::format::seal::Seal;
use crate::format::segment::{SEGMENT_HEADER_BYTES, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::format::streams::StreamTail;
use crate::ids::{BlockNo, SegmentNo};
use crate::storage::{Access, Storage, StorageFile, pwrite, write_zeros};

/// Name of a file on its way to becoming a segment.
pub(super) const NEW_SEGMENT: &str = "next.tmp";
/// Blocks fit segments of this length even where they are longer, so that they may become as short while the log is open.
pub(super) const BLOCKS_SIZED_FOR: u64 = 8 << 20;
const TOO_MANY_STREAMS: &str = "the streams of this log do not fit a segment: raise segment_bytes";

/// The segment being written.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// Where the next block goes, bytes from the start of the file.
    pub(crate) off: u32,
    /// Blocks written since the last sync.
    pub(crate) unsynced: Vec<u32>,
    /// Frames so far, for the SEAL; `None` when they are too many for one.
    pub(crate) frames: Option<Vec<DirEntry>>,
    /// Where SNAPSHOT blocks start, for the SEAL.
    pub(crate) snapshots: Vec<u32>,
}

impl Active {
    pub(crate) fn new(segment: Arc<Segment>, off: u32, frames: Vec<DirEntry>, snapshots: Vec<u32>) -> Active {
        Active {
            segment,
            off,
            unsynced: Vec::new(),
            frames: Some(frames),
            snapshots,
        }
    }

    pub(crate) fn index(&mut self, entry: DirEntry) {
        if let Some(frames) = &mut self.frames {
            frames.push(entry);
        }
    }

    /// Bytes to keep free for a SEAL when `frames` more frames and one more block come; `None` without one.
    pub(super) fn seal_span(&self, frames: usize) -> Option<usize> {
        let held = self.frames.as_ref()?.len();
        let blocks = self.segment.block_count();
        let snapshots = self.snapshots.len() + 1;
        let len = Seal::encoded_len(blocks + self.unsynced.len() + 1, held + frames, snapshots);
        (len <= BODY_MAX_BYTES)
            .then(|| (BLOCK_HEADER_BYTES + len).next_multiple_of(usize::from(self.segment.header.align)))
    }
}

/// Files that can become the next segment.
#[derive(Default)]
pub(crate) struct Spares {
    /// Used segments, oldest first, and their lengths.
    pub(crate) used: Vec<(PathBuf, u64)>,
    /// A zeroed file.
    pub(super) ready: Option<Box<dyn StorageFile>>,
    /// One being made on a thread of its own.
    pub(super) making: Option<JoinHandle<io::Result<Box<dyn StorageFile>>>>,
}

impl Spares {
    pub(crate) fn of(used: Vec<(PathBuf, u64)>) -> Spares {
        Spares {
            used,
            ..Spares::default()
        }
    }

    /// Whether a file is there or being made.
    pub(super) fn any(&self) -> bool {
        !self.used.is_empty() || self.ready.is_some() || self.making.is_some()
    }

    /// Bytes of all files, when a new one takes `segment_bytes`.
    pub(super) fn bytes(&self, segment_bytes: u64) -> u64 {
        let new = u64::from(self.ready.is_some()) + u64::from(self.making.is_some());
        self.used.iter().map(|(_, len)| len).sum::<u64>() + new * segment_bytes
    }

    /// Waits for the file being made, if one is. Returns whether there is a zeroed file.
    pub(super) fn collect(&mut self) -> bool {
        if let Some(making) = self.making.take()
            && let Ok(Ok(file)) = making.join()
        {
            self.ready = Some(file);
        }
        self.ready.is_some()
    }
}

impl Writer {
    /// Largest block this log's segments take.
    pub(crate) fn block_limit(&self) -> usize {
        block_limit(self.options.segment_bytes.min(BLOCKS_SIZED_FOR))
    }

    /// Makes sure a block of `len` bytes with `frames` frames fits the active segment, beginning a new one when
    /// it does not.
    pub(crate) fn ensure_room(&mut self, len: usize, frames: usize) -> Result<(), AppendError> {
        if let Some(active) = &mut self.active {
            let span = len.next_multiple_of(usize::from(active.segment.header.align));
            let seal = active.seal_span(frames);
            if u64::from(active.off) + (span + seal.unwrap_or(0)) as u64
                <= active.segment.header.segment_bytes
            {
                if seal.is_none() {
                    active.frames = None;
                }
                return Ok(());
            }
        }
        if let Err(err) = self.require_next() {
            // The very end: without an index, for whoever is still let in.
            if !self.has_room(len) {
                return Err(self.disk_full(&err));
            }
            if let Some(active) = &mut self.active {
                active.frames = None;
            }
            return Ok(());
        }
        self.switch()?;
        if self.has_room(len) {
            Ok(())
        } else {
            Err(self.poison(TOO_MANY_STREAMS))
        }
    }

    /// I8: the next file is whole and durable under its name before its first block is written.
    pub(super) fn switch(&mut self) -> Result<(), AppendError> {
        let (path, file) = self.next_file().map_err(|err| self.disk_full(&err))?;
        // From here on the log's own files change: any failure poisons.
        if self
            .active
            .as_ref()
            .is_some_and(|active| !active.unsynced.is_empty())
        {
            self.sync()?; // Parts of a snapshot that goes on in the next segment.
        }
        let seal_at = self.seal()?;
        let last = self.catalog.segments().back().map(|last| last.no());
        let no = match last {
            None => SegmentNo(0),
            Some(last) if last.0 < u32::MAX => SegmentNo(last.0 + 1),
            Some(_) => return Err(self.poison("the last segment number is used")),
        };
        let segment = match self.begin(path, file, no, seal_at) {
            Ok(segment) => Arc::new(segment),
            Err(err) => return Err(self.poison(&format!("beginning segment {no}: {err}"))),
        };
        self.catalog.segments_mut().push_back(segment.clone());
        self.active = Some(Active::new(segment, SEGMENT_HEADER_LEN, Vec::new(), Vec::new()));
        self.write_streams()
    }

    fn begin(
        &mut self,
        path: PathBuf,
        file: Box<dyn StorageFile>,
        no: SegmentNo,
        prev_seal_at: u32,
    ) -> io::Result<Segment> {
        let now = (self.options.wall_clock)()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let header = SegmentHeader {
            align: self.options.align,
            cluster: self.identity.cluster,
            node: self.identity.node.clone(),
            incarnation: self.identity.incarnation,
            segment_no: no,
            first_block: self.head.block.next(),
            prev_seg_chain: self.head.chain,
            salt: match mutants::on("reuse-salt") {
                true => no.0, // The same seed for every life of the file.
                false => u32::from_le_bytes(self.options.random.draw()?),
            },
            boot: self.identity.boot,
            created_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            segment_bytes: self.options.segment_bytes,
            prev_seal_at,
        };
        pwrite(&*file, &header.encode(), 0)?;
        file.fdatasync()?;
        let (storage, dir) = (&self.catalog.storage, &self.catalog.dir);
        let final_path = dir.join(no.file_name());
        storage.rename(&path, &final_path)?;
        if !mutants::on("skip-dir-fsync") {
            storage.sync_dir(dir)?;
        }
        Ok(Segment::new(header, final_path, file))
    }

    /// Ends the active segment with an index of itself. Returns where it is, or 0 when there is none.
    fn seal(&mut self) -> Result<u32, AppendError> {
        let Some(active) = &mut self.active else {
            return Ok(self.sealed_at());
        };
        let fits = active
            .seal_span(0)
            .is_some_and(|span| u64::from(active.off) + span as u64 <= active.segment.header.segment_bytes);
        let frames = active.frames.take().filter(|_| fits);
        let blocks = crate::catalog::write(&active.segment.blocks).clone();
        let snapshots = std::mem::take(&mut active.snapshots);
        let seal = |frames| Seal {
            blocks,
            frames,
            snapshots,
        };
        let body = frames.and_then(|frames| seal(frames).encode());
        let at = match body {
            None => 0,
            Some(body) => {
                let at = self.write_block(BlockKind::Seal, 0, 0, &body, &[], std::iter::empty())?;
                self.sync()?;
                at
            }
        };
        self.active = None;
        Ok(at)
    }

    /// Where the last segment has the SEAL that an earlier run gave it.
    fn sealed_at(&self) -> u32 {
        let segments = self.catalog.segments();
        segments
            .back()
            .and_then(|segment| segment.offset_of(segment.last_block()))
            .unwrap_or(0)
    }

    /// Begins a segment with where every stream stands, so that earlier segments can go.
    pub(crate) fn write_streams(&mut self) -> Result<(), AppendError> {
        let mut tails: Vec<StreamTail> = {
            let streams = self.catalog.streams();
            streams
                .iter()
                .map(|stream| StreamTail {
                    slot: stream.slot,
                    key: stream.key.clone(),
                    mark: stream.state().durable,
                })
                .filter(|tail| tail.mark.position > Position::ZERO)
                .collect()
        };
        tails.sort_unstable_by_key(|tail| tail.slot);
        let limit = self.block_limit() - BLOCK_HEADER_BYTES;
        let mut body = Vec::new();
        let mut left = tails.iter().peekable();
        while let Some(tail) = left.next() {
            tail.encode(&mut body);
            let full = left
                .peek()
                .is_none_or(|next| body.len() + next.encoded_len() > limit);
            if full {
                if !self.has_room(BLOCK_HEADER_BYTES + body.len()) {
                    return Err(self.poison(TOO_MANY_STREAMS));
                }
                self.write_block(BlockKind::Streams, 0, 0, &body, &[], std::iter::empty())?;
                body.clear();
            }
        }
        if tails.is_empty() {
            return Ok(());
        }
        self.sync()?;
        self.durable.send_replace(self.head.block);
        Ok(())
    }

    fn has_room(&self, len: usize) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let span = len.next_multiple_of(usize::from(active.segment.header.align));
            u64::from(active.off) + span as u64 <= active.segment.header.segment_bytes
        })
    }

    /// A file of the right length: one made ahead, a used one, or a new one.
    fn next_file(&mut self) -> io::Result<(PathBuf, Box<dyn StorageFile>)> {
        loop {
            self.require_next()?;
            if let Some(file) = self.spares.ready.take() {
                return Ok((self.new_segment(), file));
            }
            while let Some((path, _)) = self.spares.used.pop() {
                match self.catalog.storage.open(&path, Access::ReadWrite) {
                    Ok(file) if file.len().is_ok_and(|len| len == self.options.segment_bytes) => {
                        return Ok((path, file));
                    }
                    _ => self.catalog.storage.remove(&path)?,
                }
            }
        }
    }

    /// Waits for a file being made and removes it.
    pub(crate) fn abandon_spare(&mut self) {
        if self.spares.collect() {
            self.spares.ready = None;
            let _ = self.catalog.storage.remove(&self.new_segment());
        }
    }

    /// Gives up the segments that hold only blocks before `block`. Returns how many. See
    /// [`crate::Log::recycle_before`].
    pub(crate) fn recycle_before(&mut self, block: BlockNo) -> Result<usize, RecycleError> {
        let mut count = 0;
        loop {
            let segment = {
                let segments = self.catalog.segments();
                match segments.front() {
                    Some(first) if segments.len() > 1 && first.last_block() < block => first.clone(),
                    _ => break,
                }
            };
            self.may_go(&segment)?;
            let over = self
                .options
                .max_bytes
                .is_some_and(|limit| self.used_bytes() > limit);
            self.catalog.segments_mut().pop_front();
            self.forget(&segment);
            let (storage, dir) = (&self.catalog.storage, &self.catalog.dir);
            // When no new file can be had, this one is all there is for the next segment.
            let wanted = self
                .options
                .spare_segments
                .max(usize::from(self.blocked.is_some()));
            let spare = dir.join(format!("spare-{:016x}.ldg", segment.no().0));
            let keep = self.spares.used.len() < wanted && !over;
            if keep {
                storage
                    .rename(&segment.path, &spare)
                    .map_err(OpenError::io("rename", &segment.path))?;
            } else {
                storage
                    .remove(&segment.path)
                    .map_err(OpenError::io("remove", &segment.path))?;
            }
            // One after the other: whatever a crash keeps, the segments left follow each other. And before the file is
            // written over: a name that came back must not lead to another segment's bytes.
            if !mutants::on("skip-dir-fsync") {
                storage.sync_dir(dir).map_err(OpenError::io("sync", dir))?;
            }
            if keep {
                self.spares.used.push((spare, segment.header.segment_bytes));
            }
            count += 1;
        }
        self.survey();
        Ok(count)
    }

    /// I3: whatever a segment holds of a stream is in a base that stays, and nobody reads it.
    fn may_go(&self, segment: &Segment) -> Result<(), RecycleError> {
        let (no, last) = (segment.no(), segment.last_block());
        if let Some(block) = self.catalog.first_pin().filter(|pin| *pin <= last) {
            return Err(RecycleError::Pinned { segment: no, block });
        }
        if mutants::on("recycle-without-base") {
            return Ok(());
        }
        for stream in self.catalog.streams().iter() {
            let state = stream.state();
            let (frame, mark) = state.end_in(no, last);
            let end = frame
                .map(|frame| frame.last())
                .max(mark.map(|mark| mark.position));
            if let Some(end) = end
                && !state.is_covered(end, no, last)
            {
                return Err(RecycleError::NeedsBase {
                    segment: no,
                    stream: stream.key.clone(),
                    end,
                });
            }
        }
        Ok(())
    }

    fn forget(&self, segment: &Segment) {
        for stream in self.catalog.streams().iter() {
            stream.state().forget(segment.no(), segment.last_block());
        }
        self.catalog.damages().forget(segment.no());
    }
}

/// Largest block that fits a segment of `segment_bytes`, leaving room for what else a segment needs.
pub(crate) fn block_limit(segment_bytes: u64) -> usize {
    let half = usize::try_from(segment_bytes / 2).unwrap_or(usize::MAX);
    half.saturating_sub(SEGMENT_HEADER_BYTES)
        .min(BLOCK_HEADER_BYTES + BODY_MAX_BYTES)
}

/// A durable file of zeros: writing into it later needs no space and changes no metadata.
pub(super) fn make_file(
    storage: &dyn Storage,
    path: &std::path::Path,
    len: u64,
) -> io::Result<Box<dyn StorageFile>> {
    let dir = path.parent().unwrap_or(path);
    let free = storage.free_bytes(dir)?;
    if free < len {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("{free} bytes are free, a segment takes {len}"),
        ));
    }
    let file = storage.create(path)?;
    let filled = write_zeros(&*file, 0, len).and_then(|()| file.fdatasync());
    match filled {
        Ok(()) => Ok(file),
        Err(err) => {
            let _ = storage.remove(path);
            Err(err)
        }
    }
}
