use serde_json::json;

use super::*;

fn told(schema: &Value, value: &Value) -> Vec<String> {
    told_of_change(schema, value, None)
}

fn told_of_change(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = json!({"type": "object", "properties": {"spec": schema}});
    let schema = Schema::parse(&schema).unwrap();
    let causes = validate(&schema, value, old).into_iter();
    causes
        .map(|cause| format!("{} {}: {}", cause.reason, cause.field, cause.message))
        .collect()
}

#[test]
fn types() {
    let schema = json!({"type": "object", "properties": {
        "i": {"type": "integer"}, "n": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"},
        "a": {"type": "array", "items": {"type": "string"}}, "x": {"x-kubernetes-int-or-string": true},
        "nullable": {"type": "string", "nullable": true}, "o": {"type": "object"},
        "anyof": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^a"},
    }});
    let good = json!({"spec": {"i": 1.0, "n": 1, "s": "", "b": true, "a": ["x"], "x": 1, "nullable": null, "o": {}, "anyof": "a"}});
    assert_eq!(told(&schema, &good), Vec::<String>::new());
    let bad = json!({"spec": {"i": "string", "n": "1", "s": 1, "b": null, "a": [1.5], "x": true, "o": []}});
    assert_eq!(
        told(&schema, &bad),
        [
            "FieldValueTypeInvalid spec.a[0]: Invalid value: \"number\": spec.a[0] in body must be of type string: \"number\"",
            "FieldValueTypeInvalid spec.b: Invalid value: \"null\": spec.b in body must be of type boolean: \"null\"",
            "FieldValueTypeInvalid spec.i: Invalid value: \"string\": spec.i in body must be of type integer: \"string\"",
            "FieldValueTypeInvalid spec.n: Invalid value: \"string\": spec.n in body must be of type number: \"string\"",
            "FieldValueTypeInvalid spec.o: Invalid value: \"array\": spec.o in body must be of type object: \"array\"",
            "FieldValueTypeInvalid spec.s: Invalid value: \"integer\": spec.s in body must be of type string: \"integer\"",
            "FieldValueTypeInvalid spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
        ]
    );
}

#[test]
fn bounds_of_numbers_and_texts() {
    let schema = json!({"type": "object", "required": ["must"], "properties": {
        "min": {"type": "integer", "minimum": 1}, "max": {"type": "number", "maximum": 1.5},
        "above": {"type": "integer", "minimum": 0, "exclusiveMinimum": true},
        "times": {"type": "integer", "multipleOf": 5},
        "short": {"type": "string", "maxLength": 3}, "long": {"type": "string", "minLength": 2},
        "like": {"type": "string", "pattern": "^[a-z]+$"}, "when": {"type": "string", "format": "date-time"},
        "one": {"type": "string", "enum": ["A", "B"]}, "number": {"type": "integer", "enum": [1, 2]},
    }});
    let value = json!({"spec": {"min": 0, "max": 2, "above": 0, "times": 6, "short": "four", "long": "x", "like": "A",
        "when": "now", "one": "C", "number": 3}});
    assert_eq!(
        told(&schema, &value),
        [
            "FieldValueInvalid spec.above: Invalid value: 0: spec.above in body should be greater than 0",
            "FieldValueInvalid spec.like: Invalid value: \"A\": spec.like in body should match '^[a-z]+$'",
            "FieldValueInvalid spec.long: Invalid value: \"x\": spec.long in body should be at least 2 chars long",
            "FieldValueInvalid spec.max: Invalid value: 2: spec.max in body should be less than or equal to 1.5",
            "FieldValueInvalid spec.min: Invalid value: 0: spec.min in body should be greater than or equal to 1",
            "FieldValueNotSupported spec.number: Unsupported value: 3: supported values: \"1\", \"2\"",
            "FieldValueNotSupported spec.one: Unsupported value: \"C\": supported values: \"A\", \"B\"",
            "FieldValueTooLong spec.short: Too long: may not be more than 3 bytes",
            "FieldValueInvalid spec.times: Invalid value: 6: spec.times in body should be a multiple of 5",
            "FieldValueTypeInvalid spec.when: Invalid value: \"now\": spec.when in body must be of type date-time: \"now\"",
            "FieldValueRequired spec.must: Required value",
        ]
    );
}

