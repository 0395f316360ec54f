//! The command line as a whole: global options and the list of commands.

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::moment::When;
use crate::out::Format;

const EXAMPLES: &str = "\
Examples:
  ledge log info /var/lib/ledge/edge            what is in a log
  ledge at /var/lib/ledge/edge --time -5m       the devices as they were five minutes ago
  ledge diff /var/lib/ledge/edge --from -1h --to now
  ledge sql /var/lib/ledge/edge \"SELECT device, avg(value) FROM samples GROUP BY device\"
  ledge log verify /var/lib/ledge/edge && echo intact

More help: `ledge help exit-codes`, `ledge help positions`, `ledge help sql`.";

/// Read a Ledge log: what happened, what the world looked like at any moment, and whether anything is missing.
///
/// Every command that takes DIR accepts the data directory of an edgecore or a cloudcore, or the `log` directory
/// inside it. The daemon may be running or stopped; `ledge` only ever reads.
#[derive(Debug, Parser)]
#[command(name = "ledge", version, after_long_help = EXAMPLES, max_term_width = 100)]
#[command(
    propagate_version = false,
    disable_help_subcommand = false,
    subcommand_required = true
)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// How to print the result: table, json or yaml.
    ///
    /// Lists of records or rows are one JSON object per line (or one YAML document each), so that they can be
    /// read while they are written; everything else is one document.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    #[arg(
        hide_possible_values = true,
        hide_default_value = true,
        help_heading = "Global options"
    )]
    pub output: Format,

    /// Take this as the present moment, so that relative times give the same result tomorrow.
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "TIME",
        allow_hyphen_values = true
    )]
    pub(crate) now: Option<When>,
}

/// Every command. One file each under `commands/`; a command's help is the doc comment of its options.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "a doc comment here would replace that help")]
pub enum Command {
    Quickstart(commands::quickstart::Quickstart),
    Cert(commands::cert::Cert),
    Sim(commands::sim::Sim),
    /// Look into a log: info, cat, tail, verify, stats.
    Log(commands::log::Log),
    Node(commands::node::Node),
    At(commands::at::At),
    Diff(commands::diff::Diff),
    Replay(commands::replay::Replay),
    #[cfg(feature = "sql")]
    Sql(commands::sql::Sql),
    /// Print a completion script for a shell.
    Completion(commands::completion::Completion),
    /// Print the reference of every command as Markdown.
    #[command(hide = true)]
    Reference,
    #[command(name = "exit-codes", hide = true, help_template = "{about}\n", about = commands::topics::exit_codes())]
    #[allow(missing_docs, reason = "a doc comment would become the help")]
    ExitCodes,
    #[command(name = "positions", hide = true, help_template = "{about}\n", about = commands::topics::POSITIONS)]
    #[allow(missing_docs, reason = "a doc comment would become the help")]
    Positions,
}
