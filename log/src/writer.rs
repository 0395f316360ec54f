//! The one writer: takes what waits, writes it as one block, syncs once, acknowledges.

pub(crate) mod group;
pub(crate) mod mark;
pub(crate) mod queue;
pub(crate) mod room;
pub(crate) mod segments;
pub(crate) mod snapshot;

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Instant;

use ledge_proto::frame::FrameWriter;
use ledge_proto::mutants;
use tokio::sync::watch;

use self::group::{Built, Group};
use self::queue::Request;
use self::room::Room;
use self::segments::{Active, Spares};
use crate::catalog::{Catalog, Head};
use crate::error::AppendError;
use crate::format::block::{
    BLOCK_HEADER_BYTES, BODY_MAX_BYTES, BlockHeader, BlockKind, DIR_ENTRY_BYTES, DirEntry, block_chain,
    seeded_crc,
};
use crate::format::superblock::Superblock;
use crate::ids::{BlockChain, BlockNo};
use crate::log::Identity;
use crate::options::Options;
use crate::stats::Counters;
use crate::storage::StorageLock;

static ZEROS: [u8; 4096] = [0; 4096];

/// What became of a group, not yet told to those who wait.
pub(crate) enum Committed {
    Group(Group, Result<(), AppendError>),
    /// Nothing was tried.
    Refused(Vec<Request>, AppendError),
}

/// Everything the writer owns. Whoever holds it may commit.
pub(crate) struct Writer {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) options: Options,
    pub(crate) identity: Identity,
    pub(crate) counters: Arc<Counters>,
    /// The segment being written; `None` when the next commit has to begin one.
    pub(crate) active: Option<Active>,
    pub(crate) spares: Spares,
    /// Last block written.
    pub(crate) head: Head,
    /// Last block synced.
    pub(crate) synced: Head,
    /// Writers of the streams this log writes itself, by slot.
    pub(crate) own: HashMap<u32, FrameWriter>,
    pub(crate) superblock: Superblock,
    /// Which of the two files to write next.
    pub(crate) superblock_file: usize,
    pub(crate) durable: watch::Sender<BlockNo>,
    pub(crate) room: watch::Sender<Room>,
    /// A snapshot is being written. In a log over its limit, which was lowered, it may have one more segment: without
    /// bases nothing could go.
    pub(crate) retaining: bool,
    /// Why no next segment can be had, as far as is known.
    pub(crate) blocked: Option<String>,
    pub(crate) poisoned: Option<Arc<str>>,
    /// Released when the writer is done for good.
    pub(crate) lock: Option<Box<dyn StorageLock>>,
}

impl Writer {
    /// Commits `requests` as one group. The answers are given when the writer is free for the next one.
    pub(crate) fn commit(&mut self, requests: Vec<Request>) -> Committed {
        if let Some(reason) = &self.poisoned {
            return Committed::Refused(
                requests,
                AppendError::Poisoned {
                    reason: reason.clone(),
                },
            );
        }
        let started = Instant::now();
        let requests = self.admit(requests);
        let group = Group::build(requests, self);
        let result = self.write_group(&group);
        self.prepare_ahead();
        self.tell_room();
        self.mend();
        if result.is_ok() {
            self.counters.commits.fetch_add(1, Relaxed);
            self.counters.commit_time.record(started.elapsed());
        }
        Committed::Group(group, result)
    }

    fn write_group(&mut self, group: &Group) -> Result<(), AppendError> {
        if !group.snapshots.is_empty() {
            self.retaining = true;
            let written = self.write_snapshots(&group.snapshots);
            self.retaining = false;
            return written;
        }
        if group.frames.is_empty() {
            return Ok(());
        }
        let body: usize = group
            .frames
            .iter()
            .map(|built| built.frame.bytes().len() + DIR_ENTRY_BYTES)
            .sum();
        self.ensure_room(BLOCK_HEADER_BYTES + body, group.frames.len())?;
        let off = self.write_data(&group.frames)?;
        if mutants::on("superblock-ahead") {
            let _ = self.mark(false);
        }
        self.sync()?;
        self.publish(off, &group.frames);
        for (slot, writer) in &group.own {
            self.own.insert(*slot, writer.clone());
        }
        Ok(())
    }

    fn write_data(&mut self, frames: &[Built]) -> Result<u32, AppendError> {
        let mut dir = Vec::with_capacity(frames.len() * DIR_ENTRY_BYTES);
        let mut at = frames.len() * DIR_ENTRY_BYTES;
        for built in frames {
            let len = built.frame.bytes().len();
            entry_of(built, at, len).encode(&mut dir);
            at += len;
        }
        let chains = frames.iter().map(|built| built.frame.chain().0);
        let pieces: Vec<&[u8]> = frames.iter().map(|built| &built.frame.bytes()[..]).collect();
        let count = u16::try_from(frames.len()).unwrap_or(u16::MAX); // Groups are cut at BLOCK_MAX_FRAMES.
        self.write_block(BlockKind::Data, 0, count, &dir, &pieces, chains)
    }

