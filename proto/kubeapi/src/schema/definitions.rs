//! Reading the schemas of built-in kinds from the OpenAPI v3 documents of the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::parse::{flag, plain_bounds, text, texts, type_named};
use super::{ListType, MAX_DEPTH, PatchStrategy, Schema, Type, object_meta};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// Schemas by name, as in `components.schemas` of an OpenAPI v3 document. What several kinds use is read once and shared.
#[derive(Debug)]
pub struct Definitions<'a> {
    definitions: &'a Map<String, Value>,
    read: Read,
}

/// Definitions that were read, by name.
#[derive(Debug, Default)]
pub struct Read {
    /// `None` while a definition is being read: whoever meets it again is inside it.
    schemas: BTreeMap<String, Option<Arc<Schema>>>,
}

impl Schema {
    /// Reads definition `root` and what it refers to. See [`Definitions::schema`].
    pub fn from_definitions(definitions: &Map<String, Value>, root: &str) -> Arc<Schema> {
        Definitions::new(definitions).schema(root)
    }
}

impl<'a> Definitions<'a> {
    /// Reads nothing yet.
    pub fn new(definitions: &'a Map<String, Value>) -> Definitions<'a> {
        Definitions::after(Read::default(), definitions)
    }

    /// Reads on in another document of the same server: what was `read` is the same there.
    pub fn after(read: Read, definitions: &'a Map<String, Value>) -> Definitions<'a> {
        Definitions { definitions, read }
    }

    /// What was read, for the next document.
    pub fn read(self) -> Read {
        self.read
    }

    /// Reads definition `name`. A definition that contains itself takes anything where it does so, and so does one that
    /// is missing. Defaults that only say how an absent field reads (`{}`, `""`, `0`, `false`) are left out.
    pub fn schema(&mut self, name: &str) -> Arc<Schema> {
        self.named(name, 0)
    }

    fn named(&mut self, name: &str, depth: usize) -> Arc<Schema> {
        match name {
            OBJECT_META => return object_meta(),
            QUANTITY => {
                return Arc::new(Schema {
                    kind: Type::IntOrString,
                    format: "quantity".to_owned(),
                    ..Schema::default()
                });
            }
            _ => {}
        }
        match self.read.schemas.get(name) {
            Some(Some(schema)) => return Arc::clone(schema),
            Some(None) => return Arc::new(anything()),
            None => {}
        }
        let definitions = self.definitions;
        let Some(definition) = definitions.get(name) else {
            return Arc::new(anything());
        };
        self.read.schemas.insert(name.to_owned(), None);
        let schema = self.schema_of(definition, depth + 1);
        self.read
            .schemas
            .insert(name.to_owned(), Some(Arc::clone(&schema)));
        schema
    }

    fn schema_of(&mut self, value: &Value, depth: usize) -> Arc<Schema> {
        let Value::Object(json) = value else {
            return Arc::new(anything());
        };
        if depth > MAX_DEPTH {
            return Arc::new(anything());
        }
        let Some(name) = reference(json) else {
            return Arc::new(self.inline(json, depth));
        };
        let shared = self.named(name, depth);
        // What stands beside the reference holds for this field only.
        let mut own = Schema::clone(&shared);
        if beside(json, &mut own) {
            Arc::new(own)
        } else {
            shared
        }
    }

    fn inline(&mut self, json: &Map<String, Value>, depth: usize) -> Schema {
        let format = text(json, "format");
        let kind = match format {
            "int-or-string" => Type::IntOrString,
            _ => type_named(text(json, "type")).unwrap_or_default(),
        };
        let mut out = Schema {
            kind,
            format: Some(format)
                .filter(|name| *name != "int-or-string")
                .unwrap_or_default()
                .to_owned(),
            nullable: flag(json, "nullable"),
            allowed: json
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            required: texts(json.get("required")),
            embedded: flag(json, "x-kubernetes-embedded-resource"),
            ..Schema::default()
        };
        for (name, field) in json
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let field = self.schema_of(field, depth + 1);
            out.properties.insert(name.clone(), field);
        }
        if let Some(values @ Value::Object(_)) = json.get("additionalProperties") {
            out.additional = Some(self.schema_of(values, depth + 1));
        }
        if let Some(items @ Value::Object(_)) = json.get("items") {
            out.items = Some(self.schema_of(items, depth + 1));
        }
        out.empty = (kind == Type::Object).then(|| empty(json, &out));
        out.preserve_unknown = flag(json, "x-kubernetes-preserve-unknown-fields")
            || (matches!(kind, Type::Object | Type::Any)
                && out.properties.is_empty()
                && out.additional.is_none());
        let bounds = plain_bounds(json);
        out.bounds = (!bounds.is_empty()).then(|| Arc::new(bounds));
        beside(json, &mut out);
        out
    }
}

/// Structures are there whatever is in them, and required fields are there with their zero value.
fn empty(json: &Map<String, Value>, schema: &Schema) -> Value {
    let structure = |name: &str| {
        json["properties"][name]["default"]
            .as_object()
            .is_some_and(Map::is_empty)
    };
    let of_field = |(name, field): (&String, &Arc<Schema>)| {
        let value = if structure(name) {
            field.empty.clone().unwrap_or_else(|| Value::Object(Map::new()))
        } else if schema.required.contains(name) {
            match field.kind {
                Type::String if field.format.is_empty() => "".into(),
                Type::Integer | Type::Number => 0.into(),
                Type::Boolean => false.into(),
                _ => Value::Null,
            }
        } else {
            return None;
        };
        Some((name.clone(), value))
    };
    Value::Object(schema.properties.iter().filter_map(of_field).collect())
}

fn anything() -> Schema {
    Schema {
        preserve_unknown: true,
        ..Schema::default()
    }
}

/// The definition referred to, by itself or as the only one of `allOf`.
fn reference(json: &Map<String, Value>) -> Option<&str> {
    let one = match json.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([one]) => one.get("$ref"),
        _ => None,
    };
    let target = json.get("$ref").or(one)?.as_str()?;
    target.rsplit('/').next()
}

