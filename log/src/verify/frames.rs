//! Verifying frames: each stream dense and chained from its beginning, or from where a segment says it stood.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Mark, Position, Seq, StreamKey};
use ledge_proto::v1::snapshot::Purpose;

use super::{Finding, FindingKind, VerifiedStream, VerifyReport};
use crate::catalog::start_of;
use crate::format::block::DirEntry;
use crate::format::streams::StreamTail;
use crate::ids::BlockNo;
use crate::snapshot::{Assembly, SnapshotHead, Whole};

/// Where every stream stands.
#[derive(Default)]
pub(super) struct Tails {
    streams: HashMap<StreamKey, Tail>,
    by_slot: HashMap<u32, StreamKey>,
    assembly: Assembly,
    /// Whole snapshots.
    pub(super) snapshots: u64,
}

struct Tail {
    first_seq: Seq,
    position: Position,
    /// The last frame, when it was whole.
    mark: Option<Mark>,
    frames: u64,
    records: u64,
}

impl Tail {
    fn at(mark: Mark) -> Tail {
        let first_seq = mark.position.seq.next();
        Tail {
            first_seq,
            position: mark.position,
            mark: Some(mark),
            frames: 0,
            records: 0,
        }
    }
}

impl Tails {
    /// Where a STREAMS block says a stream stood. Only news when the segments before were recycled.
    pub(super) fn adopt(&mut self, tail: &StreamTail) {
        self.by_slot.insert(tail.slot, tail.key.clone());
        self.streams
            .entry(tail.key.clone())
            .or_insert_with(|| Tail::at(tail.mark));
    }

    /// Verifies one part of a snapshot. Returns what is wrong with the whole one when it does not fit its stream.
    pub(super) fn snapshot(
        &mut self,
        slot: u32,
        block: BlockNo,
        head: SnapshotHead,
        number: u32,
    ) -> Option<(Seq, String)> {
        let key = head.key.clone();
        let known = self.by_slot.entry(slot).or_insert_with(|| key.clone());
        if *known != key {
            return Some((
                head.mark.position.seq,
                "a snapshot under another stream's number".to_owned(),
            ));
        }
        let Whole { head, .. } = self.assembly.part(block, head, number)?;
        self.snapshots += 1;
        let tail = self
            .streams
            .entry(key.clone())
            .or_insert_with(|| Tail::at(start_of(&key)));
        let (have, to) = (tail.position, head.mark.position);
        if head.purpose == Purpose::Rebase {
            tail.position = to;
            tail.mark = Some(head.mark);
            return (to < have).then(|| {
                (
                    to.seq,
                    format!("a snapshot at {to} takes the stream back from {have}"),
                )
            });
        }
        (to > have).then(|| {
            (
                to.seq,
                format!("a base at {to} is after the end of the stream, {have}"),
            )
        })
    }

    /// Verifies one frame. Returns its chain when it could be read.
    pub(super) fn frame(
        &mut self,
        path: &Path,
        offset: u64,
        block: BlockNo,
        entry: &DirEntry,
        bytes: Bytes,
        report: &mut VerifyReport,
    ) -> Option<[u8; 16]> {
        self.assembly.interrupt();
        let frame = match Frame::parse(bytes) {
            Ok(frame) => frame,
            Err(err) => {
                self.report(
                    report,
                    FindingKind::Corruption,
                    path,
                    offset,
                    block,
                    entry,
                    err.to_string(),
                );
                return None;
            }
        };
        let key = frame.key();
        self.by_slot.entry(entry.slot).or_insert_with(|| key.clone());
        if self.by_slot.get(&entry.slot) != Some(key) {
            let detail = format!("a frame of {key} under another stream's number");
            self.report(
                report,
                FindingKind::Corruption,
                path,
                offset,
                block,
                entry,
                detail,
            );
            return Some(frame.chain().0);
        }
        if (frame.first_seq(), frame.count(), frame.epoch()) != (entry.first_seq, entry.count, entry.epoch) {
            let detail = "the frame's header differs from the block's directory".to_owned();
            self.report(
                report,
                FindingKind::Corruption,
                path,
                offset,
                block,
                entry,
                detail,
            );
        }
        let tail = self
            .streams
            .entry(key.clone())
            .or_insert_with(|| Tail::at(start_of(key)));
        let found = check(tail, &frame);
        tail.position = frame.mark().position;
        tail.mark = Some(frame.mark());
        tail.frames += 1;
        tail.records += u64::from(frame.count());
        report.frames += 1;
        report.records += u64::from(frame.count());
        if let Some((kind, seqs, detail)) = found {
            report.findings.push(Finding {
                kind,
                path: path.to_owned(),
                offset,
                blocks: Some((block, block)),
                stream: Some(key.clone()),
                seqs: Some(seqs),
                detail,
            });
        }
        Some(frame.chain().0)
    }

    /// A frame whose block is damaged: its sequence numbers are known, its content is not.
    pub(super) fn damaged(
        &mut self,
        path: &Path,
        offset: u64,
        block: BlockNo,
        entry: &DirEntry,
        report: &mut VerifyReport,
    ) {
        self.report(
            report,
            FindingKind::Corruption,
            path,
            offset,
            block,
            entry,
            "in a damaged block".to_owned(),
        );
        if let Some(tail) = self
            .by_slot
            .get(&entry.slot)
            .and_then(|key| self.streams.get_mut(key))
        {
            tail.position = Position {
                epoch: entry.epoch,
                seq: entry.last_seq(),
            };
            tail.mark = None;
        }
    }

    pub(super) fn finish(self) -> Vec<VerifiedStream> {
        let mut streams: Vec<VerifiedStream> = self
            .streams
            .into_iter()
            .filter_map(|(key, tail)| {
                let Tail {
                    first_seq,
                    mark,
                    frames,
                    records,
                    ..
                } = tail;
                Some(VerifiedStream {
                    key,
                    first_seq,
                    last: mark?,
                    frames,
                    records,
                })
            })
            .collect();
        streams.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        streams
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one finding")]
    fn report(
        &self,
        report: &mut VerifyReport,
        kind: FindingKind,
        path: &Path,
        offset: u64,
        block: BlockNo,
        entry: &DirEntry,
        detail: String,
    ) {
        report.findings.push(Finding {
            kind,
            path: path.to_owned(),
            offset,
            blocks: Some((block, block)),
            stream: self.by_slot.get(&entry.slot).cloned(),
            seqs: Some((entry.first_seq, entry.last_seq())),
            detail,
        });
    }
}

/// What is wrong with `frame` coming after `tail`.
fn check(tail: &Tail, frame: &Frame) -> Option<(FindingKind, (Seq, Seq), String)> {
    let expected = tail.position.seq.next();
    let own = (frame.first_seq(), frame.last_seq());
    if frame.first_seq() > expected {
        let missing = (expected, Seq(frame.first_seq().0 - 1));
        return Some((
            FindingKind::Gap,
            missing,
            "records are missing before this frame".to_owned(),
        ));
    }
    if frame.first_seq() < expected {
        return Some((FindingKind::Gap, own, "sequence numbers appear twice".to_owned()));
    }
    if frame.epoch() < tail.position.epoch {
        return Some((FindingKind::BrokenChain, own, "the epoch goes back".to_owned()));
    }
    match tail.mark {
        Some(mark) if frame.follows(mark.chain).is_err() => Some((
            FindingKind::BrokenChain,
            own,
            "the frame does not continue the one before".to_owned(),
        )),
        _ => None,
    }
}
