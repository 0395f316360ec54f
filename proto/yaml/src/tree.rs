//! Documents as trees of nodes.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

/// How much a file may ask of the reader.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest text, bytes.
    pub max_bytes: usize,
    /// Deepest nesting.
    pub max_depth: usize,
    /// Most bytes that aliases may copy, so that a few lines cannot fill the memory.
    pub max_alias_bytes: usize,
}

impl Limits {
    /// Files of up to 4 MiB, nested up to 64 deep, whose aliases copy at most 1 MiB.
    pub const DEFAULT: Limits = Limits {
        max_bytes: 4 << 20,
        max_depth: 64,
        max_alias_bytes: 1 << 20,
    };
}

/// A node of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Line in the file, from 1: that of its key, where it has one.
    pub line: u32,
    /// What the node holds.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A single value, not yet given a type.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file, without duplicate keys.
    Map(Vec<(String, Node)>),
}

/// A single value, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text, quotes and escapes resolved.
    pub text: String,
    /// Written without quotes: may also be read as a number, a boolean or null.
    pub plain: bool,
}

/// Why a document could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct SyntaxError {
    /// Line in the file, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

impl SyntaxError {
    fn new(line: u32, message: impl Into<String>) -> Self {
        SyntaxError {
            line,
            message: message.into(),
        }
    }
}

impl Node {
    /// Whether the node is absent in all but name: empty, `null` or `~`.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(s) => s.plain && matches!(s.text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            _ => false,
        }
    }

    /// The scalar's text; `None` for a list, a map or null.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(s) if !self.is_null() => Some(&s.text),
            _ => None,
        }
    }

    /// The list's items.
    pub fn list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The map's entries.
    pub fn map(&self) -> Option<&[(String, Node)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The map's entry of this name, exactly as written.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.map()?
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node)
    }

    /// What the node is, for a message: `a list`, `a map`, `nothing` or the text in backquotes.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Scalar(_) if self.is_null() => "nothing".to_owned(),
            Value::Scalar(s) => format!("`{}`", crate::units::shown(&s.text)),
        }
    }

    /// Roughly what a copy of this node costs, bytes.
    fn weight(&self) -> usize {
        const NODE: usize = size_of::<Node>();
        match &self.value {
            Value::Scalar(s) => NODE + s.text.len(),
            Value::List(items) => NODE + items.iter().map(Node::weight).sum::<usize>(),
            Value::Map(entries) => {
                NODE + entries
                    .iter()
                    .map(|(key, node)| NODE + key.len() + node.weight())
                    .sum::<usize>()
            }
        }
    }
}

