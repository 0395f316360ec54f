//! Pods, and templates of pods.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{empty, in_port_range, list, not_negative, one_of, text};
use crate::error::Cause;
use crate::schema::cause::{duplicate, forbidden, invalid, required};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// What of a pod's spec may change once it is there.
const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn pod(old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    spec(&new["spec"], "spec", causes);
    let restarts = ["Always", "OnFailure", "Never"];
    one_of(
        &new["spec"]["restartPolicy"],
        "spec.restartPolicy",
        &restarts,
        causes,
    );
    if old.is_some_and(|old| fixed(&old["spec"]) != fixed(&new["spec"])) {
        causes.push(forbidden("spec", MAY_CHANGE));
    }
}

/// The spec without what may change. A pod without gates may be bound by `binding` alone.
fn fixed(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for field in [
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "schedulingGates",
    ] {
        if let Some(map) = spec.as_object_mut() {
            map.remove(field);
        }
    }
    for field in ["containers", "initContainers"] {
        for container in spec[field].as_array_mut().into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    // Reading a field that is not there made one that is null.
    if let Some(map) = spec.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    spec
}

/// `template.spec` too, with another `path`.
pub(super) fn spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let volumes = volumes(spec, path, causes);
    let containers = list(&spec["containers"]);
    if containers.is_empty() {
        causes.push(required(format!("{path}.containers"), ""));
    }
    let mut names = BTreeSet::new();
    for field in ["containers", "initContainers"] {
        for (n, container) in list(&spec[field]).iter().enumerate() {
            let at = format!("{path}.{field}[{n}]");
            let name = &container["name"];
            if empty(name) {
                causes.push(required(format!("{at}.name"), ""));
            } else {
                dns_label(name, &format!("{at}.name"), causes);
                if !names.insert(text(name)) {
                    causes.push(duplicate(format!("{at}.name"), name));
                }
            }
            self::container(container, &at, &volumes, causes);
        }
    }
    not_negative(
        &spec["terminationGracePeriodSeconds"],
        &format!("{path}.terminationGracePeriodSeconds"),
        causes,
    );
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    one_of(
        &spec["dnsPolicy"],
        &format!("{path}.dnsPolicy"),
        &policies,
        causes,
    );
}

fn container(container: &Value, path: &str, volumes: &BTreeSet<&str>, causes: &mut Vec<Cause>) {
    let image = &container["image"];
    if empty(image) {
        causes.push(required(format!("{path}.image"), ""));
    } else if text(image).trim() != text(image) {
        let why = "must not have leading or trailing whitespace";
        causes.push(invalid(format!("{path}.image"), image, why));
    }
    for (n, port) in list(&container["ports"]).iter().enumerate() {
        let at = format!("{path}.ports[{n}]");
        match port["containerPort"].as_i64() {
            None | Some(0) => causes.push(required(format!("{at}.containerPort"), "")),
            Some(_) => in_port_range(&port["containerPort"], &format!("{at}.containerPort"), causes),
        }
        if port["hostPort"] != 0 {
            in_port_range(&port["hostPort"], &format!("{at}.hostPort"), causes);
        }
        let protocols = ["SCTP", "TCP", "UDP"];
        one_of(&port["protocol"], &format!("{at}.protocol"), &protocols, causes);
    }
    for (n, mount) in list(&container["volumeMounts"]).iter().enumerate() {
        let at = format!("{path}.volumeMounts[{n}]");
        let name = text(&mount["name"]);
        if name.is_empty() {
            causes.push(required(format!("{at}.name"), ""));
        } else if !volumes.contains(name) {
            causes.push(Cause {
                reason: "FieldValueNotFound",
                message: format!("Not found: \"{name}\""),
                field: format!("{at}.name"),
            });
        }
        if empty(&mount["mountPath"]) {
            causes.push(required(format!("{at}.mountPath"), ""));
        }
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(
        &container["imagePullPolicy"],
        &format!("{path}.imagePullPolicy"),
        &policies,
        causes,
    );
}

/// Names of the volumes.
fn volumes<'a>(spec: &'a Value, path: &str, causes: &mut Vec<Cause>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (n, volume) in list(&spec["volumes"]).iter().enumerate() {
        let at = format!("{path}.volumes[{n}].name");
        let name = &volume["name"];
        if empty(name) {
            causes.push(required(at, ""));
            continue;
        }
        dns_label(name, &at, causes);
        if !names.insert(text(name)) {
            causes.push(duplicate(at, name));
        }
    }
    names
}

/// A name as in DNS (RFC 1123).
pub(super) fn dns_label(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let name = text(value);
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = !name.starts_with('-') && !name.ends_with('-');
    if !(name.chars().all(inner) && ends) {
        causes.push(invalid(path, value, LABEL));
    }
    if name.len() > 63 {
        causes.push(invalid(path, value, "must be no more than 63 bytes"));
    }
}
