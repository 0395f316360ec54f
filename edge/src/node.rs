//! The node's own hand in the log: its journal, and what it says of itself. Its clock is beside it.

mod applied;
pub mod clock;
mod machine;
mod status;

use std::sync::Arc;

use ledge_daemon::tasks::Tasks;
use ledge_log::{AppendError, Log};
use ledge_projection::Projection;
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::v1;
use ledge_replication::reset::OwnAppends;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::hub::HubStatus;
use crate::twin::{Clock, Journal, JournalError, NewRecord, Stamp};

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn stamp(&self) -> Stamp {
        ledge_daemon::clock::stamp()
    }
}

/// Appends to the node's own streams.
#[derive(Clone, Debug)]
pub struct LogJournal {
    log: Log,
    up_state: Arc<StreamId>,
    up_data: Arc<StreamId>,
    appends: OwnAppends,
}

impl LogJournal {
    /// The journal of the node `scope`.
    /// `appends` is shared with the link, which may have to begin a new epoch of these streams.
    pub fn new(log: Log, scope: &Scope, appends: OwnAppends) -> Self {
        LogJournal {
            log,
            up_state: Arc::new(StreamId::new(scope.clone(), Lane::UpState)),
            up_data: Arc::new(StreamId::new(scope.clone(), Lane::UpData)),
            appends,
        }
    }
}

impl Journal for LogJournal {
    async fn append(&self, lane: Lane, records: Vec<NewRecord>) -> Result<(), JournalError> {
        let stream = match lane {
            Lane::UpState => &self.up_state,
            Lane::UpData => &self.up_data,
            Lane::Down | Lane::Local | Lane::Api => {
                return Err(JournalError::Failed(format!("nothing here writes `{lane}`")));
            }
        };
        let boot = self.log.identity().boot;
        let records = records.into_iter().map(|record| to_wire(record, boot)).collect();
        let _through = self.appends.append().await;
        match self.log.append(stream, records).await {
            Ok(_) => Ok(()),
            Err(AppendError::Closed) => Err(JournalError::Closed),
            Err(err @ AppendError::DiskFull { .. }) => Err(JournalError::Full(err.to_string())),
            Err(err) => Err(JournalError::Failed(err.to_string())),
        }
    }
}

fn to_wire(record: NewRecord, boot: u32) -> v1::Record {
    v1::Record {
        cause: record.cause,
        ..record.stamp.record(boot, record.key, &record.payload)
    }
}

/// Lets the node say of itself how it is, and, where there is a cloud, what it understood, until `shutdown`.
pub(crate) fn speak(
    tasks: &mut Tasks,
    config: &Config,
    node: &Scope,
    journal: &LogJournal,
    projection: &Projection,
    hub: Option<Arc<HubStatus>>,
    shutdown: &CancellationToken,
) {
    let status = status::Status {
        journal: journal.clone(),
        projection: projection.clone(),
        node: node.clone(),
        data_dir: config.data_dir.clone(),
        cloud: config.cloud.clone(),
    };
    tasks.spawn("node-status", status.tell(shutdown.clone()));
    let Some(hub) = hub else { return };
    let applied = applied::Applied {
        journal: journal.clone(),
        projection: projection.clone(),
        node: node.clone(),
        heads: hub.heads(),
    };
    tasks.spawn("down-applied", applied.tell(shutdown.clone()));
}

/// The kernel's id of this boot, or empty where there is none.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
