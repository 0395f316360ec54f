//! Putting several blocks in a row together, of which not even the headers are left.
//!
//! The chain up to the block before them and the one that the block behind them continues are known. Between them, the
//! frames that came back are tried in the blocks, until the chain leads from the one to the other. Where the index of the
//! segment says which frame was where, only the headers have to be found; otherwise the frames too are distributed.

use std::collections::VecDeque;
use std::sync::Arc;

use ledge_proto::frame::Frame;
use ledge_proto::ids::StreamKey;

use super::rebuild::{DURABLE_BEHIND, Rebuilt, Target, chain_before};
use crate::catalog::{Catalog, Damage, FrameRef, Segment};
use crate::format::block::BlockKind;
use crate::ids::{BlockChain, BlockNo};

/// Most blocks that are tried.
const MOST_TRIED: u32 = 50_000;

/// Some of the damaged blocks.
enum Piece {
    /// One, whose frames the index has.
    Known { off: u32, end: u32, frames: Vec<Frame> },
    /// So many, with these frames in them, each stream's in their order.
    Unknown {
        off: u32,
        end: u32,
        blocks: u64,
        frames: Vec<VecDeque<Frame>>,
    },
}

/// The damages that lie in a row with `damage`, itself included, in order.
pub(super) fn run_of(catalog: &Catalog, damage: &Damage) -> Vec<Damage> {
    let mut all: Vec<Damage> = {
        let damages = catalog.damages();
        let same = damages.all.iter().filter(|other| other.segment == damage.segment);
        same.cloned().collect()
    };
    all.sort_unstable_by_key(|damage| damage.off);
    let follows = |one: &Damage, next: &Damage| one.end == next.off && one.last.next() == next.first;
    let Some(at) = all.iter().position(|other| other.off == damage.off) else {
        return Vec::new();
    };
    let mut from = at;
    while from > 0 && follows(&all[from - 1], &all[from]) {
        from -= 1;
    }
    let mut to = at + 1;
    while to < all.len() && follows(&all[to - 1], &all[to]) {
        to += 1;
    }
    all.drain(from..to).collect()
}

/// The blocks of `run`, and where each starts; `None` when nothing proves what was there.
pub(super) fn rebuild_run(
    catalog: &Catalog,
    segment: &Arc<Segment>,
    run: &[Damage],
) -> Option<Vec<(u32, Rebuilt)>> {
    let (first, last) = (run.first()?.first, run.last()?.last);
    let pieces: Vec<Piece> = run
        .iter()
        .map(|damage| piece(catalog, segment, damage))
        .collect::<Option<_>>()?;
    let before = chain_before(catalog, segment, first)?;
    let after = crate::read::chain_of_block(catalog, last)?;
    // A block mostly says that the one before it is durable.
    [1, DURABLE_BEHIND].into_iter().find_map(|behind| {
        let mut search = Search {
            catalog,
            segment,
            pieces: &pieces,
            after,
            behind,
            left: MOST_TRIED,
            found: Vec::new(),
        };
        search.piece(0, first, before).then_some(search.found)
    })
}

/// What is known of one damage; `None` when frames of it are missing.
fn piece(catalog: &Catalog, segment: &Segment, damage: &Damage) -> Option<Piece> {
    let (off, end) = (damage.off, damage.end);
    let mut placed: Vec<(FrameRef, StreamKey)> = Vec::new();
    for stream in catalog.streams().iter() {
        let here = |frame: &&FrameRef| frame.segment == damage.segment && (off..end).contains(&frame.off);
        let state = stream.state();
        let found = state.frames.iter().filter(here);
        placed.extend(found.map(|frame| (*frame, stream.key.clone())));
    }
    placed.sort_unstable_by_key(|(frame, _)| frame.off);
    let whole = |(at, key): &(FrameRef, StreamKey)| {
        let mut back = damage.returned.iter();
        let back = back.find(|frame| frame.key() == key && frame.first_seq() == at.first_seq);
        back.cloned()
            .or_else(|| crate::read::read_frame(segment, key, *at).ok())
    };
    let known: Vec<Frame> = placed.iter().map(whole).collect::<Option<_>>()?;
    let of_index = |seq, key: &StreamKey| {
        let holds =
            |(at, of): &(FrameRef, StreamKey)| of == key && at.first_seq <= seq && seq <= at.last_seq();
        placed.iter().any(holds)
    };
    let all_known = damage
        .lost
        .iter()
        .all(|lost| of_index(lost.first, &lost.key) && of_index(lost.last, &lost.key));
    if damage.first == damage.last && !known.is_empty() && all_known {
        let frames = known;
        return Some(Piece::Known { off, end, frames });
    }
    let mut damage = damage.clone();
    damage.returned.extend(known);
    if !damage.is_complete() {
        return None;
    }
    let mut returned = damage.returned;
    returned.sort_by(|a, b| (a.key(), a.first_seq()).cmp(&(b.key(), b.first_seq())));
    returned.dedup_by(|a, b| a.bytes() == b.bytes());
    let mut frames: Vec<VecDeque<Frame>> = Vec::new();
    for frame in returned {
        match frames.last_mut() {
            Some(of) if of.back().is_some_and(|last| last.key() == frame.key()) => of.push_back(frame),
            _ => frames.push(VecDeque::from([frame])),
        }
    }
    Some(Piece::Unknown {
        off,
        end,
        blocks: damage.last.0 + 1 - damage.first.0,
        frames,
    })
}

