//! The way from the device tasks to the log: one queue and one task per lane.
//!
//! While records of a lane are being made durable, others gather and go together in the next append. A full log is
//! tried again until it takes the records; meanwhile the queue fills and the device tasks wait, so nothing is
//! dropped. A failed log ends the mappers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ledge_proto::ids::Lane;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::twin::{Journal, JournalError, NewRecord};

/// Batches waiting per lane. A batch is what one device read at one time.
const QUEUE: usize = 512;
/// Batches are gathered until there are so many records.
const GATHER_RECORDS: usize = 1024;
/// First and longest delay before a full log is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Takes records of both lanes.
#[derive(Clone)]
pub(super) struct Recorder {
    state: mpsc::Sender<Vec<NewRecord>>,
    data: mpsc::Sender<Vec<NewRecord>>,
}

/// Tells that the log takes nothing more, and why.
#[derive(Clone, Default)]
pub(super) struct Failure {
    error: Arc<OnceLock<JournalError>>,
    token: CancellationToken,
}

impl Failure {
    /// Sets the reason, when it is the first.
    pub(super) fn set(&self, error: JournalError) {
        // The first error is the one that explains the others.
        let _ = self.error.set(error);
        self.token.cancel();
    }

    /// Resolves when the log has failed.
    pub(super) async fn happened(&self) {
        self.token.cancelled().await;
    }

    /// Why, when it has failed.
    pub(super) fn error(&self) -> Option<JournalError> {
        self.error.get().cloned()
    }
}

impl Recorder {
    /// A recorder, and the two tasks that must be run to serve it. They end when the last clone is dropped and
    /// everything is in the log; after `shutdown` a log that is full gets one more try only.
    pub(super) fn new<J: Journal>(
        journal: &J,
        failure: &Failure,
        shutdown: &CancellationToken,
    ) -> (Recorder, [impl Future<Output = ()> + Send + use<J>; 2]) {
        let lane = |lane| {
            let (sender, queue) = mpsc::channel(QUEUE);
            let writer = Writer {
                journal: journal.clone(),
                lane,
                failure: failure.clone(),
                shutdown: shutdown.clone(),
            };
            (sender, writer.run(queue))
        };
        let (state, state_task) = lane(Lane::UpState);
        let (data, data_task) = lane(Lane::UpData);
        (Recorder { state, data }, [state_task, data_task])
    }

    /// Hands over records of `up.state`, in order. Waits while the queue is full.
    pub(super) async fn state(&self, records: Vec<NewRecord>) {
        send(&self.state, records).await;
    }

    /// Hands over records of `up.data`, in order. Waits while the queue is full.
    pub(super) async fn data(&self, records: Vec<NewRecord>) {
        send(&self.data, records).await;
    }
}

async fn send(queue: &mpsc::Sender<Vec<NewRecord>>, records: Vec<NewRecord>) {
    // The other end listens until every sender is gone: an error means that its task was aborted, which the
    // manager reports.
    if !records.is_empty() && queue.send(records).await.is_err() {
        tracing::error!("records of a device were not written: the mapper's recorder has ended");
    }
}

struct Writer<J> {
    journal: J,
    lane: Lane,
    failure: Failure,
    shutdown: CancellationToken,
}

impl<J: Journal> Writer<J> {
    async fn run(self, mut queue: mpsc::Receiver<Vec<NewRecord>>) {
        let mut lost = 0;
        while let Some(mut records) = queue.recv().await {
            while records.len() < GATHER_RECORDS
                && let Ok(more) = queue.try_recv()
            {
                records.extend(more);
            }
            let count = records.len();
            if !self.append(records).await {
                lost += count;
            }
        }
        if lost > 0 {
            tracing::error!(lane = %self.lane, lost, "records of devices were not written to the log");
        }
    }

    /// Appends until it worked. False when it never will, or the mappers are stopping and the log is full.
    async fn append(&self, records: Vec<NewRecord>) -> bool {
        if self.failure.error().is_some() {
            return false;
        }
        let mut delay = RETRY.0;
        loop {
            let stopping = self.shutdown.is_cancelled();
            match self.journal.append(self.lane, records.clone()).await {
                Ok(()) => return true,
                Err(err) if !err.may_retry() => {
                    self.failure.set(err);
                    return false;
                }
                Err(_) if stopping => return false,
                Err(err) => {
                    tracing::warn!(lane = %self.lane, %err, ?delay, "devices wait for the log");
                    tokio::select! {
                        () = self.shutdown.cancelled() => {}
                        () = tokio::time::sleep(delay) => {}
                    }
                    delay = (delay * 2).min(RETRY.1);
                }
            }
        }
    }
}
