//! Objects with every field that KubeEdge's kinds have, under KubeEdge's names (its misspelt ones too): each is known to the
//! schema, kept as it is, and read and written by the Rust type without loss.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use ledge_crds::{apps, devices, operations, policy, reliablesyncs, rules};
use ledge_kubeapi::schema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::{faults, resource};

/// Fields whose types are Kubernetes' own: what is below them is not ours to list.
const KUBERNETES: &[&str] = &[
    "conditions",
    "envOverriders.value",
    "labelSelector",
    "nodeSelector",
    "resourcesOverriders.value",
    "rules",
];

/// Objects of one kind and version which have, together, every field that its schema has.
fn whole<K: DeserializeOwned + Serialize>(kind: &str, version: &str, objects: &[Value]) {
    for object in objects {
        let mut written = same::<K>(kind, version, object);
        // The type is that of the stored version.
        written["apiVersion"] = object["apiVersion"].clone();
        assert_eq!(&written, object, "{kind} {version}");
    }
    let missing = missing(kind, version, objects);
    assert_eq!(missing, Vec::<String>::new(), "{kind} {version} lacks them");
}

/// The object as the Rust type writes it, after the schema has been found to take all of it and keep it as it is.
fn same<K: DeserializeOwned + Serialize>(kind: &str, version: &str, object: &Value) -> Value {
    assert_eq!(
        faults(kind, version, object),
        Vec::<String>::new(),
        "{kind} {version}"
    );
    let mut kept = object.clone();
    schema::prune(&resource(kind, version).schema, &mut kept);
    assert_eq!(&kept, object, "{kind} {version}");
    let read: K = serde_json::from_value(kept).unwrap_or_else(|err| panic!("{kind} {version}: {err}"));
    serde_json::to_value(read).unwrap()
}

/// Fields of the schema that none of the objects has.
fn missing(kind: &str, version: &str, objects: &[Value]) -> Vec<String> {
    let definitions = ledge_crds::definitions();
    let mut definitions = definitions.iter();
    let definition = definitions
        .find(|one| one["spec"]["names"]["kind"] == kind)
        .unwrap();
    let mut versions = definition["spec"]["versions"].as_array().unwrap().iter();
    let version = versions.find(|one| one["name"] == version).unwrap();
    let fields = &version["schema"]["openAPIV3Schema"]["properties"];
    let mut missing = Vec::new();
    for part in ["spec", "status"] {
        let values = objects.iter().map(|object| &object[part]).collect();
        walk(&fields[part], values, part, &mut missing);
    }
    missing
}

fn walk(schema: &Value, mut values: Vec<&Value>, path: &str, missing: &mut Vec<String>) {
    if KUBERNETES.iter().any(|end| path.ends_with(end)) {
        return;
    }
    let mut schema = schema;
    if schema["type"] == "array" {
        values = values
            .into_iter()
            .flat_map(|value| value.as_array().into_iter().flatten())
            .collect();
        schema = &schema["items"];
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let below: Vec<&Value> = values.iter().filter_map(|value| value.get(name)).collect();
        if below.is_empty() {
            missing.push(path);
        } else {
            walk(schema, below, &path, missing);
        }
    }
}

fn of(api: &str, kind: &str, spec: Value, status: Value) -> Value {
    let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "x"}});
    for (part, value) in [("spec", spec), ("status", status)] {
        if !value.is_null() {
            object[part] = value;
        }
    }
    object
}

fn selector() -> Value {
    json!({
        "matchLabels": {"a": "b"},
        "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
    })
}

fn condition() -> Value {
    json!({"type": "Ready", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1})
}

const DEVICES: &str = "devices.kubeedge.io/v1beta1";

fn twin() -> Value {
    let side =
        |value: &str| json!({"value": value, "metadata": {"timestamp": "1767225600000", "type": "string"}});
    json!({"propertyName": "t", "reported": side("1"), "observedDesired": side("2"), "desired": side("3")})
}

