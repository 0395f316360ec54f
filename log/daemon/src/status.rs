//! What only the daemon knows of its log, for `ledge log stats`: `/v1/log`, and a file in the data directory.
//!
//! The file is for tools that read a log whose daemon may be stopped. No daemon reads it: it is no state, and deleting it
//! loses nothing.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use ledge_log::StreamInfo;
use ledge_proto::fold::snapshot::folded_mark;
use ledge_proto::ids::Seq;
use ledge_retention::account::account;
use ledge_retention::measure;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::log_metrics::{Measured, behind};

/// The file's name within the data directory.
pub const STATUS_FILE: &str = "status.json";
/// Few enough writes a day for flash: at the start, when the limit changes, at the stop, and so often between.
const EVERY: Duration = Duration::from_secs(600);
/// Streams told over HTTP; a cloud holds some for each node.
const STREAMS_MAX: usize = 10_000;

/// `/v1/log`: the figures of the log and of each of its streams.
pub fn router(measured: Measured) -> Router {
    Router::new().route("/v1/log", get(tell)).with_state(measured)
}

async fn tell(State(measured): State<Measured>) -> Response {
    // Reads the projection and a record of each lane that is behind.
    let told = tokio::task::spawn_blocking(move || {
        let mut status = status(&measured);
        let all = measured.log.streams();
        let told = all.iter().take(STREAMS_MAX);
        let streams: Result<Vec<Value>, String> = told.map(|info| stream(&measured, info)).collect();
        status["streams"] = Value::Array(streams?);
        status["streamsLeftOut"] = json!(all.len().saturating_sub(STREAMS_MAX));
        Ok::<_, String>(status)
    });
    match told.await {
        Ok(Ok(status)) => Json(status).into_response(),
        Ok(Err(err)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{err}\n")).into_response(),
        Err(err) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{err}\n")).into_response(),
    }
}

/// Notes the figures in the data directory until `shutdown`, and then once more. What cannot be written is told once.
pub async fn note(mut measured: Measured, shutdown: CancellationToken) {
    let mut told = false;
    loop {
        let stopping = shutdown.is_cancelled();
        let of = measured.clone();
        let noted = tokio::task::spawn_blocking(move || {
            let mut status = status(&of);
            status["stopped"] = json!(stopping);
            replace(&of.dir.join(STATUS_FILE), &status)
        });
        match noted.await {
            Ok(Err(err)) if !told => {
                told = true;
                tracing::warn!(%err, "{STATUS_FILE} cannot be written: `ledge log stats` knows less");
            }
            _ => {}
        }
        if stopping {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            // An error only when nobody can change it any more.
            Ok(()) = measured.budget.changed() => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// Readers see the old file or the new one. Not synced: after a power cut the next start writes it again.
fn replace(path: &Path, status: &Value) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{status:#}\n"))
        .and_then(|()| std::fs::rename(&new, path))
        .inspect_err(|_| {
            std::fs::remove_file(&new).ok();
        })
}

/// The figures of the log as a whole.
#[allow(clippy::cast_precision_loss, reason = "seconds for people")]
fn status(of: &Measured) -> Value {
    let (stats, room, budget) = (of.log.stats(), of.log.room(), *of.budget.borrow());
    let applied = of.projection.applied().block.0;
    let seconds = |us: u64| us as f64 / 1e6;
    let sync = &stats.sync_time;
    let rest = measure::rest(&of.dir).ok().map(|rest| rest.bytes());
    json!({
        "software": of.software,
        "atUs": clock::stamp().wall_us,
        "node": of.log.identity().node,
        "incarnation": of.log.identity().incarnation.to_string(),
        "durableBlock": stats.durable_block,
        "appliedBlock": applied,
        "queueBytes": stats.queue_bytes,
        "fsync": {
            "count": sync.count,
            "meanSeconds": (sync.count > 0).then(|| seconds(sync.sum_us) / sync.count as f64),
            "p50Seconds": (sync.count > 0).then(|| seconds(sync.quantile_us(0.5))),
            "p99Seconds": (sync.count > 0).then(|| seconds(sync.quantile_us(0.99))),
        },
        "disk": {
            "limitBytes": budget.total_bytes,
            "logLimitBytes": room.limit,
            "logUsedBytes": room.used,
            "restBytes": rest,
            "freeBytes": room.free_on_disk,
            "forecastSeconds": of.forecast(&room, &stats),
            "full": room.blocked.is_some(),
        },
    })
}

fn stream(of: &Measured, info: &StreamInfo) -> Result<Value, String> {
    let (view, own) = (of.projection.view(), of.log.identity().incarnation);
    let noted = account(&view, &info.key, own).map_err(|err| err.to_string())?;
    let applied = folded_mark(&view, &info.key).map_err(|err| err.to_string())?;
    let behind = behind(of, info);
    // What was heard since counts as well as what was noted; what is archived is durable.
    let archived = noted.archived.max(behind.as_ref().map(|behind| behind.archived));
    Ok(json!({
        "stream": info.key.id.to_string(),
        "incarnation": info.key.incarnation.to_string(),
        "firstSeq": info.first_seq.0,
        "head": info.durable.position.seq.0,
        "durable": noted.durable.max(archived).map(|seq: Seq| seq.0),
        "archived": archived.map(|seq: Seq| seq.0),
        "applied": applied.map_or(0, |mark| mark.position.seq.0),
        "lagRecords": behind.as_ref().map(|behind| behind.records),
        "lagSeconds": behind.as_ref().map(|behind| behind.age.as_secs_f64()),
        "records": info.records,
        "storedBytes": info.bytes,
        "gaps": noted.gaps,
        "dropped": noted.dropped,
    }))
}
