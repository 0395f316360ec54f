//! Scanning one segment: where its blocks end, and whether what comes after is torn or damaged.

use std::collections::VecDeque;

use ledge_proto::frame::Frame;
use ledge_proto::ids::{Chain, Seq, StreamKey};
use ledge_proto::v1::snapshot::Purpose;
use ledge_proto::{limits, mutants, v1};
use prost::Message;

use super::{Mode, OnHole, Tail, Torn};
use crate::catalog::{Damages, Segment, Streams, frame_ref, start_of};
use crate::error::OpenError;
use crate::format::block::{
    BLOCK_HEADER_BYTES, BLOCK_HEADER_LEN, BlockHeader, BlockKind, DirEntry, seeded_crc,
};
use crate::format::seal::Seal;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::streams::StreamTail;
use crate::ids::BlockNo;
use crate::snapshot::{Assembly, SnapshotHead, Whole, decode_head};
use crate::storage::pread_exact;

/// Bytes read at once where a block header is expected: enough for the directory of most blocks.
const HEADER_READ: usize = BLOCK_HEADER_BYTES + 7 * 28;

/// Scans one segment into the catalog's tables.
pub(crate) struct SegmentScan<'a> {
    pub(crate) segment: &'a Segment,
    /// All of them.
    pub(crate) segments: &'a VecDeque<Segment>,
    pub(crate) streams: &'a mut Streams,
    pub(crate) tail: &'a mut Tail,
    /// The snapshot whose parts are coming.
    pub(crate) assembly: &'a mut Assembly,
    /// Blocks that cannot be read.
    pub(crate) damages: &'a mut Damages,
    /// First block of the next segment.
    pub(crate) until: Option<BlockNo>,
    pub(crate) on_hole: OnHole,
    /// A block known to be durable from elsewhere.
    pub(crate) witness: BlockNo,
    pub(crate) mode: Mode,
    /// The log was closed in order at `witness`.
    pub(crate) clean: bool,
}

/// A block whose header is valid.
pub(crate) struct Found {
    pub(crate) header: BlockHeader,
    pub(crate) off: u32,
    pub(crate) dir: Vec<DirEntry>,
}

