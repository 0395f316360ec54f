//! Prints how long a change in the Kubernetes API takes to an edge, and what many services cost many nodes: one JSON object
//! each.

mod change;
mod services;

use std::process::ExitCode;

const USAGE: &str = "\
usage: kubernetes [--changes N] [--services N] [--nodes N]

change: starts cloudcore and edgecore from the directory this program is in (cargo build --release -p ledge-edge -p
ledge-cloud puts them there), connected over loopback, and changes a Service N times (500 unless given), one change after
the other, every append fsynced on both sides. Beside each other: when the API answers, when a watch of the API shows the
change, when a watch of the edge's MetaServer does, which reads the edge's projection.

services: makes 1,000 Services (--services) where 100 nodes (--nodes) have a pod each, with the API and the controllers in
this process, and counts the records that nodes are told, beside one for each service and node.

Exits with 1 when a limit is not kept.";

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut numbers = [("--changes", 500), ("--services", 1000), ("--nodes", 100)];
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let Some((_, number)) = numbers.iter_mut().find(|(flag, _)| *flag == arg) else {
            println!("{USAGE}");
            return if arg == "--help" {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(2)
            };
        };
        match args.next().map(|value| value.parse()) {
            Some(Ok(value)) => *number = value,
            _ => {
                eprintln!("kubernetes: `{arg}` needs a number\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let [(_, changes), (_, services), (_, nodes)] = numbers;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let measured = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            Ok([
                change::measure(changes).await?,
                services::measure(services, nodes).await?,
            ])
        })
    });
    match measured {
        Ok(rows) => {
            rows.iter().for_each(|row| println!("{}", row.row));
            if rows.iter().all(|row| row.met) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(err) => {
            eprintln!("kubernetes: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was measured.
struct Measured {
    row: serde_json::Value,
    /// Whether it is within its limit.
    met: bool,
}
