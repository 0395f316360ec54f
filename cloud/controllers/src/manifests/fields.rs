//! The fields of an object, taken one by one; what is left over nobody knows.

use std::fmt::Display;
use std::ops::RangeInclusive;

use ledge_yaml::units::shown;
use ledge_yaml::{Node, Problem, Value, names};

/// Hints are dear: an object with more mistakes than this is not what somebody mistyped.
pub(super) const MAX_HINTS: usize = 50;

/// What is wrong with one object, and what else there is to tell about it.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// With any of these the object is not accepted.
    pub(super) errors: Vec<Problem>,
    /// Fields that are known and do nothing.
    pub(super) without_effect: Vec<String>,
}

impl Faults {
    pub(super) fn error(&mut self, line: u32, path: &str, message: impl Into<String>) {
        self.errors.push(Problem::new(line, path, message));
    }

    pub(super) fn error_with_hint(
        &mut self,
        line: u32,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.errors
            .push(Problem::new(line, path, message).with_hint(hint));
    }
}

/// A map whose fields are being read.
pub(super) struct Fields<'a> {
    entries: &'a [(String, Node)],
    taken: Vec<bool>,
    known: Vec<&'static str>,
    any_case: bool,
    /// Path of the map, for messages.
    pub(super) path: String,
    /// Line the map begins at.
    pub(super) line: u32,
}

impl<'a> Fields<'a> {
    /// The fields of `node`, which is at `path`. Anything but a map is an error; null is an empty map.
    pub(super) fn of(node: &'a Node, path: impl Into<String>, faults: &mut Faults) -> Self {
        let path = path.into();
        let entries: &[(String, Node)] = match &node.value {
            Value::Map(entries) => entries,
            _ => {
                if !node.is_null() {
                    faults.error(
                        node.line,
                        &path,
                        format!("expected a map, found {}", node.describe()),
                    );
                }
                &[]
            }
        };
        let taken = vec![false; entries.len()];
        Fields {
            entries,
            taken,
            known: Vec::new(),
            any_case: false,
            path,
            line: node.line,
        }
    }

    /// Upper and lower case are the same from here on: how KubeEdge's mappers read `configData`.
    pub(super) fn any_case(mut self) -> Self {
        self.any_case = true;
        self
    }

    /// Path of the field `name`.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Line of the value of the field `name`, or of the map when it has no such field.
    pub(super) fn line_of(&self, name: &str) -> u32 {
        self.entries
            .iter()
            .find(|(key, _)| key == name)
            .map_or(self.line, |(_, node)| node.line)
    }

    /// The field `name`; `None` when it is absent or null.
    pub(super) fn take(&mut self, name: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        let any_case = self.any_case;
        let found = self.entries.iter().position(|(key, _)| {
            if any_case {
                key.eq_ignore_ascii_case(name)
            } else {
                key == name
            }
        })?;
        self.taken[found] = true;
        Some(&self.entries[found].1).filter(|node| !node.is_null())
    }

