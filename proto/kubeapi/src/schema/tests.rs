use proptest::prelude::*;
use serde_json::json;

use super::*;

/// JSON that is made of the words of schemas, in places where they make sense and where not.
fn anything() -> impl Strategy<Value = Value> {
    let words = [
        "type",
        "object",
        "array",
        "string",
        "integer",
        "properties",
        "items",
        "additionalProperties",
        "required",
        "default",
        "enum",
        "anyOf",
        "oneOf",
        "not",
        "pattern",
        "^a",
        "(",
        "minimum",
        "maxLength",
        "format",
        "date-time",
        "x-kubernetes-list-type",
        "map",
        "set",
        "x-kubernetes-list-map-keys",
        "spec",
        "metadata",
        "name",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "nullable",
    ];
    let word = move || prop::sample::select(words.to_vec());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec((word(), inner.clone()), 0..6).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

/// Schemas that hold, of a few shapes.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop::sample::select(vec![
        json!({"type": "string", "default": "d"}),
        json!({"type": "integer"}),
        json!({"type": "string", "nullable": true}),
        json!({"x-kubernetes-int-or-string": true}),
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    ]);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::btree_map("[ab]", inner.clone(), 0..3)
                .prop_map(|fields| json!({"type": "object", "properties": fields})),
            inner
                .clone()
                .prop_map(|items| json!({"type": "array", "items": items})),
            inner.prop_map(|values| json!({"type": "object", "additionalProperties": values})),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i8>().prop_map(Value::from),
        "[ab]".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 20, 3, |inner| {
        prop_oneof![
            prop::collection::btree_map("[abc]", inner.clone(), 0..3).prop_map(|fields| json!(fields)),
            prop::collection::vec(inner, 0..3).prop_map(Value::from),
        ]
    })
}

fn spec(spec: &Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

proptest! {
    #[test]
    fn nothing_panics(schema in anything(), value in anything()) {
        let mut value = json!({"spec": value});
        for schema in [schema.clone(), spec(&schema)] {
            if let Ok(schema) = Schema::parse(&schema) {
                validate(&schema, &value, None);
                prune(&schema, &mut value);
                default(&schema, &mut value);
                check(&schema, &value, Some(&value));
            }
        }
        let definitions = json!({"A": schema});
        let schema = Schema::from_definitions(definitions.as_object().unwrap(), "A");
        validate(&schema, &value, None);
        prune(&schema, &mut value);
        default(&schema, &mut value);
    }

    #[test]
    fn once_is_enough(schema in schema(), value in object()) {
        let schema = Schema::parse(&spec(&schema)).unwrap();
        let mut value = json!({"spec": value});
        prune(&schema, &mut value);
        default(&schema, &mut value);
        let mut again = value.clone();
        prop_assert_eq!(prune(&schema, &mut again), Vec::<String>::new());
        default(&schema, &mut again);
        prop_assert_eq!(&again, &value);
        // What did not change is let through.
        prop_assert_eq!(validate(&schema, &value, Some(&value)), Vec::new());
    }

    #[test]
    fn rules_that_are_not_cel_are_refused(rule in "[a-z0-9 .()\\[\\]{}'\"!=<>&|?:,+*/-]{1,24}") {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer", "x-kubernetes-validations": [{"rule": rule}]}}});
        if let Ok(schema) = Schema::parse(&schema) {
            check(&schema, &json!({"a": 1}), Some(&json!({"a": 2})));
        }
    }
}
