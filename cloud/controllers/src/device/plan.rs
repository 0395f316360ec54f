//! When which device is written: what changed at once or when its cycle is over, what failed again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledge_proto::ids::Scope;
use tokio::time::Instant;

/// Devices taken for one round of writing.
const TAKEN: usize = 512;
/// The report cycle of a device of which nothing was read yet.
pub(super) const DEFAULT_CYCLE: Duration = Duration::from_secs(10);
/// A report that only says that a value is still the same moves its time on this often.
const TIMES_EVERY: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What fails again and again is tried more and more rarely, down to this.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(64);

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) started: Instant,
    due: BTreeSet<(Instant, String)>,
    devices: BTreeMap<String, Planned>,
    /// Nodes that are back, and of which not all is known yet that they told meanwhile.
    pub(super) catching_up: BTreeSet<Scope>,
    /// When these are looked at again.
    pub(super) look: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    due: Option<Instant>,
    written: Option<Instant>,
    cycle: Duration,
    /// How often it failed since it went well.
    failed: u32,
}

/// What came of writing a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrote {
    /// It was right.
    Nothing,
    /// It is right now.
    Something,
    /// Only times would move: not before then.
    Times(Instant),
    /// It has to be tried again.
    Failed,
    /// There is no such device.
    Gone,
}

impl Plan {
    pub(super) fn new() -> Plan {
        Plan {
            started: Instant::now(),
            due: BTreeSet::new(),
            devices: BTreeMap::new(),
            catching_up: BTreeSet::new(),
            look: None,
        }
    }

    /// Something happened to a device.
    pub(super) fn touch(&mut self, key: String, at_once: bool) {
        let now = Instant::now();
        let known = self.devices.get(&key);
        let quiet = known.and_then(|known| Some(known.written? + known.cycle));
        let due = match quiet {
            Some(quiet) if !at_once => quiet.max(now),
            _ => now,
        };
        self.plan(key, due);
    }

    /// Whether it could not be written the last time: it has its turn when it is tried again.
    pub(super) fn fails(&self, key: &str) -> bool {
        self.devices.get(key).is_some_and(|known| known.failed > 0)
    }

    /// Not later than `due`.
    pub(super) fn plan(&mut self, key: String, due: Instant) {
        let known = self.devices.entry(key.clone()).or_insert(Planned {
            due: None,
            written: None,
            cycle: DEFAULT_CYCLE,
            failed: 0,
        });
        if known.due.is_some_and(|planned| planned <= due) {
            return;
        }
        if let Some(planned) = known.due.replace(due) {
            self.due.remove(&(planned, key.clone()));
        }
        self.due.insert((due, key));
    }

    pub(super) fn again(&mut self, key: String) {
        let failed = self.devices.get_mut(&key).map_or(0, |known| {
            known.failed = known.failed.saturating_add(1);
            known.failed - 1
        });
        let pause = AGAIN_AFTER.saturating_mul(2_u32.saturating_pow(failed));
        self.plan(key, Instant::now() + pause.min(AGAIN_AFTER_MAX));
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What is due.
    pub(super) fn take(&mut self) -> Vec<String> {
        let now = Instant::now();
        let mut keys = Vec::new();
        while keys.len() < TAKEN && self.next().is_some_and(|due| due <= now) {
            let Some((_, key)) = self.due.pop_first() else {
                break;
            };
            if let Some(known) = self.devices.get_mut(&key) {
                known.due = None;
            }
            keys.push(key);
        }
        keys
    }

    pub(super) fn times_not_before(&self, key: &str) -> Instant {
        let written = self.devices.get(key).and_then(|known| known.written);
        written.unwrap_or(self.started) + TIMES_EVERY
    }

    pub(super) fn wrote(&mut self, key: String, cycle: Duration, wrote: Wrote) {
        if let Some(known) = self.devices.get_mut(&key) {
            known.cycle = cycle;
            if wrote != Wrote::Failed {
                known.failed = 0;
            }
        }
        match wrote {
            Wrote::Nothing => {}
            Wrote::Something => {
                if let Some(known) = self.devices.get_mut(&key) {
                    known.written = Some(Instant::now());
                }
            }
            Wrote::Times(due) => self.plan(key, due),
            Wrote::Failed => self.again(key),
            Wrote::Gone => {
                if let Some(known) = self.devices.remove(&key)
                    && let Some(due) = known.due
                {
                    self.due.remove(&(due, key));
                }
            }
        }
    }
}
