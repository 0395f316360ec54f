//! The log's figures as metrics, refreshed now and then.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ledge_log::{Log, LogStats, Room, StreamInfo};
use ledge_projection::Projection;
use ledge_proto::ids::{Lane, Seq};
use ledge_retention::budget::Budget;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::folded_metrics::Folded;
use crate::retention::{Archived, Parts};

const EVERY: Duration = Duration::from_secs(5);

/// What is measured.
#[derive(Clone)]
pub struct Measured {
    /// The log.
    pub log: Log,
    /// What is folded of it.
    pub projection: Projection,
    /// How far its streams are archived.
    pub archived: Archived,
    /// The data directory.
    pub dir: PathBuf,
    /// How it is divided.
    pub budget: watch::Receiver<Budget>,
    /// The daemon's name and version.
    pub software: String,
    /// When the log was opened, and what had been written to it by then.
    began: (Instant, u64),
}

impl Measured {
    /// What [`retention`](crate::retention) keeps, with what is folded of it by `software`.
    pub fn new(keeper: &Parts, projection: &Projection, software: String) -> Measured {
        Measured {
            log: keeper.log.clone(),
            projection: projection.clone(),
            archived: keeper.archived.clone(),
            dir: keeper.dir.clone(),
            budget: keeper.budget.subscribe(),
            software,
            began: (Instant::now(), keeper.log.stats().written_bytes),
        }
    }

    /// Until the log is full at the rate since the daemon started, seconds. `None` where nothing was written.
    #[allow(clippy::cast_precision_loss, reason = "figures stay below 2^53")]
    pub(crate) fn forecast(&self, room: &Room, stats: &LogStats) -> Option<f64> {
        let (began, written_before) = self.began;
        let rate = (stats.written_bytes - written_before) as f64 / began.elapsed().as_secs_f64().max(1.0);
        if rate <= 0.0 {
            return None;
        }
        let by_limit = room
            .limit
            .map_or(u64::MAX, |limit| limit.saturating_sub(room.used));
        let left = by_limit.min(room.free_on_disk).saturating_add(room.active_left);
        Some(left as f64 / rate)
    }
}

/// How far the archive is behind a stream that this log writes.
pub(crate) struct Behind {
    pub(crate) archived: Seq,
    pub(crate) records: u64,
    pub(crate) age: Duration,
}

/// Publishes the log's figures until `shutdown`.
pub async fn publish(measured: Measured, shutdown: CancellationToken) {
    crate::metrics_help::describe();
    let mut folded = Folded::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let of = measured.clone();
        // Reads a record of each lane that is behind, and the projection.
        let refreshed = tokio::task::spawn_blocking(move || {
            refresh(&of);
            folded.refresh(&of);
            folded
        });
        folded = refreshed.await.unwrap_or_default();
    }
}

/// What one lane holds, of all nodes together: one series per lane, never per node. A fleet has too many.
#[derive(Default)]
struct LaneFigures {
    head_max: u64,
    archived_max: Option<u64>,
    bytes: u64,
    records: u64,
    lag_records: u64,
    lag: Duration,
}

