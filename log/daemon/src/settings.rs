//! Settings that take effect while the daemon runs: SIGHUP has the configuration read again.

use std::sync::Arc;

use ledge_retention::budget::DiskOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Reads the configuration again. The error is what is wrong with it.
pub type Load = Arc<dyn Fn() -> Result<DiskOptions, String> + Send + Sync>;

/// What the operator changes while the daemon runs.
pub struct Settings {
    hangup: Option<Signal>,
    load: Load,
    now: DiskOptions,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// `now` is in force. From this call on SIGHUP does not end the process, so make them early; needs a runtime.
    pub fn new(now: DiskOptions, load: Load) -> Settings {
        let hangup = signal(SignalKind::hangup())
            .inspect_err(
                |err| tracing::error!(%err, "cannot listen for SIGHUP: settings change with a restart only"),
            )
            .ok();
        Settings { hangup, load, now }
    }

    /// Waits for settings that differ from those in force, and takes them as such. What is wrong is told, and changes
    /// nothing. Loses nothing when it is dropped.
    pub async fn changed(&mut self) -> DiskOptions {
        loop {
            match &mut self.hangup {
                Some(hangup) => {
                    if hangup.recv().await.is_none() {
                        self.hangup = None;
                        continue;
                    }
                }
                None => std::future::pending().await,
            }
            // A short file, read on demand.
            match (self.load)() {
                Ok(new) if new.reserve_bytes != self.now.reserve_bytes => {
                    tracing::warn!("SIGHUP: ledge.disk.reserve takes effect with a restart");
                    let new = DiskOptions {
                        reserve_bytes: self.now.reserve_bytes,
                        ..new
                    };
                    if new != self.now {
                        self.now = new;
                        return self.now.clone();
                    }
                }
                Ok(new) if new != self.now => {
                    self.now = new;
                    return self.now.clone();
                }
                Ok(_) => tracing::info!(
                    "SIGHUP: ledge.disk has not changed; other settings take effect with a restart"
                ),
                Err(reason) => tracing::error!(
                    reason,
                    "SIGHUP: the configuration cannot be used; everything stays as it was"
                ),
            }
        }
    }
}
