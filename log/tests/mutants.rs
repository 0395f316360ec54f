//! L8: the planted bugs of this crate are caught by its crash tests. Only with the feature `mutants`.
#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::oracle::Oracle;
use common::*;
use ledge_log::SimDisk;
use ledge_log::storage::sim::{CrashKeeps, Fault};
use ledge_proto::mutants;

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

/// One test: what is active is global.
#[test]
fn planted_bugs_are_caught_by_crashes() {
    mutants::activate(None);
    for op in (0..700).step_by(3) {
        // Without any, nothing is found.
        case(op, false);
        case(op, true);
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
