//! Repairing a log that nobody has open: a torn end is removed, damaged blocks are quarantined or put together again.

use std::path::Path;
use std::sync::Arc;

use crate::catalog::Quarantined;
use crate::error::{OpenError, ReadError};
use crate::ids::BlockNo;
use crate::log::Log;
use crate::options::{Committer, OnDamage, Options};
use crate::recovery::Recovery;
use crate::storage::Storage;
use crate::verify::{VerifyReport, verify};
use crate::view::LogView;

/// What [`repair`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was wrong before.
    pub before: VerifyReport,
    /// What is wrong now.
    pub after: VerifyReport,
    /// What opening the log did; `None` when nothing was wrong and nothing was touched.
    pub recovery: Option<Recovery>,
    /// Records that cannot be read until a peer gives them back (see [`Log::refill`]). Their blocks were copied to
    /// `quarantine/` in the log's directory.
    pub quarantined: Vec<Quarantined>,
    /// Damaged stretches that stay, with or without records in them.
    pub damaged: usize,
}

/// Repairs the log in `dir`, which no process may have open: removes a torn end, copies what is damaged to
/// `quarantine/`, and writes blocks again of which enough is left to prove that they are what was there. Never removes
/// anything else. A log that is sound is not touched.
///
/// # Errors
/// See [`OpenError`]. A log that lost durable blocks, or a segment, cannot be repaired from what is here.
pub fn repair(storage: Arc<dyn Storage>, dir: &Path) -> Result<RepairReport, OpenError> {
    let before = verify(&*storage, dir)?;
    if before.findings.is_empty() {
        return Ok(RepairReport {
            after: before.clone(),
            before,
            ..RepairReport::default()
        });
    }
    let identity = LogView::open(storage.clone(), dir)?.identity().clone();
    let options = Options {
        on_damage: OnDamage::Quarantine,
        committer: Committer::Caller,
        mark_after_idle: None,
        prepare_ahead: false,
        ..Options::new(identity.cluster, identity.node)
    };
    let (log, recovery) = Log::open(storage.clone(), dir, options)?;
    // Whatever opening did not look at.
    let mut reader = log.read_blocks(BlockNo::ZERO);
    loop {
        let position = reader.position();
        match reader.next_block() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(ReadError::Recycled { first_held, .. }) if first_held > position.0 + 1 => {
                reader = log.read_blocks(BlockNo(first_held - 1));
            }
            Err(_) => reader = log.read_blocks(position.next()),
        }
    }
    log.shared().writer().mend();
    let quarantined = log.quarantined();
    let damaged = log.stats().damaged;
    if let Err(err) = log.close() {
        tracing::warn!(error = %err, "the log was not closed in order after the repair");
    }
    Ok(RepairReport {
        before,
        after: verify(&*storage, dir)?,
        recovery: Some(recovery),
        quarantined,
        damaged,
    })
}
