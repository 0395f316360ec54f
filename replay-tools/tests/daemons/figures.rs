//! What operators see of a daemon's log: asked while it runs, read in its directory when it is stopped, and the metrics.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ledge::quickstart::probe;
use ledge::quickstart::site::{NODE, address};
use ledge_proto::ids::Lane;
use serde_json::Value;

use super::bounded::telemetry;
use crate::support::place::{NOWHERE, Place, SEGMENT, until};

fn stats(place: &Place, args: &[&str]) -> Value {
    let output = Command::new(place.site.ledge())
        .args(["log", "stats", "-o", "json"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stream<'a>(stats: &'a Value, name: &str) -> &'a Value {
    let streams = stats["streams"].as_array().unwrap();
    let named = streams.iter().find(|stream| stream["stream"] == name);
    named.unwrap_or_else(|| panic!("no {name} in {stats:#}"))
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is not a number"))
}

#[tokio::test]
async fn a_running_daemon_tells_and_a_stopped_one_has_noted() {
    let place = Place::new().await;
    let all = place.start_everything().await;
    let edge_http = address(&all.edge, "health on ").unwrap().to_string();
    let cloud_http = all.cloud.http.to_string();
    let up_data = format!("{NODE}/up.data");

    until("the edge to hear what is archived", || {
        let told = stats(&place, &["--address", &edge_http]);
        number(&stream(&told, &up_data)["archived"]) > 0.0
            && number(&stream(&told, &up_data)["applied"]) > 0.0
            && number(&told["fsync"]["count"]) > 0.0
    })
    .await;
    let told = stats(&place, &["--address", &edge_http]);
    let samples = stream(&told, &up_data);
    let of = |field: &str| number(&samples[field]);
    assert!(
        of("archived") <= of("durable") && of("durable") <= of("head"),
        "{samples:#}"
    );
    assert!(
        of("applied") <= of("head") && of("lag_records") <= of("head"),
        "{samples:#}"
    );
    assert!(
        of("stored_bytes") > 0.0 && of("lag_seconds") >= 0.0,
        "{samples:#}"
    );
    assert_eq!((of("gaps"), of("dropped")), (0.0, 0.0));
    for document in [told, stats(&place, &["--address", &cloud_http])] {
        assert!(number(&document["fsync"]["p99_seconds"]) > 0.0, "{document:#}");
        let disk = &document["disk"];
        assert!(
            number(&disk["limit_bytes"]) > number(&disk["log_limit_bytes"]),
            "{disk:#}"
        );
        assert!(number(&disk["forecast_seconds"]) > 0.0, "{disk:#}");
    }
    let shown = Command::new(place.site.ledge())
        .args(["log", "stats", "--address", &edge_http])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("APPLIED") && shown.contains("limit for both"),
        "{shown}"
    );

    // Running, noted at its start; stopped, as it ended.
    let dir = place.site.edge_dir();
    let dir = dir.to_str().unwrap();
    until("the note of the start", || {
        stats(&place, &[dir])["daemon"]["stopped"] == false
    })
    .await;
    all.edge.stop().await.unwrap();
    let noted = stats(&place, &[dir]);
    assert_eq!(noted["daemon"]["stopped"], true);
    assert!(number(&noted["daemon"]["fsync"]["count"]) > 0.0, "{noted:#}");
    let samples = stream(&noted, &up_data);
    assert!(number(&samples["applied"]) > 0.0, "{samples:#}");
    assert_eq!(
        noted["forecast"]["limit_bytes"],
        noted["daemon"]["disk"]["log_limit_bytes"]
    );

    let gone = Command::new(place.site.ledge())
        .args(["log", "stats", "--address", &edge_http])
        .output()
        .unwrap();
    let error = String::from_utf8(gone.stderr).unwrap();
    assert!(
        !gone.status.success() && error.contains("no daemon answers on"),
        "{error}"
    );
    all.cloud.daemon.stop().await.unwrap();
}

type Fold = fn(f64, f64) -> f64;

/// What `ledge log stats` says of all streams of a lane: the largest, or the sum, of a field.
fn of_lane(told: &Value, lane: Lane, field: &str, fold: Fold) -> f64 {
    let streams = told["streams"].as_array().unwrap().iter();
    // The streams of the cluster as a whole count in sums only.
    let of_node = matches!(field, "head" | "applied");
    let of = streams.filter(|stream| {
        let name = stream["stream"].as_str().unwrap();
        let (scope, of) = name.rsplit_once('/').unwrap();
        of == lane.name() && (scope == NODE || !of_node)
    });
    of.filter_map(|stream| stream[field].as_f64()).fold(0.0, fold)
}

fn sum(a: f64, b: f64) -> f64 {
    a + b
}

