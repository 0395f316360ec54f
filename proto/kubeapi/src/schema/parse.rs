//! Reading the schema of a CustomResourceDefinition. It has to be structural.

mod lists;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::bounds::{Bounds, Number, Pattern};
use super::{CompiledRules, MAX_DEPTH, Rule, Schema, Type, cause, meta, object_meta};
use crate::error::Cause;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Most schema nodes of one definition.
const MAX_NODES: usize = 50_000;

impl Schema {
    /// Reads `openAPIV3Schema` of a CustomResourceDefinition. `apiVersion`, `kind` and `metadata` need not be in it.
    ///
    /// # Errors
    /// What is wrong, with paths below the schema, such as `properties[spec].type`: upstream puts
    /// `spec.validation.openAPIV3Schema.` before it when all versions share a schema, else
    /// `spec.versions[0].schema.openAPIV3Schema.`
    pub fn parse(schema: &Value) -> Result<Schema, Vec<Cause>> {
        let mut reading = Reading {
            path: String::new(),
            wrong: Vec::new(),
            nodes: 0,
            depth: 0,
            rules: false,
        };
        let mut root = reading.schema(schema, Level::Root);
        if reading.wrong.is_empty() && reading.rules {
            match CompiledRules::new(schema) {
                Ok(compiled) => root.compiled = Some(compiled),
                Err(causes) => reading.wrong = causes,
            }
        }
        if !reading.wrong.is_empty() {
            let told = |cause: &Cause| format!("{}: {}", cause.field, cause.message);
            reading.wrong.sort_by_cached_key(told);
            return Err(reading.wrong);
        }
        for name in ["apiVersion", "kind"] {
            root.properties.insert(name.to_owned(), meta::text());
        }
        root.properties.insert("metadata".to_owned(), object_meta());
        Ok(root)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
    /// Below `allOf` and the like: says what values hold, not what there is.
    Nested,
}

struct Reading {
    path: String,
    wrong: Vec<Cause>,
    nodes: usize,
    depth: usize,
    rules: bool,
}

impl Reading {
    fn at(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn add(&mut self, cause: Cause) {
        if self.wrong.len() < cause::MAX_CAUSES {
            self.wrong.push(cause);
        }
    }

    fn forbidden(&mut self, name: &str, why: &str) {
        let cause = cause::forbidden(self.at(name), why);
        self.add(cause);
    }

    fn required(&mut self, name: &str, why: &str) {
        let cause = cause::required(self.at(name), why);
        self.add(cause);
    }

    fn invalid(&mut self, name: &str, value: &Value, why: &str) {
        let cause = cause::invalid(self.at(name), value, why);
        self.add(cause);
    }

    /// Reads the schema at `name` below the current one.
    fn below(&mut self, name: &str, schema: &Value, level: Level) -> Arc<Schema> {
        let end = self.path.len();
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
        self.depth += 1;
        let schema = self.schema(schema, level);
        self.depth -= 1;
        self.path.truncate(end);
        Arc::new(schema)
    }

    fn schema(&mut self, value: &Value, level: Level) -> Schema {
        self.nodes += 1;
        let Value::Object(json) = value else {
            let why = "must be a schema object";
            let cause = cause::type_invalid(self.path.as_str(), value, why);
            self.add(cause);
            return Schema::default();
        };
        if self.nodes > MAX_NODES || self.depth > MAX_DEPTH {
            let cause = cause::forbidden(self.path.as_str(), "the schema is too large");
            self.add(cause);
            return Schema::default();
        }
        self.unsupported(json);
        let mut out = Schema {
            kind: self.kind(json, level),
            nullable: flag(json, "nullable"),
            default: json.get("default").cloned(),
            allowed: json
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            format: text(json, "format").to_owned(),
            required: texts(json.get("required")),
            preserve_unknown: flag(json, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(json, "x-kubernetes-embedded-resource"),
            rules: self.rules(json),
            ..Schema::default()
        };
        self.fields(json, level, &mut out);
        if level == Level::Root && out.nullable {
            self.forbidden("nullable", "nullable cannot be true at the root");
        }
        if level == Level::Nested {
            self.nested(json);
        } else {
            self.extensions(json, &out);
        }
        if out.embedded {
            for name in ["apiVersion", "kind"] {
                out.properties.insert(name.to_owned(), meta::text());
            }
            out.properties.insert("metadata".to_owned(), object_meta());
        }
        self.lists(json, &mut out);
        match text(json, "x-kubernetes-map-type") {
            "" | "granular" => {}
            "atomic" => out.atomic_map = true,
            other => {
                let known = ["atomic", "granular"].map(Value::from);
                let cause = cause::not_supported(self.at("x-kubernetes-map-type"), &other.into(), &known);
                self.add(cause);
            }
        }
        out.bounds = self.bounds(json, &out);
        out
    }

    fn unsupported(&mut self, json: &Map<String, Value>) {
        const UNSUPPORTED: &[&str] = &[
            "$ref",
            "definitions",
            "dependencies",
            "id",
            "$schema",
            "patternProperties",
            "additionalItems",
        ];
        for name in UNSUPPORTED {
            if json
                .get(*name)
                .is_some_and(|value| !value.is_null() && value.as_str() != Some(""))
            {
                self.forbidden(name, &format!("{name} is not supported"));
            }
        }
        if flag(json, "uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden("uniqueItems", why);
        }
        if given(json, "additionalProperties") && filled(json, "properties") {
            let why = "additionalProperties and properties are mutual exclusive";
            self.forbidden("additionalProperties", why);
        }
        if json.get("items").is_some_and(Value::is_array) {
            self.forbidden("items", "items must be a schema object and not an array");
        }
    }

    fn kind(&mut self, json: &Map<String, Value>, level: Level) -> Type {
        if flag(json, "x-kubernetes-int-or-string") {
            return Type::IntOrString;
        }
        match text(json, "type") {
            "" => {
                let free = flag(json, "x-kubernetes-preserve-unknown-fields")
                    || flag(json, "x-kubernetes-embedded-resource");
                let what = match level {
                    Level::Root => "must not be empty at the root",
                    Level::Item => "must not be empty for specified array items",
                    Level::Field => "must not be empty for specified object fields",
                    Level::Nested => return Type::Any,
                };
                if !free {
                    self.required("type", what);
                }
                Type::Any
            }
            "null" => {
                let cause = cause::not_supported(self.at("type"), &"null".into(), &TYPES.map(Value::from));
                self.add(cause);
                self.forbidden(
                    "type",
                    "type cannot be set to null, use nullable as an alternative",
                );
                Type::Any
            }
            other => match type_named(other) {
                Some(kind) => {
                    if level == Level::Root && kind != Type::Object {
                        self.invalid("type", &other.into(), "must be object at the root");
                    }
                    kind
                }
                None => {
                    let cause = cause::not_supported(self.at("type"), &other.into(), &TYPES.map(Value::from));
                    self.add(cause);
                    Type::Any
                }
            },
        }
    }

    fn fields(&mut self, json: &Map<String, Value>, level: Level, out: &mut Schema) {
        let of = |plain: Level| {
            if level == Level::Nested {
                Level::Nested
            } else {
                plain
            }
        };
        for (name, field) in json
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let at = format!("properties[{name}]");
            if level == Level::Root && name == "metadata" {
                self.root_metadata(field, &at);
                continue;
            }
            if (level == Level::Root || out.embedded) && matches!(name.as_str(), "apiVersion" | "kind") {
                let kind = field.get("type").cloned().unwrap_or_else(|| "".into());
                if kind != "string" {
                    self.invalid(&format!("{at}.type"), &kind, "must be string");
                }
            }
            let field = self.below(&at, field, of(Level::Field));
            out.properties.insert(name.clone(), field);
        }
        match json.get("additionalProperties") {
            Some(schema @ Value::Object(_)) => {
                if level == Level::Root {
                    self.forbidden("additionalProperties", "must not be used at the root");
                }
                out.additional = Some(self.below("additionalProperties", schema, of(Level::Field)));
            }
            Some(Value::Bool(true)) => {
                out.additional = Some(Arc::new(Schema {
                    preserve_unknown: true,
                    ..Schema::default()
                }));
            }
            _ => {}
        }
        match json.get("items") {
            Some(schema @ Value::Object(_)) => out.items = Some(self.below("items", schema, of(Level::Item))),
            _ if out.kind == Type::Array && level != Level::Nested => {
                self.required("items", "must be specified");
            }
            _ => {}
        }
    }

    fn root_metadata(&mut self, field: &Value, at: &str) {
        let kind = field.get("type").cloned().unwrap_or_else(|| "".into());
        if kind != "object" {
            self.invalid(&format!("{at}.type"), &kind, "must be object");
        }
        let names = field.get("properties").and_then(Value::as_object);
        let plain = names.is_none_or(|names| {
            names
                .keys()
                .all(|name| matches!(name.as_str(), "name" | "generateName"))
        });
        let others = field.as_object().into_iter().flatten();
        let mut others =
            others.filter(|(name, _)| !matches!(name.as_str(), "type" | "properties" | "description"));
        if !plain || others.next().is_some() {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbidden(at, why);
        }
    }

    /// What may not be said below `allOf` and the like.
    fn nested(&mut self, json: &Map<String, Value>) {
        if !text(json, "type").is_empty() {
            self.forbidden("type", "must be empty to be structural");
        }
        for name in ["title", "description"] {
            if !text(json, name).is_empty() {
                self.forbidden(name, "must be empty to be structural");
            }
        }
        for name in [
            "default",
            "additionalProperties",
            "x-kubernetes-list-type",
            "x-kubernetes-map-type",
        ] {
            if given(json, name) {
                self.forbidden(name, "must be undefined to be structural");
            }
        }
        for name in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
            if filled(json, name) {
                self.forbidden(name, "must be empty to be structural");
            }
        }
        let flags = [
            "nullable",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource",
            "x-kubernetes-int-or-string",
        ];
        for name in flags {
            if flag(json, name) {
                self.forbidden(name, "must be false to be structural");
            }
        }
        if json
            .get("properties")
            .is_some_and(|fields| fields.get("metadata").is_some())
        {
            self.forbidden(
                "properties[metadata]",
                "must not be specified in a nested context",
            );
        }
    }

