//! What schemas do not say of built-in objects: the mistakes people make most, in upstream's words.
//! Source: `k8s.io/kubernetes/pkg/apis/*/validation`. Upstream checks more than this; see `docs/kubernetes-api.md`.

mod pod;
mod workload;

use serde_json::Value;

use crate::error::Cause;
use crate::resource::Resource;
use crate::schema::cause::{forbidden, invalid, not_supported, required};
use crate::selector::LabelSelector;

const IMMUTABLE: &str = "field is immutable";

/// What is wrong with `new`, which has its defaults and replaces `old`.
pub fn validate(resource: &Resource, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    match resource.gvr.resource.as_str() {
        "pods" => pod::pod(old, new, &mut causes),
        "deployments" | "daemonsets" | "replicasets" | "statefulsets" => {
            workload::workload(&resource.gvr.resource, old, new, &mut causes);
        }
        "jobs" => workload::job(&new["spec"], "spec", &mut causes),
        "cronjobs" => workload::cron_job(new, &mut causes),
        "configmaps" => config_map(new, &mut causes),
        "secrets" => secret(old, new, &mut causes),
        "services" => service(new, &mut causes),
        "persistentvolumeclaims" => claim(old, new, &mut causes),
        "rolebindings" | "clusterrolebindings" => binding(&resource.gvr.resource, old, new, &mut causes),
        "roles" | "clusterroles" => role(new, &mut causes),
        "leases" => positive(new, "spec.leaseDurationSeconds", &mut causes),
        "storageclasses" if empty(&new["provisioner"]) => causes.push(required("provisioner", "")),
        _ => {}
    }
    causes
}

/// Most bytes that a config map or a secret holds.
const CONFIG_MAX_BYTES: usize = 1024 * 1024;

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn empty(value: &Value) -> bool {
    text(value).is_empty()
}

/// One of a few words; absent is for others to say.
fn one_of(value: &Value, path: &str, words: &[&str], causes: &mut Vec<Cause>) {
    if value.as_str().is_some_and(|text| !words.contains(&text)) {
        let words: Vec<Value> = words.iter().map(|word| (*word).into()).collect();
        causes.push(not_supported(path, value, &words));
    }
}

fn in_port_range(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|port| !(1..=65535).contains(&port)) {
        causes.push(invalid(path, value, "must be between 1 and 65535, inclusive"));
    }
}

fn not_negative(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|number| number < 0) {
        causes.push(invalid(path, value, "must be greater than or equal to 0"));
    }
}

fn positive(object: &Value, path: &str, causes: &mut Vec<Cause>) {
    let found = path.split('.').try_fold(object, |value, name| value.get(name));
    if let Some(value) = found.filter(|value| value.as_i64().is_some_and(|number| number <= 0)) {
        causes.push(invalid(path, value, "must be greater than 0"));
    }
}

/// Keys of configuration are file names.
fn config_keys(map: &Value, path: &str, causes: &mut Vec<Cause>) {
    const WORDS: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    for (key, _) in map.as_object().into_iter().flatten() {
        let told = |why: &str| invalid(format!("{path}[{key}]"), &key.as_str().into(), why);
        let sign = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if key.len() > 253 {
            causes.push(told("must be no more than 253 bytes"));
        }
        if key.is_empty() || !key.chars().all(sign) {
            causes.push(told(WORDS));
        }
        match key.as_str() {
            "." => causes.push(told("must not be '.'")),
            ".." => causes.push(told("must not be '..'")),
            key if key.starts_with("..") => causes.push(told("must not start with '..'")),
            _ => {}
        }
    }
}

fn config_map(new: &Value, causes: &mut Vec<Cause>) {
    config_keys(&new["data"], "data", causes);
    for (key, _) in new["data"].as_object().into_iter().flatten() {
        if new["binaryData"].get(key).is_some() {
            let why = "duplicate of key present in binaryData";
            causes.push(invalid(format!("data[{key}]"), &key.as_str().into(), why));
        }
    }
    config_keys(&new["binaryData"], "binaryData", causes);
    // Upstream names no field.
    let bytes = size(&new["data"], str::len) + size(&new["binaryData"], decoded_len);
    within_config(bytes, "[]", causes);
}

/// Bytes of all values of a map.
fn size(map: &Value, of: fn(&str) -> usize) -> usize {
    let values = map.as_object().into_iter().flatten();
    values.map(|(_, value)| of(text(value))).sum()
}

/// How many bytes a text in base64 stands for.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

