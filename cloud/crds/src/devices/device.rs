//! `Device`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::push::PushMethod;
use super::status::Twin;
use crate::schema;

/// A device at a node.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "devices.kubeedge.io",
    version = "v1beta1",
    kind = "Device",
    plural = "devices",
    namespaced,
    doc = "A device at a node: how it is reached, what is read from it, and what its values should be.",
    status = "DeviceOwnStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".status.node",
        description = "Node the device is at."
    ),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.deviceModelRef.name"),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "Whether the device answers."
    ),
    printcolumn(
        name = "Lag",
        type_ = "date",
        json_path = ".status.behindSince",
        description = "For how long the node may know more than the cloud; empty when the cloud has all of it."
    ),
    printcolumn(
        name = "Reported",
        type_ = "date",
        json_path = ".status.reportedAt",
        description = "Age of the latest value."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSpec {
    /// The device's model, in its own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_model_ref: Option<DeviceModelRef>,
    /// The node the device is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Selects the node the device is at, when no name is given: the first one by name that it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,
    /// How the device is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolConfig>,
    /// What is read from and written to the device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub properties: Vec<DeviceProperty>,
    /// Named groups of properties that can be written by calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<DeviceMethod>,
    /// How the state of the device is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_report: Option<StateReport>,
    /// Older shape: where each property is in the device. Rewritten to `properties`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub property_visitors: Vec<PropertyVisitor>,
    /// Older shape: properties that are published at the node only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub data: Option<Map<String, Value>>,
}

/// Names a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceModelRef {
    /// Name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How a device is reached. In the older shape, a member named after the protocol instead of both fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[serde(rename_all = "camelCase")]
pub struct ProtocolConfig {
    /// Name of the protocol, such as `modbus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_name: Option<String>,
    /// What the protocol needs to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub config_data: Option<Map<String, Value>>,
    /// Members of the older shape.
    #[serde(flatten)]
    #[schemars(skip)]
    pub older: BTreeMap<String, Value>,
}

/// A property of a device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceProperty {
    /// Its name, one of the model's.
    #[schemars(length(min = 1))]
    pub name: String,
    /// What its value should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<TwinProperty>,
    /// Where the value is in the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visitors: Option<VisitorConfig>,
    /// Longest time between two reports of an unchanged value, milliseconds; 0: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub report_cycle: Option<i64>,
    /// Time between two samples, milliseconds; 0: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub collect_cycle: Option<i64>,
    /// Whether reports leave the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_to_cloud: Option<bool>,
    /// Where samples are pushed to from the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_method: Option<PushMethod>,
}

/// A value, as text, and what is known about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TwinProperty {
    /// The value; the model knows its type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// When it was set (`timestamp`), and its `type`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Where a property's value is in the device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VisitorConfig {
    /// Name of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_name: Option<String>,
    /// What the protocol needs to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub config_data: Option<Map<String, Value>>,
}

/// A named group of properties.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceMethod {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The properties it writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub property_names: Vec<String>,
}

/// How the state of a device is reported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateReport {
    /// Whether it leaves the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_to_cloud: Option<bool>,
    /// Time between two reports, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub report_cycle: Option<i64>,
}

/// Where a property is, in the older shape: a member named after the protocol.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[serde(rename_all = "camelCase")]
pub struct PropertyVisitor {
    /// The property.
    pub property_name: String,
    /// Longest time between two reports of an unchanged value, milliseconds; 0: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub report_cycle: Option<i64>,
    /// Time between two samples, milliseconds; 0: the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub collect_cycle: Option<i64>,
    /// The protocol's member and others.
    #[serde(flatten)]
    #[schemars(skip)]
    pub older: BTreeMap<String, Value>,
}

/// What is known of a device, besides its values, which are in the `DeviceStatus` of the same name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceOwnStatus {
    /// `Resolved`: there is a model and a node, and nothing is wrong with the device. `Ready`: the device answers.
    /// `Warning`: parts of it have no effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The node the device is at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `online`, `offline`, `unhealthy` or `unknown`, as the node said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When the device answered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_online_time: Option<String>,
    /// Since when the node may know more than the cloud; absent when the cloud has all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_since: Option<String>,
    /// Time of the latest value at the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<String>,
    /// Older shape: desired values are read from here and moved to `spec.properties`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub twins: Vec<Twin>,
    /// Older shape: without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_to_cloud: Option<bool>,
    /// Older shape: without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_cycle: Option<i64>,
    /// For others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub extensions: Option<Map<String, Value>>,
}
