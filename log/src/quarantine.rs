//! Damaged blocks: copied away, listed, and written again once a peer has given their frames back.
//!
//! A block is put back in its place exactly as it was: its body has to match the checksum in its header, or, where
//! the header is gone too, its chain the one that the next block continues. So the log is the same as before the
//! damage, and nothing that reads it has to know.

pub(crate) mod chain;
mod rebuild;
mod run;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use ledge_proto::frame::Frame;
use ledge_proto::ids::{Chain, Mark, Position, Seq, StreamKey};

use crate::catalog::{Catalog, Damage, FrameRef, Quarantined, Segment, Stream};
use crate::error::{AppendError, OpenError, ReadError, RefillError};
use crate::format::block::BLOCK_HEADER_BYTES;
use crate::ids::{BlockNo, SegmentNo};
use crate::log::Log;
use crate::storage::{Storage, pwrite};
use crate::writer::Writer;

/// Directory of copies, in the directory of the log.
const DIR: &str = "quarantine";

/// Copies everything that was found damaged. Without room for that the copies wait until something is written over.
pub(crate) fn keep_all(catalog: &Catalog) {
    let all = catalog.damages().all.clone();
    for damage in all {
        if let Err(err) = keep(catalog, &damage) {
            tracing::warn!(error = %err, block = %damage.first, "a damaged block was not copied to the quarantine");
        }
    }
}

/// Copies the bytes of one damaged stretch, once.
fn keep(catalog: &Catalog, damage: &Damage) -> Result<PathBuf, OpenError> {
    let storage: &dyn Storage = &*catalog.storage;
    let dir = catalog.dir.join(DIR);
    let name = format!("seg-{:016x}-{:08x}.blk", damage.segment.0, damage.off);
    let path = dir.join(&name);
    storage
        .create_dir_all(&dir)
        .map_err(OpenError::io("create", &dir))?;
    if storage
        .list(&dir)
        .map_err(OpenError::io("list", &dir))?
        .contains(&name)
    {
        return Ok(path);
    }
    let Some(segment) = catalog.segment(damage.segment) else {
        return Ok(path);
    };
    let most = ledge_proto::limits::BLOCK_MAX_BYTES;
    let len = usize::try_from(damage.end.saturating_sub(damage.off))
        .unwrap_or(most)
        .min(most);
    let mut bytes = vec![0; len];
    let read = segment
        .file
        .pread(&mut bytes, damage.off.into())
        .map_err(OpenError::io("read", &segment.path))?;
    // Under another name first: a copy that is there is whole.
    let new = dir.join("copy.tmp");
    let file = storage.create(&new).map_err(OpenError::io("create", &new))?;
    pwrite(&*file, &bytes[..read], 0).map_err(OpenError::io("write", &new))?;
    file.fdatasync().map_err(OpenError::io("sync", &new))?;
    storage
        .rename(&new, &path)
        .map_err(OpenError::io("rename", &new))?;
    storage.sync_dir(&dir).map_err(OpenError::io("sync", &dir))?;
    storage
        .sync_dir(&catalog.dir)
        .map_err(OpenError::io("sync", &catalog.dir))?;
    Ok(path)
}

