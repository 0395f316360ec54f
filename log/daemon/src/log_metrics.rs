//! The log's figures as metrics, refreshed now and then.

use std::time::Duration;

use ledge_log::Log;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(5);

/// Publishes the log's figures until `shutdown`.
pub async fn publish(log: Log, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => refresh(&log),
            () = shutdown.cancelled() => return,
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "gauges are doubles; figures stay below 2^53"
)]
fn refresh(log: &Log) {
    metrics::gauge!("ledge_log_durable_block").set(log.durable_block().0 as f64);
    for stream in log.streams() {
        // One series per lane, never per node: a fleet has too many.
        let lane = stream.key.id.lane.name();
        if stream.key.id.scope.node_name().is_none() {
            continue;
        }
        metrics::gauge!("ledge_log_head_seq_max", "lane" => lane).set(stream.durable.position.seq.0 as f64);
    }
}
