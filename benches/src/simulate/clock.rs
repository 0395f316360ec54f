//! A machine's clocks: neither runs as it should.

use std::time::Duration;

/// Monotonic and wall clock of one machine.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    /// Simulated time at which the machine booted.
    boot_us: u64,
    /// How fast it runs: microseconds per simulated second.
    rate: u64,
    /// What is added to simulated time to get its wall clock.
    wall_offset_us: i64,
}

const RIGHT: u64 = 1_000_000;

impl Clock {
    pub(super) fn new(drift_ppm: i64, wall_offset_us: i64) -> Self {
        Clock {
            boot_us: 0,
            rate: RIGHT.saturating_add_signed(drift_ppm),
            wall_offset_us,
        }
    }

    /// The machine boots: its monotonic clock starts again.
    pub(super) fn boot(&mut self, now_us: u64) {
        self.boot_us = now_us;
    }

    /// Monotonic time since boot.
    pub(super) fn since_boot(&self, now_us: u64) -> Duration {
        let elapsed = u128::from(now_us - self.boot_us);
        let local = elapsed * u128::from(self.rate) / u128::from(RIGHT);
        Duration::from_micros(u64::try_from(local).unwrap_or(u64::MAX))
    }

    /// The simulated time at which the machine's monotonic clock has reached `local`.
    pub(super) fn when(&self, local: Duration) -> u64 {
        let elapsed = (local.as_micros() * u128::from(RIGHT)).div_ceil(u128::from(self.rate));
        self.boot_us + u64::try_from(elapsed).unwrap_or(u64::MAX / 2)
    }

    /// Wall clock, microseconds since 1970.
    pub(super) fn wall_us(&self, now_us: u64) -> i64 {
        i64::try_from(now_us)
            .unwrap_or(i64::MAX)
            .saturating_add(self.wall_offset_us)
    }

    /// Somebody or something sets the wall clock.
    pub(super) fn jump_to(&mut self, wall_us: i64, now_us: u64) {
        self.wall_offset_us = wall_us.saturating_sub(i64::try_from(now_us).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_passed_when_it_is_due() {
        for drift in [-50_000, -3, 0, 7, 50_000] {
            let mut clock = Clock::new(drift, 0);
            clock.boot(12_345);
            for micros in [0, 1, 2, 999_983, 5_000_000] {
                let local = Duration::from_micros(micros);
                assert!(clock.since_boot(clock.when(local)) >= local);
            }
        }
    }
}
