//! Reading the log block by block.

use std::sync::Arc;

use bytes::Bytes;
use ledge_proto::frame::{Frame, FrameError};
use ledge_proto::v1;
use prost::{DecodeError, Message};

use super::damaged;
use super::window::{WINDOW_BYTES, Window};
use crate::catalog::{Catalog, Segment};
use crate::error::ReadError;
use crate::format::block::{
    BLOCK_HEADER_BYTES, BLOCK_HEADER_LEN, BlockHeader, BlockKind, DIR_ENTRY_BYTES, DirEntry, block_chain,
    seeded_crc,
};
use crate::ids::{BlockChain, BlockNo};

/// Reads durable blocks in order.
pub struct BlockReader {
    catalog: Arc<Catalog>,
    after: BlockNo,
    window: Window,
}

/// One block: checked against its checksum, frames still encoded. Its frames share one buffer.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its number.
    pub no: BlockNo,
    /// What it holds. Only DATA blocks have frames.
    pub kind: BlockKind,
    /// Reserved, 0.
    pub flags: u8,
    /// The chain up to the block before.
    pub prev_chain: BlockChain,
    head: Bytes,
    body: Bytes,
    dir: Vec<DirEntry>,
    /// Which frames no longer stand; empty when all do.
    superseded: Vec<bool>,
}

impl BlockReader {
    pub(crate) fn new(catalog: Arc<Catalog>, after: BlockNo) -> BlockReader {
        BlockReader {
            catalog,
            after,
            window: Window::default(),
        }
    }

    /// The last block read, or the one to read after.
    pub fn position(&self) -> BlockNo {
        self.after
    }

    /// The next block; `None` when there is no later durable one yet. Calling again later goes on.
    ///
    /// # Errors
    /// [`ReadError::Recycled`] when it is no longer held, [`ReadError::Damaged`] when it is not what was
    /// written. The position stays before it.
    pub fn next_block(&mut self) -> Result<Option<Block>, ReadError> {
        let no = self.after.next();
        if no > self.catalog.head().block {
            return Ok(None);
        }
        let segment = match self.catalog.segment_of_block(no) {
            Some(segment) => segment,
            None => return Err(self.recycled(no)),
        };
        let Some(off) = segment.offset_of(no) else {
            return Err(self.recycled(no));
        };
        match self.read(&segment, no, off) {
            Ok(block) => {
                self.after = no;
                Ok(Some(block))
            }
            Err(err @ ReadError::Damaged { .. }) if no >= self.catalog.first_block() => {
                crate::quarantine::met(&self.catalog, segment.no(), off);
                Err(err)
            }
            // Written over while it was read.
            Err(_) if no < self.catalog.first_block() => Err(self.recycled(no)),
            Err(err) => Err(err),
        }
    }

    fn recycled(&self, no: BlockNo) -> ReadError {
        ReadError::Recycled {
            what: format!("block {no}"),
            first_held: self.catalog.first_block().0,
        }
    }

    fn read(&mut self, segment: &Arc<Segment>, no: BlockNo, off: u32) -> Result<Block, ReadError> {
        let bad = |reason: String| damaged(segment, off, reason);
        // Where the next block starts is where this one ends, but for padding.
        let until = segment.offset_of(no.next()).unwrap_or_else(|| segment.end());
        let span = until.saturating_sub(off).max(BLOCK_HEADER_LEN);
        let block = self
            .window
            .get(segment, off, span, WINDOW_BYTES)
            .map_err(|err| ReadError::Io {
                path: segment.path.clone(),
                source: Arc::new(err),
            })?;
        let seed = segment.header.seed();
        let header = BlockHeader::decode(&block, seed).map_err(|err| bad(err.to_string()))?;
        if header.block_no != no {
            return Err(bad(format!("block {} where block {no} belongs", header.block_no)));
        }
        if header.block_len() > block.len() {
            return Err(bad(format!("block {no} reaches into the next one")));
        }
        let body = block.slice(BLOCK_HEADER_BYTES..header.block_len());
        if seeded_crc(seed, std::iter::once(&body[..])) != header.body_crc {
            return Err(bad(format!("the checksum of block {no} does not match")));
        }
        let dir = header
            .directory(&body, seed)
            .map_err(|err| bad(err.to_string()))?;
        Ok(Block {
            no,
            kind: header.kind,
            flags: header.flags,
            prev_chain: header.prev_chain,
            head: block.slice(..BLOCK_HEADER_BYTES),
            body,
            superseded: superseded(&self.catalog, &dir),
            dir,
        })
    }
}