    /// Writes one block where the last one ended. Room was made before. Returns where it starts.
    pub(crate) fn write_block(
        &mut self,
        kind: BlockKind,
        slot: u32,
        dir_count: u16,
        own: &[u8],
        frames: &[&[u8]],
        chains: impl Iterator<Item = [u8; 16]>,
    ) -> Result<u32, AppendError> {
        let body_len = own.len() + frames.iter().map(|frame| frame.len()).sum::<usize>();
        debug_assert!(body_len <= BODY_MAX_BYTES);
        let Some(active) = &mut self.active else {
            return Err(self.poison("no segment is open"));
        };
        let seed = active.segment.header.seed();
        let header = BlockHeader {
            kind,
            flags: 0,
            dir_count,
            body_len: u32::try_from(body_len).unwrap_or(u32::MAX),
            block_no: self.head.block.next(),
            durable_block: self.synced.block,
            prev_chain: self.head.chain,
            body_crc: seeded_crc(seed, std::iter::once(own).chain(frames.iter().copied())),
            slot,
            dir_crc: seeded_crc(
                seed,
                std::iter::once(&own[..usize::from(dir_count) * DIR_ENTRY_BYTES]),
            ),
        };
        let encoded = header.encode(seed);
        let span = header.span(active.segment.header.align);
        let mut bufs = Vec::with_capacity(frames.len() + 3);
        bufs.push(IoSlice::new(&encoded));
        bufs.push(IoSlice::new(own));
        bufs.extend(frames.iter().map(|frame| IoSlice::new(frame)));
        // The rest of the last unit: written now, so that it is never written again.
        bufs.push(IoSlice::new(&ZEROS[..span - header.block_len()]));
        let off = active.off;
        if let Err(err) = active.segment.file.pwritev(&bufs, off.into()) {
            let text = format!(
                "writing block {} to {}: {err}",
                header.block_no,
                active.segment.path.display()
            );
            return Err(self.poison(&text));
        }
        active.off += u32::try_from(span).unwrap_or(u32::MAX);
        active.unsynced.push(off);
        let chain: BlockChain = block_chain(&encoded, own, chains);
        self.head = Head {
            block: header.block_no,
            chain,
        };
        self.counters.blocks.fetch_add(1, Relaxed);
        self.counters.written_bytes.fetch_add(span as u64, Relaxed);
        Ok(off)
    }

    /// Makes what was written durable, and visible to readers of blocks.
    pub(crate) fn sync(&mut self) -> Result<(), AppendError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let started = Instant::now();
        let mut synced = if mutants::on("ack-before-fsync") {
            Ok(())
        } else {
            active.segment.file.fdatasync()
        };
        if synced.is_err() && mutants::on("retry-fsync") {
            synced = active.segment.file.fdatasync();
        }
        if let Err(err) = synced {
            let text = format!("fdatasync of {}: {err}", active.segment.path.display());
            return Err(self.poison(&text));
        }
        self.counters.syncs.fetch_add(1, Relaxed);
        self.counters.sync_time.record(started.elapsed());
        crate::catalog::write(&active.segment.blocks).append(&mut active.unsynced);
        active.segment.end.store(active.off, Release);
        self.catalog.set_head(self.head);
        self.synced = self.head;
        Ok(())
    }

    /// Makes the frames of the durable block at `off` visible.
    fn publish(&mut self, off: u32, frames: &[Built]) {
        let Some(active) = &mut self.active else { return };
        let mut at = off as usize + BLOCK_HEADER_BYTES + frames.len() * DIR_ENTRY_BYTES;
        let mut bytes = 0;
        let mut records = 0;
        for built in frames {
            let len = built.frame.bytes().len();
            active.index(entry_of(built, at, len));
            let mut state = built.stream.state();
            state.add(
                active.segment.no(),
                u32::try_from(at).unwrap_or(u32::MAX),
                &built.frame,
            );
            if built.own() {
                state.accepted = state.durable;
                state.staged = state.durable.position;
            }
            self.counters.count_lane(built.stream.key.id.lane, len as u64);
            at += len;
            bytes += len as u64;
            records += u64::from(built.frame.count());
        }
        self.counters.frames.fetch_add(frames.len() as u64, Relaxed);
        self.counters.payload_bytes.fetch_add(bytes, Relaxed);
        self.counters.records.fetch_add(records, Relaxed);
        self.durable.send_replace(self.head.block);
    }

    /// I5: after a failed write or sync nothing is acknowledged any more.
    pub(crate) fn poison(&mut self, reason: &str) -> AppendError {
        tracing::error!(dir = %self.catalog.dir.display(), reason, "the log accepts no more writes");
        let reason = self.poisoned.get_or_insert_with(|| Arc::from(reason)).clone();
        *crate::catalog::lock(&self.counters.poisoned) = Some(reason.clone());
        AppendError::Poisoned { reason }
    }
}

fn entry_of(built: &Built, off: usize, len: usize) -> DirEntry {
    let frame = &built.frame;
    DirEntry {
        slot: built.stream.slot,
        epoch: frame.epoch(),
        first_seq: frame.first_seq(),
        count: frame.count(),
        off: u32::try_from(off).unwrap_or(u32::MAX),
        len: u32::try_from(len).unwrap_or(u32::MAX),
    }
}
