//! Everything that is no pod and makes none.

use serde_json::{Value, json};

use super::pod::claim_spec;
use super::{each, ensure, ensure_text, fields, object, there};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn namespace(value: &mut Value) {
    if let Some(name) = value["metadata"]["name"]
        .as_str()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        && let Some(labels) = there(value, "metadata").and_then(|metadata| object(metadata, "labels"))
    {
        labels["kubernetes.io/metadata.name"] = name.into();
    }
    ensure(value, "spec", json!({}));
    if let Some(status) = object(value, "status") {
        ensure_text(status, "phase", "Active");
    }
}

pub(super) fn node(value: &mut Value) {
    ensure(value, "spec", json!({}));
    let Some(status) = object(value, "status") else {
        return;
    };
    if let Some(capacity) = status.get("capacity").cloned() {
        ensure(status, "allocatable", capacity);
    }
    ensure(
        status,
        "daemonEndpoints",
        json!({ "kubeletEndpoint": { "Port": 0 } }),
    );
    if let Some(info) = object(status, "nodeInfo") {
        for name in [
            "architecture",
            "bootID",
            "containerRuntimeVersion",
            "kernelVersion",
            "kubeProxyVersion",
            "kubeletVersion",
            "machineID",
            "operatingSystem",
            "osImage",
            "systemUUID",
        ] {
            ensure(info, name, "".into());
        }
    }
}

