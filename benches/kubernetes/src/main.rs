//! Speed and memory of the Kubernetes API and of what works against it, each figure beside a raw limit, and beside a real API
//! server where there is one, in the same run. Prints one JSON object each.
//!
//! Reading order: this, [`plan`], [`daemons`] and [`servers`] (who is measured), [`raw`] (the limit), [`wire`] (the client),
//! then one file for each benchmark.

mod change;
mod daemons;
mod figures;
mod list;
mod memory;
mod plan;
mod raw;
mod servers;
mod services;
mod watchers;
mod wire;
mod writes;

use std::process::ExitCode;

use crate::plan::{Asked, Plan};

const USAGE: &str = "\
usage: kubernetes [K1 K2 ...] [--quick] [--changes N] [--services N] [--nodes N] [--watchers N] [--rounds N] [--pods N]
                  [--lists N] [--objects N] [--slice-ms N] [--settle-ms N]

Starts cloudcore and edgecore from the directory this program is in (cargo build --release -p ledge-edge -p ledge-cloud puts
them there). LEDGE_KUBE_APISERVER and LEDGE_ETCD name a real API server and its etcd, which are then measured, too; both sync
what they write. Without ids everything runs; --quick is for a look.

K1  A change of a Service, one after the other (--changes), from the request and from the API's answer until a watch of the
    edge's MetaServer shows it, which reads the edge's projection. Beside: three appends, each synced, one after the other.
K2  Services (--services) where each of --nodes nodes has a pod: the records that nodes are told, with the API and the
    controllers in this process. Beside: one for each service and node.
K3  A change of a ConfigMap with --watchers watches of it, each on a connection of its own, from the request until the last
    one has it (--rounds). Beside: the same bytes appended, synced and written to as many plain TLS streams.
K4  A list of --pods pods, --lists times, whole and in parts of 500. Beside: the same JSON encoded and written to a TLS stream.
K5  ConfigMaps applied by 1 and by 32 clients, for --slice-ms at a time (--rounds of each). Beside: records of that size, as
    many as there are clients, written and synced together.
K6  Memory of cloudcore with the embedded API and nothing else, --settle-ms after its start, and again after a client has read
    every document there is. Beside: 40 MB.
K7  What it grows by for every 1,000 of --objects ConfigMaps. Beside: their JSON.

Exits with 1 when a limit is not kept.";

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().ok();
    let plan = match plan::parse(std::env::args().skip(1)) {
        Ok(Asked::Measure(plan)) => plan,
        Ok(Asked::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Raw(dir)) => {
            return match raw::serve(&dir) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error),
            };
        }
        Err(error) => {
            eprintln!("kubernetes: {error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let measured = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(measure(&plan)));
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("kubernetes: {error:#}");
    ExitCode::FAILURE
}

/// Whether all limits were kept.
async fn measure(plan: &Plan) -> anyhow::Result<bool> {
    daemons::many_files();
    let mut all = true;
    let mut tell = |rows: Vec<Measured>| {
        for Measured { row, met } in rows {
            println!("{row}");
            all &= met;
        }
    };
    if plan.wants("K1") {
        tell(vec![Box::pin(change::measure(plan.changes)).await?]);
    }
    if plan.wants("K2") {
        tell(vec![
            Box::pin(services::measure(plan.services, plan.nodes)).await?,
        ]);
    }
    if plan.wants("K3") {
        tell(vec![Box::pin(watchers::measure(plan)).await?]);
    }
    if plan.wants("K4") {
        tell(Box::pin(list::measure(plan)).await?);
    }
    if plan.wants("K5") {
        tell(Box::pin(writes::measure(plan)).await?);
    }
    if plan.wants("K6") || plan.wants("K7") {
        tell(Box::pin(memory::measure(plan)).await?);
    }
    Ok(all)
}

/// What was measured.
struct Measured {
    row: serde_json::Value,
    /// Whether it is within its limit.
    met: bool,
}