/// Reads what may stand beside a reference. Whether there was anything.
fn beside(json: &Map<String, Value>, out: &mut Schema) -> bool {
    let mut changed = false;
    let default = json.get("default").filter(|value| says_something(value));
    if let Some(default) = default {
        out.default = Some(default.clone());
        changed = true;
    }
    let key = Some(text(json, "x-kubernetes-patch-merge-key")).filter(|key| !key.is_empty());
    let strategies: Vec<&str> = text(json, "x-kubernetes-patch-strategy").split(',').collect();
    let retain_keys = strategies.contains(&"retainKeys");
    if strategies.contains(&"merge") {
        let key = key.map(str::to_owned);
        out.patch = PatchStrategy::Merge { key, retain_keys };
        changed = true;
    } else if retain_keys {
        out.patch = PatchStrategy::RetainKeys;
        changed = true;
    }
    match text(json, "x-kubernetes-list-type") {
        "set" => out.list = ListType::Set,
        "map" => out.list = ListType::Map(texts(json.get("x-kubernetes-list-map-keys"))),
        _ => {}
    }
    changed |= out.list != ListType::Atomic;
    if text(json, "x-kubernetes-map-type") == "atomic" {
        out.atomic_map = true;
        changed = true;
    }
    changed
}

fn says_something(default: &Value) -> bool {
    match default {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definitions() -> Map<String, Value> {
        let refer =
            |name: &str| json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}], "default": {}});
        let value = json!({
            "Root": {"type": "object", "properties": {
                "metadata": refer(OBJECT_META),
                "first": refer("Part"),
                "second": {"$ref": "#/components/schemas/Part"},
                "third": {"allOf": [{"$ref": "#/components/schemas/Part"}], "x-kubernetes-map-type": "atomic"},
                "tree": refer("Tree"),
                "port": refer("IntOrString"),
                "size": refer(QUANTITY),
                "raw": {"type": "object"},
                "lost": refer("Lost"),
                "list": {"type": "array", "items": refer("Part"), "x-kubernetes-patch-strategy": "merge,retainKeys",
                    "x-kubernetes-patch-merge-key": "name", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
                "strategy": {"allOf": [{"$ref": "#/components/schemas/Part"}], "x-kubernetes-patch-strategy": "retainKeys"},
                "protocol": {"type": "string", "default": "TCP"},
            }, "required": ["first"]},
            "Part": {"type": "object", "properties": {"name": {"type": "string", "default": ""}}},
            "Tree": {"type": "object", "properties": {"child": {"$ref": "#/components/schemas/Tree"}}},
            "IntOrString": {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"},
        });
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn references_are_followed_and_shared() {
        let definitions = definitions();
        let root = Schema::from_definitions(&definitions, "Root");
        let field = |name: &str| Arc::clone(&root.properties[name]);
        assert!(Arc::ptr_eq(&field("metadata"), &object_meta()));
        assert!(Arc::ptr_eq(&field("first"), &field("second")));
        assert!(field("third").atomic_map && !field("first").atomic_map);
        assert_eq!(field("third").properties.len(), 1);
        assert_eq!(field("first").default, None);
        assert_eq!(field("first").properties["name"].default, None);
        assert_eq!(field("protocol").default, Some(json!("TCP")));
        assert_eq!(field("port").kind, Type::IntOrString);
        assert_eq!(field("size").format, "quantity");
        assert!(field("raw").preserve_unknown && field("lost").preserve_unknown);
        assert_eq!(field("list").list, ListType::Map(vec!["name".to_owned()]));
        let merge = PatchStrategy::Merge {
            key: Some("name".to_owned()),
            retain_keys: true,
        };
        assert_eq!(field("list").patch, merge);
        assert_eq!(field("strategy").patch, PatchStrategy::RetainKeys);
        assert_eq!(root.required, ["first"]);
        assert_eq!(
            root.empty,
            Some(json!({"first": {}, "metadata": {}, "tree": {}, "port": {}, "size": {}, "lost": {}}))
        );
    }

    #[test]
    fn what_contains_itself_ends() {
        let definitions = definitions();
        let tree = Schema::from_definitions(&definitions, "Tree");
        assert!(!tree.preserve_unknown);
        assert!(tree.properties["child"].preserve_unknown);
    }
}
