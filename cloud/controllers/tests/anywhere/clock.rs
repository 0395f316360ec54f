//! Time that stands still but where a test moves it, for tests of when something is done.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use ledge_cloud_testing::PATIENCE;

/// The clock of a test moves on by itself when nothing is to be done in the runtime; the log and its projection work
/// outside of it. As long as this lives, only [`advance`] moves the clock.
pub(crate) struct Held(#[allow(dead_code, reason = "dropped, it ends the wait")] SyncSender<()>);

pub(crate) fn hold_the_clock() -> Held {
    let (held, end) = sync_channel(0);
    drop(tokio::task::spawn_blocking(move || end.recv().ok()));
    Held(held)
}

/// Gives everything else a moment that is none on the test's clock.
pub(crate) async fn meanwhile() {
    let pause = || {
        sync_channel::<()>(0)
            .1
            .recv_timeout(Duration::from_millis(2))
            .ok()
    };
    tokio::task::spawn_blocking(pause).await.unwrap();
    tokio::task::yield_now().await;
}

/// The answer, as soon as there is one.
pub(crate) async fn soon<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question().await {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        meanwhile().await;
    }
}