/// Where the metrics say something else than `ledge log stats`.
fn differences(told: &Value, metrics: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let is = probe::metric(metrics, name, labels);
        if (is - expected).abs() > 0.001 {
            found.push(format!("{name}{labels:?} is {is}, not {expected}"));
        }
    };
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let (max, sum): (Fold, Fold) = (f64::max, sum);
    for lane in [Lane::UpState, Lane::UpData, Lane::Down] {
        let named = [("lane", lane.name())];
        for (name, field, fold) in [
            ("ledge_log_head_seq_max", "head", max),
            ("ledge_log_applied_seq_max", "applied", max),
            ("ledge_log_bytes", "stored_bytes", sum),
            ("ledge_log_records", "records", sum),
            ("ledge_log_gaps", "gaps", sum),
            ("ledge_log_gap_records", "dropped", sum),
            ("ledge_log_peer_durable_seq_max", "durable", max),
            ("ledge_log_archived_seq_max", "archived", max),
            ("ledge_log_unarchived_records", "lag_records", sum),
        ] {
            compare(name, &named, of_lane(told, lane, field, fold));
        }
    }
    let disk = &told["disk"];
    for (name, field) in [
        ("ledge_disk_limit_bytes", "limit_bytes"),
        ("ledge_log_disk_limit_bytes", "log_limit_bytes"),
        ("ledge_log_disk_used_bytes", "log_used_bytes"),
    ] {
        compare(name, &[], number(&disk[field]));
    }
    compare("ledge_log_fsyncs_total", &[], number(&told["fsync"]["count"]));
    found
}

/// Asks a daemon to which nothing happens until both ways of asking say the same. Returns both.
async fn agreeing(place: &Place, http: SocketAddr) -> (Value, String) {
    let began = Instant::now();
    loop {
        let metrics = probe::http_get(http, "/metrics").await.unwrap();
        let told = stats(place, &["--address", &http.to_string()]);
        let different = differences(&told, &metrics);
        if different.is_empty() {
            return (told, metrics);
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{different:#?}\n{told:#}\n{metrics}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn assert_complete(metrics: &str) {
    let metric = |name| probe::metric(metrics, name, &[]);
    // Each is there and says something.
    for name in [
        "ledge_log_durable_block",
        "ledge_log_applied_block",
        "ledge_log_fsync_seconds",
        "ledge_log_disk_free_bytes",
        "ledge_disk_rest_bytes",
        "ledge_disk_used_bytes",
        "ledge_log_forecast_seconds",
    ] {
        assert!(metric(name) > 0.0, "{name} in {metrics}");
        assert!(
            metrics.contains(&format!("# HELP {name} ")),
            "{name} in {metrics}"
        );
    }
    for name in [
        "ledge_log_apply_lag_blocks",
        "ledge_log_full",
        "ledge_disk_short_bytes",
    ] {
        assert!(metrics.contains(&format!("\n{name} 0")), "{name} in {metrics}");
    }
    let used = metric("ledge_disk_rest_bytes") + metric("ledge_log_disk_used_bytes");
    assert!(metric("ledge_disk_used_bytes") <= used + 1e6, "{metrics}");
}

#[tokio::test]
async fn the_metrics_of_both_daemons_say_what_log_stats_says() {
    let place = Place::new().await;
    // A backlog of which the edge's limit let some go: gaps, and a lag.
    let (edge_dir, least) = (place.site.edge_dir(), 68 * super::bounded::MIB + 4 * SEGMENT);
    let launch = place.site.edgecore(NOWHERE).unwrap();
    telemetry(&place, (NODE, &edge_dir), 5 * SEGMENT, 1_790_000_000_000_000);
    let limit = format!("limit: {least}");
    super::bounded::set_disk(&place.path("edgecore.yaml"), &limit);
    let edge = launch.start().await.unwrap();
    let http = address(&edge, "health on ").unwrap();
    let (told, metrics) = agreeing(&place, http).await;
    assert_complete(&metrics);
    let of = |field| of_lane(&told, Lane::UpData, field, sum);
    assert!(of("gaps") >= 1.0 && of("dropped") > 1000.0, "{told:#}");
    assert!(
        of("lag_records") > 1000.0 && of("archived") < of("head"),
        "{told:#}"
    );
    assert_eq!(of("applied"), of("head"));
    let lag = [("lane", "up.data")];
    let seconds = probe::metric(&metrics, "ledge_log_unarchived_seconds", &lag);
    // Whoever asks later sees older records.
    assert!(
        seconds > 0.0 && (seconds - of("lag_seconds")).abs() < 60.0,
        "{seconds} {told:#}"
    );
    edge.stop().await.unwrap();

    // The cloud takes all of it: no lag is left, and what it holds is durable at the other end.
    let cloud = place.start_cloud().await;
    let launch = place.site.edgecore(cloud.hub).unwrap();
    super::bounded::set_disk(&place.path("edgecore.yaml"), &limit);
    let edge = launch.start().await.unwrap();
    let http = address(&edge, "health on ").unwrap();
    place.cloud_catches_up().await;
    until("everything to be archived", || {
        let told = stats(&place, &["--address", &http.to_string()]);
        of_lane(&told, Lane::UpData, "lag_records", sum) == 0.0
    })
    .await;
    let (told, metrics) = agreeing(&place, http).await;
    assert_complete(&metrics);
    let of = |field| of_lane(&told, Lane::UpData, field, sum);
    assert_eq!((of("durable"), of("archived")), (of("head"), of("head")));
    let (told, metrics) = agreeing(&place, cloud.http).await;
    assert_complete(&metrics);
    assert!(of_lane(&told, Lane::UpData, "gaps", sum) >= 1.0, "{told:#}");
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
}
