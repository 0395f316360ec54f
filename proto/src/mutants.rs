//! Planted bugs: each is a rule of the log or the protocol, broken on purpose, which the simulation has to catch.
//!
//! They exist only in builds with the feature `mutants`. In any other build [`on`] is constantly false and the broken
//! branch is compiled away.

/// Whether the planted bug `name` is active in this process.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub fn on(_name: &str) -> bool {
    false
}

/// Whether the planted bug `name` is active in this process.
#[cfg(feature = "mutants")]
#[must_use]
pub fn on(name: &str) -> bool {
    active::on(name)
}

/// Activates the planted bug `name` in this process; `None` deactivates any.
#[cfg(feature = "mutants")]
pub fn activate(name: Option<&str>) {
    active::activate(name);
}

#[cfg(feature = "mutants")]
mod active {
    use std::sync::{PoisonError, RwLock};

    static ACTIVE: RwLock<Option<String>> = RwLock::new(None);

    pub(super) fn on(name: &str) -> bool {
        ACTIVE.read().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(name)
    }

    pub(super) fn activate(name: Option<&str>) {
        *ACTIVE.write().unwrap_or_else(PoisonError::into_inner) = name.map(str::to_owned);
    }
}