/// Text in `stringData` becomes data; what stands there already gives way.
pub(super) fn secret(value: &mut Value) {
    ensure_text(value, "type", "Opaque");
    let Some(secret) = value.as_object_mut() else {
        return;
    };
    match secret.remove("stringData") {
        Some(Value::Object(texts)) if texts.values().all(Value::is_string) => {
            let data = secret.entry("data").or_insert_with(|| json!({}));
            if let Value::Object(data) = data {
                for (name, text) in texts {
                    data.insert(name, base64(text.as_str().unwrap_or_default().as_bytes()).into());
                }
            }
        }
        // Wrong: left for validation to refuse.
        Some(other) => {
            secret.insert("stringData".to_owned(), other);
        }
        None => {}
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([0, 0].iter()).take(3);
        let word = word.fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        for n in 0..4 {
            if n <= chunk.len() {
                out.push(char::from(DIGITS[(word >> (18 - 6 * n) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

pub(super) fn service(value: &mut Value) {
    if let Some(spec) = object(value, "spec") {
        service_spec(spec);
    }
    let balanced = value["spec"]["type"] == "LoadBalancer";
    if let Some(balancer) = object(value, "status").and_then(|status| object(status, "loadBalancer")) {
        for ingress in each(balancer, "ingress") {
            if balanced && ingress["ip"].as_str().is_some_and(|ip| !ip.is_empty()) {
                ensure(ingress, "ipMode", "VIP".into());
            }
        }
    }
}

fn service_spec(spec: &mut Value) {
    ensure_text(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        let given = spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds");
        if given.is_none() {
            spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": 10_800 } });
        }
    } else if spec["sessionAffinity"] == "None"
        && let Some(spec) = spec.as_object_mut()
    {
        spec.remove("sessionAffinityConfig");
    }
    ensure_text(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        ensure_text(port, "protocol", "TCP");
        let target = &port["targetPort"];
        if target.is_null() || *target == 0 || *target == "" {
            port["targetPort"] = port["port"].clone();
        }
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let outside = spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    let reached = matches!(kind.as_str(), "LoadBalancer" | "NodePort") || (kind == "ClusterIP" && outside);
    if reached {
        ensure_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        ensure(spec, "internalTrafficPolicy", "Cluster".into());
        families(spec);
    }
    if kind == "LoadBalancer" {
        ensure(spec, "allocateLoadBalancerNodePorts", true.into());
    }
}

/// Families follow from the address, where there is one.
fn families(spec: &mut Value) {
    let Some(address) = spec["clusterIP"].as_str().filter(|text| !text.is_empty()) else {
        return;
    };
    let address = address.to_owned();
    ensure(spec, "clusterIPs", json!([address]));
    if spec.get("ipFamilies").is_some() {
        return;
    }
    let selects = spec["selector"]
        .as_object()
        .is_some_and(|labels| !labels.is_empty());
    let families = match address.as_str() {
        // Nobody knows what will stand behind it.
        "None" if !selects => json!(["IPv4", "IPv6"]),
        "None" => json!(["IPv4"]),
        _ => spec["clusterIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(family)
            .collect(),
    };
    let one = families.as_array().is_some_and(|families| families.len() == 1);
    let policy = if one { "SingleStack" } else { "RequireDualStack" };
    ensure(spec, "ipFamilies", families);
    ensure(spec, "ipFamilyPolicy", policy.into());
}

fn family(address: &Value) -> Value {
    let sixth = address.as_str().is_some_and(|text| text.contains(':'));
    if sixth { "IPv6" } else { "IPv4" }.into()
}

pub(super) fn endpoints(value: &mut Value) {
    for subset in each(value, "subsets") {
        for port in each(subset, "ports") {
            ensure_text(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(value: &mut Value) {
    for endpoint in each(value, "endpoints") {
        ensure(endpoint, "conditions", json!({}));
    }
    for port in each(value, "ports") {
        ensure(port, "name", "".into());
        ensure(port, "protocol", "TCP".into());
    }
}

pub(super) fn event(value: &mut Value) {
    ensure(value, "source", json!({}));
    ensure(value, "reportingComponent", "".into());
    ensure(value, "reportingInstance", "".into());
}

pub(super) fn volume(value: &mut Value) {
    if let Some(spec) = object(value, "spec") {
        ensure_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        ensure_text(spec, "volumeMode", "Filesystem");
        if let Some(path) = there(spec, "hostPath") {
            ensure(path, "type", "".into());
        }
    }
    if let Some(status) = object(value, "status") {
        ensure_text(status, "phase", "Pending");
    }
}

pub(super) fn claim(value: &mut Value) {
    if let Some(spec) = object(value, "spec") {
        claim_spec(spec);
    }
    if let Some(status) = object(value, "status") {
        ensure_text(status, "phase", "Pending");
    }
}

pub(super) fn storage_class(value: &mut Value) {
    ensure_text(value, "reclaimPolicy", "Delete");
    ensure_text(value, "volumeBindingMode", "Immediate");
}

pub(super) fn role(value: &mut Value) {
    for rule in each(value, "rules") {
        ensure(rule, "verbs", json!([]));
    }
}

pub(super) fn binding(value: &mut Value) {
    if let Some(role) = there(value, "roleRef") {
        ensure_text(role, "apiGroup", RBAC);
    }
    for subject in each(value, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            ensure_text(subject, "apiGroup", RBAC);
        }
    }
}

pub(super) fn definition(value: &mut Value) {
    let mut stored = None;
    if let Some(spec) = object(value, "spec") {
        if let Some(names) = object(spec, "names") {
            let kind = names["kind"].as_str().unwrap_or_default().to_owned();
            ensure_text(names, "singular", &kind.to_lowercase());
            if !kind.is_empty() {
                ensure_text(names, "listKind", &format!("{kind}List"));
            }
        }
        ensure(spec, "conversion", json!({ "strategy": "None" }));
        let service = spec
            .pointer_mut("/conversion/webhook/clientConfig/service")
            .filter(|service| service.is_object());
        if let Some(service) = service {
            ensure(service, "port", 443.into());
        }
        stored = each(spec, "versions").find(|version| version["storage"] == true);
        stored = stored.filter(|version| version["name"].is_string());
    }
    let stored = stored.map(|version| version["name"].clone());
    let Some(stored) = stored else {
        return;
    };
    ensure(value, "status", json!({}));
    if let Some(status) = fields(value, "status") {
        let names = json!({ "kind": "", "plural": "" });
        status.entry("acceptedNames").or_insert(names);
        let versions = status.entry("storedVersions").or_insert_with(|| json!([]));
        if let Value::Array(versions) = versions
            && versions.is_empty()
        {
            versions.push(stored);
        }
    }
}
