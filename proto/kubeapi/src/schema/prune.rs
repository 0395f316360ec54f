//! Taking away what a schema does not know.

use serde_json::{Map, Value};

use super::{MAX_DEPTH, Schema, Type, meta, object_meta};

/// Most paths that are told; everything unknown is taken away all the same.
pub const MAX_UNKNOWN: usize = 100;

/// Takes unknown fields out of `value` and returns their paths, such as `spec.foo` and `spec.list[0].bar`, the first
/// [`MAX_UNKNOWN`] of them. With `fieldValidation` `Strict` a caller refuses with `unknown field "spec.foo"`, with
/// `Warn` it warns so.
pub fn prune(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut pruning = Pruning {
        path: String::new(),
        unknown: Vec::new(),
    };
    pruning.value(schema, value, 0);
    pruning.unknown
}

struct Pruning {
    path: String,
    unknown: Vec<String>,
}

impl Pruning {
    fn value(&mut self, schema: &Schema, value: &mut Value, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, depth),
            Value::Array(elements) => {
                let Some(items) = &schema.items else { return };
                for (at, element) in elements.iter_mut().enumerate() {
                    let end = self.path.len();
                    self.path.push_str(&format!("[{at}]"));
                    self.value(items, element, depth + 1);
                    self.path.truncate(end);
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: &Schema, fields: &mut Map<String, Value>, depth: usize) {
        let keep = schema.preserve_unknown || matches!(schema.kind, Type::Any | Type::IntOrString);
        fields.retain(|name, value| {
            let end = self.path.len();
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(name);
            let known = match (schema.field(name), name.as_str()) {
                (Some(field), _) if !(schema.embedded && name == "metadata") => {
                    self.value(field, value, depth + 1);
                    true
                }
                (_, "metadata") if schema.embedded => {
                    self.value(&object_meta(), value, depth + 1);
                    true
                }
                (_, "apiVersion" | "kind") if schema.embedded => {
                    self.value(&meta::text(), value, depth + 1);
                    true
                }
                _ => keep,
            };
            if !known && self.unknown.len() < MAX_UNKNOWN {
                self.unknown.push(self.path.clone());
            }
            self.path.truncate(end);
            known
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "known": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                    "strict": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "integer"}}}},
                "empty": {"type": "object"},
                "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            }},
        }}))
        .unwrap()
    }

    #[test]
    fn what_is_unknown_goes() {
        let mut value = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "n", "foo": 1}, "top": 1, "spec": {
            "known": "a", "foo": 1, "list": [{"a": 1}, {"a": 1, "b": 2}],
            "free": {"x": {"y": 1}, "strict": {"a": 1, "b": 2}}, "map": {"k": {"a": 1, "b": 2}}, "empty": {"x": 1},
            "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "bar": 1}, "spec": {}},
        }});
        let unknown = prune(&schema(), &mut value);
        assert_eq!(
            unknown,
            [
                "metadata.foo",
                "spec.embedded.metadata.bar",
                "spec.empty.x",
                "spec.foo",
                "spec.free.strict.b",
                "spec.list[1].b",
                "spec.map.k.b",
                "top"
            ]
        );
        let pruned = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "n"}, "spec": {
            "known": "a", "list": [{"a": 1}, {"a": 1}],
            "free": {"x": {"y": 1}, "strict": {"a": 1}}, "map": {"k": {"a": 1}}, "empty": {},
            "embedded": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
        }});
        assert_eq!(value, pruned);
        assert_eq!(prune(&schema(), &mut value), Vec::<String>::new());
    }

    #[test]
    fn what_is_told_is_bounded() {
        let fields: Map<String, Value> = (0..1000).map(|n| (format!("f{n}"), n.into())).collect();
        let mut value = json!({"spec": fields});
        assert_eq!(prune(&schema(), &mut value).len(), MAX_UNKNOWN);
        assert_eq!(value, json!({"spec": {}}));
    }
}
