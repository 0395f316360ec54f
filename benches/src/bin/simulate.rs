//! Runs the whole protocol over simulated disks and a simulated network, many seeds long.

use std::process::{Command, ExitCode};

#[cfg(feature = "mutants")]
use ledge_benches::simulate::mutants::CAUGHT_WITHIN;
use ledge_benches::simulate::mutants::{MUTANTS, UNSEEN};
use ledge_benches::simulate::plan::{DEFAULT_EDGES, DEFAULT_STEPS};
use ledge_benches::simulate::runner::{Campaign, Summary};
use ledge_benches::simulate::{Outcome, Plan, run};

const DEFAULT_SEEDS: u64 = 1000;

const USAGE: &str = "\
usage: simulate [--seeds N] [--from S]   run N seeds (default 1000) from seed S (default 1)
       simulate --seed S [--trace]       run one seed; with --trace, print everything that happens
       simulate --mutant NAME            plant a bug, and look for it in at most 2000 seeds (or --seeds N)
       simulate --mutants                do so with every planted bug
       simulate --list                   list the planted bugs and what they break

  --steps N       events per seed before faults stop
  --edges N       edges
  --threads N     threads (default: one per processor)
  --keep-going    go on after a violation
  --quiet         no progress on standard error";

/// Which bugs to plant.
#[cfg_attr(
    not(feature = "mutants"),
    allow(dead_code, reason = "without them another build is started")
)]
enum Mutants {
    All,
    One(String),
}

struct Args {
    plan: Plan,
    /// How many, if it was said.
    asked: Option<u64>,
    mutants: Option<Mutants>,
    list: bool,
    single: bool,
    threads: usize,
    keep_going: bool,
    quiet: bool,
}

