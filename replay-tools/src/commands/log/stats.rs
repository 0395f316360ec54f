//! `ledge log stats`.

mod daemon;
mod unreadable;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ledge_log::{LogView, ReadError};
use ledge_proto::fold::State;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Lane, StreamId, StreamKey};
use ledge_retention::account::account;
use ledge_retention::around;
use ledge_retention::replay::{self, ReplayError};
use serde_json::json;

use crate::commands::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::human;
use crate::open::{Dir, bad_frame, cannot_read};
use crate::progress::Progress;
use crate::show;
use crate::table::{number, text};

use self::unreadable::Unreadable;

const EXAMPLES: &str = "\
Examples:
  ledge log stats /var/lib/ledge/edge
  ledge log stats --address 127.0.0.1:9600             what the running daemon says of its log
  ledge log stats /var/lib/ledge/edge --limit 2GiB     when the oldest telemetry goes
  ledge log stats /var/lib/ledge/cloud -o json | jq '.streams | sort_by(-.stored_bytes) | .[0:10]'";

/// Measure each stream: size, compression, rate, gaps, how far it is archived and applied; syncs and the disk.
///
/// Reads the whole log. RATIO is the size of the records before compression to that of the frames as stored, headers
/// included. RATE is records per second between the earliest and the latest wall clock in the stream. GAPS and DROPPED
/// count what the stream's gap records say was dropped, also where those records themselves are gone: a node tells in its
/// `up.data`, cloudcore, of what it held of the node, in `local`. HEAD is the last record. DURABLE and ARCHIVED say how far
/// the other end is known to hold a node's own streams. LAG is the number of records that it is not known to have archived,
/// with the age of the oldest of them.
///
/// APPLIED (how far the projection is), how long a sync takes, and the limits of the disk only the daemon knows. It notes
/// them in the data directory at its start, every ten minutes, when its limit changes and when it stops; below the table is how
/// old that is. With --address the running daemon tells everything of this moment instead, and no log is read.
///
/// Records that cannot be read, because the log is damaged there, are listed under the table; DROPPED counts only those that
/// a gap record tells of. Until they came back from the other end, gap records among them are not counted.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Stats {
    /// Data directory of an edgecore or cloudcore, or the `log` directory in it.
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath, required_unless_present = "address")]
    dir: Option<PathBuf>,
    /// Ask the daemon that serves HTTP there instead of reading a log.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["dir", "limit"])]
    address: Option<String>,
    /// Say when the oldest telemetry goes at the present rate, when the log may take so much: `2GiB`, `500MB`. Without it,
    /// the daemon's own limit.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    limit: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    human::parse_bytes(text).ok_or_else(|| "write for example 2GiB, 500MB or 4096".to_owned())
}

#[derive(Debug, Default)]
struct Measure {
    frames: u64,
    records: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    times_us: Option<(i64, i64)>,
    gaps: u64,
    dropped: u64,
    first_seq: u64,
    head: u64,
    /// At the other end. `None` where this log does not know.
    durable: Option<u64>,
    archived: Option<u64>,
    /// Folded into the projection. `None` where no daemon has said how far that is.
    applied: Option<u64>,
    /// Wall clock of the first record that is not archived.
    oldest_unarchived_us: Option<i64>,
}

pub(super) fn run(args: &Stats, context: &mut Context) -> Result<Code, Quit> {
    match (&args.address, &args.dir) {
        (Some(address), _) => daemon::show(address, context),
        (None, Some(dir)) => read(&Dir::new(dir.clone()), args.limit, context),
        (None, None) => Err(Failure::usage("name DIR or --address".to_owned()).into()),
    }
}

