//! A bounded part of the simulation, and the proof that a seed decides everything.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use ledge_benches::simulate::runner::Campaign;
use ledge_benches::simulate::{Outcome, Plan, run};

/// Seeds per run of the tests; `.ci/run` runs many more in a release build.
const SEEDS: u64 = 200;

fn short(seed: u64) -> Plan {
    Plan {
        steps: 400,
        ..Plan::new(seed)
    }
}

#[test]
fn no_invariant_is_broken() {
    let campaign = Campaign {
        first: short(1_000_000),
        seeds: SEEDS,
        threads: 2,
        keep_going: false,
        progress: false,
    };
    let (summary, violation) = campaign.run();
    if let Some(outcome) = violation {
        panic!(
            "{}\nseed {}: {}\nagain: simulate --steps 400 --seed {} --trace",
            outcome.tail.join("\n"),
            outcome.seed,
            outcome.violation.unwrap(),
            outcome.seed
        );
    }
    assert_eq!(summary.seeds, SEEDS);
    assert!(
        summary.faults.len() > 8,
        "faults of most kinds took place: {:?}",
        summary.faults
    );
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let hash = |outcome: Outcome| (outcome.hash, outcome.steps, outcome.faults);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 1..=12 {
        let first = hash(run(short(seed)));
        assert_eq!(first, hash(run(short(seed))), "seed {seed}");
        seen.insert(first.0);
    }
    assert_eq!(seen.len(), 12, "different seeds give different runs");
}

/// Threads that run other seeds at the same time make no difference.
#[test]
fn a_run_does_not_depend_on_what_runs_beside_it() {
    let alone: Vec<_> = (1..=6).map(|seed| run(short(seed)).hash).collect();
    let threads: Vec<_> = (1..=6)
        .map(|seed| std::thread::spawn(move || run(short(seed)).hash))
        .collect();
    let together: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(alone, together);
}
