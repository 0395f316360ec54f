//! Reading what is durable.

mod blocks;
mod stream;
mod window;

use ledge_proto::ids::{Mark, Seq, StreamKey};

pub use self::blocks::{Block, BlockReader, Frames};
pub use self::stream::StreamReader;
use crate::catalog::{Catalog, FrameRef, Segment, start_of};
use crate::error::{OpenError, ReadError};
use crate::format::block::{BLOCK_HEADER_BYTES, BlockHeader};
use crate::ids::{BlockChain, BlockNo};
use crate::scan::peek;
use crate::storage::pread_exact;

/// See [`crate::Log::mark_at`].
pub(crate) fn mark_at(catalog: &Catalog, key: &StreamKey, seq: Seq) -> Result<Option<Mark>, ReadError> {
    let start = || (seq == Seq::ZERO).then(|| start_of(key));
    let Some(stream) = catalog.stream(key) else {
        return Ok(start());
    };
    let frame = {
        let state = stream.state();
        if seq == state.durable.position.seq {
            return Ok(Some(state.durable));
        }
        if let Some(mark) = state.snapshot_mark(seq) {
            return Ok(Some(mark));
        }
        match state.ending_at(seq) {
            Some(frame) => frame,
            None => return Ok(start()),
        }
    };
    if catalog.segment(frame.segment).is_none() {
        return Ok(None);
    }
    match mark_of_frame(catalog, key, frame) {
        // Given up and written over while it was read.
        Err(_) if catalog.segment(frame.segment).is_none() => Ok(None),
        other => other.map(Some),
    }
}

/// The mark of a frame of the index, read from its header.
pub(crate) fn mark_of_frame(catalog: &Catalog, key: &StreamKey, frame: FrameRef) -> Result<Mark, ReadError> {
    let Some(segment) = catalog.segment(frame.segment) else {
        return Err(ReadError::Recycled {
            what: format!("{key} seq {}", frame.first_seq),
            first_held: catalog.first_block().0,
        });
    };
    match peek(&segment, frame.off, frame.len) {
        Ok((found, chain)) if found == *key => Ok(Mark {
            position: frame.last(),
            chain,
        }),
        Ok((found, _)) => Err(damaged(
            &segment,
            frame.off,
            format!("a frame of {found} where one of {key} belongs"),
        )),
        Err(OpenError::Io { path, source, .. }) => Err(ReadError::Io { path, source }),
        Err(other) => Err(damaged(&segment, frame.off, other.to_string())),
    }
}

/// See [`crate::Log::chain_of_block`].
pub(crate) fn chain_of_block(catalog: &Catalog, no: BlockNo) -> Option<BlockChain> {
    let head = catalog.head();
    if no == head.block {
        return Some(head.chain);
    }
    // Every block holds the chain up to the one before.
    let next = no.next();
    if next > head.block || next < catalog.first_block() {
        return None;
    }
    let segment = catalog.segment_of_block(next)?;
    let off = segment.offset_of(next)?;
    let mut buf = [0; BLOCK_HEADER_BYTES];
    pread_exact(&*segment.file, &mut buf, off.into()).ok()?;
    let header = BlockHeader::decode(&buf, segment.header.seed()).ok()?;
    (header.block_no == next).then_some(header.prev_chain)
}

pub(crate) fn damaged(segment: &Segment, off: u32, reason: String) -> ReadError {
    ReadError::Damaged {
        path: segment.path.clone(),
        offset: off.into(),
        reason,
    }
}
