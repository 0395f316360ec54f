use serde_json::json;

use super::*;

fn list(kind: &str) -> Schema {
    let items = match kind {
        "set" => json!({"type": "string"}),
        _ => {
            json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}})
        }
    };
    let mut spec = json!({"type": "array", "items": items, "x-kubernetes-list-type": kind});
    if kind == "map" {
        spec["x-kubernetes-list-map-keys"] = json!(["k"]);
    }
    let root = Schema::parse(&json!({"type": "object", "properties": {"spec": spec}})).unwrap();
    Schema::clone(&root.properties["spec"])
}

fn merged(live: &[&str], config: &[&str]) -> Value {
    merge(Some(&list("set")), &json!(live), &json!(config))
}

#[test]
fn merged_lists_keep_both_orders() {
    assert_eq!(merged(&["a", "b", "c"], &["b"]), json!(["a", "b", "c"]));
    assert_eq!(merged(&["a", "b"], &["c"]), json!(["a", "b", "c"]));
    assert_eq!(merged(&["a", "b", "c"], &["c", "a"]), json!(["b", "c", "a"]));
    assert_eq!(
        merged(&["a", "b", "c", "d"], &["d", "x", "a"]),
        json!(["b", "c", "d", "x", "a"])
    );
    assert_eq!(merged(&["a"], &[]), json!(["a"]));
    assert_eq!(merged(&[], &["a"]), json!(["a"]));
}

#[test]
fn elements_are_merged_by_key() {
    let schema = list("map");
    let live = json!([{"k": "a", "v": 1}, {"k": "b", "v": 2}]);
    let config = json!([{"k": "b", "v": 3}, {"k": "c"}]);
    let expected = json!([{"k": "a", "v": 1}, {"k": "b", "v": 3}, {"k": "c"}]);
    assert_eq!(merge(Some(&schema), &live, &config), expected);
    let found = compare(Some(&schema), &live, &expected);
    assert_eq!(found.modified.paths(), ["[k=\"b\"].v"]);
    assert_eq!(found.added.paths(), ["[k=\"c\"]", "[k=\"c\"].k"]);
    assert!(found.removed.is_empty());
    assert_eq!(
        compare(Some(&schema), &expected, &live).removed.paths(),
        ["[k=\"c\"]", "[k=\"c\"].k"]
    );
}

#[test]
fn duplicates_are_one_field() {
    let schema = list("map");
    let twice = json!([{"k": "a", "v": 1}, {"k": "a", "v": 2}]);
    assert_eq!(fields_of(Some(&schema), &twice).paths(), ["[k=\"a\"]"]);
    let once = json!([{"k": "a", "v": 1}]);
    let found = compare(Some(&schema), &twice, &once);
    assert_eq!(found.removed.paths(), ["[k=\"a\"]"]);
    // The real one puts the element into both sets, too.
    assert_eq!(found.added.paths(), ["[k=\"a\"]", "[k=\"a\"].k", "[k=\"a\"].v"]);
    assert!(compare(Some(&schema), &twice, &twice).set().is_empty());
}

#[test]
fn what_becomes_empty_goes_or_becomes_null() {
    let value = json!({"a": {"b": 1}, "c": null});
    let fields = Fields::parse(&json!({"f:a": {"f:b": {}}})).unwrap();
    assert_eq!(remove(None, &value, &fields, true), json!({"a": null, "c": null}));
    assert_eq!(remove(None, &value, &fields, false), json!({"c": null}));
    let nothing = Fields::default();
    assert_eq!(remove(None, &value, &nothing, false), value);
}
