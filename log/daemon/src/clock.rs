//! The machine's clocks: the wall clock with what the kernel says of it, and the time since boot.

use std::time::{SystemTime, UNIX_EPOCH};

use ledge_proto::stamp::{BUILT_AFTER_US, Stamp};
use ledge_proto::v1::ClockQuality;

/// Now.
pub fn stamp() -> Stamp {
    let wall_us = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    // Goes on while the machine sleeps, and never back.
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let mono_us =
        u64::try_from(boot.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(boot.tv_nsec).unwrap_or(0) / 1000;
    Stamp {
        wall_us,
        clock: quality(wall_us, is_disciplined()),
        mono_us,
    }
}

/// What a wall clock is worth that shows `wall_us`, given what the kernel says of it.
fn quality(wall_us: i64, disciplined: Option<bool>) -> ClockQuality {
    match disciplined {
        _ if wall_us < BUILT_AFTER_US => ClockQuality::ClockBeforeBuild,
        Some(true) => ClockQuality::ClockSynced,
        Some(false) => ClockQuality::ClockUnsynced,
        None => ClockQuality::ClockUnknown,
    }
}

/// Whether a time service keeps the kernel's clock right; `None` when the kernel does not say.
#[allow(unsafe_code, reason = "there is no safe binding of adjtimex")]
fn is_disciplined() -> Option<bool> {
    // SAFETY: all zeros is a valid timex, and its `modes` 0 only asks.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live timex of ours; the kernel writes nothing else.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    (answer >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_this_release_was_never_set_whatever_the_kernel_says() {
        assert_eq!(quality(0, Some(true)), ClockQuality::ClockBeforeBuild);
        assert_eq!(
            quality(BUILT_AFTER_US - 1, Some(false)),
            ClockQuality::ClockBeforeBuild
        );
        assert_eq!(quality(BUILT_AFTER_US, Some(true)), ClockQuality::ClockSynced);
        assert_eq!(quality(BUILT_AFTER_US, Some(false)), ClockQuality::ClockUnsynced);
        assert_eq!(quality(BUILT_AFTER_US, None), ClockQuality::ClockUnknown);
    }

    #[test]
    fn the_time_since_boot_does_not_go_back() {
        let (a, b) = (stamp(), stamp());
        assert!(a.mono_us > 0 && a.mono_us <= b.mono_us);
    }
}
