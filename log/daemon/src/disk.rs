//! How much of the disk the daemon's parts may take.

use std::path::Path;

use ledge_retention::budget::{Budget, BudgetError, DiskOptions, Needs};

use crate::config::SEGMENT_MIN_BYTES;

/// Divides the limit of `disk` between the log and the projection in `dir`. `segment_bytes` is what the operator chose,
/// `usual` what is taken otherwise.
///
/// # Errors
/// When the limit is too small; the error names the least that works.
pub fn budget(
    dir: &Path,
    disk: &DiskOptions,
    (segment_bytes, usual): (Option<u64>, u64),
    projection: &ledge_projection::Options,
) -> Result<Budget, BudgetError> {
    let budget = Budget::divide(
        disk.limit,
        &Needs {
            dir,
            segment_bytes: segment_bytes.unwrap_or(usual),
            segment_bytes_chosen: segment_bytes.is_some(),
            segment_min_bytes: SEGMENT_MIN_BYTES,
            projection_bytes: projection.disk_bytes(),
        },
    )?;
    tracing::info!(
        limit = %disk.limit, total = budget.total_bytes, log = budget.log_bytes, segment = budget.segment_bytes,
        rest = budget.rest_bytes, "the disk is divided"
    );
    Ok(budget)
}
