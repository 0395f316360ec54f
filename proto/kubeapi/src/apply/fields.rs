//! Sets of fields: who owns what. The JSON of a set is `fieldsV1` of `metadata.managedFields`.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/v6/fieldpath`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::schema::{ListType, MAX_DEPTH, Schema, cause::quote};

/// One step of a path. Keys and values are JSON in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// A field of an object.
    Field(String),
    /// An element of a list of type `map`, by the values of its keys.
    Key(String),
    /// An element of a list of type `set`.
    Value(String),
    /// An element of a list by its place.
    Index(i64),
}

impl Element {
    pub(super) fn field(name: &str) -> Element {
        Element::Field(name.to_owned())
    }

    /// Of what `element` of `list` is told apart by; why not, otherwise.
    pub(super) fn of_list(list: &Schema, element: &Value) -> Result<Element, String> {
        match &list.list {
            ListType::Atomic => Err("invalid indexing of non-associative list".to_owned()),
            ListType::Set => match element {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".to_owned())
                }
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null".to_owned())
                }
                scalar => Ok(Element::Value(canonical(scalar).to_string())),
            },
            ListType::Map(keys) => {
                let fields = match element {
                    Value::Object(fields) => fields,
                    Value::Null => {
                        return Err("associative list with keys may not have a null element".to_owned());
                    }
                    _ => return Err("associative list with keys may not have non-map elements".to_owned()),
                };
                let default = |key: &String| list.items.as_ref()?.properties.get(key)?.default.as_ref();
                let found = keys.iter().filter_map(|key| {
                    let value = fields.get(key).or_else(|| default(key))?;
                    Some((key.clone(), canonical(value)))
                });
                let found: BTreeMap<String, Value> = found.collect();
                if found.is_empty() {
                    let keys: Vec<String> = keys.iter().map(|key| quote(key)).collect();
                    return Err(format!(
                        "associative list with keys has an element that omits all key fields [{}] (and doesn't have \
                         default values for any key fields)",
                        keys.join(" ")
                    ));
                }
                Ok(Element::Key(
                    Value::Object(found.into_iter().collect()).to_string(),
                ))
            }
        }
    }

    /// As a name of `fieldsV1`.
    fn name(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(keys) => format!("k:{keys}"),
            Element::Value(value) => format!("v:{value}"),
            Element::Index(at) => format!("i:{at}"),
        }
    }

    /// From a name of `fieldsV1`; `None` for kinds of names that are not known, which are passed over.
    fn parse(name: &str) -> Result<Option<Element>, String> {
        let Some((kind, rest)) = name.split_once(':') else {
            return Err(format!("missing colon: {name}"));
        };
        let json = || serde_json::from_str::<Value>(rest).map_err(|error| error.to_string());
        Ok(match kind {
            "f" => Some(Element::Field(rest.to_owned())),
            "v" => Some(Element::Value(canonical(&json()?).to_string())),
            "i" => {
                let at = rest.parse().map_err(|_| format!("not an index: {rest}"))?;
                Some(Element::Index(at))
            }
            "k" => {
                let Value::Object(fields) = json()? else {
                    return Err(format!("not a key: {rest}"));
                };
                let sorted: BTreeMap<String, Value> = fields
                    .iter()
                    .map(|(key, value)| (key.clone(), canonical(value)))
                    .collect();
                Some(Element::Key(
                    Value::Object(sorted.into_iter().collect()).to_string(),
                ))
            }
            _ => None,
        })
    }

    /// As people read it, at the end of `path`.
    fn tell(&self, path: &mut String) {
        let told = |text: &str| match serde_json::from_str::<Value>(text) {
            Ok(Value::String(text)) => quote(&text),
            _ => text.to_owned(),
        };
        let result = match self {
            Element::Field(name) => write!(path, ".{name}"),
            Element::Key(keys) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let each = keys
                    .iter()
                    .map(|(key, value)| format!("{key}={}", told(&value.to_string())));
                write!(path, "[{}]", each.collect::<Vec<_>>().join(","))
            }
            Element::Value(value) => write!(path, "[={}]", told(value)),
            Element::Index(at) => write!(path, "[{at}]"),
        };
        // Writing to a string does not fail.
        result.unwrap_or_default();
    }
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.tell(&mut out);
        f.write_str(&out)
    }
}

/// Numbers that are equal look equal.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
            Some(float) if float.fract() == 0.0 && float.abs() < 9e15 => Value::from(float as i64),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

