//! Bringing a property to its desired value and keeping it there.
//!
//! A pure state machine: it is told what is wished, what the device holds and what writes came to, and says what to
//! do next. It starts from the last result in the log, so that a daemon that stopped between write and result just
//! looks again.

use std::time::Duration;

use ledge_proto::ids::Position;
use ledge_proto::v1;
use ledge_proto::v1::write_result::Outcome;
use tokio::time::Instant;

use super::table::Desired;
use super::value::same;

/// How often a device that does not keep a value is told again.
#[derive(Debug, Clone, Copy)]
pub struct WriteLimits {
    /// Delay after the first write that did not hold.
    pub backoff_min: Duration,
    /// Longest delay.
    pub backoff_max: Duration,
    /// A value held for so long is taken as kept: the next deviation starts from the shortest delay.
    pub settled_after: Duration,
}

impl Default for WriteLimits {
    fn default() -> Self {
        WriteLimits {
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            settled_after: Duration::from_secs(60),
        }
    }
}

/// What to do after a look at the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing now.
    Rest,
    /// The device holds the value, and the log has no result saying so: record that it is applied.
    Confirm,
    /// Write the value.
    Write {
        /// The device held the value before: somebody or something else changed it.
        drifted: bool,
    },
}

/// What the log says the last write of a property came to.
#[derive(Debug, Clone, PartialEq)]
struct Settled {
    position: Position,
    outcome: Outcome,
    error: String,
}

/// The desired value of one property, and how far it is carried out.
#[derive(Debug, Clone, Default)]
pub struct Reconciler {
    wish: Option<Desired>,
    settled: Option<Settled>,
    /// Writes of this wish since it last held for long.
    attempts: u32,
    not_before: Option<Instant>,
    held_since: Option<Instant>,
}

impl Reconciler {
    /// Starts from the last result in the log.
    pub fn new(last: Option<&v1::WriteResult>) -> Self {
        let settled = last.and_then(|result| {
            let desired = result.desired?;
            Some(Settled {
                position: position(desired),
                outcome: result.outcome(),
                error: result.error.clone(),
            })
        });
        Reconciler {
            settled,
            ..Reconciler::default()
        }
    }

    /// What is wished now.
    pub fn wish(&self) -> Option<&Desired> {
        self.wish.as_ref()
    }

    /// Takes a new wish, or none. Says whether it is another one than before.
    pub fn set_wish(&mut self, wish: Option<&Desired>) -> bool {
        let wish = wish.filter(|wish| wish.value.value.is_some());
        let unchanged = match (&self.wish, wish) {
            (None, None) => true,
            (Some(old), Some(new)) => old.position == new.position && same(&old.value, &new.value),
            _ => false,
        };
        if !unchanged {
            self.wish = wish.cloned();
            self.attempts = 0;
            self.not_before = None;
            self.held_since = None;
        }
        !unchanged
    }

    /// The wish cannot be carried out, for `reason`. Says whether the log has to be told: once per wish.
    pub fn refuse(&mut self, reason: &str) -> bool {
        let Some(wish) = &self.wish else { return false };
        let refused = Settled {
            position: wish.position,
            outcome: Outcome::Failed,
            error: reason.to_owned(),
        };
        let news = self.settled.as_ref() != Some(&refused);
        self.settled = Some(refused);
        self.not_before = None;
        news
    }

    /// The device holds the wished value, or not.
    pub fn observe(&mut self, holds: bool, now: Instant, limits: &WriteLimits) -> Step {
        let Some(wish) = &self.wish else { return Step::Rest };
        if !holds {
            let drifted = self.held_since.take().is_some();
            if self.not_before.is_some_and(|time| now < time) {
                return Step::Rest;
            }
            return Step::Write { drifted };
        }
        let since = *self.held_since.get_or_insert(now);
        if now.duration_since(since) >= limits.settled_after {
            self.attempts = 0;
            self.not_before = None;
        }
        let applied = self
            .settled
            .as_ref()
            .is_some_and(|s| s.position == wish.position && s.outcome == Outcome::Applied);
        if applied { Step::Rest } else { Step::Confirm }
    }

    /// What was tried, or confirmed, came to `outcome`. Sets when it may be tried again.
    pub fn settle(&mut self, outcome: Outcome, error: &str) {
        if let Some(wish) = &self.wish {
            let position = wish.position;
            self.settled = Some(Settled {
                position,
                outcome,
                error: error.to_owned(),
            });
        }
    }

    /// A write begins or had to be put off: the next one waits, longer each time.
    pub fn attempted(&mut self, now: Instant, limits: &WriteLimits) {
        let growth = 1u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        let delay = limits.backoff_min.saturating_mul(growth).min(limits.backoff_max);
        self.attempts = self.attempts.saturating_add(1);
        self.not_before = Some(now + delay);
    }

    /// The property could not be looked at: a repetition that was due waits again.
    pub fn postpone(&mut self, now: Instant, limits: &WriteLimits) {
        if self.not_before.is_some_and(|time| time <= now) {
            self.attempted(now, limits);
        }
    }

    /// When to look at the device again although no collect cycle is due: a write is waiting to be repeated.
    pub fn retry_at(&self) -> Option<Instant> {
        if self.wish.is_some() && self.held_since.is_none() {
            self.not_before
        } else {
            None
        }
    }
}

