//! Damaged records: those the other end has come back, those it never had are declared.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pair;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ledge_log::{BlockNo, DiskStorage, Log, LogView, ReadError};
use ledge_proto::ids::{Lane, Scope, Seq, StreamId, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::{self, snapshot::Purpose};
use ledge_retention::around::around;
use ledge_retention::gaps::PeerGaps;
use pair::*;

/// Where frame `n` of a stream of the closed log `name` is, bytes from the start of its first segment, and its length.
fn frame_at(site: &Site, name: &str, key: &StreamKey, n: usize) -> (PathBuf, usize, usize) {
    let dir = site.dir.path().join(name);
    let view = LogView::open(Arc::new(DiskStorage), &dir).unwrap();
    let mut reader = view.read_stream(key, Seq::ZERO);
    let frame = std::iter::from_fn(|| reader.next().unwrap()).nth(n).unwrap();
    let path = dir.join(ledge_log::SegmentNo(0).file_name());
    let bytes = std::fs::read(&path).unwrap();
    let frame = &frame.bytes()[..];
    let at = bytes
        .windows(frame.len())
        .position(|found| found == frame)
        .unwrap();
    (path, at, frame.len())
}

/// Flips a bit in the middle of frame `n` of a stream in the closed log `name`.
fn flip(site: &Site, name: &str, key: &StreamKey, n: usize) {
    let (path, at, len) = frame_at(site, name, key, n);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at + len / 2] ^= 8;
    std::fs::write(&path, bytes).unwrap();
}

/// Reads a whole log; what cannot be read is quarantined then. Returns how many stretches are.
fn read_through(log: &Log) -> usize {
    let mut reader = log.read_blocks(BlockNo::ZERO);
    while reader.position() < log.durable_block() {
        if reader.next_block().is_err() {
            reader = log.read_blocks(reader.position().next());
        }
    }
    log.quarantined().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_on_one_side_comes_back_from_the_other() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    let node = Scope::node("edge-1").unwrap();
    for _ in 0..20 {
        append(&edge, "edge-1", Lane::UpData, 3).await;
        append(&cloud, "edge-1", Lane::Down, 2).await;
    }
    append(&edge, "edge-1", Lane::UpState, 1).await;
    let first = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("everything to arrive", || {
        end(&cloud, &edge, Lane::UpData) == Seq(60)
            && end(&cloud, &edge, Lane::UpState) == Seq(1)
            && end(&edge, &cloud, Lane::Down) == Seq(40)
    })
    .await;
    // Each in a block of its own, in the cloud too.
    for n in 1..4 {
        append(&edge, "edge-1", Lane::UpData, 3).await;
        wait_until("three more", || {
            end(&cloud, &edge, Lane::UpData) == Seq(60 + 3 * n)
        })
        .await;
    }
    first.stop().await;
    let data = edge.own_key(&StreamId::new(node.clone(), Lane::UpData));
    let down = cloud.own_key(&StreamId::new(node, Lane::Down));
    edge.close().unwrap();
    cloud.close().unwrap();
    // Blocks in a row, more than are asked for at once.
    harm(
        &site,
        "edge-1",
        &data,
        &[10, 11, 12, 13, 14, 15],
        Harm::Everything,
    );
    // Its own and the other's stream on either side.
    flip(&site, "edge-1", &data, 4);
    flip(&site, "edge-1", &down, 7);
    flip(&site, "cloud", &down, 11);
    flip(&site, "cloud", &data, 21);

    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    assert!(read_through(&edge) >= 2 && read_through(&cloud) >= 2);
    let second = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("what was lost", || {
        edge.quarantined().is_empty() && cloud.quarantined().is_empty()
    })
    .await;
    append(&edge, "edge-1", Lane::UpData, 5).await;
    wait_until("new records", || end(&cloud, &edge, Lane::UpData) == Seq(74)).await;
    second.stop().await;
    for (log, name) in [(edge, "edge-1"), (cloud, "cloud")] {
        assert_eq!(log.stats().damaged, 0, "{name}");
        log.close().unwrap();
        let report = ledge_log::verify(&DiskStorage, &site.dir.path().join(name)).unwrap();
        assert!(report.is_sound(), "{name}: {:?}", report.findings);
    }
}

const UNIT: usize = 4096;

/// What is damaged in a block of the edge's log.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    /// The last byte of its frame: the chain in the frame's header is as it was.
    Payload,
    /// All of it.
    Everything,
}

