//! `apps.kubeedge.io`: groups of nodes, and workloads that run once in each of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema;

/// Label of a node: the group it belongs to.
pub const BELONGING_TO: &str = "apps.kubeedge.io/belonging-to";

/// Nodes that belong together.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "apps.kubeedge.io",
    version = "v1alpha1",
    kind = "NodeGroup",
    plural = "nodegroups",
    shortname = "ng",
    doc = "Nodes that belong together.",
    status = "NodeGroupStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.nodeStatuses[*].nodeName"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.nodeStatuses[*].readyStatus",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroupSpec {
    /// Names of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Takes the nodes that have all of these labels as well.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Whether services lead to endpoints of the same group only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_enabled: Option<bool>,
}

/// What is known of a group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroupStatus {
    /// Each selected node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_statuses: Vec<NodeGroupNodeStatus>,
}

/// A node that a group selects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroupNodeStatus {
    /// Its name.
    pub node_name: String,
    /// `Ready`, `NotReady` or `Unknown`.
    pub ready_status: String,
    /// `Succeeded` or `Failed`.
    pub selection_status: String,
    /// Why it is not selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection_status_reason: Option<String>,
}

/// A workload for groups of nodes.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "apps.kubeedge.io",
    version = "v1alpha1",
    kind = "EdgeApplication",
    plural = "edgeapplications",
    shortname = "eapp",
    namespaced,
    doc = "A workload that runs once in each of some groups of nodes.",
    status = "EdgeApplicationStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(
        name = "Groups",
        type_ = "string",
        json_path = ".spec.workloadScope.targetNodeGroups[*].name"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.workloadStatus[*].conditions"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeApplicationSpec {
    /// What is deployed.
    #[serde(default, skip_serializing_if = "WorkloadTemplate::is_empty")]
    pub workload_template: WorkloadTemplate,
    /// Where it is deployed.
    pub workload_scope: WorkloadScope,
}

/// What is deployed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadTemplate {
    /// Kubernetes objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::free_form_list")]
    pub manifests: Vec<Map<String, Value>>,
}

impl WorkloadTemplate {
    fn is_empty(&self) -> bool {
        self.manifests.is_empty()
    }
}

/// Where a workload is deployed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadScope {
    /// Groups of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_node_groups: Vec<TargetNodeGroup>,
    /// Nodes by their labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_node_labels: Vec<TargetNodeLabels>,
}

/// A group, and what is different there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetNodeGroup {
    /// Name of the group.
    pub name: String,
    /// What is different there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overriders: Option<Overriders>,
}

/// Nodes, and what is different there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetNodeLabels {
    /// Selects nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// What is different there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overriders: Option<Overriders>,
}

/// What of a workload is different in one place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overriders {
    /// Replicas of a deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// Images of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_overriders: Vec<ImageOverrider>,
    /// Environment of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_overriders: Vec<EnvOverrider>,
    /// Commands of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command_overriders: Vec<CommandArgsOverrider>,
    /// Arguments of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args_overriders: Vec<CommandArgsOverrider>,
    /// Resources of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources_overriders: Vec<ResourcesOverrider>,
}

/// What is done to a part of an image's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageOverrider {
    /// Which image; absent: those of the pod template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicate: Option<ImagePredicate>,
    /// Which part of it.
    pub component: ImageComponent,
    /// What is done to it.
    pub operator: OverriderOperator,
    /// With what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Which image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImagePredicate {
    /// Path of the field, such as `/spec/template/spec/containers/0/image`.
    pub path: String,
}

/// A part of an image's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "each variant is the part of the same name")]
pub enum ImageComponent {
    Registry,
    Repository,
    Tag,
}

/// What is done to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each variant is the operation of the same name")]
pub enum OverriderOperator {
    Add,
    Remove,
    Replace,
}

/// What is done to a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each variant is the operation of the same name")]
pub enum ListOperator {
    Add,
    Remove,
}

/// What is done to a container's environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvOverrider {
    /// Name of the container.
    pub container_name: String,
    /// What is done.
    pub operator: OverriderOperator,
    /// With which variables; for `remove`, only names count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub value: Vec<EnvVar>,
}

/// What is done to a container's command or arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandArgsOverrider {
    /// Name of the container.
    pub container_name: String,
    /// What is done.
    pub operator: ListOperator,
    /// With which words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub value: Vec<String>,
}

/// What a container's resources are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesOverrider {
    /// Name of the container.
    pub container_name: String,
    /// Its resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<ResourceRequirements>,
}

/// What is known of a workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeApplicationStatus {
    /// Each object that was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workload_status: Vec<ManifestStatus>,
}

/// An object that was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ManifestStatus {
    /// Which object.
    pub identifier: ResourceIdentifier,
    /// Whether it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<ManifestCondition>,
}

/// Which object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceIdentifier {
    /// Its place among the manifests, from 0.
    #[schemars(range(min = 0))]
    pub ordinal: i64,
    /// Its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Whether an object is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "each variant is the condition of the same name")]
pub enum ManifestCondition {
    Processing,
    Available,
}
