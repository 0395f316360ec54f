//! A real kube-controller-manager beside a real API server: Deployments, nodes that are not heard of, eviction.

use crate::{Cluster, Kind, programs};

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
        let variables = ["LEDGE_KUBE_CONTROLLER_MANAGER"];
        let Some([program]) = programs::or_skip("a real controller manager", variables) else {
            return false;
        };
        real.manage(&program, settings).await;
        true
    }
}
