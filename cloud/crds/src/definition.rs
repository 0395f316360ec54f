//! The definitions as an API server takes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{apps, devices, operations, policy, reliablesyncs, rules};

/// Every kind of Ledge as an object of `apiextensions.k8s.io/v1` `CustomResourceDefinition`.
pub fn definitions() -> Vec<Value> {
    vec![
        // KubeEdge's components write the status of these with the object itself.
        without_status_subresource(versions(devices::Device::crd(), &["v1alpha2"])),
        without_status_subresource(versions(devices::DeviceModel::crd(), &["v1alpha2"])),
        without_status_subresource(spec_optional(versions(devices::DeviceStatus::crd(), &[]))),
        versions(apps::NodeGroup::crd(), &[]),
        versions(apps::EdgeApplication::crd(), &[]),
        without_status_subresource(versions(rules::Rule::crd(), &[])),
        versions(rules::RuleEndpoint::crd(), &[]),
        versions(reliablesyncs::ObjectSync::crd(), &[]),
        versions(reliablesyncs::ClusterObjectSync::crd(), &[]),
        versions(policy::ServiceAccountAccess::crd(), &[]),
        versions(operations::NodeUpgradeJob::crd(), &["v1alpha1"]),
        versions(operations::ImagePrePullJob::crd(), &["v1alpha1"]),
        versions(operations::ConfigUpdateJob::crd(), &[]),
    ]
}

/// The definition with `older` versions that are served under the same schema: what they had is among its fields.
fn versions(definition: CustomResourceDefinition, older: &[&str]) -> Value {
    // Plain structs, maps with text keys: there is nothing in it that JSON cannot say.
    let mut definition = serde_json::to_value(definition).unwrap_or_default();
    tidy(&mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
    let stored = definition["spec"]["versions"][0].clone();
    let mut versions = Vec::new();
    for name in older {
        let mut version = stored.clone();
        version["name"] = json!(name);
        version["storage"] = json!(false);
        versions.push(version);
    }
    versions.push(stored);
    definition["spec"]["versions"] = Value::Array(versions);
    definition
}

fn without_status_subresource(mut definition: Value) -> Value {
    let versions = definition["spec"]["versions"].as_array_mut();
    for version in versions.into_iter().flatten() {
        version["subresources"] = json!({});
    }
    definition
}

/// KubeEdge's own objects of the kind have none.
fn spec_optional(mut definition: Value) -> Value {
    let versions = definition["spec"]["versions"].as_array_mut();
    for version in versions.into_iter().flatten() {
        if let Some(schema) = version["schema"]["openAPIV3Schema"].as_object_mut() {
            schema.remove("required");
        }
    }
    definition
}

/// An optional field is one that may be left out, not one that may be `null`.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            // A property may have one of these names: its schema is an object.
            if members.get("nullable") == Some(&Value::Bool(true)) {
                members.remove("nullable");
                if let Some(values) = members.get_mut("enum").and_then(Value::as_array_mut) {
                    values.retain(|value| !value.is_null());
                }
            }
            for member in members.values_mut() {
                tidy(member);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
