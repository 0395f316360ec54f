//! The order of changes that watches follow.
//!
//! Objects show the `metadata.resourceVersion` that the API server in the cloud gave them, so that people and writers can
//! compare. Those numbers are no order here: objects of one batch arrive in any order, one of them may be looked at again
//! under the same number (its status is the node's own), and a deletion has none. So a list and a bookmark carry a version of
//! this node's: which start of the log it is in the upper bits, a count of changes in the lower ones. It grows over
//! restarts without anything being stored. A watch may begin from either: from a version of this node's, exactly; from an
//! object's, at the first change that showed it. What is not held any more is answered with 410, and the client lists again.

use ledge_kubeapi::Version;

/// Versions of an API server lie below: 17 million million changes.
const COUNT_BITS: u32 = 44;

/// The first version of the `boot`th start of the log.
pub(crate) fn first(boot: u32) -> Version {
    Version(u64::from(boot) << COUNT_BITS)
}

/// Whether a version is one that the API server in the cloud gave an object.
pub(crate) fn is_foreign(version: Version) -> bool {
    version.0 >> COUNT_BITS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_over_restarts_and_are_none_of_the_api_servers() {
        assert!(first(1) < first(2));
        assert!(!is_foreign(first(1)));
        assert!(is_foreign(Version(1 << 40)));
    }
}
