//! JSON for property tests: few names, so that documents meet.

use proptest::prelude::*;
use serde_json::Value;

pub(super) fn object() -> impl Strategy<Value = Value> {
    fields(value()).prop_map(Value::Object)
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c/d", "e~f", "0"]).prop_map(str::to_owned)
}

fn fields(value: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    prop::collection::btree_map(name(), value, 0..4).prop_map(|fields| fields.into_iter().collect())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..4).prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            fields(inner.clone()).prop_map(Value::Object),
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}
