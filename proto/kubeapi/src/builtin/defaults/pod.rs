//! Pods, and the templates they are made from.

use serde_json::{Value, json};

use super::fields::{Fields, at, canonical_list, each, inner, made, put, put_nonzero, requirements, text};
use super::volume;

/// A pod.
pub(super) fn pod(pod: &mut Fields) {
    if let Some(spec) = made(pod, "spec") {
        spec_of(spec);
        for list in ["containers", "initContainers"] {
            each(spec, list).for_each(request_what_is_limited);
        }
        put(spec, "enableServiceLinks", true);
        if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
            for list in ["containers", "initContainers"] {
                each(spec, list).for_each(host_ports);
            }
        }
    }
    let class = quality(pod);
    if let Some(status) = made(pod, "status") {
        put_nonzero(status, "phase", "Pending");
        put_nonzero(status, "qosClass", class);
    }
}

/// The template in field `template`.
pub(super) fn template(owner: &mut Fields) {
    let Some(template) = made(owner, "template") else {
        return;
    };
    made(template, "metadata");
    if let Some(spec) = made(template, "spec") {
        spec_of(spec);
    }
}

fn spec_of(spec: &mut Fields) {
    put_nonzero(spec, "dnsPolicy", "ClusterFirst");
    put_nonzero(spec, "restartPolicy", "Always");
    put(spec, "securityContext", json!({}));
    put(spec, "terminationGracePeriodSeconds", 30);
    put_nonzero(spec, "schedulerName", "default-scheduler");
    canonical_list(spec, "overhead");
    if let Some(resources) = inner(spec, "resources") {
        canonical_list(resources, "limits");
        canonical_list(resources, "requests");
    }
    service_account(spec);
    each(spec, "volumes").for_each(volume::volume);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, list).for_each(container);
    }
}

/// Two fields say the same: the newer one counts.
fn service_account(spec: &mut Fields) {
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = name.to_owned();
        spec.insert("serviceAccount".to_owned(), name.clone().into());
        spec.insert("serviceAccountName".to_owned(), name.into());
    }
}

fn container(container: &mut Fields) {
    let policy = pull_policy(text(container, "image"));
    put_nonzero(container, "imagePullPolicy", policy);
    put_nonzero(container, "terminationMessagePath", "/dev/termination-log");
    put_nonzero(container, "terminationMessagePolicy", "File");
    requirements(container, "resources");
    for port in each(container, "ports") {
        put_nonzero(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(source) = inner(variable, "valueFrom") {
            volume::selectors(source);
            if let Some(file) = inner(source, "fileKeyRef") {
                put(file, "optional", false);
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = inner(container, name) {
            probe(found);
        }
    }
    for path in [["lifecycle", "postStart"], ["lifecycle", "preStop"]] {
        if let Some(handler) = at(container, &path) {
            http_get(handler);
        }
    }
}

/// What is pulled: always when the tag is `latest`, said or not; a digest never changes.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let tagged = image.split_once('@').map_or(image, |(name, _)| name);
    let last = tagged.rsplit('/').next().unwrap_or_default();
    let latest = match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => !image.contains('@') && !last.is_empty(),
    };
    if latest { "Always" } else { "IfNotPresent" }
}

fn probe(probe: &mut Fields) {
    put_nonzero(probe, "timeoutSeconds", 1);
    put_nonzero(probe, "periodSeconds", 10);
    put_nonzero(probe, "successThreshold", 1);
    put_nonzero(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = inner(probe, "grpc") {
        put(grpc, "service", "");
    }
}

fn http_get(handler: &mut Fields) {
    if let Some(get) = inner(handler, "httpGet") {
        put_nonzero(get, "path", "/");
        put_nonzero(get, "scheme", "HTTP");
    }
}

fn request_what_is_limited(container: &mut Fields) {
    let Some(resources) = inner(container, "resources") else {
        return;
    };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    let Some(requests) = made(resources, "requests") else {
        return;
    };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
    if requests.is_empty() {
        resources.remove("requests");
    }
}

fn host_ports(container: &mut Fields) {
    for port in each(container, "ports") {
        if let Some(inside) = port.get("containerPort").cloned() {
            put_nonzero(port, "hostPort", inside);
        }
    }
}

/// How sure a pod is of its resources. Source: `pkg/apis/core/v1/helper/qos`.
fn quality(pod: &Fields) -> &'static str {
    let Some(spec) = pod.get("spec") else {
        return "BestEffort";
    };
    let containers = ["containers", "initContainers"]
        .iter()
        .filter_map(|list| spec.get(list)?.as_array())
        .flatten();
    let mut guaranteed = true;
    let mut any = false;
    for container in containers {
        let amount = |kind: &str, name: &str| {
            container
                .pointer(&format!("/resources/{kind}/{name}"))
                .filter(|amount| amount.as_str().is_some_and(|text| text != "0"))
        };
        for name in ["cpu", "memory"] {
            let (limit, request) = (amount("limits", name), amount("requests", name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
