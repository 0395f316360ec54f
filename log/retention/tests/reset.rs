//! A stream goes on under a new epoch, and the machine loses power at any moment of it.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::Path;
use std::sync::Arc;

use ledge_log::storage::sim::CrashKeeps;
use ledge_log::{Log, Options, SimDisk};
use ledge_proto::ids::{ClusterId, Epoch, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey};
use ledge_proto::record::Payload;
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::{self, ClockQuality};
use ledge_retention::gaps::PeerGaps;
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

/// What was missing of epochs that were cut off.
fn finished(log: &Log) -> u64 {
    let lost = finish(log, &[key(log)], stamp()).unwrap();
    lost.iter().map(|lost| lost.appended_again).sum()
}

/// First and last record of the gaps in the node's telemetry.
fn told(log: &Log) -> Vec<(u64, u64)> {
    let data = log.own_key(&StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpData));
    let mut reader = log.read_stream(&data, Seq::ZERO);
    let mut gaps = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        for item in frame.records().unwrap() {
            if let Ok(Payload::Gap(gap)) = Payload::decode(&item.unwrap().1) {
                gaps.push((gap.first_seq, gap.last_seq));
            }
        }
    }
    gaps
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
        let done = begin(&log, &reset(&log), stamp());
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
                begin(&log, &reset(&log), stamp()).unwrap();
            } else {
                cut_off += usize::from(finished(&log) > 0);
            }
            assert_eq!(after_base(&log), [6, 7, 8], "operation {op}");
            assert_eq!(told(&log), [(6, 9)], "operation {op}");
            assert_eq!(finished(&log), 0);
            log.append_blocking(&key.id, vec![record(10)]).unwrap();
            assert_eq!(finished(&log), 0);
            assert_eq!(after_base(&log), [6, 7, 8, 10]);
            assert_eq!(told(&log), [(6, 9)]);
        }
    }
}

#[test]
fn a_stream_that_never_began_another_epoch_has_nothing_to_finish() {
    let log = open(&prepared()).unwrap();
    assert_eq!(finished(&log), 0);
}

/// With nothing known to be common, what this disk holds is appended again as a whole, also when that is cut off.
#[test]
fn without_a_common_record_everything_goes_again() {
    let whole = prepared();
    for op in 0.. {
        let disk = whole.after_kill();
        let log = open(&disk).unwrap();
        let resets = |log: &Log| -> Vec<Reset> {
            let all = reset(log).into_iter();
            all.map(|reset| Reset {
                common: None,
                ..reset
            })
            .collect()
        };
        disk.crash_at(disk.ops() + op);
        let crashed = begin(&log, &resets(&log), stamp()).is_err();
        drop(log);
        let disk = disk.after_crash(&CrashKeeps::Nothing);
        let log = open(&disk).unwrap();
        if log.durable(&key(&log)).unwrap().position.epoch < Epoch(2) {
            begin(&log, &resets(&log), stamp()).unwrap();
        } else {
            finished(&log);
        }
        assert_eq!(after_base(&log), [1, 2, 3, 4, 5, 6, 7, 8], "operation {op}");
        assert_eq!(told(&log), [(1, 9)], "operation {op}");
        if !crashed {
            break;
        }
    }
}

/// What a cloud had acknowledged and the disk let go of: before a snapshot goes in its place, a gap record tells.
#[test]
fn what_a_peer_never_gets_is_declared_once() {
    let log = open(&prepared()).unwrap();
    let data = log.own_key(&StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpData));
    for n in 1..=8 {
        log.append_blocking(&data.id, vec![record(n)]).unwrap();
    }
    let at = log.mark_at(&data, Seq(6)).unwrap().unwrap();
    let declare = |after| {
        PeerGaps::new(data.clone())
            .declare(&log, Seq(after), at, stamp())
            .unwrap()
    };
    assert_eq!(declare(4), 2);
    assert_eq!(declare(4), 0);
    assert_eq!(declare(6), 0);
    // A peer that has less is told of the rest.
    assert_eq!(declare(1), 3);
    assert_eq!(told(&log), [(5, 6), (2, 4)]);
    // Of state a snapshot says everything.
    let mut state = PeerGaps::new(key(&log));
    assert_eq!(state.declare(&log, Seq(1), at, stamp()).unwrap(), 0);
}
