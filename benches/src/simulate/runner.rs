//! Runs seeds, on several threads; each run is by itself, so that its result depends on its seed alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::plan::Plan;
use super::violation::Violation;
use super::world::World;

/// Between two words on how it goes.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// What came of one run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Events.
    pub steps: u64,
    /// Simulated time, microseconds.
    pub simulated_us: u64,
    /// Faults that took place, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What else took place.
    pub reached: BTreeMap<&'static str, u64>,
    /// What was seen broken.
    pub violation: Option<Violation>,
    /// The last things that happened.
    pub tail: Vec<String>,
    /// BLAKE3 of everything that happened and of what every disk holds.
    pub hash: [u8; 32],
}

/// Runs one seed.
pub fn run(plan: Plan) -> Outcome {
    let mut world = World::new(plan);
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.begin()?;
        while world.steps < plan.steps {
            world.step()?;
        }
        world.settle()
    }));
    let violation = match result {
        Ok(result) => result.err(),
        Err(panic) => Some(Violation::new("no-panic", message_of(&*panic))),
    };
    world.hash_disks();
    Outcome {
        seed: plan.seed,
        steps: world.steps,
        simulated_us: world.now_us,
        hash: world.trace.hash(),
        faults: world.faults,
        reached: world.reached,
        violation,
        tail: world.trace.tail(),
    }
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

/// Sums over many runs.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Runs.
    pub seeds: u64,
    /// Events over all runs.
    pub steps: u64,
    /// Simulated time over all runs, seconds.
    pub simulated_s: u64,
    /// Faults that took place, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What else took place, by kind.
    pub reached: BTreeMap<&'static str, u64>,
    /// Runs that saw something broken, by what.
    pub violations: BTreeMap<&'static str, u64>,
    /// Real time, seconds.
    pub seconds: f64,
    /// Runs per minute.
    pub seeds_per_minute: f64,
}

/// Many runs.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Seeds and everything that is the same for all of them.
    pub first: Plan,
    /// How many seeds from the first on.
    pub seeds: u64,
    /// Threads.
    pub threads: usize,
    /// Go on after a violation.
    pub keep_going: bool,
    /// Say on standard error how it goes.
    pub progress: bool,
}

impl Campaign {
    /// Runs the seeds. Of those that saw something broken, the lowest comes back whole.
    pub fn run(&self) -> (Summary, Option<Outcome>) {
        let begun = Instant::now();
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let done = Mutex::new((Summary::default(), None::<Outcome>));
        let one_more = Condvar::new();
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        let n = next.fetch_add(1, Relaxed);
                        if n >= self.seeds {
                            break;
                        }
                        let outcome = run(Plan {
                            seed: self.first.seed.wrapping_add(n),
                            ..self.first
                        });
                        if outcome.violation.is_some() && !self.keep_going {
                            stop.store(true, Relaxed);
                        }
                        if let (Some(violation), true) = (&outcome.violation, self.keep_going) {
                            eprintln!("seed {}: {violation}", outcome.seed);
                        }
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.0.add(&outcome);
                        let lowest = done.1.as_ref().is_none_or(|found| outcome.seed < found.seed);
                        if outcome.violation.is_some() && lowest {
                            done.1 = Some(outcome);
                        }
                        one_more.notify_all();
                    }
                });
            }
            if self.progress {
                let mut said = Instant::now();
                let mut sums = done.lock().unwrap_or_else(PoisonError::into_inner);
                while sums.0.seeds < self.seeds && !stop.load(Relaxed) {
                    sums = one_more.wait(sums).unwrap_or_else(PoisonError::into_inner);
                    if said.elapsed() >= SAY_EVERY {
                        said = Instant::now();
                        eprintln!("{} of {} seeds", sums.0.seeds, self.seeds);
                    }
                }
            }
        });
        let (mut summary, violation) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.seconds = begun.elapsed().as_secs_f64();
        summary.rate();
        (summary, violation)
    }
}

impl Summary {
    /// The summary of one run.
    pub fn of(outcome: &Outcome) -> Self {
        let mut summary = Summary::default();
        summary.add(outcome);
        summary
    }

    /// Adds the runs of another summary.
    pub fn extend(&mut self, other: &Summary) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.simulated_s += other.simulated_s;
        self.seconds += other.seconds;
        let sums = [
            (&mut self.faults, &other.faults),
            (&mut self.reached, &other.reached),
            (&mut self.violations, &other.violations),
        ];
        for (into, from) in sums {
            for (name, count) in from {
                *into.entry(name).or_default() += count;
            }
        }
        self.rate();
    }

    fn rate(&mut self) {
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let seeds = self.seeds as f64;
        self.seeds_per_minute = (seeds * 60.0 / self.seconds.max(1e-9)).round();
    }

    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.simulated_s += outcome.simulated_us / 1_000_000;
        for (name, count) in &outcome.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (name, count) in &outcome.reached {
            *self.reached.entry(name).or_default() += count;
        }
        if let Some(violation) = &outcome.violation {
            *self.violations.entry(violation.invariant).or_default() += 1;
        }
    }
}

impl World {
    /// What every disk holds belongs to what happened.
    fn hash_disks(&mut self) {
        for machine in &self.machines {
            let dir = super::machine::Machine::dir();
            for name in ledge_log::Storage::list(&machine.disk, &dir).unwrap_or_default() {
                self.trace.bytes(name.as_bytes());
                self.trace
                    .bytes(&machine.disk.read(&dir.join(&name)).unwrap_or_default());
            }
        }
    }
}
