//! The way into the log: the log itself in the daemon, a vector in tests.

use std::future::Future;

use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;

use super::clock::Stamp;

/// A record to be appended. The log adds its sequence number and which start of the daemon wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRecord {
    /// What it is about, for example `default/pump-1/temperature`.
    pub key: String,
    /// What it tells.
    pub payload: Payload,
    /// When it happened.
    pub stamp: Stamp,
    /// The record that made this one happen.
    pub cause: Option<v1::Cause>,
}

/// Why records were not appended. Nothing of the call is in the log unless the error is
/// [`JournalError::Failed`]: then it is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// There is no room now: the same records may be appended later.
    #[error("the log has no room: {0}")]
    Full(String),
    /// A write or fsync failed. The log takes nothing more until the daemon starts again.
    #[error("the log failed: {0}")]
    Failed(String),
    /// The log was closed in an orderly way.
    #[error("the log is closed")]
    Closed,
}

impl JournalError {
    /// Whether a later append may succeed.
    pub fn may_retry(&self) -> bool {
        matches!(self, JournalError::Full(_))
    }
}

/// Appends records to the node's own streams.
pub trait Journal: Clone + Send + Sync + 'static {
    /// Appends `records` to `lane`, in their order and all or none. Resolves when they are durable.
    ///
    /// Records of calls that are waited for one after the other keep that order. A call that is dropped before it
    /// resolves may or may not have appended its records.
    ///
    /// # Errors
    /// See [`JournalError`].
    fn append(
        &self,
        lane: Lane,
        records: Vec<NewRecord>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
}
