//! YAML read strictly and within bounds, for the files people write: configuration and device manifests.
//!
//! A file becomes a [`Node`] tree whose scalars keep their text and line, so that `0x10`, `1.0` or `no` mean what
//! the field that holds them says, not what a YAML version thinks. Every mistake is a [`Problem`] with a line, the
//! path of the field and, where there is one, the way out.
//!
//! Nothing here opens a file or reads the environment: text in, tree or problems out.
//!
//! Reading order: [`tree`] (documents), [`keys`] (which keys a file may have), [`settings`] (typed values of a
//! configuration file), [`names`] (closest name), [`units`] (`64MiB`, `30s`).

pub mod keys;
pub mod names;
pub mod settings;
pub mod tree;
pub mod units;

pub use tree::{Limits, Node, Scalar, SyntaxError, Value};

use std::fmt;

/// One mistake in a file, for the person who can repair it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: u32,
    /// The field, for example `modules.cloudHub.quic.port`; empty for the document itself.
    pub path: String,
    /// What is wrong, a sentence without its full stop.
    pub message: String,
    /// What to write instead, when that is known.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(line: u32, path: impl Into<String>, message: impl Into<String>) -> Self {
        Problem {
            line,
            path: path.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// The same problem with a way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