    /// Fields that are known and do nothing.
    pub(super) fn without_effect(&mut self, names: &[&'static str], faults: &mut Faults) {
        for name in names {
            if self.take(name).is_some() {
                faults.without_effect.push(self.path_of(name));
            }
        }
    }

    /// Fields that are known and say nothing that matters here.
    pub(super) fn skip(&mut self, names: &[&'static str]) {
        for name in names {
            self.take(name);
        }
    }

    /// A map inside.
    pub(super) fn map(&mut self, name: &'static str, faults: &mut Faults) -> Option<Fields<'a>> {
        let node = self.take(name)?;
        let fields = Fields::of(node, self.path_of(name), faults);
        Some(if self.any_case { fields.any_case() } else { fields })
    }

    /// A list inside, each item with its path.
    pub(super) fn list(&mut self, name: &'static str, faults: &mut Faults) -> Vec<(String, &'a Node)> {
        let Some(node) = self.take(name) else {
            return Vec::new();
        };
        let path = self.path_of(name);
        match node.list() {
            Some(items) => items
                .iter()
                .enumerate()
                .map(|(i, item)| (format!("{path}[{i}]"), item))
                .collect(),
            None => {
                faults.error(
                    node.line,
                    &path,
                    format!("expected a list, found {}", node.describe()),
                );
                Vec::new()
            }
        }
    }

    /// A text, without the space around it; `None` when it is empty.
    pub(super) fn text(&mut self, name: &'static str, faults: &mut Faults) -> Option<&'a str> {
        let node = self.take(name)?;
        match node.text() {
            Some(text) => Some(text.trim()).filter(|text| !text.is_empty()),
            None => {
                faults.error(
                    node.line,
                    &self.path_of(name),
                    format!("expected a text, found {}", node.describe()),
                );
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn required_text(&mut self, name: &'static str, faults: &mut Faults) -> Option<&'a str> {
        let before = faults.errors.len();
        let text = self.text(name, faults);
        if text.is_none() && faults.errors.len() == before {
            faults.error(self.line, &self.path_of(name), "missing");
        }
        text
    }

    /// A whole number, written as a number or as text.
    pub(super) fn int(
        &mut self,
        name: &'static str,
        range: RangeInclusive<i64>,
        faults: &mut Faults,
    ) -> Option<i64> {
        self.scalar(name, faults, "a whole number", whole_number, Some(&range))
    }

    /// A number, written as a number or as text.
    pub(super) fn float(&mut self, name: &'static str, faults: &mut Faults) -> Option<f64> {
        self.scalar(name, faults, "a number", finite_number, None)
    }

    /// A yes or no, written as a boolean or as text.
    pub(super) fn boolean(&mut self, name: &'static str, faults: &mut Faults) -> Option<bool> {
        self.scalar(name, faults, "true or false", yes_or_no, None)
    }

    fn scalar<T: PartialOrd + Display>(
        &mut self,
        name: &'static str,
        faults: &mut Faults,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
        range: Option<&RangeInclusive<T>>,
    ) -> Option<T> {
        let node = self.take(name)?;
        let text = node.text().map(str::trim);
        if text == Some("") {
            return None;
        }
        let Some(value) = text.and_then(parse) else {
            let message = format!("expected {expected}, found {}", node.describe());
            faults.error(node.line, &self.path_of(name), message);
            return None;
        };
        if let Some(range) = range.filter(|range| !range.contains(&value)) {
            let message = format!(
                "{value} is out of range: from {} to {}",
                range.start(),
                range.end()
            );
            faults.error(node.line, &self.path_of(name), message);
            return None;
        }
        Some(value)
    }

    /// What was not taken is unknown.
    pub(super) fn finish(self, faults: &mut Faults) {
        for ((name, node), _) in self.entries.iter().zip(&self.taken).filter(|(_, taken)| !**taken) {
            let path = self.path_of(&shown(name));
            let mut problem = Problem::new(node.line, path, "unknown field");
            if faults.errors.len() < MAX_HINTS {
                problem.hint = names::hint(name, self.known.iter().copied());
            }
            faults.errors.push(problem);
        }
    }
}

/// `5`, `5.0`, `0x10`.
pub(super) fn whole_number(text: &str) -> Option<i64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return i64::from_str_radix(hex, 16).ok();
    }
    match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b == b'0') => {
            whole.parse().ok()
        }
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// A number that is neither infinite nor NaN.
pub(super) fn finite_number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// `true`, `yes`, `on`, `1` and their opposites, in any case.
pub(super) fn yes_or_no(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_written_in_the_ways_people_do() {
        for (text, want) in [
            ("5", Some(5)),
            ("-5", Some(-5)),
            ("5.0", Some(5)),
            ("0x10", Some(16)),
            ("5.5", None),
            ("5.", None),
            ("1e3", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(whole_number(text), want, "{text}");
        }
        assert_eq!(finite_number("inf"), None);
        assert_eq!(finite_number("1e3"), Some(1000.0));
        assert_eq!(yes_or_no("OFF"), Some(false));
    }
}
