//! The rules. Each test names what breaks it, and how to repair that.

use std::collections::{BTreeMap, BTreeSet};

use ledge_tidy::{Crate, SourceFile, crates, files, root, sections, top_level};

/// Which rooms a room may depend on, besides itself.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("log", &["proto"]),
    ("cloud", &["proto", "log"]),
    ("edge", &["proto", "log"]),
    ("replay-tools", &["proto", "log"]),
    ("benches", &["proto", "log", "cloud", "edge", "replay-tools"]),
];

/// Crates only these packages may depend on, and why.
const KUBERNETES: &[&str] = &[
    "ledge-cloud",
    "ledge-benches-kubernetes",
    "ledge-cloud-testing",
    "ledge-controllers",
    "ledge-crds",
    "ledge-workloads",
];
const DOORS: &[(&str, &[&str], &str)] = &[
    ("kube", KUBERNETES, "Kubernetes is spoken through one door"),
    ("k8s-openapi", KUBERNETES, "Kubernetes is spoken through one door"),
    (
        "datafusion",
        &["ledge-history"],
        "it is two fifths of a build, and only SQL needs it",
    ),
    (
        "fjall",
        &["ledge-projection", "ledge-benches"],
        "projections are written only by folds; the benchmarks measure fjall by itself",
    ),
    (
        "tokio-modbus",
        &["ledge-edge", "ledge", "ledge-benches"],
        "devices are the edge's; the others play devices",
    ),
];

/// Crates a room must do without, and why.
const ABSENT: &[(&str, &[&str], &str)] = &[
    (
        "proto",
        &["tokio", "quinn", "axum", "rand", "getrandom", "notify", "rustix"],
        "proto is a function of its arguments",
    ),
    (
        "edge",
        &["axum", "notify"],
        "not there by decision: what the edge serves is in ledge-daemon",
    ),
];

/// Longer files are printed.
const LONG_LINES: usize = 400;
/// Longer files fail, unless they are in [`LONG_FOR_A_REASON`].
const TOO_LONG_LINES: usize = 600;
/// `(path, why it is one file)`.
const LONG_FOR_A_REASON: &[(&str, &str)] = &[];

const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitattributes",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "NOTICE",
    "README.md",
    "SECURITY.md",
    "benches",
    "clippy.toml",
    "cloud",
    "deny.toml",
    "docs",
    "edge",
    "log",
    "proto",
    "replay-tools",
    "rustfmt.toml",
];

/// Text that must not be in the repository, in two pieces so that this file does not hold it.
const BANNED: &[(&str, &str, &str)] = &[
    ("/ho", "me/", "a path of one machine"),
    ("/wo", "rk/", "a path of one machine"),
    ("/Us", "ers/", "a path of one machine"),
    (
        "tod",
        "o!(",
        "finish it, or return an error that says it is not handled",
    ),
    (
        "unimple",
        "mented!(",
        "finish it, or return an error that says it is not handled",
    ),
    ("db", "g!(", "use tracing"),
    ("FIX", "ME", "repair it, or write an issue"),
    ("XX", "X", "repair it, or write an issue"),
    ("#[ig", "nore", "a test that does not run is not a test"),
];

/// Drawers: a module is named after what it does.
const DRAWERS: &[&str] = &["util", "utils", "common", "types", "helpers", "misc"];

fn fail_on(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn workspace() -> (Vec<SourceFile>, Vec<Crate>) {
    let files = files();
    let crates = crates(&files);
    (files, crates)
}

#[test]
fn crates_depend_in_one_direction() {
    let (_, crates) = workspace();
    let rooms: BTreeMap<&str, &str> = crates.iter().map(|c| (c.name.as_str(), c.room())).collect();
    let mut problems = Vec::new();
    for c in &crates {
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(room, _)| *room == c.room()) else {
            problems.push(format!(
                "{}: the room `{}` has no direction",
                c.directory,
                c.room()
            ));
            continue;
        };
        for dependency in c.dependencies(true) {
            let Some(room) = rooms.get(dependency.as_str()) else {
                continue;
            };
            if *room != c.room() && !allowed.contains(room) {
                problems.push(format!(
                    "{} depends on {dependency}: {} may depend on {allowed:?} only",
                    c.name,
                    c.room()
                ));
            }
        }
    }
    fail_on(problems);
}

#[test]
fn doors_are_few() {
    let (_, crates) = workspace();
    let mut problems = Vec::new();
    for c in &crates {
        let direct = c.dependencies(false);
        for (name, allowed, why) in DOORS {
            if direct.iter().any(|d| d == name) && !allowed.contains(&c.name.as_str()) {
                problems.push(format!(
                    "{} depends on {name}, which is for {allowed:?}: {why}",
                    c.name
                ));
            }
        }
        for (room, absent, why) in ABSENT {
            for name in direct
                .iter()
                .filter(|name| c.room() == *room && absent.contains(&name.as_str()))
            {
                problems.push(format!("{} depends on {name}: {why}", c.name));
            }
        }
    }
    fail_on(problems);
}

