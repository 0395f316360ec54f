use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema() -> Schema {
    Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "integer"}, "b": {"type": "integer"},
        "named": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
            "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "x": {"type": "integer"}, "y": {"type": "integer"}}}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "atomic": {"type": "array", "items": {"type": "integer"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}}}))
    .unwrap()
}

fn writer<'a>(schema: &'a Schema, manager: &'a str) -> Writer<'a> {
    Writer {
        manager,
        schema,
        api_version: "g/v1",
        time: "2024-01-02T03:04:05Z",
        subresource: "",
        has_status: false,
    }
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec})
}

fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    let mut found = entries.filter(|entry| entry["manager"] == manager);
    found
        .next()
        .map(|entry| entry["fieldsV1"].clone())
        .unwrap_or_default()
}

#[test]
fn nobody_owns_what_the_server_writes() {
    let schema = schema();
    let mut sent = object(json!({"a": 1}));
    sent["metadata"] = json!({"name": "n", "uid": "u", "creationTimestamp": "t", "resourceVersion": "1", "generation": 1, "labels": {"x": "y"}});
    let created = track(None, sent.clone(), &writer(&schema, "m"));
    let expected = json!({"f:metadata": {"f:labels": {".": {}, "f:x": {}}}, "f:spec": {".": {}, "f:a": {}}});
    assert_eq!(fields(&created, "m"), expected);
    let applied = apply(None, &sent, &writer(&schema, "m"), false).unwrap();
    let expected = json!({"f:metadata": {"f:labels": {"f:x": {}}}, "f:spec": {"f:a": {}}});
    assert_eq!(fields(&applied, "m"), expected);
}

#[test]
fn an_apply_that_changes_nothing_keeps_its_time() {
    let schema = schema();
    let first = apply(None, &object(json!({"a": 1})), &writer(&schema, "m"), false).unwrap();
    let later = Writer {
        time: "2025-01-02T03:04:05Z",
        ..writer(&schema, "m")
    };
    let again = apply(Some(&first), &object(json!({"a": 1})), &later, false).unwrap();
    assert_eq!(again, first);
    let changed = apply(Some(&first), &object(json!({"a": 2})), &later, false).unwrap();
    assert_eq!(changed["metadata"]["managedFields"][0]["time"], later.time);
}

#[test]
fn the_account_survives_clients_that_do_not_know_it() {
    let schema = schema();
    let created = track(None, object(json!({"a": 1})), &writer(&schema, "m"));
    let updated = track(Some(&created), object(json!({"a": 1})), &writer(&schema, "o"));
    assert_eq!(fields(&updated, "m"), json!({"f:spec": {".": {}, "f:a": {}}}));
    let mut reset = updated.clone();
    reset["metadata"]["managedFields"] = json!([]);
    let reset = track(Some(&updated), reset, &writer(&schema, "o"));
    assert_eq!(reset["metadata"].get("managedFields"), None);
    // Nonsense is taken for nothing; through a subresource, whatever is sent.
    let mut nonsense = updated.clone();
    nonsense["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(
        track(Some(&updated), nonsense.clone(), &writer(&schema, "o")),
        updated
    );
    let status = Writer {
        subresource: "status",
        ..writer(&schema, "o")
    };
    assert_eq!(track(Some(&updated), nonsense, &status), updated);
}

#[test]
fn names_of_managers() {
    assert_eq!(check_manager("", false), None);
    assert_eq!(check_manager("kubectl", true), None);
    assert_eq!(
        check_manager("", true).unwrap().message,
        "Required value: is required for apply patch"
    );
    assert!(check_manager(&"x".repeat(129), false).is_some());
    assert!(check_manager("a\nb", false).is_some());
}

#[test]
fn broken_accounts_are_refused_by_apply() {
    let schema = schema();
    let mut live = object(json!({}));
    live["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply", "apiVersion": "g/v1", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}]);
    let error = apply(Some(&live), &object(json!({})), &writer(&schema, "m"), false).unwrap_err();
    assert_eq!(
        error.message,
        "failed to decode managed fields: error decoding set: missing colon: x"
    );
}

#[test]
fn what_is_told_of_conflicts_is_bounded() {
    let schema = schema();
    let config = |value: i64| {
        let map: serde_json::Map<String, Value> = (0..500).map(|n| (format!("k{n}"), value.into())).collect();
        object(json!({"map": map}))
    };
    let live = apply(None, &config(1), &writer(&schema, "one"), false).unwrap();
    let error = apply(Some(&live), &config(2), &writer(&schema, "two"), false).unwrap_err();
    assert!(
        error
            .message
            .starts_with("Apply failed with 500 conflicts: conflicts with \"one\":\n- .spec.map.k0\n")
    );
    assert_eq!(error.details.unwrap().causes.len(), cause::MAX_CAUSES);
}

