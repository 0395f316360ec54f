//! Prints how much memory the real edgecore takes with many devices, as one JSON object.

use std::process::ExitCode;
use std::time::Duration;

use ledge_benches::memory::{Plan, measure};

const USAGE: &str = "\
usage: edge-memory [--devices N] [--seconds S]

Starts edgecore and cloudcore from the directory this program is in (cargo build --release -p ledge-edge -p ledge-cloud
puts them there) with N simulated Modbus TCP devices, 100 unless given, read once a second, and looks at edgecore's
memory after S seconds, 30 unless given.";

fn main() -> ExitCode {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(err) => {
            eprintln!("edge-memory: {err}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let measured = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(measure(plan)))
        .and_then(|row| Ok(serde_json::to_string(&row)?));
    match measured {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("edge-memory: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: help was asked for.
fn plan(mut args: impl Iterator<Item = String>) -> Result<Option<Plan>, String> {
    let mut plan = Plan::default();
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u32, String> {
            let text = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
            text.parse().map_err(|_| format!("{arg} {text}: not a number"))
        };
        match arg.as_str() {
            "--devices" => plan.devices = number()?,
            "--seconds" => plan.length = Duration::from_secs(number()?.into()),
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("there is no option `{other}`")),
        }
    }
    Ok(Some(plan))
}
