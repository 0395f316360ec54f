//! Selectors: by labels and by fields. Source: `k8s.io/apimachinery/pkg/labels` and `pkg/fields`.

mod query;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::error::ApiError;
use crate::object::Object;
use crate::resource::Resource;

/// Most requirements of one selector.
pub const REQUIREMENTS_MAX: usize = 256;

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    GreaterThan(i64),
    LessThan(i64),
}

/// A key and what is asked of its value.
type Requirement = (String, Test);

/// A label selector: everything it asks for has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Reads the form of queries: `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>3`.
    ///
    /// # Errors
    /// `BadRequest` with what was expected.
    pub fn parse(text: &str) -> Result<LabelSelector, ApiError> {
        let requirements = query::parse(text).map_err(ApiError::bad_request)?;
        Ok(LabelSelector { requirements })
    }

    /// Reads a `LabelSelector` object: `matchLabels` and `matchExpressions`.
    ///
    /// # Errors
    /// `BadRequest` for an operator that does not exist.
    pub fn of_object(object: &Value) -> Result<LabelSelector, ApiError> {
        let mut requirements = Vec::new();
        for (key, value) in object["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push((key.clone(), Test::In(BTreeSet::from([value]))));
        }
        for expression in object["matchExpressions"].as_array().into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect();
            let test = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::Absent,
                other => {
                    let shown: String = other.chars().take(64).collect();
                    return Err(ApiError::bad_request(format!(
                        "\"{shown}\" is not a valid label selector operator"
                    )));
                }
            };
            requirements.push((key, test));
        }
        Ok(LabelSelector { requirements })
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether all it asks for holds.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|(key, test)| {
            let value = labels.get(key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                // An object without the label is none of the values.
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::GreaterThan(limit) => number().is_some_and(|number| number > *limit),
                Test::LessThan(limit) => number().is_some_and(|number| number < *limit),
            }
        })
    }
}

impl fmt::Display for LabelSelector {
    /// In the form that [`LabelSelector::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (key, test)) in self.requirements.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            let list = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
            match test {
                Test::Exists => write!(f, "{key}")?,
                Test::Absent => write!(f, "!{key}")?,
                Test::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values))?,
                Test::In(values) => write!(f, "{key} in ({})", list(values))?,
                Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values))?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", list(values))?,
                Test::GreaterThan(limit) => write!(f, "{key}>{limit}")?,
                Test::LessThan(limit) => write!(f, "{key}<{limit}")?,
            }
        }
        Ok(())
    }
}

/// A field selector: every field has, or has not, a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    requirements: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Reads `a=b,c!=d`, with `\` before `\`, `,` and `=` in values, for the objects of `resource`.
    ///
    /// # Errors
    /// `BadRequest`, also for a field that cannot be selected by.
    pub fn parse(text: &str, resource: &Resource) -> Result<FieldSelector, ApiError> {
        let mut requirements = Vec::new();
        for part in split(text, ',').into_iter().filter(|part| !part.is_empty()) {
            let (path, equal, value) = term(part).ok_or_else(|| {
                let (shown, part) = (shown(text), shown(part));
                ApiError::bad_request(format!("invalid selector: '{shown}'; can't understand '{part}'"))
            })?;
            let value = unescape(value).map_err(ApiError::bad_request)?;
            let Some(path) = stored_path(path, resource) else {
                let path = shown(path);
                // Upstream's words for kinds that say themselves what can be selected by, and for those that do not.
                let plain = resource.selectable.is_empty() && !resource.custom && resource.view.is_none();
                return Err(ApiError::bad_request(if plain {
                    format!(
                        "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {path}")
                }));
            };
            requirements.push((path.to_owned(), equal, value));
            if requirements.len() > REQUIREMENTS_MAX {
                return Err(ApiError::bad_request(format!(
                    "more than {REQUIREMENTS_MAX} requirements"
                )));
            }
        }
        Ok(FieldSelector { requirements })
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether all it asks for holds.
    pub fn matches(&self, object: &Object) -> bool {
        self.requirements
            .iter()
            .all(|(path, equal, value)| (object.field(path).unwrap_or_default() == value) == *equal)
    }
}

/// What a field selector's path is called in the stored objects of `resource`; `None` when it cannot be selected by.
fn stored_path<'a>(path: &'a str, resource: &Resource) -> Option<&'a str> {
    if matches!(path, "metadata.name" | "metadata.namespace") {
        return Some(path);
    }
    match &resource.view {
        Some(view) => (view.field)(path),
        None => Some(path).filter(|path| resource.selectable.iter().any(|selectable| selectable == path)),
    }
}

/// The value that a field selector, as in a query, asks the field at `path` to be equal to; `None` when it does not, or is
/// none.
pub fn exact_match(selector: &str, path: &str) -> Option<String> {
    let mut terms = split(selector, ',').into_iter().filter_map(term);
    let (.., value) = terms.find(|(found, equal, _)| *found == path && *equal)?;
    unescape(value).ok()
}

