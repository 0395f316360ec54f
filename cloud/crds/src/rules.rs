//! `rules.kubeedge.io`: messages between the cloud's REST face, the nodes' MQTT brokers and their services.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A way that messages take.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rules.kubeedge.io",
    version = "v1",
    kind = "Rule",
    plural = "rules",
    namespaced,
    doc = "A way that messages take, from one endpoint to another.",
    status = "RuleStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target"),
    printcolumn(name = "Passed", type_ = "integer", json_path = ".status.successMessages"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failMessages"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// Name of the endpoint that messages come from.
    pub source: String,
    /// Which messages: `path`; `topic` and `node_name`; or `target_url` and `node_name`.
    pub source_resource: BTreeMap<String, String>,
    /// Name of the endpoint that messages go to.
    pub target: String,
    /// What becomes of them: `topic`, `resource` or `path`.
    pub target_resource: BTreeMap<String, String>,
}

/// What became of messages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// Messages that were delivered.
    #[serde(default)]
    pub success_messages: i64,
    /// Messages that were not.
    #[serde(default)]
    pub fail_messages: i64,
    /// Why, the latest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// Where messages come from or go to.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rules.kubeedge.io",
    version = "v1",
    kind = "RuleEndpoint",
    plural = "ruleendpoints",
    shortname = "re",
    namespaced,
    doc = "Where messages come from or go to.",
    derive = "PartialEq",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.ruleEndpointType"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.ruleEndpointType != 'servicebus' || (has(self.properties) && 'service_port' in self.properties)",
    "an endpoint of type servicebus needs the property service_port"
))]
pub struct RuleEndpointSpec {
    /// What kind of endpoint.
    pub rule_endpoint_type: RuleEndpointType,
    /// `service_port`, the port of a service at the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// Kinds of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each variant is the type of the same name")]
pub enum RuleEndpointType {
    Rest,
    Eventbus,
    Servicebus,
}