    fn extensions(&mut self, json: &Map<String, Value>, out: &Schema) {
        if out.kind == Type::IntOrString {
            let why = "must be false if x-kubernetes-int-or-string is true";
            for name in [
                "x-kubernetes-preserve-unknown-fields",
                "x-kubernetes-embedded-resource",
            ] {
                if flag(json, name) {
                    self.invalid(name, &true.into(), why);
                }
            }
        }
        if json.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let why = "must be true or undefined";
            self.invalid("x-kubernetes-preserve-unknown-fields", &false.into(), why);
        }
        if out.embedded {
            if out.kind != Type::Object {
                let why = "must be object if x-kubernetes-embedded-resource is true";
                match text(json, "type") {
                    "" => self.required("type", why),
                    other => self.invalid("type", &other.into(), why),
                }
            }
            if given(json, "additionalProperties") {
                let why = "must not be used if x-kubernetes-embedded-resource is set";
                self.forbidden("additionalProperties", why);
            }
            if !out.preserve_unknown && !filled(json, "properties") {
                let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                           x-kubernetes-preserve-unknown-fields";
                self.required("properties", why);
            }
        }
    }

    fn rules(&mut self, json: &Map<String, Value>) -> Vec<Rule> {
        let rules = json.get("x-kubernetes-validations").and_then(Value::as_array);
        let rules = rules.into_iter().flatten().filter_map(Value::as_object);
        let mut out = Vec::new();
        for (at, rule) in rules.enumerate() {
            if text(rule, "rule").trim().is_empty() {
                self.required(
                    &format!("x-kubernetes-validations[{at}].rule"),
                    "rule is not specified",
                );
            }
            self.rules = true;
            out.push(Rule {
                rule: text(rule, "rule").to_owned(),
                message: text(rule, "message").to_owned(),
                message_expression: text(rule, "messageExpression").to_owned(),
                reason: text(rule, "reason").to_owned(),
                field_path: text(rule, "fieldPath").to_owned(),
                optional_old_self: flag(rule, "optionalOldSelf"),
            });
        }
        out
    }