impl SegmentScan<'_> {
    /// A segment that has a successor, whose first block is `end`.
    pub(super) fn finished(&mut self, end: BlockNo, seal_at: u32, first: bool) -> Result<(), OpenError> {
        let start = self.segment.header.first_block;
        if seal_at != 0
            && let Some(seal) = self.seal(seal_at, BlockNo(end.0 - 1))?
            && seal.blocks.len() as u64 + 1 == end.0 - start.0
            && (self.on_hole == OnHole::Refuse || self.can_use(&seal, first)?)
        {
            if first {
                // The streams that were there before this segment.
                let mut off = SEGMENT_HEADER_LEN;
                while let Some(found) = self
                    .block_at(off)?
                    .filter(|b| b.header.kind == BlockKind::Streams)
                {
                    self.streams_block(&found)?;
                    off += span(&found, self.segment);
                }
            }
            *crate::catalog::write(&self.segment.blocks) =
                seal.blocks.iter().copied().chain([seal_at]).collect();
            let mut snapshots = seal.snapshots.iter().copied().peekable();
            for entry in &seal.frames {
                while let Some(at) = snapshots.next_if(|at| *at < entry.off) {
                    self.snapshot_at(at)?;
                }
                self.frame(entry, 0)?;
            }
            return snapshots.try_for_each(|at| self.snapshot_at(at));
        }
        self.blocks()?;
        if self.segment.last_block().next() != end {
            return Err(self.damaged(
                self.tail.off,
                format!(
                    "block {} cannot be read, though later segments exist",
                    self.segment.last_block().next()
                ),
            ));
        }
        Ok(())
    }

    /// The last segment.
    pub(super) fn last(&mut self) -> Result<(), OpenError> {
        self.blocks()?;
        let end = self.segment.last_block();
        if self.clean && end == self.witness || self.tail.lost_end {
            return Ok(());
        }
        if end < self.witness {
            // Whatever is at the end was durable once.
            let what = self.block_at(self.tail.off).ok().flatten();
            let reason = format!("block {} was durable and cannot be read", end.next());
            return match what {
                None if self.is_blank(self.tail.off)? => Ok(()), // Reported by the caller as lost data.
                _ => Err(self.damaged(self.tail.off, reason)),
            };
        }
        Ok(())
    }

    pub(super) fn is_blank(&self, off: u32) -> Result<bool, OpenError> {
        let mut head = [0; BLOCK_HEADER_BYTES];
        let read = self
            .segment
            .file
            .pread(&mut head, u64::from(off))
            .map_err(self.io())?;
        Ok(head[..read].iter().all(|byte| *byte == 0))
    }

    /// Takes in blocks from `tail.off` on, up to the first that is not valid, and decides what that one is.
    fn blocks(&mut self) -> Result<(), OpenError> {
        self.tail.off = SEGMENT_HEADER_LEN;
        self.tail.sealed = false;
        self.tail.frames.clear();
        self.tail.snapshots.clear();
        self.tail.lost_end = false;
        self.tail.last_block = None;
        self.tail.torn = None;
        self.resume()
    }

    /// As [`SegmentScan::blocks`], from where an earlier scan of the same segment ended.
    fn resume(&mut self) -> Result<(), OpenError> {
        // Blocks that no later block has vouched for yet.
        let mut open: VecDeque<Found> = VecDeque::new();
        let mut off = self.tail.off;
        loop {
            let expected = open
                .back()
                .map_or(self.segment.last_block(), |b| b.header.block_no)
                .next();
            let found = match self.block_at(off)? {
                Some(found) if found.header.block_no == expected => found,
                other => {
                    if let Some(at) = self.skip_hole(off, expected, &mut open)? {
                        off = at;
                        continue;
                    }
                    match other {
                        Some(found) if self.on_hole == OnHole::Refuse => {
                            let no = found.header.block_no;
                            let reason = format!("block {no} where block {expected} belongs");
                            return Err(self.damaged(off, reason));
                        }
                        _ => break,
                    }
                }
            };
            off += span(&found, self.segment);
            let durable = found.header.durable_block.max(self.witness);
            while open.front().is_some_and(|b| b.header.block_no <= durable) {
                let vouched = open.pop_front();
                vouched.map_or(Ok(()), |b| self.take(b))?;
            }
            open.push_back(found);
        }
        while let Some(found) = open.pop_front() {
            if let Err(reason) = self.check_body(&found)? {
                let block = found.header.block_no;
                if self.on_hole == OnHole::Skip && (block <= self.witness || self.until.is_some()) {
                    self.hole_of(&found)?;
                    self.tail.lost_end = block == self.witness;
                    continue;
                }
                if self.mode == Mode::Stopped && block <= self.witness {
                    return Err(self.damaged(found.off, format!("block {block} was durable, but {reason}")));
                }
                return self.end_at(found.off, block, Some(off));
            }
            self.take(found)?;
        }
        let next = self.segment.last_block().next();
        self.end_at(off, next, None)
    }

    /// Nothing valid at `off`, where block `next` belongs. Torn, or damage? `end`: how far whole headers went.
    fn end_at(&mut self, off: u32, next: BlockNo, end: Option<u32>) -> Result<(), OpenError> {
        self.tail.off = off;
        if self.mode == Mode::Live || self.tail.sealed {
            return Ok(());
        }
        if self.clean && next.previous() == self.witness && end.is_none() {
            return Ok(());
        }
        // I4: a later block that says `next` was durable proves damage.
        let mut later_end = None;
        let mut first_bytes = [0; 24];
        let mut at = off;
        let align = u32::from(self.segment.header.align);
        let file_end = u32::try_from(self.segment.header.segment_bytes).unwrap_or(u32::MAX);
        let mut window = Window::default();
        while at.saturating_add(BLOCK_HEADER_LEN) <= file_end {
            let head = window.get(self.segment, at, file_end).map_err(self.io())?;
            if at == off {
                first_bytes.copy_from_slice(&head[..24]);
            }
            if let Ok(header) = BlockHeader::decode(head, self.segment.header.seed())
                && header.block_no >= next
            {
                if header.durable_block >= next && !mutants::on("truncate-on-crc-error") {
                    return Err(self.damaged(
                        off,
                        format!(
                            "block {next} cannot be read, but block {} says it was durable",
                            header.block_no
                        ),
                    ));
                }
                let span = u32::try_from(header.span(self.segment.header.align)).unwrap_or(u32::MAX);
                later_end = Some(at.saturating_add(span));
            }
            at += align;
        }
        let started = first_bytes[..4] == *b"LBK1" && first_bytes[16..24] == next.0.to_le_bytes();
        if end.is_some() || later_end.is_some() || started {
            let largest = u32::try_from(limits::BLOCK_MAX_BYTES).unwrap_or(u32::MAX);
            let end = later_end
                .max(end)
                .unwrap_or(0)
                .max(off.saturating_add(largest))
                .min(file_end);
            self.tail.torn = Some(Torn { block: next, end });
        }
        Ok(())
    }

    /// The block at `off`, if its header and directory are valid.
    pub(super) fn block_at(&self, off: u32) -> Result<Option<Found>, OpenError> {
        let file_end = self.segment.header.segment_bytes;
        if u64::from(off) + BLOCK_HEADER_BYTES as u64 > file_end {
            return Ok(None);
        }
        let mut buf = [0; HEADER_READ];
        let read = self
            .segment
            .file
            .pread(&mut buf, u64::from(off))
            .map_err(self.io())?;
        let Ok(header) = BlockHeader::decode(&buf[..read], self.segment.header.seed()) else {
            return Ok(None);
        };
        if u64::from(off) + header.block_len() as u64 > file_end {
            return Ok(None);
        }
        let seed = self.segment.header.seed();
        let dir_len = header.dir_len();
        let dir = if BLOCK_HEADER_BYTES + dir_len <= read {
            header.directory(&buf[BLOCK_HEADER_BYTES..], seed)
        } else {
            let mut dir = vec![0; dir_len];
            pread_exact(
                &*self.segment.file,
                &mut dir,
                u64::from(off) + BLOCK_HEADER_BYTES as u64,
            )
            .map_err(self.io())?;
            header.directory(&dir, seed)
        };
        // A directory that is not the one under its valid header: the body is not what was written. The block
        // counts as one that fails its checksum.
        Ok(dir.ok().map(|dir| Found { header, off, dir }))
    }

    pub(super) fn check_body(&self, found: &Found) -> Result<Result<(), &'static str>, OpenError> {
        let body = self.body(found)?;
        Ok(if self.matches(found, &body) {
            Ok(())
        } else {
            Err("its body's checksum does not match")
        })
    }

    fn matches(&self, found: &Found, body: &[u8]) -> bool {
        seeded_crc(self.segment.header.seed(), std::iter::once(body)) == found.header.body_crc
    }

    /// A body that says where streams stand: nothing later would show that it is not what was written.
    fn checked_body(&self, found: &Found) -> Result<Vec<u8>, OpenError> {
        let body = self.body(found)?;
        if self.matches(found, &body) {
            return Ok(body);
        }
        let (no, kind) = (found.header.block_no, found.header.kind.name());
        Err(self.damaged(
            found.off,
            format!("the checksum of block {no}, {kind}, does not match"),
        ))
    }

    fn body(&self, found: &Found) -> Result<Vec<u8>, OpenError> {
        let mut body = vec![0; found.header.body_len()];
        pread_exact(
            &*self.segment.file,
            &mut body,
            u64::from(found.off) + BLOCK_HEADER_BYTES as u64,
        )
        .map_err(self.io())?;
        Ok(body)
    }

    /// Enters a block with a valid header that was durable, or whose body was checked.
    pub(super) fn take(&mut self, found: Found) -> Result<(), OpenError> {
        let read = match found.header.kind {
            BlockKind::Streams => self.streams_block(&found),
            BlockKind::Snapshot => self.snapshot_block(&found),
            _ => self.check_follows(&found),
        };
        if let Err(err) = read {
            // Because of what is in it, or because of what is not before it?
            if self.on_hole == OnHole::Skip && self.check_body(&found)?.is_err() {
                return self.hole_of(&found);
            }
            if found.header.kind != BlockKind::Data {
                return Err(err);
            }
        }
        if found.header.kind == BlockKind::Snapshot {
            self.tail.snapshots.push(found.off);
        }
        let body_at = found.off + BLOCK_HEADER_LEN;
        for entry in &found.dir {
            self.frame(entry, body_at)?;
            self.tail.frames.push(DirEntry {
                off: body_at + entry.off,
                ..*entry
            });
        }
        crate::catalog::write(&self.segment.blocks).push(found.off);
        self.tail.lost_end = false;
        self.tail.sealed = found.header.kind == BlockKind::Seal;
        self.tail.last_block = Some((found.off, found.header.block_len()));
        self.tail.off = found.off + span(&found, self.segment);
        self.tail.scanned += 1;
        Ok(())
    }

    fn streams_block(&mut self, found: &Found) -> Result<(), OpenError> {
        let body = self.checked_body(found)?;
        let tails = StreamTail::decode_all(&body)
            .map_err(|e| OpenError::format(&self.segment.path, found.off.into(), e))?;
        for tail in tails {
            let known = self
                .streams
                .get(&tail.key)
                .is_some_and(|stream| stream.slot == tail.slot);
            if !known && !self.streams.adopt(tail.slot, &tail.key, tail.mark) {
                return Err(self.damaged(found.off, format!("two streams have the number {}", tail.slot)));
            }
            if self.on_hole == OnHole::Skip {
                self.prove_end(&tail);
            }
        }
        Ok(())
    }

    fn snapshot_at(&mut self, at: u32) -> Result<(), OpenError> {
        match self.block_at(at)? {
            Some(found) if found.header.kind == BlockKind::Snapshot => self.snapshot_block(&found),
            _ => Err(self.damaged(
                at,
                "the segment's index has a SNAPSHOT here, which cannot be read".to_owned(),
            )),
        }
    }

    /// Enters one part of a snapshot.
    fn snapshot_block(&mut self, found: &Found) -> Result<(), OpenError> {
        let bad = |reason: String| self.damaged(found.off, format!("a snapshot cannot be read: {reason}"));
        let body = self.checked_body(found)?;
        let part = match decode_head(&body) {
            Some(part) => part,
            None => v1::Snapshot::decode(&body[..]).map_err(|err| bad(err.to_string()))?,
        };
        let (head, number) = SnapshotHead::of(&part).map_err(|err| bad(err.to_string()))?;
        let slot = found.header.slot;
        let known = self.streams.get(&head.key).map(|stream| stream.slot);
        if known.unwrap_or(slot) != slot
            || known.is_none() && !self.streams.adopt(slot, &head.key, start_of(&head.key))
        {
            return Err(self.damaged(found.off, format!("{} has two numbers", head.key)));
        }
        let Some(Whole { head, block }) = self.assembly.part(found.header.block_no, head, number) else {
            return Ok(());
        };
        let stream = self.streams.get_or_create(&head.key);
        let mut state = stream.state();
        let have = state.durable.position;
        let known =
            self.on_hole == OnHole::Skip && head.purpose == Purpose::Base && head.mark.position > have;
        if known
            && self
                .damages
                .lost(&head.key, have.seq.next(), head.mark.position.seq)
        {
            state.durable = head.mark; // What it stands for was there.
        }
        let have = state.durable.position;
        let up = match head.purpose {
            Purpose::Rebase => head.mark.position >= have,
            _ => head.mark.position <= have,
        };
        if !up && !mutants::on("rebase-backwards") {
            let (key, mark) = (&head.key, head.mark.position);
            return Err(self.damaged(found.off, format!("{key} is at {have}, its snapshot at {mark}")));
        }
        match block {
            Some(block) => state.add_snapshot(&head, block),
            None => state.was_moved(&head),
        }
        Ok(())
    }

    /// Enters one frame whose body starts at `body_at`.
    fn frame(&mut self, entry: &DirEntry, body_at: u32) -> Result<(), OpenError> {
        self.assembly.interrupt();
        let (frame, mark) = frame_ref(self.segment.no(), body_at, entry);
        let stream = match self.streams.by_slot(entry.slot) {
            Some(stream) => stream.clone(),
            None => {
                let (key, _) = peek(self.segment, frame.off, frame.len)?;
                if !self.streams.adopt(entry.slot, &key, start_of(&key)) {
                    return Err(self.damaged(frame.off, format!("{key} has two numbers")));
                }
                self.streams.get_or_create(&key)
            }
        };
        let again = {
            let have = stream.state().durable.position;
            self.on_hole == OnHole::Skip && entry.first_seq <= have.seq
        };
        if again {
            // Its end could not be read when the log was opened before, and was written again.
            super::lose_end(self.segments, &stream, self.damages)?;
        }
        let mut state = stream.state();
        let have = state.durable.position;
        self.damages.suspects.remove(&entry.slot);
        if self.on_hole == OnHole::Skip && entry.first_seq > have.seq.next() && entry.epoch >= have.epoch {
            let last = Seq(entry.first_seq.0 - 1);
            if self.damages.lost(&stream.key, have.seq.next(), last) {
                state.durable.position.seq = last;
            }
        }
        let have = state.durable.position;
        if entry.first_seq != have.seq.next() || entry.epoch < have.epoch {
            return Err(self.damaged(
                frame.off,
                format!(
                    "{} goes from {have} to {}:{}",
                    stream.key, entry.epoch, entry.first_seq
                ),
            ));
        }
        state.frames.push(frame);
        state.bytes += u64::from(frame.len);
        state.durable = mark;
        Ok(())
    }

    pub(super) fn seal(&self, at: u32, no: BlockNo) -> Result<Option<Seal>, OpenError> {
        let Some(found) = self.block_at(at)? else {
            return Ok(None);
        };
        if found.header.kind != BlockKind::Seal
            || found.header.block_no != no
            || self.check_body(&found)?.is_err()
        {
            return Ok(None);
        }
        Ok(Seal::decode(&self.body(&found)?, at as usize).ok())
    }

    pub(super) fn io(&self) -> impl FnOnce(std::io::Error) -> OpenError + use<> {
        OpenError::io("read", self.segment.path.clone())
    }

    pub(super) fn damaged(&self, off: u32, reason: String) -> OpenError {
        OpenError::Damaged {
            path: self.segment.path.clone(),
            offset: off.into(),
            reason,
        }
    }
}