#[test]
fn a_device() {
    let push = |method: &str, value: Value| json!({"name": method, "pushMethod": {method: value, "anomalyDetection": {"isEnable": true}}});
    let database =
        |name: &str, value: Value| json!({"name": name, "pushMethod": {"dbMethod": {name: value}}});
    let spec = json!({
        "deviceModelRef": {"name": "m"},
        "nodeName": "n",
        "protocol": {"protocolName": "modbus", "configData": {"slaveID": 1, "deep": {"list": [1, null, {"a": true}]}}},
        "methods": [{"name": "set", "description": "sets it", "propertyNames": ["t"]}],
        "stateReport": {"reportToCloud": true, "reportCycle": 60000},
        "properties": [
            {
                "name": "t",
                "desired": {"value": "1", "metadata": {"timestamp": "1767225600000", "type": "int"}},
                "visitors": {"protocolName": "modbus", "configData": {"register": "HoldingRegister", "scale": 0.1}},
                "reportCycle": 1000,
                "collectCycle": 500,
                "reportToCloud": true,
            },
            push("http", json!({"hostName": "http://h", "port": 80, "requestPath": "/p", "timeout": 1000})),
            push("mqtt", json!({"address": "tcp://b:1883", "topic": "t", "qos": 1, "retained": true})),
            push("otel", json!({"endpointURL": "http://o:4318"})),
            database("influxdb2", json!({
                "influxdb2ClientConfig": {"url": "http://i", "org": "o", "bucket": "b"},
                "influxdb2DataConfig": {"measurement": "m", "tag": {"a": "b"}, "fieldKey": "f"},
            })),
            database("redis", json!({"redisClientConfig": {"addr": "r:6379", "db": 0, "poolsize": 10, "minIdleConns": 2}})),
            database("TDEngine", json!({"TDEngineClientConfig": {"addr": "t:6041", "dbName": "d"}})),
            database("mysql", json!({"mysqlClientConfig": {"addr": "m:3306", "database": "d", "userName": "u"}})),
        ],
    });
    let status = json!({
        "reportToCloud": true,
        "reportCycle": 60000,
        "conditions": [condition()],
        "node": "n",
        "state": "online",
        "lastOnlineTime": "2026-01-01T00:00:00Z",
        "behindSince": "2026-01-01T00:00:00Z",
        "reportedAt": "2026-01-01T00:00:00Z",
        "twins": [twin()],
        "extensions": {"x": {"y": 1}},
    });
    // The shape of v1alpha2, which is taken in every version.
    let older = json!({
        "deviceModelRef": {"name": "m"},
        "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}]},
        "protocol": {
            "modbus": {"slaveID": 1},
            "common": {"com": {"serialPort": "/dev/ttyS0", "baudRate": 9600}, "customizedValues": {"a": 1}},
        },
        "propertyVisitors": [{
            "propertyName": "t",
            "modbus": {"register": "HoldingRegister", "offset": 1, "limit": 1, "scale": 0.5, "isSwap": true, "isRegisterSwap": true},
            "customizedValues": {"a": 1},
            "reportCycle": 1000,
            "collectCycle": 500,
        }],
        "data": {"dataTopic": "t", "dataProperties": [{"propertyName": "t", "metadata": {"type": "string"}}]},
    });
    for version in ["v1beta1", "v1alpha2"] {
        let api = format!("devices.kubeedge.io/{version}");
        let objects = [
            of(&api, "Device", spec.clone(), status.clone()),
            of(&api, "Device", older.clone(), Value::Null),
        ];
        whole::<devices::Device>("Device", version, &objects);
    }
}

#[test]
fn what_a_device_reported() {
    let status = json!({
        "twins": [twin()],
        "state": "online",
        "lastOnlineTime": "2026-01-01T00:00:00Z",
        "extensions": {"x": 1},
    });
    let object = of(DEVICES, "DeviceStatus", json!({}), status.clone());
    whole::<devices::DeviceStatus>("DeviceStatus", "v1beta1", &[object]);
    // KubeEdge's own have no `spec`.
    let object = of(DEVICES, "DeviceStatus", Value::Null, status);
    assert_eq!(faults("DeviceStatus", "v1beta1", &object), Vec::<String>::new());
}

