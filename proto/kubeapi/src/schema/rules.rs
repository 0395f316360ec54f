//! CEL rules (`x-kubernetes-validations`), with `oldSelf` for rules about changes.

mod budget;
mod cel;

use std::fmt;
use std::sync::Arc;

use kube_cel::cel::Context;
use kube_cel::{CompilationResult, CompiledSchema, compile_schema};
use serde_json::Value;

use budget::{Meter, Metered, MeteredRule};

use super::lists::Before;
use super::{MAX_DEPTH, Schema, Type, cause};
use crate::error::Cause;

/// The rules of a schema, compiled.
#[derive(Clone)]
pub struct CompiledRules {
    compiled: Arc<CompiledSchema>,
    metered: Arc<Metered>,
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
        let mut wrong = Vec::new();
        check_texts(schema, "", 0, &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let compiled = compile_schema(schema);
        not_cel(&compiled, "", &mut wrong);
        if wrong.is_empty() {
            Ok(CompiledRules {
                metered: Arc::new(Metered::new(&compiled)),
                compiled: Arc::new(compiled),
            })
        } else {
            Err(wrong)
        }
    }
}

/// Rules that the compiler must not see: it is recursive.
fn check_texts(schema: &Value, path: &str, depth: usize, wrong: &mut Vec<Cause>) {
    if depth > MAX_DEPTH || wrong.len() >= cause::MAX_CAUSES {
        return;
    }
    for (at, rule) in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        for field in ["rule", "messageExpression"] {
            if let Err(why) = budget::check_text(rule[field].as_str().unwrap_or_default()) {
                let field = below(path, &format!("x-kubernetes-validations[{at}].{field}"));
                wrong.push(cause::invalid(
                    field,
                    &Value::from(""),
                    &format!("compilation failed: {why}"),
                ));
            }
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        check_texts(
            field,
            &below(path, &format!("properties[{name}]")),
            depth + 1,
            wrong,
        );
    }
    for name in ["items", "additionalProperties"] {
        if let Some(schema) = schema.get(name).filter(|schema| schema.is_object()) {
            check_texts(schema, &below(path, name), depth + 1, wrong);
        }
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn not_cel(schema: &CompiledSchema, path: &str, wrong: &mut Vec<Cause>) {
    let below = |name: String| below(path, &name);
    for (at, rule) in schema.validations.iter().enumerate() {
        let why = match rule {
            Ok(rule) => {
                let message = rule.message_program.as_ref();
                let checked = budget::check_expression(rule.program.expression()).and_then(|()| {
                    message.map_or(Ok(()), |program| budget::check_expression(program.expression()))
                });
                checked.err().map(str::to_owned)
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            let field = below(format!("x-kubernetes-validations[{at}].rule"));
            let why = format!("compilation failed: {why}");
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

/// Everything that the schema says of `value`: [`super::validate`], and the CEL rules, unless something is wrong that
/// they need not expect.
pub fn check(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    const BLOCKING: &[&str] = &[
        "FieldValueRequired",
        "FieldValueTypeInvalid",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueNotSupported",
    ];
    let mut wrong = super::validate(schema, value, old);
    if wrong.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
        if schema.compiled.is_some() {
            wrong.push(cause::rules_not_checked());
        }
        return wrong;
    }
    wrong.extend(check_rules(schema, value, old));
    wrong
}

/// Asks the CEL rules of `schema`, which has to be the root of an object's schema. `old` is the object before the
/// change: without it, rules that speak of `oldSelf` are left out, unless they say that it is optional. At most
/// [`cause::MAX_CAUSES`] causes. To be asked only about values of the right types: [`check`] sees to that.
pub fn check_rules(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let Some(rules) = &schema.compiled else {
        return Vec::new();
    };
    let meter = Meter::default();
    let mut root = cel::context();
    root.set_variable_resolver(&meter);
    let mut asking = Asking {
        root,
        meter: &meter,
        path: String::new(),
        wrong: Vec::new(),
    };
    asking.node((&rules.compiled, &rules.metered), schema, value, old, 0);
    if meter.is_spent() {
        // What a rule said that was broken off is not told.
        let why =
            "validation failed due to running out of cost budget, no further validation rules will be run";
        asking.wrong = vec![cause::invalid("<nil>", &Value::Null, why)];
    }
    asking.wrong
}

struct Asking<'m> {
    root: Context<'m>,
    meter: &'m Meter,
    path: String,
    wrong: Vec<Cause>,
}

impl Asking<'_> {
    fn node(
        &mut self,
        (rules, metered): (&CompiledSchema, &Metered),
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        depth: usize,
    ) {
        if value.is_null()
            || depth > MAX_DEPTH
            || self.wrong.len() >= cause::MAX_CAUSES
            || self.meter.is_spent()
        {
            return;
        }
        // A null before the change is nothing to compare with.
        let old = old.filter(|old| !old.is_null());
        if !rules.validations.is_empty() {
            self.ask((rules, metered), schema, value, old);
        }
        let end = self.path.len();
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let below = rules.properties.get(name);
                    let below = below.or(rules.additional_properties.as_deref());
                    let (Some(below), Some(metered), Some(field)) =
                        (below, metered.field(name), schema.field(name))
                    else {
                        continue;
                    };
                    if !schema.lists(name) {
                        self.path.push_str(&format!("[{name}]"));
                    } else {
                        self.path.push_str(if end == 0 { "" } else { "." });
                        self.path.push_str(name);
                    }
                    let old = old.and_then(|old| old.get(name));
                    self.node((below, metered), field, value, old, depth + 1);
                    self.path.truncate(end);
                }
            }
            Value::Array(elements) => {
                let (Some(below), Some(metered), Some(items)) =
                    (&rules.items, metered.items(), &schema.items)
                else {
                    return;
                };
                let before = Before::new(schema, old);
                for (at, element) in elements.iter().enumerate() {
                    self.path.push_str(&format!("[{at}]"));
                    let old = before.get(schema, element);
                    self.node((below, metered), items, element, old, depth + 1);
                    self.path.truncate(end);
                }
            }
            _ => {}
        }
    }

    fn ask(
        &mut self,
        (rules, metered): (&CompiledSchema, &Metered),
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
    ) {
        let itself = cel::value(schema, value);
        let before = old.map(|old| cel::value(schema, old));
        // What cannot be read was refused when the schema was parsed.
        for (rule, metered) in rules.validations.iter().zip(&metered.rules) {
            let (Ok(rule), Some(metered)) = (rule, metered) else {
                continue;
            };
            if self.meter.is_spent() {
                return;
            }
            self.meter.begin();
            let optional = rule.rule.optional_old_self == Some(true);
            if rule.is_transition_rule && before.is_none() && !optional {
                continue;
            }
            let mut scope = self.root.new_inner_scope();
            scope.add_variable_from_value("self", itself.clone());
            if optional {
                scope.add_variable_from_value("oldSelf", cel::optional(before.clone()));
            } else if let Some(before) = &before {
                scope.add_variable_from_value("oldSelf", before.clone());
            }
            let text = rule.rule.rule.trim();
            let mut field = self.path.clone();
            let (reason, message) = match scope.resolve(&metered.rule) {
                Ok(kube_cel::cel::Value::Bool(true)) => continue,
                Ok(kube_cel::cel::Value::Bool(false)) => {
                    let below = rule.rule.field_path.as_deref().unwrap_or_default();
                    let below = if field.is_empty() {
                        below.trim_start_matches('.')
                    } else {
                        below
                    };
                    field.push_str(below);
                    (
                        rule.rule.reason.as_deref(),
                        self::message(rule, metered, &scope, text),
                    )
                }
                Ok(_) => (None, format!("the rule is neither true nor false: {text}")),
                Err(error) => (None, format!("{} evaluating rule: {text}", cel::told(&error))),
            };
            if field.is_empty() {
                "<nil>".clone_into(&mut field);
            }
            // Upstream names no type for what is an integer or a string.
            let kind = if schema.kind == Type::IntOrString {
                ""
            } else {
                schema.kind.as_str()
            };
            self.wrong.push(match reason {
                Some("FieldValueForbidden") => cause::forbidden(field, &message),
                Some("FieldValueRequired") => cause::required(field, &message),
                Some("FieldValueDuplicate") => cause::duplicate(field, &kind.into()),
                _ => cause::invalid(field, &kind.into(), &message),
            });
        }
    }
}

