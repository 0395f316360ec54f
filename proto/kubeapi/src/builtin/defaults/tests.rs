//! Against what a Kubernetes API server made of the same objects (`tests/defaults`).

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::builtin::resources;
use crate::resource::{Gvr, tests::widgets};

const RECORDED: &str = include_str!("../../../tests/defaults/kept.json");

/// A resource of which only group and kind count.
fn named(group: &str, kind: &str) -> Resource {
    Resource {
        gvr: Gvr {
            group: group.to_owned(),
            ..widgets().gvr
        },
        kind: kind.to_owned(),
        ..widgets()
    }
}

fn of(object: &Value) -> Resource {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    named(group, object["kind"].as_str().unwrap_or_default())
}

fn defaulted(mut object: Value) -> Value {
    default(&of(&object), &mut object);
    object
}

/// Takes out what this is not about: what is allocated, generated, or made by a controller.
fn only_defaults(object: &mut Value) {
    let (kind, headless) = (object["kind"].clone(), object["spec"]["clusterIP"] == "None");
    let fixed = object["metadata"]["name"] == "fixed";
    let take = |object: &mut Value, path: &str, name: &str| {
        if let Some(Value::Object(fields)) = object.pointer_mut(path) {
            fields.remove(name);
        }
    };
    take(object, "/metadata", "namespace");
    match kind.as_str().unwrap_or_default() {
        "Service" => {
            if !headless && !fixed {
                for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                    take(object, "/spec", name);
                }
            }
            for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
                take(port, "", "nodePort");
            }
        }
        "Job" => {
            take(object, "/spec", "selector");
            take(object, "/spec/template/metadata", "labels");
            take(object, "/metadata", "labels");
        }
        "DaemonSet" => take(object, "/metadata", "annotations"),
        "Namespace" => take(object, "/spec", "finalizers"),
        "PersistentVolume" => take(object, "/status", "lastPhaseTransitionTime"),
        "Node" => take(object, "", "status"),
        "CustomResourceDefinition" => take(object, "", "status"),
        _ => {}
    }
    fields::drop_nulls(object.as_object_mut().unwrap(), 0);
    drop_empty(object);
}

/// Empty metadata and the like are written by some versions and not by others.
fn drop_empty(object: &mut Value) {
    if let Value::Object(fields) = object {
        for name in ["metadata", "overhead", "annotations", "status"] {
            if fields.get(name).is_some_and(|value| *value == json!({})) {
                fields.remove(name);
            }
        }
        fields.values_mut().for_each(drop_empty);
    } else if let Value::Array(elements) = object {
        elements.iter_mut().for_each(drop_empty);
    }
}

#[test]
fn as_the_api_server_keeps_them() {
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    assert!(recorded.len() > 40);
    let mut wrong = String::new();
    for pair in recorded {
        let name = format!("{} {}", pair["given"]["kind"], pair["given"]["metadata"]["name"]);
        let mut ours = defaulted(pair["given"].clone());
        let again = defaulted(ours.clone());
        assert_eq!(again, ours, "{name}: a second time changes nothing");
        let kept = defaulted(pair["kept"].clone());
        let mut theirs = pair["kept"].clone();
        only_defaults(&mut ours);
        only_defaults(&mut theirs);
        if ours != theirs {
            wrong.push_str(&format!("{name}\nours:   {ours}\ntheirs: {theirs}\n"));
        }
        let mut kept = kept;
        only_defaults(&mut kept);
        if kept != theirs {
            wrong.push_str(&format!(
                "{name}: what is kept is not complete\n{kept}\n{theirs}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_is_recorded_has_known_kinds_and_fields() {
    let resources = resources();
    for pair in serde_json::from_str::<Vec<Value>>(RECORDED).unwrap() {
        let mut object = defaulted(pair["given"].clone());
        let wanted = of(&object);
        let Some(resource) = resources
            .iter()
            .find(|found| found.kind == wanted.kind && found.gvr.group == wanted.gvr.group)
        else {
            continue;
        };
        assert_eq!(
            crate::schema::prune(&resource.schema, &mut object),
            Vec::<String>::new()
        );
        let causes = crate::schema::validate(&resource.schema, &object, None);
        assert!(causes.is_empty(), "{} {causes:?}", object["metadata"]["name"]);
    }
}

#[test]
fn images_that_are_always_pulled() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
        ("nginx:latest@sha256:00", "Always"),
        ("", "IfNotPresent"),
    ] {
        assert_eq!(pod::pull_policy(image), policy, "{image}");
    }
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z0-9./:@]{0,6}".prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "template",
        "jobTemplate",
        "containers",
        "volumes",
        "resources",
        "limits",
        "requests",
        "cpu",
        "ports",
        "port",
        "strategy",
        "updateStrategy",
        "rollingUpdate",
        "type",
        "stringData",
        "data",
        "env",
        "valueFrom",
        "resourceFieldRef",
        "divisor",
        "subjects",
        "kind",
        "roleRef",
        "names",
        "clusterIP",
        "clusterIPs",
        "volumeClaimTemplates",
        "capacity",
        "livenessProbe",
        "httpGet",
        "subsets",
        "image",
        "labels",
        "sessionAffinity",
        "sessionAffinityConfig",
        "loadBalancer",
        "ingress",
        "emptyDir",
        "projected",
        "sources",
    ]);
    leaf.prop_recursive(7, 80, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(names.clone(), inner, 0..6).prop_map(|fields| {
                Value::Object(
                    fields
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    /// Whatever has the wrong type is left alone, and once is as good as twice.
    #[test]
    fn any_object_is_defaulted_once(object in anything(), of in prop::sample::select(vec![
        ("", "Pod"), ("", "Namespace"), ("", "Node"), ("", "Secret"), ("", "Service"), ("", "Endpoints"),
        ("", "PersistentVolume"), ("", "PersistentVolumeClaim"), ("apps", "Deployment"), ("apps", "ReplicaSet"),
        ("apps", "DaemonSet"), ("apps", "StatefulSet"), ("batch", "Job"), ("batch", "CronJob"),
        ("rbac.authorization.k8s.io", "RoleBinding"), ("storage.k8s.io", "StorageClass"),
        ("discovery.k8s.io", "EndpointSlice"), ("networking.k8s.io", "NetworkPolicy"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ])) {
        let resource = named(of.0, of.1);
        let mut once = object;
        default(&resource, &mut once);
        let mut twice = once.clone();
        default(&resource, &mut twice);
        prop_assert_eq!(twice, once);
    }
}
