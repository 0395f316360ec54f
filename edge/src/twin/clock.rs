//! The time a record is given, taken through a clock that was handed in, so that tests can simulate it.

use ledge_proto::v1;

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

/// Tells the time of an event.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn stamp(&self) -> Stamp;
}
