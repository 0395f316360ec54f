//! `ledge sim`.

use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::sim::modbus::{self, SimOptions};

const EXAMPLES: &str = "\
Examples:
  ledge sim modbus                                    on 127.0.0.1:5020
  ledge sim modbus --listen 127.0.0.1:0 --journal device.jsonl
  ledge sim modbus --fault silent                     a device that takes requests and never answers

Unit 1. Registers, input and holding alike: 0 temperature in tenths of a degree, 1 humidity in tenths of a percent,
2 and 3 a 32-bit count of reads (high word first), 10 alarm threshold in tenths (writable), 11 (writable);
coil 0: temperature above the threshold.";

/// Play a device.
#[derive(Debug, Args)]
pub struct Sim {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A Modbus TCP device that moves. Runs until it is stopped.
    #[command(after_long_help = EXAMPLES)]
    Modbus(SimOptions),
}

pub(crate) fn run(args: Sim, _context: &mut Context) -> Result<Code, Quit> {
    let What::Modbus(options) = args.what;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::new(format!("cannot start the runtime: {err}")))?;
    let shutdown = CancellationToken::new();
    runtime
        .block_on(async {
            let stop = shutdown.clone();
            tokio::spawn(async move {
                tokio::signal::ctrl_c().await.ok();
                stop.cancel();
            });
            modbus::serve(options, shutdown).await
        })
        .map_err(|err| Failure::new(err.to_string()))?;
    Ok(Code::Yes)
}
