//! Typed values of a configuration file. Mistakes are collected, so that one run tells them all.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::keys::{self, Section};
use crate::{Limits, Node, Problem, Value, tree, units};

/// A configuration file that is being read.
#[derive(Debug)]
pub struct Settings {
    root: Node,
    problems: Vec<Problem>,
    without_effect: Vec<String>,
}

/// A value outside this range is a problem.
pub type Range<T> = RangeInclusive<T>;

impl Settings {
    /// No file: every value is absent.
    pub fn empty() -> Self {
        let root = Node {
            line: 1,
            value: Value::Map(Vec::new()),
        };
        Settings {
            root,
            problems: Vec::new(),
            without_effect: Vec::new(),
        }
    }

    /// Reads a file of one document, checks its `apiVersion`, `kind` and keys.
    ///
    /// # Errors
    /// When there is no document to take values from. Every other mistake waits for [`Settings::finish`].
    pub fn open(
        text: &str,
        versions: &[&str],
        kind: &str,
        sections: &[Section],
    ) -> Result<Self, Vec<Problem>> {
        let syntax = |err: tree::SyntaxError| vec![Problem::new(err.line, "", err.message)];
        let mut documents = tree::documents(text, &Limits::DEFAULT)
            .map_err(syntax)?
            .into_iter();
        let root = match documents.next() {
            None => Node {
                line: 1,
                value: Value::Map(Vec::new()),
            },
            Some(document) => document.map_err(syntax)?,
        };
        if let Some(second) = documents.next() {
            let line = second.map_or_else(|err| err.line, |node| node.line);
            return Err(vec![Problem::new(
                line,
                "",
                "a configuration file has one document, and a second begins here",
            )]);
        }
        if root.map().is_none() {
            let message = format!("expected a map, found {}", root.describe());
            return Err(vec![Problem::new(root.line, "", message)]);
        }
        let checked = keys::check(&root, sections);
        let mut settings = Settings {
            root,
            problems: checked.problems,
            without_effect: checked.without_effect,
        };
        settings.expect("apiVersion", versions);
        settings.expect("kind", &[kind]);
        Ok(settings)
    }

    /// Keys that were accepted and do nothing, or everything that is wrong, in the order of the file.
    ///
    /// # Errors
    /// The problems found so far.
    pub fn finish(mut self) -> Result<Vec<String>, Vec<Problem>> {
        if self.problems.is_empty() {
            return Ok(self.without_effect);
        }
        self.problems.sort_by_key(|problem| problem.line);
        Err(self.problems)
    }

    /// Adds a mistake at `path`.
    pub fn problem(&mut self, path: &str, message: impl Into<String>, hint: Option<String>) {
        let line = self.find(path).map_or(self.root.line, |node| node.line);
        self.problems.push(Problem {
            line,
            path: path.to_owned(),
            message: message.into(),
            hint,
        });
    }

    /// A text; absent when the key is, or when it is empty.
    pub fn text(&mut self, path: &str) -> Option<String> {
        let node = self.find(path)?;
        if node.is_null() {
            return None;
        }
        let Some(text) = node.text() else {
            let message = format!("expected a text, found {}", node.describe());
            self.problem(path, message, None);
            return None;
        };
        let text = text.trim().to_owned();
        if let Some(placeholder) = placeholder(&text) {
            let message = format!("`{}` is still to be filled in", units::shown(&text));
            self.problem(
                path,
                message,
                Some(format!("replace {placeholder} by the real value")),
            );
            return None;
        }
        Some(text).filter(|text| !text.is_empty())
    }

