//! What nodes report, into the API: their Nodes and leases (`nodes`), the status of their pods (`pods`), their events
//! (`events`).

pub(crate) mod events;
pub(crate) mod nodes;
pub(crate) mod pods;
mod tolerations;

use ledge_projection::ReadError;
use serde_json::Value;

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

/// Whether the API still says what a node said: the phase, if it has one, and the status of every condition. The rest of
/// a status the API may write in another way, and nobody else writes it.
fn stands(current: &Value, wanted: &Value) -> bool {
    let of = |status: &Value, kind: &Value| -> Value {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let found = conditions.clone().find(|condition| condition["type"] == *kind);
        found.map_or(Value::Null, |condition| condition["status"].clone())
    };
    let mut conditions = wanted["conditions"].as_array().into_iter().flatten();
    (wanted["phase"].is_null() || wanted["phase"] == current["phase"])
        && conditions.all(|condition| of(current, &condition["type"]) == condition["status"])
}
