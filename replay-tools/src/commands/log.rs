//! `ledge log`: what is in a log.

mod cat;
mod info;
mod stats;
mod tail;
mod verify;

use clap::{Args, Subcommand};

use super::Context;
use crate::error::Quit;
use crate::exit::Code;

/// Options of `ledge log`.
#[derive(Debug, Args)]
pub struct Log {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show whose log it is, its segments and its streams.
    Info(info::Info),
    /// Print records in the order they were written.
    Cat(cat::Cat),
    /// Print the last records, and with -f those that follow.
    Tail(tail::Tail),
    /// Check every checksum, hash chain and sequence number.
    Verify(verify::Verify),
    // Its own documentation is the help.
    Stats(stats::Stats),
}

pub(crate) fn run(args: &Log, context: &mut Context) -> Result<Code, Quit> {
    match &args.what {
        What::Info(args) => info::run(args, context),
        What::Cat(args) => cat::run(args, context),
        What::Tail(args) => tail::run(args, context),
        What::Verify(args) => verify::run(args, context),
        What::Stats(args) => stats::run(args, context),
    }
}