/// A reader found that what is at `off` is not what was written.
pub(crate) fn met(catalog: &Catalog, segment: SegmentNo, off: u32) {
    if !catalog.quarantines || catalog.damages().at(segment, off).is_some() {
        return;
    }
    let Some(segment) = catalog.segment(segment) else {
        return;
    };
    let Some((block, start, end)) = segment.block_around(off) else {
        return;
    };
    let mut inside = Vec::new();
    for stream in catalog.streams().iter() {
        let here = |frame: &&FrameRef| frame.segment == segment.no() && (start..end).contains(&frame.off);
        let state = stream.state();
        inside.extend(
            state
                .frames
                .iter()
                .filter(here)
                .map(|frame| (stream.key.clone(), *frame)),
        );
    }
    // Frames have checksums of their own: one sector takes few of them along.
    inside.retain(|(key, frame)| {
        matches!(
            crate::read::read_frame(&segment, key, *frame),
            Err(ReadError::Damaged { .. })
        )
    });
    let lost = inside.into_iter().map(|(key, frame)| Quarantined {
        key,
        first: frame.first_seq,
        last: frame.last_seq(),
        block,
        segment: segment.no(),
        off: start,
    });
    let lost = lost.collect();
    let damage = Damage {
        segment: segment.no(),
        off: start,
        end,
        first: block,
        last: block,
        lost,
        returned: Vec::new(),
    };
    tracing::error!(file = %segment.path.display(), off = start, %block, "a damaged block");
    if let Err(err) = keep(catalog, &damage) {
        tracing::warn!(error = %err, %block, "a damaged block was not copied to the quarantine");
    }
    let mut damages = catalog.damages();
    if damages.at(segment.no(), start).is_none() {
        damages.all.push(damage);
        catalog.new_damage.store(true, Release);
    }
}

/// What a reader is told of records that are quarantined.
pub(crate) fn error(catalog: &Catalog, lost: &Quarantined) -> ReadError {
    let path = catalog.segment(lost.segment).map_or_else(
        || catalog.dir.join(lost.segment.file_name()),
        |segment| segment.path.clone(),
    );
    ReadError::Damaged {
        path,
        offset: lost.off.into(),
        reason: format!(
            "{} seq {} to {} was in block {}, which cannot be read",
            lost.key, lost.first, lost.last, lost.block
        ),
    }
}

impl Log {
    /// Records that were durable and cannot be read, found when the log was opened or by readers since. Only with
    /// [`crate::OnDamage::Quarantine`]. A block of which every frame is still whole is put together again with the next
    /// commit, and is not listed.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        let mut listed = self.catalog().damages().listed();
        listed.retain(|lost| !held_again(self.catalog(), lost));
        listed
    }

    /// Whether record `seq` of a stream is among [`Log::quarantined`].
    pub fn is_quarantined(&self, key: &StreamKey, seq: Seq) -> bool {
        let found = self.catalog().damages().holding(key, seq).cloned();
        found.is_some_and(|lost| !held_again(self.catalog(), &lost))
    }

    /// Whether every record of `lost` came back by [`Log::refill`], and waits for others that lie beside it.
    pub fn has_returned(&self, lost: &Quarantined) -> bool {
        let damages = self.catalog().damages();
        damages
            .at(lost.segment, lost.off)
            .is_some_and(|damage| damage.has_returned(lost))
    }

    /// Takes a frame that is quarantined from a peer that has it too. `true` once the block it was in is whole again
    /// and durable; `false` while other frames of that block, or of those damaged in a row with it, are missing. It is kept
    /// in memory until then.
    ///
    /// Waits for a commit that is under way.
    ///
    /// # Errors
    /// [`RefillError`]; nothing was changed, unless writing failed.
    pub fn refill(&self, frame: Frame) -> Result<bool, RefillError> {
        let frame = Frame::parse(frame.bytes().clone())?;
        self.shared().writer().refill(frame)
    }
}

/// Whether records that were in a damaged block are held elsewhere by now: their end of the stream was lost, and it was
/// written again. To put the block back would have the log hold them twice.
fn held_again(catalog: &Catalog, lost: &Quarantined) -> bool {
    let Some(stream) = catalog.stream(&lost.key) else {
        return false;
    };
    let end = catalog
        .damages()
        .at(lost.segment, lost.off)
        .map_or(lost.off, |damage| damage.end);
    let state = stream.state();
    let at = state.durable.position.seq;
    if lost.first <= at && at < lost.last {
        return true; // A snapshot moved its end to the middle of them.
    }
    let from = state
        .frames
        .partition_point(|frame| frame.last_seq() < lost.first);
    state.frames[from..]
        .iter()
        .take_while(|frame| frame.first_seq <= lost.last)
        .any(|frame| frame.segment != lost.segment || !(lost.off..end).contains(&frame.off))
}

