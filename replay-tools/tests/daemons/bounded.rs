//! A limit for the disk: it holds, what goes because of it is declared, and it can be changed while the daemon runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ledge::quickstart::site::NODE;
use ledge_log::{DiskStorage, Log, LogView, Options};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;

use super::full_disk::{SmallDisk, noise};
use crate::support::place::{NOWHERE, Place, SEGMENT, until};

pub(crate) const MIB: u64 = 1 << 20;
/// What an edge's projection may grow to.
const PROJECTION: u64 = 68 * MIB;
const LOG_LEAST: u64 = 3 * SEGMENT + 64 * 1024;
const HOUR_US: i64 = 3_600_000_000;

/// Bytes on disk of everything under `dir`, as `du` counts them.
pub(crate) fn used(dir: &Path) -> u64 {
    let mut total = 0;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        total += if meta.is_dir() {
            used(&entry.path())
        } else {
            meta.blocks() * 512
        };
    }
    total
}

/// Writes the node's telemetry of many hours, at one sample a second, into its log while nobody else does: `bytes` of it.
fn weeks_offline(place: &Place, bytes: u64, from_us: i64) -> i64 {
    telemetry(place, (NODE, &place.site.edge_dir()), bytes, from_us)
}

/// As [`weeks_offline`], of the node of that name with its data in that directory.
pub(crate) fn telemetry(place: &Place, node: (&str, &Path), bytes: u64, from_us: i64) -> i64 {
    // A thread that may block: not one of the runtime's.
    std::thread::scope(|scope| {
        let filled = scope.spawn(|| fill_log(place, node, bytes, from_us));
        filled.join().unwrap()
    })
}

/// Opens the log of the node `name` in its data directory.
pub(crate) fn open_log(place: &Place, (name, dir): (&str, &Path)) -> Log {
    let options = Options {
        segment_bytes: SEGMENT,
        prepare_ahead: false,
        ..Options::new(place.authority().cluster(), name)
    };
    let (log, _) = Log::open(Arc::new(DiskStorage), &dir.join("log"), options).unwrap();
    log
}

fn fill_log(place: &Place, (name, dir): (&str, &Path), bytes: u64, from_us: i64) -> i64 {
    let log = open_log(place, (name, dir));
    let up_data = StreamId::new(Scope::node(name).unwrap(), Lane::UpData);
    let (boot, mut at_us) = (log.identity().boot, from_us);
    let noise = noise(100 << 10);
    while log.stats().written_bytes < bytes {
        let event = Payload::DaemonEvent(v1::Event {
            reason: "Noise".into(),
            message: noise.clone(),
        });
        let samples = (0..300).map(|n| {
            let value = v1::value::Value::Double(f64::from(n));
            let sample = v1::Sample {
                value: Some(v1::Value { value: Some(value) }),
            };
            ("default/boiler/temperature".to_owned(), Payload::Sample(sample))
        });
        let payloads = std::iter::once((name.to_owned(), event)).chain(samples);
        let records = payloads.map(|(key, payload)| {
            at_us += 1_000_000;
            let (kind, payload) = payload.encode();
            v1::Record {
                kind,
                key,
                wall_us: at_us,
                clock: v1::ClockQuality::ClockSynced.into(),
                boot,
                mono_us: u64::try_from(at_us - from_us).unwrap(),
                payload: payload.into(),
                ..Default::default()
            }
        });
        log.append_blocking(&up_data, records.collect()).unwrap();
    }
    log.close().unwrap();
    at_us
}