fn within_config(bytes: usize, field: &str, causes: &mut Vec<Cause>) {
    if bytes > CONFIG_MAX_BYTES {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {CONFIG_MAX_BYTES} bytes"),
            field: field.to_owned(),
        });
    }
}

fn secret(old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    config_keys(&new["data"], "data", causes);
    within_config(size(&new["data"], decoded_len), "data", causes);
    unchanged(old, new, "type", causes);
}

fn unchanged(old: Option<&Value>, new: &Value, field: &str, causes: &mut Vec<Cause>) {
    if let Some(old) = old
        && old.get(field) != new.get(field)
    {
        causes.push(invalid(field, &new[field], IMMUTABLE));
    }
}

fn service(new: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let ports = list(&spec["ports"]);
    let kind = text(&spec["type"]);
    if ports.is_empty() && spec["clusterIP"] != "None" && kind != "ExternalName" {
        causes.push(required("spec.ports", ""));
    }
    for (n, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{n}]");
        let name = &port["name"];
        if empty(name) {
            if ports.len() > 1 {
                causes.push(required(format!("{path}.name"), ""));
            }
        } else {
            pod::dns_label(name, &format!("{path}.name"), causes);
        }
        in_port_range(&port["port"], &format!("{path}.port"), causes);
        one_of(
            &port["protocol"],
            &format!("{path}.protocol"),
            &["SCTP", "TCP", "UDP"],
            causes,
        );
        in_port_range(&port["targetPort"], &format!("{path}.targetPort"), causes);
    }
    one_of(
        &spec["sessionAffinity"],
        "spec.sessionAffinity",
        &["ClientIP", "None"],
        causes,
    );
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(&spec["type"], "spec.type", &types, causes);
}

fn claim(old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    if list(&spec["accessModes"]).is_empty() {
        causes.push(required("spec.accessModes", "at least 1 access mode is required"));
    }
    if spec["resources"]["requests"].get("storage").is_none() {
        causes.push(required("spec.resources[storage]", ""));
    }
    if let Some(old) = old {
        let fixed = |value: &Value| {
            let mut spec = value["spec"].clone();
            // A claim is bound once, and may grow.
            for field in [
                "volumeName",
                "resources",
                "volumeAttributesClassName",
                "storageClassName",
            ] {
                spec[field] = Value::Null;
            }
            spec
        };
        if fixed(old) != fixed(new) {
            let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            causes.push(forbidden("spec", why));
        }
    }
}

fn binding(resource: &str, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    let role = &new["roleRef"];
    let roles: &[&str] = match resource {
        "rolebindings" => &["Role", "ClusterRole"],
        _ => &["ClusterRole"],
    };
    one_of(&role["kind"], "roleRef.kind", roles, causes);
    if empty(&role["name"]) {
        causes.push(required("roleRef.name", ""));
    }
    for (n, subject) in list(&new["subjects"]).iter().enumerate() {
        if empty(&subject["name"]) {
            causes.push(required(format!("subjects[{n}].name"), ""));
        }
        let kinds = ["ServiceAccount", "User", "Group"];
        one_of(&subject["kind"], &format!("subjects[{n}].kind"), &kinds, causes);
    }
    if old.is_some_and(|old| old["roleRef"] != *role) {
        let shown =
            serde_json::json!({"APIGroup": role["apiGroup"], "Kind": role["kind"], "Name": role["name"]});
        causes.push(invalid("roleRef", &shown, "cannot change roleRef"));
    }
}

fn role(new: &Value, causes: &mut Vec<Cause>) {
    for (n, rule) in list(&new["rules"]).iter().enumerate() {
        let mut need = |field: &str, why: &str| {
            let is_missing = list(&rule[field]).is_empty();
            if is_missing {
                causes.push(required(format!("rules[{n}].{field}"), why));
            }
        };
        need("verbs", "verbs must contain at least one value");
        if !list(&rule["nonResourceURLs"]).is_empty() {
            if !list(&rule["apiGroups"]).is_empty() || !list(&rule["resources"]).is_empty() {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                let field = format!("rules[{n}].nonResourceURLs");
                causes.push(invalid(field, &rule["nonResourceURLs"], why));
            }
            continue;
        }
        need("apiGroups", "resource rules must supply at least one api group");
        need("resources", "resource rules must supply at least one resource");
    }
}

/// Whether a label selector, as in an object, lets labels through that are those of a template.
fn selects(selector: &Value, labels: &Value) -> bool {
    let labels = labels.as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    LabelSelector::of_object(selector).is_ok_and(|selector| selector.matches(&labels.collect()))
}
