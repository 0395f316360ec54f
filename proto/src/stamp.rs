//! The time a record is given.

use crate::v1;

/// No clock that was ever set shows a time before this release: 2026-01-01T00:00:00Z, microseconds since 1970.
pub const BUILT_AFTER_US: i64 = 1_767_225_600_000_000;

/// When something happened, with how far the wall clock can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Wall clock, microseconds since 1970-01-01T00:00:00Z.
    pub wall_us: i64,
    /// How far `wall_us` can be trusted.
    pub clock: v1::ClockQuality,
    /// Monotonic clock, microseconds since boot.
    pub mono_us: u64,
}

impl Stamp {
    /// A record of this moment, in this start of the daemon.
    pub fn record(self, boot: u32, key: String, payload: &crate::record::Payload) -> v1::Record {
        let (kind, payload) = payload.encode();
        v1::Record {
            kind,
            key,
            wall_us: self.wall_us,
            clock: self.clock.into(),
            mono_us: self.mono_us,
            boot,
            cause: None,
            payload: payload.into(),
            schema: 0,
        }
    }
}
