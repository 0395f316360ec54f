//! When records happened that were written before the clock was set.
//!
//! A daemon that finds its clock set notes what the monotonic clock said then. Records of the same start that were written by
//! a clock nobody had set get their time from that note. The records themselves stay as they are.

use crate::v1::{self, ClockQuality};

/// What one life of a node's disk noted of its clock.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClockNotes {
    notes: Vec<v1::ClockSync>,
}

/// Whether a time by such a clock may be corrected by a later note.
pub fn is_doubtful(clock: ClockQuality) -> bool {
    matches!(
        clock,
        ClockQuality::ClockUnsynced | ClockQuality::ClockBeforeBuild
    )
}

impl ClockNotes {
    /// Takes a note in, in any order. One about a clock that nobody keeps right says nothing of the time.
    pub fn add(&mut self, note: v1::ClockSync) {
        if note.quality() == ClockQuality::ClockSynced {
            self.notes.push(note);
        }
    }

    /// The time, microseconds since 1970, of what happened at `mono_us` of the start `boot`, by the note that came next.
    /// `None` when its clock was not in doubt, or when no such note is known.
    pub fn time_of(&self, clock: ClockQuality, boot: u32, mono_us: u64) -> Option<i64> {
        if !is_doubtful(clock) {
            return None;
        }
        let note = self
            .notes
            .iter()
            .filter(|note| note.boot == boot && note.mono_us >= mono_us)
            .min_by_key(|note| note.mono_us)?;
        let before = i64::try_from(note.mono_us - mono_us).unwrap_or(i64::MAX);
        Some(note.wall_us.saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000_000_000;

    fn note(boot: u32, mono_us: u64, wall_us: i64, quality: ClockQuality) -> v1::ClockSync {
        v1::ClockSync {
            boot,
            mono_us,
            wall_us,
            before_us: 0,
            quality: quality.into(),
        }
    }

    #[test]
    fn the_next_note_of_the_same_start_tells_the_time() {
        let mut notes = ClockNotes::default();
        notes.add(note(2, 900, NOON + 7, ClockQuality::ClockSynced));
        notes.add(note(2, 500, NOON, ClockQuality::ClockSynced));
        notes.add(note(3, 600, NOON, ClockQuality::ClockUnsynced));
        let unset = ClockQuality::ClockBeforeBuild;
        assert_eq!(notes.time_of(unset, 2, 500), Some(NOON));
        assert_eq!(notes.time_of(unset, 2, 100), Some(NOON - 400));
        assert_eq!(notes.time_of(unset, 2, 501), Some(NOON + 7 - 399));
        assert_eq!(notes.time_of(unset, 2, 901), None, "after the last note");
        assert_eq!(notes.time_of(unset, 3, 1), None, "nobody kept that clock right");
        assert_eq!(notes.time_of(unset, 1, 100), None, "another start");
        assert_eq!(notes.time_of(ClockQuality::ClockUnsynced, 2, 500), Some(NOON));
        for trusted in [ClockQuality::ClockSynced, ClockQuality::ClockUnknown] {
            assert_eq!(notes.time_of(trusted, 2, 100), None);
        }
    }

    #[test]
    fn clocks_gone_wild_do_not_overflow() {
        let mut notes = ClockNotes::default();
        notes.add(note(1, u64::MAX, i64::MIN, ClockQuality::ClockSynced));
        assert_eq!(
            notes.time_of(ClockQuality::ClockBeforeBuild, 1, 0),
            Some(i64::MIN)
        );
    }
}
