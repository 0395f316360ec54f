//! `DeviceStatus`: what a device reported.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::device::TwinProperty;
use crate::schema;

/// Nothing: a `DeviceStatus` is all status.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "devices.kubeedge.io",
    version = "v1beta1",
    kind = "DeviceStatus",
    plural = "devicestatuses",
    namespaced,
    doc = "What the device of the same name reported.",
    status = "DeviceReport",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(
        name = "Properties",
        type_ = "string",
        json_path = ".status.twins[*].propertyName"
    ),
    printcolumn(
        name = "Reported",
        type_ = "string",
        json_path = ".status.twins[*].reported.value"
    ),
    printcolumn(
        name = "Desired",
        type_ = "string",
        json_path = ".status.twins[*].observedDesired.value",
        priority = 1
    ),
    printcolumn(
        name = "Online",
        type_ = "date",
        json_path = ".status.lastOnlineTime",
        description = "Time since the device answered."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct DeviceStatusSpec {}

/// What a device reported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceReport {
    /// Its values, each property once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["propertyName".into()]))]
    pub twins: Vec<Twin>,
    /// `online`, `offline`, `unhealthy` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When the device answered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_online_time: Option<String>,
    /// For others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub extensions: Option<Map<String, Value>>,
}

/// A property: what it is, and what the node took it should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Twin {
    /// Name of the property.
    pub property_name: String,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<TwinProperty>,
    /// What the node was told it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_desired: Option<TwinProperty>,
    /// Older shape: what it should be; read from the status of a `Device`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<TwinProperty>,
}