/// Runs `ledge` on a data directory and takes its JSON documents.
pub(crate) fn ledge(place: &Place, args: &[&str]) -> Vec<serde_json::Value> {
    let output = Command::new(place.site.ledge())
        .args(args)
        .args(["-o", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    documents.collect::<Result<_, _>>().unwrap()
}

pub(crate) fn sql(place: &Place, dir: &Path, query: &str) -> Vec<serde_json::Value> {
    let documents = ledge(place, &["sql", dir.to_str().unwrap(), query]);
    let rows = documents.into_iter().flat_map(|document| match document {
        serde_json::Value::Array(rows) => rows,
        row => vec![row],
    });
    rows.collect()
}

/// What `ledge log stats` counts as dropped in the stream `lane` of the node.
pub(crate) fn dropped(place: &Place, dir: &Path, lane: &str) -> u64 {
    let stats = ledge(place, &["log", "stats", dir.to_str().unwrap()]);
    let streams = stats[0]["streams"].as_array().unwrap().iter();
    streams
        .filter(|stream| stream["stream"].as_str().unwrap().ends_with(lane))
        .map(|stream| stream["dropped"].as_u64().unwrap())
        .sum()
}

/// Sets keys of `ledge.disk` in a daemon's configuration file.
pub(crate) fn set_disk(file: &Path, settings: &str) {
    let text = fs::read_to_string(file).unwrap();
    let text = match text.find("  disk: {") {
        Some(at) => {
            let end = text[at..].find('\n').unwrap() + at + 1;
            format!("{}{}", &text[..at], &text[end..])
        }
        None => text,
    };
    let text = text.replace("ledge:\n", &format!("ledge:\n  disk: {{{settings}}}\n"));
    fs::write(file, text).unwrap();
}

fn hang_up(pid: Option<u32>) {
    let pid = i32::try_from(pid.unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::HUP,
    )
    .unwrap();
}

fn log_bytes(place: &Place) -> u64 {
    used(&place.site.edge_dir().join("log"))
}

#[tokio::test]
async fn weeks_offline_within_a_limit_are_declared_and_reach_the_cloud() {
    let place = Place::new().await;
    let (_simulator, device) = place.site.start_device().await.unwrap();
    place.site.write_manifests(device, 30.0).unwrap();
    // It knows its device before it goes offline.
    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    place.cloud_holds(20).await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();

    let (edge_dir, cloud_dir) = (place.site.edge_dir(), place.site.cloud_dir());
    let limit = PROJECTION + LOG_LEAST + MIB;
    let mut at_us = 1_800_000_000_000_000;
    for _ in 0..3 {
        at_us = weeks_offline(&place, 5 * SEGMENT, at_us + HOUR_US);
        let launch = place.site.edgecore(NOWHERE).unwrap();
        set_disk(
            &place.path("edgecore.yaml"),
            &format!("limit: {limit}, degrade: averages"),
        );
        let edge = launch.start().await.unwrap();
        let before = place.edge_records();
        // Telemetry goes on, the device is looked after, and the limit holds.
        until("telemetry to go on", || place.edge_records() > before + 200).await;
        place.edge_writes(device, 300).await;
        assert!(used(&edge_dir) <= limit, "{} of {limit}", used(&edge_dir));
        edge.stop().await.unwrap();
        assert!(used(&edge_dir) <= limit, "{} of {limit}", used(&edge_dir));
    }
    let gaps =
        "SELECT reason, replaced_by, told_by, sum(dropped) AS n FROM gaps GROUP BY 1, 2, 3 ORDER BY 1, 2";
    let here = sql(&place, &edge_dir, gaps);
    assert!(
        here.iter()
            .all(|gap| gap["reason"] == "DiskLimit" && gap["told_by"] == "node"),
        "{here:?}"
    );
    assert!(
        here.iter().any(|gap| gap["replaced_by"] == "minute averages"),
        "{here:?}"
    );
    let methods = |dir: &Path| {
        // What the device still says, runs among it, is beside it.
        let kept = "SELECT DISTINCT method FROM samples WHERE method <> 'run' ORDER BY method";
        let rows = sql(&place, dir, kept);
        let names = rows.iter().map(|row| row["method"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(methods(&edge_dir), ["last value", "minute average", "raw"]);
    let lost = dropped(&place, &edge_dir, "up.data");
    assert!(lost > 1000, "{lost}");

    // All of it reaches the cloud, with what took its place.
    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    place.cloud_catches_up().await;
    place.site.write_manifests(device, 42.0).unwrap();
    place.edge_writes(device, 420).await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
    assert_eq!(sql(&place, &cloud_dir, gaps), sql(&place, &edge_dir, gaps));
    assert_eq!(methods(&cloud_dir), ["last value", "minute average", "raw"]);
    assert_eq!(
        dropped(&place, &cloud_dir, "up.data"),
        dropped(&place, &edge_dir, "up.data")
    );
}

#[tokio::test]
async fn the_limit_is_lowered_and_raised_while_edgecore_runs() {
    let place = Place::new().await;
    weeks_offline(&place, 5 * SEGMENT, 1_800_000_000_000_000);
    let launch = place.site.edgecore(NOWHERE).unwrap();
    let file: PathBuf = place.path("edgecore.yaml");
    set_disk(&file, &format!("limit: {}", PROJECTION + 20 * SEGMENT));
    let edge = launch.start().await.unwrap();
    assert!(log_bytes(&place) > 4 * SEGMENT);

    set_disk(&file, &format!("limit: {}", PROJECTION + LOG_LEAST));
    hang_up(edge.pid());
    until("the log to shrink", || log_bytes(&place) <= LOG_LEAST).await;
    place.edge_says(&["the disk limit was changed"]).await;
    let gaps = "SELECT reason FROM gaps";
    assert_eq!(
        sql(&place, &place.site.edge_dir(), gaps)[0]["reason"],
        "DiskLimit"
    );

    // What cannot be used changes nothing and ends nothing.
    set_disk(&file, "limit: 1MiB");
    hang_up(edge.pid());
    place
        .edge_says(&["the disk settings stay as they were", "too small"])
        .await;
    set_disk(&file, "limit: much");
    hang_up(edge.pid());
    place
        .edge_says(&["the configuration cannot be used", "ledge.disk.limit"])
        .await;

    set_disk(&file, &format!("limit: {}", PROJECTION + 9 * SEGMENT));
    hang_up(edge.pid());
    until("the limit to be raised", || {
        place.edge_said().matches("the disk limit was changed").count() == 2
    })
    .await;
    edge.stop().await.unwrap();
    place.assert_sound();
    let view = LogView::open(Arc::new(DiskStorage), &place.site.edge_dir().join("log")).unwrap();
    assert!(view.segments().len() <= 3, "nothing comes back");
}

/// Others fill the disk while edgecore has a backlog: the oldest goes, and it goes on in the room it has.
#[tokio::test]
async fn others_fill_the_disk_and_make_room_again() {
    let place = Place::new().await;
    let Some(disk) = SmallDisk::mount(&place.site.edge_dir(), 400) else {
        return;
    };
    let (_simulator, device) = place.site.start_device().await.unwrap();
    place.site.write_manifests(device, 30.0).unwrap();
    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    place.cloud_holds(20).await;
    edge.stop().await.unwrap();
    // The last segment is past its half, so that the next one is wanted at once.
    weeks_offline(&place, 3 * SEGMENT - (2 << 20), 1_800_000_000_000_000);
    // Once more with room: everything is folded.
    place.start_edge(NOWHERE).await.stop().await.unwrap();
    let filler = disk.fill(SEGMENT / 4);
    let edge = place.start_edge(NOWHERE).await;
    place.edge_says(&["was given up; a gap record tells which"]).await;
    let before = place.edge_records();
    until("telemetry to go on", || place.edge_records() > before + 50).await;
    fs::remove_file(&filler).unwrap();
    let before = place.edge_records();
    until("telemetry to go on", || place.edge_records() > before + 50).await;
    edge.stop().await.unwrap();
    let edge = place.start_edge(cloud.hub).await;
    place.cloud_catches_up().await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
    let gaps = "SELECT reason, first_seq, last_seq, dropped FROM gaps ORDER BY first_seq";
    let told = sql(&place, &place.site.cloud_dir(), gaps);
    assert!(
        // What others take away counts against the share of a limit in percent.
        !told.is_empty()
            && told
                .iter()
                .all(|gap| gap["reason"] == "DiskFull" || gap["reason"] == "DiskLimit"),
        "{told:?}"
    );
    assert_eq!(told, sql(&place, &place.site.edge_dir(), gaps));
}
