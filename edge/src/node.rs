//! The node's own hand in the log: its clock and its journal.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ledge_log::{AppendError, Log};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::v1;

use crate::twin::{Clock, Journal, JournalError, NewRecord, Stamp};

/// No clock that was ever set shows a time before this release: 2026-01-01T00:00:00Z, microseconds.
const BUILT_AFTER_US: i64 = 1_767_225_600_000_000;

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn stamp(&self) -> Stamp {
        let wall_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let mono_us = u64::try_from(boot.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(boot.tv_nsec).unwrap_or(0) / 1000;
        let clock = if wall_us < BUILT_AFTER_US {
            v1::ClockQuality::ClockBeforeBuild
        } else {
            v1::ClockQuality::ClockUnknown
        };
        Stamp {
            wall_us,
            clock,
            mono_us,
        }
    }
}

/// Appends to the node's own streams.
#[derive(Clone, Debug)]
pub struct LogJournal {
    log: Log,
    up_state: Arc<StreamId>,
    up_data: Arc<StreamId>,
}

impl LogJournal {
    /// The journal of the node `scope`.
    pub fn new(log: Log, scope: &Scope) -> Self {
        LogJournal {
            log,
            up_state: Arc::new(StreamId::new(scope.clone(), Lane::UpState)),
            up_data: Arc::new(StreamId::new(scope.clone(), Lane::UpData)),
        }
    }
}

impl Journal for LogJournal {
    async fn append(&self, lane: Lane, records: Vec<NewRecord>) -> Result<(), JournalError> {
        let stream = match lane {
            Lane::UpState => &self.up_state,
            Lane::UpData => &self.up_data,
            Lane::Down | Lane::Local => {
                return Err(JournalError::Failed(format!("nothing here writes `{lane}`")));
            }
        };
        let boot = self.log.identity().boot;
        let records = records.into_iter().map(|record| to_wire(record, boot)).collect();
        match self.log.append(stream, records).await {
            Ok(_) => Ok(()),
            Err(AppendError::Closed) => Err(JournalError::Closed),
            Err(err @ AppendError::DiskFull { .. }) => Err(JournalError::Full(err.to_string())),
            Err(err) => Err(JournalError::Failed(err.to_string())),
        }
    }
}

fn to_wire(record: NewRecord, boot: u32) -> v1::Record {
    let (kind, payload) = record.payload.encode();
    v1::Record {
        kind,
        key: record.key,
        wall_us: record.stamp.wall_us,
        clock: record.stamp.clock.into(),
        mono_us: record.stamp.mono_us,
        boot,
        cause: record.cause,
        payload: payload.into(),
        schema: 0,
    }
}

/// The kernel's id of this boot, or empty where there is none.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
