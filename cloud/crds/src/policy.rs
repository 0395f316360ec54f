//! `policy.kubeedge.io`: what service accounts may do, for nodes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::schema;

/// What a service account may do.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "policy.kubeedge.io",
    version = "v1alpha1",
    kind = "ServiceAccountAccess",
    plural = "serviceaccountaccesses",
    shortname = "saaccess",
    namespaced,
    doc = "What a service account may do, for the nodes where pods run under it.",
    status = "ServiceAccountAccessStatus",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountAccessSpec {
    /// The service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub service_account: Option<Map<String, Value>>,
    /// Its uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_uid: Option<String>,
    /// Bindings in its namespace, with what they allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_role_binding: Vec<AccessRoleBinding>,
    /// Cluster-wide bindings, with what they allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_cluster_role_binding: Vec<AccessClusterRoleBinding>,
}

/// A binding, with what it allows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessRoleBinding {
    /// The binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub role_binding: Option<Map<String, Value>>,
    /// What it allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
}

/// A cluster-wide binding, with what it allows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessClusterRoleBinding {
    /// The binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub cluster_role_binding: Option<Map<String, Value>>,
    /// What it allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
}

/// Where it is held.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountAccessStatus {
    /// Names of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_list: Vec<String>,
}