/// What the client is told of a rule that does not hold.
fn message(rule: &CompilationResult, metered: &MeteredRule, scope: &Context<'_>, text: &str) -> String {
    let computed = metered
        .message
        .as_ref()
        .and_then(|message| scope.resolve(message).ok());
    if let Some(kube_cel::cel::Value::String(message)) = computed
        && !message.trim().is_empty()
        && !message.contains('\n')
    {
        return message.trim().to_owned();
    }
    match rule.rule.message.as_deref().map(str::trim) {
        Some(message) if !message.is_empty() => message.to_owned(),
        _ => format!("failed rule: {text}"),
    }
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
    fn rules_have_a_budget() {
        let schema = |rule: &str| {
            Schema::parse(
                &json!({"type": "object", "properties": {"spec": {"type": "object",
                "x-kubernetes-validations": [{"rule": rule}],
                "properties": {"list": {"type": "array", "items": {"type": "integer"}}}}}}),
            )
            .unwrap()
        };
        let told = |rule: &str, len: u32| -> Vec<String> {
            let value = json!({"spec": {"list": (0..len).collect::<Vec<_>>()}});
            let causes = check_rules(&schema(rule), &value, None).into_iter();
            causes.map(|cause| cause.message).collect()
        };
        let pairs = "self.list.all(x, self.list.exists(y, y == x))";
        let grows = "self.list.map(x, x + 1).size() >= 0";
        for rule in [pairs, grows] {
            assert_eq!(told(rule, 100), Vec::<String>::new(), "{rule}");
        }
        let spent = "Invalid value: null: validation failed due to running out of cost budget, no further validation rules will be run";
        assert_eq!(told(pairs, 2000), [spent]);
        assert_eq!(told(grows, 50_000), [spent]);
        // No loop is too long for what needs few steps, and a budget is for one object only.
        assert_eq!(told("self.list.all(x, x >= 0)", 50_000), Vec::<String>::new());
        assert_eq!(told("self.list.size() > 0", 50_000), Vec::<String>::new());
    }

    /// In this thread's 2 MiB, as in those of a server.
    #[test]
    fn rules_within_the_limits_fit_on_the_stack() {
        let wrapped =
            |open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(60), close.repeat(60));
        for rule in [
            wrapped("(", "self == self", ")"),
            wrapped("[", "1", "]") + " != [2]",
            wrapped("[1].all(x, ", "true", ")"),
            "!".repeat(60) + "true",
            format!("1{} > 0", "+1".repeat(500)),
            format!("!has(self{})", ".b".repeat(250)),
            format!("{}true", "self == null ? false : ".repeat(150)),
            format!("true{}", " && true".repeat(250)),
        ] {
            let schema = json!({"type": "object", "properties": {"a": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "x-kubernetes-validations": [{"rule": rule}]}}});
            let schema = Schema::parse(&schema).unwrap_or_else(|causes| panic!("{rule}: {causes:?}"));
            let told = check_rules(&schema, &json!({"a": {}}), None);
            let evaluated = told.iter().all(|cause| cause.message.contains("no such key"));
            assert!(evaluated, "{rule}: {told:?}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_refused() {
        for rule in [
            "Thing{a: 1} == self",
            &format!("{}true{}", "(".repeat(100), ")".repeat(100)),
        ] {
            let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer",
                "x-kubernetes-validations": [{"rule": rule}]}}}});
            let causes = Schema::parse(&schema).unwrap_err();
            assert_eq!(
                causes[0].field,
                "properties[a].items.x-kubernetes-validations[0].rule"
            );
        }
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
