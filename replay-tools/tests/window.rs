//! Time travel in a log of which the beginning is gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use common::{Data, T0, ledge, reported, sample};
use ledge_log::{DiskStorage, Log, Options};
use ledge_proto::ids::{ClusterId, Seq, StreamId};
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::ClockQuality;
use ledge_retention::{Outcome, Policy, Retention};

/// Seconds after T0, for segment headers.
static SECOND: AtomicU64 = AtomicU64::new(0);

/// A log that has given up its oldest segments: one property is reported once at the beginning, another each second.
fn log_with_a_window(data: &Data, seconds: u64) -> u64 {
    let options = Options {
        segment_bytes: 64 * 1024,
        max_bytes: Some(4 * 64 * 1024),
        wall_clock: || {
            let us = u64::try_from(T0).unwrap() + SECOND.load(Ordering::Relaxed) * 1_000_000;
            SystemTime::UNIX_EPOCH + Duration::from_micros(us)
        },
        ..Options::deterministic(ClusterId([7; 16]), "edge-1", 1)
    };
    let (log, _) = Log::open(Arc::new(DiskStorage), &data.log_dir(), options).unwrap();
    let mut retention = Retention::new(Policy::default());
    let put = |stream: &str, record| {
        log.append_blocking(&stream.parse::<StreamId>().unwrap(), vec![record])
            .unwrap();
    };
    put("edge-1/up.state", reported("plant/pump-1/mode", 0, 7.0));
    let mut gone = 0;
    for second in 0..seconds {
        SECOND.store(second, Ordering::Relaxed);
        let at = i64::try_from(second).unwrap();
        put("edge-1/up.state", reported("plant/pump-1/speed", at, at as f64));
        put("edge-1/up.data", sample("plant/pump-1/speed", at, at as f64));
        let now = Stamp {
            wall_us: T0 + at * 1_000_000,
            clock: ClockQuality::ClockSynced,
            mono_us: second * 1_000_000,
        };
        while let Outcome::GaveUp(_) = retention.step(&log, &|_| Seq(0), now).unwrap() {
            gone += 1;
        }
    }
    log.close().unwrap();
    gone
}

#[test]
fn inside_the_window_it_works_and_before_it_says_where_it_begins() {
    let data = Data::new();
    assert!(log_with_a_window(&data, 600) >= 2);
    let dir = data.path().to_str().unwrap();

    let at = |time: &str| ledge(&["at", dir, "--time", time, "-o", "json"]);
    let end = at("2026-11-23T15:09:30Z");
    assert_eq!(end.code, 0, "{}", end.stderr);
    let shown: serde_json::Value = serde_json::from_str(&end.stdout).unwrap();
    let twins = &shown["nodes"][0]["devices"]["plant/pump-1"]["twins"];
    assert_eq!(twins["speed"]["reported"]["value"], 570.0);
    assert_eq!(twins["speed"]["sample"]["value"], 570.0);
    // Said once, long before the window: the base knows.
    assert_eq!(twins["mode"]["reported"]["value"], 7.0);

    let before = at("2026-11-23T15:00:10Z");
    assert_eq!(before.code, 1);
    assert!(
        before
            .stderr
            .contains("earliest moment that can be shown is 2026-11-23T15:"),
        "{}",
        before.stderr
    );

    let stats = ledge(&["log", "stats", dir, "--limit", "1MiB", "-o", "json"]);
    assert_eq!(stats.code, 0, "{}", stats.stderr);
    let shown: serde_json::Value = serde_json::from_str(&stats.stdout).unwrap();
    let streams = shown["streams"].as_array().unwrap();
    let data = streams
        .iter()
        .find(|stream| stream["stream"] == "edge-1/up.data")
        .unwrap();
    let first = data["first_seq"].as_u64().unwrap();
    assert!(first > 1);
    // Everything before the window is in gap records, wherever those are now.
    assert_eq!(data["dropped"], first - 1);
    assert!(shown["forecast"]["seconds_kept"].as_u64().unwrap() > 0);
}
