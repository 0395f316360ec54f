//! Reading what is durable.

mod blocks;
mod stream;
mod window;

use std::sync::Arc;

use ledge_proto::frame::Frame;
use ledge_proto::ids::{Mark, Seq, StreamKey};

pub use self::blocks::{Block, BlockReader, Frames};
pub use self::stream::{Skipped, StreamReader};
use crate::catalog::{Catalog, FrameRef, Segment, start_of};
use crate::error::{OpenError, ReadError};
use crate::format::block::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, seeded_crc};
use crate::format::streams::StreamTail;
use crate::ids::{BlockChain, BlockNo, SegmentNo};
use crate::quarantine::chain::proven_mark;
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
        state.ending_at(seq)
    };
    let Some(frame) = frame else {
        return Ok(start().or_else(|| proven_mark(catalog, key, seq, None)));
    };
    if catalog.segment(frame.segment).is_none() {
        return Ok(None);
    }
    match mark_of_frame(catalog, key, frame) {
        // Given up and written over while it was read.
        Err(_) if catalog.segment(frame.segment).is_none() => Ok(None),
        Err(err @ ReadError::Damaged { .. }) => {
            proven_mark(catalog, key, seq, Some(frame)).map_or(Err(err), |mark| Ok(Some(mark)))
        }
        other => other.map(Some),
    }
}

/// A whole frame of the index, its checksum checked.
pub(crate) fn read_frame(segment: &Segment, key: &StreamKey, at: FrameRef) -> Result<Frame, ReadError> {
    let mut bytes = vec![0; at.len as usize];
    pread_exact(&*segment.file, &mut bytes, at.off.into()).map_err(|err| ReadError::Io {
        path: segment.path.clone(),
        source: Arc::new(err),
    })?;
    let frame = Frame::parse(bytes.into()).map_err(|err| damaged(segment, at.off, err.to_string()))?;
    if frame.key() == key && frame.first_seq() == at.first_seq {
        return Ok(frame);
    }
    Err(damaged(
        segment,
        at.off,
        format!("a frame of {} where one of {key} belongs", frame.key()),
    ))
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
        Err(OpenError::Io { path, source, .. }) => Err(ReadError::Io { path, source }),
        other => {
            // The segment after this one began with where every stream stood.
            let stood = stood_after(catalog, frame.segment, key);
            if let Some(mark) = stood.filter(|mark| mark.position == frame.last()) {
                return Ok(mark);
            }
            let reason = match other {
                Err(err) => err.to_string(),
                Ok((found, _)) => format!("a frame of {found} where one of {key} belongs"),
            };
            Err(damaged(&segment, frame.off, reason))
        }
    }
}

/// Where `key` stood at the end of `segment`, as far as the segment after it can be read and says so.
pub(crate) fn stood_after(catalog: &Catalog, segment: SegmentNo, key: &StreamKey) -> Option<Mark> {
    let next = catalog.segment(SegmentNo(segment.0.checked_add(1)?))?;
    let mut no = next.header.first_block;
    loop {
        let off = next.offset_of(no)?;
        let mut head = [0; BLOCK_HEADER_BYTES];
        pread_exact(&*next.file, &mut head, off.into()).ok()?;
        let header = BlockHeader::decode(&head, next.header.seed()).ok()?;
        if header.block_no != no || header.kind != BlockKind::Streams {
            return None;
        }
        let mut body = vec![0; header.block_len() - BLOCK_HEADER_BYTES];
        pread_exact(&*next.file, &mut body, u64::from(off) + BLOCK_HEADER_BYTES as u64).ok()?;
        if seeded_crc(next.header.seed(), std::iter::once(&body[..])) != header.body_crc {
            return None;
        }
        let tails = StreamTail::decode_all(&body).ok()?;
        if let Some(tail) = tails.into_iter().find(|tail| tail.key == *key) {
            return Some(tail.mark);
        }
        no = no.next();
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

/// Where `key` stood at the end of the oldest segment, see [`stood_after`].
pub(crate) fn stood_after_oldest(catalog: &Catalog, key: &StreamKey) -> Option<Mark> {
    let oldest = catalog.segments().front().map(|segment| segment.no())?;
    stood_after(catalog, oldest, key)
}

pub(crate) fn damaged(segment: &Segment, off: u32, reason: String) -> ReadError {
    ReadError::Damaged {
        path: segment.path.clone(),
        offset: off.into(),
        reason,
    }
}
