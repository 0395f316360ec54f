//! Planted bugs: each is caught by what must be true of a log at any time.

#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod site;

use std::panic::{AssertUnwindSafe, catch_unwind};

use ledge_log::storage::sim::CrashKeeps;
use ledge_proto::mutants;
use ledge_retention::{Degrade, Policy, Retention};
use site::Site;

/// Fills a site and crashes it at every operation of the next rounds. Panics when something is not as it must be.
fn run(policy: &Policy) {
    let mut full = Site::new(policy.clone());
    let Ok(log) = full.open(1) else { panic!("opens") };
    let mut retention = Retention::new(policy.clone());
    assert!(full.run(&log, &mut retention, 70).is_ok());
    full.check(&log);
    full.check_kept();
    drop(log);
    for op in 0..90 {
        let mut crashing = full.on(full.disk.after_kill());
        crashing.disk.crash_at(op);
        let life = |site: &mut Site, seed, rounds| {
            let Ok(log) = site.open(seed) else { return };
            let mut retention = Retention::new(policy.clone());
            let made = site.make_room(&log, &mut retention);
            if made.is_ok() && site.run(&log, &mut retention, rounds).is_ok() {
                site.check(&log);
            }
        };
        life(&mut crashing, 2, 18);
        let mut survivor = crashing.on(crashing.disk.after_crash(&CrashKeeps::Nothing));
        life(&mut survivor, 3, 4);
    }
}

#[test]
fn every_planted_bug_is_caught() {
    let averages = Policy {
        degrade: Degrade::Last,
        chunk_bytes: 1024,
        ..Policy::default()
    };
    run(&Policy::default());
    run(&averages);
    for (name, policy) in [
        ("gap-without-record", Policy::default()),
        ("recycle-unarchived-silently", Policy::default()),
        ("base-before-gap", Policy::default()),
        ("degrade-loses-last", averages),
    ] {
        mutants::activate(Some(name));
        let caught = catch_unwind(AssertUnwindSafe(|| run(&policy))).is_err();
        mutants::activate(None);
        assert!(caught, "{name} was not caught");
    }
}