/// As written in records.
pub fn wire(position: Position) -> v1::StreamPosition {
    v1::StreamPosition {
        epoch: position.epoch.0,
        seq: position.seq.0,
    }
}

fn position(wire: v1::StreamPosition) -> Position {
    use ledge_proto::ids::{Epoch, Seq};
    Position {
        epoch: Epoch(wire.epoch),
        seq: Seq(wire.seq),
    }
}

#[cfg(test)]
mod tests {
    use ledge_proto::ids::{Epoch, Seq};

    use super::*;
    use crate::twin::value::int;

    const LIMITS: WriteLimits = WriteLimits {
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(8),
        settled_after: Duration::from_secs(60),
    };

    fn wish(number: i64, seq: u64) -> Desired {
        Desired {
            value: int(number),
            position: Position {
                epoch: Epoch(1),
                seq: Seq(seq),
            },
        }
    }

    fn wishing(last: Option<&v1::WriteResult>) -> Reconciler {
        let mut reconciler = Reconciler::new(last);
        assert!(reconciler.set_wish(Some(&wish(5, 1))));
        reconciler
    }

    fn result(seq: u64, outcome: Outcome, error: &str) -> v1::WriteResult {
        let desired = Some(v1::StreamPosition { epoch: 1, seq });
        v1::WriteResult {
            desired,
            outcome: outcome.into(),
            error: error.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_device_that_already_holds_the_value_is_confirmed_once() {
        let mut reconciler = wishing(None);
        let now = Instant::now();
        assert_eq!(reconciler.observe(true, now, &LIMITS), Step::Confirm);
        reconciler.settle(Outcome::Applied, "");
        assert_eq!(reconciler.observe(true, now, &LIMITS), Step::Rest);
        let mut restarted = wishing(Some(&result(1, Outcome::Applied, "")));
        assert_eq!(restarted.observe(true, now, &LIMITS), Step::Rest);
    }

    #[test]
    fn a_crash_between_write_and_result_is_looked_at_again() {
        let before = result(0, Outcome::Applied, "");
        let now = Instant::now();
        assert_eq!(wishing(Some(&before)).observe(true, now, &LIMITS), Step::Confirm);
        assert_eq!(
            wishing(Some(&before)).observe(false, now, &LIMITS),
            Step::Write { drifted: false }
        );
    }

    #[test]
    fn a_stubborn_device_is_told_at_growing_intervals() {
        let mut reconciler = wishing(None);
        let start = Instant::now();
        let mut writes = Vec::new();
        for second in 0..60u64 {
            let now = start + Duration::from_secs(second);
            if let Step::Write { .. } = reconciler.observe(false, now, &LIMITS) {
                reconciler.attempted(now, &LIMITS);
                reconciler.settle(Outcome::Applied, "");
                writes.push(second);
            }
        }
        assert_eq!(writes, [0, 1, 3, 7, 15, 23, 31, 39, 47, 55]);
        assert!(
            reconciler.set_wish(Some(&wish(5, 2))),
            "a new record is a new wish"
        );
        assert_eq!(
            reconciler.observe(false, start, &LIMITS),
            Step::Write { drifted: false }
        );
    }

    #[test]
    fn a_value_that_held_for_long_is_restored_at_once_and_short_holding_does_not_reset_the_delay() {
        let mut reconciler = wishing(None);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            reconciler.observe(false, start, &LIMITS),
            Step::Write { drifted: false }
        );
        reconciler.attempted(start, &LIMITS);
        reconciler.settle(Outcome::Applied, "");
        assert_eq!(reconciler.retry_at(), Some(at(1)));
        assert_eq!(reconciler.observe(true, start, &LIMITS), Step::Rest);
        assert_eq!(reconciler.retry_at(), None);
        assert_eq!(
            reconciler.observe(false, at(2), &LIMITS),
            Step::Write { drifted: true }
        );
        reconciler.attempted(at(2), &LIMITS);
        assert_eq!(
            reconciler.retry_at(),
            Some(at(4)),
            "the second delay, not the first"
        );
        reconciler.observe(true, at(3), &LIMITS);
        reconciler.observe(true, at(70), &LIMITS);
        assert_eq!(
            reconciler.observe(false, at(71), &LIMITS),
            Step::Write { drifted: true }
        );
        reconciler.attempted(at(71), &LIMITS);
        assert_eq!(reconciler.retry_at(), Some(at(72)));
    }

    #[test]
    fn a_refusal_is_told_once_per_wish_also_after_a_restart() {
        let mut reconciler = wishing(None);
        assert!(reconciler.refuse("too hot"));
        assert!(!reconciler.refuse("too hot"));
        assert!(!wishing(Some(&result(1, Outcome::Failed, "too hot"))).refuse("too hot"));
        assert!(wishing(Some(&result(0, Outcome::Failed, "too hot"))).refuse("too hot"));
        reconciler.set_wish(Some(&wish(6, 2)));
        assert!(reconciler.refuse("too hot"));
    }

    #[test]
    fn an_empty_wish_is_none() {
        let mut reconciler = wishing(None);
        let empty = Desired {
            value: v1::Value::default(),
            ..wish(0, 2)
        };
        assert!(reconciler.set_wish(Some(&empty)));
        assert_eq!(reconciler.observe(false, Instant::now(), &LIMITS), Step::Rest);
        assert!(!reconciler.set_wish(None));
        assert!(!reconciler.refuse("read-only"));
    }
}