fn read(dir: &Dir, limit: Option<u64>, context: &mut Context) -> Result<Code, Quit> {
    let view = dir.open()?;
    let noted = daemon::noted(&dir.data(), view.identity());
    let applied_block = noted.as_ref().map(|noted| noted.applied_block);
    let total = view.streams().iter().map(|info| info.records).sum();
    let mut progress = Progress::new("records", Some(total));
    let mut streams: BTreeMap<StreamKey, Measure> = BTreeMap::new();
    let mut unreadable = Unreadable::default();
    known_before(&view, &mut streams)?;
    if applied_block.is_some() {
        // What is not held any more was applied before it went.
        for measure in streams.values_mut() {
            measure.applied = Some(measure.first_seq.saturating_sub(1));
        }
    }
    let (mut blocks, mut block_bytes) = (0u64, 0u64);
    let mut reader = view.read_blocks(view.first_block().previous());
    loop {
        let block = match reader.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(ReadError::Damaged { .. }) => {
                unreadable.blocks += 1;
                reader = view.read_blocks(reader.position().next());
                continue;
            }
            Err(err) => return Err(cannot_read(&err).into()),
        };
        blocks += 1;
        block_bytes += block.len_bytes() as u64;
        for frame in block.frames() {
            let frame = frame.map_err(|err| bad_frame(&err))?;
            progress.add(u64::from(frame.count()));
            let measure = streams.entry(frame.key().clone()).or_default();
            measure.add(&frame)?;
            if applied_block.is_some_and(|applied| block.no.0 <= applied) {
                measure.applied = Some(frame.last_seq().0);
            }
        }
    }
    progress.clear();
    if unreadable.blocks > 0 {
        unreadable.find(&view).map_err(|err| cannot_read(&err))?;
    }
    let disk_bytes: u64 = view.segments().iter().map(|segment| segment.bytes).sum();
    let limit = limit.or(noted.as_ref().and_then(|noted| noted.disk.log_limit_bytes));
    let forecast = Forecast::of(&streams, block_bytes, disk_bytes, limit);
    let now_us = context.now.as_us();
    let document = json!({
        "unreadable": unreadable.json(),
        "blocks": blocks, "block_bytes": block_bytes, "disk_bytes": disk_bytes, "forecast": forecast.json(),
        "applied_block": applied_block,
        "daemon": noted.as_ref().map(|noted| noted.json(now_us)),
        "streams": streams.iter().map(|(key, measure)| measure.json(key, now_us)).collect::<Vec<_>>(),
    });
    if context.out.document(&document)? {
        return Ok(Code::Yes);
    }
    let out = &mut context.out;
    let mut table = out.table(&[
        text("STREAM"),
        number("RECORDS"),
        number("FRAMES"),
        number("STORED"),
        number("B/RECORD"),
        number("RATIO"),
        number("RATE"),
        number("GAPS"),
        number("DROPPED"),
        number("FIRST"),
        number("HEAD"),
        number("DURABLE"),
        number("ARCHIVED"),
        number("APPLIED"),
        number("LAG"),
    ]);
    for (key, measure) in &streams {
        let several = streams.keys().filter(|other| other.id == key.id).count() > 1;
        table.row(
            out,
            measure.cells(
                if several {
                    key.to_string()
                } else {
                    key.id.to_string()
                },
                now_us,
            ),
        )?;
    }
    table.flush(out)?;
    out.text(&format!(
        "\n{} of {} on average, {} of {} on disk used\n",
        human::plural(blocks, "block"),
        human::bytes(block_bytes / blocks.max(1)),
        human::bytes(block_bytes),
        human::bytes(disk_bytes)
    ))?;
    if let Some(line) = forecast.line() {
        out.text(&format!("{line}\n"))?;
    }
    match noted {
        Some(noted) => out.text(&noted.lines(now_us))?,
        None => out.text("no daemon has noted how far it is, how long syncs take and what its limit is\n")?,
    }
    for line in unreadable.lines() {
        out.text(&format!("{}\n", human::plain(&line)))?;
    }
    Ok(Code::Yes)
}

/// What the log knows of its streams besides their records: gaps folded into bases, and what was acknowledged.
fn known_before(view: &LogView, streams: &mut BTreeMap<StreamKey, Measure>) -> Result<(), Failure> {
    let bad = |err: &dyn std::fmt::Display| {
        Failure::unreadable(err.to_string()).hint("`ledge log verify` says what is missing or damaged")
    };
    // Folded, not counted as they are read: gaps of records long gone are in bases and in what a peer sent instead.
    let mut state = State::new();
    let told_in = |id: &StreamId| matches!(id.lane, Lane::UpData | Lane::Local);
    match replay::fold_of(view, &mut state, &told_in) {
        Ok(()) => {}
        Err(ReplayError::Read(ReadError::Damaged { .. })) => {
            let told_in = view.streams().into_iter().filter(|info| told_in(&info.key.id));
            let ends: Vec<_> = told_in.map(|info| (info.key, info.durable)).collect();
            state = around::fold_readable(view, &ends).map_err(|err| bad(&err))?;
        }
        Err(err) => return Err(bad(&err)),
    }
    let own = view.identity().incarnation;
    for info in view.streams() {
        let measure = streams.entry(info.key.clone()).or_default();
        (measure.first_seq, measure.head) = (info.first_seq.0, info.durable.position.seq.0);
        let account = account(&state, &info.key, own).map_err(|err| bad(&err))?;
        (measure.gaps, measure.dropped) = (account.gaps, account.dropped);
        measure.durable = account.durable.map(|seq| seq.0);
        measure.archived = account.archived.map(|seq| seq.0);
    }
    Ok(())
}

/// How fast the log grows, and what that means for a limit.
struct Forecast {
    bytes_per_second: Option<f64>,
    disk_bytes: u64,
    limit: Option<u64>,
}

