//! Checking a value against a schema.
//!
//! Source of what holds and of the words: `k8s.io/kube-openapi/pkg/validation/validate` as `apiextensions-apiserver`
//! calls it. Causes are given in a fixed order, where upstream's differs from run to run.

use serde_json::{Map, Value};

use super::bounds::{Bounds, Number};
use super::{MAX_DEPTH, Schema, Type, cause, formats, lists};
use crate::error::Cause;

/// Where upstream reports what is wrong with a combination (`oneOf` and the like): it names no field.
const NO_FIELD: &str = "<nil>";

/// What is wrong with `value`; at most [`cause::MAX_CAUSES`] causes. With `old`, the value before the change, parts that
/// were wrong before and did not change are let through, as upstream does. CEL rules are not asked: see
/// [`super::check_rules`].
pub fn validate(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut found = Found::default();
    let mut path = String::new();
    check(schema, value, old, &mut path, 0, &mut found);
    found.causes
}

/// The first value of another type than `schema` says, as [`validate`] tells it. Null is passed over: defaulting takes it
/// away, or validation tells of it. What was found well here can be changed without a look at what each field is.
pub fn mistyped(schema: &Schema, value: &Value) -> Option<Cause> {
    let mut found = Found::default();
    types(schema, value, &mut String::new(), 0, &mut found);
    found.causes.into_iter().next()
}

fn types(schema: &Schema, value: &Value, path: &mut String, depth: usize, found: &mut Found) {
    if value.is_null() || depth > MAX_DEPTH || found.failed {
        return;
    }
    of_type(schema, value, path, found);
    let end = path.len();
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let metadata;
                let field = match schema.field(key) {
                    Some(field) => field,
                    None if schema.embedded && key == "metadata" => {
                        metadata = super::object_meta();
                        &metadata
                    }
                    None => continue,
                };
                if end > 0 {
                    path.push('.');
                }
                path.push_str(key);
                types(field, value, path, depth + 1, found);
                path.truncate(end);
            }
        }
        Value::Array(elements) => {
            let Some(items) = &schema.items else { return };
            for (at, element) in elements.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                types(items, element, path, depth + 1, found);
                path.truncate(end);
            }
        }
        _ => {}
    }
}

/// Causes found so far.
#[derive(Default)]
pub(super) struct Found {
    causes: Vec<Cause>,
    /// How many values were looked at: upstream tells of the alternative that went furthest.
    visited: usize,
    /// More than fitted in.
    failed: bool,
}

impl Found {
    pub(super) fn add(&mut self, cause: Cause) {
        self.failed = true;
        if self.causes.len() < cause::MAX_CAUSES {
            self.causes.push(cause);
        }
    }

    fn merge(&mut self, other: Found) {
        self.visited += other.visited;
        for cause in other.causes {
            self.add(cause);
        }
    }
}

fn check(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &mut String,
    depth: usize,
    found: &mut Found,
) {
    let (before, failed) = (found.causes.len(), found.failed);
    if depth > MAX_DEPTH {
        found.add(cause::invalid(name(path), &Value::from(""), "nested too deeply"));
        return;
    }
    found.visited += 1;
    of_type(schema, value, path, found);
    if value.is_null() {
        one_of_allowed(schema, value, path, found);
    } else {
        if let Some(bounds) = &schema.bounds {
            combinations(bounds, value, path, depth, found);
        }
        match value {
            Value::String(text) => of_text(schema, value, text, path, found),
            Value::Number(number) => of_number(schema, number, path, found),
            Value::Array(elements) => of_list(schema, elements, old, path, depth, found),
            _ => {}
        }
        one_of_allowed(schema, value, path, found);
        if let Value::Object(fields) = value {
            of_object(schema, fields, old, path, depth, found);
        }
    }
    if found.causes.len() > before && old == Some(value) {
        found.causes.truncate(before);
        found.failed = failed;
    }
}

/// The path as a field name: upstream names the root so when it names it at all.
fn name(path: &str) -> &str {
    let path = path.strip_prefix('.').unwrap_or(path);
    if path.is_empty() { NO_FIELD } else { path }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn whole(value: &Value) -> bool {
    match value {
        Value::Number(number) => !number.is_f64() || number.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => false,
    }
}

fn of_type(schema: &Schema, value: &Value, path: &str, found: &mut Found) {
    let holds = match (schema.kind, value) {
        (Type::Any, _) => true,
        (_, Value::Null) => schema.nullable,
        (Type::Object, Value::Object(_))
        | (Type::Array, Value::Array(_))
        | (Type::String | Type::IntOrString, Value::String(_))
        | (Type::Number, Value::Number(_))
        | (Type::Boolean, Value::Bool(_)) => true,
        (Type::IntOrString, Value::Number(_)) if schema.format == "quantity" => true,
        (Type::Integer | Type::IntOrString, value) => whole(value),
        _ => false,
    };
    if !holds {
        let actual = type_of(value);
        let detail = format!(
            "{path} in body must be of type {}: \"{actual}\"",
            schema.kind.as_str()
        );
        found.add(cause::type_invalid(name(path), &actual.into(), &detail));
    }
}

fn one_of_allowed(schema: &Schema, value: &Value, path: &str, found: &mut Found) {
    let same = |allowed: &Value| match (allowed, value) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    };
    if !schema.allowed.is_empty() && !schema.allowed.iter().any(same) {
        found.add(cause::not_supported(name(path), value, &schema.allowed));
    }
}

