//! The last step of either daemon: the log is closed after everything that reads or writes it.

use ledge_log::{CloseError, Log};
use ledge_projection::Projection;

/// Closes the projection, then the log.
///
/// What cannot be written on a full disk is told and is no error, because nothing depends on it: the projection is
/// folded from the log, and a log without its closing mark is only checked longer at the next start.
///
/// # Errors
/// When the log had failed.
pub fn close(projection: Projection, log: Log) -> Result<(), CloseError> {
    if let Err(err) = projection.persist() {
        tracing::warn!(%err, "the projection was not written out; the next start folds what is missing");
    }
    drop(projection);
    match log.close() {
        Err(CloseError::Mark(err)) => {
            tracing::warn!(%err, "the log has everything but its closing mark; the next start checks its end");
        }
        closed => {
            closed?;
            tracing::info!("log closed");
        }
    }
    Ok(())
}
