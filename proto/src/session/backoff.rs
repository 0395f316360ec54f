//! When to dial again.

use std::time::Duration;

/// Exponential backoff with full jitter: the n-th wait is drawn evenly from 0 to min(first × 2ⁿ, longest), so
/// that ten thousand edges cut off together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Backoff whose first ceiling is `first` and whose last is `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff {
            first,
            longest,
            ceiling: first,
        }
    }

    /// The next wait; `random` is any number, evenly drawn.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let ceiling_us = u64::try_from(self.ceiling.as_micros()).unwrap_or(u64::MAX - 1);
        self.ceiling = (self.ceiling * 2).min(self.longest);
        Duration::from_micros(random % (ceiling_us + 1))
    }

    /// Starts over: a session was established.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

impl Default for Backoff {
    /// 1, 2, 4 … 32 seconds.
    fn default() -> Self {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::default();
        // The largest random number that maps to each ceiling itself.
        let ceilings = [1u64, 2, 4, 8, 16, 32, 32];
        for ceiling in ceilings {
            assert_eq!(
                backoff.next_wait(ceiling * 1_000_000),
                Duration::from_secs(ceiling)
            );
        }
        backoff.reset();
        assert_eq!(backoff.next_wait(1_000_000), Duration::from_secs(1));
    }
}