/// A set of paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fields {
    members: BTreeSet<Element>,
    /// None of them is empty.
    children: BTreeMap<Element, Fields>,
}

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    pub(super) fn insert(&mut self, path: &[Element]) {
        let Some((last, above)) = path.split_last() else {
            return;
        };
        let mut place = self;
        for element in above {
            place = place.children.entry(element.clone()).or_default();
        }
        place.members.insert(last.clone());
    }

    pub(super) fn has(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    pub(super) fn below(&self, element: &Element) -> Option<&Fields> {
        self.children.get(element)
    }

    pub(super) fn union(&self, other: &Fields) -> Fields {
        let mut out = self.clone();
        out.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            let merged = match out.children.get(element) {
                Some(own) => own.union(child),
                None => child.clone(),
            };
            out.children.insert(element.clone(), merged);
        }
        out
    }

    pub(super) fn intersection(&self, other: &Fields) -> Fields {
        let both = self.children.iter().filter_map(|(element, child)| {
            let both = child.intersection(other.children.get(element)?);
            (!both.is_empty()).then(|| (element.clone(), both))
        });
        Fields {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: both.collect(),
        }
    }

    /// The paths of `self` that are not in `other`, each by itself: what is below a path of `other` stays.
    pub(super) fn difference(&self, other: &Fields) -> Fields {
        let rest = self.children.iter().filter_map(|(element, child)| {
            let rest = match other.children.get(element) {
                Some(other) => child.difference(other),
                None => child.clone(),
            };
            (!rest.is_empty()).then(|| (element.clone(), rest))
        });
        Fields {
            members: self.members.difference(&other.members).cloned().collect(),
            children: rest.collect(),
        }
    }

    /// Only what is at or below the field `name`, or all but that.
    pub(super) fn filter_root(&self, name: &str, keep: bool) -> Fields {
        let wanted = |element: &Element| (*element == Element::field(name)) == keep;
        Fields {
            members: self
                .members
                .iter()
                .filter(|element| wanted(element))
                .cloned()
                .collect(),
            children: self
                .children
                .iter()
                .filter(|(element, _)| wanted(element))
                .map(|(element, child)| (element.clone(), child.clone()))
                .collect(),
        }
    }

    /// With the fields on the way to others, where the schema lists them: nobody owns those by themselves.
    pub(super) fn with_listed(&self, schema: Option<&Schema>) -> Fields {
        let mut out = Fields {
            members: self.members.clone(),
            children: BTreeMap::new(),
        };
        for (element, child) in &self.children {
            let below = match element {
                Element::Field(name) => {
                    if schema.is_some_and(|schema| schema.lists(name)) {
                        out.members.insert(element.clone());
                    }
                    schema.and_then(|schema| schema.field(name))
                }
                _ => schema.and_then(|schema| schema.items.as_ref()),
            };
            out.children
                .insert(element.clone(), child.with_listed(below.map(AsRef::as_ref)));
        }
        out
    }

    /// Paths as people read them, in order.
    pub(super) fn paths(&self) -> Vec<String> {
        fn walk(fields: &Fields, path: &mut String, out: &mut Vec<String>) {
            let end = path.len();
            for element in &fields.members {
                element.tell(path);
                out.push(path.clone());
                path.truncate(end);
            }
            for (element, child) in &fields.children {
                element.tell(path);
                walk(child, path, out);
                path.truncate(end);
            }
        }
        let mut out = Vec::new();
        walk(self, &mut String::new(), &mut out);
        out
    }

    /// `fieldsV1`.
    pub(super) fn json(&self) -> Value {
        let mut out = Map::new();
        for (element, child) in &self.children {
            out.insert(element.name(), child.json());
        }
        for element in &self.members {
            let at = out
                .entry(element.name())
                .or_insert_with(|| Value::Object(Map::new()));
            if let Some(child) = at.as_object_mut().filter(|child| !child.is_empty()) {
                child.insert(".".to_owned(), Value::Object(Map::new()));
            }
        }
        Value::Object(out)
    }

    /// Reads `fieldsV1`.
    pub(super) fn parse(json: &Value) -> Result<Fields, String> {
        let mut out = Fields::default();
        out.read(json, 0)?;
        Ok(out)
    }

    /// Whether the path read itself is a member.
    fn read(&mut self, json: &Value, depth: usize) -> Result<bool, String> {
        let Value::Object(names) = json else {
            return Err("fieldsV1 is made of objects".to_owned());
        };
        if depth > MAX_DEPTH {
            return Err("fieldsV1 is nested too deeply".to_owned());
        }
        let mut itself = names.is_empty();
        for (name, below) in names {
            if name == "." {
                itself = true;
                continue;
            }
            let Some(element) = Element::parse(name)? else {
                continue;
            };
            let mut child = Fields::default();
            if child.read(below, depth + 1)? {
                self.members.insert(element.clone());
            }
            if !child.is_empty() {
                self.children.insert(element, child);
            }
        }
        Ok(itself)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let value = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:l": {"i:0": {}}}});
        let fields = Fields::parse(&value).unwrap();
        assert_eq!(fields.json(), value);
        assert_eq!(
            fields.paths(),
            [
                ".metadata.labels",
                ".metadata.finalizers[=\"x\"]",
                ".metadata.labels.a",
                ".spec.l[0]",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
            ]
        );
        assert_eq!(
            Fields::parse(&json!({"k:{\"b\":1.0,\"a\":2}": {}})),
            Fields::parse(&json!({"k:{\"a\":2,\"b\":1}": {}}))
        );
        for wrong in [
            json!([]),
            json!({"x": {}}),
            json!({"k:[]": {}}),
            json!({"v:": {}}),
            json!({"i:x": {}}),
            json!({"f:a": 1}),
        ] {
            assert!(Fields::parse(&wrong).is_err(), "{wrong}");
        }
    }

    fn fields() -> impl Strategy<Value = Fields> {
        let path = prop::collection::vec("[ab]".prop_map(Element::Field), 1..4);
        prop::collection::vec(path, 0..6).prop_map(|paths| {
            let mut out = Fields::default();
            for path in paths {
                out.insert(&path);
            }
            out
        })
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in fields(), b in fields()) {
            let names = |fields: &Fields| fields.paths().into_iter().collect::<BTreeSet<_>>();
            let (of_a, of_b) = (names(&a), names(&b));
            prop_assert_eq!(names(&a.union(&b)), of_a.union(&of_b).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(names(&a.intersection(&b)), of_a.intersection(&of_b).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(names(&a.difference(&b)), of_a.difference(&of_b).cloned().collect::<BTreeSet<_>>());
            prop_assert_eq!(Fields::parse(&a.json()).unwrap(), a);
        }
    }
}
