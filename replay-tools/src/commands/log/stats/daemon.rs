//! What the daemon itself says of its log: noted in the data directory, or asked over HTTP.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use ledge_log::Identity;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::commands::{Context, http};
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::human;
use crate::show;
use crate::table::{number, text};

/// Where a daemon notes its figures, within the data directory.
const NOTE: &str = "status.json";
/// A note is two kilobytes; what is longer is something else.
const NOTE_MAX_BYTES: u64 = 1 << 20;

/// What a daemon says of its log. Figures of later versions are left out, those it does not give are absent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    software: String,
    at_us: i64,
    incarnation: String,
    /// Last block in the projection.
    pub(super) applied_block: u64,
    durable_block: u64,
    #[serde(default)]
    stopped: bool,
    fsync: Fsync,
    pub(super) disk: Disk,
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    streams_left_out: u64,
}

/// How long syncs take, since the daemon started.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fsync {
    count: u64,
    mean_seconds: Option<f64>,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
}

/// The data directory and its limits; none: whatever the disk has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Disk {
    limit_bytes: Option<u64>,
    pub(super) log_limit_bytes: Option<u64>,
    log_used_bytes: u64,
    rest_bytes: Option<u64>,
    free_bytes: u64,
    forecast_seconds: Option<f64>,
    #[serde(default)]
    full: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stream {
    stream: String,
    incarnation: String,
    first_seq: u64,
    head: u64,
    durable: Option<u64>,
    archived: Option<u64>,
    applied: u64,
    lag_records: Option<u64>,
    lag_seconds: Option<f64>,
    records: u64,
    stored_bytes: u64,
    gaps: u64,
    dropped: u64,
}

/// What the daemon of the log `identity` noted in `dir`; `None` when it did not, or in a way that is not understood.
pub(super) fn noted(dir: &Path, identity: &Identity) -> Option<Status> {
    let path = dir.join(NOTE);
    if std::fs::metadata(&path).ok()?.len() > NOTE_MAX_BYTES {
        return None;
    }
    let status: Status = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    // A directory into which another log was put says nothing of it.
    (status.incarnation == identity.incarnation.to_string()).then_some(status)
}

/// `ledge log stats --address`.
pub(super) fn show(address: &str, context: &mut Context) -> Result<Code, Quit> {
    let body = http::get(address, "/v1/log").map_err(|err| match err {
        http::HttpError::Status(404, _) => Failure::new(format!("{address} does not tell of a log"))
            .hint("name the HTTP address of an edgecore or cloudcore of this version"),
        http::HttpError::Status(_, message) => Failure::new(message.trim().to_owned()),
        http::HttpError::Io(err) => Failure::unreachable(format!("no daemon answers on {address}: {err}"))
            .hint("its first line says where it serves metrics and health"),
    })?;
    let status: Status = serde_json::from_str(&body)
        .map_err(|err| Failure::new(format!("{address} answered with something else: {err}")))?;
    let now_us = status.at_us;
    let mut document = status.json(now_us);
    document["streams"] = status.streams.iter().map(Stream::json).collect();
    document["streams_left_out"] = json!(status.streams_left_out);
    if context.out.document(&document)? {
        return Ok(Code::Yes);
    }
    let out = &mut context.out;
    let mut table = out.table(&[
        text("STREAM"),
        number("RECORDS"),
        number("STORED"),
        number("GAPS"),
        number("DROPPED"),
        number("FIRST"),
        number("HEAD"),
        number("DURABLE"),
        number("ARCHIVED"),
        number("APPLIED"),
        number("LAG"),
    ]);
    for stream in &status.streams {
        let same = |other: &&Stream| other.stream == stream.stream;
        let several = status.streams.iter().filter(same).count() > 1;
        table.row(out, stream.cells(several))?;
    }
    table.flush(out)?;
    if status.streams_left_out > 0 {
        out.text(&format!("and {} more\n", status.streams_left_out))?;
    }
    out.text(&format!("\n{}", status.lines(now_us)))?;
    Ok(Code::Yes)
}

