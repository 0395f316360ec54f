//! The commands, one file each.

pub mod at;
pub mod cert;
pub mod completion;
pub mod diff;
mod http;
pub mod log;
pub mod node;
pub mod quickstart;
pub(crate) mod reference;
pub mod replay;
pub mod sim;
#[cfg(feature = "sql")]
pub mod sql;
pub(crate) mod topics;

use crate::cli::{Cli, Command};
use crate::error::Quit;
use crate::exit::Code;
use crate::moment::Moment;
use crate::out::Out;

/// What every command gets: where to write, and what time it is.
pub struct Context {
    /// The result goes here.
    pub out: Out,
    /// The present moment, read once.
    pub now: Moment,
}

/// Runs the command that was asked for.
pub(crate) fn run(cli: Cli) -> Result<Code, Quit> {
    let clock = Moment::now();
    let now = cli.global.now.map_or(clock, |when| when.resolve(clock));
    let mut context = Context {
        out: Out::stdout(cli.global.output),
        now,
    };
    let code = dispatch(cli.command, &mut context)?;
    context.out.flush()?;
    Ok(code)
}

fn dispatch(command: Command, context: &mut Context) -> Result<Code, Quit> {
    match command {
        Command::Cert(args) => cert::run(&args, context),
        Command::Quickstart(args) => quickstart::run(&args, context),
        Command::Sim(args) => sim::run(args, context),
        Command::Log(args) => log::run(&args, context),
        Command::Node(args) => node::run(&args, context),
        Command::At(args) => at::run(&args, context),
        Command::Diff(args) => diff::run(&args, context),
        Command::Replay(args) => replay::run(&args, context),
        #[cfg(feature = "sql")]
        Command::Sql(args) => sql::run(&args, context),
        Command::Completion(args) => completion::run(&args, context),
        Command::Reference => reference::run(context),
        Command::ExitCodes => topics::print(context, &topics::exit_codes()),
        Command::Positions => topics::print(context, topics::POSITIONS),
    }
}
