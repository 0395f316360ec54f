//! Switches a profiler on for the time that counts, and off again: preparation is most of some benchmarks.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// A `perf record --delay=-1 --control fifo:CTL,ACK` that watches this process.
#[derive(Debug)]
pub struct Perf {
    control: File,
    ack: File,
}

impl Perf {
    /// The other end of the two FIFOs.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn open(control: &Path, ack: &Path) -> io::Result<Perf> {
        Ok(Perf {
            control: OpenOptions::new().write(true).open(control)?,
            ack: File::open(ack)?,
        })
    }

    pub(super) fn enable(&self) -> io::Result<()> {
        self.command("enable\n")
    }

    pub(super) fn disable(&self) -> io::Result<()> {
        self.command("disable\n")
    }

    /// Returns once it took effect.
    fn command(&self, command: &str) -> io::Result<()> {
        (&self.control).write_all(command.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(&self.ack).read_line(&mut answer)?;
        Ok(())
    }
}
