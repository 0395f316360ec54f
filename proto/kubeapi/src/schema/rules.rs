//! CEL rules (`x-kubernetes-validations`), with `oldSelf` for rules about changes.

use std::fmt;
use std::sync::Arc;

use kube_cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

use super::{Schema, cause};
use crate::error::Cause;

/// The rules of a schema, compiled.
#[derive(Clone)]
pub struct CompiledRules {
    compiled: Arc<CompiledSchema>,
}

impl fmt::Debug for CompiledRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompiledRules")
    }
}

impl CompiledRules {
    /// Compiles all rules of a schema as a CustomResourceDefinition gives it.
    ///
    /// # Errors
    /// Rules that are not CEL, each at its place.
    pub(super) fn new(schema: &Value) -> Result<CompiledRules, Vec<Cause>> {
        let compiled = compile_schema(schema);
        let mut wrong = Vec::new();
        not_cel(&compiled, "", &mut wrong);
        if wrong.is_empty() {
            Ok(CompiledRules {
                compiled: Arc::new(compiled),
            })
        } else {
            Err(wrong)
        }
    }
}

fn not_cel(schema: &CompiledSchema, path: &str, wrong: &mut Vec<Cause>) {
    let below = |name: String| {
        if path.is_empty() {
            name
        } else {
            format!("{path}.{name}")
        }
    };
    for (at, rule) in schema.validations.iter().enumerate() {
        if let Err(error) = rule {
            let field = below(format!("x-kubernetes-validations[{at}].rule"));
            let why = format!("compilation failed: {error}");
            wrong.push(cause::invalid(field, &Value::from(""), &why));
        }
    }
    let mut fields: Vec<_> = schema.properties.iter().collect();
    fields.sort_by_key(|(name, _)| name.as_str());
    for (name, field) in fields {
        not_cel(field, &below(format!("properties[{name}]")), wrong);
    }
    if let Some(items) = &schema.items {
        not_cel(items, &below("items".to_owned()), wrong);
    }
    if let Some(values) = &schema.additional_properties {
        not_cel(values, &below("additionalProperties".to_owned()), wrong);
    }
    wrong.truncate(cause::MAX_CAUSES);
}

/// Asks the CEL rules of `schema`, which has to be the root of an object's schema. `old` is the object before the
/// change: without it, rules that speak of `oldSelf` are left out, unless they say that it is optional. At most
/// [`cause::MAX_CAUSES`] causes. To be asked only about values that [`super::validate`] finds nothing wrong with.
pub fn check_rules(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let Some(rules) = &schema.compiled else {
        return Vec::new();
    };
    let Err(errors) = Validator::new().validate_compiled(&rules.compiled, value, old) else {
        return Vec::new();
    };
    let told = errors.into_vec().into_iter().take(cause::MAX_CAUSES);
    told.map(|error| {
        let path = error.field_path.trim_start_matches('.');
        let kind = kind_at(schema, path, &error.rule);
        let message = match error.kind {
            ErrorKind::ValidationFailure => error.message,
            _ => format!("{} evaluating rule: {}", error.message, error.rule),
        };
        let mut cause = cause::invalid(path, &kind.into(), &message);
        if cause.field.is_empty() {
            "<nil>".clone_into(&mut cause.field);
        }
        match error.reason.as_deref() {
            Some("FieldValueForbidden") => cause::forbidden(cause.field, &message),
            Some("FieldValueRequired") => cause::required(cause.field, &message),
            Some("FieldValueDuplicate") => cause::duplicate(cause.field, &kind.into()),
            _ => cause,
        }
    })
    .collect()
}

/// The type of the value whose schema has `rule`, on the way to `path`.
fn kind_at(schema: &Schema, path: &str, rule: &str) -> &'static str {
    let has = |schema: &Schema| schema.rules.iter().any(|found| found.rule == rule);
    let mut kind = schema.kind;
    let mut schema = schema;
    for name in path.split(['.', '[']).map(|name| name.trim_end_matches(']')) {
        let items = schema.items.as_ref().filter(|_| name.parse::<usize>().is_ok());
        let Some(next) = items.or_else(|| schema.field(name)) else {
            break;
        };
        schema = next;
        if has(schema) {
            kind = schema.kind;
        }
    }
    kind.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "message": "min must not be above max"},
                {"rule": "!has(self.name) || self.name == oldSelf.name", "message": "name cannot change"},
            ],
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"},
                "list": {"type": "array", "items": {"type": "string",
                    "x-kubernetes-validations": [{"rule": "self.startsWith('a')", "reason": "FieldValueForbidden"}]}},
            }}}}))
        .unwrap()
    }

    fn told(value: &Value, old: Option<&Value>) -> Vec<String> {
        let causes = check_rules(&schema(), value, old).into_iter();
        causes
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    #[test]
    fn rules_hold_or_say_why() {
        let good = json!({"spec": {"min": 1, "max": 2, "name": "n", "list": ["a", "ab"]}});
        assert_eq!(told(&good, None), Vec::<String>::new());
        let bad = json!({"spec": {"min": 3, "max": 2, "list": ["b"]}});
        assert_eq!(
            told(&bad, None),
            [
                "spec: Invalid value: \"object\": min must not be above max",
                "spec.list[0]: Forbidden: failed rule: self.startsWith('a')"
            ]
        );
    }

    #[test]
    fn rules_about_changes_are_asked_about_changes_only() {
        let old = json!({"spec": {"min": 1, "max": 2, "name": "n"}});
        let new = json!({"spec": {"min": 1, "max": 2, "name": "m"}});
        assert_eq!(told(&new, None), Vec::<String>::new());
        assert_eq!(
            told(&new, Some(&old)),
            ["spec: Invalid value: \"object\": name cannot change"]
        );
        assert_eq!(told(&new, Some(&new)), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_cel_is_refused() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer",
            "x-kubernetes-validations": [{"rule": "self >"}]}}});
        let causes = Schema::parse(&schema).unwrap_err();
        assert_eq!(causes.len(), 1);
        assert_eq!(causes[0].field, "properties[a].x-kubernetes-validations[0].rule");
    }
}
