//! What operators see of a daemon's log: asked while it runs, read in its directory when it is stopped, and the metrics.

use std::process::Command;

use ledge::quickstart::site::{NODE, address};
use serde_json::Value;

use crate::support::place::{Place, until};

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
