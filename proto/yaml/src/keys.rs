//! Which keys a configuration file may have.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Node, Problem, names};

/// After so many problems a file is not looked at further.
const MAX_PROBLEMS: usize = 100;

/// Keys of one section of a configuration file. A key called `*` stands for any name.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Where the section is, for example `modules.cloudHub.quic`; empty for the top of the file.
    pub path: &'static str,
    /// Keys that do something.
    pub used: &'static [&'static str],
    /// Keys that are known, accepted, and do nothing.
    pub inert: &'static [&'static str],
}

/// What [`check`] found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Keys nobody knows, written twice, or of the wrong shape.
    pub problems: Vec<Problem>,
    /// Keys that are there and do nothing; whole sections where nothing does anything.
    pub without_effect: Vec<String>,
}

enum Known {
    Section(BTreeMap<&'static str, Known>),
    Used,
    Inert,
}

impl Known {
    fn does_something(&self) -> bool {
        match self {
            Known::Section(children) => children.values().any(Known::does_something),
            Known::Used => true,
            Known::Inert => false,
        }
    }
}

/// Compares the keys of a document with those known. Upper and lower case are the same, as they are for KubeEdge.
pub fn check(document: &Node, sections: &[Section]) -> Checked {
    let mut checked = Checked::default();
    let known = tree(sections);
    walk(document, &known, "", false, &mut checked);
    checked
}

fn tree(sections: &[Section]) -> BTreeMap<&'static str, Known> {
    let mut root = BTreeMap::new();
    for section in sections {
        let mut at = &mut root;
        for name in section.path.split('.').filter(|name| !name.is_empty()) {
            let child = at.entry(name).or_insert_with(|| Known::Section(BTreeMap::new()));
            if !matches!(child, Known::Section(_)) {
                // A section may be declared after its own name: the section wins.
                *child = Known::Section(BTreeMap::new());
            }
            match child {
                Known::Section(children) => at = children,
                Known::Used | Known::Inert => return root,
            }
        }
        at.extend(section.used.iter().map(|name| (*name, Known::Used)));
        at.extend(section.inert.iter().map(|name| (*name, Known::Inert)));
    }
    root
}

fn walk(node: &Node, known: &BTreeMap<&'static str, Known>, path: &str, silent: bool, out: &mut Checked) {
    let mut seen = BTreeSet::new();
    for (name, value) in node.map().unwrap_or_default() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let found = known
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .or_else(|| known.get_key_value("*"));
        let Some((_, found)) = found else {
            let mut problem = Problem::new(value.line, path, "unknown key");
            problem.hint = names::hint(name, known.keys().copied());
            out.problems.push(problem);
            // The wrong file altogether: enough is said.
            if out.problems.len() >= MAX_PROBLEMS {
                return;
            }
            continue;
        };
        if !seen.insert(name.to_ascii_lowercase()) {
            out.problems
                .push(Problem::new(value.line, path, "the key is there twice"));
            continue;
        }
        // The shallowest path that says it all.
        let inert = !silent && !found.does_something();
        if inert {
            out.without_effect.push(path.clone());
        }
        match found {
            Known::Section(children) if value.map().is_some() => {
                walk(value, children, &path, silent || inert, out);
            }
            Known::Section(_) if !value.is_null() => {
                let message = format!("expected a map, found {}", value.describe());
                out.problems.push(Problem::new(value.line, path, message));
            }
            Known::Section(_) | Known::Used | Known::Inert => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, tree::documents};

    const KEYS: &[Section] = &[
        Section {
            path: "",
            used: &["kind"],
            inert: &["modules"],
        },
        Section {
            path: "modules.hub",
            used: &["server"],
            inert: &["token"],
        },
        Section {
            path: "modules.hub.quic",
            used: &[],
            inert: &["enable", "port"],
        },
        Section {
            path: "gates",
            used: &[],
            inert: &["*"],
        },
    ];

    fn run(text: &str) -> Checked {
        check(
            documents(text, &Limits::DEFAULT).unwrap()[0].as_ref().unwrap(),
            KEYS,
        )
    }

    #[test]
    fn keys_without_effect_are_named_once_at_the_top() {
        let checked = run(
            "modules:\n  hub:\n    Server: x\n    token: t\n    quic: {enable: true, port: 1}\ngates: {a: true}\n",
        );
        assert_eq!(checked.problems, []);
        assert_eq!(
            checked.without_effect,
            ["modules.hub.token", "modules.hub.quic", "gates"]
        );
    }

    #[test]
    fn an_unknown_key_names_its_path_line_and_neighbour() {
        let checked = run("kind: x\nmodules:\n  hub:\n    sever: x\n    quic:\n      prt: 1\n");
        let shown: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "line 4: modules.hub.sever: unknown key (did you mean `server`?)",
                "line 6: modules.hub.quic.prt: unknown key (did you mean `port`?)",
            ]
        );
    }

    #[test]
    fn shapes_and_doubles_are_told() {
        let checked = run("modules:\n  hub: 7\nkind: a\nKind: b\n");
        let shown: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "line 2: modules.hub: expected a map, found `7`",
                "line 4: Kind: the key is there twice"
            ]
        );
        assert_eq!(run("modules:\n  hub:\n").problems, []);
    }
}
