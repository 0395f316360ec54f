//! `ledge log info`.

use clap::Args;
use ledge_log::{LogView, StreamInfo};
use ledge_proto::frame::Frame;
use ledge_proto::ids::Seq;
use serde_json::json;

use crate::commands::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::human;
use crate::moment::Moment;
use crate::open::{Dir, bad_frame, cannot_read};
use crate::show;
use crate::table::{number, text, whole};

const EXAMPLES: &str = "\
Examples:
  ledge log info /var/lib/ledge/edge
  ledge log info /var/lib/ledge/cloud -o json | jq '.streams[] | select(.records > 1000) | .stream'";

/// Show whose log it is, its segments and its streams.
///
/// FIRST and LAST are the sequence numbers still held and the wall clocks of those two records. Bytes are those of
/// the stored frames, compressed as they are.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Info {
    #[command(flatten)]
    dir: Dir,
}

struct Line {
    info: StreamInfo,
    times: Option<(Moment, Moment)>,
}

pub(super) fn run(args: &Info, context: &mut Context) -> Result<Code, Quit> {
    let view = args.dir.open()?;
    let mut lines = Vec::new();
    for info in view.streams() {
        let times = times(&view, &info)?;
        lines.push(Line { info, times });
    }
    if !context.out.document(&document(&view, &lines))? {
        print(&view, &lines, context)?;
    }
    Ok(Code::Yes)
}

/// Wall clocks of the first and the last record held.
fn times(view: &LogView, info: &StreamInfo) -> Result<Option<(Moment, Moment)>, Failure> {
    if info.records == 0 {
        return Ok(None);
    }
    let (first, last) = (info.first_seq, info.durable.position.seq);
    let read = |after: Seq| {
        view.read_stream(&info.key, after)
            .next()
            .map_err(|err| cannot_read(&err))
    };
    let (Some(begin), Some(end)) = (read(Seq(first.0.saturating_sub(1)))?, read(Seq(last.0 - 1))?) else {
        return Ok(None);
    };
    let time = |frame: &Frame, seq: Seq| -> Result<Option<Moment>, Failure> {
        for item in frame.records().map_err(|err| bad_frame(&err))? {
            let (position, record) = item.map_err(|err| bad_frame(&err))?;
            if position.seq == seq {
                return Ok(Some(Moment::from_us(record.wall_us)));
            }
        }
        Ok(None)
    };
    Ok(time(&begin, first)?.zip(time(&end, last)?))
}

fn document(view: &LogView, lines: &[Line]) -> serde_json::Value {
    let identity = view.identity();
    let segment = |segment: ledge_log::SegmentInfo| {
        json!({
            "path": segment.path, "first_block": segment.first_block.0, "last_block": segment.last_block.0,
            "bytes": segment.bytes, "boot": segment.boot,
            "created": Moment::from_us(i64::try_from(segment.created_ms.saturating_mul(1000)).unwrap_or(i64::MAX)).to_string(),
        })
    };
    let stream = |line: &Line| {
        json!({
            "stream": line.info.key.id.to_string(),
            "incarnation": line.info.key.incarnation.to_string(),
            "epoch": line.info.durable.position.epoch.0,
            "first_seq": line.info.first_seq.0,
            "last_seq": line.info.durable.position.seq.0,
            "chain": line.info.durable.chain.to_string(),
            "records": line.info.records,
            "bytes": line.info.bytes,
            "first_time": line.times.map(|(first, _)| first.to_string()),
            "last_time": line.times.map(|(_, last)| last.to_string()),
        })
    };
    json!({
        "cluster": identity.cluster.to_string(), "node": identity.node,
        "incarnation": identity.incarnation.to_string(), "boot": identity.boot,
        "first_block": view.first_block().0, "last_block": view.last_block().0,
        "segments": view.segments().into_iter().map(segment).collect::<Vec<_>>(),
        "streams": lines.iter().map(stream).collect::<Vec<_>>(),
    })
}

fn print(view: &LogView, lines: &[Line], context: &mut Context) -> Result<(), Quit> {
    let identity = view.identity();
    let segments = view.segments();
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let out = &mut context.out;
    out.text(&format!("Node         {}\n", human::plain(&identity.node)))?;
    out.text(&format!("Cluster      {}\n", identity.cluster))?;
    out.text(&format!(
        "Incarnation  {}, boot {}\n",
        identity.incarnation, identity.boot
    ))?;
    out.text(&format!(
        "Blocks       {} to {}\n",
        view.first_block(),
        view.last_block()
    ))?;
    out.text(&format!(
        "Segments     {}, {} on disk\n\n",
        segments.len(),
        human::bytes(bytes)
    ))?;
    let mut table = out.table(&[
        text("STREAM"),
        number("FIRST"),
        number("LAST"),
        number("RECORDS"),
        number("BYTES"),
        whole("FIRST TIME (UTC)"),
        whole("LAST TIME (UTC)"),
    ]);
    for line in lines {
        let (first, last) = match line.times {
            Some((first, last)) => (show::time(first), show::time(last)),
            None => (show::dash(), show::dash()),
        };
        let several = lines
            .iter()
            .filter(|other| other.info.key.id == line.info.key.id)
            .count()
            > 1;
        let name = if several {
            line.info.key.to_string()
        } else {
            line.info.key.id.to_string()
        };
        table.row(
            out,
            vec![
                name,
                line.info.first_seq.to_string(),
                line.info.durable.position.seq.to_string(),
                human::count(line.info.records),
                human::bytes(line.info.bytes),
                first.get(..19).unwrap_or(&first).to_owned(),
                last.get(..19).unwrap_or(&last).to_owned(),
            ],
        )?;
    }
    table.flush(out)
}