/// Splits at `separator`, but not behind a backslash.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut begin, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == separator {
            parts.push(&text[begin..at]);
            begin = at + c.len_utf8();
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// Field, whether it is to be equal, and the value as written: at the first operator.
fn term(text: &str) -> Option<(&str, bool, &str)> {
    let at = text.char_indices().map(|(at, _)| text.split_at(at));
    for (path, rest) in at {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((path, equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    const SEQUENCE: &str = "invalid field selector: invalid escape sequence";
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("{SEQUENCE}: \\{c}")),
                None => return Err(format!("{SEQUENCE}: \\")),
            },
            '=' | ',' => {
                let code = u32::from(c);
                return Err(format!(
                    "invalid field selector: unescaped character in value: {code}"
                ));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// What a message repeats of a query.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_operator() {
        let object = labels(&[("app", "web"), ("tier", "front"), ("n", "7"), ("empty", "")]);
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web , tier = front", true),
            ("app!=web", false),
            ("gone!=web", true),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("gone notin (api)", true),
            ("app", true),
            ("gone", false),
            ("!gone", true),
            ("! app", false),
            ("n>6,n<8", true),
            ("n>7", false),
            ("app>1", false),
            ("empty=", true),
            ("empty in (,x)", true),
        ] {
            assert_eq!(
                LabelSelector::parse(selector).unwrap().matches(&object),
                expected,
                "{selector}"
            );
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "=", "a b", "a in b", "a in (b", "a,", ",a", "a>x", "!", "a=b=c", "(", "a=b)",
        ] {
            assert_eq!(
                LabelSelector::parse(text).unwrap_err().reason.code(),
                400,
                "{text}"
            );
        }
    }

    #[test]
    fn objects() {
        let selector = LabelSelector::of_object(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back"]},
                {"key": "gone", "operator": "DoesNotExist"},
            ],
        }))
        .unwrap();
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "back")])));
        assert!(!selector.matches(&labels(&[("app", "web")])));
        assert_eq!(selector.to_string(), "app=web,tier in (back,front),!gone");
        assert!(
            LabelSelector::of_object(&json!({"matchExpressions": [{"key": "a", "operator": "Maybe"}]}))
                .is_err()
        );
    }

    #[test]
    fn fields() {
        let resource = Resource {
            selectable: vec!["spec.nodeName".to_owned()],
            ..crate::resource::tests::widgets()
        };
        let key = crate::ObjectKey {
            resource: resource.group_resource(),
            namespace: "a".to_owned(),
            name: "b".to_owned(),
        };
        let object = Object::new(
            key,
            crate::Version(1),
            json!({"spec": {"nodeName": "n,1"}}),
            &resource.selectable,
        );
        for (text, expected) in [
            ("metadata.name=b", true),
            ("metadata.namespace!=a", false),
            ("spec.nodeName=n\\,1", true),
            ("spec.nodeName==n\\,1,metadata.name==b", true),
            ("spec.nodeName!=", true),
        ] {
            assert_eq!(
                FieldSelector::parse(text, &resource).unwrap().matches(&object),
                expected,
                "{text}"
            );
        }
        for text in [
            "spec.other=x",
            "metadata.name",
            "metadata.name=a\\x",
            "metadata.name=a=b",
        ] {
            assert!(FieldSelector::parse(text, &resource).is_err(), "{text}");
        }
        for (text, message) in [
            ("spec.other=x", "field label not supported: spec.other"),
            ("=x", "field label not supported: "),
            (
                "metadata.name",
                "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
            ),
            (
                "metadata.name=a\\x",
                "invalid field selector: invalid escape sequence: \\x",
            ),
            (
                "metadata.name=a!=b",
                "invalid field selector: unescaped character in value: 61",
            ),
        ] {
            assert_eq!(
                FieldSelector::parse(text, &resource).unwrap_err().message,
                message
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(
            keys in prop::collection::vec("([a-z][a-z0-9]{0,3}(\\.[a-z0-9]{1,3})?/)?[a-zA-Z]([a-z0-9._-]{0,8}[a-z0-9])?", 0..6),
            values in prop::collection::vec("([a-zA-Z0-9]([a-zA-Z0-9_.-]{0,5}[a-z0-9])?)?", 1..4),
            kinds in prop::collection::vec(0u8..6, 6),
        ) {
            let values: BTreeSet<String> = values.into_iter().collect();
            let requirements = keys.into_iter().zip(kinds).map(|(key, kind)| (key, match kind {
                0 => Test::Exists,
                1 => Test::Absent,
                2 => Test::In(values.clone()),
                3 => Test::NotIn(values.clone()),
                4 => Test::GreaterThan(-3),
                _ => Test::LessThan(12),
            }));
            let selector = LabelSelector { requirements: requirements.collect() };
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn nothing_panics(text in ".{0,64}") {
            LabelSelector::parse(&text).ok();
            FieldSelector::parse(&text, &crate::resource::tests::widgets()).ok();
        }
    }
}