/// Reads the documents of a file. Each stands alone: a document that cannot be read does not take the others with
/// it. Empty documents are left out.
///
/// # Errors
/// When the text is longer than the limit, so that nothing was read.
pub fn documents(text: &str, limits: &Limits) -> Result<Vec<Result<Node, SyntaxError>>, SyntaxError> {
    if text.len() > limits.max_bytes {
        let message = format!(
            "{} bytes, more than the {} this version reads",
            text.len(),
            limits.max_bytes
        );
        return Err(SyntaxError::new(1, message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parts = split(text);
    Ok(parts
        .into_iter()
        .filter_map(|(line, part)| document(part, line, limits).transpose())
        .collect())
}

/// Cuts a file at its `---` lines: (number of the lines before, text). A part of comments and directives only
/// belongs to the document that follows it.
fn split(text: &str) -> Vec<(u32, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut line, mut at) = (0, 0, 0, 0);
    let mut has_content = false;
    for row in text.split_inclusive('\n') {
        let trimmed = row.trim_end();
        let marker = trimmed == "---" || trimmed.starts_with("--- ") || trimmed.starts_with("---\t");
        if marker && has_content {
            parts.push((start_line, &text[start..at]));
            (start, start_line, has_content) = (at, line, false);
        }
        // A marker alone is no content: two in a row hold an empty document between them, which the parser skips.
        has_content |= marker || !(trimmed.is_empty() || trimmed.starts_with(['#', '%']));
        at += row.len();
        line += 1;
    }
    if start < text.len() {
        parts.push((start_line, &text[start..]));
    }
    parts
}

/// Reads the one document of `text`, whose first line is line `before + 1` of the file.
fn document(text: &str, before: u32, limits: &Limits) -> Result<Option<Node>, SyntaxError> {
    let mut builder = Builder {
        limits,
        alias_bytes: 0,
        stack: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
    };
    for event in Parser::new(StrInput::new(text)) {
        let (event, span) = event.map_err(|err| scan_error(&err, before))?;
        builder.event(event, before + number(span.start.line()))?;
    }
    Ok(builder.root.filter(|node| !node.is_null()))
}

fn scan_error(err: &ScanError, before: u32) -> SyntaxError {
    SyntaxError::new(
        before + number(err.marker().line()),
        format!("not valid YAML: {}", err.info()),
    )
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A list or map that is still open.
struct Open {
    anchor: usize,
    line: u32,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map {
        entries: Vec<(String, Node)>,
        seen: BTreeSet<String>,
        key: Option<(String, u32)>,
    },
}

struct Builder<'a> {
    limits: &'a Limits,
    alias_bytes: usize,
    stack: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    root: Option<Node>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, line: u32) -> Result<(), SyntaxError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                // `!!str 5` is text, as if it were quoted.
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let scalar = Scalar {
                    text: text.into_owned(),
                    plain,
                };
                self.place(
                    Node {
                        line,
                        value: Value::Scalar(scalar),
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, _) => self.open(anchor, line, OpenKind::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(
                anchor,
                line,
                OpenKind::Map {
                    entries: Vec::new(),
                    seen: BTreeSet::new(),
                    key: None,
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { anchor, line, kind }) = self.stack.pop() else {
                    return Ok(());
                };
                let value = match kind {
                    OpenKind::List(items) => Value::List(items),
                    OpenKind::Map { entries, .. } => Value::Map(entries),
                };
                self.place(Node { line, value }, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(SyntaxError::new(
                        line,
                        "an alias to something that is not complete yet",
                    ));
                };
                self.alias_bytes = self.alias_bytes.saturating_add(node.weight());
                if self.alias_bytes > self.limits.max_alias_bytes {
                    let message = format!("aliases copy more than {} bytes", self.limits.max_alias_bytes);
                    return Err(SyntaxError::new(line, message));
                }
                let node = Node { line, ..node.clone() };
                self.place(node, 0)
            }
            Event::DocumentStart(_) if self.root.is_some() => Err(SyntaxError::new(
                line,
                "a second document begins here without a line `---`",
            )),
            _ => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, line: u32, kind: OpenKind) -> Result<(), SyntaxError> {
        if self.stack.len() >= self.limits.max_depth {
            let message = format!("nested more than {} deep", self.limits.max_depth);
            return Err(SyntaxError::new(line, message));
        }
        self.stack.push(Open { anchor, line, kind });
        Ok(())
    }

    /// Puts a finished node where it belongs: into the open list or map, or as the root.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            // Anchors inside anchors are copied twice: the same bound holds for them.
            self.alias_bytes = self.alias_bytes.saturating_add(node.weight());
            if self.alias_bytes > self.limits.max_alias_bytes {
                let message = format!("anchors hold more than {} bytes", self.limits.max_alias_bytes);
                return Err(SyntaxError::new(node.line, message));
            }
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { entries, seen, key }) => match key.take() {
                Some((name, line)) => entries.push((name, Node { line, ..node })),
                None => {
                    let Value::Scalar(scalar) = node.value else {
                        return Err(SyntaxError::new(
                            node.line,
                            "a key must be a single word, not a list or a map",
                        ));
                    };
                    if !seen.insert(scalar.text.clone()) {
                        let message =
                            format!("the key `{}` is there twice", crate::units::shown(&scalar.text));
                        return Err(SyntaxError::new(node.line, message));
                    }
                    *key = Some((scalar.text, node.line));
                }
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
