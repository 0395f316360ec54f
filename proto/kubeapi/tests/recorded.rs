//! What a real API server (kube-apiserver 1.34.4) answered, against what this crate says. `recorded/record.py` made the
//! files, and says how.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::sync::Arc;

use ledge_kubeapi::apply::{self, Writer};
use ledge_kubeapi::error::{ApiError, Cause};
use ledge_kubeapi::{Schema, builtin, patch, schema};
use serde_json::{Value, json};

/// Fields that the real server fills in by itself, and that are not this crate's business.
const FILLED_IN: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "namespace",
    "managedFields",
    "status",
    // Defaults of built-in kinds.
    "progressDeadlineSeconds",
    "revisionHistoryLimit",
    "strategy",
    "dnsPolicy",
    "restartPolicy",
    "schedulerName",
    "securityContext",
    "terminationGracePeriodSeconds",
    "imagePullPolicy",
    "resources",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "protocol",
    "replicas",
    "defaultMode",
    "clusterIP",
    "clusterIPs",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "sessionAffinity",
    "type",
    "targetPort",
    "rollingUpdate",
];

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn schema_of(kind: &str) -> Arc<Schema> {
    if kind == "Thing" {
        let objects = read(include_str!("recorded/objects.json"));
        return Arc::new(Schema::parse(&objects[0]["schema"]).unwrap());
    }
    let mut resources = builtin::resources().into_iter();
    resources.find(|resource| resource.kind == kind).unwrap().schema
}

/// `expected` is what the real server made of `ours`, which knows no defaults of built-in kinds.
fn same(ours: &Value, expected: &Value, path: &str, told: &mut Vec<String>) {
    match (ours, expected) {
        (Value::Object(ours), Value::Object(expected)) => {
            let names: BTreeSet<&String> = ours.keys().chain(expected.keys()).collect();
            for name in names {
                let path = format!("{path}.{name}");
                match (ours.get(name), expected.get(name)) {
                    (Some(ours), Some(expected)) if !matches!(name.as_str(), "managedFields" | "status") => {
                        same(ours, expected, &path, told);
                    }
                    (None, Some(_)) | (Some(_), _) if FILLED_IN.contains(&name.as_str()) => {}
                    // Decoding leaves out what is empty.
                    (Some(Value::Null | Value::Object(_) | Value::Array(_)), None)
                        if ours[name] == json!({}) || ours[name] == json!([]) || ours[name].is_null() => {}
                    (ours, expected) => told.push(format!("{path}: {ours:?}, not {expected:?}")),
                }
            }
        }
        (Value::Array(ours), Value::Array(expected)) if ours.len() == expected.len() => {
            for (at, (ours, expected)) in ours.iter().zip(expected).enumerate() {
                same(ours, expected, &format!("{path}[{at}]"), told);
            }
        }
        _ if ours == expected || volatile(path) => {}
        _ => told.push(format!("{path}: {ours}, not {expected}")),
    }
}

fn volatile(path: &str) -> bool {
    [".metadata.resourceVersion", ".metadata.generation"].contains(&path)
}

/// The account, with times replaced by whether there is one.
fn account(object: &Value) -> Value {
    let mut entries = object["metadata"]["managedFields"].clone();
    for entry in entries.as_array_mut().into_iter().flatten() {
        let timed = entry["time"].is_string();
        entry["time"] = timed.into();
    }
    let Value::Array(mut entries) = entries else {
        return Value::Null;
    };
    // Entries of one second are in no order that can be told.
    entries.sort_by_key(|entry| {
        ["operation", "manager", "apiVersion", "subresource"].map(|name| entry[name].to_string())
    });
    entries.into()
}

fn refusal(error: &ApiError) -> Value {
    let causes = error.details.iter().flat_map(|details| &details.causes);
    let causes = causes.map(|c| json!({"field": c.field, "message": c.message, "reason": c.reason}));
    json!({"code": error.reason.code(), "message": error.message, "causes": causes.collect::<Vec<_>>()})
}

