//! Putting a block together from its frames, exactly as it was.

use std::sync::Arc;

use bytes::Bytes;
use ledge_proto::frame::Frame;

use crate::catalog::{Catalog, Damage, FrameRef, Segment};
use crate::error::{ReadError, RefillError};
use crate::format::block::{
    BLOCK_HEADER_BYTES, BODY_MAX_BYTES, BlockHeader, BlockKind, DIR_ENTRY_BYTES, DirEntry, block_chain,
    decode_dir, seeded_crc,
};
use crate::format::fields::u32_at;
use crate::format::seal::Seal;
use crate::ids::{BlockChain, BlockNo};
use crate::scan::chain_at;
use crate::storage::pread_exact;

/// Most frames whose order is tried out when nothing is left that says it.
const MOST_UNORDERED: usize = 5;
/// How far a block's `durable_block` may lie before it when its header is gone.
pub(super) const DURABLE_BEHIND: u64 = 4;

/// A block as it was written.
pub(super) struct Rebuilt {
    /// Header, body and padding.
    pub(super) bytes: Vec<u8>,
    /// Its frames.
    pub(super) frames: Placed,
}

/// Frames, and where each starts, bytes from the start of the body.
pub(super) type Placed = Vec<(Frame, usize)>;

/// The block of `damage`, from what is left of it and what came back; `None` when that is not enough to prove that
/// it is the one that was there.
pub(super) fn rebuild(
    catalog: &Catalog,
    segment: &Arc<Segment>,
    damage: &Damage,
) -> Result<Option<Rebuilt>, RefillError> {
    if damage.first != damage.last {
        return Ok(None);
    }
    let len = usize::try_from(damage.end.saturating_sub(damage.off)).unwrap_or(usize::MAX);
    let mut old = vec![0; len.min(BLOCK_HEADER_BYTES + BODY_MAX_BYTES)];
    let read = segment
        .file
        .pread(&mut old, damage.off.into())
        .map_err(|err| ReadError::Io {
            path: segment.path.clone(),
            source: Arc::new(err),
        })?;
    old.truncate(read);
    let old = Bytes::from(old);
    let seed = segment.header.seed();
    let header = BlockHeader::decode(&old, seed)
        .ok()
        .filter(|header| header.block_no == damage.first);
    let kind = header.as_ref().map(|header| header.kind);
    let target = Target {
        catalog,
        seed,
        align: segment.header.align,
        no: damage.first,
        header,
        chain_after: crate::read::chain_of_block(catalog, damage.first),
        chain_before: chain_before(catalog, segment, damage.first),
        room: len,
    };
    if matches!(kind, None | Some(BlockKind::Seal))
        && let Some(found) = target.build_seal(segment)
    {
        return Ok(Some(found));
    }
    if !matches!(kind, None | Some(BlockKind::Data)) {
        return Ok(None);
    }
    let mut frames = damage.returned.clone();
    if let Some(ordered) = target.ordered(&old, &frames)
        && let Some(found) = target.build(&ordered)
    {
        return Ok(Some(found));
    }
    for stream in catalog.streams().iter() {
        let state = stream.state();
        let here = |frame: &&FrameRef| {
            frame.segment == damage.segment && (damage.off..damage.end).contains(&frame.off)
        };
        let whole = |frame: &FrameRef| crate::read::read_frame(segment, &stream.key, *frame).ok();
        frames.extend(state.frames.iter().filter(here).filter_map(whole));
    }
    frames.sort_by(|a, b| (a.key(), a.first_seq()).cmp(&(b.key(), b.first_seq())));
    frames.dedup_by(|a, b| a.bytes() == b.bytes());
    if frames.is_empty() || frames.len() > MOST_UNORDERED {
        return Ok(None);
    }
    let order = |order: Vec<usize>| order.into_iter().map(|n| frames[n].clone()).collect::<Vec<_>>();
    Ok(permutations(frames.len())
        .into_iter()
        .find_map(|way| target.build(&order(way))))
}

