//! A stream goes on under a new epoch, and the machine loses power at any moment of it.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::Path;
use std::sync::Arc;

use ledge_log::storage::sim::CrashKeeps;
use ledge_log::{Log, Options, SimDisk};
use ledge_proto::ids::{ClusterId, Epoch, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey};
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::{self, ClockQuality};
use ledge_retention::reset::{Reset, begin, finish};

const BASE: Seq = Seq(9);

fn open(disk: &SimDisk) -> Option<Log> {
    let options = Options::deterministic(ClusterId([7; 16]), "edge-1", 1);
    Log::open(Arc::new(disk.clone()), Path::new("/log"), options)
        .ok()
        .map(|(log, _)| log)
}

fn key(log: &Log) -> StreamKey {
    log.own_key(&StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpState))
}

fn record(n: u64) -> v1::Record {
    v1::Record {
        kind: 16,
        key: format!("d/p/{}", n % 3),
        wall_us: i64::try_from(n).unwrap(),
        ..Default::default()
    }
}

fn reset(log: &Log) -> Vec<Reset> {
    let key = key(log);
    // The cloud holds up to record 9; this disk was put back to 5, and has written 6 to 8 since.
    vec![Reset {
        epoch: Epoch(2),
        base: Mark {
            position: Position {
                epoch: Epoch(1),
                seq: BASE,
            },
            chain: key.genesis_chain(),
        },
        common: Some(Position {
            epoch: Epoch(1),
            seq: Seq(5),
        }),
        key,
    }]
}

fn stamp() -> Stamp {
    Stamp {
        wall_us: 0,
        clock: ClockQuality::ClockUnknown,
        mono_us: 0,
    }
}

/// When each record that stands after the base was written.
fn after_base(log: &Log) -> Vec<i64> {
    let mut reader = log.read_stream(&key(log), BASE);
    let mut records = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        records.extend(frame.records().unwrap().map(|item| item.unwrap().1.wall_us));
    }
    records
}

fn prepared() -> SimDisk {
    let disk = SimDisk::new();
    let log = open(&disk).unwrap();
    for n in 1..=8 {
        log.append_blocking(&key(&log).id, vec![record(n)]).unwrap();
    }
    log.close().unwrap();
    disk
}

#[test]
fn what_was_written_since_is_there_once_whatever_moment_power_is_lost() {
    let whole = prepared();
    let mut cut_off = 0;
    for op in 0.. {
        let disk = whole.after_kill();
        let log = open(&disk).unwrap();
        disk.crash_at(disk.ops() + op);
        let done = begin(&log, reset(&log), stamp());
        let crashed = disk.has_crashed();
        assert_eq!(done.is_ok(), !crashed, "{done:?}");
        drop(log);
        if !crashed {
            assert!(op > 3 && cut_off > 0, "{op} operations, {cut_off} cut off");
            break;
        }
        for keeps in [CrashKeeps::Everything, CrashKeeps::Nothing] {
            let disk = disk.after_crash(&keeps);
            let Some(log) = open(&disk) else {
                panic!("does not open after operation {op}")
            };
            let key = key(&log);
            if log.durable(&key).unwrap().position.epoch < Epoch(2) {
                // The session after the crash resets it again.
                begin(&log, reset(&log), stamp()).unwrap();
            } else {
                cut_off += usize::from(finish(&log, &key).unwrap() > 0);
            }
            assert_eq!(after_base(&log), [6, 7, 8], "operation {op}");
            assert_eq!(finish(&log, &key).unwrap(), 0);
            log.append_blocking(&key.id, vec![record(10)]).unwrap();
            assert_eq!(finish(&log, &key).unwrap(), 0);
            assert_eq!(after_base(&log), [6, 7, 8, 10]);
        }
    }
}

#[test]
fn a_stream_that_never_began_another_epoch_has_nothing_to_finish() {
    let log = open(&prepared()).unwrap();
    assert_eq!(finish(&log, &key(&log)).unwrap(), 0);
}
