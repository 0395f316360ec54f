//! Pods, and the pods in templates.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{each, ensure, ensure_number, ensure_text, object, there};

/// Where a container writes why it ended.
const TERMINATION_PATH: &str = "/dev/termination-log";
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// The mode of files in volumes: 0644.
const FILE_MODE: i64 = 0o644;

/// A pod: what a template has, and what only pods have.
pub(super) fn pod(pod: &mut Value) {
    let spec = object(pod, "spec");
    let Some(spec) = spec else {
        return;
    };
    pod_spec(spec);
    ensure(spec, "enableServiceLinks", true.into());
    let host_network = spec["hostNetwork"] == true;
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
            // On the host's network a container's port is the host's.
            for port in each(container, "ports").filter(|_| host_network) {
                if let Some(number) = port["containerPort"].as_i64() {
                    ensure_number(port, "hostPort", number);
                }
            }
        }
    }
    let class = qos(spec);
    if let Some(status) = object(pod, "status") {
        ensure_text(status, "phase", "Pending");
        ensure_text(status, "qosClass", class);
    }
}

/// What is limited and not requested is requested as far as it is limited.
fn requests_from_limits(container: &mut Value) {
    let Some(resources) = there(container, "resources") else {
        return;
    };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    ensure(resources, "requests", json!({}));
    if let Some(requests) = resources["requests"].as_object_mut() {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// The class of a pod by what its containers ask for. Source: `k8s.io/kubernetes/pkg/apis/core/helper/qos`.
fn qos(spec: &Value) -> &'static str {
    let containers = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec[list].as_array());
    let containers: Vec<&Value> = containers.flatten().collect();
    let asked = |container: &Value, list: &str| -> BTreeMap<String, Value> {
        let found = container["resources"][list]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let counted = |name: &str, amount: &Value| matches!(name, "cpu" | "memory") && *amount != "0";
        Map::into_iter(found)
            .filter(|(name, amount)| counted(name, amount))
            .collect()
    };
    let mut guaranteed = !containers.is_empty();
    let mut any = false;
    for container in containers {
        let (limits, requests) = (asked(container, "limits"), asked(container, "requests"));
        any |= !limits.is_empty() || !requests.is_empty();
        guaranteed &= limits.len() == 2 && limits == requests;
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The template at `template`: its spec, and the metadata that is always there.
pub(super) fn template(value: &mut Value) {
    let Some(template) = object(value, "template") else {
        return;
    };
    ensure(template, "metadata", json!({}));
    if let Some(spec) = object(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    ensure_text(spec, "dnsPolicy", "ClusterFirst");
    ensure_text(spec, "restartPolicy", "Always");
    ensure(spec, "securityContext", json!({}));
    ensure(spec, "terminationGracePeriodSeconds", 30.into());
    ensure_text(spec, "schedulerName", "default-scheduler");
    // One name is the old spelling of the other.
    let account = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let (new, old) = (account("serviceAccountName"), account("serviceAccount"));
    let account = if new.is_empty() { old } else { new };
    if !account.is_empty() {
        spec["serviceAccountName"] = account.as_str().into();
        spec["serviceAccount"] = account.into();
    }
    for list in CONTAINERS {
        each(spec, list).for_each(container);
    }
    each(spec, "volumes").for_each(volume);
}

fn container(container: &mut Value) {
    let policy = pull_policy(container["image"].as_str().unwrap_or_default());
    ensure_text(container, "imagePullPolicy", policy);
    ensure_text(container, "terminationMessagePath", TERMINATION_PATH);
    ensure_text(container, "terminationMessagePolicy", "File");
    ensure(container, "resources", json!({}));
    for port in each(container, "ports") {
        ensure_text(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(from) = there(variable, "valueFrom") {
            field_source(from);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = there(container, name) {
            ensure_number(probe, "timeoutSeconds", 1);
            ensure_number(probe, "periodSeconds", 10);
            ensure_number(probe, "successThreshold", 1);
            ensure_number(probe, "failureThreshold", 3);
            http_get(probe);
            if let Some(grpc) = there(probe, "grpc") {
                ensure(grpc, "service", "".into());
            }
        }
    }
    if let Some(lifecycle) = there(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = there(lifecycle, name) {
                http_get(handler);
            }
        }
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = there(handler, "httpGet") {
        ensure_text(get, "path", "/");
        ensure_text(get, "scheme", "HTTP");
    }
}

/// `fieldRef` and `resourceFieldRef`.
fn field_source(from: &mut Value) {
    if let Some(field) = there(from, "fieldRef") {
        ensure_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = there(from, "resourceFieldRef") {
        ensure(resource, "divisor", "0".into());
    }
}

/// `Always` for the tag `latest`, which an image without tag and digest has.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, None), |(name, digest)| (name, Some(digest)));
    // A colon before the last slash is that of a port.
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        (Some("latest"), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn volume(volume: &mut Value) {
    let sources = volume
        .as_object()
        .map_or(0, |fields| fields.keys().filter(|name| *name != "name").count());
    if sources == 0 {
        ensure(volume, "emptyDir", json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = there(volume, name) {
            ensure(source, "defaultMode", FILE_MODE.into());
            downward(source);
            for projected in each(source, "sources") {
                if let Some(token) = there(projected, "serviceAccountToken") {
                    ensure(token, "expirationSeconds", 3600.into());
                }
                if let Some(downward_api) = there(projected, "downwardAPI") {
                    downward(downward_api);
                }
            }
        }
    }
    if let Some(path) = there(volume, "hostPath") {
        ensure(path, "type", "".into());
    }
    if let Some(image) = there(volume, "image") {
        let policy = pull_policy(image["reference"].as_str().unwrap_or_default());
        ensure_text(image, "pullPolicy", policy);
    }
    if let Some(template) = there(volume, "ephemeral").and_then(|source| there(source, "volumeClaimTemplate"))
    {
        ensure(template, "metadata", json!({}));
        if let Some(spec) = object(template, "spec") {
            claim_spec(spec);
        }
    }
}

fn downward(source: &mut Value) {
    each(source, "items").for_each(field_source);
}

/// The spec of a claim on a volume.
pub(super) fn claim_spec(spec: &mut Value) {
    ensure_text(spec, "volumeMode", "Filesystem");
    ensure(spec, "resources", json!({}));
    // Two fields for one thing, as far as the older one can say it.
    match (spec.get("dataSource"), spec.get("dataSourceRef")) {
        (Some(old), None) if old_source(old) => ensure(spec, "dataSourceRef", old.clone()),
        (None, Some(new)) if old_source(new) => ensure(spec, "dataSource", new.clone()),
        _ => {}
    }
}

/// Whether `dataSource` can name it: a claim or a snapshot in the same namespace.
fn old_source(source: &Value) -> bool {
    let text = |name: &str| source.get(name).and_then(Value::as_str).unwrap_or_default();
    let known = matches!(
        (text("apiGroup"), text("kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    );
    known && text("namespace").is_empty()
}
