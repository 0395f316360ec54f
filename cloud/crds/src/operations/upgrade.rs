//! `NodeUpgradeJob`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::progress::{ActionStatus, JobPhase, NodePhase};

/// Nodes are to run another version.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "operations.kubeedge.io",
    version = "v1alpha2",
    kind = "NodeUpgradeJob",
    plural = "nodeupgradejobs",
    doc = "Nodes are to run another version.",
    status = "NodeUpgradeJobStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.nodeNames) || !has(self.labelSelector)", "name nodes or select them, not both"))]
pub struct NodeUpgradeJobSpec {
    /// The version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Time allowed for each node, seconds; 0: 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub timeout_seconds: Option<i32>,
    /// Which nodes, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_names: Option<Vec<String>>,
    /// Which nodes, by label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Image that holds the version; its tag is the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What the image has to be (the name is KubeEdge's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest_gatter: Option<ImageDigestGatter>,
    /// Nodes that are upgraded at the same time; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub concurrency: Option<i32>,
    /// What is checked before: `cpu`, `mem`, `disk`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub check_items: Vec<String>,
    /// Share of nodes that may fail, as a text such as `0.1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_tolerate: Option<String>,
    /// Whether each node waits for a confirmation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_confirmation: Option<bool>,
}

/// What an image has to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageDigestGatter {
    /// Digest for amd64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amd64: Option<String>,
    /// Digest for arm64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm64: Option<String>,
    /// v1alpha1: digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Registry to ask.
    #[serde(rename = "registryAPI", skip_serializing_if = "Option::is_none")]
    pub registry_api: Option<RegistryApi>,
}

/// A registry to ask.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RegistryApi {
    /// Its host.
    pub host: String,
    /// Token to ask with.
    pub token: String,
}

/// What became of the job. v1alpha1's own fields are kept beside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[serde(rename_all = "camelCase")]
pub struct NodeUpgradeJobStatus {
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<JobPhase>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Each node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_status: Vec<NodeUpgradeStatus>,
}

/// What became of it on a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[serde(rename_all = "camelCase")]
pub struct NodeUpgradeStatus {
    /// The node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<NodePhase>,
    /// The steps it took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub action_flow: Vec<ActionStatus>,
    /// Version it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_version: Option<String>,
    /// Version it ran before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub historic_version: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
