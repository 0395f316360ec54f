//! The chain up to records that cannot be read: sixteen bytes of a damaged frame, or of the segment after it, which the
//! frame behind proves.

use ledge_proto::frame::Frame;
use ledge_proto::ids::{Chain, Mark, Position, Seq, StreamKey};
use ledge_proto::limits;

use crate::catalog::{Catalog, FrameRef, Segment};

/// The last field of a frame's header but the checksum, and what comes behind it (`docs/format/frame.md`).
const CHAIN_FIELD: [u8; 2] = [14 << 3 | 2, 16];
const BEHIND_CHAIN: u8 = 15 << 3 | 5;
/// Most places that are tried: each costs a hash of the frame behind.
const MOST_PLACES: usize = 256;

/// The mark of record `seq`, whose frame cannot be read. `frame` is its place, when the index has it.
pub(crate) fn proven_mark(
    catalog: &Catalog,
    key: &StreamKey,
    seq: Seq,
    frame: Option<FrameRef>,
) -> Option<Mark> {
    let lost = catalog.damages().holding(key, seq).cloned();
    let segment_no = match (frame, &lost) {
        (Some(frame), _) => frame.segment,
        (None, Some(lost)) if lost.last == seq => lost.segment,
        _ => return None,
    };
    let stood = crate::read::stood_after(catalog, segment_no, key);
    if let Some(stood) = stood.filter(|stood| stood.position.seq == seq) {
        return Some(stood);
    }
    let next = catalog.stream(key)?.state().starting_at(seq.next())?;
    let next = crate::read::read_frame(&*catalog.segment(next.segment)?, key, next).ok()?;
    let segment = catalog.segment(segment_no)?;
    let (from, to) = match (frame, lost) {
        (Some(frame), _) => {
            let header = u32::try_from(limits::FRAME_HEADER_MAX_BYTES + 8).unwrap_or(u32::MAX);
            (frame.off, frame.off + frame.len.min(header))
        }
        (None, lost) => {
            let off = lost?.off;
            let end = catalog.damages().at(segment_no, off)?.end;
            // The last of several blocks, if they are longer than any one may be.
            let longest = u32::try_from(limits::BLOCK_MAX_BYTES).unwrap_or(u32::MAX);
            (off.max(end.saturating_sub(longest)), end)
        }
    };
    let chain = chain_in(&segment, from, to, &next)?;
    let epoch = frame.map_or(next.epoch(), |frame| frame.epoch);
    Some(Mark {
        position: Position { epoch, seq },
        chain,
    })
}

/// The chain that `next` continues, if it is among the bytes `from` to `to` of the segment.
fn chain_in(segment: &Segment, from: u32, to: u32, next: &Frame) -> Option<Chain> {
    let mut bytes = vec![0; usize::try_from(to.checked_sub(from)?).ok()?];
    let read = segment.file.pread(&mut bytes, from.into()).ok()?;
    bytes[..read]
        .windows(CHAIN_FIELD.len() + 16 + 1)
        .filter(|field| field.starts_with(&CHAIN_FIELD) && field[field.len() - 1] == BEHIND_CHAIN)
        .take(MOST_PLACES)
        .filter_map(|field| Chain::from_slice(&field[CHAIN_FIELD.len()..field.len() - 1]).ok())
        .find(|chain| next.follows(*chain).is_ok())
}
