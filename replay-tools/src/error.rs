//! How commands fail: one line that says what, one that says what to do about it.

use std::fmt::Write as _;
use std::io;

use crate::exit::Code;
use crate::human;

/// Why a command ended early.
#[derive(Debug)]
pub enum Quit {
    /// Nobody reads our output any more (`| head`): leave quietly.
    Closed,
    /// It failed.
    Failed(Failure),
}

/// What is told to the user when a command fails.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: Code,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            hint: None,
            code: Code::No,
        }
    }

    /// An argument that makes no sense: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure {
            code: Code::Usage,
            ..Failure::new(message)
        }
    }

    /// A log that cannot be opened or read: exit code 6.
    pub fn unreadable(message: impl Into<String>) -> Self {
        Failure {
            code: Code::Unreadable,
            ..Failure::new(message)
        }
    }

    /// A daemon that does not answer: exit code 7.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Failure {
            code: Code::Unreachable,
            ..Failure::new(message)
        }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code it leads to.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The lines for stderr: `error: …` and, when there is one, `hint: …`.
    pub fn report(&self) -> String {
        // Names and messages from a damaged log must not steer the terminal.
        let mut text = format!("error: {}\n", human::plain(&self.message));
        if let Some(hint) = &self.hint {
            writeln!(text, "hint: {}", human::plain(hint)).ok();
        }
        text
    }
}

impl From<Failure> for Quit {
    fn from(failure: Failure) -> Self {
        Quit::Failed(failure)
    }
}

impl Quit {
    /// A failed write to our own output.
    pub(crate) fn from_output(err: io::Error) -> Self {
        if err.kind() == io::ErrorKind::BrokenPipe {
            Quit::Closed
        } else {
            Failure::new(format!("cannot write the output: {err}")).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_each_and_cannot_steer_the_terminal() {
        let failure = Failure::new("no stream \u{1b}[2J\nx").hint("try `ledge log info`");
        assert_eq!(
            failure.report(),
            "error: no stream \\u{1b}[2J\\nx\nhint: try `ledge log info`\n"
        );
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        assert!(matches!(
            Quit::from_output(io::ErrorKind::BrokenPipe.into()),
            Quit::Closed
        ));
        assert!(matches!(
            Quit::from_output(io::ErrorKind::StorageFull.into()),
            Quit::Failed(_)
        ));
    }
}
