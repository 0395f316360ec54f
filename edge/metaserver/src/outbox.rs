//! The way into the node's log, and what is known of the link: what MetaServer is given by the daemon.

use async_trait::async_trait;
use ledge_kubeapi::ApiError;
use ledge_kubeapi::error::Reason;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;

/// Why records were not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// There is no room now: the same records may be appended later.
    #[error("{0}")]
    Full(String),
    /// The log takes nothing more until the daemon starts again. Whether it took these is unknown.
    #[error("{0}")]
    Failed(String),
}

/// Appends to the node's own streams.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Appends records, by key, to `lane` (`up.state` or `up.data`), in their order and all or none. Resolves when they are
    /// durable.
    ///
    /// # Errors
    /// See [`OutboxError`].
    async fn append(&self, lane: Lane, records: Vec<(String, Payload)>) -> Result<(), OutboxError>;
}

impl From<OutboxError> for ApiError {
    fn from(error: OutboxError) -> ApiError {
        match error {
            OutboxError::Full(why) => ApiError::new(
                Reason::ServiceUnavailable,
                format!("this node's log has no room, nothing was stored: {why}"),
            ),
            OutboxError::Failed(why) => ApiError::internal(format!("this node's log failed: {why}")),
        }
    }
}
