//! A projection of a log of which the beginning is gone: equal to what all of it ever folded to.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use ledge_log::{BlockNo, DiskStorage, Log, Options};
use ledge_projection::{Follower, Opened, Options as ProjectionOptions, Projection};
use ledge_proto::fold::State;
use ledge_proto::ids::{ClusterId, Lane, Scope, Seq, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::stamp::Stamp;
use ledge_proto::v1;
use ledge_retention::{Outcome, Policy, Retention};

const SEGMENT: u64 = 64 * 1024;

fn scope() -> Scope {
    Scope::node("edge-1").unwrap()
}

fn open(dir: &Path) -> Log {
    let options = Options {
        segment_bytes: SEGMENT,
        max_bytes: Some(4 * SEGMENT + 16 * 1024),
        ..Options::new(ClusterId([1; 16]), "edge-1")
    };
    Log::open(Arc::new(DiskStorage), &dir.join("log"), options)
        .unwrap()
        .0
}

fn stamp(n: u64) -> Stamp {
    Stamp {
        wall_us: 0,
        clock: v1::ClockQuality::ClockBeforeBuild,
        mono_us: n,
    }
}

fn value(n: u64) -> Option<v1::Value> {
    Some(v1::Value {
        value: Some(v1::value::Value::Double(n as f64)),
    })
}

/// Appends rounds of both lanes and gives up what has to go. Returns how many segments went, and folds everything into
/// `all` as it comes.
fn write(log: &Log, retention: &mut Retention, rounds: std::ops::Range<u64>, all: &mut Seen) -> u64 {
    let mut gone = 0;
    for n in rounds {
        let samples = (0..40).map(|m| {
            let payload = Payload::Sample(v1::Sample {
                value: value(n * 40 + m),
            });
            stamp(n).record(1, format!("d/p/{}", m % 7), &payload)
        });
        let id = |lane| StreamId::new(scope(), lane);
        log.append_blocking(&id(Lane::UpData), samples.collect()).unwrap();
        let reported = Payload::TwinReported(v1::TwinReported { value: value(n) });
        let reported = stamp(n).record(1, format!("d/p/{}", n % 90), &reported);
        log.append_blocking(&id(Lane::UpState), vec![reported]).unwrap();
        all.read(log);
        while let Outcome::GaveUp(_) = retention.step(log, &|_| Seq(0), stamp(n)).unwrap() {
            gone += 1;
            all.read(log);
        }
    }
    gone
}

#[derive(Default)]
struct Seen {
    state: State,
    block: BlockNo,
}

impl Seen {
    fn read(&mut self, log: &Log) {
        let mut reader = log.read_blocks(self.block);
        while let Some(block) = reader.next_block().unwrap() {
            for frame in block.frames() {
                self.state.apply_frame(&frame.unwrap()).unwrap();
            }
            self.block = block.no;
        }
    }
}

fn fold(dir: &Path, log: &Log) -> ([u8; 32], Opened) {
    let (projection, opened) =
        Projection::open(&dir.join("projection"), log, &ProjectionOptions::edge()).unwrap();
    Follower::catch_up(log, &projection, || false).unwrap();
    assert_eq!(projection.applied().block, log.durable_block());
    projection.persist().unwrap();
    (projection.state_hash(&scope()).unwrap(), opened)
}

#[test]
fn a_rebuild_after_compaction_gives_the_same_hash() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (mut retention, mut all) = (Retention::new(Policy::default()), Seen::default());
    assert!(write(&log, &mut retention, 0..400, &mut all) > 3);
    let expected = all.state.hash(&scope());
    assert_eq!(fold(dir.path(), &log).0, expected, "from nothing");
    assert_eq!(fold(dir.path(), &log), (expected, Opened::Continuing), "going on");
    std::fs::remove_dir_all(dir.path().join("projection")).unwrap();
    assert_eq!(fold(dir.path(), &log).0, expected, "rebuilt");
}

#[test]
fn one_that_was_left_behind_is_folded_again_from_the_bases() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (mut retention, mut all) = (Retention::new(Policy::default()), Seen::default());
    write(&log, &mut retention, 0..20, &mut all);
    fold(dir.path(), &log);
    assert!(write(&log, &mut retention, 20..400, &mut all) > 3);
    let (hash, opened) = fold(dir.path(), &log);
    assert_eq!(hash, all.state.hash(&scope()));
    let Opened::Rebuilding(reason) = opened else {
        panic!("{opened:?}");
    };
    assert!(reason.contains("no longer holds"), "{reason}");
}

#[test]
fn one_that_is_overtaken_while_it_follows_goes_on_from_the_bases() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (mut retention, mut all) = (Retention::new(Policy::default()), Seen::default());
    write(&log, &mut retention, 0..20, &mut all);
    let (projection, _) =
        Projection::open(&dir.path().join("projection"), &log, &ProjectionOptions::edge()).unwrap();
    Follower::catch_up(&log, &projection, || false).unwrap();
    // It does not run while much is written and given up.
    assert!(write(&log, &mut retention, 20..400, &mut all) > 3);
    Follower::catch_up(&log, &projection, || false).unwrap();
    assert_eq!(projection.state_hash(&scope()).unwrap(), all.state.hash(&scope()));
}
