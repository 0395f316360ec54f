//! `ledge completion`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Context;
use crate::cli::Cli;
use crate::error::{Failure, Quit};
use crate::exit::Code;

const EXAMPLES: &str = "\
Examples:
  ledge completion bash > /etc/bash_completion.d/ledge
  ledge completion zsh > ~/.zfunc/_ledge
  ledge completion fish > ~/.config/fish/completions/ledge.fish";

/// Options of `ledge completion`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Completion {
    /// Which shell.
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

pub(crate) fn run(args: &Completion, context: &mut Context) -> Result<Code, Quit> {
    let shell: Shell = args.shell.parse().map_err(Failure::usage)?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ledge", &mut script);
    context.out.text(&String::from_utf8_lossy(&script))?;
    Ok(Code::Yes)
}
