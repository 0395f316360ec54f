//! `ledge log tail`.

use std::collections::VecDeque;
use std::time::Duration;

use clap::Args;
use ledge_log::{BlockNo, BlockReader, LogView, ReadError};

use super::cat::{Lines, records};
use crate::commands::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::open::{Dir, cannot_open, cannot_read};
use crate::select::{RecordFilter, no_stream};
use crate::show::Shown;

const EXAMPLES: &str = "\
Examples:
  ledge log tail /var/lib/ledge/edge
  ledge log tail -f /var/lib/ledge/edge --stream edge-1/up.state
  ledge log tail -f -n 0 /var/lib/ledge/edge --kind DeviceEvent -o json";

/// How often a followed log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Print the last records, and with -f those that follow.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Tail {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    filter: RecordFilter,
    /// Print this many records.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
    lines: usize,
    /// Go on printing records as they are written, until interrupted.
    #[arg(short, long)]
    follow: bool,
}

pub(super) fn run(args: &Tail, context: &mut Context) -> Result<Code, Quit> {
    let mut view = args.dir.open()?;
    if args.filter.stream.is_some()
        && !args.follow
        && !view
            .streams()
            .iter()
            .any(|info| args.filter.admits_stream(&info.key))
    {
        return Err(no_stream(&view).into());
    }
    let mut lines = Lines::new(&context.out, false);
    for shown in last_records(&view, args)? {
        lines.print(&mut context.out, &shown)?;
    }
    lines.end(&mut context.out)?;
    if !args.follow {
        return Ok(Code::Yes);
    }
    let mut reader = view.read_blocks(view.last_block());
    loop {
        print_new(&mut reader, &view, args, &mut lines, context)?;
        #[allow(
            clippy::disallowed_methods,
            reason = "there is nothing to wait for: the writer is another process"
        )]
        std::thread::sleep(LOOK_EVERY);
        // The reader sees what the refreshed view sees.
        view.refresh().map_err(|err| cannot_open(&err, &args.dir.log()))?;
    }
}

/// The last records that are wanted, oldest first. Looks at the end of the log first and at more of it until it has
/// enough.
fn last_records(view: &LogView, args: &Tail) -> Result<VecDeque<Shown>, Failure> {
    let (first, end) = (view.first_block().0, view.last_block().0);
    let mut look_back = 16;
    loop {
        let begin = (end + 1).saturating_sub(look_back).max(first);
        let mut reader = view.read_blocks(BlockNo(begin).previous());
        let mut last = VecDeque::with_capacity(args.lines.min(1024));
        while reader.position().0 < end {
            let Some(block) = reader.next_block().map_err(|err| cannot_read(&err))? else {
                break;
            };
            for shown in records(&block, &args.filter)? {
                last.push_back(shown);
                if last.len() > args.lines {
                    last.pop_front();
                }
            }
        }
        if last.len() >= args.lines || begin <= first {
            return Ok(last);
        }
        look_back *= 8;
    }
}

fn print_new(
    reader: &mut BlockReader,
    view: &LogView,
    args: &Tail,
    lines: &mut Lines,
    context: &mut Context,
) -> Result<(), Quit> {
    loop {
        match reader.next_block() {
            Ok(Some(block)) => {
                for shown in records(&block, &args.filter)? {
                    lines.print(&mut context.out, &shown)?;
                }
            }
            Ok(None) => return lines.end(&mut context.out),
            Err(ReadError::Recycled { first_held, .. }) => {
                let missed = first_held.saturating_sub(reader.position().next().0);
                eprintln!("note: {missed} blocks were recycled before they could be shown");
                *reader = view.read_blocks(view.first_block().previous());
            }
            Err(err) => return Err(cannot_read(&err).into()),
        }
    }
}
