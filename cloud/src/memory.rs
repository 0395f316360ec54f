//! Memory that starting up took and does not need any more.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// By then controllers have seen all objects for the first time.
const STARTED: Duration = Duration::from_secs(5);

/// Gives back to the system, once, what was freed since the start. The allocator keeps it otherwise, in the heap of each thread
/// that took part: a third of what cloudcore would use for as long as it has little to do.
pub(crate) async fn give_back_once(shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(STARTED) => trim(),
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "there is no safe binding of malloc_trim")]
fn trim() {
    // SAFETY: it takes no pointer, and may be called at any time from any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