impl Writer {
    /// Whether the end of the stream may be in a damaged block, or among blocks that are gone.
    pub(crate) fn begins_anew(&self, stream: &Stream) -> bool {
        let lost_from = self.superblock.lost_from;
        lost_from > BlockNo::ZERO && self.catalog.last_block_of(stream) < lost_from
            || self.catalog.damages().suspects.contains(&stream.slot)
    }

    fn refill(&mut self, frame: Frame) -> Result<bool, RefillError> {
        let damage = self.take_back(&frame)?;
        if self.put_together(&damage)? {
            // What is whole again may be what another one was missing.
            self.put_all_together();
            return Ok(true);
        }
        let run = run::run_of(&self.catalog, &damage);
        if run.iter().all(Damage::is_complete) {
            return Err(RefillError::Beyond {
                first: run.first().map_or(damage.first, |damage| damage.first),
                last: run.last().map_or(damage.last, |damage| damage.last),
            });
        }
        Ok(false)
    }

    /// Looks at what readers met since the last time.
    pub(crate) fn mend(&mut self) {
        if self.catalog.new_damage.swap(false, Acquire) {
            self.put_all_together();
        }
    }

    /// Writes every damaged block again of which enough is left, or has come back.
    pub(crate) fn put_all_together(&mut self) {
        loop {
            let all = self.catalog.damages().all.clone();
            let mut any = false;
            for damage in all {
                match self.put_together(&damage) {
                    Ok(true) => {
                        tracing::warn!(block = %damage.first, "a damaged block was put together again");
                        any = true;
                    }
                    Ok(false) => {}
                    Err(err) => {
                        tracing::warn!(block = %damage.first, error = %err, "a damaged block stays as it is")
                    }
                }
            }
            if !any {
                return;
            }
        }
    }

    /// Writes a damaged block again, with those it lies in a row with if need be, when it can be proven to be what was
    /// there.
    fn put_together(&mut self, damage: &Damage) -> Result<bool, RefillError> {
        let Some(segment) = self.catalog.segment(damage.segment) else {
            return Ok(false);
        };
        if let Some(block) = rebuild::rebuild(&self.catalog, &segment, damage)? {
            self.write_again(&segment, std::slice::from_ref(damage), &[(damage.off, block)])?;
            return Ok(true);
        }
        let run = run::run_of(&self.catalog, damage);
        let blocks: u64 = run.iter().map(|damage| damage.last.0 + 1 - damage.first.0).sum();
        if blocks < 2 {
            return Ok(false);
        }
        let Some(blocks) = run::rebuild_run(&self.catalog, &segment, &run) else {
            return Ok(false);
        };
        self.write_again(&segment, &run, &blocks)?;
        Ok(true)
    }

    /// Writes the blocks of `run`, each with where it starts.
    fn write_again(
        &mut self,
        segment: &Arc<Segment>,
        run: &[Damage],
        blocks: &[(u32, rebuild::Rebuilt)],
    ) -> Result<(), RefillError> {
        if let Some(reason) = self.poisoned.clone() {
            return Err(AppendError::Poisoned { reason }.into());
        }
        for damage in run {
            keep(&self.catalog, damage).map_err(RefillError::Keep)?;
        }
        let mut writes = blocks.iter();
        let written = writes
            .try_for_each(|(off, block)| pwrite(&*segment.file, &block.bytes, (*off).into()))
            .and_then(|()| segment.file.fdatasync());
        let Some(first) = run.first().map(|damage| damage.first) else {
            return Ok(());
        };
        if let Err(err) = written {
            let text = format!("writing block {first} again: {err}");
            return Err(self.poison(&text).into());
        }
        let at = first.0.checked_sub(segment.header.first_block.0);
        if let Some(at) = at.and_then(|at| usize::try_from(at).ok()) {
            let mut starts = crate::catalog::write(&segment.blocks);
            for (start, (off, _)) in starts.iter_mut().skip(at).zip(blocks) {
                *start = *off; // Of several that could not be told apart, only the first was known.
            }
        }
        for (off, block) in blocks {
            self.enter(segment, *off, block);
        }
        let mut damages = self.catalog.damages();
        damages
            .all
            .retain(|known| known.segment != segment.no() || run.iter().all(|of| of.off != known.off));
        if damages.all.is_empty() {
            damages.suspects.clear();
        }
        Ok(())
    }

