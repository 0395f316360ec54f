//! `ledge`: reads the log of a Ledge node or cloud offline. Shows what is in it, what the world looked like at
//! any moment, and what changed since.
//!
//! No command appends to a log that exists; `quickstart` makes its own with real daemons. One command is one file under [`commands`]; `cli` lists them.

mod cli;
pub mod commands;
mod error;
mod exit;
mod facts;
mod fold;
mod human;
mod moment;
mod open;
mod out;
mod position;
mod progress;
pub mod quickstart;
mod select;
mod show;
pub mod sim;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use cli::{Cli, Command, GlobalArgs};
pub use error::{Failure, Quit};
pub use exit::Code;
pub use moment::Moment;
pub use out::{Format, Out};

/// Parses `args` (the program's name first), runs the command and says how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version come as "errors" too, with code 0; a closed pipe is nobody's error.
            message.print().ok();
            return if message.exit_code() == 0 {
                Code::Yes.into()
            } else {
                Code::Usage.into()
            };
        }
    };
    match commands::run(cli) {
        Ok(code) => code.into(),
        Err(Quit::Closed) => Code::Yes.into(),
        Err(Quit::Failed(failure)) => {
            eprint!("{}", failure.report());
            failure.code().into()
        }
    }
}
