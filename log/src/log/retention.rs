//! What goes, and what has to be there before it may.

use std::collections::HashMap;
use std::sync::Arc;

use ledge_proto::ids::{Mark, Seq, StreamKey};
use tokio::sync::watch;

use super::Log;
use crate::catalog::Catalog;
use crate::error::{ReadError, RecycleError};
use crate::ids::{BlockNo, SegmentNo};
use crate::writer::room::Room;

/// The segment that goes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldestSegment {
    /// Its number.
    pub no: SegmentNo,
    /// Its first block.
    pub first_block: BlockNo,
    /// Its last block.
    pub last_block: BlockNo,
    /// Wall clock when it was begun, milliseconds since 1970.
    pub created_ms: u64,
    /// Streams it holds records or a snapshot of: the first sequence number in it, and where its part of the stream
    /// ends. A base at that mark, or after, has to be durable before it goes. `first_seq` is past the mark when only a
    /// snapshot lies in it. Ordered by key.
    pub streams: Vec<(StreamKey, Seq, Mark)>,
}

/// Keeps blocks from being recycled while it lives.
#[derive(Debug)]
pub struct Pin {
    catalog: Arc<Catalog>,
    id: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.catalog.unpin(self.id);
    }
}

impl Log {
    /// How much room there is for what comes.
    pub fn room(&self) -> Room {
        self.shared().writer().survey()
    }

    /// Tells when the next segment can no longer be had without giving up the oldest, and when it can again.
    pub fn subscribe_room(&self) -> watch::Receiver<Room> {
        self.handle.room.clone()
    }

    /// The oldest segment, unless it is the one being written.
    ///
    /// # Errors
    /// When a frame in it cannot be read.
    pub fn oldest_segment(&self) -> Result<Option<OldestSegment>, ReadError> {
        oldest_segment(self.catalog())
    }

    /// Keeps `block` and everything after it from being recycled until the guard is dropped.
    pub fn pin(&self, block: BlockNo) -> Pin {
        Pin {
            id: self.catalog().pin(block),
            catalog: self.catalog().clone(),
        }
    }

    /// Where each stream ended when the log was opened; `None` when nothing was held of it then.
    pub fn opened(&self, key: &StreamKey) -> Option<Mark> {
        self.handle.opened.get(key).copied()
    }

    /// Gives up the segments all of whose blocks are before `block`, oldest first, for their files to be removed or
    /// written over; the segment being written stays. Returns how many. Readers that come too late get
    /// [`ReadError::Jump`] or [`ReadError::Recycled`]. Positions of streams are kept.
    ///
    /// Waits for a commit that is under way.
    ///
    /// # Errors
    /// [`RecycleError`] at the first segment that may not go, or whose file can be neither renamed nor removed; what
    /// was given up until then stays so.
    pub fn recycle_before(&self, block: BlockNo) -> Result<usize, RecycleError> {
        self.shared().writer().recycle_before(block)
    }
}

/// Where every stream ends.
pub(crate) fn ends(catalog: &Catalog) -> HashMap<StreamKey, Mark> {
    let streams = catalog.streams();
    let ends = streams
        .iter()
        .map(|stream| (stream.key.clone(), stream.state().durable));
    ends.filter(|(_, mark)| mark.position > ledge_proto::ids::Position::ZERO)
        .collect()
}

fn oldest_segment(catalog: &Catalog) -> Result<Option<OldestSegment>, ReadError> {
    let segment = {
        let segments = catalog.segments();
        match segments.front() {
            Some(first) if segments.len() > 1 => first.clone(),
            _ => return Ok(None),
        }
    };
    let (no, last_block) = (segment.no(), segment.last_block());
    let mut found = Vec::new();
    for stream in catalog.streams().iter() {
        let state = stream.state();
        let (frame, mark) = state.end_in(no, last_block);
        let first = state.frames.first().map(|frame| frame.first_seq);
        if frame.is_some() || mark.is_some() {
            found.push((stream.key.clone(), first, frame, mark, state.durable));
        }
    }
    let mut streams = Vec::with_capacity(found.len());
    for (key, first, frame, mark, durable) in found {
        let end = match (frame, mark) {
            (Some(frame), mark) if mark.is_none_or(|mark| mark.position < frame.last()) => {
                if frame.last() == durable.position {
                    durable
                } else {
                    crate::read::mark_of_frame(catalog, &key, frame)?
                }
            }
            (_, Some(mark)) => mark,
            (_, None) => continue,
        };
        let first = match frame {
            Some(_) => first.unwrap_or(end.position.seq.next()),
            None => end.position.seq.next(),
        };
        streams.push((key, first, end));
    }
    streams.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(Some(OldestSegment {
        no,
        first_block: segment.header.first_block,
        last_block,
        created_ms: segment.header.created_ms,
        streams,
    }))
}
