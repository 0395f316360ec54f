//! Bits that flip in a stopped daemon's log: it starts again, goes on, and gets back from the other end what it cannot
//! read, until its log is byte for byte what it was.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ledge::quickstart::claims::{self, Side};
use ledge::quickstart::probe;
use ledge_log::{DiskStorage, LogView};
use ledge_proto::ids::{Lane, Seq};

use crate::damaged_log::first_segment;
use crate::support::place::{NOWHERE, Place, node, until};

const UNIT: usize = 4096;
/// Records the edge has sent before anything rots.
const ENOUGH: u64 = 60;

/// A site that has lived for a while and was stopped in order, so that both sides hold the same.
async fn lived() -> (
    Place,
    std::net::SocketAddr,
    Vec<ledge::quickstart::daemons::Daemon>,
) {
    let place = Place::new().await;
    let running = place.start_everything().await;
    place.site.write_manifests(running.device, 31.0).unwrap();
    place.edge_writes(running.device, 310).await;
    place.cloud_holds(ENOUGH).await;
    running.edge.stop().await.unwrap();
    place.cloud_catches_up().await;
    running.cloud.daemon.stop().await.unwrap();
    place.assert_sound();
    (place, running.device, vec![running.simulator])
}

/// Where the frame of `lane` that is `back` frames from its last is, bytes from the start of the first segment.
pub(crate) fn frame_of(dir: &Path, lane: Lane, back: usize) -> usize {
    let view = LogView::open(Arc::new(DiskStorage), &dir.join("log")).unwrap();
    let streams = view.streams();
    let stream = streams
        .iter()
        .find(|stream| stream.key.id.lane == lane && stream.key.id.scope == node())
        .unwrap();
    let mut reader = view.read_stream(&stream.key, Seq::ZERO);
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        frames.push(frame.bytes().clone());
    }
    let wanted = &frames[frames.len() - 1 - back][..];
    let bytes = fs::read(first_segment(dir)).unwrap();
    bytes
        .windows(wanted.len())
        .position(|found| found == wanted)
        .unwrap()
}

/// Flips a bit of the first segment of `dir`. Returns what it was before.
pub(crate) fn flip(dir: &Path, at: usize) -> Vec<u8> {
    let path = first_segment(dir);
    let before = fs::read(&path).unwrap();
    let mut bytes = before.clone();
    bytes[at] ^= 4;
    fs::write(&path, &bytes).unwrap();
    before
}

/// The header of the block that byte `at` is in.
fn header_of(dir: &Path, at: usize) -> usize {
    let bytes = fs::read(first_segment(dir)).unwrap();
    (0..=at / UNIT)
        .rev()
        .map(|unit| unit * UNIT)
        .find(|start| bytes[*start..].starts_with(b"LBK1"))
        .unwrap()
}

/// Both logs are whole and hold the same, once each.
fn assert_same(place: &Place) {
    place.assert_sound();
    let (edge, cloud) = (
        Side::read(&place.site.edge_dir(), &node(), "").unwrap(),
        Side::read(&place.site.cloud_dir(), &node(), "").unwrap(),
    );
    for claim in [
        claims::nothing_lost_or_doubled(&edge, &cloud),
        claims::same_hash(&edge, &cloud, &node()),
    ] {
        assert!(
            claim.holds,
            "{claim:?}\n{}\n{}",
            place.cloud_said(),
            place.edge_said()
        );
    }
}

/// Starts both again, waits until the damaged end has put everything back, and stops them.
async fn heals(place: &Place, dir: &Path, before: &[u8], at: usize) {
    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    let segment = first_segment(dir);
    let block = header_of(dir, at);
    until("the block to be put back", || {
        fs::read(&segment).unwrap()[block..block + UNIT] == before[block..block + UNIT]
    })
    .await;
    let metrics = if dir == place.site.cloud_dir() {
        place.cloud_says(&["damaged records came back"]).await;
        probe::http_get(cloud.http, "/metrics").await.unwrap()
    } else {
        place.edge_says(&["damaged records came back"]).await;
        String::new()
    };
    if dir == place.site.cloud_dir() {
        assert!(
            metrics.contains("ledge_repl_refill_total{result=\"restored\"} 1"),
            "{metrics}"
        );
    }
    edge.stop().await.unwrap();
    place.cloud_catches_up().await;
    cloud.daemon.stop().await.unwrap();
    assert!(dir.join("log/quarantine").is_dir(), "the damaged bytes were kept");
    assert_same(place);
}

#[tokio::test]
async fn telemetry_that_rots_on_the_edge_comes_back_from_the_cloud() {
    let (place, _, _device) = lived().await;
    let dir = place.site.edge_dir();
    let at = frame_of(&dir, Lane::UpData, 3) + 60;
    let before = flip(&dir, at);
    heals(&place, &dir, &before, at).await;
}

#[tokio::test]
async fn a_directory_that_rots_is_noticed_at_the_start() {
    let (place, _, _device) = lived().await;
    let dir = place.site.edge_dir();
    let at = header_of(&dir, frame_of(&dir, Lane::UpData, 3)) + 64 + 9;
    let before = flip(&dir, at);
    let edge = place.start_edge(NOWHERE).await;
    place
        .edge_says(&["these records cannot be read", "up.data"])
        .await;
    edge.stop().await.unwrap();
    heals(&place, &dir, &before, at).await;
}

#[tokio::test]
async fn desired_state_that_rots_on_the_edge_comes_back_from_the_cloud() {
    let (place, _, _device) = lived().await;
    let dir = place.site.edge_dir();
    let at = frame_of(&dir, Lane::Down, 1) + 60;
    let before = flip(&dir, at);
    heals(&place, &dir, &before, at).await;
}

#[tokio::test]
async fn what_rots_in_the_cloud_comes_back_from_the_edge() {
    for lane in [Lane::UpData, Lane::Down] {
        let (place, _, _device) = lived().await;
        let dir = place.site.cloud_dir();
        let at = frame_of(&dir, lane, 1) + 60;
        let before = flip(&dir, at);
        heals(&place, &dir, &before, at).await;
    }
}
