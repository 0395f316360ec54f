//! Keeps everything in the data directory within the limit: the log gives way to what grows beside it.

use ledge_retention::measure;

use crate::retention::Parts;

/// Looks at the data directory again and again.
#[derive(Debug, Default)]
pub(crate) struct Fit {
    /// It was told that the limit cannot be kept.
    told: bool,
}

impl Fit {
    /// Measures what is there beside the log and gives the log the rest of the limit.
    #[allow(
        clippy::cast_precision_loss,
        reason = "gauges are doubles; disks are smaller than 2^53 bytes"
    )]
    pub(crate) fn look(&mut self, parts: &Parts) {
        let rest = match measure::rest(&parts.dir) {
            Ok(rest) => rest,
            Err(err) => return self.tell(parts, Some(err.to_string())),
        };
        let before = *parts.budget.borrow();
        let now = before.beside(&rest, parts.shares.projection);
        if now.log_bytes != before.log_bytes {
            if let Err(err) = parts.log.set_limit(now.log_bytes, now.segment_bytes) {
                return self.tell(parts, Some(err.to_string()));
            }
            tracing::info!(
                log = now.log_bytes,
                rest = rest.bytes(),
                "what is there beside the log changed: the disk is divided anew"
            );
        }
        if now != before {
            parts.budget.send_replace(now);
        }
        let used = rest.bytes().saturating_add(parts.log.room().used);
        metrics::gauge!("ledge_disk_rest_bytes").set(rest.bytes() as f64);
        metrics::gauge!("ledge_disk_used_bytes").set(used as f64);
        metrics::gauge!("ledge_disk_short_bytes").set(now.short_bytes as f64);
        let total = now.total_bytes.unwrap_or(u64::MAX);
        let problem = (now.short_bytes > 0).then(|| {
            format!(
                "the limit of {total} bytes is too small by {} for what the data directory holds beside the log: it may be \
                 exceeded; raise it, or remove what is not needed",
                now.short_bytes
            )
        });
        self.tell(parts, problem);
    }

    fn tell(&mut self, parts: &Parts, problem: Option<String>) {
        match &problem {
            Some(problem) if !self.told => tracing::error!(problem, "the disk limit cannot be kept"),
            None if self.told => tracing::info!("the disk limit can be kept again"),
            _ => {}
        }
        self.told = problem.is_some();
        // With what it is now.
        parts.health.warn("disk", problem);
    }
}