    /// A value with a textual form, for example an address.
    pub fn parsed<T: FromStr>(&mut self, path: &str, expected: &str) -> Option<T> {
        let text = self.text(path)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem(path, format!("`{}` is not {expected}", units::shown(&text)), None);
        }
        parsed
    }

    /// A whole number within `range`.
    pub fn number<T: FromStr + PartialOrd + fmt::Display>(
        &mut self,
        path: &str,
        range: Range<T>,
    ) -> Option<T> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let value = self.parsed(path, &expected)?;
        self.within(path, value, &range, T::to_string)
    }

    /// A duration; a number without a unit counts `bare`.
    pub fn duration(&mut self, path: &str, bare: Duration, range: Range<Duration>) -> Option<Duration> {
        let text = self.text(path)?;
        match units::duration(&text, bare) {
            Ok(value) => self.within(path, value, &range, |d| format!("{d:?}")),
            Err(message) => {
                self.problem(path, message, None);
                None
            }
        }
    }

    /// A size in bytes.
    pub fn bytes(&mut self, path: &str, range: Range<u64>) -> Option<u64> {
        let text = self.text(path)?;
        match units::bytes(&text) {
            Ok(value) => self.within(path, value, &range, |b| format!("{b} bytes")),
            Err(message) => {
                self.problem(path, message, None);
                None
            }
        }
    }

    /// A map of texts; absent when the key is.
    pub fn text_map(&mut self, path: &str) -> Option<BTreeMap<String, String>> {
        let node = self.find(path)?;
        if node.is_null() {
            return None;
        }
        let Some(entries) = node.map() else {
            let message = format!("expected a map, found {}", node.describe());
            self.problem(path, message, None);
            return None;
        };
        let entries: Vec<(String, Option<String>)> = entries
            .iter()
            .map(|(key, value)| {
                (
                    key.clone(),
                    value
                        .text()
                        .map(str::to_owned)
                        .or(value.is_null().then(String::new)),
                )
            })
            .collect();
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            match value {
                Some(value) => {
                    map.insert(key, value);
                }
                None => self.problem(
                    path,
                    format!("the value of `{}` must be a text", units::shown(&key)),
                    None,
                ),
            }
        }
        Some(map)
    }

    /// A list of texts; absent when the key is.
    pub fn text_list(&mut self, path: &str) -> Option<Vec<String>> {
        let node = self.find(path)?;
        if node.is_null() {
            return None;
        }
        let texts = node.list().and_then(|items| {
            let texts = items.iter().map(|item| item.text().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        if texts.is_none() {
            let message = format!("expected a list of texts, found {}", node.describe());
            self.problem(path, message, None);
        }
        texts
    }

    fn within<T: PartialOrd>(
        &mut self,
        path: &str,
        value: T,
        range: &Range<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        let message = format!(
            "{} is out of range: from {} to {}",
            show(&value),
            show(range.start()),
            show(range.end())
        );
        self.problem(path, message, None);
        None
    }

    fn expect(&mut self, path: &str, wanted: &[&str]) {
        match self.text(path) {
            Some(text) if wanted.contains(&text.as_str()) => {}
            Some(text) => {
                let message = format!("`{}` is not what this program reads", units::shown(&text));
                self.problem(
                    path,
                    message,
                    Some(format!("expected `{}`", wanted.join("` or `"))),
                );
            }
            None => {
                let first = wanted.first().copied().unwrap_or_default();
                self.problem(path, "missing", Some(format!("write `{path}: {first}`")));
            }
        }
    }

    fn find(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(&self.root, |node, name| {
            let (_, child) = node
                .map()?
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(child)
        })
    }
}

/// The first `<PLACEHOLDER>` of a text.
fn placeholder(text: &str) -> Option<&str> {
    let start = text.find('<')?;
    let end = start + text[start..].find('>')?;
    Some(&text[start..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[Section] = &[
        Section {
            path: "",
            used: &["apiVersion", "kind"],
            inert: &[],
        },
        Section {
            path: "a",
            used: &["size", "time", "n", "t", "labels"],
            inert: &["old"],
        },
    ];

    fn open(body: &str) -> Settings {
        Settings::open(&format!("apiVersion: v1\nkind: K\n{body}"), &["v1"], "K", KEYS).unwrap()
    }

    #[test]
    fn values_come_with_their_types() {
        let mut s = open("a: {size: 64MiB, Time: 15, n: 3, t: ' x ', labels: {a: 1, b: }, old: 1}\n");
        assert_eq!(s.bytes("a.size", 0..=u64::MAX), Some(64 << 20));
        let second = Duration::from_secs(1);
        assert_eq!(
            s.duration("a.time", second, second..=second * 60),
            Some(second * 15)
        );
        assert_eq!(s.number("a.n", 1..=5), Some(3));
        assert_eq!(s.text("a.t"), Some("x".into()));
        assert_eq!(s.text("a.missing"), None);
        assert_eq!(s.text_map("a.labels").unwrap().len(), 2);
        assert_eq!(s.finish().unwrap(), ["a.old"]);
    }

    #[test]
    fn every_mistake_is_told_at_once_in_the_order_of_the_file() {
        let mut s = open("a:\n  size: big\n  time: 2h\n  n: 9\n  t: <IP>:1\n  labels: [x]\n");
        let second = Duration::from_secs(1);
        s.text_map("a.labels");
        s.bytes("a.size", 0..=1);
        s.duration("a.time", second, second..=second * 60);
        s.number("a.n", 1..=5);
        s.text("a.t");
        let shown: Vec<String> = s.finish().unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "line 4: a.size: `big` is not a size: write for example 64MiB, 10MB or 4096",
                "line 5: a.time: 7200s is out of range: from 1s to 60s",
                "line 6: a.n: 9 is out of range: from 1 to 5",
                "line 7: a.t: `<IP>:1` is still to be filled in (replace <IP> by the real value)",
                "line 8: a.labels: expected a map, found a list",
            ]
        );
    }

    #[test]
    fn the_wrong_file_is_told() {
        let problems = |text| match Settings::open(text, &["v1", "v2"], "K", KEYS) {
            Ok(settings) => settings.finish().unwrap_err(),
            Err(problems) => problems,
        };
        for (text, told) in [
            ("", "apiVersion: missing (write `apiVersion: v1`)"),
            ("apiVersion: v1\nkind: J\n", "expected `K`"),
            ("- a\n", "expected a map, found a list"),
            ("a: 1\n---\nb: 1\n", "one document"),
            ("a: [\n", "not valid YAML"),
        ] {
            let shown = problems(text)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n");
            assert!(shown.contains(told), "{shown}");
        }
    }
}
