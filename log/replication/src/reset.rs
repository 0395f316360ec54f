//! A stream goes on under a new epoch ([`ledge_retention::reset`]), while nothing else is appended to it.

use std::sync::Arc;

use ledge_log::Log;
use ledge_proto::stamp::Stamp;
use ledge_retention::reset;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, RwLockReadGuard};

pub use ledge_retention::reset::{LostHistory, Reset, ResetError};

/// Lets appends to a log's own streams through, except while one of them goes on under a new epoch. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct OwnAppends(Arc<RwLock<()>>);

impl OwnAppends {
    /// Held by whoever appends to a stream of the log's own, until what it appended is durable.
    pub async fn append(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().await
    }

    async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.0.clone().write_owned().await
    }
}

/// Carries out resets, all durably.
pub(crate) async fn carry_out(
    log: &Log,
    appends: &OwnAppends,
    resets: Vec<Reset>,
    now: Stamp,
) -> Result<Vec<LostHistory>, ResetError> {
    let alone = appends.alone().await;
    let log = log.clone();
    let done = tokio::task::spawn_blocking(move || {
        // Held to the end, also when the link has gone meanwhile.
        let _alone = alone;
        reset::begin(&log, &resets, now)
    });
    done.await.map_err(|err| ResetError::Fold(err.to_string()))?
}
