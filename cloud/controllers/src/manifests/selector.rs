//! Which nodes a manifest means.

use std::collections::{BTreeMap, BTreeSet};

use ledge_proto::ids::Scope;
use ledge_yaml::Node;

use super::fields::{Faults, Fields};

/// The label every node has: its name.
pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";

/// A Kubernetes node selector: any of its terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSelector {
    terms: Vec<Term>,
}

/// All of its requirements. A term without requirements selects nothing, as in Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Term {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    subject: Subject,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Label(String),
    /// The node's name.
    Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
}

impl NodeSelector {
    /// Reads `spec.nodeSelector`: `nodeSelectorTerms`, or directly what a term holds.
    pub(super) fn decode(node: &Node, path: String, faults: &mut Faults) -> NodeSelector {
        let mut fields = Fields::of(node, path, faults);
        let mut terms = Vec::new();
        for (path, item) in fields.list("nodeSelectorTerms", faults) {
            let mut term = Fields::of(item, path, faults);
            terms.push(Term::decode(&mut term, faults));
            term.finish(faults);
        }
        let direct = Term::decode(&mut fields, faults);
        if !direct.requirements.is_empty() {
            terms.push(direct);
        }
        let (line, path, before) = (fields.line, fields.path.clone(), faults.errors.len());
        fields.finish(faults);
        if terms.iter().all(|term| term.requirements.is_empty()) && faults.errors.len() == before {
            faults.error_with_hint(
                line,
                &path,
                "selects no node",
                "name one: nodeSelectorTerms[0].matchExpressions[0] with key kubernetes.io/hostname, operator In",
            );
        }
        NodeSelector { terms }
    }

    /// Whether the node of this name and these labels is meant.
    pub(super) fn selects(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().any(|term| {
            !term.requirements.is_empty()
                && term
                    .requirements
                    .iter()
                    .all(|requirement| requirement.holds(name, labels))
        })
    }

    /// Whether only nodes it names outright can be meant.
    pub(super) fn is_by_name(&self) -> bool {
        self.terms.iter().all(|term| {
            term.requirements
                .iter()
                .any(|requirement| requirement.names().is_some())
        })
    }

    /// Nodes it names outright: they may not have connected yet.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.terms
            .iter()
            .flat_map(|term| &term.requirements)
            .filter_map(Requirement::names)
            .flatten()
    }
}

impl Term {
    fn decode(fields: &mut Fields<'_>, faults: &mut Faults) -> Term {
        let mut requirements = Vec::new();
        for (path, item) in fields.list("matchExpressions", faults) {
            let mut fields = Fields::of(item, path, faults);
            let key = fields.text("key", faults).unwrap_or_default();
            // KubeEdge took the first value for the node's name whatever the key; its own examples leave it empty.
            let subject = if key.is_empty() || key == HOSTNAME {
                Subject::Name
            } else {
                Subject::Label(key.to_owned())
            };
            requirements.extend(Requirement::decode(subject, fields, faults));
        }
        for (path, item) in fields.list("matchFields", faults) {
            let mut fields = Fields::of(item, path, faults);
            match fields.required_text("key", faults) {
                Some("metadata.name") | None => {}
                Some(other) => {
                    let message = format!("`{other}` is not a field of a node that can be selected");
                    faults.error_with_hint(
                        fields.line,
                        &fields.path_of("key"),
                        message,
                        "only metadata.name is",
                    );
                }
            }
            requirements.extend(Requirement::decode(Subject::Name, fields, faults));
        }
        if let Some(node) = fields.take("matchLabels") {
            let path = fields.path_of("matchLabels");
            match node.map() {
                None => faults.error(
                    node.line,
                    &path,
                    format!("expected a map, found {}", node.describe()),
                ),
                Some(entries) => requirements.extend(entries.iter().map(|(key, value)| Requirement {
                    subject: if key == HOSTNAME {
                        Subject::Name
                    } else {
                        Subject::Label(key.clone())
                    },
                    operator: Operator::In([value.text().unwrap_or_default().to_owned()].into()),
                })),
            }
        }
        let term = Term { requirements };
        for name in term.requirements.iter().filter_map(Requirement::names).flatten() {
            if let Err(err) = Scope::node(name) {
                faults.error(fields.line, &fields.path, err.to_string());
            }
        }
        term
    }
}

