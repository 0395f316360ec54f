//! Cells of the built-in kinds' tables. Their headings come from the server they were taken from (`openapi/kinds.json`).
//!
//! Source: `k8s.io/kubernetes/pkg/printers/internalversion`.

mod network;
mod pod;
mod storage;
mod workload;

use serde_json::Value;

use crate::resource::ColumnSource;
use crate::table::{human_duration, since};

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";
const UNKNOWN: &str = "<unknown>";

/// Where the value of `column` of `resource` (a plural name) comes from; `None` for a column nobody here knows.
pub(super) fn source(resource: &str, column: &str) -> Option<ColumnSource> {
    match (resource, column) {
        ("storageclasses", "Name") => return computed(storage::class_name),
        (_, "Name") => return Some(ColumnSource::Name),
        (_, "Age") => return Some(ColumnSource::Age),
        (_, "Created At") => return computed(|object, _| text(object, "/metadata/creationTimestamp").into()),
        _ => {}
    }
    match resource {
        "configmaps" => computed(|object, _| (count(object, "/data") + count(object, "/binaryData")).into()),
        "secrets" => match column {
            "Type" => computed(|object, _| text(object, "/type").into()),
            "Data" => computed(|object, _| count(object, "/data").into()),
            _ => None,
        },
        "serviceaccounts" => computed(|object, _| count(object, "/secrets").into()),
        "namespaces" => computed(|object, _| text(object, "/status/phase").into()),
        "leases" => computed(|object, _| text(object, "/spec/holderIdentity").into()),
        "events" => event(column),
        "nodes" => node(column),
        "pods" => pod::source(column),
        "services" | "endpoints" | "endpointslices" => network::source(resource, column),
        "persistentvolumes" | "persistentvolumeclaims" | "storageclasses" => {
            storage::source(resource, column)
        }
        "deployments" | "replicasets" | "daemonsets" | "statefulsets" | "jobs" | "cronjobs" => {
            workload::source(resource, column)
        }
        "rolebindings" | "clusterrolebindings" => binding(column),
        "certificatesigningrequests" => request(column),
        _ => None,
    }
}

fn computed(compute: fn(&Value, i64) -> Value) -> Option<ColumnSource> {
    Some(ColumnSource::Computed(compute))
}

/// The text at a JSON pointer; empty where there is none.
fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The text at a JSON pointer, or what stands for none.
fn text_or<'v>(object: &'v Value, pointer: &str, none: &'v str) -> &'v str {
    match text(object, pointer) {
        "" => none,
        found => found,
    }
}

/// The whole number at a JSON pointer; zero where there is none.
fn number(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

fn flag(object: &Value, pointer: &str) -> bool {
    object
        .pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

/// The elements at a JSON pointer.
fn items<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    let found = object.pointer(pointer).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

/// How many fields or elements there are at a JSON pointer.
fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Object(fields)) => fields.len(),
        _ => 0,
    }
}

/// Whether the first condition of a type is `True`.
fn condition(object: &Value, kind: &str) -> bool {
    let mut conditions = items(object, "/status/conditions").iter();
    let found = conditions.find(|condition| condition["type"] == kind);
    found.is_some_and(|condition| condition["status"] == "True")
}

/// Labels as `a=b,c=d`.
fn labels(object: &Value, pointer: &str) -> String {
    let fields = object.pointer(pointer).and_then(Value::as_object);
    let pairs = fields.into_iter().flatten();
    let mut pairs: Vec<String> = pairs
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    match pairs.join(",") {
        none if none.is_empty() => NONE.to_owned(),
        some => some,
    }
}

/// What comes first and is not empty.
fn first<'v>(one: &'v str, other: &'v str) -> &'v str {
    if one.is_empty() { other } else { one }
}

/// The first three, and how many more there are.
fn some_of(all: &[String], none: &str) -> String {
    const SHOWN: usize = 3;
    match all.len() {
        0 => none.to_owned(),
        len if len > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), len - SHOWN),
        _ => all.join(","),
    }
}

fn event(column: &str) -> Option<ColumnSource> {
    fn first_seen(event: &Value, now_us: i64) -> String {
        let first = &event["firstTimestamp"];
        since(
            if first.is_string() {
                first
            } else {
                &event["eventTime"]
            },
            now_us,
        )
    }
    match column {
        "Last Seen" => computed(|event, now_us| {
            let (series, last) = (&event["series"], &event["lastTimestamp"]);
            if series.is_object() {
                since(&series["lastObservedTime"], now_us).into()
            } else if last.is_string() {
                since(last, now_us).into()
            } else {
                first_seen(event, now_us).into()
            }
        }),
        "Type" => computed(|event, _| text(event, "/type").into()),
        "Reason" => computed(|event, _| text(event, "/reason").into()),
        "Object" => computed(|event, _| {
            let kind = text(event, "/involvedObject/kind").to_lowercase();
            match text(event, "/involvedObject/name") {
                "" => kind.into(),
                name => format!("{kind}/{name}").into(),
            }
        }),
        "Subobject" => computed(|event, _| text(event, "/involvedObject/fieldPath").into()),
        "Source" => computed(|event, _| {
            let component = first(
                text(event, "/source/component"),
                text(event, "/reportingComponent"),
            );
            match first(text(event, "/source/host"), text(event, "/reportingInstance")) {
                "" => component.into(),
                host => format!("{component}, {host}").into(),
            }
        }),
        "Message" => computed(|event, _| text(event, "/message").trim().into()),
        "First Seen" => computed(|event, now_us| first_seen(event, now_us).into()),
        "Count" => computed(
            |event, _| match (event["series"].is_object(), number(event, "/count")) {
                (true, _) => number(event, "/series/count").into(),
                (false, 0) => 1.into(),
                (false, count) => count.into(),
            },
        ),
        _ => None,
    }
}

