//! How far jobs are: what all of them have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "each variant is the phase of the same name")]
pub enum JobPhase {
    #[default]
    Init,
    InProgress,
    Completed,
    Failure,
}

/// How far a node is with a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "each variant is the phase of the same name")]
pub enum NodePhase {
    #[default]
    Pending,
    InProgress,
    Successful,
    Failure,
    Unknown,
}

/// A step that a node took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActionStatus {
    /// Which step: `Check`, `WaitingConfirmation`, `BackUp`, `Upgrade`, `RollBack`, `Pull`, `Update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `True` or `False`: what it came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}
