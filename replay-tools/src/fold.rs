//! Folding a log from its beginning up to a place in it.

use std::collections::BTreeMap;

use ledge_log::LogView;
use ledge_proto::fold::State;
use ledge_proto::frame::{Frame, FrameWriter, push_record};
use ledge_proto::ids::{Epoch, Mark, Position, Seq, StreamKey};
use ledge_proto::limits;
use ledge_proto::v1;

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
pub(crate) fn fold(view: &LogView, until: &Until, progress: &mut Progress) -> Result<Folded, Quit> {
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
        reached: false,
    };
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
        for frame in block.frames() {
            let frame = frame.map_err(|err| bad_frame(&err))?;
            progress.add(u64::from(frame.count()));
            folder.take(frame)?;
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
    /// Nothing later counts.
    reached: bool,
}

impl Folder<'_> {
    fn take(&mut self, frame: Frame) -> Result<(), Failure> {
        let counts: &dyn Fn(Position, &v1::Record) -> bool = match self.until {
            Until::Record(key, last) if key == frame.key() && *last <= frame.last_seq() => {
                self.reached = true;
                &|position, _| position.seq <= *last
            }
            Until::Time(time) => &|_, record| record.wall_us <= time.as_us(),
            Until::End | Until::Block(_) | Until::Record(..) => &|_, _| true,
        };
        let mut kept = 0;
        let mut last = None;
        for item in frame.records().map_err(|err| bad_frame(&err))? {
            let (position, record) = item.map_err(|err| bad_frame(&err))?;
            if counts(position, &record) {
                kept += 1;
                last = Some((position, Moment::from_us(record.wall_us)));
            }
        }
        let Some(last) = last else {
            hold(self.held.entry(frame.key().clone()).or_default(), &frame);
            return Ok(());
        };
        for range in self.held.remove(frame.key()).unwrap_or_default() {
            self.apply_blank(frame.key(), range)?;
        }
        if kept == frame.count() {
            self.apply(&frame)?;
        } else {
            self.apply(&masked(&frame, counts)?)?;
        }
        self.folded.records += u64::from(kept);
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
        self.folded.state.apply_frame(frame).map_err(|err| {
            Failure::unreadable(err.to_string()).hint("`ledge log verify` says what is missing or damaged")
        })
    }
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
fn masked(frame: &Frame, counts: &dyn Fn(Position, &v1::Record) -> bool) -> Result<Frame, Failure> {
    let mut payload = Vec::new();
    for item in frame.records().map_err(|err| bad_frame(&err))? {
        let (position, record) = item.map_err(|err| bad_frame(&err))?;
        push_record(
            &mut payload,
            if counts(position, &record) {
                &record
            } else {
                &BLANK
            },
        );
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
