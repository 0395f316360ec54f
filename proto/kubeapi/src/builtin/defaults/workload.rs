//! What makes pods.

use serde_json::{Value, json};

use super::pod::{claim_spec, template};
use super::{each, ensure, ensure_text, fields, object, there};

/// What every one of them has: a spec with a template, and a status.
fn with_template(value: &mut Value) -> Option<&mut Value> {
    ensure(value, "status", json!({}));
    let spec = object(value, "spec")?;
    template(spec);
    Some(spec)
}

/// Which way a strategy goes; the default is a rolling update.
fn rolling<'v>(spec: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    let strategy = object(spec, name)?;
    ensure_text(strategy, "type", "RollingUpdate");
    (strategy["type"] == "RollingUpdate").then_some(strategy)
}

pub(super) fn deployment(value: &mut Value) {
    let Some(spec) = with_template(value) else {
        return;
    };
    ensure(spec, "replicas", 1.into());
    ensure(spec, "revisionHistoryLimit", 10.into());
    ensure(spec, "progressDeadlineSeconds", 600.into());
    if let Some(update) = rolling(spec, "strategy").and_then(|strategy| object(strategy, "rollingUpdate")) {
        ensure(update, "maxUnavailable", "25%".into());
        ensure(update, "maxSurge", "25%".into());
    }
}

pub(super) fn replica_set(value: &mut Value) {
    if let Some(spec) = with_template(value) {
        ensure(spec, "replicas", 1.into());
    }
    ensure_status(value, &["replicas"]);
}

pub(super) fn daemon_set(value: &mut Value) {
    let Some(spec) = with_template(value) else {
        return;
    };
    ensure(spec, "revisionHistoryLimit", 10.into());
    if let Some(update) =
        rolling(spec, "updateStrategy").and_then(|strategy| object(strategy, "rollingUpdate"))
    {
        ensure(update, "maxUnavailable", 1.into());
        ensure(update, "maxSurge", 0.into());
    }
    ensure_status(
        value,
        &[
            "currentNumberScheduled",
            "desiredNumberScheduled",
            "numberMisscheduled",
            "numberReady",
        ],
    );
}

pub(super) fn stateful_set(value: &mut Value) {
    let Some(spec) = with_template(value) else {
        return;
    };
    ensure_text(spec, "podManagementPolicy", "OrderedReady");
    ensure(spec, "serviceName", "".into());
    ensure(spec, "replicas", 1.into());
    ensure(spec, "revisionHistoryLimit", 10.into());
    let named = spec["updateStrategy"]["type"]
        .as_str()
        .is_some_and(|name| !name.is_empty());
    if let Some(strategy) = rolling(spec, "updateStrategy") {
        // Only a strategy that nobody chose gets its parameters filled in.
        if !named {
            ensure(strategy, "rollingUpdate", json!({}));
        }
        if let Some(update) = there(strategy, "rollingUpdate") {
            ensure(update, "partition", 0.into());
        }
    }
    if let Some(policy) = object(spec, "persistentVolumeClaimRetentionPolicy") {
        ensure_text(policy, "whenDeleted", "Retain");
        ensure_text(policy, "whenScaled", "Retain");
    }
    for claim in each(spec, "volumeClaimTemplates") {
        ensure_text(claim, "apiVersion", "v1");
        ensure_text(claim, "kind", "PersistentVolumeClaim");
        ensure(claim, "metadata", json!({}));
        if let Some(spec) = object(claim, "spec") {
            claim_spec(spec);
        }
        if let Some(status) = object(claim, "status") {
            ensure_text(status, "phase", "Pending");
        }
    }
    ensure_status(value, &["availableReplicas", "replicas"]);
}

pub(super) fn job(value: &mut Value) {
    let Some(spec) = with_template(value) else {
        return;
    };
    job_spec(spec);
    ensure_text(spec, "completionMode", "NonIndexed");
    ensure(spec, "suspend", false.into());
    ensure(spec, "manualSelector", false.into());
    ensure(spec, "parallelism", 1.into());
    let many = spec.get("backoffLimitPerIndex").is_some();
    ensure(
        spec,
        "backoffLimit",
        if many { i32::MAX.into() } else { 6.into() },
    );
    let on_failure = spec.get("podFailurePolicy").is_some();
    let policy = if on_failure {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    ensure_text(spec, "podReplacementPolicy", policy);
    // A job without labels has those of its pods.
    let labels = spec.pointer("/template/metadata/labels").cloned();
    let labelled = value.pointer("/metadata/labels").and_then(Value::as_object);
    if let (Some(labels), true) = (labels, labelled.is_none_or(serde_json::Map::is_empty))
        && let Some(metadata) = fields(value, "metadata")
    {
        metadata.insert("labels".to_owned(), labels);
    }
}

/// What is filled in wherever a job is described.
fn job_spec(spec: &mut Value) {
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        ensure(spec, "completions", 1.into());
        ensure(spec, "parallelism", 1.into());
    }
    pod_failure_policy(spec);
}

fn pod_failure_policy(spec: &mut Value) {
    let Some(policy) = there(spec, "podFailurePolicy") else {
        return;
    };
    for rule in each(policy, "rules") {
        for pattern in each(rule, "onPodConditions") {
            ensure_text(pattern, "status", "True");
        }
    }
}

pub(super) fn cron_job(value: &mut Value) {
    ensure(value, "status", json!({}));
    let Some(spec) = object(value, "spec") else {
        return;
    };
    ensure_text(spec, "concurrencyPolicy", "Allow");
    ensure(spec, "suspend", false.into());
    ensure(spec, "successfulJobsHistoryLimit", 3.into());
    ensure(spec, "failedJobsHistoryLimit", 1.into());
    if let Some(job) = object(spec, "jobTemplate") {
        ensure(job, "metadata", json!({}));
        if let Some(spec) = object(job, "spec") {
            // The rest of a job is filled in when it is made.
            template(spec);
            pod_failure_policy(spec);
        }
    }
}

/// Counts that a status always has.
fn ensure_status(value: &mut Value, counts: &[&str]) {
    if let Some(status) = object(value, "status") {
        for count in counts {
            ensure(status, count, 0.into());
        }
    }
}