/// The chain up to the block before `no`, which is in `segment`. That block's successor is damaged.
pub(super) fn chain_before(catalog: &Catalog, segment: &Segment, no: BlockNo) -> Option<BlockChain> {
    if no == segment.header.first_block {
        return Some(segment.header.prev_seg_chain);
    }
    let before = no.previous();
    let off = segment.offset_of(before)?;
    let mut head = [0; BLOCK_HEADER_BYTES];
    pread_exact(&*segment.file, &mut head, off.into()).ok()?;
    let header = BlockHeader::decode(&head, segment.header.seed()).ok()?;
    (header.block_no == before && catalog.head().block >= before)
        .then(|| chain_at(segment, off, header.block_len()).ok())?
}

/// What the block has to be.
pub(super) struct Target<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) seed: u32,
    pub(super) align: u16,
    pub(super) no: BlockNo,
    pub(super) header: Option<BlockHeader>,
    pub(super) chain_before: Option<BlockChain>,
    pub(super) chain_after: Option<BlockChain>,
    pub(super) room: usize,
}

impl Target<'_> {
    /// The frames in the order of the directory, if that can still be read: those that came back, and of the others
    /// those that are still whole.
    fn ordered(&self, old: &Bytes, returned: &[Frame]) -> Option<Vec<Frame>> {
        let body = old.slice(BLOCK_HEADER_BYTES.min(old.len())..);
        let (dir_len, body_len) = match &self.header {
            Some(header) => (header.dir_len(), header.body_len()),
            // The first frame starts where the directory ends.
            None => (u32_at(body.get(..DIR_ENTRY_BYTES)?, 20) as usize, body.len()),
        };
        if dir_len == 0 || !dir_len.is_multiple_of(DIR_ENTRY_BYTES) {
            return None;
        }
        let dir = decode_dir(body.get(..dir_len)?, dir_len, body_len).ok()?;
        let belongs = |frame: &Frame, entry: &DirEntry| {
            frame.first_seq() == entry.first_seq
                && frame.count() == entry.count
                && self.slot(frame) == Some(entry.slot)
        };
        let of = |entry: &DirEntry| {
            let back = returned.iter().find(|frame| belongs(frame, entry)).cloned();
            back.or_else(|| {
                let from = entry.off as usize;
                let bytes = (from + entry.len as usize <= body.len())
                    .then(|| body.slice(from..from + entry.len as usize))?;
                Frame::parse(bytes).ok().filter(|frame| belongs(frame, entry))
            })
        };
        dir.iter().map(of).collect()
    }

    fn slot(&self, frame: &Frame) -> Option<u32> {
        Some(self.catalog.stream(frame.key())?.slot)
    }

    /// The block with the frames in this order, if it is the one that was there.
    fn build(&self, frames: &[Frame]) -> Option<Rebuilt> {
        let (body, placed) = self.body(frames)?;
        self.finish(BlockKind::Data, frames, body, placed)
    }

    /// The body of a block of these frames, and where each starts in it.
    pub(super) fn body(&self, frames: &[Frame]) -> Option<(Vec<u8>, Placed)> {
        let mut body = Vec::new();
        let mut at = frames.len() * DIR_ENTRY_BYTES;
        let mut placed = Vec::with_capacity(frames.len());
        for frame in frames {
            let entry = DirEntry {
                slot: self.slot(frame)?,
                epoch: frame.epoch(),
                first_seq: frame.first_seq(),
                count: frame.count(),
                off: u32::try_from(at).ok()?,
                len: u32::try_from(frame.bytes().len()).ok()?,
            };
            entry.encode(&mut body);
            placed.push((frame.clone(), at));
            at += frame.bytes().len();
        }
        if at > BODY_MAX_BYTES {
            return None;
        }
        for frame in frames {
            body.extend_from_slice(frame.bytes());
        }
        Some((body, placed))
    }

    /// The index of a segment that was finished: everything in it is known from the segment itself.
    fn build_seal(&self, segment: &Segment) -> Option<Rebuilt> {
        let mut blocks = crate::catalog::read(&segment.blocks).clone();
        if blocks.pop().is_none() || segment.last_block() != self.no || self.no == self.catalog.head().block {
            return None;
        }
        let mut frames: Vec<DirEntry> = Vec::new();
        for stream in self.catalog.streams().iter() {
            let state = stream.state();
            let here = state.frames.iter().filter(|frame| frame.segment == segment.no());
            frames.extend(here.map(|frame| DirEntry {
                slot: stream.slot,
                epoch: frame.epoch,
                first_seq: frame.first_seq,
                count: frame.count,
                off: frame.off,
                len: frame.len,
            }));
        }
        frames.sort_unstable_by_key(|frame| frame.off);
        let is_snapshot = |off: &u32| {
            let mut head = [0; BLOCK_HEADER_BYTES];
            pread_exact(&*segment.file, &mut head, (*off).into()).ok()?;
            let header = BlockHeader::decode(&head, self.seed).ok()?;
            (header.kind == BlockKind::Snapshot).then_some(*off)
        };
        let snapshots = blocks.iter().filter_map(is_snapshot).collect();
        let seal = Seal {
            blocks,
            frames,
            snapshots,
        };
        self.finish(BlockKind::Seal, &[], seal.encode()?, Vec::new())
    }

    /// The block with this body, if it is the one that was there.
    fn finish(&self, kind: BlockKind, frames: &[Frame], body: Vec<u8>, placed: Placed) -> Option<Rebuilt> {
        let crc = seeded_crc(self.seed, std::iter::once(&body[..]));
        let header = match &self.header {
            Some(header) => {
                (header.body_crc == crc && header.body_len() == body.len()).then(|| header.clone())
            }
            None => self.header_of(kind, frames, &body),
        }?;
        let bytes = self.bytes(&header, &body)?;
        Some(Rebuilt {
            bytes,
            frames: placed,
        })
    }

    /// The block as it is written; `None` when it would reach into the next one.
    pub(super) fn bytes(&self, header: &BlockHeader, body: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = header.encode(self.seed).to_vec();
        bytes.extend_from_slice(body);
        bytes.resize(header.span(self.align), 0);
        (bytes.len() <= self.room).then_some(bytes)
    }

    /// The header that makes the next block a continuation of this one.
    fn header_of(&self, kind: BlockKind, frames: &[Frame], body: &[u8]) -> Option<BlockHeader> {
        let (before, after) = (self.chain_before?, self.chain_after?);
        (1..=DURABLE_BEHIND)
            .filter_map(|behind| self.no.0.checked_sub(behind))
            .filter_map(|durable| self.header_after(before, kind, frames, body, BlockNo(durable)))
            .find_map(|(header, chain)| (chain == after).then_some(header))
    }

    /// The header of a block behind the chain `before`, and the chain up to and with it.
    pub(super) fn header_after(
        &self,
        before: BlockChain,
        kind: BlockKind,
        frames: &[Frame],
        body: &[u8],
        durable: BlockNo,
    ) -> Option<(BlockHeader, BlockChain)> {
        let dir = body.get(..frames.len() * DIR_ENTRY_BYTES)?;
        let own = if frames.is_empty() { body } else { dir };
        let header = BlockHeader {
            kind,
            flags: 0,
            dir_count: u16::try_from(frames.len()).unwrap_or(u16::MAX),
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            block_no: self.no,
            durable_block: durable,
            prev_chain: before,
            body_crc: seeded_crc(self.seed, std::iter::once(body)),
            slot: 0,
            dir_crc: seeded_crc(self.seed, std::iter::once(dir)),
        };
        let chains = frames.iter().map(|frame| frame.chain().0);
        let chain = block_chain(&header.encode(self.seed), own, chains);
        Some((header, chain))
    }
}

/// Every order of `len` things.
fn permutations(len: usize) -> Vec<Vec<usize>> {
    (0..len).fold(vec![Vec::new()], |orders, n| {
        let insert = |order: Vec<usize>| {
            (0..=n).map(move |at| {
                let mut longer = order.clone();
                longer.insert(at, n);
                longer
            })
        };
        orders.into_iter().flat_map(insert).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_comes_once() {
        let mut all = permutations(4);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 24);
    }
}
