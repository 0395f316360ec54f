//! The definitions, as an API server reads them.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::collections::BTreeSet;

use ledge_kubeapi::{Resource, crd};
use serde_json::{Value, json};
use support::faults;

fn device(spec: Value) -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "d"}, "spec": spec})
}

#[test]
fn every_definition_is_accepted() {
    for definition in ledge_crds::definitions() {
        let name = &definition["metadata"]["name"];
        let resources = crd::resources(&definition).unwrap_or_else(|causes| panic!("{name}: {causes:?}"));
        assert!(!resources.is_empty(), "{name}");
    }
}

#[test]
fn kinds_versions_scopes_and_names_are_kubeedges() {
    let told: BTreeSet<String> = ledge_crds::definitions()
        .iter()
        .flat_map(|definition| crd::resources(definition).unwrap())
        .map(|resource| {
            let storage = if resource.storage { " stored" } else { "" };
            let status = if resource.status { " status" } else { "" };
            let short = resource.short_names.join(",");
            let Resource { gvr, scope, .. } = &resource;
            format!(
                "{}/{} {} {scope:?} [{short}]{storage}{status}",
                gvr.group, gvr.version, gvr.resource
            )
        })
        .collect();
    let expected = [
        "apps.kubeedge.io/v1alpha1 edgeapplications Namespaced [eapp] stored status",
        "apps.kubeedge.io/v1alpha1 nodegroups Cluster [ng] stored status",
        "devices.kubeedge.io/v1alpha2 devicemodels Namespaced []",
        "devices.kubeedge.io/v1alpha2 devices Namespaced []",
        "devices.kubeedge.io/v1beta1 devicemodels Namespaced [] stored",
        "devices.kubeedge.io/v1beta1 devices Namespaced [] stored",
        "devices.kubeedge.io/v1beta1 devicestatuses Namespaced [] stored",
        "operations.kubeedge.io/v1alpha1 imageprepulljobs Cluster [] status",
        "operations.kubeedge.io/v1alpha1 nodeupgradejobs Cluster [] status",
        "operations.kubeedge.io/v1alpha2 configupdatejobs Cluster [] stored status",
        "operations.kubeedge.io/v1alpha2 imageprepulljobs Cluster [] stored status",
        "operations.kubeedge.io/v1alpha2 nodeupgradejobs Cluster [] stored status",
        "policy.kubeedge.io/v1alpha1 serviceaccountaccesses Namespaced [saaccess] stored status",
        "reliablesyncs.kubeedge.io/v1alpha1 clusterobjectsyncs Cluster [] stored status",
        "reliablesyncs.kubeedge.io/v1alpha1 objectsyncs Namespaced [] stored status",
        "rules.kubeedge.io/v1 ruleendpoints Namespaced [re] stored",
        "rules.kubeedge.io/v1 rules Namespaced [] stored",
    ];
    assert_eq!(told, expected.map(str::to_owned).into());
}

#[test]
fn both_shapes_of_a_device_are_taken_whole() {
    let older = device(json!({
        "deviceModelRef": {"name": "m"},
        "protocol": {"modbus": {"slaveID": 1}, "common": {"com": {"serialPort": "/dev/ttyUSB0"}}},
        "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]},
        ]}]},
        "propertyVisitors": [{"propertyName": "t", "modbus": {"register": "holding"}, "collectCycle": 5000}],
    }));
    let newer = device(json!({
        "deviceModelRef": {"name": "m"},
        "nodeName": "n",
        "protocol": {"protocolName": "modbus", "configData": {"slaveID": 1, "x": [{"y": null}]}},
        "properties": [{
            "name": "t",
            "desired": {"value": "1", "metadata": {"timestamp": "1"}},
            "visitors": {"protocolName": "modbus", "configData": {"register": "HoldingRegister"}},
            "pushMethod": {"dbMethod": {"TDEngine": {"TDEngineClientConfig": {"addr": "a", "dbName": "b"}}}},
        }],
        "methods": [{"name": "m", "propertyNames": ["t"]}],
        "stateReport": {"reportToCloud": true, "reportCycle": 1},
    }));
    for version in ["v1beta1", "v1alpha2"] {
        assert_eq!(faults("Device", version, &older), Vec::<String>::new());
        assert_eq!(faults("Device", version, &newer), Vec::<String>::new());
    }
}

#[test]
fn a_type_is_a_name_or_an_object() {
    let model = |ty: Value| {
        json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "m"},
            "spec": {"properties": [{"name": "t", "type": ty}]}})
    };
    let none = Vec::<String>::new();
    assert_eq!(faults("DeviceModel", "v1beta1", &model(json!("DOUBLE"))), none);
    let older = json!({"double": {"accessMode": "ReadOnly", "minimum": -50}});
    assert_eq!(faults("DeviceModel", "v1alpha2", &model(older)), none);
    let mut bounded = model(json!("INT"));
    bounded["spec"]["properties"][0]["minimum"] = json!(0);
    bounded["spec"]["properties"][0]["maximum"] = json!("7");
    assert_eq!(faults("DeviceModel", "v1beta1", &bounded), none);
    for wrong in [json!("DUOBLE"), json!({}), json!(1)] {
        let faults = faults("DeviceModel", "v1beta1", &model(wrong));
        let told = faults
            .iter()
            .any(|fault| fault.starts_with("spec.properties[0].type: Unsupported value"));
        assert!(told, "{faults:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let faults = |spec| faults("Device", "v1beta1", &device(spec));
    assert_eq!(
        faults(json!({"properties": [{"name": "t", "colectCycle": 1}, {"name": "t", "collectCycle": -1}]})),
        [
            "unknown spec.properties[0].colectCycle",
            "spec.properties[1].collectCycle: Invalid value: -1: spec.properties[1].collectCycle in body should be \
             greater than or equal to 0",
            "spec.properties[1]: Duplicate value: {\"name\":\"t\"}",
        ]
    );
    assert!(faults(json!({"nodeName": 1}))[0].contains("must be of type string"));
    assert!(faults(json!({"properties": [{}]}))[0].starts_with("spec.properties[0].name: Required value"));
    let endpoint = json!({"apiVersion": "rules.kubeedge.io/v1", "kind": "RuleEndpoint", "metadata": {"name": "e"},
        "spec": {"ruleEndpointType": "servicebus"}});
    let told = support::faults("RuleEndpoint", "v1", &endpoint);
    assert!(told[0].contains("needs the property service_port"), "{told:?}");
}
