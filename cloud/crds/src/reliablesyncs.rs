//! `reliablesyncs.kubeedge.io`: how far nodes are, as KubeEdge keeps it. Ledge's log knows; these kinds are here so that
//! what reads or writes them goes on working.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which object a node holds. Named `<node>.<uid of the object>`.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "reliablesyncs.kubeedge.io",
    version = "v1alpha1",
    kind = "ObjectSync",
    plural = "objectsyncs",
    namespaced,
    doc = "Which version of a namespaced object a node holds.",
    status = "ObjectSyncStatus",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct ObjectSyncSpec {
    /// Group and version of the object.
    #[serde(rename = "objectAPIVersion", skip_serializing_if = "Option::is_none")]
    pub object_api_version: Option<String>,
    /// Kind of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_kind: Option<String>,
    /// Name of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_name: Option<String>,
}

/// Which cluster-wide object a node holds. Named `<node>.<uid of the object>`.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "reliablesyncs.kubeedge.io",
    version = "v1alpha1",
    kind = "ClusterObjectSync",
    plural = "clusterobjectsyncs",
    doc = "Which version of a cluster-wide object a node holds.",
    status = "ObjectSyncStatus",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterObjectSyncSpec {
    /// Group and version of the object.
    #[serde(rename = "objectAPIVersion", skip_serializing_if = "Option::is_none")]
    pub object_api_version: Option<String>,
    /// Kind of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_kind: Option<String>,
    /// Name of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_name: Option<String>,
}

/// Which version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectSyncStatus {
    /// The object's resource version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_resource_version: Option<String>,
}