    /// Checks a frame against what is around it, and keeps it with the damage it was in.
    fn take_back(&self, frame: &Frame) -> Result<Damage, RefillError> {
        let key = frame.key();
        let (first, last) = (frame.first_seq(), frame.last_seq());
        let not_quarantined = || RefillError::NotQuarantined {
            stream: key.clone(),
            first,
            last,
        };
        let fork = || RefillError::Fork {
            stream: key.clone(),
            first,
            last,
        };
        let lost = {
            let damages = self.catalog.damages();
            damages.holding(key, first).cloned().ok_or_else(not_quarantined)?
        };
        if last > lost.last || held_again(&self.catalog, &lost) {
            return Err(not_quarantined());
        }
        if first == lost.first
            && let Some(before) = self.mark_before(key, first)?
            && frame.follows(before.chain).is_err()
        {
            return Err(fork());
        }
        if last == lost.last && !self.is_continued(frame)? {
            return Err(fork());
        }
        let mut damages = self.catalog.damages();
        let found = damages
            .all
            .iter_mut()
            .find(|damage| damage.segment == lost.segment && damage.off == lost.off);
        let Some(damage) = found else {
            return Err(not_quarantined());
        };
        if !damage.returned.iter().any(|held| held.bytes() == frame.bytes()) {
            damage
                .returned
                .retain(|held| held.key() != key || held.first_seq() != first);
            damage.returned.push(frame.clone());
        }
        Ok(damage.clone())
    }

    /// The mark before record `first`, when it can be read.
    fn mark_before(&self, key: &StreamKey, first: Seq) -> Result<Option<Mark>, RefillError> {
        let seq = Seq(first.0 - 1);
        match crate::read::mark_at(&self.catalog, key, seq) {
            Ok(mark) => Ok(mark),
            Err(ReadError::Damaged { .. }) => Ok(None), // In a damaged block itself.
            Err(err) => Err(err.into()),
        }
    }

    /// Whether what comes after the frame continues it, as far as that can be read.
    fn is_continued(&self, frame: &Frame) -> Result<bool, RefillError> {
        let Some(stream) = self.catalog.stream(frame.key()) else {
            return Ok(true);
        };
        let next = {
            let state = stream.state();
            if state.durable.position.seq == frame.last_seq() {
                // Known from where a later segment says the stream stood; or the frame itself is in the index.
                let known = state.durable.chain != Chain::default();
                return Ok(!known || state.durable == frame.mark());
            }
            state.starting_at(frame.last_seq().next())
        };
        let Some(next) = next else { return Ok(true) };
        let Some(segment) = self.catalog.segment(next.segment) else {
            return Ok(true);
        };
        match crate::read::read_frame(&segment, frame.key(), next) {
            Ok(next) => Ok(next.follows(frame.chain()).is_ok()),
            Err(ReadError::Damaged { .. }) => Ok(true),
            Err(err) => Err(err.into()),
        }
    }

    /// The block is whole again: its frames are found at their place.
    fn enter(&mut self, segment: &Arc<Segment>, start: u32, block: &rebuild::Rebuilt) {
        for (frame, at) in &block.frames {
            let Some(stream) = self.catalog.stream(frame.key()) else {
                continue;
            };
            let mut state = stream.state();
            let off = start + u32::try_from(BLOCK_HEADER_BYTES + at).unwrap_or(u32::MAX);
            let position = frame.mark().position;
            let ended_here = state.durable.position
                == Position {
                    epoch: position.epoch,
                    seq: Seq(frame.first_seq().0 - 1),
                };
            state.put_back(segment.no(), off, frame);
            if ended_here {
                // Its end was lost, and nothing was appended since.
                state.durable = frame.mark();
                state.accepted = frame.mark();
                state.staged = position;
                drop(state);
                self.own.remove(&stream.slot);
                self.catalog.damages().suspects.remove(&stream.slot);
            }
        }
    }
}