impl Block {
    /// Its frames that still stand, in order: those that a later rebase superseded are left out. Their checksums
    /// are not computed again: the block's covers them.
    pub fn frames(&self) -> Frames<'_> {
        Frames {
            block: self,
            at: 0,
            left: self.dir.len() - self.superseded.iter().filter(|gone| **gone).count(),
        }
    }

    /// All its frames, in order, each with whether it was superseded.
    pub fn all_frames(&self) -> impl Iterator<Item = (Result<Frame, FrameError>, bool)> + '_ {
        (0..self.dir.len()).map(|n| (self.frame(n), self.is_superseded(n)))
    }

    fn frame(&self, n: usize) -> Result<Frame, FrameError> {
        let entry = self.dir[n];
        let from = entry.off as usize;
        Frame::parse_trusted(self.body.slice(from..from + entry.len as usize))
    }

    fn is_superseded(&self, n: usize) -> bool {
        self.superseded.get(n).copied().unwrap_or(false)
    }

    /// The part of a snapshot it holds, when it is a SNAPSHOT block. Parts of a set that was cut off by a crash are
    /// there too, and count for nothing.
    ///
    /// # Errors
    /// When it cannot be decoded.
    pub fn snapshot(&self) -> Result<Option<v1::Snapshot>, DecodeError> {
        if self.kind != BlockKind::Snapshot {
            return Ok(None);
        }
        v1::Snapshot::decode(self.body.clone()).map(Some)
    }

    /// Number of frames, superseded ones included.
    pub fn frame_count(&self) -> usize {
        self.dir.len()
    }

    /// Number of records in all its frames.
    pub fn record_count(&self) -> u64 {
        self.dir.iter().map(|entry| u64::from(entry.count)).sum()
    }

    /// Length of header and body, bytes.
    pub fn len_bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// The chain up to and including this block.
    ///
    /// # Errors
    /// When a frame's header cannot be read.
    pub fn chain(&self) -> Result<BlockChain, FrameError> {
        let chains = self
            .all_frames()
            .map(|(frame, _)| frame.map(|frame| frame.chain().0))
            .collect::<Result<Vec<_>, _>>()?;
        let own = if self.dir.is_empty() {
            &self.body[..]
        } else {
            &self.body[..self.dir.len() * DIR_ENTRY_BYTES]
        };
        Ok(block_chain(&self.head, own, chains.into_iter()))
    }
}

/// Which of these frames no longer stand; empty when all do.
fn superseded(catalog: &Catalog, dir: &[DirEntry]) -> Vec<bool> {
    if !catalog.has_superseded() {
        return Vec::new();
    }
    let streams = catalog.streams();
    let gone = |entry: &DirEntry| {
        let stream = streams.by_slot(entry.slot);
        stream.is_some_and(|stream| stream.state().is_superseded(entry.first_seq, entry.epoch))
    };
    let all: Vec<bool> = dir.iter().map(gone).collect();
    if all.contains(&true) { all } else { Vec::new() }
}

/// The frames of a block that still stand.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    block: &'a Block,
    at: usize,
    left: usize,
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.block.dir.len() {
            let n = self.at;
            self.at += 1;
            if !self.block.is_superseded(n) {
                self.left -= 1;
                return Some(self.block.frame(n));
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Frames<'_> {}