    fn bounds(&mut self, json: &Map<String, Value>, out: &Schema) -> Option<Arc<Bounds>> {
        let mut bounds = plain_bounds(json);
        if let Some(why) = bounds.pattern.as_ref().and_then(Pattern::error) {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.invalid("pattern", &text(json, "pattern").into(), &why);
        }
        // `anyOf: [{type: integer}, {type: string}]` is another way to write what the type says already.
        let redundant = |alternatives: &[Value]| out.kind == Type::IntOrString && int_or_string(alternatives);
        let mut alternatives = |name: &str, into: &mut Vec<Arc<Schema>>| {
            let Some(list) = json.get(name).and_then(Value::as_array) else {
                return;
            };
            if name == "anyOf" && redundant(list) {
                return;
            }
            for (at, schema) in list.iter().enumerate() {
                let doubled = schema.get("anyOf").and_then(Value::as_array);
                if name == "allOf" && at == 0 && doubled.is_some_and(|list| redundant(list)) {
                    let mut rest = schema.clone();
                    rest.as_object_mut().map(|rest| rest.remove("anyOf"));
                    into.push(self.below("allOf[0]", &rest, Level::Nested));
                } else {
                    into.push(self.below(&format!("{name}[{at}]"), schema, Level::Nested));
                }
            }
        };
        alternatives("allOf", &mut bounds.all_of);
        alternatives("anyOf", &mut bounds.any_of);
        alternatives("oneOf", &mut bounds.one_of);
        if let Some(not @ Value::Object(_)) = json.get("not") {
            bounds.not = Some(self.below("not", not, Level::Nested));
        }
        (!bounds.is_empty()).then(|| Arc::new(bounds))
    }
}

