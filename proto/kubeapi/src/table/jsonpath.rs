//! The JSONPath of `additionalPrinterColumns`: fields, `['quoted']` fields, `[0]`, `[-1]`, `[1:3]`, `[*]`, `..` and
//! filters. Of many results only the first is shown, as upstream does.
//!
//! Source: `k8s.io/client-go/util/jsonpath`.

use std::cmp::Ordering;

use serde_json::Value;

/// Most results of a step that are looked at: a wildcard over a list of lists does not explode.
const MAX_RESULTS: usize = 10_000;
/// Deepest nesting of filters.
const MAX_DEPTH: usize = 8;

/// A path that was read.
#[derive(Debug, PartialEq)]
pub(super) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq)]
enum Step {
    /// One or more fields of an object.
    Fields(Vec<String>),
    /// Elements from, to (exclusive; `None`: the end); negative counts from the end.
    Slice(i64, Option<i64>),
    /// One element; negative counts from the end.
    Index(i64),
    /// All elements, or all values of an object.
    All,
    /// What the rest finds anywhere below.
    Below(String),
    /// Elements that pass.
    Filter(Operand, Option<(Operator, Operand)>),
}

#[derive(Debug, PartialEq)]
enum Operand {
    /// From the element on (`@`).
    Path(JsonPath),
    Literal(Value),
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Reads a path such as `.status.conditions[?(@.type=="Ready")].status`.
    pub(super) fn parse(text: &str) -> Option<JsonPath> {
        parse(text.strip_prefix('$').unwrap_or(text), MAX_DEPTH)
    }

    /// The first value it finds; `None` also where the path does not fit the object.
    pub(super) fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.find(value)?.into_iter().next()
    }

    /// All values; `None` where an index is out of bounds.
    fn find<'v>(&self, value: &'v Value) -> Option<Vec<&'v Value>> {
        let mut found = vec![value];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.walk(value, &mut next)?;
                next.truncate(MAX_RESULTS);
            }
            found = next;
        }
        Some(found)
    }
}

fn parse(mut text: &str, depth: usize) -> Option<JsonPath> {
    let depth = depth.checked_sub(1)?;
    let mut steps = Vec::new();
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix("..") {
            let (name, rest) = field_name(rest);
            steps.push(Step::Below(name));
            text = rest;
        } else if let Some(rest) = text.strip_prefix('.') {
            let (name, rest) = field_name(rest);
            match name.as_str() {
                // A lone dot, or one before a bracket, is the value itself.
                "" if rest.is_empty() || rest.starts_with('[') => {}
                "" => return None,
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Fields(vec![name])),
            }
            text = rest;
        } else if let Some(rest) = text.strip_prefix('[') {
            let end = closing(rest)?;
            steps.push(bracket(rest[..end].trim(), depth)?);
            text = &rest[end + 1..];
        } else {
            return None;
        }
    }
    Some(JsonPath { steps })
}

/// A field's name up to the next step, and what follows. A backslash takes the meaning of what it stands before.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket that is open closes, quotes and inner brackets skipped.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(with), c) if c == with => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => open += 1,
            (None, ']') if open == 0 => return Some(at),
            (None, ']') => open -= 1,
            (None, _) => {}
        }
    }
    None
}

fn bracket(inside: &str, depth: usize) -> Option<Step> {
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inside.strip_prefix("?(") {
        return parse_filter(filter.strip_suffix(')')?.trim(), depth);
    }
    if inside.starts_with(['\'', '"']) {
        let mut names = Vec::new();
        let mut rest = inside;
        loop {
            let (name, after) = quoted(rest)?;
            names.push(name);
            match after.trim_start().strip_prefix(',') {
                Some(more) => rest = more.trim_start(),
                None if after.trim().is_empty() => return Some(Step::Fields(names)),
                None => return None,
            }
        }
    }
    let number = |text: &str| text.trim().parse::<i64>().ok();
    match inside.split_once(':') {
        None => Some(Step::Index(number(inside)?)),
        Some((from, to)) => {
            let bound = |text: &str| match text.trim() {
                "" => Some(None),
                text => number(text).map(Some),
            };
            Some(Step::Slice(bound(from)?.unwrap_or(0), bound(to)?))
        }
    }
}

/// A quoted text at the start, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let with = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?.1),
            c if c == with => return Some((out, &text[at + 1..])),
            c => out.push(c),
        }
    }
    None
}

