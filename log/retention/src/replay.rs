//! Folding a log of which the beginning is gone: bases first, then block by block, with the rebases among them.
//!
//! The same for projections, time travel and SQL.

use std::collections::BTreeMap;

use ledge_log::{Block, BlockNo, BlockReader, Log, LogView, ReadError, SnapshotRef, StreamReader};
use ledge_proto::fold::{self, FoldError, Store, folded_stream, snapshot};
use ledge_proto::frame::{Frame, FrameError};
use ledge_proto::ids::{Mark, Position, Seq, StreamId, StreamKey};
use ledge_proto::v1;
use ledge_proto::v1::snapshot::Purpose;

/// A log that can be folded: open, or looked at.
pub trait Held {
    /// See [`Log::bases`].
    fn bases(&self) -> Vec<SnapshotRef>;

    /// See [`Log::read_snapshot`].
    ///
    /// # Errors
    /// As there.
    fn read_snapshot(&self, at: &SnapshotRef) -> Result<Vec<v1::Snapshot>, ReadError>;

    /// See [`Log::read_blocks`].
    fn read_blocks(&self, after: BlockNo) -> BlockReader;

    /// See [`Log::read_stream`].
    fn read_stream(&self, key: &StreamKey, after: Seq) -> StreamReader;

    /// See [`Log::mark_at`].
    ///
    /// # Errors
    /// As there.
    fn mark_at(&self, key: &StreamKey, seq: Seq) -> Result<Option<Mark>, ReadError>;
}

macro_rules! held {
    ($of:ty) => {
        impl Held for $of {
            fn bases(&self) -> Vec<SnapshotRef> {
                <$of>::bases(self)
            }

            fn read_snapshot(&self, at: &SnapshotRef) -> Result<Vec<v1::Snapshot>, ReadError> {
                <$of>::read_snapshot(self, at)
            }

            fn read_blocks(&self, after: BlockNo) -> BlockReader {
                <$of>::read_blocks(self, after)
            }

            fn read_stream(&self, key: &StreamKey, after: Seq) -> StreamReader {
                <$of>::read_stream(self, key, after)
            }

            fn mark_at(&self, key: &StreamKey, seq: Seq) -> Result<Option<Mark>, ReadError> {
                <$of>::mark_at(self, key, seq)
            }
        }
    };
}
held!(Log);
held!(LogView);

/// Why a log could not be folded.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E: std::error::Error + 'static> {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A frame cannot be decoded.
    #[error("block {block}: {source}")]
    Frame {
        /// The block it is in.
        block: BlockNo,
        /// Why.
        source: FrameError,
    },
    /// A part of a snapshot cannot be decoded.
    #[error("block {block}: a part of a snapshot cannot be decoded: {reason}")]
    Part {
        /// The block it is.
        block: BlockNo,
        /// Why.
        reason: String,
    },
    /// A frame or a snapshot does not fold.
    #[error("block {block}: {source}")]
    Fold {
        /// The block it is in.
        block: BlockNo,
        /// Why.
        source: FoldError<E>,
    },
}

/// The base that stands for what is gone of each stream: of a stream that several lives of a disk wrote, the last one's.
pub fn standing_bases(held: &impl Held) -> Vec<SnapshotRef> {
    let mut bases = held.bases();
    bases.sort_unstable_by_key(|base| base.block);
    let mut standing: BTreeMap<StreamId, SnapshotRef> = BTreeMap::new();
    for base in bases {
        standing.insert(base.key.id.clone(), base);
    }
    standing.into_values().collect()
}

/// Brings `store` up to the beginning of what is held: loads every base that is ahead of what `store` has folded. Of an
/// empty store, that is all of them.
///
/// # Errors
/// [`ReadError::Recycled`] when the log gave up a base meanwhile: it has a newer one then, so call again. Otherwise see
/// [`ReplayError`].
pub fn load_bases<S: Store>(held: &impl Held, store: &mut S) -> Result<(), ReplayError<S::Error>> {
    load_bases_of(held, store, &|_| true)
}

/// As [`load_bases`], of the streams `wanted` alone.
///
/// # Errors
/// As there.
pub fn load_bases_of<S: Store>(
    held: &impl Held,
    store: &mut S,
    wanted: &dyn Fn(&StreamId) -> bool,
) -> Result<(), ReplayError<S::Error>> {
    let with_base: Vec<StreamKey> = held.bases().into_iter().map(|base| base.key).collect();
    for base in standing_bases(held)
        .into_iter()
        .filter(|base| wanted(&base.key.id))
    {
        let fold = |source| ReplayError::Fold {
            block: base.block,
            source,
        };
        let ahead = match folded_stream(store, &base.key.id).map_err(fold)? {
            None => true,
            Some(folded) if folded.incarnation == base.key.incarnation.0.as_slice() => {
                base.mark.position > position_of(&folded)
            }
            // Another life wrote what is folded. If something of it is gone from the log it has a base too, and this one
            // came later; if not, it is the later one itself, and all of it is held.
            Some(folded) => with_base
                .iter()
                .any(|key| key.id == base.key.id && folded.incarnation == key.incarnation.0.as_slice()),
        };
        if ahead {
            snapshot::load(store, &held.read_snapshot(&base)?).map_err(fold)?;
        }
    }
    Ok(())
}

/// The reader of the first block that is still held, when `reader` comes too late for the one it wants.
pub fn first_held(held: &impl Held, err: &ReadError) -> Option<BlockReader> {
    match err {
        ReadError::Recycled { first_held, .. } => Some(held.read_blocks(BlockNo(*first_held).previous())),
        _ => None,
    }
}

/// Folds blocks in their order, after [`load_bases`].
#[derive(Debug, Default)]
pub struct Replay {
    rebase: Rebase,
}

