//! The log's figures as metrics, refreshed now and then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ledge_log::{Log, LogStats, Room, StreamInfo};
use ledge_projection::Projection;
use ledge_proto::ids::{Lane, Seq};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::retention::Archived;

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
}

/// Publishes the log's figures until `shutdown`.
pub async fn publish(measured: Measured, shutdown: CancellationToken) {
    crate::metrics_help::describe();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let began = (Instant::now(), measured.log.stats().written_bytes);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let of = measured.clone();
        // Reads a record of each lane that is behind.
        tokio::task::spawn_blocking(move || refresh(&of, began))
            .await
            .ok();
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
fn refresh(of: &Measured, began: (Instant, u64)) {
    let stats = of.log.stats();
    metrics::gauge!("ledge_log_durable_block").set(stats.durable_block as f64);
    let applied = of.projection.applied().block.0;
    metrics::gauge!("ledge_log_applied_block").set(applied as f64);
    metrics::gauge!("ledge_log_apply_lag_blocks").set(stats.durable_block.saturating_sub(applied) as f64);
    for (quantile, of) in [("0.5", 0.5), ("0.99", 0.99)] {
        let seconds = stats.sync_time.quantile_us(of) as f64 / 1e6;
        metrics::gauge!("ledge_log_fsync_seconds", "quantile" => quantile).set(seconds);
    }
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
        behind(of, &stream, lane);
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
    disk(&of.log.room(), &stats, began);
}

/// Adds how far the archive is behind a stream that this log writes.
fn behind(of: &Measured, stream: &StreamInfo, lane: &mut LaneFigures) {
    let own = stream.key.incarnation == of.log.identity().incarnation;
    if !own || !matches!(stream.key.id.lane, Lane::UpState | Lane::UpData) {
        return;
    }
    let archived = (of.archived)(&stream.key).max(Seq(stream.first_seq.0.saturating_sub(1)));
    let records = stream.durable.position.seq.0.saturating_sub(archived.0);
    lane.lag_records += records;
    lane.archived_max = lane.archived_max.max(Some(archived.0));
    if records > 0
        && let Some(oldest_us) = time_after(&of.log, stream, archived)
    {
        let us = clock::stamp().wall_us.saturating_sub(oldest_us);
        lane.lag = lane
            .lag
            .max(Duration::from_micros(u64::try_from(us).unwrap_or(0)));
    }
}

/// Wall clock of the first record after `archived`.
fn time_after(log: &Log, stream: &StreamInfo, archived: Seq) -> Option<i64> {
    let frame = log.read_stream(&stream.key, archived).next().ok()??;
    let records = frame.records().ok()?;
    let after = records
        .filter_map(|item| item.ok())
        .find(|(position, _)| position.seq > archived);
    after.map(|(_, record)| record.wall_us)
}

/// How full the disk is, and when the oldest telemetry goes at the rate since the daemon started.
#[allow(
    clippy::cast_precision_loss,
    reason = "gauges are doubles; figures stay below 2^53"
)]
fn disk(room: &Room, stats: &LogStats, (began, written_before): (Instant, u64)) {
    metrics::gauge!("ledge_log_disk_used_bytes").set(room.used as f64);
    metrics::gauge!("ledge_log_disk_free_bytes").set(room.free_on_disk as f64);
    metrics::gauge!("ledge_log_disk_limit_bytes").set(room.limit.unwrap_or(0) as f64);
    metrics::gauge!("ledge_log_full").set(if room.blocked.is_some() { 1.0 } else { 0.0 });
    let rate = (stats.written_bytes - written_before) as f64 / began.elapsed().as_secs_f64().max(1.0);
    if rate > 0.0 {
        let by_limit = room
            .limit
            .map_or(u64::MAX, |limit| limit.saturating_sub(room.used));
        let left = by_limit.min(room.free_on_disk).saturating_add(room.active_left);
        metrics::gauge!("ledge_log_forecast_seconds").set(left as f64 / rate);
    }
}
