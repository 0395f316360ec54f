//! Everything that neither makes nor holds pods.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::fields::{Fields, canonical_list, each, inner, is_empty, made, put, put_nonzero, text};

/// Seconds for which a client keeps its endpoint, by `ClientIP` affinity.
const AFFINITY_SECONDS: u32 = 10800;

/// The label every namespace has.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A Namespace.
pub(super) fn namespace(object: &mut Fields) {
    if let Some(metadata) = made(object, "metadata")
        && let Some(name) = metadata.get("name").cloned()
        && let Some(labels) = made(metadata, "labels")
    {
        labels.insert(NAME_LABEL.to_owned(), name);
    }
    made(object, "spec");
    if let Some(status) = made(object, "status") {
        put_nonzero(status, "phase", "Active");
    }
}

/// A Node.
pub(super) fn node(object: &mut Fields) {
    made(object, "spec");
    let Some(status) = made(object, "status") else {
        return;
    };
    if let Some(capacity) = status.get("capacity").cloned() {
        put(status, "allocatable", capacity);
    }
    canonical_list(status, "capacity");
    canonical_list(status, "allocatable");
}

/// A Secret: `stringData` is written, and read as data.
pub(super) fn secret(object: &mut Fields) {
    put_nonzero(object, "type", "Opaque");
    let Some(Value::Object(texts)) = object.get("stringData") else {
        return;
    };
    if !texts.values().all(Value::is_string) {
        return;
    }
    let Some(Value::Object(texts)) = object.remove("stringData") else {
        return;
    };
    if texts.is_empty() {
        return;
    }
    let Some(data) = made(object, "data") else { return };
    for (name, value) in texts {
        let encoded = base64(value.as_str().unwrap_or_default().as_bytes());
        data.insert(name, encoded.into());
    }
}

/// Base64 of RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| three.get(at).map_or(0, |byte| u32::from(*byte));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or_default();
            out.push(if place > three.len() {
                '='
            } else {
                char::from(LETTERS[letter])
            });
        }
    }
    out
}

/// A Service.
pub(super) fn service(object: &mut Fields) {
    if let Some(spec) = made(object, "spec") {
        service_spec(spec);
    }
    let Some(status) = made(object, "status") else {
        return;
    };
    if let Some(balancer) = made(status, "loadBalancer") {
        for ingress in each(balancer, "ingress") {
            if !text(ingress, "ip").is_empty() {
                put(ingress, "ipMode", "VIP");
            }
        }
    }
}

fn service_spec(spec: &mut Fields) {
    put_nonzero(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let seconds = spec
                .get("sessionAffinityConfig")
                .and_then(|config| config.pointer("/clientIP/timeoutSeconds"));
            if seconds.is_none() {
                let config = json!({ "clientIP": { "timeoutSeconds": AFFINITY_SECONDS } });
                spec.insert("sessionAffinityConfig".to_owned(), config);
            }
        }
        _ => {}
    }
    put_nonzero(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        put_nonzero(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            put_nonzero(port, "targetPort", number);
        }
    }
    let kind = text(spec, "type").to_owned();
    let inside = matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer");
    let outside = match kind.as_str() {
        "NodePort" | "LoadBalancer" => true,
        _ => inside && !is_empty(spec, "externalIPs"),
    };
    if outside {
        put_nonzero(spec, "externalTrafficPolicy", "Cluster");
    }
    if inside {
        put(spec, "internalTrafficPolicy", "Cluster");
        families(spec);
    }
    if kind == "LoadBalancer" {
        put(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Families follow from the addresses, where there are any.
fn families(spec: &mut Fields) {
    let address = text(spec, "clusterIP").to_owned();
    if address.is_empty() {
        return;
    }
    if is_empty(spec, "clusterIPs") {
        spec.insert("clusterIPs".to_owned(), json!([address]));
    }
    if !is_empty(spec, "ipFamilies") {
        return;
    }
    let (families, policy) = if address == "None" {
        if is_empty(spec, "selector") {
            (json!(["IPv4", "IPv6"]), "RequireDualStack")
        } else {
            (json!(["IPv4"]), "SingleStack")
        }
    } else {
        let addresses = spec.get("clusterIPs").and_then(Value::as_array);
        let families: Vec<Value> = addresses.into_iter().flatten().map(family).collect();
        let policy = if families.len() == 1 {
            "SingleStack"
        } else {
            "RequireDualStack"
        };
        (Value::Array(families), policy)
    };
    spec.insert("ipFamilies".to_owned(), families);
    put(spec, "ipFamilyPolicy", policy);
}

fn family(address: &Value) -> Value {
    let address: Option<IpAddr> = address.as_str().and_then(|text| text.parse().ok());
    match address {
        Some(IpAddr::V6(_)) => "IPv6".into(),
        _ => "IPv4".into(),
    }
}

/// Endpoints.
pub(super) fn endpoints(object: &mut Fields) {
    for subset in each(object, "subsets") {
        for port in each(subset, "ports") {
            put_nonzero(port, "protocol", "TCP");
        }
    }
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(object: &mut Fields) {
    for endpoint in each(object, "endpoints") {
        made(endpoint, "conditions");
    }
    for port in each(object, "ports") {
        put(port, "name", "");
        put(port, "protocol", "TCP");
    }
}

/// A RoleBinding or ClusterRoleBinding.
pub(super) fn binding(object: &mut Fields) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if let Some(role) = inner(object, "roleRef") {
        put_nonzero(role, "apiGroup", GROUP);
    }
    for subject in each(object, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            put_nonzero(subject, "apiGroup", GROUP);
        }
    }
}

/// A StorageClass.
pub(super) fn storage_class(object: &mut Fields) {
    put(object, "reclaimPolicy", "Delete");
    put(object, "volumeBindingMode", "Immediate");
}

/// A NetworkPolicy.
pub(super) fn network_policy(object: &mut Fields) {
    let Some(spec) = made(object, "spec") else { return };
    if is_empty(spec, "policyTypes") {
        let types = if is_empty(spec, "egress") {
            json!(["Ingress"])
        } else {
            json!(["Ingress", "Egress"])
        };
        spec.insert("policyTypes".to_owned(), types);
    }
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            for port in each(rule, "ports") {
                put(port, "protocol", "TCP");
            }
        }
    }
}

/// A CustomResourceDefinition.
pub(super) fn definition(object: &mut Fields) {
    let Some(spec) = made(object, "spec") else { return };
    if let Some(names) = inner(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            put_nonzero(names, "singular", kind.to_lowercase());
            put_nonzero(names, "listKind", format!("{kind}List"));
        }
    }
    put(spec, "conversion", json!({ "strategy": "None" }));
    if let Some(service) = super::fields::at(spec, &["conversion", "webhook", "clientConfig", "service"]) {
        put(service, "port", 443);
    }
}
