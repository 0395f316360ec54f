//! `ledge reference` (hidden): the whole command line as Markdown. `docs/cli.md` is its output, and a test keeps
//! it so.

use std::fmt::Write as _;

use clap::{Command, CommandFactory};

use super::Context;
use crate::cli::Cli;
use crate::error::Quit;
use crate::exit::Code;

pub(crate) fn run(context: &mut Context) -> Result<Code, Quit> {
    context.out.text(&markdown())?;
    Ok(Code::Yes)
}

/// The reference of every command that is not hidden, and the help topics.
pub(crate) fn markdown() -> String {
    // A fixed width: the page must not depend on the terminal it was made in.
    let mut root = Cli::command().term_width(100).disable_version_flag(true);
    root.build();
    let mut text = String::from(
        "# ledge: command line reference\n\n\
         <!-- Generated. Run `UPDATE_DOCS=1 cargo test -p ledge --test reference` after changing a command. -->\n\n",
    );
    section(&mut text, &mut root);
    text.push_str("## Topics\n\n");
    for topic in root.get_subcommands_mut().filter(|command| is_topic(command)) {
        writeln!(
            text,
            "### {}\n\n```text\n{}\n```\n",
            topic.get_name().to_owned(),
            help(topic)
        )
        .ok();
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn section(text: &mut String, command: &mut Command) {
    let name = command
        .get_bin_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    writeln!(text, "## {name}\n\n```text\n{}\n```\n", help(command)).ok();
    for sub in command.get_subcommands_mut() {
        if !sub.is_hide_set() && sub.get_name() != "help" {
            section(text, sub);
        }
    }
}

/// Topics are hidden commands with a help of their own.
fn is_topic(command: &Command) -> bool {
    command.is_hide_set() && command.get_name() != "reference"
}

fn help(command: &mut Command) -> String {
    let help = command.render_long_help().to_string();
    // Clap pads lines it wraps.
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n")
}
