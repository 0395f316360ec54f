//! Time as deadlines and schedules see it.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// Tells the time, and when a time has come. Retries after errors do not go by it.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
    /// Returns when it is `at` or later; may return earlier.
    fn wait_until(&self, at: Timestamp) -> BoxFuture<'_, ()>;
}

/// The longest wait in one piece: a system clock that is set meanwhile is noticed after it.
const PIECE: std::time::Duration = std::time::Duration::from_secs(30);

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn wait_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        let left = at.duration_since(Timestamp::now());
        let left = std::time::Duration::try_from(left).unwrap_or_default();
        Box::pin(tokio::time::sleep(left.min(PIECE)))
    }
}

/// A clock that stands until it is set: for tests.
#[derive(Debug, Clone)]
pub struct ManualClock {
    now: Arc<watch::Sender<Timestamp>>,
}

impl ManualClock {
    /// Stands at `now`.
    pub fn new(now: Timestamp) -> ManualClock {
        ManualClock {
            now: Arc::new(watch::Sender::new(now)),
        }
    }

    /// Goes on by `by`.
    pub fn advance(&self, by: SignedDuration) {
        self.now
            .send_modify(|now| *now = now.saturating_add(by).unwrap_or(*now));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn wait_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            // The sender lives as long as `self`.
            now.wait_for(|now| *now >= at).await.ok();
        })
    }
}
