//! Whether the daemon lives and is ready, check by check.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Named checks. A check that was never reported passes. The link being down is not a failed check: an edge
/// without its cloud is ready.
#[derive(Debug, Clone, Default)]
pub struct Health {
    failures: Arc<Mutex<BTreeMap<&'static str, String>>>,
    /// What somebody should look at, though the daemon does all its work.
    warnings: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Health {
    /// Every check passes.
    pub fn new() -> Self {
        Health::default()
    }

    /// Reports a failed check; it stays so until [`Health::pass`].
    pub fn fail(&self, check: &'static str, reason: String) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(check, reason);
    }

    /// Reports a passed check.
    pub fn pass(&self, check: &'static str) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(check);
    }

    /// Says what somebody should look at, or with `None` that nobody has to any more. No check fails for it.
    pub fn warn(&self, about: &'static str, warning: Option<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        match warning {
            Some(warning) => warnings.insert(about, warning),
            None => warnings.remove(about),
        };
    }

    /// What somebody should look at.
    pub fn warnings(&self) -> BTreeMap<&'static str, String> {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The failed checks with their reasons.
    pub fn failures(&self) -> BTreeMap<&'static str, String> {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
