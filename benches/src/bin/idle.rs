//! Prints what a node with nothing to tell costs on the wire, one JSON object per setting.

use std::process::ExitCode;
use std::time::Duration;

use ledge_benches::idle::{Plan, measure};

const USAGE: &str = "\
usage: idle [--devices N] [--seconds S] [--edge-config FILE] [--cloud-config FILE]

Starts edgecore and cloudcore from the directory this program is in (cargo build --release -p ledge-edge -p ledge-cloud
puts them there) with N simulated Modbus TCP devices, 10 unless given, whose values do not change, and counts the UDP
datagrams between them, with 28 bytes of IP and UDP headers each, for S seconds, 300 unless given: the time in which an
unchanged value is told again. Twice, side by side: with all settings at their defaults, and with `ledge.unchanged` at 0s.
With --edge-config once, with the settings in FILE; --cloud-config is for both.";

fn main() -> ExitCode {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(err) => {
            eprintln!("idle: {err}\n{USAGE}");
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
        .and_then(|rows| {
            for row in rows {
                println!("{}", serde_json::to_string(&row)?);
            }
            Ok(())
        });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("idle: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: help was asked for.
fn plan(mut args: impl Iterator<Item = String>) -> Result<Option<Plan>, String> {
    let mut plan = Plan::default();
    while let Some(arg) = args.next() {
        if matches!(arg.as_str(), "--help" | "-h") {
            return Ok(None);
        }
        let value = args.next().ok_or_else(|| format!("`{arg}` needs a value"))?;
        let number = || {
            value
                .parse::<u32>()
                .map_err(|_| format!("{arg} {value}: not a number"))
        };
        match arg.as_str() {
            "--devices" => plan.devices = number()?,
            "--seconds" => plan.length = Duration::from_secs(number()?.max(1).into()),
            "--edge-config" => plan.edge_config = Some(value.into()),
            "--cloud-config" => plan.cloud_config = Some(value.into()),
            other => return Err(format!("there is no option `{other}`")),
        }
    }
    Ok(Some(plan))
}
