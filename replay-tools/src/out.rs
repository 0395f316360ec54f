//! The output of a command: stdout, in the format the user asked for.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use crate::error::{Failure, Quit};
#[cfg(feature = "sql")]
use crate::table::Lean;
use crate::table::{Column, Table};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    Table,
    /// One JSON document, or one JSON object per line for lists of records and rows.
    Json,
    /// YAML, one document per record or row.
    Yaml,
}

/// Where a command writes its result. Every write tells whether somebody still reads.
pub struct Out {
    stdout: BufWriter<StdoutLock<'static>>,
    format: Format,
    width: Option<usize>,
}

impl Out {
    /// Standard output in `format`.
    pub fn stdout(format: Format) -> Self {
        let stdout = io::stdout();
        let width = stdout
            .is_terminal()
            .then(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)))
            .flatten();
        Out {
            stdout: BufWriter::with_capacity(64 * 1024, stdout.lock()),
            format,
            width,
        }
    }

    /// The format asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether this is a terminal too narrow for everything.
    pub(crate) fn is_narrow(&self) -> bool {
        self.width.is_some_and(|width| width < 100)
    }

    /// Writes `text` as it is.
    pub fn text(&mut self, text: &str) -> Result<(), Quit> {
        self.stdout.write_all(text.as_bytes()).map_err(Quit::from_output)
    }

    /// Writes one whole document: pretty JSON or YAML. In table format it writes nothing and returns false.
    pub fn document(&mut self, document: &impl Serialize) -> Result<bool, Quit> {
        let text = match self.format {
            Format::Table => return Ok(false),
            Format::Json => serde_json::to_string_pretty(document)
                .map(|text| text + "\n")
                .map_err(unwritable)?,
            Format::Yaml => serde_yaml_ng::to_string(document).map_err(unwritable)?,
        };
        self.text(&text)?;
        Ok(true)
    }

    /// Writes one item of a list: a line of JSON or a YAML document.
    pub fn item(&mut self, item: &impl Serialize) -> Result<(), Quit> {
        let text = match self.format {
            Format::Yaml => format!("---\n{}", serde_yaml_ng::to_string(item).map_err(unwritable)?),
            Format::Table | Format::Json => serde_json::to_string(item)
                .map(|text| text + "\n")
                .map_err(unwritable)?,
        };
        self.text(&text)
    }

    /// A table that fits this output.
    pub(crate) fn table(&self, columns: &[Column]) -> Table {
        Table::new(columns, self.width)
    }

    /// A table whose headings are known only at run time.
    #[cfg(feature = "sql")]
    pub(crate) fn table_with_titles(&self, titles: Vec<String>, lean: Vec<Lean>) -> Table {
        Table::with_titles(titles, lean, self.width)
    }

    /// Hands everything written so far to the reader.
    pub fn flush(&mut self) -> Result<(), Quit> {
        self.stdout.flush().map_err(Quit::from_output)
    }
}

fn unwritable(err: impl std::fmt::Display) -> Quit {
    Failure::new(format!("cannot encode the output: {err}")).into()
}
