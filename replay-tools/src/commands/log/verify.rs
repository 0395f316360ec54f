//! `ledge log verify`.

use std::sync::Arc;

use clap::Args;
use ledge_log::{DiskStorage, Finding, FindingKind, OpenError, VerifyReport, repair, verify};
use serde_json::{Value as Json, json};

use crate::commands::Context;
use crate::error::Quit;
use crate::exit::Code;
use crate::human;
use crate::open::{Dir, cannot_open};
use crate::progress::while_running;
use crate::table::{number, text, whole};

const EXAMPLES: &str = "\
Exit codes:
  0  intact
  3  torn tail: the end was being written when the log stopped. Nothing acknowledged is affected, and the daemon
     removes it when it starts. A running daemon's log may show one, too
  4  damaged bytes, or a hash chain that does not continue
  5  records are missing
  6  the log cannot be read at all
The most serious finding decides: 4, then 5, then 3. With --repair they are about what is wrong afterwards.

Examples:
  ledge log verify /var/lib/ledge/edge && echo intact
  ledge log verify /var/lib/ledge/edge -o json | jq '.findings[]'
  ledge log verify /var/lib/ledge/edge --repair     after the daemon was stopped";

/// Check every checksum, hash chain and sequence number.
///
/// Reads the whole log, changes nothing unless told to, and may run beside the daemon. Every finding names the file, the place in
/// it, and the stream and records affected, as far as that can be known.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Verify {
    #[command(flatten)]
    dir: Dir,
    /// Repair what can be repaired. Only while no daemon has the log open.
    ///
    /// Removes a torn end. Copies damaged blocks to `quarantine` in the log's directory, and writes those again of which
    /// enough is left to prove what they were; nothing else is removed. What stays damaged is read from the other end of the
    /// link when the daemon runs again, where it is held there. A log that is sound is not touched.
    #[arg(long)]
    repair: bool,
}

pub(super) fn run(args: &Verify, context: &mut Context) -> Result<Code, Quit> {
    let dir = args.dir.log();
    let failed = |err: &OpenError| cannot_open(err, &dir);
    if args.repair {
        let repaired =
            while_running("repairing", || repair(Arc::new(DiskStorage), &dir)).map_err(|err| failed(&err))?;
        let mut shown = document(&repaired.after);
        shown["repaired"] = json!({
            "touched": repaired.recovery.is_some(),
            "findings_before": repaired.before.findings.len(),
        });
        if !context.out.document(&shown)? {
            context.out.text(&format!(
                "{} before, {} now\n\n",
                human::plural(repaired.before.findings.len() as u64, "finding"),
                repaired.after.findings.len()
            ))?;
            print(&repaired.after, context)?;
        }
        return Ok(code(&repaired.after));
    }
    let report = while_running("verifying", || verify(&DiskStorage, &dir)).map_err(|err| failed(&err))?;
    if !context.out.document(&document(&report))? {
        print(&report, context)?;
    }
    Ok(code(&report))
}

/// The exit code of the most serious finding.
fn code(report: &VerifyReport) -> Code {
    let code_of = |finding: &Finding| match finding.kind {
        FindingKind::TornTail => Code::TornTail,
        FindingKind::Corruption | FindingKind::BrokenChain => Code::BadHash,
        FindingKind::Gap | FindingKind::LostDurable | FindingKind::MissingSegment => Code::Gap,
    };
    let found: Vec<Code> = report.findings.iter().map(code_of).collect();
    let worst_first = [Code::BadHash, Code::Gap, Code::TornTail];
    worst_first
        .into_iter()
        .find(|code| found.contains(code))
        .unwrap_or(Code::Yes)
}

fn document(report: &VerifyReport) -> Json {
    let finding = |finding: &Finding| {
        json!({
            "kind": finding.kind.name(),
            "path": finding.path,
            "offset": finding.offset,
            "first_block": finding.blocks.map(|(first, _)| first.0),
            "last_block": finding.blocks.map(|(_, last)| last.0),
            "stream": finding.stream.as_ref().map(|key| key.id.to_string()),
            "incarnation": finding.stream.as_ref().map(|key| key.incarnation.to_string()),
            "first_seq": finding.seqs.map(|(first, _)| first.0),
            "last_seq": finding.seqs.map(|(_, last)| last.0),
            "detail": finding.detail,
        })
    };
    let streams: Vec<Json> = report
        .streams
        .iter()
        .map(|stream| {
            json!({
                "stream": stream.key.id.to_string(), "incarnation": stream.key.incarnation.to_string(),
                "first_seq": stream.first_seq.0, "last_seq": stream.last.position.seq.0,
                "epoch": stream.last.position.epoch.0, "chain": stream.last.chain.to_string(),
                "frames": stream.frames, "records": stream.records,
            })
        })
        .collect();
    json!({
        "intact": report.findings.is_empty(),
        "exit_code": code(report).number(),
        "segments": report.segments, "blocks": report.blocks, "frames": report.frames,
        "records": report.records, "bytes": report.bytes,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "streams": streams,
    })
}

fn print(report: &VerifyReport, context: &mut Context) -> Result<(), Quit> {
    let out = &mut context.out;
    let mut table = out.table(&[
        text("STREAM"),
        number("FIRST"),
        number("LAST"),
        number("RECORDS"),
        whole("CHAIN AT THE END"),
    ]);
    for stream in &report.streams {
        table.row(
            out,
            vec![
                stream.key.to_string(),
                stream.first_seq.to_string(),
                stream.last.position.seq.to_string(),
                human::count(stream.records),
                stream.last.chain.to_string(),
            ],
        )?;
    }
    table.flush(out)?;
    out.text("\n")?;
    for finding in &report.findings {
        out.text(&format!("{}\n", human::plain(&finding.to_string())))?;
    }
    let read = format!(
        "{} in {} and {}, {}",
        human::plural(report.records, "record"),
        human::plural(report.blocks, "block"),
        human::plural(report.segments as u64, "segment"),
        human::bytes(report.bytes)
    );
    let verdict = match code(report) {
        Code::Yes => "Intact",
        Code::TornTail => "Torn tail (repaired at the next start)",
        Code::Gap => "Records are missing",
        _ => "Damaged",
    };
    out.text(&format!("{verdict}: {read}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_serious_finding_decides() {
        let finding = |kind| Finding {
            kind,
            path: "seg".into(),
            offset: 0,
            blocks: None,
            stream: None,
            seqs: None,
            detail: String::new(),
        };
        let of = |kinds: &[FindingKind]| {
            code(&VerifyReport {
                findings: kinds.iter().map(|kind| finding(*kind)).collect(),
                ..VerifyReport::default()
            })
        };
        use FindingKind as K;
        assert_eq!(of(&[]), Code::Yes);
        assert_eq!(of(&[K::TornTail]), Code::TornTail);
        assert_eq!(of(&[K::TornTail, K::Gap]), Code::Gap);
        assert_eq!(of(&[K::LostDurable, K::TornTail]), Code::Gap);
        assert_eq!(of(&[K::TornTail, K::Gap, K::Corruption]), Code::BadHash);
        assert_eq!(of(&[K::BrokenChain]), Code::BadHash);
    }
}
