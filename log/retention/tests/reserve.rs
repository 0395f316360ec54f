//! A log that has nothing left but its reserve when it is opened can still give up its oldest segment.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod site;

use ledge_log::storage::sim::CrashKeeps;
use ledge_log::{AppendError, Log};
use ledge_proto::ids::Lane;
use ledge_retention::{Degrade, Policy, Retention};
use site::{Site, Stop, id, reported, sample};

/// Appends until nothing is taken any more, on the lanes that may use a part of the reserve too.
fn fill(site: &mut Site, log: &Log) {
    let mut refused = 0;
    for n in 1_000.. {
        let samples = (0..4).map(|m| sample(n * 4 + m)).collect();
        let data = log.append_blocking(&id(Lane::UpData), samples);
        let state = log.append_blocking(&id(Lane::UpState), vec![reported(n)]);
        site.collect(log);
        for appended in [data.map(drop), state.map(drop)] {
            match appended {
                Err(AppendError::DiskFull { .. }) => refused += 1,
                appended => appended.unwrap(),
            }
        }
        if refused > 3 {
            return;
        }
    }
}

/// A site that nobody made room for, whose log was closed.
fn stuffed(policy: Policy) -> Site {
    let mut site = Site::new(policy);
    site.reserve = 4096;
    let Ok(log) = site.open(1) else { panic!("opens") };
    fill(&mut site, &log);
    assert!(log.room().blocked.is_some() && log.room().active_left < 4096);
    site
}

fn life(site: &mut Site, seed: u64) -> Result<u64, Stop> {
    let log = site.open(seed)?;
    let mut retention = Retention::new(site.policy.clone());
    let gone = site.make_room(&log, &mut retention)?;
    site.run(&log, &mut retention, 4)?;
    site.check(&log);
    Ok(gone)
}

fn policies() -> [Policy; 3] {
    let of = |degrade| Policy {
        degrade,
        chunk_bytes: 1024,
        ..Policy::default()
    };
    [of(Degrade::None), of(Degrade::Averages), of(Degrade::Last)]
}

#[test]
fn a_log_with_only_its_reserve_left_makes_room() {
    for policy in policies() {
        let mut site = stuffed(policy);
        let Ok(gone) = life(&mut site, 2) else {
            panic!("nothing could be given up")
        };
        assert!(gone >= 1);
        assert!(site.gaps().iter().any(|gap| gap.reason == "DiskLimit"));
    }
}

#[test]
fn a_crash_anywhere_while_it_does() {
    let mut cases = 0;
    for policy in policies() {
        let stuffed = stuffed(policy);
        let ops = {
            let mut whole = stuffed.on(stuffed.disk.after_kill());
            assert!(life(&mut whole, 2).is_ok());
            whole.disk.ops()
        };
        for op in 0..ops {
            let mut crashing = stuffed.on(stuffed.disk.after_kill());
            crashing.disk.crash_at(op);
            let _ = life(&mut crashing, 2);
            for keeps in [
                CrashKeeps::Nothing,
                CrashKeeps::Everything,
                CrashKeeps::Random(op),
                CrashKeeps::Random(op + 1_000),
            ] {
                let mut survivor = crashing.on(crashing.disk.after_crash(&keeps));
                match life(&mut survivor, 3) {
                    Ok(_) => cases += 1,
                    Err(Stop::Open(err)) => panic!("operation {op}, {keeps:?}: {err}"),
                    Err(Stop::Append(err)) => panic!("operation {op}, {keeps:?}: {err}"),
                    Err(Stop::Retention(err)) => panic!("operation {op}, {keeps:?}: {err}"),
                }
            }
        }
    }
    assert!(cases > 300, "{cases}");
}
