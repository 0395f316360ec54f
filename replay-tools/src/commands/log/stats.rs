//! `ledge log stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Lane, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use serde_json::json;

use crate::commands::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::human;
use crate::open::{Dir, bad_frame, cannot_read};
use crate::progress::Progress;
use crate::show;
use crate::table::{number, text};

const EXAMPLES: &str = "\
Examples:
  ledge log stats /var/lib/ledge/edge
  ledge log stats /var/lib/ledge/cloud -o json | jq '.streams | sort_by(-.stored_bytes) | .[0:10]'";

/// Measure each stream: size, compression, rate, gaps.
///
/// Reads the whole log. RATIO is the size of the records before compression to that of the frames as stored, headers
/// included. RATE is records per second between the earliest and the latest wall clock in the stream. DROPPED counts
/// the records that the stream's gap records say were dropped.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Stats {
    #[command(flatten)]
    dir: Dir,
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
}

pub(super) fn run(args: &Stats, context: &mut Context) -> Result<Code, Quit> {
    let view = args.dir.open()?;
    let total = view.streams().iter().map(|info| info.records).sum();
    let mut progress = Progress::new("records", Some(total));
    let mut streams: BTreeMap<StreamKey, Measure> = BTreeMap::new();
    let (mut blocks, mut block_bytes) = (0u64, 0u64);
    let mut reader = view.read_blocks(view.first_block().previous());
    while let Some(block) = reader.next_block().map_err(|err| cannot_read(&err))? {
        blocks += 1;
        block_bytes += block.len_bytes() as u64;
        for frame in block.frames() {
            let frame = frame.map_err(|err| bad_frame(&err))?;
            progress.add(u64::from(frame.count()));
            streams.entry(frame.key().clone()).or_default().add(&frame)?;
        }
    }
    progress.clear();
    let disk_bytes: u64 = view.segments().iter().map(|segment| segment.bytes).sum();
    let document = json!({
        "blocks": blocks, "block_bytes": block_bytes, "disk_bytes": disk_bytes,
        "streams": streams.iter().map(|(key, measure)| measure.json(key)).collect::<Vec<_>>(),
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
    ]);
    for (key, measure) in &streams {
        let several = streams.keys().filter(|other| other.id == key.id).count() > 1;
        table.row(
            out,
            measure.cells(if several {
                key.to_string()
            } else {
                key.id.to_string()
            }),
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
    Ok(Code::Yes)
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
            if record.kind == RecordKind::Gap.as_wire() && frame.key().id.lane == Lane::UpData {
                let payload = Payload::decode(&record).map_err(|err| {
                    Failure::unreadable(format!("gap record {} of {}: {err}", position.seq, frame.key()))
                })?;
                if let Payload::Gap(gap) = payload {
                    self.gaps += 1;
                    self.dropped += (gap.last_seq + 1).saturating_sub(gap.first_seq);
                }
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

    fn json(&self, key: &StreamKey) -> serde_json::Value {
        json!({
            "stream": key.id.to_string(), "incarnation": key.incarnation.to_string(),
            "records": self.records, "frames": self.frames,
            "raw_bytes": self.raw_bytes, "stored_bytes": self.stored_bytes, "ratio": self.ratio(),
            "bytes_per_record": self.bytes_per_record(), "records_per_second": self.rate(),
            "gaps": self.gaps, "dropped": self.dropped,
        })
    }

    fn cells(&self, name: String) -> Vec<String> {
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
        ]
    }
}
