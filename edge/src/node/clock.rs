//! Notices that the wall clock became trustworthy, or jumped.
//!
//! Order never depends on it: records are ordered by their place in the stream. But a person who asks what happened at
//! noon needs the hours before the clock was set as well, so the change is recorded, and readers give the earlier records
//! of the same start the time they would have had.

use std::time::Duration;

use ledge_log::Log;
use ledge_proto::ids::{Lane, Scope};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use ledge_proto::v1::ClockQuality;
use tokio_util::sync::CancellationToken;

use crate::node::SystemClock;
use crate::twin::{Clock, Journal, JournalError, NewRecord, Stamp};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The wall clock may stray so far from the monotonic one before that counts as a jump, microseconds. Slewing by a time
/// service moves both alike.
const JUMP_US: i64 = 2_000_000;

/// The wall clock changed its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockChange {
    /// What it says now.
    pub now: Stamp,
    /// What it would say now, had it not changed: microseconds since 1970.
    pub before_us: i64,
}

impl ClockChange {
    /// By how much it jumped, microseconds; negative for backwards.
    pub fn jump_us(&self) -> i64 {
        self.now.wall_us.saturating_sub(self.before_us)
    }

    /// What is recorded of it, in the given start of the daemon.
    pub fn annotation(&self, boot: u32) -> v1::ClockSync {
        v1::ClockSync {
            boot,
            mono_us: self.now.mono_us,
            wall_us: self.now.wall_us,
            before_us: self.before_us,
            quality: self.now.clock.into(),
        }
    }
}

/// Compares the wall clock with the monotonic one.
#[derive(Debug, Clone, Copy)]
pub struct ClockWatch {
    /// Wall clock minus monotonic clock, as last recorded.
    offset_us: i64,
    synced: bool,
}

impl ClockWatch {
    /// Begins with a clock that shows `first`: what records so far were written by.
    pub fn new(first: Stamp) -> Self {
        ClockWatch {
            offset_us: offset(first),
            synced: is_synced(first),
        }
    }

    /// Looks again: `Some` when the clock became synced, or when it strayed from where it was by more than two seconds
    /// in all since the last change that was told.
    pub fn look(&mut self, now: Stamp) -> Option<ClockChange> {
        let offset_us = offset(now);
        let strayed = offset_us.saturating_sub(self.offset_us).saturating_abs() > JUMP_US;
        let became_synced = is_synced(now) && !self.synced;
        self.synced = is_synced(now);
        if !strayed && !became_synced {
            return None;
        }
        let before_us = self.offset_us.saturating_add(mono(now));
        self.offset_us = offset_us;
        Some(ClockChange { now, before_us })
    }
}

/// Watches the machine's clock and records when it changed its mind, until `shutdown`.
pub async fn watch<J: Journal>(journal: J, log: Log, scope: Scope, shutdown: CancellationToken) {
    let boot = log.identity().boot;
    record_changes(&journal, &SystemClock, (&scope, boot), &shutdown).await;
}

/// As [`watch`], by any clock. Ends early when the log fails; the mappers tell of that.
pub async fn record_changes<J: Journal>(
    journal: &J,
    clock: &impl Clock,
    (scope, boot): (&Scope, u32),
    shutdown: &CancellationToken,
) {
    let mut watch = ClockWatch::new(clock.stamp());
    let mut untold: Option<ClockChange> = None;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if let Some(change) = watch.look(clock.stamp()) {
            tracing::warn!(
                jump_us = change.jump_us(),
                quality = change.now.clock.as_str_name(),
                "the wall clock was set"
            );
            // Of two that could not be recorded the later one says it all, but for where the first began.
            untold = Some(untold.map_or(change, |first| {
                ClockChange {
                    before_us: first
                        .before_us
                        .saturating_add(mono(change.now).saturating_sub(mono(first.now))),
                    ..change
                }
            }));
        }
        let Some(change) = untold else { continue };
        let record = NewRecord {
            key: scope.node_name().unwrap_or_default().to_owned(),
            payload: Payload::ClockSync(change.annotation(boot)),
            stamp: change.now,
            cause: None,
        };
        match journal.append(Lane::UpData, vec![record]).await {
            Ok(()) => untold = None,
            // Tried again: telemetry waits as well.
            Err(JournalError::Full(_)) => {}
            Err(JournalError::Failed(_) | JournalError::Closed) => return,
        }
    }
}

fn is_synced(stamp: Stamp) -> bool {
    stamp.clock == ClockQuality::ClockSynced
}

fn mono(stamp: Stamp) -> i64 {
    i64::try_from(stamp.mono_us).unwrap_or(i64::MAX)
}

