//! `DeviceModel`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::device::VisitorConfig;
use crate::schema;

/// What devices of one make have in common.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "devices.kubeedge.io",
    version = "v1beta1",
    kind = "DeviceModel",
    plural = "devicemodels",
    namespaced,
    doc = "What devices of one make have in common: their properties, with types and limits.",
    status = "DeviceModelStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(
        name = "Properties",
        type_ = "string",
        json_path = ".spec.properties[*].name",
        priority = 1,
        description = "Names of the properties."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceModelSpec {
    /// Name of the protocol such devices speak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// What of the devices' `configData` is common to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub protocol_config_data: Option<Map<String, Value>>,
    /// Their properties.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub properties: Vec<ModelProperty>,
}

/// A property that all devices of a model have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelProperty {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Type of its values.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<PropertyType>,
    /// Whether it can be written; `ReadOnly` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// Smallest value allowed, as a text; a whole number is taken too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<IntOrString>,
    /// Largest value allowed, as a text; a whole number is taken too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<IntOrString>,
    /// Unit of its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What of the devices' `visitors` is common to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visitors: Option<ModelVisitors>,
}

/// What of the devices' visitors is common to them.
pub type ModelVisitors = VisitorConfig;

/// Type of a property's values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PropertyType {
    /// Its name.
    Named(DataType),
    /// Older shape: one member, named after the type, with the property's other fields.
    Older(BTreeMap<String, Value>),
}

/// Names of types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "each variant is the type of the same name")]
pub enum DataType {
    Int,
    Float,
    Double,
    String,
    Boolean,
    Bytes,
    Stream,
}

impl JsonSchema for PropertyType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PropertyType".into()
    }

    /// A structural schema cannot say "a text or an object". It can say "one of these texts, or something that fails
    /// to have no members", which an object is and a text is not: limits on members say nothing about a text.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-preserve-unknown-fields": true,
            "anyOf": [
                {"enum": ["INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"]},
                {"not": {"maxProperties": 0}},
            ],
        })
    }
}

/// Whether a property can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "each variant is the mode of the same name")]
pub enum AccessMode {
    ReadWrite,
    ReadOnly,
}

/// What is known of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct DeviceModelStatus {
    /// `Warning`: parts of it have no effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
}