fn of_text(schema: &Schema, value: &Value, text: &str, path: &str, found: &mut Found) {
    if let Some(bounds) = &schema.bounds {
        let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        // One thing at a time, as upstream says it.
        if let Some(max) = bounds.max_length.filter(|max| length > *max) {
            found.add(cause::too_long(name(path), max));
        } else if let Some(min) = bounds.min_length.filter(|min| length < *min) {
            let detail = format!("{path} in body should be at least {min} chars long");
            found.add(cause::invalid(name(path), value, &detail));
        } else if let Some(pattern) = &bounds.pattern {
            let detail = match pattern.is_match(text) {
                Ok(true) => None,
                Ok(false) => Some(format!("{path} in body should match '{}'", pattern.as_str())),
                Err(why) => Some(format!(
                    "{path} in body should match '{}, but pattern is invalid: {why}'",
                    pattern.as_str()
                )),
            };
            if let Some(detail) = detail {
                found.add(cause::invalid(name(path), value, &detail));
            }
        }
    }
    if schema.format == "quantity" {
        if !formats::quantity(text) {
            let why = "quantities must match the regular expression \
                       '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
            found.add(cause::invalid(name(path), value, why));
        }
    } else if !formats::holds(&schema.format, text) {
        let detail = format!(
            "{path} in body must be of type {}: {}",
            schema.format,
            cause::quote(text)
        );
        found.add(cause::type_invalid(name(path), value, &detail));
    }
}

fn of_number(schema: &Schema, number: &Number, path: &str, found: &mut Found) {
    let Some(bounds) = &schema.bounds else { return };
    let value = Value::Number(number.clone());
    let mut wrong = |detail: String| found.add(cause::invalid(name(path), &value, &detail));
    if let Some(factor) = &bounds.multiple_of
        && !multiple(number, factor)
    {
        wrong(format!(
            "{path} in body should be a multiple of {}",
            shown(factor)
        ));
    }
    if let Some(min) = &bounds.minimum {
        let order = compare(number, min);
        if order.is_lt() || (bounds.exclusive_minimum && order.is_eq()) {
            let what = if bounds.exclusive_minimum {
                "greater than"
            } else {
                "greater than or equal to"
            };
            wrong(format!("{path} in body should be {what} {}", shown(min)));
        }
    }
    if let Some(max) = &bounds.maximum {
        let order = compare(number, max);
        if order.is_gt() || (bounds.exclusive_maximum && order.is_eq()) {
            let what = if bounds.exclusive_maximum {
                "less than"
            } else {
                "less than or equal to"
            };
            wrong(format!("{path} in body should be {what} {}", shown(max)));
        }
    }
}

fn shown(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => cause::go_float(value),
        _ => number.to_string(),
    }
}

fn compare(a: &Number, b: &Number) -> std::cmp::Ordering {
    let whole = |number: &Number| {
        let signed = number.as_i64().map(i128::from);
        signed.or_else(|| number.as_u64().map(i128::from))
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            a.total_cmp(&b)
        }
    }
}

fn multiple(number: &Number, factor: &Number) -> bool {
    if let (Some(number), Some(factor)) = (number.as_i64(), factor.as_i64()) {
        return factor <= 0 || number.checked_rem(factor).is_none_or(|rest| rest == 0);
    }
    let (Some(number), Some(factor)) = (number.as_f64(), factor.as_f64()) else {
        return true;
    };
    let times = if factor < 1.0 {
        1.0 / factor * number
    } else {
        number / factor
    };
    factor <= 0.0 || (times - times.round()).abs() < 1e-9
}