fn offset(stamp: Stamp) -> i64 {
    stamp.wall_us.saturating_sub(mono(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000_000_000;

    fn stamp(wall_us: i64, mono_us: u64, clock: ClockQuality) -> Stamp {
        Stamp {
            wall_us,
            clock,
            mono_us,
        }
    }

    #[test]
    fn a_clock_that_runs_is_left_alone() {
        let mut watch = ClockWatch::new(stamp(NOON, 5, ClockQuality::ClockSynced));
        for second in 1..100_000 {
            let now = stamp(
                NOON + second * 1_000_000 + second * 15,
                second as u64 * 1_000_000 + 5,
                ClockQuality::ClockSynced,
            );
            assert_eq!(watch.look(now), None, "{second}");
        }
    }

    #[test]
    fn boot_in_1970_then_the_time_arrives() {
        let mut watch = ClockWatch::new(stamp(3_000_000, 3_000_000, ClockQuality::ClockBeforeBuild));
        assert_eq!(
            watch.look(stamp(9_000_000, 9_000_000, ClockQuality::ClockBeforeBuild)),
            None
        );
        // The service steps the clock, and later calls it good.
        let stepped = watch
            .look(stamp(NOON, 10_000_000, ClockQuality::ClockUnsynced))
            .unwrap();
        assert_eq!(stepped.before_us, 10_000_000);
        assert_eq!(stepped.jump_us(), NOON - 10_000_000);
        let synced = watch
            .look(stamp(NOON + 1_000_000, 11_000_000, ClockQuality::ClockSynced))
            .unwrap();
        assert_eq!(synced.jump_us(), 0);
        assert_eq!(
            watch.look(stamp(NOON + 2_000_000, 12_000_000, ClockQuality::ClockSynced)),
            None
        );
    }

    #[test]
    fn jumps_both_ways_are_told_once() {
        let mut watch = ClockWatch::new(stamp(NOON, 0, ClockQuality::ClockSynced));
        for (wall, mono, jump) in [
            (NOON + 3_600_000_000 + 1, 1, 3_600_000_000),
            (NOON + 2, 2, -3_600_000_000),
        ] {
            let change = watch.look(stamp(wall, mono, ClockQuality::ClockSynced)).unwrap();
            assert_eq!(change.jump_us(), jump);
            assert_eq!(
                watch.look(stamp(wall + 1, mono + 1, ClockQuality::ClockSynced)),
                None
            );
        }
    }

    #[test]
    fn slow_drift_adds_up() {
        let mut watch = ClockWatch::new(stamp(NOON, 0, ClockQuality::ClockUnsynced));
        let mut told = 0;
        // 100 ppm for two days, looked at once a minute: about 17 seconds.
        for minute in 1..=2880i64 {
            let mono = minute * 60_000_000;
            let wall = NOON + mono + mono / 10_000;
            told += u32::from(
                watch
                    .look(stamp(wall, mono as u64, ClockQuality::ClockUnsynced))
                    .is_some(),
            );
        }
        assert_eq!(told, 8);
    }

    /// A clock that shows what it is told, and a journal that is full at first.
    #[derive(Clone, Default)]
    struct Fake {
        shown: std::sync::Arc<std::sync::Mutex<std::collections::VecDeque<Stamp>>>,
        full: std::sync::Arc<std::sync::atomic::AtomicU32>,
        noted: std::sync::Arc<std::sync::Mutex<Vec<NewRecord>>>,
    }

    impl Clock for Fake {
        fn stamp(&self) -> Stamp {
            let mut shown = self.shown.lock().unwrap();
            if shown.len() > 1 {
                return shown.pop_front().unwrap();
            }
            *shown.front().unwrap()
        }
    }

    impl Journal for Fake {
        async fn append(&self, lane: Lane, records: Vec<NewRecord>) -> Result<(), JournalError> {
            assert_eq!(lane, Lane::UpData);
            let full = &self.full;
            if full.load(std::sync::atomic::Ordering::SeqCst) > 0 {
                full.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                return Err(JournalError::Full("for now".into()));
            }
            self.noted.lock().unwrap().extend(records);
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_noted_once_also_when_the_log_is_full_at_first() {
        let fake = Fake::default();
        fake.full.store(3, std::sync::atomic::Ordering::SeqCst);
        fake.shown.lock().unwrap().extend([
            stamp(1_000_000, 1_000_000, ClockQuality::ClockBeforeBuild),
            stamp(2_000_000, 2_000_000, ClockQuality::ClockBeforeBuild),
            stamp(NOON, 3_000_000, ClockQuality::ClockSynced),
        ]);
        let (shutdown, scope) = (CancellationToken::new(), Scope::node("edge-1").unwrap());
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            stop.cancel();
        });
        record_changes(&fake, &fake, (&scope, 7), &shutdown).await;
        let noted = fake.noted.lock().unwrap();
        assert_eq!(noted.len(), 1);
        let Payload::ClockSync(note) = &noted[0].payload else {
            panic!("{noted:?}");
        };
        assert_eq!((note.boot, note.mono_us, note.wall_us), (7, 3_000_000, NOON));
        assert_eq!(note.before_us, 3_000_000);
    }

    #[test]
    fn a_clock_gone_wild_does_not_overflow() {
        let mut watch = ClockWatch::new(stamp(i64::MIN, u64::MAX, ClockQuality::ClockUnknown));
        assert!(
            watch
                .look(stamp(i64::MAX, 0, ClockQuality::ClockUnknown))
                .is_some()
        );
    }
}
