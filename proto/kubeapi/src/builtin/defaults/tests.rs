//! What is filled in, against what a real API server stored of the same objects (`tests/fixtures`).

use proptest::prelude::*;

use super::*;
use crate::builtin::resources;

const RECORDED: [&str; 2] = [
    include_str!("../../../tests/fixtures/defaults.json"),
    include_str!("../../../tests/fixtures/corners.json"),
];

/// What the server adds that is no default: addresses it gives out, times, what admission adds, who asked.
const NOT_DEFAULTS: [&str; 15] = [
    "/metadata/annotations/deprecated.daemonset.template.generation",
    "/spec/groups",
    "/spec/uid",
    "/spec/username",
    "/spec/taints/1",
    "/status/lastPhaseTransitionTime",
    "/spec/clusterIP",
    "/spec/clusterIPs",
    "/spec/ipFamilies",
    "/spec/ipFamilyPolicy",
    "/spec/finalizers",
    "/metadata/namespace",
    "/metadata/finalizers",
    "/metadata/generation",
    "/metadata/generateName",
];

/// Takes away what is compared by nobody, and nulls, which say no more than absence.
fn comparable(value: &mut Value) {
    // Addresses that the client chose.
    let chosen = ["headless", "headless-alone", "fixed"].map(Value::from);
    let chosen = chosen.contains(&value["metadata"]["name"]);
    for pointer in NOT_DEFAULTS {
        if chosen && (pointer.contains("clusterIP") || pointer.contains("ipFamil")) {
            continue;
        }
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match value.pointer_mut(parent) {
            Some(Value::Object(fields)) => drop(fields.remove(name)),
            Some(Value::Array(items)) => items.truncate(name.parse().unwrap()),
            _ => {}
        }
    }
    for port in value
        .pointer_mut("/spec/ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        port.as_object_mut().unwrap().remove("nodePort");
    }
    if value["metadata"]["annotations"] == json!({})
        && let Some(metadata) = value["metadata"].as_object_mut()
    {
        metadata.remove("annotations");
    }
    without_nulls(value);
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn difference(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let (a, b) = (a.get(name), b.get(name));
                let (a, b) = (a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null));
                difference(&format!("{path}.{name}"), a, b, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                difference(&format!("{path}[{n}]"), a, b, out);
            }
        }
        (a, b) if a != b => out.push(format!("{path}: ours {a}, theirs {b}")),
        _ => {}
    }
}

#[test]
fn as_the_api_server_stores_them() {
    let recorded = RECORDED.map(|text| serde_json::from_str::<Vec<Value>>(text).unwrap());
    let recorded = recorded.concat();
    assert!(recorded.len() > 90);
    let resources = resources();
    let mut wrong = Vec::new();
    for pair in &recorded {
        let (mut given, mut stored) = (pair["given"].clone(), pair["stored"].clone());
        let kind = given["kind"].as_str().unwrap().to_owned();
        let resource = resources.iter().find(|resource| resource.kind == kind).unwrap();
        default(resource, &mut given);
        let once = given.clone();
        default(resource, &mut given);
        assert_eq!(given, once, "{kind}: again");
        assert_eq!(
            schema::prune(&resource.schema, &mut given),
            Vec::<String>::new(),
            "{kind}"
        );
        let causes = schema::validate(&resource.schema, &given, None);
        assert!(causes.is_empty(), "{kind}: {causes:?}");
        let causes = schema::check_rules(&resource.schema, &given, None);
        assert!(causes.is_empty(), "{kind}: {causes:?}");
        comparable(&mut given);
        comparable(&mut stored);
        let name = format!("{kind}/{}", given["metadata"]["name"].as_str().unwrap());
        difference(&name, &given, &stored, &mut wrong);
        // What is stored already has nothing to be filled in.
        let mut again = stored.clone();
        default(resource, &mut again);
        comparable(&mut again);
        difference(&format!("stored {name}"), &again, &stored, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whatever a client sends, filling in neither panics nor makes it an object of another type.
#[test]
fn nonsense_stays() {
    let nonsense = [
        json!(null),
        json!(1),
        json!("a"),
        json!([]),
        json!([[1], {}]),
        json!({}),
    ];
    for resource in resources() {
        for value in &nonsense {
            for field in [
                "metadata",
                "spec",
                "status",
                "data",
                "stringData",
                "rules",
                "subjects",
                "ports",
            ] {
                let mut object = json!({ field: value });
                default(&resource, &mut object);
            }
            for field in [
                "template",
                "containers",
                "volumes",
                "ports",
                "strategy",
                "names",
                "jobTemplate",
            ] {
                let mut object =
                    json!({ "spec": { field: value, "template": { "spec": { field: value } } } });
                default(&resource, &mut object);
            }
            let mut object = value.clone();
            default(&resource, &mut object);
        }
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
    fn any_object_is_defaulted_once(object in anything(), resource in prop::sample::select(resources())) {
        let mut once = object;
        default(&resource, &mut once);
        let mut twice = once.clone();
        default(&resource, &mut twice);
        prop_assert_eq!(twice, once);
    }
}