/// Bounds without combinations.
pub(super) fn plain_bounds(json: &Map<String, Value>) -> Bounds {
    let number = |name: &str| -> Option<Number> { json.get(name)?.as_number().cloned() };
    let count = |name: &str| json.get(name)?.as_u64();
    Bounds {
        minimum: number("minimum"),
        exclusive_minimum: flag(json, "exclusiveMinimum"),
        maximum: number("maximum"),
        exclusive_maximum: flag(json, "exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        pattern: Some(text(json, "pattern"))
            .filter(|text| !text.is_empty())
            .map(Pattern::new),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        unique_items: flag(json, "uniqueItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        ..Bounds::default()
    }
}

pub(super) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        _ => return None,
    })
}

fn int_or_string(alternatives: &[Value]) -> bool {
    let plain = |name: &str| serde_json::json!({"type": name});
    alternatives == [plain("integer"), plain("string")]
}

pub(super) fn flag(json: &Map<String, Value>, name: &str) -> bool {
    json.get(name) == Some(&Value::Bool(true))
}

pub(super) fn text<'a>(json: &'a Map<String, Value>, name: &str) -> &'a str {
    json.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn given(json: &Map<String, Value>, name: &str) -> bool {
    json.get(name).is_some_and(|value| !value.is_null())
}

fn filled(json: &Map<String, Value>, name: &str) -> bool {
    match json.get(name) {
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::Array(elements)) => !elements.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
