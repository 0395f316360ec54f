//! What is wrong with a manifest, for the person who can repair it.

use std::fmt;

use super::object::{ObjectKey, Source};

/// How much a [`Problem`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing to repair: part of a manifest is not handled by this version.
    Info,
    /// The object is used, perhaps not as meant.
    Warning,
    /// The object, or one of its desired values, cannot be used; what was accepted before stays in force.
    Error,
}

/// Something to tell about a manifest. Equal problems are told once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// File in the manifests directory, or [`Source::API`].
    pub file: String,
    /// Line in the file, from 1; 0 when the whole file is meant.
    pub line: u32,
    /// Which document of the file, from 1; 0 when the whole file is meant.
    pub document: usize,
    /// How much it matters.
    pub severity: Severity,
    /// The object, for example `Device default/pump-1`; `None` when it cannot be told.
    pub object: Option<String>,
    /// Path of the field, for example `spec.properties[0].name`; empty for the object itself.
    pub field: String,
    /// What is wrong, a sentence without its full stop.
    pub message: String,
    /// What to write instead, when that is known.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn of_file(file: &str, severity: Severity, message: impl Into<String>) -> Self {
        Problem {
            file: file.to_owned(),
            line: 0,
            document: 0,
            severity,
            object: None,
            field: String::new(),
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn of_object(key: &ObjectKey, source: &Source, severity: Severity, message: String) -> Self {
        Problem {
            line: source.line,
            document: source.document,
            object: Some(key.to_string()),
            ..Problem::of_file(&source.file, severity, message)
        }
    }

    pub(super) fn at(mut self, field: impl Into<String>, line: u32) -> Self {
        self.field = field.into();
        self.line = line;
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        // The line says enough where there is one document.
        if self.document > 1 {
            write!(f, " (document {})", self.document)?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        f.write_str(": ")?;
        self.write_what(f)
    }
}

impl Problem {
    /// What is wrong, for those who know which object is meant.
    pub(crate) fn what(&self) -> String {
        let mut text = String::new();
        // Writing into a text does not fail.
        let _ = self.write_what(&mut text);
        text
    }

    fn write_what(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if !self.field.is_empty() {
            write!(out, "{}: ", self.field)?;
        }
        out.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(out, " ({hint})"),
            None => Ok(()),
        }
    }
}
