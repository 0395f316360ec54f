//! What goes, and what has to be there before it may.

use std::collections::HashMap;
use std::sync::Arc;

use ledge_proto::ids::{Mark, Seq, StreamKey};
use tokio::sync::watch;

use super::Log;
use crate::catalog::{Catalog, Quarantined};
use crate::error::{OpenError, ReadError, RecycleError};
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
    /// snapshot lies in it. Records that cannot be read count as well. Ordered by key.
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

    /// Changes [`crate::Options::max_bytes`], and the length of segments made from now on. A log that is over the new limit
    /// says so ([`Room::blocked`]) until its oldest segments went; nothing that is held goes by itself. Files kept to be
    /// written over go at once where they do not fit.
    ///
    /// Waits for a commit that is under way.
    ///
    /// # Errors
    /// [`OpenError::Options`] when three segments do not fit, or a segment would be shorter than this log's blocks need;
    /// nothing was changed.
    pub fn set_limit(&self, max_bytes: Option<u64>, segment_bytes: u64) -> Result<Room, OpenError> {
        self.shared().writer().set_limit(max_bytes, segment_bytes)
    }

    /// The oldest segment, unless it is the one being written.
    ///
    /// # Errors
    /// When where a stream ends in it cannot be read, neither there nor at the beginning of the segment after it.
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
    let damaged: Vec<Quarantined> = {
        let all = catalog.damages().listed();
        all.into_iter().filter(|lost| lost.segment <= no).collect()
    };
    let mut found = Vec::new();
    for stream in catalog.streams().iter() {
        let state = stream.state();
        let (frame, mark) = state.end_in(no, last_block);
        let first = frame.and(state.frames.first()).map(|frame| frame.first_seq);
        let lost = damaged.iter().filter(|lost| lost.key == stream.key);
        let lost = lost
            .map(|lost| (lost.first, lost.last))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        if frame.is_some() || mark.is_some() || lost.is_some() {
            found.push((stream.key.clone(), first, lost, frame, mark, state.durable));
        }
    }
    let mut streams = Vec::with_capacity(found.len());
    for (key, first, lost, frame, mark, durable) in found {
        let mut end = match (frame, mark) {
            (Some(frame), mark) if mark.is_none_or(|mark| mark.position < frame.last()) => {
                Some(if frame.last() == durable.position {
                    durable
                } else {
                    crate::read::mark_of_frame(catalog, &key, frame)?
                })
            }
            (_, mark) => mark,
        };
        // Its last frames may be among what cannot be read, and not in the index.
        if let Some((_, last)) = lost
            && end.is_none_or(|end| end.position.seq < last)
        {
            let stood = crate::read::stood_after(catalog, no, &key);
            let stood = stood.or((durable.position.seq == last).then_some(durable));
            end = stood.into_iter().chain(end).max_by_key(|mark| mark.position);
        }
        let Some(end) = end else { continue };
        let first = first.into_iter().chain(lost.map(|(first, _)| first)).min();
        streams.push((key, first.unwrap_or(end.position.seq.next()), end));
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