fn recorded_refusal(step: &Value) -> Value {
    let causes = step["result"]["details"]["causes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    json!({"code": step["code"], "message": step["result"]["message"], "causes": causes})
}

#[test]
fn stories() {
    let mut told = Vec::new();
    let stories = read(include_str!("recorded/stories.json"));
    for (story, recorded) in stories.as_array().unwrap().iter().enumerate() {
        let schema = schema_of(recorded["kind"].as_str().unwrap());
        for (at, step) in recorded["steps"].as_array().unwrap().iter().enumerate() {
            let place = format!("story {story}, step {at}, {} by {}", step["op"], step["manager"]);
            let mut wrong = Vec::new();
            compare_step(&schema, step, &mut wrong);
            told.extend(wrong.into_iter().map(|wrong| format!("{place}: {wrong}")));
        }
    }
    assert!(told.is_empty(), "{}\n{}", told.len(), told.join("\n"));
}

fn compare_step(schema: &Schema, step: &Value, told: &mut Vec<String>) {
    let (body, result) = (&step["body"], &step["result"]);
    let before = (!step["before"].is_null()).then_some(&step["before"]);
    let succeeded = step["code"].as_u64().unwrap() < 300;
    let version = before.unwrap_or(body);
    let version = if succeeded { result } else { version };
    // Now is the last time that the real server wrote down.
    let entries = result["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    let time = entries.filter_map(|entry| entry["time"].as_str()).max();
    let time = time.unwrap_or("2024-01-02T03:04:05Z").to_owned();
    let writer = Writer {
        manager: step["manager"].as_str().unwrap(),
        schema,
        api_version: version["apiVersion"].as_str().unwrap(),
        time: &time,
        subresource: step["subresource"].as_str().unwrap(),
        has_status: version["kind"] != "ConfigMap",
    };
    let ours = match step["op"].as_str().unwrap() {
        "apply" => apply::apply(before, body, &writer, step["force"] == true),
        "json" => patch::json(before.unwrap(), body),
        "merge" => patch::merge(before.unwrap(), body),
        "strategic" => patch::strategic(schema, before.unwrap(), body),
        _ => Ok(body.clone()),
    };
    match ours {
        Err(error) if !succeeded => {
            let (ours, mut expected) = (refusal(&error), recorded_refusal(step));
            if step["op"] != "apply" && expected["code"] == 500 {
                // A mistake of the client: this crate says so.
                expected["code"] = 400.into();
            }
            let causes_matter = expected["code"] == 409;
            if ours["code"] != expected["code"]
                || ours["message"] != expected["message"]
                || (causes_matter && ours["causes"] != expected["causes"])
            {
                told.push(format!("{ours}\nnot {expected}"));
            }
        }
        Err(error) => told.push(format!("{error}: {:?}", error.details)),
        Ok(ours) if !succeeded => told.push(format!("{ours}\nnot {}", result["message"])),
        Ok(mut ours) => {
            if version["kind"] == "Thing" {
                schema::default(schema, &mut ours);
            }
            if step["subresource"] == "" {
                same(&ours, result, "", told);
            }
            if step["op"] != "apply" {
                // What the server made of it besides is what there is to keep account of.
                let sent = ours["metadata"].get("managedFields").cloned();
                ours = result.clone();
                let metadata = ours["metadata"].as_object_mut().unwrap();
                metadata.remove("managedFields");
                metadata.extend(sent.map(|sent| ("managedFields".to_owned(), sent)));
                ours = apply::track(before, ours, &writer);
            }
            let (ours, expected) = (account(&ours), account(result));
            if ours != expected {
                told.push(format!("account {ours}\nnot     {expected}"));
            }
        }
    }
}

fn causes(mut causes: Vec<Cause>) -> Vec<String> {
    causes.sort_by_cached_key(|cause| format!("{} {}", cause.field, cause.message));
    let each = causes.iter();
    each.map(|cause| format!("{} {}: {}", cause.reason, cause.field, cause.message))
        .collect()
}

fn recorded_causes(result: &Value) -> Vec<String> {
    let text = |cause: &Value, name: &str| cause[name].as_str().unwrap().to_owned();
    let mut causes = result["details"]["causes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    causes.sort_by_cached_key(|cause| format!("{} {}", text(cause, "field"), text(cause, "message")));
    let each = causes.iter();
    each.map(|cause| {
        format!(
            "{} {}: {}",
            text(cause, "reason"),
            text(cause, "field"),
            text(cause, "message")
        )
    })
    .collect()
}

#[test]
fn objects() {
    let recorded = read(include_str!("recorded/objects.json"));
    let thing = schema_of("Thing");
    let object = |spec: &Value| {
        let mut object = json!({"apiVersion": "recorded.example/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec});
        let unknown = schema::prune(&thing, &mut object);
        schema::default(&thing, &mut object);
        (object, unknown)
    };
    for case in recorded.as_array().unwrap().iter().skip(1) {
        let (value, unknown) = object(&case["spec"]);
        let old = (!case["old"].is_null()).then(|| object(&case["old"]).0);
        let ours = causes(schema::check(&thing, &value, old.as_ref()));
        assert_eq!(ours, recorded_causes(&case["result"]), "{}", case["spec"]);
        if case["code"] == 201 {
            assert_eq!(value["spec"], case["result"]["spec"]);
        }
        let told: Vec<String> = unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\""))
            .collect();
        if case["strict"]["code"] == 400 {
            let told = told.join(", ");
            assert!(
                case["strict"]["result"]["message"]
                    .as_str()
                    .unwrap()
                    .ends_with(&told),
                "{told}"
            );
        } else {
            assert!(told.is_empty(), "{}: {told:?}", case["spec"]);
        }
    }
}

/// The real server names the whole schema in some messages; those, and the words of its parsers, are not ours.
fn comparable(cause: &str) -> Option<String> {
    let cause = cause.replace("spec.validation.openAPIV3Schema.", "");
    if cause.contains("is allowed as the type at the root") || cause.contains("openAPIV3Schema: ") {
        return None;
    }
    let cut = ["but isn't: ", ".rule: Invalid value: "]
        .iter()
        .find_map(|words| {
            let at = cause.find(words)? + words.len();
            cause.get(..at).map(str::to_owned)
        });
    Some(cut.unwrap_or(cause))
}

#[test]
fn schemas() {
    for case in read(include_str!("recorded/schemas.json")).as_array().unwrap() {
        let ours = Schema::parse(&case["schema"])
            .err()
            .map(causes)
            .unwrap_or_default();
        let comparable = |causes: Vec<String>| -> Vec<String> {
            causes.iter().filter_map(|cause| comparable(cause)).collect()
        };
        let (ours, expected) = (comparable(ours), comparable(recorded_causes(&case["result"])));
        assert_eq!(ours, expected, "{}", case["schema"]);
    }
}

#[test]
fn rules() {
    let recorded = read(include_str!("recorded/rules.json"));
    let schema = Schema::parse(&recorded[0]["schema"]).unwrap();
    for case in recorded.as_array().unwrap().iter().skip(1) {
        let object = |spec: &Value| json!({"apiVersion": "recorded.example/v1", "kind": "Ruled", "metadata": {"name": case["name"]}, "spec": spec});
        let old = (!case["old"].is_null()).then(|| object(&case["old"]));
        let ours = causes(schema::check(&schema, &object(&case["new"]), old.as_ref()));
        assert_eq!(
            ours,
            recorded_causes(&case["result"]),
            "{} {}",
            case["old"],
            case["new"]
        );
    }
}