pub(super) fn span(found: &Found, segment: &Segment) -> u32 {
    u32::try_from(found.header.span(segment.header.align)).unwrap_or(u32::MAX)
}

/// Reads ahead while looking for headers at every aligned offset.
#[derive(Default)]
pub(super) struct Window {
    buf: Vec<u8>,
    at: u32,
}

impl Window {
    pub(super) fn get(&mut self, segment: &Segment, at: u32, file_end: u32) -> std::io::Result<&[u8]> {
        let end = self.at as usize + self.buf.len();
        if self.buf.is_empty() || at < self.at || at as usize + BLOCK_HEADER_BYTES > end {
            let len = (file_end - at).min(1 << 20) as usize;
            self.buf.resize(len, 0);
            pread_exact(&*segment.file, &mut self.buf, at.into())?;
            self.at = at;
        }
        let from = (at - self.at) as usize;
        Ok(&self.buf[from..from + BLOCK_HEADER_BYTES])
    }
}

/// Stream and chain of the frame of `len` bytes at `off`, its checksum checked.
pub(crate) fn peek(segment: &Segment, off: u32, len: u32) -> Result<(StreamKey, Chain), OpenError> {
    let mut bytes = vec![0; len as usize];
    pread_exact(&*segment.file, &mut bytes, off.into()).map_err(OpenError::io("read", &segment.path))?;
    let frame = Frame::parse(bytes.into()).map_err(|err| OpenError::Damaged {
        path: segment.path.clone(),
        offset: off.into(),
        reason: err.to_string(),
    })?;
    Ok((frame.key().clone(), frame.chain()))
}
