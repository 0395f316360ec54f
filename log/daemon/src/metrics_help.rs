//! What each metric of the log says, for whoever reads `/metrics`.

/// Gauges and counters with their help.
const GAUGES: &[(&str, &str)] = &[
    ("ledge_log_durable_block", "Last block of the log that is on disk"),
    (
        "ledge_log_applied_block",
        "Last block of the log that is folded into the projection",
    ),
    (
        "ledge_log_apply_lag_blocks",
        "Blocks that are on disk and not folded yet",
    ),
    (
        "ledge_log_fsync_seconds",
        "How long making a group of records durable takes, seconds, by quantile since the start",
    ),
    ("ledge_log_queue_bytes", "Bytes that wait to be written"),
    (
        "ledge_log_head_seq_max",
        "Highest durable sequence number of a node's stream, by lane",
    ),
    (
        "ledge_log_archived_seq_max",
        "Highest archived sequence number of a stream that this log writes, by lane",
    ),
    (
        "ledge_log_peer_durable_seq_max",
        "Highest sequence number of a stream that this log writes which the other end was noted to hold durably, by lane",
    ),
    (
        "ledge_log_applied_seq_max",
        "Highest sequence number of a node's stream that is folded into the projection, by lane",
    ),
    (
        "ledge_log_gaps",
        "Gap records in force, by the lane of the stream that tells of them",
    ),
    (
        "ledge_log_gap_records",
        "Records that gap records in force are about, by the lane of the stream that tells of them",
    ),
    ("ledge_log_bytes", "Bytes of frames held, by lane"),
    ("ledge_log_records", "Records held, by lane"),
    (
        "ledge_log_unarchived_records",
        "Records this log wrote that are not archived yet, by lane",
    ),
    (
        "ledge_log_unarchived_seconds",
        "Age of the oldest record that is not archived, seconds, by lane",
    ),
    (
        "ledge_log_disk_used_bytes",
        "Bytes of the log's segments, spare files and superblocks",
    ),
    ("ledge_log_disk_free_bytes", "Bytes free on the log's file system"),
    (
        "ledge_log_disk_limit_bytes",
        "Most bytes the log may take; 0: as many as the disk has",
    ),
    (
        "ledge_disk_limit_bytes",
        "Most bytes everything in the data directory may take; 0: as many as the disk has",
    ),
    (
        "ledge_log_full",
        "1: there is no room for the next segment unless the oldest goes",
    ),
    (
        "ledge_log_forecast_seconds",
        "Until the log is full at the rate since the daemon started, seconds",
    ),
    (
        "ledge_log_lost_blocks",
        "Blocks that were durable and were gone when the daemon started: the disk lost them",
    ),
    (
        "ledge_disk_rest_bytes",
        "Bytes of the data directory beside the log",
    ),
    (
        "ledge_disk_used_bytes",
        "Bytes of everything in the data directory",
    ),
    (
        "ledge_disk_short_bytes",
        "What the limit lacks for what the log needs and what the rest may grow to; not 0: it may be exceeded",
    ),
    (
        "ledge_retention_blocked",
        "1: the oldest segment should go and cannot; the daemon's log says why",
    ),
];
const COUNTERS: &[(&str, &str)] = &[
    (
        "ledge_log_fsyncs_total",
        "Groups of records made durable since the start",
    ),
    ("ledge_retention_segments_total", "Segments given up, by reason"),
    (
        "ledge_retention_dropped_records_total",
        "Records of telemetry given up unarchived, by reason; gap records tell which",
    ),
    (
        "ledge_retention_unreadable_records_total",
        "Records in segments given up that could not be read; gap records tell which",
    ),
    (
        "ledge_retention_gap_records_total",
        "Gap records written, by reason",
    ),
    (
        "ledge_retention_summaries_total",
        "Summaries kept of telemetry given up, by reason",
    ),
];

/// Tells the recorder. Once, after it was installed.
pub(crate) fn describe() {
    for (name, help) in GAUGES {
        metrics::describe_gauge!(*name, *help);
    }
    for (name, help) in COUNTERS {
        metrics::describe_counter!(*name, *help);
    }
}