impl Replay {
    /// Whether the last block was a part of a rebase whose last part is still to come: folding must be taken up before it,
    /// not after.
    pub fn is_between_parts(&self) -> bool {
        self.rebase.is_open()
    }

    /// Folds one block into `store`.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn block<S: Store>(
        &mut self,
        held: &impl Held,
        store: &mut S,
        block: &Block,
    ) -> Result<(), ReplayError<S::Error>> {
        self.block_of(held, store, block, &|_| true)
    }

    /// As [`Replay::block`], of the streams `wanted` alone.
    ///
    /// # Errors
    /// As there.
    pub fn block_of<S: Store>(
        &mut self,
        held: &impl Held,
        store: &mut S,
        block: &Block,
        wanted: &dyn Fn(&StreamId) -> bool,
    ) -> Result<(), ReplayError<S::Error>> {
        if let Some(parts) = self.rebase.part(block)? {
            let of = parts.first().and_then(|part| snapshot::key_of(part).ok());
            if of.is_some_and(|key| !wanted(&key.id)) {
                return Ok(());
            }
            return load_rebase(store, &parts).map_err(|source| ReplayError::Fold {
                block: block.no,
                source,
            });
        }
        for frame in block.frames() {
            let frame = frame.map_err(|source| ReplayError::Frame {
                block: block.no,
                source,
            })?;
            if !wanted(&frame.key().id) {
                continue;
            }
            match fold::apply_frame(store, &frame) {
                Err(FoldError::Gap { .. }) if has_left(held, &frame)? => {}
                folded => folded.map_err(|source| ReplayError::Fold {
                    block: block.no,
                    source,
                })?,
            }
        }
        Ok(())
    }
}

/// Whether `frame` is no longer a part of its stream: a later epoch went on before it.
///
/// # Errors
/// When the log cannot be read.
pub fn has_left(held: &impl Held, frame: &Frame) -> Result<bool, ReadError> {
    Ok(held.mark_at(frame.key(), frame.last_seq())? != Some(frame.mark()))
}

/// Puts the parts of REBASE snapshots together as their blocks come.
#[derive(Debug, Default)]
pub struct Rebase {
    parts: Vec<v1::Snapshot>,
}

impl Rebase {
    /// Whether the last part is still to come.
    pub fn is_open(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Takes in a block. Returns the rebase that is whole with it.
    ///
    /// # Errors
    /// [`ReplayError::Part`].
    pub fn part<E: std::error::Error + 'static>(
        &mut self,
        block: &Block,
    ) -> Result<Option<Vec<v1::Snapshot>>, ReplayError<E>> {
        let part = block.snapshot().map_err(|err| ReplayError::Part {
            block: block.no,
            reason: err.to_string(),
        })?;
        let Some(part) = part else {
            if block.frame_count() > 0 {
                self.parts.clear();
            }
            return Ok(None);
        };
        if part.part == 0 {
            self.parts.clear();
        }
        let follows = part.part as usize == self.parts.len()
            && self.parts.first().is_none_or(|first| is_same_set(first, &part));
        if !follows || part.purpose() != Purpose::Rebase {
            self.parts.clear();
            return Ok(None);
        }
        let whole = part.part + 1 == part.parts;
        self.parts.push(part);
        Ok(whole.then(|| std::mem::take(&mut self.parts)))
    }
}

fn is_same_set(a: &v1::Snapshot, b: &v1::Snapshot) -> bool {
    (&a.scope, a.lane, &a.incarnation, a.epoch, a.seq, a.parts)
        == (&b.scope, b.lane, &b.incarnation, b.epoch, b.seq, b.parts)
}

/// Moves a stream of `store` to where a rebase stands, unless it is there or further already.
///
/// # Errors
/// When the parts are not a snapshot or the store fails.
pub fn load_rebase<S: Store>(store: &mut S, parts: &[v1::Snapshot]) -> Result<(), FoldError<S::Error>> {
    let Some(first) = parts.first() else {
        return Ok(());
    };
    let key = snapshot::key_of(first).map_err(FoldError::Snapshot)?;
    let mark = snapshot::mark_of(first).map_err(FoldError::Snapshot)?;
    let there = folded_stream(store, &key.id)?.is_some_and(|folded| {
        folded.incarnation == key.incarnation.0.as_slice() && position_of(&folded) >= mark.position
    });
    if there {
        return Ok(());
    }
    snapshot::load(store, parts)
}

fn position_of(folded: &v1::FoldedStream) -> Position {
    Position {
        epoch: ledge_proto::ids::Epoch(folded.epoch),
        seq: Seq(folded.seq),
    }
}

/// Folds everything held into `store`.
///
/// # Errors
/// See [`ReplayError`].
pub fn fold_all<S: Store>(held: &impl Held, store: &mut S) -> Result<(), ReplayError<S::Error>> {
    fold_of(held, store, &|_| true)
}

/// As [`fold_all`], of the streams `wanted` alone.
///
/// # Errors
/// See [`ReplayError`].
pub fn fold_of<S: Store>(
    held: &impl Held,
    store: &mut S,
    wanted: &dyn Fn(&StreamId) -> bool,
) -> Result<(), ReplayError<S::Error>> {
    load_bases_of(held, store, wanted)?;
    let mut replay = Replay::default();
    let mut reader = held.read_blocks(BlockNo(0));
    loop {
        match reader.next_block() {
            Ok(Some(block)) => replay.block_of(held, store, &block, wanted)?,
            Ok(None) => return Ok(()),
            Err(err) => {
                let Some(from) = first_held(held, &err) else {
                    return Err(err.into());
                };
                if from.position() <= reader.position() {
                    return Err(err.into());
                }
                reader = from;
                load_bases_of(held, store, wanted)?;
            }
        }
    }
}