#[test]
fn versions_are_in_one_place_and_lints_are_on() {
    let (_, crates) = workspace();
    let mut problems = Vec::new();
    for c in &crates {
        for (section, key, value) in c.dependency_lines() {
            let shared = key.ends_with(".workspace") || value.contains("workspace = true");
            if !shared || value.contains("version") || value.contains("path") {
                problems.push(format!(
                    "{}/Cargo.toml [{section}] {key}: its version belongs into the root's [workspace.dependencies]",
                    c.directory
                ));
            }
        }
        let lints = c.sections.get("lints").into_iter().flatten();
        if !lints
            .into_iter()
            .any(|(key, value)| key == "workspace" && value == "true")
        {
            problems.push(format!(
                "{}/Cargo.toml: add [lints] workspace = true",
                c.directory
            ));
        }
        let package = c.sections.get("package").into_iter().flatten();
        if !package.into_iter().any(|(key, _)| key == "description") {
            problems.push(format!("{}/Cargo.toml: add a description", c.directory));
        }
    }
    fail_on(problems);
}

#[test]
fn there_is_one_tls_provider() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let names: Vec<&str> = lock
        .lines()
        .filter_map(|line| {
            line.strip_prefix("name = \"")
                .and_then(|rest| rest.strip_suffix('"'))
        })
        .collect();
    let banned = [
        "aws-lc-rs",
        "aws-lc-sys",
        "openssl",
        "openssl-sys",
        "native-tls",
        "boring-sys",
    ];
    let mut problems: Vec<String> = banned
        .iter()
        .filter(|name| names.contains(*name))
        .map(|name| {
            format!(
                "Cargo.lock has {name}: ring is the one provider (cargo tree -i {name} tells who wants it)"
            )
        })
        .collect();
    if names.iter().filter(|name| **name == "rustls").count() > 1 {
        problems.push("Cargo.lock has two versions of rustls".to_owned());
    }
    fail_on(problems);
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with(".rs")) {
        let lines = file.text.as_deref().unwrap_or_default().lines().count();
        let reason = LONG_FOR_A_REASON.iter().find(|(path, _)| *path == file.path);
        if lines > TOO_LONG_LINES && reason.is_none() {
            problems.push(format!(
                "{} has {lines} lines, more than {TOO_LONG_LINES}: divide it",
                file.path
            ));
        } else if lines > LONG_LINES {
            println!("question: {} has {lines} lines", file.path);
        } else if reason.is_some() {
            problems.push(format!("{} is short again: take it off the list", file.path));
        }
    }
    fail_on(problems);
}

#[test]
fn banned_text_is_nowhere() {
    let mut problems = Vec::new();
    for file in files() {
        let Some(text) = &file.text else { continue };
        for (number, line) in text.lines().enumerate() {
            for (first, second, why) in BANNED {
                if line.contains(&format!("{first}{second}")) {
                    problems.push(format!("{}:{}: {first}{second}: {why}", file.path, number + 1));
                }
            }
        }
    }
    fail_on(problems);
}

#[test]
fn modules_are_named_after_what_they_do() {
    let mut problems = Vec::new();
    for file in files().iter().filter(|file| file.path.ends_with(".rs")) {
        // tests/common/mod.rs is Cargo's own name for what tests share.
        let path = file.path.trim_end_matches(".rs");
        let drawer = path.split('/').any(|part| DRAWERS.contains(&part));
        if drawer && !path.contains("/tests/") {
            problems.push(format!("{}: name the module after what it does", file.path));
        }
    }
    fail_on(problems);
}

#[test]
fn the_top_of_the_repository_is_a_table_of_contents() {
    let unknown = top_level()
        .into_iter()
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()));
    fail_on(
        unknown
            .map(|name| format!("{name} is not one of the entries of the root directory"))
            .collect(),
    );
}

/// A crate with its own clippy.toml does not see the root's: what is banned there is banned here.
#[test]
fn stricter_clippy_files_keep_the_bans_of_the_root() {
    let files = files();
    let bans = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter(|line| line.contains("path = "))
            .map(|line| line.trim().to_owned())
            .collect()
    };
    let text_of = |path: &str| files.iter().find(|f| f.path == path).and_then(|f| f.text.clone());
    let base = text_of("clippy.toml").unwrap_or_default();
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("/clippy.toml")) {
        let text = file.text.clone().unwrap_or_default();
        problems.extend(
            bans(&base)
                .difference(&bans(&text))
                .map(|ban| format!("{}: add {ban}", file.path)),
        );
        let settings = |text: &str| {
            let top = sections(text).remove("").unwrap_or_default();
            top.into_iter()
                .filter(|(key, _)| key.starts_with("allow"))
                .collect::<BTreeSet<_>>()
        };
        for (key, value) in settings(&base).difference(&settings(&text)) {
            problems.push(format!("{}: add {key} = {value}", file.path));
        }
    }
    fail_on(problems);
}

/// Paths of this repository in prose: `docs/…` and links to files beside.
#[test]
fn documents_point_at_files_that_exist() {
    let files = files();
    let exists = |path: &str| {
        let path = path.trim_end_matches('/');
        files
            .iter()
            .any(|f| f.path == path || f.path.starts_with(&format!("{path}/")))
    };
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let text = file.text.as_deref().unwrap_or_default();
        let quoted = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|q| q.starts_with("docs/") && !q.contains(['*', ' ', '<']));
        for path in quoted.filter(|path| !exists(path)) {
            problems.push(format!("{}: {path} does not exist", file.path));
        }
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
        {
            if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
            for part in link.split('/') {
                match part {
                    "." | "" => {}
                    ".." => {
                        parts.pop();
                    }
                    other => parts.push(other),
                }
            }
            if !exists(&parts.join("/")) {
                problems.push(format!("{}: the link to {link} leads nowhere", file.path));
            }
        }
    }
    fail_on(problems);
}
