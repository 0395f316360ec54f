//! What nodes report, into the API: their Nodes and leases (`nodes`), the status of their pods (`pods`), their events
//! (`events`).

pub(crate) mod events;
pub(crate) mod nodes;
pub(crate) mod pods;
mod tolerations;

use ledge_projection::ReadError;

/// Why something was not written to the API; it is tried again.
#[derive(Debug, thiserror::Error)]
enum UpError {
    #[error("projection: {0}")]
    Read(#[from] ReadError),
    #[error("Kubernetes API: {0}")]
    Api(#[from] kube::Error),
    #[error("status is not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl UpError {
    /// Whether another one changed the object meanwhile: looking again helps, and soon.
    fn is_conflict(&self) -> bool {
        matches!(self, UpError::Api(kube::Error::Api(status)) if status.code == 409)
    }

    /// Whether trying again changes nothing: only another report can help.
    fn is_final(&self) -> bool {
        match self {
            UpError::Api(kube::Error::Api(status)) => [400, 413, 422].contains(&status.code),
            UpError::Json(_) => true,
            _ => false,
        }
    }
}