#[allow(clippy::cast_precision_loss, reason = "rates for people")]
impl Forecast {
    fn of(
        streams: &BTreeMap<StreamKey, Measure>,
        block_bytes: u64,
        disk_bytes: u64,
        limit: Option<u64>,
    ) -> Self {
        let times = streams.values().filter_map(|measure| measure.times_us);
        let span = times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let seconds = span.map(|(first, last)| last.abs_diff(first) as f64 / 1e6);
        Forecast {
            bytes_per_second: seconds
                .filter(|seconds| *seconds > 0.0)
                .map(|seconds| block_bytes as f64 / seconds),
            disk_bytes,
            limit,
        }
    }

    /// Until the oldest telemetry goes, and how much of the past is kept from then on.
    fn times(&self) -> Option<(Duration, Duration)> {
        let (rate, limit) = (self.bytes_per_second?, self.limit?);
        let of = |bytes: u64| Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or(Duration::MAX);
        Some((of(limit.saturating_sub(self.disk_bytes)), of(limit)))
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "bytes_per_second": self.bytes_per_second, "limit_bytes": self.limit,
            "seconds_until_oldest_goes": self.times().map(|(until, _)| until.as_secs()),
            "seconds_kept": self.times().map(|(_, kept)| kept.as_secs()),
        })
    }

    fn line(&self) -> Option<String> {
        let (until, kept) = self.times()?;
        let limit = human::bytes(self.limit?);
        Some(if until.is_zero() {
            format!("{limit} are full: telemetry goes after {}", human::duration(kept))
        } else {
            format!(
                "at this rate {limit} are full in {}, and telemetry goes after {}",
                human::duration(until),
                human::duration(kept)
            )
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "ratios for people")]
impl Measure {
    fn add(&mut self, frame: &Frame) -> Result<(), Failure> {
        self.frames += 1;
        self.records += u64::from(frame.count());
        self.raw_bytes += frame.raw_len() as u64;
        self.stored_bytes += frame.bytes().len() as u64;
        for item in frame.records().map_err(|err| bad_frame(&err))? {
            let (position, record) = item.map_err(|err| bad_frame(&err))?;
            let (earliest, latest) = self.times_us.unwrap_or((record.wall_us, record.wall_us));
            self.times_us = Some((earliest.min(record.wall_us), latest.max(record.wall_us)));
            if self.archived.is_some_and(|archived| position.seq.0 > archived) {
                self.oldest_unarchived_us.get_or_insert(record.wall_us);
            }
        }
        Ok(())
    }

    fn ratio(&self) -> f64 {
        self.raw_bytes as f64 / (self.stored_bytes as f64).max(1.0)
    }

    fn bytes_per_record(&self) -> f64 {
        self.stored_bytes as f64 / (self.records as f64).max(1.0)
    }

    /// Records per second; none when everything happened at once.
    fn rate(&self) -> Option<f64> {
        let (earliest, latest) = self.times_us?;
        let span = Duration::from_micros(latest.abs_diff(earliest));
        (!span.is_zero()).then(|| human::rate(self.records, span))
    }

    /// Records the other end is not known to have archived, and the age of the oldest.
    fn lag(&self, now_us: i64) -> Option<(u64, Duration)> {
        let records = self.head.saturating_sub(self.archived?);
        let age = self
            .oldest_unarchived_us
            .map_or(0, |oldest| now_us.saturating_sub(oldest).max(0));
        Some((records, Duration::from_micros(age.unsigned_abs())))
    }

    fn json(&self, key: &StreamKey, now_us: i64) -> serde_json::Value {
        json!({
            "first_seq": self.first_seq, "head": self.head,
            "durable": self.durable, "archived": self.archived, "applied": self.applied,
            "lag_records": self.lag(now_us).map(|(records, _)| records),
            "lag_seconds": self.lag(now_us).map(|(_, age)| age.as_secs_f64()),
            "stream": key.id.to_string(), "incarnation": key.incarnation.to_string(),
            "records": self.records, "frames": self.frames,
            "raw_bytes": self.raw_bytes, "stored_bytes": self.stored_bytes, "ratio": self.ratio(),
            "bytes_per_record": self.bytes_per_record(), "records_per_second": self.rate(),
            "gaps": self.gaps, "dropped": self.dropped,
        })
    }

    fn cells(&self, name: String, now_us: i64) -> Vec<String> {
        let lag = self
            .lag(now_us)
            .map_or_else(show::dash, |(records, age)| match records {
                0 => "0".to_owned(),
                _ => format!("{} ({})", human::count(records), human::duration(age)),
            });
        vec![
            name,
            human::count(self.records),
            human::count(self.frames),
            human::bytes(self.stored_bytes),
            format!("{:.1}", self.bytes_per_record()),
            format!("{:.2}", self.ratio()),
            self.rate().map_or_else(show::dash, |rate| format!("{rate:.1}/s")),
            self.gaps.to_string(),
            human::count(self.dropped),
            human::count(self.first_seq),
            human::count(self.head),
            self.durable.map_or_else(show::dash, human::count),
            self.archived.map_or_else(show::dash, human::count),
            self.applied.map_or_else(show::dash, human::count),
            lag,
        ]
    }
}
