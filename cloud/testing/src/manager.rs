//! A real kube-controller-manager beside a real API server: Deployments, nodes that are not heard of, eviction.

use std::io::Write as _;
use std::path::PathBuf;

use crate::{Cluster, Kind};

/// Names the program.
const PROGRAM: &str = "LEDGE_KUBE_CONTROLLER_MANAGER";

impl Cluster {
    /// Runs a controller manager with these settings on the cluster's API server, for as long as that runs. `false`, and a
    /// line that says so, where there is none.
    ///
    /// It is for a test that has the API server for itself: it acts on what the other tests of the binary made, too.
    ///
    /// # Panics
    /// When it does not start, when the API is the embedded one, or when there is none where it is required: `CI` or
    /// `LEDGE_REQUIRE_KUBERNETES` is set.
    pub async fn controller_manager(&self, settings: &[&str]) -> bool {
        let Kind::Real(real) = &self.api else {
            panic!("the embedded API has controllers of its own");
        };
        let Some(program) = program() else {
            return false;
        };
        real.manage(&program, settings).await;
        true
    }
}

fn program() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(program) = set(PROGRAM) {
        return Some(program.into());
    }
    let message = format!("a real controller manager: {PROGRAM} names no program (.ci/run builds it)");
    for required in ["CI", "LEDGE_REQUIRE_KUBERNETES"] {
        assert!(set(required).is_none(), "{message}, and {required} is set");
    }
    // Past the test harness, which keeps what a passing test prints.
    writeln!(std::io::stderr(), "SKIPPED {message}").ok();
    None
}
