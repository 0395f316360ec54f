//! cloudcore within the least limit it takes: what it gives up is declared as its own doing, and nodes that come late or
//! are new get what they should know from a log that no longer begins at the beginning.

use std::path::Path;
use std::time::{Duration, Instant};

use ledge::quickstart::claims::records_up;
use ledge::quickstart::daemons::Launch;
use ledge::quickstart::probe;
use ledge::quickstart::site::{NODE, address};
use ledge_proto::ids::Scope;

use super::bounded::{MIB, dropped, ledge, set_disk, sql, telemetry};
use super::within_limit::Watched;
use crate::support::place::{Place, SEGMENT, until, with};

const LEAST: u64 = 256 * MIB + 3 * SEGMENT + 64 * 1024;
/// A node with much to tell.
const OTHER: &str = "edge-2";

/// First and last sequence number of a stream as `ledge log stats` shows them.
fn span(place: &Place, dir: &Path, stream: &str) -> (u64, u64) {
    let stats = ledge(place, &["log", "stats", dir.to_str().unwrap()]);
    let streams = stats[0]["streams"].as_array().unwrap();
    let found = streams.iter().find(|found| found["stream"] == stream);
    found.map_or((0, 0), |found| {
        let of = |field: &str| found[field].as_u64().unwrap();
        (of("first_seq"), of("head"))
    })
}

#[tokio::test]
async fn a_late_node_and_a_new_one_get_a_snapshot_and_then_the_tail_of_a_log_that_was_cut() {
    let place = Place::new().await;
    let (_simulator, device) = place.site.start_device().await.unwrap();
    place.site.write_manifests(device, 30.0).unwrap();
    let (edge_dir, cloud_dir) = (place.site.edge_dir(), place.site.cloud_dir());
    let launch = place.cloud();
    set_disk(&place.path("cloudcore.yaml"), &format!("limit: {LEAST}"));
    let cloud = launch.start().await.unwrap();
    let hub = address(&cloud, "edges on ").unwrap();
    let watched = Watched::start(cloud_dir.clone());
    let edge = place.start_edge(hub).await;
    place.edge_writes(device, 300).await;
    // A value may go ahead of its record.
    let down = format!("{NODE}/down");
    until("the record of the wish", || span(&place, &edge_dir, &down).1 > 0).await;
    edge.stop().await.unwrap();
    let (_, known) = span(&place, &edge_dir, &down);

    // Two wishes while it is away; before the second, another node tells more than the cloud may keep.
    place.site.write_manifests(device, 35.0).unwrap();
    until("the first wish", || span(&place, &cloud_dir, &down).1 > known).await;
    let (_, compacted) = span(&place, &cloud_dir, &down);
    let other_dir = place.path("edge-2");
    telemetry(&place, (OTHER, &other_dir), 5 * SEGMENT, 1_800_000_000_000_000);
    let certs = place.issue_node(OTHER);
    let other = with(
        Launch {
            log: place.path("edge-2.log"),
            ..place.site.edgecore(hub).unwrap()
        },
        &[
            ("--data-dir", &other_dir),
            ("--node-name", Path::new(OTHER)),
            ("--cert", &certs.cert),
            ("--key", &certs.key),
        ],
    );
    let other = other.start().await.unwrap();
    let scope = Scope::node(OTHER).unwrap();
    let began = Instant::now();
    let held = |dir: &Path| records_up(dir, &scope).unwrap();
    while held(&cloud_dir) < held(&other_dir) || span(&place, &cloud_dir, &down).0 <= compacted {
        assert!(
            began.elapsed() < Duration::from_secs(180),
            "{} of {}\n{}",
            held(&cloud_dir),
            held(&other_dir),
            place.cloud_said()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    other.stop().await.unwrap();
    place.site.write_manifests(device, 42.0).unwrap();
    until("the second wish", || {
        span(&place, &cloud_dir, &down).1 > compacted
    })
    .await;

    // Late: what it knew is long gone from the cloud's log.
    let edge = place.start_edge(hub).await;
    place.edge_writes(device, 420).await;
    let has_all = || span(&place, &edge_dir, &down).1 == span(&place, &cloud_dir, &down).1;
    until("the tail at the late node", has_all).await;
    edge.stop().await.unwrap();

    // New: it never knew anything.
    std::fs::remove_dir_all(&edge_dir).unwrap();
    let setpoint = place.site.registers().setpoint;
    probe::write_register(device, setpoint, 170).await.unwrap();
    let edge = place.start_edge(hub).await;
    place.edge_writes(device, 420).await;
    until("the tail at the new node", has_all).await;
    edge.stop().await.unwrap();
    let (first, _) = span(&place, &edge_dir, &down);
    assert!(
        first > compacted,
        "{first} after {compacted}: it began with a snapshot"
    );

    cloud.stop().await.unwrap();
    let most = watched.most();
    assert!(most <= LEAST, "{most} of {LEAST}\n{}", place.cloud_said());
    place.assert_sound();
    // The cloud says that it was the cloud, and what it gave up.
    let gaps = "SELECT node, reason, told_by, sum(dropped) AS n FROM gaps GROUP BY 1, 2, 3";
    let gaps = sql(&place, &cloud_dir, gaps);
    let of_other = gaps.iter().find(|gap| gap["node"] == OTHER).unwrap();
    assert_eq!(of_other["reason"], "DiskLimit", "{gaps:?}");
    assert_eq!(of_other["told_by"], "cloud", "{gaps:?}");
    let lost = dropped(&place, &cloud_dir, "edge-2/local");
    assert!(lost > 1000, "{lost}");
    assert_eq!(of_other["n"], lost);
    assert!(sql(&place, &other_dir, "SELECT * FROM gaps").is_empty());
}