fn parse_filter(text: &str, depth: usize) -> Option<Step> {
    let (left, rest) = operand(text, depth)?;
    let rest = rest.trim_start();
    if rest.is_empty() {
        return matches!(left, Operand::Path(_)).then_some(Step::Filter(left, None));
    }
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let mut operators = OPERATORS.iter();
    let (rest, operator) =
        operators.find_map(|(sign, operator)| Some((rest.strip_prefix(sign)?, *operator)))?;
    let (right, rest) = operand(rest.trim_start(), depth)?;
    rest.trim()
        .is_empty()
        .then_some(Step::Filter(left, Some((operator, right))))
}

/// A path from `@` or a literal, and what follows.
fn operand(text: &str, depth: usize) -> Option<(Operand, &str)> {
    if let Some(path) = text.strip_prefix('@') {
        let mut open = 0_usize;
        let end = path.char_indices().find(|(_, c)| {
            match c {
                '[' => open += 1,
                ']' => open = open.saturating_sub(1),
                _ => {}
            }
            open == 0 && matches!(c, '=' | '!' | '<' | '>' | ' ')
        });
        let (path, rest) = path.split_at(end.map_or(path.len(), |(at, _)| at));
        return Some((Operand::Path(parse(path, depth)?), rest));
    }
    if let Some((text, rest)) = quoted(text) {
        return Some((Operand::Literal(text.into()), rest));
    }
    let end = text.find(['=', '!', '<', '>', ' ']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let literal: Value = serde_json::from_str(word).ok()?;
    matches!(literal, Value::Bool(_) | Value::Number(_)).then_some((Operand::Literal(literal), rest))
}

impl Step {
    /// Adds what this step finds in `value`; `None` where an index is out of bounds.
    fn walk<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) -> Option<()> {
        match self {
            Step::Fields(names) => out.extend(names.iter().filter_map(|name| value.as_object()?.get(name))),
            Step::All => match value {
                Value::Array(items) => out.extend(items),
                Value::Object(fields) => out.extend(fields.values()),
                _ => {}
            },
            Step::Index(index) => {
                let items = value.as_array()?;
                out.push(items.get(position(*index, items.len())?)?);
            }
            Step::Slice(from, to) => {
                let items = value.as_array()?;
                let from = position(*from, items.len())?;
                let to = match to {
                    Some(to) => position(*to, items.len())?.min(items.len()),
                    None => items.len(),
                };
                out.extend(items.get(from..to)?);
            }
            Step::Below(name) => below(value, name, out),
            Step::Filter(left, test) => {
                for item in value.as_array().into_iter().flatten() {
                    if passes(item, left, test.as_ref()) {
                        out.push(item);
                    }
                }
            }
        }
        Some(())
    }
}

/// An index, counted from the end where it is negative.
fn position(index: i64, len: usize) -> Option<usize> {
    let from_end = index < 0;
    let index = if from_end {
        index.checked_add(i64::try_from(len).ok()?)?
    } else {
        index
    };
    usize::try_from(index).ok()
}

/// Fields of this name (all, without a name) in `value` and anywhere in it. As deep as JSON is decoded, which is bounded.
fn below<'v>(value: &'v Value, name: &str, out: &mut Vec<&'v Value>) {
    if out.len() >= MAX_RESULTS {
        return;
    }
    match value {
        Value::Object(fields) => {
            if name.is_empty() {
                out.extend(fields.values());
            } else {
                out.extend(fields.get(name));
            }
            fields.values().for_each(|value| below(value, name, out));
        }
        Value::Array(items) => items.iter().for_each(|value| below(value, name, out)),
        _ => {}
    }
}

fn passes(item: &Value, left: &Operand, test: Option<&(Operator, Operand)>) -> bool {
    let Some(found) = left.value(item) else {
        return false;
    };
    let Some((operator, right)) = test else {
        return true;
    };
    let Some(right) = right.value(item) else {
        return false;
    };
    let order = match (found, right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => None,
        },
        (Value::Bool(a), Value::Bool(b)) => match operator {
            Operator::Equal | Operator::NotEqual => Some(a.cmp(b)),
            _ => None,
        },
        _ => None,
    };
    let Some(order) = order else {
        return false;
    };
    match operator {
        Operator::Equal => order == Ordering::Equal,
        Operator::NotEqual => order != Ordering::Equal,
        Operator::Less => order == Ordering::Less,
        Operator::LessOrEqual => order != Ordering::Greater,
        Operator::Greater => order == Ordering::Greater,
        Operator::GreaterOrEqual => order != Ordering::Less,
    }
}

impl Operand {
    fn value<'v>(&'v self, item: &'v Value) -> Option<&'v Value> {
        match self {
            Operand::Path(path) => path.first(item),
            Operand::Literal(value) => Some(value),
        }
    }
}
