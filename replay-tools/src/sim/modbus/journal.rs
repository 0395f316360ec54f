//! What the device saw, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Entry {
    /// A counter value was handed out.
    Counter {
        /// Wall clock, microseconds since 1970-01-01T00:00:00Z.
        wall_us: i64,
        /// The value.
        value: u32,
    },
    /// Registers were written.
    Write {
        /// Wall clock, microseconds since 1970-01-01T00:00:00Z.
        wall_us: i64,
        /// First register.
        address: u16,
        /// What was written, from there on.
        words: Vec<u16>,
    },
}

/// The journal file. Every line is handed to the system before the device goes on.
#[derive(Debug)]
pub(super) struct Journal(File);

impl Journal {
    /// Opens or creates the file, and gives the last counter value in it, so that a device that is started again
    /// hands out no value twice.
    pub(super) fn open(path: &Path) -> io::Result<(Journal, u32)> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)?;
        let (mut last, mut whole) = (0, 0u64);
        let mut lines = BufReader::new(&file);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 {
            if !line.ends_with('\n') {
                break;
            }
            let entry = serde_json::from_str(&line).map_err(io::Error::other)?;
            if let Entry::Counter { value, .. } = entry {
                last = value;
            }
            whole += line.len() as u64;
            line.clear();
        }
        // The rest of a line that was being written when the device was killed: its value was never handed out.
        file.set_len(whole)?;
        file.seek(io::SeekFrom::End(0))?;
        Ok((Journal(file), last))
    }

    /// Appends one line.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

/// The wall clock, microseconds since 1970-01-01T00:00:00Z.
pub(super) fn wall_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or_default()
}