fn node(column: &str) -> Option<ColumnSource> {
    fn address(node: &Value, kind: &str) -> Value {
        let mut addresses = items(node, "/status/addresses").iter();
        let found = addresses.find(|address| address["type"] == kind);
        found.map_or(NONE, |address| text(address, "/address")).into()
    }
    match column {
        "Status" => computed(|node, _| {
            // Of two conditions of a type the last counts here.
            let mut conditions = items(node, "/status/conditions").iter().rev();
            let ready = conditions.find(|condition| condition["type"] == "Ready");
            let mut status = match ready.map(|condition| condition["status"] == "True") {
                Some(true) => "Ready",
                Some(false) => "NotReady",
                None => "Unknown",
            }
            .to_owned();
            if flag(node, "/spec/unschedulable") {
                status.push_str(",SchedulingDisabled");
            }
            status.into()
        }),
        "Roles" => computed(|node, _| {
            let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
            let labels = labels.into_iter().flatten();
            let roles =
                labels.filter_map(
                    |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                        Some(role) => Some(role),
                        None if key == "kubernetes.io/role" => value.as_str(),
                        None => None,
                    },
                );
            let mut roles: Vec<&str> = roles.filter(|role| !role.is_empty()).collect();
            roles.sort_unstable();
            roles.dedup();
            match roles.is_empty() {
                true => NONE.into(),
                false => roles.join(",").into(),
            }
        }),
        "Version" => computed(|node, _| text(node, "/status/nodeInfo/kubeletVersion").into()),
        "Internal-IP" => computed(|node, _| address(node, "InternalIP")),
        "External-IP" => computed(|node, _| address(node, "ExternalIP")),
        "OS-Image" => computed(|node, _| text_or(node, "/status/nodeInfo/osImage", UNKNOWN).into()),
        "Kernel-Version" => {
            computed(|node, _| text_or(node, "/status/nodeInfo/kernelVersion", UNKNOWN).into())
        }
        "Container-Runtime" => {
            computed(|node, _| text_or(node, "/status/nodeInfo/containerRuntimeVersion", UNKNOWN).into())
        }
        _ => None,
    }
}

fn binding(column: &str) -> Option<ColumnSource> {
    fn subjects(binding: &Value, kind: &str) -> Value {
        let subjects = items(binding, "/subjects").iter();
        let subjects = subjects.filter(|subject| subject["kind"] == kind);
        let names = subjects.map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", text(subject, "/namespace"), text(subject, "/name")),
            _ => text(subject, "/name").to_owned(),
        });
        names.collect::<Vec<_>>().join(", ").into()
    }
    match column {
        "Role" => computed(|binding, _| {
            format!(
                "{}/{}",
                text(binding, "/roleRef/kind"),
                text(binding, "/roleRef/name")
            )
            .into()
        }),
        "Users" => computed(|binding, _| subjects(binding, "User")),
        "Groups" => computed(|binding, _| subjects(binding, "Group")),
        "ServiceAccounts" => computed(|binding, _| subjects(binding, "ServiceAccount")),
        _ => None,
    }
}

fn request(column: &str) -> Option<ColumnSource> {
    match column {
        "SignerName" => computed(|request, _| text_or(request, "/spec/signerName", NONE).into()),
        "Requestor" => computed(|request, _| text(request, "/spec/username").into()),
        "RequestedDuration" => computed(|request, _| match request.pointer("/spec/expirationSeconds") {
            Some(seconds) => human_duration(seconds.as_i64().unwrap_or_default()).into(),
            None => NONE.into(),
        }),
        "Condition" => computed(|request, _| {
            let conditions = items(request, "/status/conditions");
            let is = |kind: &str| conditions.iter().any(|condition| condition["type"] == kind);
            let mut status = match (is("Denied"), is("Approved")) {
                (true, _) => "Denied",
                (false, true) => "Approved",
                (false, false) => "Pending",
            }
            .to_owned();
            if is("Failed") {
                status.push_str(",Failed");
            }
            if !text(request, "/status/certificate").is_empty() {
                status.push_str(",Issued");
            }
            status.into()
        }),
        _ => None,
    }
}