#[test]
fn a_device_model() {
    let kinds = ["INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"];
    let properties = kinds.map(|kind| {
        json!({
            "name": kind,
            "description": "d",
            "type": kind,
            "accessMode": if kind == "INT" { "ReadWrite" } else { "ReadOnly" },
            "minimum": "0",
            "maximum": "9",
            "unit": "u",
            "visitors": {"protocolName": "modbus", "configData": {"register": "HoldingRegister"}},
        })
    });
    let spec = json!({"protocol": "modbus", "protocolConfigData": {"a": {"b": 1}}, "properties": properties});
    let older = json!({"properties": [
        {"name": "i", "description": "d", "type": {"int": {"accessMode": "ReadWrite", "defaultValue": 1, "minimum": 0, "maximum": 9, "unit": "u"}}},
        {"name": "s", "type": {"string": {"accessMode": "ReadOnly", "defaultValue": "x"}}},
    ]});
    for version in ["v1beta1", "v1alpha2"] {
        let api = format!("devices.kubeedge.io/{version}");
        let objects = [
            of(
                &api,
                "DeviceModel",
                spec.clone(),
                json!({"conditions": [condition()]}),
            ),
            of(&api, "DeviceModel", older.clone(), Value::Null),
        ];
        whole::<devices::DeviceModel>("DeviceModel", version, &objects);
    }
}

const APPS: &str = "apps.kubeedge.io/v1alpha1";

#[test]
fn a_group_of_nodes() {
    let spec = json!({"nodes": ["n"], "matchLabels": {"zone": "a"}, "topologyEnabled": true});
    let status = json!({"nodeStatuses": [{
        "nodeName": "n",
        "readyStatus": "Ready",
        "selectionStatus": "Failed",
        "selectionStatusReason": "it belongs to another group",
    }]});
    let object = of(APPS, "NodeGroup", spec, status);
    whole::<apps::NodeGroup>("NodeGroup", "v1alpha1", &[object]);
}

#[test]
fn an_application() {
    let words = |operator: &str| json!([{"containerName": "c", "operator": operator, "value": ["w"]}]);
    let overriders = json!({
        "replicas": 3,
        "imageOverriders": [
            {"component": "Registry", "operator": "replace", "value": "r"},
            {"component": "Repository", "operator": "add", "value": "r", "predicate": {"path": "/spec/template/spec/containers/0/image"}},
            {"component": "Tag", "operator": "remove"},
        ],
        "envOverriders": [{"containerName": "c", "operator": "add", "value": [
            {"name": "A", "value": "b"},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
        ]}],
        "commandOverriders": words("add"),
        "argsOverriders": words("remove"),
        "resourcesOverriders": [{"containerName": "c", "value": {"limits": {"cpu": "1"}, "requests": {"memory": "64Mi"}}}],
    });
    let spec = json!({
        "workloadTemplate": {"manifests": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}}]},
        "workloadScope": {
            "targetNodeGroups": [{"name": "g", "overriders": overriders}],
            "targetNodeLabels": [{"labelSelector": selector(), "overriders": overriders}],
        },
    });
    let status = json!({"workloadStatus": [
        {
            "identifier": {
                "ordinal": 0,
                "group": "apps",
                "version": "v1",
                "kind": "Deployment",
                "resource": "deployments",
                "namespace": "default",
                "name": "d",
            },
            "conditions": "Processing",
        },
        {"identifier": {"ordinal": 1}, "conditions": "Available"},
    ]});
    let object = of(APPS, "EdgeApplication", spec, status);
    whole::<apps::EdgeApplication>("EdgeApplication", "v1alpha1", &[object]);
}