#[allow(
    clippy::cast_precision_loss,
    reason = "gauges are doubles; figures stay below 2^53"
)]
fn refresh(of: &Measured) {
    let stats = of.log.stats();
    metrics::gauge!("ledge_log_durable_block").set(stats.durable_block as f64);
    let applied = of.projection.applied().block.0;
    metrics::gauge!("ledge_log_applied_block").set(applied as f64);
    metrics::gauge!("ledge_log_apply_lag_blocks").set(stats.durable_block.saturating_sub(applied) as f64);
    for (quantile, of) in [("0.5", 0.5), ("0.99", 0.99)] {
        let seconds = stats.sync_time.quantile_us(of) as f64 / 1e6;
        metrics::gauge!("ledge_log_fsync_seconds", "quantile" => quantile).set(seconds);
    }
    metrics::counter!("ledge_log_fsyncs_total").absolute(stats.sync_time.count);
    metrics::gauge!("ledge_log_damaged_blocks").set(stats.damaged as f64);
    let lost = of.log.quarantined();
    let records = lost
        .iter()
        .map(|lost| lost.last.0 - lost.first.0 + 1)
        .sum::<u64>();
    metrics::gauge!("ledge_log_quarantined_records").set(records as f64);
    metrics::gauge!("ledge_log_queue_bytes").set(stats.queue_bytes as f64);
    let mut lanes: BTreeMap<Lane, LaneFigures> = BTreeMap::new();
    for stream in of.log.streams() {
        let lane = lanes.entry(stream.key.id.lane).or_default();
        if stream.key.id.scope.node_name().is_some() {
            lane.head_max = lane.head_max.max(stream.durable.position.seq.0);
        }
        lane.bytes += stream.bytes;
        lane.records += stream.records;
        if let Some(behind) = behind(of, &stream) {
            lane.lag_records += behind.records;
            lane.archived_max = lane.archived_max.max(Some(behind.archived.0));
            lane.lag = lane.lag.max(behind.age);
        }
    }
    for (lane, figures) in lanes {
        let lane = lane.name();
        metrics::gauge!("ledge_log_head_seq_max", "lane" => lane).set(figures.head_max as f64);
        if let Some(archived) = figures.archived_max {
            metrics::gauge!("ledge_log_archived_seq_max", "lane" => lane).set(archived as f64);
        }
        metrics::gauge!("ledge_log_bytes", "lane" => lane).set(figures.bytes as f64);
        metrics::gauge!("ledge_log_records", "lane" => lane).set(figures.records as f64);
        metrics::gauge!("ledge_log_unarchived_records", "lane" => lane).set(figures.lag_records as f64);
        metrics::gauge!("ledge_log_unarchived_seconds", "lane" => lane).set(figures.lag.as_secs_f64());
    }
    disk(of, &stats);
}

/// How far `stream` is archived, or was given up; `None` of a stream that this log does not write, or that is not archived.
pub(crate) fn archived(of: &Measured, stream: &StreamInfo) -> Option<Seq> {
    let own = stream.key.incarnation == of.log.identity().incarnation;
    let goes_up = matches!(stream.key.id.lane, Lane::UpState | Lane::UpData);
    (own && goes_up).then(|| (of.archived)(&stream.key).max(Seq(stream.first_seq.0.saturating_sub(1))))
}

/// How far the archive is behind `stream`; `None` as of [`archived`].
pub(crate) fn behind(of: &Measured, stream: &StreamInfo) -> Option<Behind> {
    let archived = archived(of, stream)?;
    let records = stream.durable.position.seq.0.saturating_sub(archived.0);
    let oldest_us = (records > 0)
        .then(|| time_after(&of.log, stream, archived))
        .flatten();
    let age_us = oldest_us.map_or(0, |oldest| clock::stamp().wall_us.saturating_sub(oldest));
    Some(Behind {
        archived,
        records,
        age: Duration::from_micros(u64::try_from(age_us).unwrap_or(0)),
    })
}

/// Wall clock of the first record after `archived`.
fn time_after(log: &Log, stream: &StreamInfo, archived: Seq) -> Option<i64> {
    let frame = log.first_after(&stream.key, archived).ok()??;
    let records = frame.records().ok()?;
    let after = records
        .filter_map(|item| item.ok())
        .find(|(position, _)| position.seq > archived);
    after.map(|(_, record)| record.wall_us)
}

/// How full the disk is, and when the oldest telemetry goes.
#[allow(
    clippy::cast_precision_loss,
    reason = "gauges are doubles; figures stay below 2^53"
)]
fn disk(of: &Measured, stats: &LogStats) {
    let room = of.log.room();
    metrics::gauge!("ledge_log_disk_used_bytes").set(room.used as f64);
    metrics::gauge!("ledge_log_disk_free_bytes").set(room.free_on_disk as f64);
    metrics::gauge!("ledge_log_disk_limit_bytes").set(room.limit.unwrap_or(0) as f64);
    metrics::gauge!("ledge_disk_limit_bytes").set(of.budget.borrow().total_bytes.unwrap_or(0) as f64);
    metrics::gauge!("ledge_log_full").set(if room.blocked.is_some() { 1.0 } else { 0.0 });
    if let Some(seconds) = of.forecast(&room, stats) {
        metrics::gauge!("ledge_log_forecast_seconds").set(seconds);
    }
}