impl Args {
    fn mutant(&self) -> Option<&str> {
        match &self.mutants {
            Some(Mutants::One(name)) => Some(name),
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("simulate: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if args.list {
        for mutant in MUTANTS {
            println!("{:<28} {}", mutant.name, mutant.breaks);
        }
        for (name, why) in UNSEEN {
            println!("{name:<28} not hunted by --mutants: {why}");
        }
        return ExitCode::SUCCESS;
    }
    if args.mutants.is_some() && !cfg!(feature = "mutants") {
        return with_mutants();
    }
    // A panic in the code under test is a violation like any other, and reported like one.
    std::panic::set_hook(Box::new(|_| {}));
    #[cfg(feature = "mutants")]
    match &args.mutants {
        Some(Mutants::All) => return hunt_all(&args),
        // With one seed: to look at how it is caught.
        Some(Mutants::One(name)) if args.single => ledge_proto::mutants::activate(Some(name)),
        Some(Mutants::One(name)) => return hunt_one(&args, name),
        None => {}
    }
    if args.single {
        let outcome = run(args.plan);
        let hash = outcome
            .hash
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let code = report(&outcome, args.plan, args.mutant());
        last_line(
            &Summary::of(&outcome),
            serde_json::json!({ "seed": outcome.seed, "hash": hash }),
        );
        return code.unwrap_or(ExitCode::SUCCESS);
    }
    let campaign = Campaign {
        first: args.plan,
        seeds: args.asked.unwrap_or(DEFAULT_SEEDS),
        threads: args.threads,
        keep_going: args.keep_going,
        progress: !args.quiet,
    };
    let (summary, violation) = campaign.run();
    let code = violation
        .as_ref()
        .and_then(|outcome| report(outcome, args.plan, None));
    last_line(&summary, serde_json::json!({}));
    code.unwrap_or(ExitCode::SUCCESS)
}

/// The last line of every run: the summary, and what else there is to say of this one.
fn last_line(summary: &Summary, more: serde_json::Value) {
    let mut line = serde_json::json!(summary);
    if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    println!("{line}");
}

/// Planted bugs are in no build but one made for them: this program makes it, and runs it in its place.
fn with_mutants() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--manifest-path", manifest, "--bin", "simulate"]);
    command.args(["--no-default-features", "--features", "mutants"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.arg("--").args(std::env::args_os().skip(1));
    eprintln!("simulate: building with planted bugs");
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("simulate: cannot run cargo ({err}): build with --features mutants instead");
            ExitCode::from(2)
        }
    }
}

#[cfg(feature = "mutants")]
fn hunt(args: &Args, name: &str) -> (Summary, Option<Outcome>) {
    ledge_proto::mutants::activate(Some(name));
    let campaign = Campaign {
        first: args.plan,
        seeds: args.asked.unwrap_or(CAUGHT_WITHIN),
        threads: args.threads,
        keep_going: false,
        progress: !args.quiet,
    };
    let found = campaign.run();
    ledge_proto::mutants::activate(None);
    found
}

#[cfg(feature = "mutants")]
fn hunt_one(args: &Args, name: &str) -> ExitCode {
    let (summary, caught) = hunt(args, name);
    if let Some(outcome) = &caught {
        report(outcome, args.plan, Some(name));
    }
    last_line(
        &summary,
        serde_json::json!({ "mutant": name, "caught": caught.is_some() }),
    );
    if caught.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(feature = "mutants")]
fn hunt_all(args: &Args) -> ExitCode {
    let mut escaped = Vec::new();
    let mut caught = serde_json::Map::new();
    let mut total = Summary::default();
    for mutant in MUTANTS {
        let (summary, found) = hunt(args, mutant.name);
        total.extend(&summary);
        match found
            .as_ref()
            .and_then(|outcome| Some((outcome.seed, outcome.violation.as_ref()?)))
        {
            Some((seed, violation)) => {
                let expected = mutant.seen_by.contains(&violation.invariant);
                eprintln!(
                    "{:<28} caught in seed {seed} after {} seeds by {}{}",
                    mutant.name,
                    summary.seeds,
                    violation.invariant,
                    if expected {
                        ""
                    } else {
                        " (not where it was expected)"
                    },
                );
                let how = serde_json::json!({
                    "seeds": summary.seeds, "seed": seed, "invariant": violation.invariant,
                });
                caught.insert(mutant.name.to_owned(), how);
            }
            None => {
                eprintln!("{:<28} NOT caught in {} seeds", mutant.name, summary.seeds);
                escaped.push(mutant.name);
            }
        }
    }
    last_line(
        &total,
        serde_json::json!({ "caught": caught, "escaped": escaped }),
    );
    if escaped.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Says what was broken, and how to see it again.
fn report(outcome: &Outcome, plan: Plan, mutant: Option<&str>) -> Option<ExitCode> {
    let violation = outcome.violation.as_ref()?;
    for line in &outcome.tail {
        eprintln!("{line}");
    }
    eprintln!(
        "violation of {} in step {} of seed {}: {}",
        violation.invariant, outcome.steps, outcome.seed, violation.detail
    );
    let mut again = format!(
        "cargo run --release -p ledge-benches --bin simulate -- --seed {}",
        outcome.seed
    );
    if plan.steps != DEFAULT_STEPS {
        again.push_str(&format!(" --steps {}", plan.steps));
    }
    if plan.edges != DEFAULT_EDGES {
        again.push_str(&format!(" --edges {}", plan.edges));
    }
    if let Some(name) = mutant {
        again.push_str(&format!(" --mutant {name}"));
    }
    eprintln!("again: {again} --trace");
    Some(ExitCode::FAILURE)
}

fn parse(args: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let mut parsed = Args {
        plan: Plan::new(1),
        asked: None,
        mutants: None,
        list: false,
        single: false,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        keep_going: false,
        quiet: false,
    };
    let mut args = args;
    while let Some(arg) = args.next() {
        let mut number = || {
            let text = args.next().ok_or(format!("{arg} needs a number"))?;
            text.parse::<u64>()
                .map_err(|_| format!("{arg}: `{text}` is not a number"))
        };
        match arg.as_str() {
            "--seeds" => parsed.asked = Some(number()?),
            "--from" => parsed.plan.seed = number()?,
            "--seed" => {
                parsed.plan.seed = number()?;
                parsed.single = true;
            }
            "--steps" => parsed.plan.steps = number()?,
            "--edges" => parsed.plan.edges = usize::try_from(number()?).map_err(|err| err.to_string())?,
            "--threads" => parsed.threads = usize::try_from(number()?).map_err(|err| err.to_string())?,
            "--mutants" => parsed.mutants = Some(Mutants::All),
            "--mutant" => {
                let name = args.next().ok_or("--mutant needs a name")?;
                let known = MUTANTS
                    .iter()
                    .map(|mutant| mutant.name)
                    .chain(UNSEEN.iter().map(|(name, _)| *name));
                if !known.into_iter().any(|known| known == name) {
                    return Err(format!("there is no planted bug `{name}`; see --list"));
                }
                parsed.mutants = Some(Mutants::One(name));
            }
            "--list" => parsed.list = true,
            "--trace" => parsed.plan.trace = true,
            "--keep-going" => parsed.keep_going = true,
            "--quiet" => parsed.quiet = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("there is no argument `{other}`")),
        }
    }
    Ok(Some(parsed))
}