#[test]
fn what_nodes_hold() {
    let api = "reliablesyncs.kubeedge.io/v1alpha1";
    let spec = json!({"objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "p"});
    let status = json!({"objectResourceVersion": "7"});
    let object = of(api, "ObjectSync", spec.clone(), status.clone());
    whole::<reliablesyncs::ObjectSync>("ObjectSync", "v1alpha1", &[object]);
    let object = of(api, "ClusterObjectSync", spec, status);
    whole::<reliablesyncs::ClusterObjectSync>("ClusterObjectSync", "v1alpha1", &[object]);
}

#[test]
fn rules_and_their_ends() {
    let api = "rules.kubeedge.io/v1";
    let rule = |from: Value, to: Value| {
        let spec = json!({"source": "a", "sourceResource": from, "target": "b", "targetResource": to});
        let status = json!({"successMessages": 1, "failMessages": 2, "errors": ["e"]});
        of(api, "Rule", spec, status)
    };
    let rules = [
        rule(json!({"path": "/p"}), json!({"topic": "t"})),
        rule(
            json!({"topic": "t", "node_name": "n"}),
            json!({"resource": "http://r"}),
        ),
        rule(
            json!({"target_url": "http://t", "node_name": "n"}),
            json!({"path": "/p"}),
        ),
    ];
    whole::<rules::Rule>("Rule", "v1", &rules);
    let ends = [
        json!({"ruleEndpointType": "rest", "properties": {"a": "b"}}),
        json!({"ruleEndpointType": "eventbus"}),
        json!({"ruleEndpointType": "servicebus", "properties": {"service_port": "8080"}}),
    ]
    .map(|spec| of(api, "RuleEndpoint", spec, Value::Null));
    whole::<rules::RuleEndpoint>("RuleEndpoint", "v1", &ends);
}

#[test]
fn access_of_service_accounts() {
    let rules = json!([{
        "apiGroups": [""],
        "resources": ["pods"],
        "resourceNames": ["p"],
        "verbs": ["get"],
    }, {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]);
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}});
    let spec = json!({
        "serviceAccount": {"metadata": {"name": "s"}},
        "serviceAccountUid": "u",
        "accessRoleBinding": [{"roleBinding": binding, "rules": rules}],
        "accessClusterRoleBinding": [{"clusterRoleBinding": binding, "rules": rules}],
    });
    let api = "policy.kubeedge.io/v1alpha1";
    let object = of(api, "ServiceAccountAccess", spec, json!({"nodeList": ["n"]}));
    whole::<policy::ServiceAccountAccess>("ServiceAccountAccess", "v1alpha1", &[object]);
}

const OPERATIONS: &str = "operations.kubeedge.io/v1alpha2";

/// The nodes' part of a job's status, in every phase, with every step.
fn progress(steps: &[&str], more: &[(&str, Value)]) -> Value {
    let flow: Vec<Value> = steps
        .iter()
        .map(|step| json!({"action": step, "status": "True", "reason": "r", "time": "2026-01-01T00:00:00Z"}))
        .collect();
    let phases = ["Pending", "InProgress", "Successful", "Failure", "Unknown"];
    let nodes = phases.map(|phase| {
        let mut node = json!({"nodeName": phase, "phase": phase, "actionFlow": flow, "reason": "r"});
        for (name, value) in more {
            node[name] = value.clone();
        }
        node
    });
    json!({"phase": "InProgress", "reason": "r", "nodeStatus": nodes})
}

/// Those for named nodes and those for selected ones: a job has one of both.
fn by_name_and_by_label(spec: &Value, pointer: &str) -> [Value; 2] {
    [("nodeNames", json!(["n"])), ("labelSelector", selector())].map(|(name, value)| {
        let mut spec = spec.clone();
        spec.pointer_mut(pointer).unwrap()[name] = value;
        spec
    })
}

