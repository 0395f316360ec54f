//! When a property is read: on a grid of its collect cycle. A tick that was missed is skipped, never made up for.

use std::time::Duration;

use tokio::time::Instant;

/// Collect cycle when the specification gives none.
const DEFAULT_CYCLE: Duration = Duration::from_secs(1);
/// Shortest collect cycle: a mistake in a manifest must not keep a processor busy.
const MIN_CYCLE: Duration = Duration::from_millis(10);

/// The ticks of one property.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticks {
    cycle: Duration,
    next: Instant,
}

impl Ticks {
    /// Ticks every `cycle_ms` milliseconds, the first at `start`.
    pub(super) fn new(cycle_ms: u64, start: Instant) -> Self {
        Ticks {
            cycle: cycle(cycle_ms),
            next: start,
        }
    }

    /// The next tick.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// When a tick is due: takes it, and says which tick it is (the last one not after `now`) and how many before
    /// it were missed.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Instant, u64)> {
        let late = now.checked_duration_since(self.next)?;
        let missed = u64::try_from(late.as_nanos() / self.cycle.as_nanos()).unwrap_or(u64::MAX);
        let skip = u32::try_from(missed).unwrap_or(u32::MAX);
        let tick = self.next + self.cycle.saturating_mul(skip);
        self.next = tick + self.cycle;
        Some((tick, missed))
    }

    /// Changes the cycle; the grid starts anew at `now` when it is another one.
    pub(super) fn set_cycle(&mut self, cycle_ms: u64, now: Instant) {
        if cycle(cycle_ms) != self.cycle {
            *self = Ticks::new(cycle_ms, now);
        }
    }
}

fn cycle(cycle_ms: u64) -> Duration {
    // A year is as good as any longer time, and cannot overflow.
    const LONGEST_MS: u64 = 365 * 24 * 3600 * 1000;
    match cycle_ms {
        0 => DEFAULT_CYCLE,
        ms => Duration::from_millis(ms.min(LONGEST_MS)).max(MIN_CYCLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_ticks_are_counted_and_the_grid_is_kept() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut ticks = Ticks::new(100, start);
        assert_eq!(ticks.take(at(3)), Some((at(0), 0)));
        assert_eq!(ticks.take(at(99)), None);
        assert_eq!(ticks.take(at(130)), Some((at(100), 0)));
        assert_eq!(ticks.take(at(450)), Some((at(400), 2)), "200 and 300 were missed");
        assert_eq!(ticks.next(), at(500));
    }

    #[test]
    fn odd_cycles_are_bounded() {
        let start = Instant::now();
        for cycle_ms in [0, 1, u64::MAX] {
            let mut ticks = Ticks::new(cycle_ms, start);
            assert_eq!(ticks.take(start), Some((start, 0)));
            assert!(ticks.next() >= start + MIN_CYCLE);
        }
    }
}
