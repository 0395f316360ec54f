//! A crash before every operation of a step: reopened, the step is taken up, nothing is reported twice or left out, and the
//! state is what it was. Deterministic: a failure names the operation and what survived.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod site;

use ledge_log::storage::sim::CrashKeeps;
use ledge_retention::{Degrade, Policy, Retention};
use site::{Site, Stop};

const SEED: u64 = 0x1ed9e;
/// With at most this many unsynced changes, all subsets are tried.
const EXHAUSTIVE: usize = 4;

/// Rounds until the next segment goes, and beyond.
const ROUNDS: u64 = 18;

fn choices(pending: usize, op: u64) -> Vec<CrashKeeps> {
    if pending <= EXHAUSTIVE {
        return (0..1u64 << pending).map(CrashKeeps::Chosen).collect();
    }
    let mut all = vec![CrashKeeps::Nothing, CrashKeeps::Everything];
    all.extend((0..6).map(|n| CrashKeeps::Random(SEED ^ (op * 16 + n))));
    all
}

fn go(site: &mut Site, seed: u64, rounds: u64) -> Result<u64, Stop> {
    let log = site.open(seed)?;
    let mut retention = Retention::new(site.policy.clone());
    let mut gone = site.make_room(&log, &mut retention)?;
    gone += site.run(&log, &mut retention, rounds)?;
    site.check(&log);
    Ok(gone)
}

/// A site that is full, whose log was closed.
fn full(policy: Policy) -> Site {
    let mut site = Site::new(policy);
    let mut gone = 0;
    for life in 0.. {
        gone += go(&mut site, life, 11).unwrap_or_else(|_| panic!("no fault yet"));
        if gone >= 3 {
            break;
        }
    }
    site
}

struct Context(String);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed at: {}", self.0);
        }
    }
}

fn crash_everywhere(policy: Policy) {
    let full = full(policy);
    let ops = {
        let mut whole = full.on(full.disk.after_kill());
        let gone = go(&mut whole, SEED, ROUNDS).unwrap_or_else(|_| panic!("no fault"));
        assert!(gone >= 1, "a segment goes");
        whole.disk.ops()
    };
    let mut cases = 0;
    for op in 0..ops {
        let mut crashing = full.on(full.disk.after_kill());
        crashing.disk.crash_at(op);
        let _ = go(&mut crashing, SEED, ROUNDS);
        let pending = crashing.disk.pending().total();
        for keeps in choices(pending, op) {
            let _context = Context(format!("crash before operation {op}, {keeps:?} of {pending}"));
            let mut survivor = crashing.on(crashing.disk.after_crash(&keeps));
            match go(&mut survivor, SEED + 1, 6) {
                Ok(_) => {}
                Err(Stop::Open(err)) => panic!("{err}"),
                Err(Stop::Append(err)) => panic!("{err}"),
                Err(Stop::Retention(err)) => panic!("{err}"),
            }
            cases += 1;
        }
    }
    println!("{ops} operations, {cases} crashes");
}

#[test]
fn a_crash_anywhere_loses_and_invents_nothing() {
    crash_everywhere(Policy::default());
}

#[test]
fn a_crash_anywhere_while_telemetry_is_averaged() {
    crash_everywhere(Policy {
        degrade: Degrade::Averages,
        chunk_bytes: 1024,
        ..Policy::default()
    });
}

/// The cloud holds what it acknowledged and nobody else does: it notes what it gives up.
#[test]
fn a_crash_anywhere_while_the_cloud_gives_up() {
    crash_everywhere(Policy {
        keeper: ledge_retention::Keeper::Cloud,
        ..Policy::default()
    });
}