#[test]
fn jobs_that_upgrade() {
    let spec = json!({
        "version": "v1.2.3",
        "timeoutSeconds": 300,
        "image": "registry/installation:v1.2.3",
        "imageDigestGatter": {
            "arm64": "sha256:a",
            "amd64": "sha256:b",
            "value": "sha256:c",
            "registryAPI": {"host": "h", "token": "t"},
        },
        "concurrency": 2,
        "checkItems": ["cpu", "mem", "disk"],
        "failureTolerate": "0.1",
        "requireConfirmation": true,
    });
    let status = progress(
        &["Check", "WaitingConfirmation", "BackUp", "Upgrade", "RollBack"],
        &[
            ("currentVersion", json!("v1.2.3")),
            ("historicVersion", json!("v1.2.2")),
        ],
    );
    let jobs = by_name_and_by_label(&spec, "");
    let jobs = jobs.map(|spec| of(OPERATIONS, "NodeUpgradeJob", spec, status.clone()));
    whole::<operations::NodeUpgradeJob>("NodeUpgradeJob", "v1alpha2", &jobs);
    for phase in ["Init", "InProgress", "Completed", "Failure"] {
        let job = of(
            OPERATIONS,
            "NodeUpgradeJob",
            spec.clone(),
            json!({"phase": phase}),
        );
        assert_eq!(faults("NodeUpgradeJob", "v1alpha2", &job), Vec::<String>::new());
    }
}

#[test]
fn jobs_that_fetch_images() {
    let spec = json!({"imagePrePullTemplate": {
        "images": ["i"],
        "checkItems": ["disk"],
        "failureTolerate": "0.1",
        "concurrency": 2,
        "timeoutSeconds": 300,
        "imageSecrets": "default/secret",
        "retryTimes": 3,
    }});
    let images = json!([{"image": "i", "status": "True", "reason": "r"}]);
    let status = progress(&["Check", "Pull"], &[("imageStatus", images)]);
    let jobs = by_name_and_by_label(&spec, "/imagePrePullTemplate");
    let jobs = jobs.map(|spec| of(OPERATIONS, "ImagePrePullJob", spec, status.clone()));
    whole::<operations::ImagePrePullJob>("ImagePrePullJob", "v1alpha2", &jobs);
}

#[test]
fn jobs_that_change_configuration() {
    let spec = json!({
        "updateFields": {"modules.edged.tailoredKubeletConfig.maxPods": "110"},
        "failureTolerate": "0.1",
        "concurrency": 2,
        "timeoutSeconds": 300,
    });
    let status = progress(&["Check", "BackUp", "Update", "RollBack"], &[]);
    let jobs = by_name_and_by_label(&spec, "");
    let jobs = jobs.map(|spec| of(OPERATIONS, "ConfigUpdateJob", spec, status.clone()));
    whole::<operations::ConfigUpdateJob>("ConfigUpdateJob", "v1alpha2", &jobs);
}

/// What v1alpha1 told of a job otherwise is kept, though nothing here reads it.
#[test]
fn older_jobs() {
    let api = "operations.kubeedge.io/v1alpha1";
    let told =
        json!({"state": "Upgrading", "event": "Upgrade", "action": "Success", "reason": "r", "time": "t"});
    let mut on_a_node = told.clone();
    on_a_node["nodeName"] = "n".into();

    let mut status = told.clone();
    status["currentVersion"] = "v2".into();
    status["historicVersion"] = "v1".into();
    status["nodeStatus"] = json!([on_a_node]);
    let spec = json!({
        "version": "v2",
        "nodeNames": ["n"],
        "image": "i",
        "imageDigestGatter": {"value": "sha256:c", "registryAPI": {"host": "h", "token": "t"}},
        "requireConfirmation": false,
    });
    let job = of(api, "NodeUpgradeJob", spec, status);
    same::<operations::NodeUpgradeJob>("NodeUpgradeJob", "v1alpha1", &job);

    let mut status = told;
    let image = json!({"image": "i", "state": "failed", "reason": "r"});
    status["status"] = json!([{"nodeStatus": on_a_node, "imageStatus": [image]}]);
    let spec = json!({"imagePrePullTemplate": {"images": ["i"], "labelSelector": selector()}});
    let job = of(api, "ImagePrePullJob", spec, status);
    same::<operations::ImagePrePullJob>("ImagePrePullJob", "v1alpha1", &job);
}