#[test]
fn lists_and_maps() {
    let schema = json!({"type": "object", "properties": {
        "few": {"type": "array", "maxItems": 1, "items": {"type": "integer"}},
        "many": {"type": "array", "minItems": 1, "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}}},
        "labels": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
        "some": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}},
    }});
    let value = json!({"spec": {"few": [1, 2], "many": [], "set": ["a", "b", "a", "a"], "map": [{"name": "x"}, {"name": "x"}, {}],
        "labels": {"a": "b", "c": 1}, "some": {}}});
    assert_eq!(
        told(&schema, &value),
        [
            "FieldValueTooMany spec.few: Too many: 2: must have at most 1 item",
            "FieldValueTooMany spec.labels: Too many: 2: must have at most 1 items",
            "FieldValueTypeInvalid spec.labels.c: Invalid value: \"integer\": spec.labels.c in body must be of type string: \"integer\"",
            "FieldValueInvalid spec.many: Invalid value: 0: spec.many in body should have at least 1 items",
            "FieldValueRequired spec.map[2].name: Required value",
            "FieldValueDuplicate spec.map[1]: Duplicate value: {\"name\":\"x\"}",
            "FieldValueDuplicate spec.set[2]: Duplicate value: \"a\"",
            "FieldValueInvalid spec.some: Invalid value: 0: spec.some in body should have at least 1 properties",
        ]
        .map(|text| text.replace("at most 1 items", "at most 1 item"))
    );
}

#[test]
fn combinations_of_schemas() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}});
    assert_eq!(told(&schema, &json!({"spec": {"a": ""}})), Vec::<String>::new());
    assert_eq!(
        told(&schema, &json!({"spec": {}})),
        [
            "FieldValueInvalid <nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
            "FieldValueRequired spec.a: Required value"
        ]
    );
    assert_eq!(
        told(&schema, &json!({"spec": {"a": "", "b": "", "c": ""}})),
        [
            "FieldValueInvalid <nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            "FieldValueInvalid <nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"
        ]
    );
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}},
        "anyOf": [{"properties": {"a": {"minimum": 5}}}, {"properties": {"a": {"maximum": 2}}}],
        "allOf": [{"required": ["a"]}]});
    assert_eq!(
        told(&schema, &json!({"spec": {"a": 3}})),
        [
            "FieldValueInvalid <nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)",
            "FieldValueInvalid spec.a: Invalid value: 3: spec.a in body should be greater than or equal to 5"
        ]
    );
}

#[test]
fn what_was_wrong_before_is_let_through_where_it_did_not_change() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}}}});
    let old = json!({"spec": {"a": "long", "b": "x", "map": [{"name": "x", "v": "long"}]}});
    let new = json!({"spec": {"a": "long", "b": "long", "map": [{"name": "y", "v": "long"}, {"name": "x", "v": "long"}]}});
    assert_eq!(
        told_of_change(&schema, &new, Some(&old)),
        [
            "FieldValueTooLong spec.b: Too long: may not be more than 1 byte",
            "FieldValueTooLong spec.map[0].v: Too long: may not be more than 1 byte"
        ]
    );
    assert_eq!(told_of_change(&schema, &old, Some(&old)), Vec::<String>::new());
    assert_eq!(told(&schema, &old).len(), 2);
}

#[test]
fn embedded_objects_say_what_they_are() {
    let schema = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    assert_eq!(
        told(&schema, &json!({"spec": {"apiVersion": "v1", "kind": "Pod"}})),
        Vec::<String>::new()
    );
    assert_eq!(
        told(&schema, &json!({"spec": {"kind": "Pod"}})),
        ["FieldValueRequired spec.apiVersion: Required value: must not be empty"]
    );
}

#[test]
fn what_is_told_is_bounded() {
    let schema = json!({"type": "array", "items": {"type": "integer"}});
    let value = json!({"spec": vec!["x"; 1000]});
    assert_eq!(told(&schema, &value).len(), cause::MAX_CAUSES);
}
