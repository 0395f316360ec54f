//! L8: the planted bugs of this crate are caught by its crash tests, or, those that only take away a check of the log's
//! own, by what has to be refused. Only with the feature `mutants`.
#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::oracle::Oracle;
use common::*;
use ledge_log::storage::sim::{CrashKeeps, Fault};
use ledge_log::{AppendError, RecycleError, SimDisk};
use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::{Lane, Seq};
use ledge_proto::mutants;
use ledge_proto::v1::snapshot::Purpose;

/// Runs a log at its limit that crashes before operation `op`, or whose sync fails there, and checks what survives.
fn case(op: u64, fault: bool) {
    let disk = SimDisk::new();
    if fault {
        disk.fail_at(op, Fault::SyncError);
    } else {
        disk.crash_at(op);
    }
    let mut oracle = Oracle::limited(7);
    for life in 0..2 {
        let Ok(log) = oracle.open(&disk, life) else { break };
        oracle.observe(&log);
        let _ = oracle.run(&log, 90);
        let _ = log.close();
        if disk.has_crashed() {
            break;
        }
    }
    for keeps in [
        CrashKeeps::Nothing,
        CrashKeeps::Everything,
        CrashKeeps::Random(op),
    ] {
        let after = disk.after_crash(&keeps);
        let mut oracle = oracle.clone();
        let log = oracle.open(&after, 9).unwrap();
        oracle.observe(&log);
        oracle.run(&log, 3).unwrap();
        log.close().unwrap();
        assert_eq!(verify(&after).findings, []);
    }
}

fn is_caught(fault: bool) -> bool {
    (0..700)
        .step_by(3)
        .any(|op| catch_unwind(AssertUnwindSafe(|| case(op, fault))).is_err())
}

/// A stream never goes back: what it ends with is what the peer was told.
fn only_upwards() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let key = remote_key(1);
    log.append_frame_blocking(frame(&mut FrameWriter::new(key.clone()), 10))
        .unwrap();
    let mut back = log.durable(&key).unwrap();
    back.position.seq = Seq(4);
    let refused = log.append_snapshot_blocking(snapshot(&key, back, Purpose::Rebase, 1, 0));
    assert!(matches!(refused, Err(AppendError::RebaseBackwards { .. })));
    assert_eq!(log.durable(&key).unwrap().position.seq, Seq(10));
}

/// A segment goes only once a base stands for what it holds (I3).
fn bases_first() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    while log.oldest_segment().unwrap().is_none() {
        log.append_blocking(&stream(Lane::UpData), vec![record(1); 50])
            .unwrap();
    }
    let refused = log.recycle_before(log.durable_block());
    assert!(matches!(refused, Err(RecycleError::NeedsBase { .. })));
}

/// One test: what is active is global.
#[test]
fn planted_bugs_are_caught_by_crashes() {
    mutants::activate(None);
    for op in (0..700).step_by(3) {
        // Without any, nothing is found.
        case(op, false);
        case(op, true);
    }
    for (name, rule) in [
        ("rebase-backwards", only_upwards as fn()),
        ("recycle-without-base", bases_first),
    ] {
        rule();
        mutants::activate(Some(name));
        let caught = catch_unwind(rule).is_err();
        mutants::activate(None);
        assert!(caught, "{name} was not caught");
        println!("{name}: caught");
    }
    for (name, fault) in [
        ("ack-before-fsync", false),
        ("skip-dir-fsync", false),
        ("reuse-salt", false),
        ("superblock-ahead", false),
        ("retry-fsync", true),
    ] {
        mutants::activate(Some(name));
        let caught = is_caught(fault);
        mutants::activate(None);
        assert!(caught, "{name} was not caught");
        println!("{name}: caught");
    }
}
