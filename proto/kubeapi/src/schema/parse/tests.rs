use serde_json::json;

use super::*;

fn wrong(schema: &Value) -> Vec<String> {
    let causes = Schema::parse(schema).err().unwrap_or_default().into_iter();
    causes
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

fn wrong_in_spec(spec: &Value) -> Vec<String> {
    wrong(&json!({"type": "object", "properties": {"spec": spec}}))
}

#[test]
fn structural_rules() {
    assert_eq!(
        wrong(&json!({})),
        ["type: Required value: must not be empty at the root"]
    );
    assert_eq!(
        wrong(&json!({"type": "array", "items": {"type": "string"}})),
        ["type: Invalid value: \"array\": must be object at the root"]
    );
    let at = "properties[spec]";
    let cases = [
        (
            json!({}),
            "type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "array"}),
            "items: Required value: must be specified",
        ),
        (
            json!({"type": "array", "items": {}}),
            "items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "foo"}),
            "type: Unsupported value: \"foo\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            json!({"type": "string", "pattern": "("}),
            "pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: ",
        ),
        (
            json!({"type": "object", "oneOf": [{"type": "object"}]}),
            "oneOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"a": {"type": "string"}}}),
            "additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "object", "$ref": "#/a"}),
            "$ref: Forbidden: $ref is not supported",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            "uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
            "x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            "properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ),
    ];
    for (spec, told) in cases {
        let found = wrong_in_spec(&spec);
        assert_eq!(found.len(), 1, "{spec}: {found:?}");
        assert!(found[0].starts_with(&format!("{at}.{told}")), "{spec}: {found:?}");
    }
}

#[test]
fn metadata_is_known() {
    let schema = |metadata: Value| json!({"type": "object", "properties": {"metadata": metadata}});
    assert_eq!(wrong(&schema(json!({"type": "object"}))), Vec::<String>::new());
    let named = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}});
    assert_eq!(wrong(&schema(named)), Vec::<String>::new());
    let more = json!({"type": "object", "properties": {"labels": {"type": "object"}}});
    assert_eq!(
        wrong(&schema(more)),
        [
            "properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        ]
    );
    let schema = Schema::parse(&json!({"type": "object"})).unwrap();
    assert!(schema.properties["metadata"].properties.contains_key("labels"));
}

#[test]
fn deep_schemas_are_refused() {
    let mut schema = json!({"type": "string"});
    for _ in 0..200 {
        schema = json!({"type": "array", "items": schema});
    }
    assert_eq!(wrong_in_spec(&schema).len(), 1);
}
