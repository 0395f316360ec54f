//! Tasks with names, joined at the end.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout_at};

/// Running tasks by name.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, String>,
}

/// A task that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The name it was started under.
    pub(super) name: String,
    /// It panicked rather than returned.
    pub(super) panicked: bool,
}

impl Tasks {
    /// Starts a task.
    pub(super) fn spawn(&mut self, name: String, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// The next task to end; never resolves while none runs.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.set.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, ()))) => Ended {
                name: self.forget(id),
                panicked: false,
            },
            Some(Err(err)) => {
                let name = self.forget(err.id());
                if err.is_panic() {
                    tracing::error!(task = name, %err, "a task panicked");
                }
                Ended {
                    name,
                    panicked: err.is_panic(),
                }
            }
        }
    }

    /// Waits for all tasks; aborts those that have not ended after `limit` and gives their names.
    pub(super) async fn join(mut self, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        while !self.set.is_empty() {
            if timeout_at(deadline, self.ended()).await.is_err() {
                break;
            }
        }
        self.set.shutdown().await;
        let mut late: Vec<String> = self.names.into_values().collect();
        late.sort();
        late
    }

    fn forget(&mut self, id: Id) -> String {
        self.names.remove(&id).unwrap_or_default()
    }
}
