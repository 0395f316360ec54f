//! Tasks with names: every one is joined at the end, and the late ones are told.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// The running tasks of a daemon.
#[derive(Debug, Default)]
pub struct Tasks {
    running: Vec<(&'static str, JoinHandle<()>)>,
}

impl Tasks {
    /// No tasks.
    pub fn new() -> Self {
        Tasks::default()
    }

    /// Starts a task.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.push((name, tokio::spawn(task)));
    }

    /// Waits for every task, `limit` in all; aborts and names those that are late.
    pub async fn join(self, limit: Duration) -> Vec<&'static str> {
        let deadline = Instant::now() + limit;
        let mut late = Vec::new();
        for (name, mut task) in self.running {
            match timeout_at(deadline, &mut task).await {
                Ok(Ok(())) => tracing::debug!(task = name, "ended"),
                Ok(Err(err)) => tracing::error!(task = name, %err, "failed"),
                Err(_) => {
                    task.abort();
                    tracing::warn!(task = name, "still running at the end, aborted");
                    late.push(name);
                }
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn late_tasks_are_named() {
        let mut tasks = Tasks::new();
        tasks.spawn("quick", async {});
        tasks.spawn("stuck", std::future::pending());
        assert_eq!(tasks.join(Duration::from_secs(1)).await, ["stuck"]);
    }
}
