//! Documents are complete: every reference leads somewhere, and kubectl finds what it asks for.

use std::sync::Arc;

use super::*;
use crate::resource::tests::widgets;

fn registry() -> Registry {
    let mut registry = Registry::default();
    builtin::resources()
        .into_iter()
        .for_each(|resource| registry.insert(resource));
    let mut widget = widgets();
    widget.published = Some(Arc::new(json!({
        "type": "object",
        "description": "A widget.",
        "properties": { "spec": { "type": "object", "properties": {
            "port": { "x-kubernetes-int-or-string": true },
            "items": { "type": "array", "items": { "x-kubernetes-int-or-string": true } },
        } } },
    })));
    registry.insert(widget);
    registry
}

fn read(registry: &Registry, path: &str) -> Value {
    serde_json::from_slice(&document(registry, path).unwrap()).unwrap()
}

fn all_references(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                out.insert(reference.clone());
            }
            fields.values().for_each(|value| all_references(value, out));
        }
        Value::Array(items) => items.iter().for_each(|value| all_references(value, out)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let registry = registry();
    let index = index(&registry);
    let paths = index["paths"].as_object().unwrap();
    assert!(
        paths.contains_key("api/v1") && paths.contains_key("apis/example.com/v1"),
        "{paths:?}"
    );
    for path in paths.keys() {
        let document = read(&registry, path);
        let mut references = BTreeSet::new();
        all_references(&document, &mut references);
        assert!(!references.is_empty(), "{path}");
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(
                document.pointer(pointer).is_some_and(Value::is_object),
                "{path}: {reference}"
            );
        }
    }
    assert_eq!(document(&registry, "apis/none/v1"), None);
}

/// The question kubectl asks before it creates or applies: a patch of that kind that takes `fieldValidation`.
#[test]
fn patches_of_every_kind_take_field_validation() {
    let registry = registry();
    for resource in registry.iter().filter(|resource| resource.verbs != ["create"]) {
        let document = read(&registry, &path_of(resource));
        let patches = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .map(|path| &path["patch"]);
        let mut of_kind = patches.filter(|patch| {
            let gvk = &patch["x-kubernetes-group-version-kind"];
            gvk["kind"] == resource.kind.as_str() && gvk["group"] == resource.gvr.group.as_str()
        });
        let parameters = of_kind.next().unwrap()["parameters"].as_array().unwrap();
        assert!(
            parameters
                .iter()
                .any(|parameter| parameter["name"] == "fieldValidation"),
            "{}",
            resource.kind
        );
    }
}

#[test]
fn custom_kinds() {
    let registry = registry();
    let document = read(&registry, "apis/example.com/v1");
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["description"], "A widget.");
    let either = json!([{ "type": "integer" }, { "type": "string" }]);
    assert_eq!(
        schema["properties"]["spec"]["properties"]["port"]["anyOf"],
        either
    );
    assert_eq!(
        schema["properties"]["spec"]["properties"]["items"]["items"]["anyOf"],
        either
    );
    assert!(schema["properties"]["metadata"]["allOf"].is_array());
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/apis/example.com/v1/namespaces/{namespace}/widgets",
            "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}",
            "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/scale",
            "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/status",
            "/apis/example.com/v1/widgets",
        ]
    );
    let patch = &document["paths"][paths[1]]["patch"];
    assert_eq!(
        patch["requestBody"]["content"].get("application/strategic-merge-patch+json"),
        None
    );
}

/// An address changes with what it leads to, and only then.
#[test]
fn addresses_name_contents() {
    let mut registry = registry();
    let before = index(&registry);
    assert_eq!(before, index(&registry));
    registry.insert(widgets());
    let after = index(&registry);
    assert_ne!(
        before["paths"]["apis/example.com/v1"],
        after["paths"]["apis/example.com/v1"]
    );
    assert_eq!(before["paths"]["api/v1"], after["paths"]["api/v1"]);
}