/// The way from the block before the run to the one behind it.
struct Search<'a> {
    catalog: &'a Catalog,
    segment: &'a Arc<Segment>,
    pieces: &'a [Piece],
    after: BlockChain,
    /// How far the `durable_block` of a block may lie before it.
    behind: u64,
    left: u32,
    found: Vec<(u32, Rebuilt)>,
}

impl Search<'_> {
    /// Goes on with piece `n`, whose first block is `no`. Whether it leads to the end; `found` has the way then.
    fn piece(&mut self, n: usize, no: BlockNo, chain: BlockChain) -> bool {
        let pieces = self.pieces;
        match pieces.get(n) {
            None => chain == self.after,
            Some(Piece::Known { off, end, frames }) => {
                self.block((no, *off, *end), chain, frames, &mut |search, _, chain| {
                    search.piece(n + 1, no.next(), chain)
                })
            }
            Some(Piece::Unknown {
                off,
                end,
                blocks,
                frames,
            }) => {
                let mut frames = frames.clone();
                self.unknown(n, (no, *off, *end, *blocks), chain, &mut frames, &mut Vec::new())
            }
        }
    }

    /// Fills the block that begins at `off`, of `blocks` that are left in piece `n`: `taken` is in it by now.
    fn unknown(
        &mut self,
        n: usize,
        (no, off, end, blocks): (BlockNo, u32, u32, u64),
        chain: BlockChain,
        left: &mut Vec<VecDeque<Frame>>,
        taken: &mut Vec<Frame>,
    ) -> bool {
        let frames_left: u64 = left.iter().map(|of| of.len() as u64).sum();
        let last = blocks == 1;
        if self.left == 0 || !last && frames_left + u64::from(!taken.is_empty()) < blocks {
            return false;
        }
        if !taken.is_empty() && last == (frames_left == 0) {
            let frames = std::mem::take(taken);
            let found = self.block((no, off, end), chain, &frames, &mut |search, at, chain| {
                if last {
                    return search.piece(n + 1, no.next(), chain);
                }
                let rest = (no.next(), at, end, blocks - 1);
                search.unknown(n, rest, chain, left, &mut Vec::new())
            });
            if found {
                return true;
            }
            *taken = frames;
        }
        for of in 0..left.len() {
            let Some(frame) = left[of].pop_front() else {
                continue;
            };
            taken.push(frame);
            if self.unknown(n, (no, off, end, blocks), chain, left, taken) {
                return true;
            }
            if let Some(frame) = taken.pop() {
                left[of].push_front(frame);
            }
        }
        false
    }

    /// Tries `frames` as block `no`, from `off` on and not beyond `end`; `on` goes on behind it.
    fn block(
        &mut self,
        (no, off, end): (BlockNo, u32, u32),
        chain: BlockChain,
        frames: &[Frame],
        on: &mut dyn FnMut(&mut Self, u32, BlockChain) -> bool,
    ) -> bool {
        let target = Target {
            catalog: self.catalog,
            seed: self.segment.header.seed(),
            align: self.segment.header.align,
            no,
            header: None,
            chain_after: None,
            chain_before: Some(chain),
            room: usize::try_from(end.saturating_sub(off)).unwrap_or(usize::MAX),
        };
        self.left = self.left.saturating_sub(1);
        let Some((body, placed)) = target.body(frames) else {
            return false;
        };
        for behind in 1..=self.behind {
            let Some(durable) = no.0.checked_sub(behind) else {
                break;
            };
            let kind = BlockKind::Data;
            let Some((header, next)) = target.header_after(chain, kind, frames, &body, BlockNo(durable))
            else {
                return false;
            };
            let Some(bytes) = target.bytes(&header, &body) else {
                return false; // It would reach into the next block.
            };
            let at = off + u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let frames = placed.clone();
            self.found.push((off, Rebuilt { bytes, frames }));
            if on(self, at, next) {
                return true;
            }
            self.found.pop();
        }
        false
    }
}