fn of_list(
    schema: &Schema,
    elements: &[Value],
    old: Option<&Value>,
    path: &mut String,
    depth: usize,
    found: &mut Found,
) {
    if let Some(items) = &schema.items {
        let before = lists::Before::new(schema, old);
        for (at, element) in elements.iter().enumerate() {
            let end = path.len();
            path.push_str(&format!("[{at}]"));
            check(
                items,
                element,
                before.get(schema, element),
                path,
                depth + 1,
                found,
            );
            path.truncate(end);
        }
    }
    if let Some(bounds) = &schema.bounds {
        let count = u64::try_from(elements.len()).unwrap_or(u64::MAX);
        if let Some(min) = bounds.min_items.filter(|min| count < *min) {
            let detail = format!("{path} in body should have at least {min} items");
            found.add(cause::invalid(name(path), &count.into(), &detail));
        }
        if let Some(max) = bounds.max_items.filter(|max| count > *max) {
            found.add(cause::too_many(name(path), elements.len(), max));
        }
        if bounds.unique_items && has_duplicates(elements) {
            let detail = format!("{path} in body shouldn't contain duplicates");
            found.add(cause::invalid(name(path), &"".into(), &detail));
        }
    }
    lists::unique(schema, elements, name(path), found);
}

fn has_duplicates(elements: &[Value]) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    !elements.iter().all(|element| seen.insert(element.to_string()))
}

fn of_object(
    schema: &Schema,
    fields: &Map<String, Value>,
    old: Option<&Value>,
    path: &mut String,
    depth: usize,
    found: &mut Found,
) {
    if let Some(bounds) = &schema.bounds {
        let count = u64::try_from(fields.len()).unwrap_or(u64::MAX);
        if let Some(min) = bounds.min_properties.filter(|min| count < *min) {
            let detail = format!("{path} in body should have at least {min} properties");
            found.add(cause::invalid(name(path), &count.into(), &detail));
        }
        if let Some(max) = bounds.max_properties.filter(|max| count > *max) {
            found.add(cause::too_many(name(path), fields.len(), max));
        }
    }
    let enter = |key: &str, path: &mut String, field: &Schema, value: &Value, found: &mut Found| {
        let end = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        let before = old.and_then(|old| old.get(key));
        check(field, value, before, path, depth + 1, found);
        path.truncate(end);
    };
    for (key, value) in fields {
        match schema.field(key) {
            Some(field) => enter(key, path, field, value, found),
            None if schema.embedded && key == "metadata" => {
                enter(key, path, &super::object_meta(), value, found);
            }
            None => {}
        }
    }
    let below = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", name(path))
        }
    };
    for key in &schema.required {
        if !fields.contains_key(key) {
            found.add(cause::required(below(key), ""));
        }
    }
    if schema.embedded {
        for key in ["apiVersion", "kind"] {
            if fields.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
                found.add(cause::required(below(key), "must not be empty"));
            }
        }
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`.
fn combinations(bounds: &Bounds, value: &Value, path: &mut String, depth: usize, found: &mut Found) {
    let try_one = |schema: &Schema, path: &mut String| {
        let mut found = Found::default();
        check(schema, value, None, path, depth + 1, &mut found);
        found
    };
    let told = |path: &str, what: &str| {
        let detail = format!("{} {what}", cause::quote(path));
        cause::invalid(NO_FIELD, &"".into(), &detail)
    };
    if !bounds.any_of.is_empty() {
        let results = bounds.any_of.iter().map(|schema| try_one(schema, path));
        let results: Vec<Found> = results.collect();
        if results.iter().all(|result| result.failed) {
            found.add(told(path, "must validate at least one schema (anyOf)"));
            if let Some(best) = furthest(results) {
                found.merge(best);
            }
        }
    }
    if !bounds.one_of.is_empty() {
        let results = bounds.one_of.iter().map(|schema| try_one(schema, path));
        let results: Vec<Found> = results.collect();
        match results.iter().filter(|result| !result.failed).count() {
            1 => {}
            0 => {
                found.add(told(
                    path,
                    "must validate one and only one schema (oneOf). Found none valid",
                ));
                if let Some(best) = furthest(results) {
                    found.merge(best);
                }
            }
            valid => {
                let what = format!(
                    "must validate one and only one schema (oneOf). Found {valid} valid alternatives"
                );
                found.add(told(path, &what));
            }
        }
    }
    if !bounds.all_of.is_empty() {
        let mut valid = 0;
        for schema in &bounds.all_of {
            let result = try_one(schema, path);
            valid += usize::from(!result.failed);
            found.merge(result);
        }
        if valid != bounds.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            found.add(told(
                path,
                &format!("must validate all the schemas (allOf){none}"),
            ));
        }
    }
    if let Some(not) = &bounds.not
        && !try_one(not, path).failed
    {
        found.add(told(path, "must not validate the schema (not)"));
    }
}

/// The failure that went furthest; of equals the first.
fn furthest(results: Vec<Found>) -> Option<Found> {
    results
        .into_iter()
        .reduce(|best, next| if next.visited > best.visited { next } else { best })
}

#[cfg(test)]
mod tests;
