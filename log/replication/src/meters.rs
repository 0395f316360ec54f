//! What a link moved, as metrics: one series per lane and direction, never per node.
//!
//! `ledge_repl_bytes_total{direction,lane}` counts frames and snapshots per lane; the lanes `control` and `quic` are
//! the session's messages and everything the connection sent or received, its own overhead included.

use ledge_proto::ids::StreamKey;

use crate::link::{Direction, Refill, Traffic};

/// Counts a frame.
pub fn frame(direction: Direction, key: &StreamKey, records: u64, bytes: u64) {
    let lane = key.id.lane.name();
    metrics::counter!("ledge_repl_records_total", "direction" => direction.name(), "lane" => lane)
        .increment(records);
    count(direction, lane, bytes);
}

/// Counts what is not a frame.
pub fn traffic(direction: Direction, what: Traffic, bytes: u64) {
    match what {
        Traffic::Snapshot(lane, purpose) => {
            let purpose = purpose.as_str_name();
            metrics::counter!("ledge_repl_snapshots_total", "direction" => direction.name(), "lane" => lane.name(), "purpose" => purpose)
                .increment(1);
            count(direction, lane.name(), bytes);
        }
        Traffic::Control => count(direction, "control", bytes),
        Traffic::Quic => count(direction, "quic", bytes),
    }
}

/// Counts what became of damaged records: `ledge_repl_refill_total{result}`.
pub fn refill(what: Refill) {
    metrics::counter!("ledge_repl_refill_total", "result" => what.name()).increment(1);
}

fn count(direction: Direction, lane: &'static str, bytes: u64) {
    metrics::counter!("ledge_repl_bytes_total", "direction" => direction.name(), "lane" => lane)
        .increment(bytes);
}
