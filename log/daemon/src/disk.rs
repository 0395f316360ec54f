//! How much of the disk the daemon's parts may take.

use std::path::Path;

use ledge_retention::budget::{Budget, BudgetError, DiskOptions, Needs, ProjectionShare};

use crate::config::SEGMENT_MIN_BYTES;

/// What the division of the disk depends on besides the limit.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// Length of a segment as the operator chose it.
    pub segment_bytes: Option<u64>,
    /// Length of a segment where nobody chose.
    pub usual_segment_bytes: u64,
    /// What the projection takes.
    pub projection: ProjectionShare,
}

/// Divides the limit of `disk` between the log and the rest of `dir`.
///
/// # Errors
/// When the limit is too small; the error names the least that works.
pub fn budget(dir: &Path, disk: &DiskOptions, shares: Shares) -> Result<Budget, BudgetError> {
    let budget = Budget::divide(
        disk.limit,
        &Needs {
            dir,
            segment_bytes: shares.segment_bytes.unwrap_or(shares.usual_segment_bytes),
            segment_bytes_chosen: shares.segment_bytes.is_some(),
            segment_min_bytes: SEGMENT_MIN_BYTES,
            projection: shares.projection,
        },
    )?;
    tracing::info!(
        limit = %disk.limit, total = budget.total_bytes, log = budget.log_bytes, segment = budget.segment_bytes,
        rest = budget.rest_bytes, "the disk is divided"
    );
    Ok(budget)
}
