//! Reading the log block by block.

use std::sync::Arc;

use bytes::Bytes;
use ledge_proto::frame::{Frame, FrameError};

use super::damaged;
use super::window::{WINDOW_BYTES, Window};
use crate::catalog::{Catalog, Segment};
use crate::error::ReadError;
use crate::format::block::{
    BLOCK_HEADER_BYTES, BLOCK_HEADER_LEN, BlockHeader, BlockKind, DIR_ENTRY_BYTES, DirEntry, block_chain,
    body_crc, decode_dir,
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
    /// What it holds. Only DATA and SNAPSHOT blocks have frames.
    pub kind: BlockKind,
    /// Reserved, 0.
    pub flags: u8,
    /// The chain up to the block before.
    pub prev_chain: BlockChain,
    head: Bytes,
    body: Bytes,
    dir: Vec<DirEntry>,
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
        if body_crc(seed, std::iter::once(&body[..])) != header.body_crc {
            return Err(bad(format!("the checksum of block {no} does not match")));
        }
        let dir = decode_dir(&body[..header.dir_len()], header.dir_len(), body.len())
            .map_err(|err| bad(err.to_string()))?;
        Ok(Block {
            no,
            kind: header.kind,
            flags: header.flags,
            prev_chain: header.prev_chain,
            head: block.slice(..BLOCK_HEADER_BYTES),
            body,
            dir,
        })
    }
}

impl Block {
    /// Its frames, in order. Their checksums are not computed again: the block's covers them.
    pub fn frames(&self) -> Frames<'_> {
        Frames {
            body: &self.body,
            dir: self.dir.iter(),
        }
    }

    /// Number of frames.
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
            .frames()
            .map(|frame| frame.map(|frame| frame.chain().0))
            .collect::<Result<Vec<_>, _>>()?;
        let own = if self.dir.is_empty() {
            &self.body[..]
        } else {
            &self.body[..self.dir.len() * DIR_ENTRY_BYTES]
        };
        Ok(block_chain(&self.head, own, chains.into_iter()))
    }
}

/// The frames of a block.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    body: &'a Bytes,
    dir: std::slice::Iter<'a, DirEntry>,
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.dir.next()?;
        let from = entry.off as usize;
        Some(Frame::parse_trusted(
            self.body.slice(from..from + entry.len as usize),
        ))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.dir.size_hint()
    }
}

impl ExactSizeIterator for Frames<'_> {}
