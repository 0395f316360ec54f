//! What makes pods.

use serde_json::json;

use super::fields::{Fields, each, inner, is_empty, made, put, put_nonzero};
use super::{pod, volume};

/// A Deployment.
pub(super) fn deployment(object: &mut Fields) {
    let Some(spec) = made(object, "spec") else { return };
    put(spec, "replicas", 1);
    rolling(spec, "strategy", json!("25%"), json!("25%"));
    put(spec, "revisionHistoryLimit", 10);
    put(spec, "progressDeadlineSeconds", 600);
    pod::template(spec);
    made(object, "status");
}

/// A ReplicaSet.
pub(super) fn replica_set(object: &mut Fields) {
    let Some(spec) = made(object, "spec") else { return };
    put(spec, "replicas", 1);
    pod::template(spec);
    counts(object, &["replicas"]);
}

/// A DaemonSet.
pub(super) fn daemon_set(object: &mut Fields) {
    let Some(spec) = made(object, "spec") else { return };
    rolling(spec, "updateStrategy", json!(1), json!(0));
    put(spec, "revisionHistoryLimit", 10);
    pod::template(spec);
    counts(
        object,
        &[
            "currentNumberScheduled",
            "desiredNumberScheduled",
            "numberMisscheduled",
            "numberReady",
        ],
    );
}

/// A StatefulSet.
pub(super) fn stateful_set(object: &mut Fields) {
    let Some(spec) = made(object, "spec") else { return };
    put_nonzero(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = made(spec, "updateStrategy") {
        if is_empty(strategy, "type") || strategy.get("type") == Some(&json!("")) {
            put_nonzero(strategy, "type", "RollingUpdate");
            made(strategy, "rollingUpdate");
        }
        if strategy.get("type") == Some(&json!("RollingUpdate"))
            && let Some(rolling) = inner(strategy, "rollingUpdate")
        {
            put(rolling, "partition", 0);
        }
    }
    if let Some(policy) = made(spec, "persistentVolumeClaimRetentionPolicy") {
        put_nonzero(policy, "whenDeleted", "Retain");
        put_nonzero(policy, "whenScaled", "Retain");
    }
    put(spec, "replicas", 1);
    put(spec, "revisionHistoryLimit", 10);
    put(spec, "serviceName", "");
    pod::template(spec);
    each(spec, "volumeClaimTemplates").for_each(volume::claim_template);
    counts(object, &["availableReplicas", "replicas"]);
}

/// A Job.
pub(super) fn job(object: &mut Fields) {
    let Some(spec) = made(object, "spec") else { return };
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        put(spec, "completions", 1);
    }
    put(spec, "parallelism", 1);
    let attempts = if spec.contains_key("backoffLimitPerIndex") {
        i32::MAX
    } else {
        6
    };
    put(spec, "backoffLimit", attempts);
    put(spec, "completionMode", "NonIndexed");
    put(spec, "suspend", false);
    let replacement = if spec.contains_key("podFailurePolicy") {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    put(spec, "podReplacementPolicy", replacement);
    put(spec, "manualSelector", false);
    job_parts(spec);
    // A job without labels takes those of its pods.
    let labels = spec
        .get("template")
        .and_then(|template| template.pointer("/metadata/labels"))
        .cloned();
    if let Some(labels) = labels
        && let Some(metadata) = made(object, "metadata")
        && is_empty(metadata, "labels")
    {
        metadata.insert("labels".to_owned(), labels);
    }
    made(object, "status");
}

/// A CronJob.
pub(super) fn cron_job(object: &mut Fields) {
    let Some(spec) = made(object, "spec") else { return };
    put_nonzero(spec, "concurrencyPolicy", "Allow");
    put(spec, "suspend", false);
    put(spec, "successfulJobsHistoryLimit", 3);
    put(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = made(spec, "jobTemplate") {
        made(template, "metadata");
        if let Some(spec) = made(template, "spec") {
            job_parts(spec);
        }
    }
    made(object, "status");
}

/// What is filled in within the spec of a job, in a CronJob too.
fn job_parts(spec: &mut Fields) {
    pod::template(spec);
    if let Some(policy) = inner(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for condition in each(rule, "onPodConditions") {
                put_nonzero(condition, "status", "True");
            }
        }
    }
}

fn rolling(spec: &mut Fields, name: &str, unavailable: serde_json::Value, surge: serde_json::Value) {
    let Some(strategy) = made(spec, name) else { return };
    put_nonzero(strategy, "type", "RollingUpdate");
    if strategy.get("type") == Some(&json!("RollingUpdate"))
        && let Some(rolling) = made(strategy, "rollingUpdate")
    {
        put(rolling, "maxUnavailable", unavailable);
        put(rolling, "maxSurge", surge);
    }
}

/// Numbers of a status that are there even when they are zero.
fn counts(object: &mut Fields, names: &[&str]) {
    if let Some(status) = made(object, "status") {
        for name in names {
            put(status, name, 0);
        }
    }
}