impl Requirement {
    fn decode(subject: Subject, mut fields: Fields<'_>, faults: &mut Faults) -> Option<Requirement> {
        const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
        let operator = fields.required_text("operator", faults);
        let mut values = BTreeSet::new();
        for (path, item) in fields.list("values", faults) {
            match item.text() {
                Some(text) => {
                    values.insert(text.to_owned());
                }
                None => faults.error(
                    item.line,
                    &path,
                    format!("expected a text, found {}", item.describe()),
                ),
            }
        }
        let (line, path) = (fields.line, fields.path.clone());
        fields.finish(faults);
        let mut number = || match values.first().map(|v| v.parse()) {
            Some(Ok(number)) if values.len() == 1 => Some(number),
            _ => {
                faults.error(line, &path, "expected exactly one whole number in `values`");
                None
            }
        };
        let operator = match operator? {
            "Gt" => Operator::Gt(number()?),
            "Lt" => Operator::Lt(number()?),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            list @ ("In" | "NotIn") => {
                if values.is_empty() {
                    faults.error(line, &path, format!("`{list}` needs at least one of `values`"));
                    return None;
                }
                if list == "In" {
                    Operator::In(values)
                } else {
                    Operator::NotIn(values)
                }
            }
            other => {
                let hint = ledge_yaml::names::hint(other, OPERATORS).unwrap_or_default();
                faults.error_with_hint(
                    line,
                    &format!("{path}.operator"),
                    format!("unknown operator `{other}`"),
                    hint,
                );
                return None;
            }
        };
        Some(Requirement { subject, operator })
    }

    fn names(&self) -> Option<impl Iterator<Item = &str>> {
        match (&self.subject, &self.operator) {
            (Subject::Name, Operator::In(names)) => Some(names.iter().map(String::as_str)),
            _ => None,
        }
    }

    fn holds(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let value = match &self.subject {
            Subject::Name => Some(name),
            Subject::Label(key) => labels.get(key).map(String::as_str),
        };
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt(bound) => number().is_some_and(|n| n > *bound),
            Operator::Lt(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledge_yaml::{Limits, tree::documents};

    fn decode(text: &str) -> (NodeSelector, Vec<String>) {
        let node = documents(text, &Limits::DEFAULT).unwrap().remove(0).unwrap();
        let mut faults = Faults::default();
        let selector = NodeSelector::decode(&node, "s".into(), &mut faults);
        (selector, faults.errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn selectors_select_as_in_kubernetes() {
        let labels = BTreeMap::from([
            ("zone".to_owned(), "a".to_owned()),
            ("cores".to_owned(), "4".to_owned()),
        ]);
        for (text, want) in [
            ("matchLabels: {zone: a}", true),
            ("matchLabels: {zone: b}", false),
            ("matchLabels: {kubernetes.io/hostname: n1}", true),
            (
                "matchExpressions: [{key: zone, operator: In, values: [b, a]}]",
                true,
            ),
            (
                "matchExpressions: [{key: zone, operator: NotIn, values: [a]}]",
                false,
            ),
            (
                "matchExpressions: [{key: rack, operator: NotIn, values: [a]}]",
                true,
            ),
            ("matchExpressions: [{key: zone, operator: Exists}]", true),
            ("matchExpressions: [{key: rack, operator: DoesNotExist}]", true),
            (
                "matchExpressions: [{key: cores, operator: Gt, values: ['3']}]",
                true,
            ),
            (
                "matchExpressions: [{key: cores, operator: Lt, values: [4]}]",
                false,
            ),
            (
                "matchExpressions: [{key: rack, operator: Gt, values: [4]}]",
                false,
            ),
            ("matchExpressions: [{key: '', operator: In, values: [n1]}]", true),
            (
                "matchFields: [{key: metadata.name, operator: In, values: [n1]}]",
                true,
            ),
            (
                "nodeSelectorTerms: [{matchLabels: {zone: b}}, {matchLabels: {cores: '4'}}]",
                true,
            ),
            (
                "nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: Exists}, {key: rack, operator: Exists}]}]",
                false,
            ),
        ] {
            let (selector, errors) = decode(text);
            assert!(errors.is_empty(), "{text}: {errors:?}");
            assert_eq!(selector.selects("n1", &labels), want, "{text}");
        }
    }

    #[test]
    fn a_wrong_selector_says_what_is_wrong() {
        for (text, why) in [
            ("nodeSelectorTerms: []", "selects no node"),
            ("nodeSelectorTerms: [{}]", "selects no node"),
            ("kubernetes.io/hostname: n1", "unknown field"),
            (
                "matchExpressions: [{key: a, operator: Is}]",
                "unknown operator `Is`",
            ),
            ("matchExpressions: [{key: a, operator: in}]", "did you mean `In`?"),
            ("matchExpressions: [{key: a, operator: In}]", "needs at least one"),
            (
                "matchExpressions: [{key: a, operator: Gt, values: [x]}]",
                "exactly one whole number",
            ),
            (
                "matchExpressions: [{key: '', operator: In, values: [Edge_1]}]",
                "not a valid node name",
            ),
            (
                "matchFields: [{key: metadata.uid, operator: In, values: [a]}]",
                "only metadata.name is",
            ),
            ("matchLabels: [a]", "expected a map"),
        ] {
            let (_, errors) = decode(text);
            assert!(errors.iter().any(|e| e.contains(why)), "{text}: {errors:?}");
        }
    }
}
