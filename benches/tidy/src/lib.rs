//! Reads the repository for the tidy test: its files, and what its crates depend on.
//!
//! Plain text and the standard library: the rules run in a second, and need nothing that they judge.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its path from the root of the repository, with `/`.
    pub path: String,
    /// Its text; `None` when it is not UTF-8.
    pub text: Option<String>,
}

/// A crate of the workspace.
#[derive(Debug, Clone)]
pub struct Crate {
    /// Its directory from the root, with `/`.
    pub directory: String,
    /// Its name.
    pub name: String,
    /// Sections of its Cargo.toml, each with its lines `key = value`.
    pub sections: BTreeMap<String, Vec<(String, String)>>,
}

impl Crate {
    /// The room it is in: its top directory.
    pub fn room(&self) -> &str {
        self.directory.split('/').next().unwrap_or_default()
    }

    /// Names of what it depends on; with what its tests and its build script depend on, if `all`.
    pub fn dependencies(&self, all: bool) -> Vec<String> {
        self.dependency_lines()
            .filter(|(section, _, _)| all || section.ends_with("dependencies") && !section.contains('-'))
            .map(|(_, key, _)| key.split('.').next().unwrap_or(key).to_owned())
            .collect()
    }

    /// `(section, key, value)` of everything it depends on.
    pub fn dependency_lines(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.sections
            .iter()
            .filter(|(section, _)| section.contains("dependencies"))
            .flat_map(|(section, lines)| {
                lines
                    .iter()
                    .map(move |(key, value)| (section.as_str(), key.as_str(), value.as_str()))
            })
    }
}

/// The root of the repository.
///
/// # Panics
/// When this crate is not where it belongs.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("this crate is in benches/tidy")
        .to_owned()
}

/// Names in the root directory that belong to the repository, sorted.
///
/// # Panics
/// When the directory cannot be read.
pub fn top_level() -> Vec<String> {
    let ignored = ignored();
    let mut names: Vec<String> = entries(&root())
        .into_iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .filter(|name| name != ".git" && !ignored.contains(name))
        .collect();
    names.sort();
    names
}

/// Every file of the repository, sorted by path.
///
/// # Panics
/// When a directory cannot be read.
pub fn files() -> Vec<SourceFile> {
    let root = root();
    let mut waiting: Vec<PathBuf> = top_level().iter().map(|name| root.join(name)).collect();
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            // Nested build directories and caches are nobody's.
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if !matches!(name, "target" | "node_modules" | "__pycache__") {
                waiting.extend(entries(&path));
            }
            continue;
        }
        let relative = path
            .strip_prefix(&root)
            .unwrap_or(&path)
            .to_string_lossy()
            .replace('\\', "/");
        let text = fs::read(&path)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        files.push(SourceFile { path: relative, text });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Every crate of the workspace; the root's Cargo.toml is not among them, nor is a crate that is a workspace of its own.
pub fn crates(files: &[SourceFile]) -> Vec<Crate> {
    let manifests = files.iter().filter_map(|file| {
        let directory = file.path.strip_suffix("/Cargo.toml")?;
        Some((directory, file.text.as_deref()?))
    });
    manifests
        .map(|(directory, text)| (directory, sections(text)))
        .filter(|(_, sections)| !sections.contains_key("workspace"))
        .map(|(directory, sections)| {
            let package = sections.get("package").into_iter().flatten();
            let mut name = package
                .filter(|(key, _)| key == "name")
                .map(|(_, value)| value.trim_matches('"').to_owned());
            Crate {
                directory: directory.to_owned(),
                name: name.next_back().unwrap_or_default(),
                sections,
            }
        })
        .collect()
}

/// The sections of a Cargo.toml or clippy.toml, as far as lines `key = value` go; lines before the first section
/// are in the section without a name.
pub fn sections(text: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut sections: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim_matches(['[', ']']).to_owned();
            sections.entry(section.clone()).or_default();
        } else if let Some((key, value)) = line.split_once('=') {
            let pair = (key.trim().trim_matches('"').to_owned(), value.trim().to_owned());
            sections.entry(section.clone()).or_default().push(pair);
        }
    }
    sections
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(directory).unwrap_or_else(|err| panic!("{}: {err}", directory.display()));
    read.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Names at the root that .gitignore leaves out.
fn ignored() -> Vec<String> {
    let text = fs::read_to_string(root().join(".gitignore")).unwrap_or_default();
    text.lines()
        .map(|line| line.trim().trim_matches('/').to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}
