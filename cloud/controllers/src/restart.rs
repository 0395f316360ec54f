//! A controller that panics is started again: the others go on meanwhile, and what it was at is compared anew, as after a
//! restart of cloudcore.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Before a controller is started again; each time twice as long.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A controller that ran so long begins with the shortest pause again.
const WELL: Duration = Duration::from_secs(600);

/// Runs what `start` makes until it ends by itself, however often it panics before.
pub(crate) async fn again<F: Future<Output = ()>>(
    name: &'static str,
    shutdown: CancellationToken,
    start: impl Fn() -> F,
) {
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        let running = Box::pin(start().instrument(tracing::info_span!("controller", name)));
        // What it leaves behind is not used again: the next one makes everything anew.
        if AssertUnwindSafe(running).catch_unwind().await.is_ok() {
            return;
        }
        if began.elapsed() >= WELL {
            pause = PAUSE;
        }
        metrics::counter!("ledge_controller_panics_total", "controller" => name).increment(1);
        tracing::error!(
            controller = name,
            again_in_s = pause.as_secs(),
            "a controller failed and is started again: please report what the lines before this say"
        );
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// How often it was started, and how long it took, when the first `panics` times it panics after `each`.
    async fn run(panics: u32, each: Duration, shutdown: CancellationToken) -> (u32, Duration) {
        let started = AtomicU32::new(0);
        let began = Instant::now();
        again("test", shutdown, || async {
            let time = started.fetch_add(1, Ordering::SeqCst);
            sleep(each).await;
            assert!(time >= panics, "as this test wants it");
        })
        .await;
        (started.into_inner(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_panics_is_started_again_later_each_time() {
        let goes_on = CancellationToken::new();
        let (started, took) = run(3, Duration::ZERO, goes_on.clone()).await;
        assert_eq!(started, 4);
        assert!((7..8).contains(&took.as_secs()), "{took:?}");
        // One that went well for long is not made to wait.
        let (started, took) = run(3, WELL, goes_on).await;
        assert_eq!(started, 4);
        assert!(
            (4 * WELL.as_secs() + 3..4 * WELL.as_secs() + 4).contains(&took.as_secs()),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_started_again_at_the_end() {
        let over = CancellationToken::new();
        over.cancel();
        assert_eq!(run(9, Duration::ZERO, over).await.0, 1);
    }
}
