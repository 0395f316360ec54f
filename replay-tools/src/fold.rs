//! Folding a log up to a place in it: from its beginning, or from the bases that stand for what is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use ledge_history::clocks::Clocks;
use ledge_history::source::LogSource;
use ledge_history::{FrameSource, SourceError};
use ledge_log::LogView;
use ledge_proto::fold::snapshot::{self, SnapshotError};
use ledge_proto::fold::{FoldError, State, Table};
use ledge_proto::frame::{Frame, FrameWriter, push_record};
use ledge_proto::ids::{Epoch, Mark, Position, Seq, StreamKey};
use ledge_proto::limits;
use ledge_proto::v1;
use ledge_retention::replay::{self, Rebase, ReplayError};
use prost::Message;

use crate::error::{Failure, Quit};
use crate::moment::Moment;
use crate::open::{bad_frame, cannot_read};
use crate::position::Until;
use crate::progress::Progress;

/// State, and what it was made of.
pub(crate) struct Folded {
    pub(crate) state: State,
    /// Records that count.
    pub(crate) records: u64,
    /// Last block looked at.
    pub(crate) block: u64,
    /// Last record of each stream that counts, its wall clock, and how many of the stream count.
    pub(crate) streams: BTreeMap<StreamKey, (Position, Moment, u64)>,
    /// Bytes of the frames that were folded.
    pub(crate) bytes: u64,
}

/// Folds every record of `view` up to `until`.
pub(crate) fn fold(view: &Arc<LogView>, until: &Until, progress: &mut Progress) -> Result<Folded, Quit> {
    let sources: [Arc<dyn FrameSource>; 1] = [Arc::new(LogSource::new(view.clone()))];
    let mut folder = Folder {
        folded: Folded {
            state: State::new(),
            records: 0,
            block: 0,
            streams: BTreeMap::new(),
            bytes: 0,
        },
        until,
        held: BTreeMap::new(),
        left: BTreeSet::new(),
        clocks: BTreeMap::new(),
        sources: &sources,
        reached: false,
    };
    folder.begin(view)?;
    let mut rebase = Rebase::default();
    let mut reader = view.read_blocks(view.first_block().previous());
    let last = match until {
        Until::Block(no) => *no,
        Until::End | Until::Record(..) | Until::Time(_) => view.last_block(),
    };
    folder.folded.block = reader.position().0;
    while reader.position() < last && !folder.reached {
        let Some(block) = reader.next_block().map_err(|err| cannot_read(&err))? else {
            break;
        };
        if let Some(parts) = rebase.part(&block).map_err(|err| bad_replay(&err))? {
            folder.rebase(&parts)?;
        }
        for frame in block.frames() {
            let frame = frame.map_err(|err| bad_frame(&err))?;
            progress.add(u64::from(frame.count()));
            if !folder.left.contains(frame.key()) {
                folder.take(view, frame)?;
            }
            if folder.reached {
                break;
            }
        }
        folder.folded.block = block.no.0;
    }
    progress.clear();
    Ok(folder.folded)
}

struct Folder<'a> {
    folded: Folded,
    until: &'a Until,
    /// Records that do not count, in case one that counts follows: sequence numbers must stay dense.
    held: BTreeMap<StreamKey, Vec<Range>>,
    /// Streams that went on from a snapshot of a later time: none of their later records counts.
    left: BTreeSet<StreamKey>,
    /// When records happened that were written before the clock was set.
    clocks: BTreeMap<StreamKey, Clocks<'a>>,
    sources: &'a [Arc<dyn FrameSource>],
    /// Nothing later counts.
    reached: bool,
}

fn bad_replay(err: &ReplayError<Infallible>) -> Failure {
    Failure::unreadable(err.to_string()).hint("`ledge log verify` says what is missing or damaged")
}

impl<'a> Folder<'a> {
    /// Begins with what stands for the records that are gone.
    fn begin(&mut self, view: &LogView) -> Result<(), Failure> {
        replay::load_bases(view, &mut self.folded.state).map_err(|err| bad_replay(&err))?;
        let begun = view.segments().first().map_or(0, |first| first.created_ms);
        let begun = Moment::from_us(i64::try_from(begun).unwrap_or(i64::MAX).saturating_mul(1000));
        for base in replay::standing_bases(view) {
            self.folded
                .streams
                .insert(base.key, (base.mark.position, begun, 0));
        }
        Ok(())
    }

    /// A stream goes on from a snapshot, unless that knows of something that does not count.
    fn rebase(&mut self, parts: &[v1::Snapshot]) -> Result<(), Failure> {
        let (key, entries) = snapshot::entries_of(parts).map_err(|err| bad_snapshot(&err))?;
        let mark = match parts.first().map(snapshot::mark_of) {
            Some(Ok(mark)) => mark,
            Some(Err(err)) => return Err(bad_snapshot(&err)),
            None => return Ok(()),
        };
        let newest = entries
            .iter()
            .filter(|(table, _)| *table != Table::stream_of(key.id.lane))
            .filter_map(|(_, entry)| v1::Entry::decode(entry.value.as_slice()).ok())
            .map(|entry| entry.wall_us)
            .max();
        if let Until::Time(time) = self.until
            && newest.is_some_and(|newest| newest > time.as_us())
        {
            self.left.insert(key);
            return Ok(());
        }
        self.held.remove(&key);
        replay::load_rebase(&mut self.folded.state, parts).map_err(|err| bad_fold(&err))?;
        let counted = self
            .folded
            .streams
            .get(&key)
            .map_or(0, |(_, _, records)| *records);
        let time = Moment::from_us(newest.unwrap_or(0));
        self.folded.streams.insert(key, (mark.position, time, counted));
        Ok(())
    }

