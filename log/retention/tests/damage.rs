//! Damage in the oldest segment does not keep it: what cannot be read is a gap that says so, the rest goes as always.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod site;

use std::collections::BTreeSet;
use std::path::PathBuf;

use ledge_log::storage::sim::CrashKeeps;
use ledge_proto::ids::{Lane, Seq};
use ledge_proto::v1;
use ledge_retention::{Outcome, Policy, Retention};
use site::{SEGMENT, Site, Stop, id, reported, sample};

fn path(no: u64) -> PathBuf {
    PathBuf::from(format!("/data/log/seg-{no:016x}.ldg"))
}

/// A site with a full log, closed in order. Its oldest segment was not the first: bases of streams lie in it.
fn full() -> Site {
    let mut site = Site::new(Policy::default());
    let Ok(log) = site.open(1) else { panic!("opens") };
    let mut retention = Retention::new(Policy::default());
    while site
        .run(&log, &mut retention, 1)
        .unwrap_or_else(|_| panic!("no fault"))
        == 0
    {}
    // Up to where the next has to go.
    let mut n = 10_000;
    while log.room().blocked.is_none() {
        n += 1;
        log.append_blocking(&id(Lane::UpData), vec![sample(n), sample(n + 1)])
            .unwrap();
        log.append_blocking(&id(Lane::UpState), vec![reported(n)])
            .unwrap();
        site.collect(&log);
    }
    log.close().unwrap();
    site
}

/// How often what cannot be read was met, by which lane it was in.
#[derive(Debug, Default)]
struct Seen {
    cases: u32,
    gaps: BTreeSet<u32>,
    unreadable: u64,
}

/// Gives up the damaged segment, and goes on until others went.
fn goes_on(site: &mut Site, what: &str, seen: &mut Seen) -> Result<(), Stop> {
    let log = site.open(2)?;
    let mut retention = Retention::new(site.policy.clone());
    let mut gone = 0;
    for _ in 0..40 {
        let outcome = site.step(&log, &mut retention)?;
        if let Outcome::GaveUp(given_up) = outcome {
            gone += 1;
            seen.unreadable += given_up.unreadable;
            continue;
        }
        if gone > 1 {
            break;
        }
        gone += site.run(&log, &mut retention, 1)?;
    }
    assert!(gone > 1, "{what}: nothing went");
    site.check(&log);
    let corrupt: Vec<v1::Gap> = site
        .gaps()
        .into_iter()
        .filter(|gap| gap.reason == "Corrupt")
        .collect();
    seen.gaps.extend(corrupt.iter().map(|gap| gap.lane));
    // What is left is whole: it can be read, and folds.
    let key = log.own_key(&id(Lane::UpState));
    let first = log
        .streams()
        .into_iter()
        .find(|info| info.key == key)
        .unwrap()
        .first_seq;
    let mut reader = log.read_stream(&key, Seq(first.0 - 1));
    while reader.next().unwrap().is_some() {}
    Ok(())
}

type Harm = fn(&mut [u8]);

fn harms() -> [(&'static str, Harm); 3] {
    [
        ("zeroed", |sector| sector.fill(0)),
        ("a bit in the head", |sector| sector[20] ^= 4),
        ("a bit further on", |sector| sector[150] ^= 1),
    ]
}

#[test]
fn any_damaged_sector_of_the_oldest_segment_is_given_up() {
    let full = full();
    let oldest = (0..).find(|no| full.disk.read(&path(*no)).is_some()).unwrap();
    let mut seen = Seen::default();
    for start in (4096..usize::try_from(SEGMENT).unwrap()).step_by(512) {
        for (kind, harm) in harms() {
            let mut site = full.on(full.disk.after_kill());
            site.damaged = true;
            site.disk
                .corrupt(&path(oldest), |bytes| harm(&mut bytes[start..start + 512]));
            if site.disk.read(&path(oldest)) == full.disk.read(&path(oldest)) {
                continue;
            }
            let what = format!("byte {start}: {kind}");
            match goes_on(&mut site, &what, &mut seen) {
                Ok(()) => seen.cases += 1,
                Err(Stop::Open(err)) => panic!("{what}: {err}"),
                Err(Stop::Append(err)) => panic!("{what}: {err}"),
                Err(Stop::Retention(err)) => panic!("{what}: {err}"),
            }
        }
    }
    assert!(seen.cases > 40 && seen.unreadable > 40, "{seen:?}");
    let lanes = [Lane::Down, Lane::UpState, Lane::UpData].map(Lane::as_wire);
    assert!(lanes.iter().all(|lane| seen.gaps.contains(lane)), "{seen:?}");
}

#[test]
fn a_crash_anywhere_while_a_damaged_segment_goes() {
    let full = full();
    let oldest = (0..).find(|no| full.disk.read(&path(*no)).is_some()).unwrap();
    let mut damaged = full.on(full.disk.after_kill());
    damaged.damaged = true;
    // Every other sector of the middle of it.
    damaged.disk.corrupt(&path(oldest), |bytes| {
        for start in (6144..12288).step_by(1024) {
            bytes[start..start + 512].fill(0);
        }
    });
    let mut seen = Seen::default();
    let ops = {
        let mut whole = damaged.on(damaged.disk.after_kill());
        assert!(goes_on(&mut whole, "whole", &mut seen).is_ok());
        whole.disk.ops()
    };
    assert!(seen.unreadable > 0);
    for op in 0..ops {
        let mut crashing = damaged.on(damaged.disk.after_kill());
        crashing.disk.crash_at(op);
        let _ = goes_on(&mut crashing, "crashing", &mut Seen::default());
        for keeps in [
            CrashKeeps::Nothing,
            CrashKeeps::Everything,
            CrashKeeps::Random(op),
        ] {
            let mut survivor = crashing.on(crashing.disk.after_crash(&keeps));
            let what = format!("operation {op}, {keeps:?}");
            match goes_on(&mut survivor, &what, &mut Seen::default()) {
                Ok(()) => {}
                Err(Stop::Open(err)) => panic!("{what}: {err}"),
                Err(Stop::Append(err)) => panic!("{what}: {err}"),
                Err(Stop::Retention(err)) => panic!("{what}: {err}"),
            }
        }
    }
}
