//! Runs the whole protocol over simulated disks and a simulated network, many seeds long.

use std::process::ExitCode;

use ledge_benches::simulate::plan::{DEFAULT_EDGES, DEFAULT_STEPS};
use ledge_benches::simulate::runner::Campaign;
use ledge_benches::simulate::{Outcome, Plan, run};

const USAGE: &str = "\
usage: simulate [--seeds N] [--from S]   run N seeds (default 1000) from seed S (default 1)
       simulate --seed S [--trace]       run one seed; with --trace, print everything that happens

  --steps N       events per seed before faults stop
  --edges N       edges
  --threads N     threads (default: one per processor)
  --keep-going    go on after a violation
  --quiet         no progress on standard error";

struct Args {
    plan: Plan,
    seeds: u64,
    single: bool,
    threads: usize,
    keep_going: bool,
    quiet: bool,
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
    // A panic in the code under test is a violation like any other, and reported like one.
    std::panic::set_hook(Box::new(|_| {}));
    if args.single {
        let outcome = run(args.plan);
        let hash = outcome
            .hash
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        if let Some(code) = report(&outcome, args.plan) {
            return code;
        }
        println!(
            "{}",
            serde_json::json!({
                "seeds": 1, "seed": outcome.seed, "steps": outcome.steps, "faults": outcome.faults,
                "violations": {}, "hash": hash,
            })
        );
        return ExitCode::SUCCESS;
    }
    let campaign = Campaign {
        first: args.plan,
        seeds: args.seeds,
        threads: args.threads,
        keep_going: args.keep_going,
        progress: !args.quiet,
    };
    let (summary, violation) = campaign.run();
    let code = violation.as_ref().and_then(|outcome| report(outcome, args.plan));
    println!("{}", serde_json::json!(summary));
    code.unwrap_or(ExitCode::SUCCESS)
}

/// Says what was broken, and how to see it again.
fn report(outcome: &Outcome, plan: Plan) -> Option<ExitCode> {
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
    eprintln!("again: {again} --trace");
    Some(ExitCode::FAILURE)
}

fn parse(args: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let mut parsed = Args {
        plan: Plan::new(1),
        seeds: 1000,
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
            "--seeds" => parsed.seeds = number()?,
            "--from" => parsed.plan.seed = number()?,
            "--seed" => {
                parsed.plan.seed = number()?;
                parsed.single = true;
            }
            "--steps" => parsed.plan.steps = number()?,
            "--edges" => parsed.plan.edges = usize::try_from(number()?).map_err(|err| err.to_string())?,
            "--threads" => parsed.threads = usize::try_from(number()?).map_err(|err| err.to_string())?,
            "--trace" => parsed.plan.trace = true,
            "--keep-going" => parsed.keep_going = true,
            "--quiet" => parsed.quiet = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("there is no argument `{other}`")),
        }
    }
    Ok(Some(parsed))
}
