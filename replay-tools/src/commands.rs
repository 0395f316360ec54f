//! The commands, one file each.

pub mod cert;
pub mod completion;
pub mod quickstart;
pub(crate) mod reference;
pub mod sim;
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
        Command::Completion(args) => completion::run(&args, context),
        Command::Reference => reference::run(context),
        Command::ExitCodes => topics::print(context, &topics::exit_codes()),
    }
}