fn spec() -> impl Strategy<Value = Value> {
    let number = || prop::option::of(0..3_i64);
    let element = ("[abc]", number(), number());
    let named = prop::collection::btree_map("[abc]", element, 0..4);
    let names = prop::collection::btree_set("[a-d]", 0..4);
    let map = prop::collection::btree_map("[ab]", 0..3, 0..3);
    let atomic = prop::collection::vec(0..3, 0..3);
    let parts = (
        number(),
        prop::option::of(named),
        prop::option::of(names),
        prop::option::of(map),
    );
    (parts, prop::option::of(atomic), any::<bool>()).prop_map(|((a, named, set, map), atomic, reverse)| {
        let mut out = serde_json::Map::new();
        let mut put =
            |name: &str, value: Option<Value>| value.map(|value| out.insert(name.to_owned(), value));
        put("a", a.map(Value::from));
        put("map", map.clone().map(|map| json!(map)));
        put("free", map.map(|map| json!({"deep": map, "list": [1]})));
        put("atomic", atomic.map(|list| json!(list)));
        put(
            "named",
            named.map(|named| {
                let each = named.into_iter().map(|(name, (_, x, y))| {
                    let mut element = json!({"name": name});
                    if let Some(x) = x {
                        element["x"] = x.into();
                    }
                    if let Some(y) = y {
                        element["y"] = y.into();
                    }
                    element
                });
                let mut each: Vec<Value> = each.collect();
                if reverse {
                    each.reverse();
                }
                each.into()
            }),
        );
        put(
            "set",
            set.map(|set| {
                let mut set: Vec<String> = set.into_iter().collect();
                if reverse {
                    set.reverse();
                }
                json!(set)
            }),
        );
        Value::Object(out)
    })
}

/// Whether all that `config` says is so in `object`.
fn says(schema: &Schema, config: &Value, object: &Value) -> bool {
    typed::merge(Some(schema), object, config) == *object
}

fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    forget_account(&mut object);
    object
}

/// As it looks once empty lists and objects are gone, which owners give up without a trace.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .map(|(name, value)| (name.clone(), without_empty(value)));
            let kept = kept.filter(|(_, value)| {
                !matches!(value, Value::Null) && *value != json!({}) && *value != json!([])
            });
            Value::Object(kept.collect())
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn what_is_applied_is_so_and_stays_so(one in spec(), two in spec()) {
        let schema = schema();
        let first = apply(None, &object(one.clone()), &writer(&schema, "one"), false).unwrap();
        prop_assert_eq!(bare(&first), object(one.clone()));
        let second = apply(Some(&first), &object(two.clone()), &writer(&schema, "two"), true).unwrap();
        prop_assert!(says(&schema, &object(two.clone()), &bare(&second)), "{second}");
        // Once more changes nothing.
        let again = apply(Some(&second), &object(two.clone()), &writer(&schema, "two"), true).unwrap();
        prop_assert_eq!(&again, &second);
        // It owns what it said.
        let said = typed::fields_of(Some(&schema), &object(two)).difference(&managers::nobodys());
        prop_assert_eq!(Fields::parse(&fields(&second, "two")).unwrap_or_default(), said);
    }

    #[test]
    fn conflicts_are_about_what_would_change(one in spec(), two in spec()) {
        let schema = schema();
        let first = apply(None, &object(one.clone()), &writer(&schema, "one"), false).unwrap();
        let second = apply(Some(&first), &object(two.clone()), &writer(&schema, "two"), false);
        match second {
            Ok(second) => {
                // Nobody lost anything.
                prop_assert!(says(&schema, &object(one), &bare(&second)) || one_in_another_order(&first, &second), "{second}");
                prop_assert_eq!(fields(&second, "one"), fields(&first, "one"));
            }
            Err(error) => {
                prop_assert_eq!(error.reason, Reason::Conflict);
                prop_assert!(!error.details.unwrap().causes.is_empty());
            }
        }
    }

    #[test]
    fn what_is_given_up_goes(one in spec(), two in spec()) {
        let schema = schema();
        let first = apply(None, &object(one), &writer(&schema, "one"), false).unwrap();
        let Ok(second) = apply(Some(&first), &object(two), &writer(&schema, "two"), false) else {
            return Ok(());
        };
        let third = apply(Some(&second), &json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}}), &writer(&schema, "two"), false).unwrap();
        prop_assert_eq!(fields(&third, "two"), Value::Null);
        if !one_in_another_order(&first, &third) {
            prop_assert_eq!(without_empty(&bare(&third)), without_empty(&bare(&first)));
        }
    }

    #[test]
    fn everything_has_an_owner(one in spec(), two in spec()) {
        let schema = schema();
        let first = track(None, object(one), &writer(&schema, "one"));
        let second = track(Some(&first), object(two), &writer(&schema, "two"));
        let all = Managers::of(&second).unwrap();
        let owned = all.all.values().fold(Fields::default(), |all, owned| all.union(&owned.fields));
        let there = typed::fields_of(Some(&schema), &bare(&second)).difference(&managers::nobodys());
        prop_assert!(there.difference(&owned).is_empty(), "{:?}", there.difference(&owned).paths());
        // And each field is owned by one only.
        let of = |manager: &str| Fields::parse(&fields(&second, manager)).unwrap_or_default();
        prop_assert!(of("one").intersection(&of("two")).is_empty());
    }
}

/// Whether the lists of `a` are in `b` in another order: the last who applies says the order.
fn one_in_another_order(a: &Value, b: &Value) -> bool {
    let differs = |name: &str| {
        let list = |object: &Value| object["spec"][name].as_array().cloned().unwrap_or_default();
        let (a, b) = (list(a), list(b));
        let name_of = |value: &Value| value.get("name").unwrap_or(value).clone();
        let (a, b): (Vec<_>, Vec<_>) = (a.iter().map(name_of).collect(), b.iter().map(name_of).collect());
        let shared: Vec<_> = b.iter().filter(|name| a.contains(name)).collect();
        shared != a.iter().collect::<Vec<_>>()
    };
    differs("named") || differs("set")
}
