//! Progress on stderr, for people only: silent when stderr is no terminal and during the first two seconds.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::human;

const QUIET: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(200);
/// Looking at the clock costs more than counting.
const LOOK_EVERY: u64 = 4096;

/// Counts what has been done and shows it now and then.
pub(crate) struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: u64,
    looked_at: u64,
    start: Instant,
    next: Instant,
    to_terminal: bool,
    shown: bool,
}

impl Progress {
    /// Counts `what` (in the plural), out of `total` when that is known.
    pub(crate) fn new(what: &'static str, total: Option<u64>) -> Self {
        let start = Instant::now();
        Progress {
            what,
            total,
            done: 0,
            looked_at: 0,
            start,
            next: start + QUIET,
            to_terminal: io::stderr().is_terminal(),
            shown: false,
        }
    }

    /// `more` were done.
    pub(crate) fn add(&mut self, more: u64) {
        self.done += more;
        if !self.to_terminal || self.done - self.looked_at < LOOK_EVERY {
            return;
        }
        self.looked_at = self.done;
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        self.shown = true;
        let line = line(self.what, self.done, self.total, now - self.start);
        // Progress that cannot be shown is no reason to stop.
        write!(io::stderr(), "\r\x1b[K{line}").ok();
    }

    /// How many were done.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Takes the line away, so that other output can follow.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            write!(io::stderr(), "\r\x1b[K").ok();
            self.shown = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Runs `work`, showing how long it has been `doing` it.
pub(crate) fn while_running<T: Send>(doing: &str, work: impl FnOnce() -> T + Send) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    let start = Instant::now();
    let (finished, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut shown = false;
            // Ends when the other side is dropped, that is when the work is done.
            while wait.recv_timeout(EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                if start.elapsed() >= QUIET {
                    write!(
                        io::stderr(),
                        "\r\x1b[K{doing}, {}",
                        human::duration(start.elapsed())
                    )
                    .ok();
                    shown = true;
                }
            }
            if shown {
                write!(io::stderr(), "\r\x1b[K").ok();
            }
        });
        let result = work();
        drop(finished);
        result
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people, never negative"
)]
fn line(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let per_second = human::count(human::rate(done, elapsed) as u64);
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = done.saturating_mul(100) / total;
            format!(
                "{:>3}%  {} of {} {what}, {per_second}/s",
                percent.min(100),
                human::count(done),
                human::count(total)
            )
        }
        None => format!("{} {what}, {per_second}/s", human::count(done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_gives_a_percentage() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line("records", 2500, Some(10_000), second),
            " 25%  2,500 of 10,000 records, 2,500/s"
        );
        assert_eq!(line("records", 2500, None, second), "2,500 records, 2,500/s");
    }
}
