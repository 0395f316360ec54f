//! Help that belongs to no single command: `ledge help TOPIC`.

use std::fmt::Write as _;

use super::Context;
use crate::error::Quit;
use crate::exit::Code;

/// `ledge help exit-codes`.
pub(crate) fn exit_codes() -> String {
    let mut text = String::from("Exit codes\n\n");
    for code in Code::ALL {
        writeln!(text, "  {}  {}", code.number(), code.meaning()).ok();
    }
    text.push_str(
        "\nWhen `log verify` finds several kinds of damage, the most serious decides: bad hash,\n\
         then gap, then torn tail. A reader that goes away (`| head`) is no error: the code is 0.",
    );
    text
}

/// `ledge help positions`.
pub(crate) const POSITIONS: &str = "\
Places in a log

  2026-11-23T15:04:05Z       a time: RFC 3339, or a date and time without zone, which is UTC
  -5m  -2h30m  -7d  now      a time before now, by this machine's clock
  120                        a block of the physical log
  edge-1/up.data:1200        a record: stream and sequence number
  edge-1/up.data@3f2a:1200   the same, of one incarnation (first digits) when there are several
  start  end                 before everything that is held; after everything

`diff --from --to` and `replay --until` take any of these. `at` takes --time for a time, --seq with
--stream for a record, and --seq alone for a block.

A block is what the log committed with one sync; blocks are numbered from 1 in the order they were
written here. The state at a block is that of every record in it and in all blocks before.

The state at a record is that of everything written here before it, and the record itself.
Edge and cloud write the streams interleaved differently, so to compare them name a stream's record,
not a block.

The state at a time is that of every record whose own wall clock is not later, in the order they
were written. Records say what their writer's clock said, corrected where its clock was set later in
the same start; when that was wrong, so is the answer:
`log cat` marks such times with ? or !, and a record or block number is exact whatever the clocks did.";

/// The tables of `ledge sql`, for `ledge sql --schema` and `ledge help sql`.
#[cfg(feature = "sql")]
pub(crate) fn sql_tables() -> String {
    let mut text = String::new();
    for table in ledge_history::HistoryContext::tables() {
        writeln!(text, "{}: {}", table.name, table.about).ok();
        for (name, of, about) in table.columns {
            writeln!(text, "  {name:<17} {of:<20} {about}").ok();
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Prints a topic when it is run like a command.
pub(crate) fn print(context: &mut Context, topic: &str) -> Result<Code, Quit> {
    context.out.text(topic)?;
    context.out.text("\n")?;
    Ok(Code::Yes)
}
