//! The clock certificates are judged by: never earlier than it can be.
//!
//! A machine without a battery for its clock starts in 1970, where no certificate is valid yet, and without a link there
//! may be nothing to set the clock by. So the earliest moment it can be is known from elsewhere: this program was built,
//! this node's certificate was made, its log's newest record was written by a clock that was set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ledge_proto::stamp::BUILT_AFTER_US;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

use crate::certs::Validity;

/// The later of a clock and a floor that only rises. Clones share the floor.
#[derive(Clone)]
pub struct CertClock {
    /// Seconds since 1970.
    floor: Arc<AtomicI64>,
    wall: fn() -> SystemTime,
}

impl Default for CertClock {
    fn default() -> Self {
        CertClock::over(SystemTime::now)
    }
}

impl CertClock {
    /// The later of `wall` and this program's build.
    pub fn over(wall: fn() -> SystemTime) -> Self {
        CertClock {
            floor: Arc::new(AtomicI64::new(BUILT_AFTER_US / 1_000_000)),
            wall,
        }
    }

    /// It is not earlier than when this certificate became valid: we hold it.
    pub(crate) fn not_before(&self, own: Validity) {
        self.floor.fetch_max(own.from(), Ordering::Relaxed);
    }

    /// It is not earlier than this record, written by a clock that was set. A time at which the own certificate would be
    /// over is not believed: one record from a clock gone wild must not keep the node from its cloud.
    pub fn not_before_record(&self, wall_us: i64, own: Validity) {
        let seconds = wall_us / 1_000_000;
        if seconds < own.until() {
            self.floor.fetch_max(seconds, Ordering::Relaxed);
        }
    }

    /// The time to judge a certificate by.
    pub fn now(&self) -> SystemTime {
        let floor = u64::try_from(self.floor.load(Ordering::Relaxed)).unwrap_or(0);
        (self.wall)().max(UNIX_EPOCH + Duration::from_secs(floor))
    }
}

impl std::fmt::Debug for CertClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertClock").field("now", &self.now()).finish()
    }
}

impl TimeProvider for CertClock {
    fn current_time(&self) -> Option<UnixTime> {
        // It is never before 1970: the floor is not.
        let since = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{Authority, identity_of_file};

    #[test]
    fn in_1970_it_is_as_late_as_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let files = authority.issue_node("edge-1", dir.path()).unwrap();
        let own = identity_of_file(&files.cert).unwrap().validity;
        let clock = CertClock::over(|| UNIX_EPOCH);
        assert!(own.problem(UNIX_EPOCH).is_some());
        clock.not_before(own);
        assert_eq!(own.problem(clock.now()), None);
        let later = own.from() + 86_400;
        clock.not_before_record(later * 1_000_000, own);
        assert_eq!(
            clock.current_time().unwrap().as_secs(),
            u64::try_from(later).unwrap()
        );
        // A record from 2099 is not believed, and nothing lowers the floor.
        clock.not_before_record(4_070_908_800_000_000, own);
        clock.not_before_record(0, own);
        assert_eq!(own.problem(clock.now()), None);
        assert_eq!(
            clock.current_time().unwrap().as_secs(),
            u64::try_from(later).unwrap()
        );
    }

    #[test]
    fn a_clock_that_is_set_counts() {
        let now = SystemTime::now();
        assert!(CertClock::default().now() >= now);
    }
}
