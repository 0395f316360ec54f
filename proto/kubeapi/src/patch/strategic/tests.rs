use proptest::prelude::*;
use serde_json::json;

use super::super::arbitrary;
use super::*;

fn schema() -> std::sync::Arc<Schema> {
    let definitions = json!({
        "Pod": {"type": "object", "properties": {"spec": {"allOf": [{"$ref": "#/Spec"}]}, "metadata": {"allOf": [{"$ref": "#/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]}}},
        "Spec": {"type": "object", "properties": {
            "containers": {"type": "array", "items": {"$ref": "#/Container"}, "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"},
            "args": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "strategy": {"type": "object", "x-kubernetes-patch-strategy": "retainKeys", "properties": {"type": {"type": "string"}, "rollingUpdate": {"type": "object"}, "other": {"type": "string"}}},
        }},
        "Container": {"type": "object", "properties": {
            "name": {"type": "string"}, "image": {"type": "string"},
            "ports": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer"}}}, "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "port"},
        }},
    });
    Schema::from_definitions(definitions.as_object().unwrap(), "Pod")
}

fn patched(object: Value, patch: Value) -> Value {
    strategic(&schema(), &object, &patch).unwrap()
}

fn containers(names: &[&str]) -> Value {
    json!({"spec": {"containers": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}})
}

#[test]
fn lists_are_merged_by_key() {
    let object = json!({"spec": {"containers": [
        {"name": "a", "image": "a:1", "ports": [{"port": 1, "x": "y"}]}, {"name": "b", "image": "b:1"}]}});
    let patch = json!({"spec": {"containers": [
        {"name": "b", "image": null, "ports": [{"port": 2}]}, {"name": "a", "ports": [{"port": 1, "x": "z"}]}, {"name": "c", "image": null}]}});
    let expected = json!({"spec": {"containers": [
        {"name": "b", "ports": [{"port": 2}]}, {"name": "a", "image": "a:1", "ports": [{"port": 1, "x": "z"}]}, {"name": "c"}]}});
    assert_eq!(patched(object, patch), expected);
}

#[test]
fn elements_are_deleted_and_lists_replaced() {
    let delete = json!({"spec": {"containers": [{"name": "b", "$patch": "delete"}]}});
    assert_eq!(
        patched(containers(&["a", "b", "c"]), delete),
        containers(&["a", "c"])
    );
    let replace = json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "d"}]}});
    assert_eq!(patched(containers(&["a", "b"]), replace), containers(&["d"]));
    let object = json!({"spec": {"args": ["a"], "labels": {"a": "b", "c": "d"}}});
    assert_eq!(
        patched(
            object.clone(),
            json!({"spec": {"args": ["b"], "labels": {"a": null, "x": "y"}}})
        ),
        json!({"spec": {"args": ["b"], "labels": {"c": "d", "x": "y"}}})
    );
    assert_eq!(
        patched(
            object.clone(),
            json!({"spec": {"labels": {"$patch": "replace", "x": "y"}}})
        ),
        json!({"spec": {"args": ["a"], "labels": {"x": "y"}}})
    );
    assert_eq!(
        patched(object, json!({"spec": {"labels": {"$patch": "delete"}}})),
        json!({"spec": {"args": ["a"], "labels": {}}})
    );
}

#[test]
fn the_order_is_set() {
    let order = |names: &[&str]| {
        let order: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"$setElementOrder/containers": order}})
    };
    assert_eq!(
        patched(containers(&["a", "b", "c"]), order(&["c", "a", "b"])),
        containers(&["c", "a", "b"])
    );
    // What the order does not name stays where it was towards its neighbours.
    assert_eq!(
        patched(containers(&["server", "a", "b"]), order(&["b", "a"])),
        containers(&["server", "b", "a"])
    );
    let mut patch = order(&["a", "b"]);
    patch["spec"]["containers"] = json!([{"name": "b"}, {"name": "a"}]);
    let error = strategic(&schema(), &containers(&[]), &patch).unwrap_err();
    assert!(error.message.starts_with("The order in patch list:"), "{error}");
}

#[test]
fn lists_of_scalars() {
    let object = json!({"metadata": {"finalizers": ["a/a", "b/b"]}});
    let added = json!({"metadata": {"finalizers": ["c/c", "a/a"]}});
    assert_eq!(
        patched(object.clone(), added),
        json!({"metadata": {"finalizers": ["c/c", "a/a", "b/b"]}})
    );
    let deleted = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"], "$setElementOrder/finalizers": ["b/b"]}});
    assert_eq!(
        patched(object, deleted),
        json!({"metadata": {"finalizers": ["b/b"]}})
    );
}

#[test]
fn keys_are_retained() {
    let object = json!({"spec": {"strategy": {"type": "Rolling", "rollingUpdate": {"a": 1}, "other": "x"}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        patched(object.clone(), patch),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
    let wrong = json!({"spec": {"strategy": {"$retainKeys": ["type"], "other": "y"}}});
    let error = strategic(&schema(), &object, &wrong).unwrap_err();
    assert_eq!(error.message, "invalid patch format of retainKeys");
}

#[test]
fn what_makes_no_sense() {
    let cases = [
        (
            json!({"metadata": {"$patch": "foo"}}),
            "unknown patch type: foo in map: map[$patch:foo]",
        ),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": 1}}),
            "invalid patch format of setElementOrder list",
        ),
        (
            json!([]),
            "json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
    ];
    let mut object = containers(&["a"]);
    object["metadata"] = json!({});
    for (patch, message) in cases {
        let error = strategic(&schema(), &object, &patch).unwrap_err();
        assert_eq!(error.message, message);
    }
}

proptest! {
    /// Where the schema says nothing, a strategic merge patch is a merge patch, but for nulls in what it adds and in
    /// lists.
    #[test]
    fn without_a_schema_it_is_a_merge_patch(object in arbitrary::object(), patch in arbitrary::object()) {
        fn holds_null_in_list(value: &Value) -> bool {
            match value {
                Value::Array(list) => list.iter().any(has_null),
                Value::Object(fields) => fields.values().any(holds_null_in_list),
                _ => false,
            }
        }
        fn has_null(value: &Value) -> bool {
            match value {
                Value::Null => true,
                Value::Array(list) => list.iter().any(has_null),
                Value::Object(fields) => fields.values().any(has_null),
                _ => false,
            }
        }
        prop_assume!(!holds_null_in_list(&patch));
        let expected = super::super::merge(&object, &patch).unwrap();
        prop_assert_eq!(strategic(&Schema::default(), &object, &patch).unwrap(), expected);
    }

    /// A patch applied twice is a patch applied once.
    #[test]
    fn twice_is_once(before in prop::collection::btree_set("[a-d]", 0..4), named in prop::collection::btree_set("[a-d]", 0..4)) {
        let list = |names: &std::collections::BTreeSet<String>| containers(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let once = patched(list(&before), list(&named));
        prop_assert_eq!(patched(once.clone(), list(&named)), once.clone());
        let found = once["spec"]["containers"].as_array().unwrap().len();
        prop_assert_eq!(found, before.union(&named).count());
    }
}