impl Status {
    pub(super) fn json(&self, now_us: i64) -> Value {
        json!({
            "software": self.software, "stopped": self.stopped, "age_seconds": self.age(now_us).as_secs_f64(),
            "applied_block": self.applied_block, "durable_block": self.durable_block,
            "fsync": {
                "count": self.fsync.count, "mean_seconds": self.fsync.mean_seconds,
                "p50_seconds": self.fsync.p50_seconds, "p99_seconds": self.fsync.p99_seconds,
            },
            "disk": {
                "limit_bytes": self.disk.limit_bytes, "log_limit_bytes": self.disk.log_limit_bytes,
                "log_used_bytes": self.disk.log_used_bytes, "rest_bytes": self.disk.rest_bytes,
                "free_bytes": self.disk.free_bytes, "forecast_seconds": self.disk.forecast_seconds,
                "full": self.disk.full,
            },
        })
    }

    fn age(&self, now_us: i64) -> Duration {
        Duration::from_micros(now_us.saturating_sub(self.at_us).max(0).unsigned_abs())
    }

    /// For people: how far it is, how long a sync takes, how full the disk is.
    pub(super) fn lines(&self, now_us: i64) -> String {
        let mut lines = String::new();
        let behind = self.durable_block.saturating_sub(self.applied_block);
        writeln!(
            lines,
            "{}: applied up to block {}, {}",
            self.heading(now_us),
            self.applied_block,
            match behind {
                0 => "nothing waits".to_owned(),
                _ => format!("{} wait", human::plural(behind, "block")),
            }
        )
        .ok();
        let millis = |seconds: Option<f64>| {
            seconds.map_or_else(show::dash, |seconds| format!("{:.1}ms", seconds * 1e3))
        };
        let fsync = &self.fsync;
        writeln!(
            lines,
            "syncs since its start: {}, on average {}, half within {}, 99 of 100 within {}",
            human::count(fsync.count),
            millis(fsync.mean_seconds),
            millis(fsync.p50_seconds),
            millis(fsync.p99_seconds)
        )
        .ok();
        let disk = &self.disk;
        let limit = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), human::bytes);
        writeln!(
            lines,
            "disk: log {} of {}, the rest of the directory {}, limit for both {}, free {}{}",
            human::bytes(disk.log_used_bytes),
            limit(disk.log_limit_bytes),
            disk.rest_bytes.map_or_else(show::dash, human::bytes),
            limit(disk.limit_bytes),
            human::bytes(disk.free_bytes),
            if disk.full { "; FULL" } else { "" }
        )
        .ok();
        if let Some(forecast) = disk.forecast_seconds {
            let until = Duration::try_from_secs_f64(forecast).unwrap_or(Duration::MAX);
            writeln!(lines, "at its rate the log is full in {}", human::duration(until)).ok();
        }
        lines
    }

    fn heading(&self, now_us: i64) -> String {
        let age = human::duration(self.age(now_us));
        let software = human::plain(&self.software);
        match self.stopped {
            true => format!("{software}, stopped {age} ago"),
            false => format!("{software}, {age} ago"),
        }
    }
}

impl Stream {
    fn json(&self) -> Value {
        json!({
            "stream": self.stream, "incarnation": self.incarnation,
            "first_seq": self.first_seq, "head": self.head,
            "durable": self.durable, "archived": self.archived, "applied": self.applied,
            "lag_records": self.lag_records, "lag_seconds": self.lag_seconds,
            "records": self.records, "stored_bytes": self.stored_bytes,
            "gaps": self.gaps, "dropped": self.dropped,
        })
    }

    fn cells(&self, several: bool) -> Vec<String> {
        let name = if several {
            format!("{}@{}", self.stream, self.incarnation)
        } else {
            self.stream.clone()
        };
        let age = Duration::try_from_secs_f64(self.lag_seconds.unwrap_or(0.0)).unwrap_or_default();
        vec![
            human::plain(&name).into_owned(),
            human::count(self.records),
            human::bytes(self.stored_bytes),
            self.gaps.to_string(),
            human::count(self.dropped),
            human::count(self.first_seq),
            human::count(self.head),
            self.durable.map_or_else(show::dash, human::count),
            self.archived.map_or_else(show::dash, human::count),
            human::count(self.applied),
            match self.lag_records {
                None => show::dash(),
                Some(0) => "0".to_owned(),
                Some(records) => format!("{} ({})", human::count(records), human::duration(age)),
            },
        ]
    }
}
