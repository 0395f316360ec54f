//! Cells of what makes pods.

use serde_json::Value;

use super::{NONE, UNSET, computed, condition, count, items, labels, number, text};
use crate::meta::time_us;
use crate::resource::ColumnSource;
use crate::table::{human_duration, since};

pub(super) fn source(resource: &str, column: &str) -> Option<ColumnSource> {
    match (resource, column) {
        ("cronjobs", "Containers") => computed(|job, _| each(job, CRON_CONTAINERS, "/name")),
        ("cronjobs", "Images") => computed(|job, _| each(job, CRON_CONTAINERS, "/image")),
        ("cronjobs", "Selector") => {
            computed(|job, _| selector(job, "/spec/jobTemplate/spec/selector").into())
        }
        (_, "Containers") => computed(|object, _| each(object, CONTAINERS, "/name")),
        (_, "Images") => computed(|object, _| each(object, CONTAINERS, "/image")),
        ("deployments", "Selector") => computed(|object, _| match selector(object, "/spec/selector") {
            none if none == NONE => "".into(),
            some => some.into(),
        }),
        (_, "Selector") => computed(|object, _| selector(object, "/spec/selector").into()),
        ("deployments" | "statefulsets", "Ready") => computed(|object, _| {
            let ready = number(object, "/status/readyReplicas");
            format!("{ready}/{}", number(object, "/spec/replicas")).into()
        }),
        ("deployments", "Up-to-date") => {
            computed(|object, _| number(object, "/status/updatedReplicas").into())
        }
        ("deployments", "Available") => {
            computed(|object, _| number(object, "/status/availableReplicas").into())
        }
        ("replicasets", "Desired") => computed(|object, _| number(object, "/spec/replicas").into()),
        ("replicasets", "Current") => computed(|object, _| number(object, "/status/replicas").into()),
        ("replicasets", "Ready") => computed(|object, _| number(object, "/status/readyReplicas").into()),
        ("daemonsets", "Desired") => computed(|set, _| number(set, "/status/desiredNumberScheduled").into()),
        ("daemonsets", "Current") => computed(|set, _| number(set, "/status/currentNumberScheduled").into()),
        ("daemonsets", "Ready") => computed(|set, _| number(set, "/status/numberReady").into()),
        ("daemonsets", "Up-to-date") => {
            computed(|set, _| number(set, "/status/updatedNumberScheduled").into())
        }
        ("daemonsets", "Available") => computed(|set, _| number(set, "/status/numberAvailable").into()),
        ("daemonsets", "Node Selector") => {
            computed(|set, _| labels(set, "/spec/template/spec/nodeSelector").into())
        }
        ("jobs", "Status") => computed(|job, _| status(job).into()),
        ("jobs", "Completions") => computed(|job, _| {
            let succeeded = number(job, "/status/succeeded");
            match (job.pointer("/spec/completions"), number(job, "/spec/parallelism")) {
                (Some(completions), _) => format!("{succeeded}/{completions}").into(),
                (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}").into(),
                (None, _) => format!("{succeeded}/1").into(),
            }
        }),
        ("jobs", "Duration") => computed(|job, now_us| {
            let start = time_us(text(job, "/status/startTime"));
            let end = time_us(text(job, "/status/completionTime")).unwrap_or(now_us);
            match start {
                Some(start) => human_duration(end.saturating_sub(start) / 1_000_000).into(),
                None => "".into(),
            }
        }),
        ("cronjobs", "Schedule") => computed(|job, _| text(job, "/spec/schedule").into()),
        ("cronjobs", "Timezone") => computed(|job, _| match &job["spec"]["timeZone"] {
            Value::String(zone) => zone.as_str().into(),
            _ => NONE.into(),
        }),
        ("cronjobs", "Suspend") => computed(|job, _| match job["spec"]["suspend"] {
            Value::Bool(true) => "True".into(),
            Value::Bool(false) => "False".into(),
            _ => UNSET.into(),
        }),
        ("cronjobs", "Active") => computed(|job, _| count(job, "/status/active").into()),
        ("cronjobs", "Last Schedule") => computed(|job, now_us| match &job["status"]["lastScheduleTime"] {
            time @ Value::String(_) => since(time, now_us).into(),
            _ => NONE.into(),
        }),
        _ => None,
    }
}

const CONTAINERS: &str = "/spec/template/spec/containers";
const CRON_CONTAINERS: &str = "/spec/jobTemplate/spec/template/spec/containers";

/// A field of each element.
fn each(object: &Value, list: &str, field: &str) -> Value {
    let fields = items(object, list).iter().map(|item| text(item, field));
    fields.collect::<Vec<_>>().join(",").into()
}

fn status(job: &Value) -> &'static str {
    let deleted = job["metadata"]["deletionTimestamp"].is_string();
    if condition(job, "Complete") {
        "Complete"
    } else if condition(job, "Failed") {
        "Failed"
    } else if deleted {
        "Terminating"
    } else if condition(job, "Suspended") {
        "Suspended"
    } else if condition(job, "FailureTarget") {
        "FailureTarget"
    } else if condition(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// A label selector as `a=b,c in (d,e),!f`, sorted by key.
fn selector(object: &Value, pointer: &str) -> String {
    let Some(selector) = object.pointer(pointer) else {
        return NONE.to_owned();
    };
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let equal = equal.map(|(key, value)| {
        (
            key.as_str(),
            format!("{key}={}", value.as_str().unwrap_or_default()),
        )
    });
    let other = items(selector, "/matchExpressions").iter().map(|expression| {
        let key = text(expression, "/key");
        let mut values: Vec<&str> = items(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        (key, text)
    });
    let mut all: Vec<(&str, String)> = equal.chain(other).collect();
    // By key alone, and otherwise as it stands.
    all.sort_by(|a, b| a.0.cmp(b.0));
    let all: Vec<String> = all.into_iter().map(|(_, text)| text).collect();
    if all.is_empty() {
        NONE.to_owned()
    } else {
        all.join(",")
    }
}