/// Harms the blocks of the frames `which` of a stream in the closed log `name`. Each is a block of its own.
fn harm(site: &Site, name: &str, key: &StreamKey, which: &[usize], harm: Harm) {
    let places: Vec<_> = which.iter().map(|n| frame_at(site, name, key, *n)).collect();
    for (path, at, len) in places {
        let mut bytes = std::fs::read(&path).unwrap();
        match harm {
            Harm::Payload => bytes[at + len - 1] ^= 1,
            Harm::Everything => bytes[at / UNIT * UNIT..][..UNIT].fill(0),
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

/// Gap records that `log` holds of the edge's telemetry: first and last record, count, reason.
fn gaps(log: &Log, key: &StreamKey) -> Vec<(u64, u64, u64, String)> {
    let mut found = Vec::new();
    let mut reader = log.read_stream(key, Seq::ZERO);
    loop {
        match reader.next() {
            Ok(Some(frame)) => {
                for item in frame.records().unwrap() {
                    let (_, record) = item.unwrap();
                    if record.kind == RecordKind::Gap.as_wire()
                        && let Ok(Payload::Gap(gap)) = Payload::decode(&record)
                    {
                        found.push((gap.first_seq, gap.last_seq, gap.count, gap.reason));
                    }
                }
            }
            Ok(None) => return found,
            Err(ReadError::Jump { .. }) => reader.skip_jump(),
            Err(ReadError::Damaged { .. }) => drop(reader.skip_damage().unwrap()),
            Err(err) => panic!("{err}"),
        }
    }
}

/// Sequence numbers of the records that `log` holds of a stream.
fn held(log: &Log, key: &StreamKey) -> Vec<u64> {
    let mut held = Vec::new();
    let mut reader = log.read_stream(key, Seq::ZERO);
    loop {
        match reader.next() {
            Ok(Some(frame)) => held.extend(frame.first_seq().0..=frame.last_seq().0),
            Ok(None) => return held,
            Err(ReadError::Jump { .. }) => reader.skip_jump(),
            Err(err) => panic!("{err}"),
        }
    }
}

/// Blocks that are damaged, how, and the first and last record of what the cloud never gets; three records are in each block.
type Case = (&'static [usize], Harm, &'static [(u64, u64)]);

/// Telemetry that rots before the cloud ever had it: a gap says so, and everything that can be read arrives.
#[tokio::test(flavor = "multi_thread")]
async fn what_rots_before_it_was_sent_is_a_gap_and_the_rest_arrives() {
    let cases: [Case; 4] = [
        (&[4], Harm::Payload, &[(13, 15)]),
        (&[4, 5, 9], Harm::Payload, &[(13, 18), (28, 30)]),
        // Nothing says what the frame behind continues.
        (&[4], Harm::Everything, &[(13, 18)]),
        (&[4, 5], Harm::Everything, &[(13, 21)]),
    ];
    for (which, how, lost) in cases {
        let site = Site::new();
        let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
        for _ in 0..20 {
            append(&edge, "edge-1", Lane::UpData, 3).await;
        }
        append(&edge, "edge-1", Lane::UpState, 4).await;
        let data = edge.own_key(&StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpData));
        edge.close().unwrap();
        harm(&site, "edge-1", &data, which, how);

        let edge = site.log("edge-1");
        let first = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
        let all = 60 + lost.len() as u64;
        wait_until("what can be read", || {
            end(&cloud, &edge, Lane::UpData) == Seq(all) && end(&cloud, &edge, Lane::UpState) == Seq(4)
        })
        .await;
        first.stop().await;
        let expected: Vec<u64> = (1..=all)
            .filter(|seq| !lost.iter().any(|(first, last)| (first..=last).contains(&seq)))
            .collect();
        assert_eq!(held(&cloud, &data), expected, "{which:?}, {how:?}");
        let told: Vec<_> = lost
            .iter()
            .map(|(first, last)| (*first, *last, last - first + 1, "Corrupt".to_owned()))
            .collect();
        assert_eq!(gaps(&cloud, &data), told, "{which:?}, {how:?}");

        // Both go on, also after a restart, and it is told once.
        edge.close().unwrap();
        let edge = site.log("edge-1");
        append(&edge, "edge-1", Lane::UpData, 5).await;
        let second = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
        wait_until("new records", || end(&cloud, &edge, Lane::UpData) == Seq(all + 5)).await;
        assert_eq!(second.edge_counts.sent_records.load(Ordering::Relaxed), 5);
        second.stop().await;
        assert_eq!(gaps(&cloud, &data), told, "{which:?}, {how:?}");
        cloud.close().unwrap();
        let report = ledge_log::verify(&DiskStorage, &site.dir.path().join("cloud")).unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
    }
}

/// The line is cut when the cloud has taken the snapshot and nothing behind it: its end is a record that the edge cannot
/// read.
#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_ends_at_a_record_the_edge_cannot_read_is_resumed() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    for _ in 0..4 {
        append(&edge, "edge-1", Lane::UpData, 3).await;
    }
    let data = edge.own_key(&StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpData));
    let first = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the first records", || {
        end(&cloud, &edge, Lane::UpData) == Seq(12)
    })
    .await;
    first.stop().await;
    for _ in 0..4 {
        append(&edge, "edge-1", Lane::UpData, 3).await;
    }
    edge.close().unwrap();
    harm(&site, "edge-1", &data, &[5], Harm::Payload);
    let edge = site.log("edge-1");
    let sent = edge.read_stream(&data, Seq(12)).next().unwrap().unwrap();
    cloud.append_frame(sent).await.unwrap();
    let (log, key) = (edge.clone(), data.clone());
    let around = tokio::task::spawn_blocking(move || {
        let found = around(&log, &key, Seq(15)).unwrap().unwrap();
        let declared = PeerGaps::new(key).declare_corrupt(&log, found.lost, stamp());
        assert_eq!(declared.unwrap(), 3);
        found
    });
    let parts = around.await.unwrap().parts.unwrap();
    let parts = parts.into_iter().map(|part| v1::Snapshot {
        purpose: Purpose::Rebase.into(),
        ..part
    });
    cloud.append_snapshot(parts.collect()).await.unwrap();
    assert_eq!(end(&cloud, &edge, Lane::UpData), Seq(18));

    let second = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the rest", || end(&cloud, &edge, Lane::UpData) == Seq(25)).await;
    assert_eq!(second.edge_counts.sent_records.load(Ordering::Relaxed), 7);
    second.stop().await;
    assert_eq!(gaps(&cloud, &data), [(16, 18, 3, "Corrupt".to_owned())]);
}

fn stamp() -> Stamp {
    Stamp {
        wall_us: 1,
        clock: v1::ClockQuality::ClockSynced,
        mono_us: 1,
    }
}
