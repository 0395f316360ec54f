//! `ledge log cat`.

use std::str::FromStr;

use clap::Args;
use ledge_log::{Block, BlockNo, LogView, StreamInfo};
use ledge_proto::frame::Frame;
use ledge_proto::ids::Seq;

use crate::commands::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::moment::{Moment, When};
use crate::open::{Dir, bad_frame, cannot_read};
use crate::out::{Format, Out};
use crate::progress::Progress;
use crate::select::{RecordFilter, no_stream};
use crate::show::{Shown, dash};
use crate::table::{Table, number, text, whole};

const EXAMPLES: &str = "\
Examples:
  ledge log cat /var/lib/ledge/edge --stream edge-1/up.data --from 1200 --to 1300
  ledge log cat /var/lib/ledge/edge --kind TwinDesired,TwinReported --key 'plant/pump-1/*'
  ledge log cat /var/lib/ledge/edge --from -10m -o json | jq .payload.value";

/// Print records in the order they were written.
///
/// A number after --from and --to is a sequence number when --stream names one stream, otherwise a block number; a
/// time is compared with each record's own wall clock. Both ends are included. In the table, `?` behind a time
/// says that the clock was not synchronised, `!` that it had never been set.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Cat {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    filter: RecordFilter,
    /// Where to begin: a number or a time.
    #[arg(long, value_name = "FROM", allow_hyphen_values = true)]
    from: Option<Bound>,
    /// Where to end, included: a number or a time.
    #[arg(long, value_name = "TO", allow_hyphen_values = true)]
    to: Option<Bound>,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    Number(u64),
    Time(When),
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number) => Ok(Bound::Number(number)),
            Err(_) => text
                .parse()
                .map(Bound::Time)
                .map_err(|forms: String| format!("a number or a time: {forms}")),
        }
    }
}

/// What of the log is shown; every bound included.
#[derive(Debug, Clone, Copy)]
struct Window {
    blocks: (u64, u64),
    seqs: (u64, u64),
    times_us: (i64, i64),
}

pub(super) fn run(args: &Cat, context: &mut Context) -> Result<Code, Quit> {
    let view = args.dir.open()?;
    let streams: Vec<StreamInfo> = view
        .streams()
        .into_iter()
        .filter(|info| args.filter.admits_stream(&info.key))
        .collect();
    if streams.is_empty() && args.filter.stream.is_some() {
        return Err(no_stream(&view).into());
    }
    let only = match (&args.filter.stream, streams.as_slice()) {
        (Some(_), [info]) => Some(info),
        _ => None,
    };
    let window = window(args, &view, only.is_some(), context.now);
    let mut lines = Lines::new(&context.out, only.is_some());
    let mut progress = Progress::new("records", None);
    let mut print = |count: u64, found: Vec<Shown>, lines: &mut Lines| -> Result<(), Quit> {
        progress.add(count);
        for shown in found {
            if (window.times_us.0..=window.times_us.1).contains(&shown.record.wall_us) {
                progress.clear();
                lines.print(&mut context.out, &shown)?;
            }
        }
        Ok(())
    };
    if let Some(info) = only {
        let (first, last) = (
            window.seqs.0.max(info.first_seq.0),
            window.seqs.1.min(info.durable.position.seq.0),
        );
        let mut reader = view.read_stream(&info.key, Seq(first.saturating_sub(1)));
        while reader.position().0 < last {
            let Some(frame) = reader.next().map_err(|err| cannot_read(&err))? else {
                break;
            };
            let mut found = Vec::new();
            records_of(&frame, None, &args.filter, window.seqs, &mut found)?;
            print(u64::from(frame.count()), found, &mut lines)?;
        }
    } else {
        let begin = BlockNo(window.blocks.0).max(view.first_block());
        let mut reader = view.read_blocks(begin.previous());
        while reader.position().0 < window.blocks.1 {
            let Some(block) = reader.next_block().map_err(|err| cannot_read(&err))? else {
                break;
            };
            let found = records(&block, &args.filter)?;
            print(block.record_count(), found, &mut lines)?;
        }
    }
    lines.end(&mut context.out)?;
    Ok(Code::Yes)
}

fn window(args: &Cat, view: &LogView, one_stream: bool, now: Moment) -> Window {
    let mut window = Window {
        blocks: (0, view.last_block().0),
        seqs: (0, u64::MAX),
        times_us: (i64::MIN, i64::MAX),
    };
    match args.from {
        Some(Bound::Time(when)) => window.times_us.0 = when.resolve(now).as_us(),
        Some(Bound::Number(seq)) if one_stream => window.seqs.0 = seq,
        Some(Bound::Number(block)) => window.blocks.0 = block,
        None => {}
    }
    match args.to {
        Some(Bound::Time(when)) => window.times_us.1 = when.resolve(now).as_us(),
        Some(Bound::Number(seq)) if one_stream => window.seqs.1 = seq,
        Some(Bound::Number(block)) => window.blocks.1 = block.min(window.blocks.1),
        None => {}
    }
    window
}

/// The records of a block that are wanted.
pub(super) fn records(block: &Block, filter: &RecordFilter) -> Result<Vec<Shown>, Failure> {
    let mut found = Vec::new();
    for frame in block.frames() {
        let frame = frame.map_err(|err| bad_frame(&err))?;
        if filter.admits_stream(frame.key()) {
            records_of(&frame, Some(block.no.0), filter, (0, u64::MAX), &mut found)?;
        }
    }
    Ok(found)
}

fn records_of(
    frame: &Frame,
    block: Option<u64>,
    filter: &RecordFilter,
    seqs: (u64, u64),
    found: &mut Vec<Shown>,
) -> Result<(), Failure> {
    for item in frame.records().map_err(|err| bad_frame(&err))? {
        let (position, record) = item.map_err(|err| bad_frame(&err))?;
        if (seqs.0..=seqs.1).contains(&position.seq.0) && filter.admits(&record) {
            found.push(Shown {
                block,
                key: frame.key().clone(),
                position,
                record,
            });
        }
    }
    Ok(())
}

/// Records on their way to the output.
pub(super) struct Lines {
    table: Table,
    one_stream: bool,
    narrow: bool,
}

impl Lines {
    /// Of one stream only, a table needs no columns for block and stream; a narrow terminal has no room for blocks
    /// and dates.
    pub(super) fn new(out: &Out, one_stream: bool) -> Self {
        let columns = [
            number("BLOCK"),
            text("STREAM"),
            number("SEQ"),
            whole("TIME (UTC)"),
            text("KIND"),
            text("KEY"),
            text("VALUE"),
        ];
        let narrow = out.is_narrow();
        let begin = if one_stream { 2 } else { usize::from(narrow) };
        Lines {
            table: out.table(&columns[begin..]),
            one_stream,
            narrow,
        }
    }

    pub(super) fn print(&mut self, out: &mut Out, shown: &Shown) -> Result<(), Quit> {
        if out.format() != Format::Table {
            return out.item(&shown.json()?);
        }
        let mut cells = Vec::with_capacity(7);
        if !self.one_stream && !self.narrow {
            cells.push(shown.block.map_or_else(dash, |no| no.to_string()));
        }
        if !self.one_stream {
            cells.push(shown.key.id.to_string());
        }
        cells.extend(shown.cells(!self.narrow)?);
        self.table.row(out, cells)
    }

    /// Hands on what was printed so far; more may follow.
    pub(super) fn end(&mut self, out: &mut Out) -> Result<(), Quit> {
        if out.format() == Format::Table {
            self.table.flush(out)?;
        }
        out.flush()
    }
}
