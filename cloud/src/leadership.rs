//! Who leads: noted durably before anything is said to a node.

use ledge_log::{AppendError, Log};
use ledge_projection::Projection;
use ledge_proto::fence::{FenceUpdate, begin_leadership, raise_restore_generation};
use ledge_replication::fences::{FenceError, Fences};

/// Why a cloudcore may not lead.
#[derive(Debug, thiserror::Error)]
pub enum LeadershipError {
    /// What was noted before cannot be read.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// It cannot be noted.
    #[error("the new leadership cannot be noted: {0}")]
    Append(#[from] AppendError),
}

/// Begins to lead: edges follow no cloudcore of an earlier leadership from now on. With `restored`, they also take this
/// cloud's data for what it is: an older copy that was put back on purpose.
///
/// # Errors
/// See [`LeadershipError`]; then nothing may be served.
pub async fn begin(
    log: &Log,
    projection: &Projection,
    restored: bool,
    wall_us: i64,
) -> Result<Fences, LeadershipError> {
    let noted = projection.clone();
    let fences = Fences::new(move || noted.view());
    let cloud = fences.of_cloud()?;
    let mut next = begin_leadership(cloud.cloud());
    if restored {
        next = raise_restore_generation(next, wall_us);
    }
    let order = cloud.order().await;
    let boot = log.identity().boot;
    let noted = order.note(log, &FenceUpdate::Cloud(next), wall_us, boot).await?;
    drop(order);
    noted.await?;
    tracing::info!(
        epoch = next.cloud_epoch,
        restore_generation = next.restore_generation,
        "leading"
    );
    Ok(fences)
}
