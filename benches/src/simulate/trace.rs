//! Everything that happens, as lines: hashed always, printed when asked for, the last ones kept for a report.

use std::collections::VecDeque;
use std::fmt::Arguments;

/// Lines kept for the report of a violation.
const KEPT: usize = 60;

pub(super) struct Trace {
    hasher: blake3::Hasher,
    kept: VecDeque<String>,
    print: bool,
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Trace {
            hasher: blake3::Hasher::new(),
            kept: VecDeque::with_capacity(KEPT),
            print,
        }
    }

    pub(super) fn line(&mut self, step: u64, now_us: u64, what: Arguments<'_>) {
        use std::fmt::Write;
        let mut line = if self.kept.len() == KEPT {
            self.kept.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        line.clear();
        // Into memory: it does not fail.
        let _ = write!(
            line,
            "{step:>6} {:>5}.{:06} {what}",
            now_us / 1_000_000,
            now_us % 1_000_000
        );
        self.hasher.update(line.as_bytes());
        self.hasher.update(b"\n");
        if self.print {
            println!("{line}");
        }
        self.kept.push_back(line);
    }

    /// Bytes that belong to what happened but are not shown.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    pub(super) fn tail(self) -> Vec<String> {
        self.kept.into()
    }
}
