//! Controllers of pods.

use serde_json::{Map, Value};

use super::{IMMUTABLE, empty, list, not_negative, one_of, pod, selects, text};
use crate::error::Cause;
use crate::schema::cause::{forbidden, invalid, not_supported, required};

/// What of a StatefulSet's spec may change.
const STATEFUL_SET: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Deployments, DaemonSets, ReplicaSets, StatefulSets; `resource` is the plural name.
pub(super) fn workload(resource: &str, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    not_negative(&spec["replicas"], "spec.replicas", causes);
    let selector = &spec["selector"];
    match selector.as_object() {
        None => causes.push(required("spec.selector", "")),
        Some(selector) if is_empty(selector) => {
            let kind = resource.strip_suffix('s').unwrap_or(resource);
            let why = format!("empty selector is invalid for {kind}");
            causes.push(invalid("spec.selector", &Value::Object(selector.clone()), &why));
        }
        Some(_) => {}
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !selector.is_object() || !selects(selector, labels) {
        let why = "`selector` does not match template `labels`";
        causes.push(invalid("spec.template.metadata.labels", labels, why));
    }
    pod::spec(&spec["template"]["spec"], "spec.template.spec", causes);
    let restart = "spec.template.spec.restartPolicy";
    one_of(
        &spec["template"]["spec"]["restartPolicy"],
        restart,
        &["Always"],
        causes,
    );
    let Some(old) = old else { return };
    if resource == "statefulsets" {
        let fixed = |value: &Value| {
            let fields = value["spec"].as_object().into_iter().flatten();
            let fields = fields.filter(|(field, _)| !STATEFUL_SET.contains(&field.as_str()));
            fields
                .map(|(field, value)| (field.clone(), value.clone()))
                .collect::<Map<_, _>>()
        };
        if fixed(old) != fixed(new) {
            let (last, first) = ("minReadySeconds", &STATEFUL_SET[..6]);
            let first = first.iter().map(|field| format!("'{field}'"));
            let first = first.collect::<Vec<_>>().join(", ");
            let why = format!(
                "updates to statefulset spec for fields other than {first} and '{last}' are forbidden"
            );
            causes.push(forbidden("spec", &why));
        }
    } else if old["spec"]["selector"] != *selector {
        causes.push(invalid("spec.selector", selector, IMMUTABLE));
    }
}

fn is_empty(selector: &Map<String, Value>) -> bool {
    let mut parts = selector.values();
    parts.all(|part| part.as_object().is_none_or(Map::is_empty) && list(part).is_empty())
}

/// A Job's spec at `path`.
pub(super) fn job(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for field in [
        "parallelism",
        "completions",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        not_negative(&spec[field], &format!("{path}.{field}"), causes);
    }
    let template = &spec["template"]["spec"];
    let at = format!("{path}.template.spec");
    pod::spec(template, &at, causes);
    let field = format!("{at}.restartPolicy");
    match text(&template["restartPolicy"]) {
        "OnFailure" | "Never" => {}
        // What nobody says is `Always` after defaulting.
        "" | "Always" => causes.push(required(field, "valid values: \"OnFailure\", \"Never\"")),
        _ => {
            let words = ["OnFailure".into(), "Never".into()];
            causes.push(not_supported(field, &template["restartPolicy"], &words));
        }
    }
}

pub(super) fn cron_job(new: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let schedule = text(&spec["schedule"]);
    if empty(&spec["schedule"]) {
        causes.push(required("spec.schedule", ""));
    } else if !schedule.starts_with('@') {
        let fields: Vec<&str> = schedule.split_whitespace().collect();
        if fields.len() != 5 {
            let why = format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            );
            causes.push(invalid("spec.schedule", &spec["schedule"], &why));
        }
    }
    let policies = ["Allow", "Forbid", "Replace"];
    one_of(
        &spec["concurrencyPolicy"],
        "spec.concurrencyPolicy",
        &policies,
        causes,
    );
    job(&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec", causes);
}
