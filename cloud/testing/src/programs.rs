//! Programs of Kubernetes that tests run, and what a test does without them.
//!
//! It needs nothing but the standard library: tests of crates that cannot depend on this one include it by its path.

use std::io::Write as _;
use std::path::PathBuf;

/// The programs that these environment variables name, or `None` when a test of `what` has to be skipped, which is then said.
///
/// # Panics
/// When there are none where they are required: `CI` or `LEDGE_REQUIRE_KUBERNETES` is set.
pub(crate) fn or_skip<const N: usize>(what: &str, variables: [&str; N]) -> Option<[PathBuf; N]> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let missing: Vec<&str> = variables.into_iter().filter(|name| set(name).is_none()).collect();
    if missing.is_empty() {
        return Some(variables.map(|name| set(name).unwrap_or_default().into()));
    }
    let message = format!(
        "{what}: no program is named by {} (.ci/run builds them)",
        missing.join(" and by ")
    );
    for required in ["CI", "LEDGE_REQUIRE_KUBERNETES"] {
        assert!(set(required).is_none(), "{message}, and {required} is set");
    }
    // Past the test harness, which keeps what a passing test prints.
    writeln!(std::io::stderr(), "SKIPPED {message}").ok();
    None
}