    fn take(&mut self, view: &LogView, frame: Frame) -> Result<(), Failure> {
        let counts: &dyn Fn(Position, i64) -> bool = match self.until {
            Until::Record(key, last) if key == frame.key() && *last <= frame.last_seq() => {
                self.reached = true;
                &|position, _| position.seq <= *last
            }
            Until::Time(time) => &|_, wall_us| wall_us <= time.as_us(),
            Until::End | Until::Block(_) | Until::Record(..) => &|_, _| true,
        };
        let (sources, key) = (self.sources, frame.key());
        let clocks = self
            .clocks
            .entry(key.clone())
            .or_insert_with(|| Clocks::of(sources, key));
        // Of each record, whether it counts.
        let mut counted = Vec::with_capacity(frame.count() as usize);
        let mut last = None;
        for item in frame.records().map_err(|err| bad_frame(&err))? {
            let (position, record) = item.map_err(|err| bad_frame(&err))?;
            let corrected = clocks.time_of(&record).map_err(|err| bad_source(&err))?;
            let wall_us = corrected.unwrap_or(record.wall_us);
            counted.push(counts(position, wall_us));
            if counted.last() == Some(&true) {
                last = Some((position, Moment::from_us(wall_us)));
            }
        }
        let kept = counted.iter().filter(|counts| **counts).count();
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        let Some(last) = last else {
            hold(self.held.entry(frame.key().clone()).or_default(), &frame);
            return Ok(());
        };
        for range in self.held.remove(frame.key()).unwrap_or_default() {
            self.apply_blank(frame.key(), range)?;
        }
        let folds = if kept == frame.count() {
            self.folded.state.apply_frame(&frame)
        } else {
            self.folded.state.apply_frame(&masked(&frame, &counted)?)
        };
        match folds {
            // A later epoch went on before it: it is in its block, but no longer in its stream.
            Err(FoldError::Gap { .. })
                if replay::has_left(view, &frame).map_err(|err| cannot_read(&err))? =>
            {
                return Ok(());
            }
            folded => folded.map_err(|err| bad_fold(&err))?,
        }
        if frame.key().id.lane.is_replicated() {
            self.folded.records += u64::from(kept);
        }
        self.folded.bytes += frame.bytes().len() as u64;
        let counted = self
            .folded
            .streams
            .get(frame.key())
            .map_or(0, |(_, _, records)| *records);
        let (position, time) = last;
        self.folded
            .streams
            .insert(frame.key().clone(), (position, time, counted + u64::from(kept)));
        Ok(())
    }

    /// Folds records of no kind in place of those that do not count.
    fn apply_blank(&mut self, key: &StreamKey, range: Range) -> Result<(), Failure> {
        let mut left = range.count;
        let before = Position {
            epoch: range.epoch,
            seq: Seq(range.first.0 - 1),
        };
        let mark = Mark {
            position: before,
            chain: key.genesis_chain(),
        };
        let mut writer = FrameWriter::resume(key.clone(), mark);
        while left > 0 {
            let count = u32::try_from(left)
                .unwrap_or(u32::MAX)
                .min(limits::FRAME_MAX_RECORDS);
            let mut payload = Vec::new();
            for _ in 0..count {
                push_record(&mut payload, &BLANK);
            }
            let frame = writer.frame(count, &payload).map_err(|err| bad_frame(&err))?;
            self.apply(&frame)?;
            left -= u64::from(count);
        }
        Ok(())
    }

    fn apply(&mut self, frame: &Frame) -> Result<(), Failure> {
        self.folded.state.apply_frame(frame).map_err(|err| bad_fold(&err))
    }
}

fn bad_fold(err: &FoldError<Infallible>) -> Failure {
    Failure::unreadable(err.to_string()).hint("`ledge log verify` says what is missing or damaged")
}

fn bad_source(err: &SourceError) -> Failure {
    Failure::unreadable(err.to_string()).hint("`ledge log verify` says what is missing or damaged")
}

fn bad_snapshot(err: &SnapshotError) -> Failure {
    Failure::unreadable(err.to_string()).hint("`ledge log verify` says what is damaged")
}

/// Records of a stream that follow each other.
#[derive(Debug, Clone, Copy)]
struct Range {
    epoch: Epoch,
    first: Seq,
    count: u64,
}

fn hold(ranges: &mut Vec<Range>, frame: &Frame) {
    let (epoch, first, count) = (frame.epoch(), frame.first_seq(), u64::from(frame.count()));
    match ranges.last_mut() {
        Some(last) if last.epoch == epoch && last.first.0 + last.count == first.0 => last.count += count,
        _ => ranges.push(Range { epoch, first, count }),
    }
}

/// `frame` with the records that do not count replaced by records of no kind, which folds leave alone.
fn masked(frame: &Frame, counted: &[bool]) -> Result<Frame, Failure> {
    let mut payload = Vec::new();
    let records = frame.records().map_err(|err| bad_frame(&err))?;
    for (item, counts) in records.zip(counted) {
        let (_, record) = item.map_err(|err| bad_frame(&err))?;
        push_record(&mut payload, if *counts { &record } else { &BLANK });
    }
    let before = Position {
        epoch: frame.epoch(),
        seq: Seq(frame.first_seq().0 - 1),
    };
    let mark = Mark {
        position: before,
        chain: frame.chain(),
    };
    FrameWriter::resume(frame.key().clone(), mark)
        .frame(frame.count(), &payload)
        .map_err(|err| bad_frame(&err))
}

static BLANK: std::sync::LazyLock<v1::Record> = std::sync::LazyLock::new(v1::Record::default);
