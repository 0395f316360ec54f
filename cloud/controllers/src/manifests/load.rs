//! From files to objects, with what was accepted before as the safety net.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledge_yaml::tree::documents;
use ledge_yaml::{Limits, Node};

use super::document::{self, Decoded, Object};
use super::fields::Faults;
use super::object::{Kind, ObjectKey, Objects, Source};
use super::problem::{Problem, Severity};

/// Most problems told about one file: a file that is not a manifest at all has thousands.
const MAX_PROBLEMS_PER_FILE: usize = 50;

/// A file of the manifests directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name in the directory.
    pub name: String,
    /// Its text, or why it cannot be read.
    pub content: Result<String, String>,
}

/// What [`load`] made of the files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// The objects in force.
    pub objects: Objects,
    /// What there is to tell, in the order of the files.
    pub problems: Vec<Problem>,
}

/// Reads `files`. An object with mistakes stays in force as it was in `previous`; so does an object that a file,
/// or a document of it, that can no longer be read has held. An object defined twice is taken from the first file.
pub fn load(previous: &Objects, files: &[SourceFile]) -> Loaded {
    let mut files: Vec<&SourceFile> = files.iter().collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut loading = Loading::default();
    for file in &files {
        let first = loading.loaded.problems.len();
        loading.file(file);
        loading.shorten(first, &file.name);
    }
    let read = files
        .iter()
        .map(|file| &file.name)
        .filter(|name| !loading.unreadable.contains(*name));
    loading.loaded.objects.known_files = read.chain(&previous.known_files).cloned().collect();
    loading.fall_back(previous);
    loading.loaded
}

#[derive(Default)]
struct Loading {
    loaded: Loaded,
    /// Where each object was first written, good or not.
    mentioned: BTreeMap<ObjectKey, Source>,
    refused: BTreeSet<ObjectKey>,
    /// Files of which at least a part cannot be read.
    unreadable: BTreeSet<String>,
}

impl Loading {
    fn file(&mut self, file: &SourceFile) {
        let unreadable = |message: &str| Problem::of_file(&file.name, Severity::Error, message.to_owned());
        let text = match &file.content {
            Ok(text) => text,
            Err(why) => {
                self.loaded.problems.push(unreadable(why));
                self.unreadable.insert(file.name.clone());
                return;
            }
        };
        let documents = match documents(text, &Limits::DEFAULT) {
            Ok(documents) => documents,
            Err(err) => {
                self.loaded.problems.push(unreadable(&err.message));
                self.unreadable.insert(file.name.clone());
                return;
            }
        };
        let name: Arc<str> = Arc::from(file.name.as_str());
        let mut others = BTreeSet::new();
        for (index, parsed) in documents.into_iter().enumerate() {
            let number = index + 1;
            match parsed {
                Ok(node) => {
                    for item in document::items(&node) {
                        self.object(item, &name, number, &mut others);
                    }
                }
                Err(err) => {
                    let problem = unreadable(&err.message).at("", err.line);
                    self.loaded.problems.push(Problem {
                        document: number,
                        ..problem
                    });
                    self.unreadable.insert(file.name.clone());
                }
            }
        }
        if !others.is_empty() {
            let kinds: Vec<String> = others.into_iter().collect();
            let message = format!("not handled by this version: {}", kinds.join(", "));
            self.loaded
                .problems
                .push(Problem::of_file(&file.name, Severity::Info, message));
        }
    }

    fn object(&mut self, node: &Node, file: &Arc<str>, number: usize, others: &mut BTreeSet<String>) {
        let mut faults = Faults::default();
        let (key, object) = match document::decode(node, file, number, &mut faults) {
            Decoded::Other(kind) => {
                others.insert(kind);
                return;
            }
            Decoded::Object { key, object } => (key, object),
        };
        let source = Source {
            file: file.clone(),
            document: number,
            line: node.line,
        };
        let good = faults.errors.is_empty();
        self.tell(faults, &source, key.as_ref());
        let Some(key) = key else {
            self.unreadable.insert(file.to_string());
            return;
        };
        if let Some(first) = self.mentioned.get(&key) {
            let message = format!("already defined in {}:{}, which holds", first.file, first.line);
            let problem = Problem::of_object(&key, &source, Severity::Error, message);
            self.loaded.problems.push(problem.hint("take one of them away"));
            return;
        }
        self.mentioned.insert(key.clone(), source);
        match object {
            Object::Device(device) if good => {
                self.loaded.objects.devices.insert(key, *device);
            }
            Object::Model(model) if good => {
                self.loaded.objects.models.insert(key, *model);
            }
            Object::Device(_) | Object::Model(_) | Object::Unknown => {
                self.refused.insert(key);
            }
        }
    }

    fn tell(&mut self, faults: Faults, source: &Source, key: Option<&ObjectKey>) {
        self.loaded.problems.extend(problems(faults, source, key));
    }

    fn shorten(&mut self, first: usize, file: &str) {
        let problems = &mut self.loaded.problems;
        let more = (problems.len() - first).saturating_sub(MAX_PROBLEMS_PER_FILE);
        if more > 0 {
            problems.truncate(first + MAX_PROBLEMS_PER_FILE);
            problems.push(Problem::of_file(
                file,
                Severity::Error,
                format!("{more} more problems in this file"),
            ));
        }
    }

    /// Puts back what was accepted before and is not good now.
    fn fall_back(&mut self, previous: &Objects) {
        let Loaded { objects, problems } = &mut self.loaded;
        for key in std::mem::take(&mut self.refused) {
            let kept = match key.kind {
                Kind::Device => previous
                    .devices
                    .get(&key)
                    .map(|old| objects.devices.insert(key.clone(), old.clone()))
                    .is_some(),
                Kind::DeviceModel => previous
                    .models
                    .get(&key)
                    .map(|old| objects.models.insert(key.clone(), old.clone()))
                    .is_some(),
            };
            if !kept {
                objects.refused.insert(key);
            } else if let Some(source) = self.mentioned.get(&key) {
                let message = "the version accepted before stays in force".to_owned();
                problems.push(Problem::of_object(&key, source, Severity::Warning, message));
            }
        }
        let unreadable = &self.unreadable;
        let mentioned = &self.mentioned;
        let lost = |key: &ObjectKey, source: &Source| {
            !mentioned.contains_key(key) && unreadable.contains(source.file.as_ref())
        };
        for (key, device) in previous
            .devices
            .iter()
            .filter(|(key, device)| lost(key, &device.source))
        {
            objects.devices.insert(key.clone(), device.clone());
        }
        for (key, model) in previous
            .models
            .iter()
            .filter(|(key, model)| lost(key, &model.source))
        {
            objects.models.insert(key.clone(), model.clone());
        }
        objects.incomplete = unreadable.iter().any(|file| !objects.known_files.contains(file));
        for file in unreadable
            .iter()
            .filter(|file| !objects.known_files.contains(*file))
        {
            let message = "until this file can be read, no device is taken from its node";
            problems.push(Problem::of_file(file, Severity::Warning, message));
        }
    }
}

/// What there is to tell of one object.
pub(super) fn problems(faults: Faults, source: &Source, key: Option<&ObjectKey>) -> Vec<Problem> {
    let problem = |severity, fault: ledge_yaml::Problem| Problem {
        file: source.file.to_string(),
        line: fault.line,
        document: source.document,
        severity,
        object: key.map(ToString::to_string),
        field: fault.path,
        message: fault.message,
        hint: fault.hint.filter(|hint| !hint.is_empty()),
    };
    let mut told: Vec<Problem> = faults
        .errors
        .into_iter()
        .map(|fault| problem(Severity::Error, fault))
        .collect();
    if !faults.without_effect.is_empty() {
        let message = format!("accepted, without effect: {}", faults.without_effect.join(", "));
        let fault = ledge_yaml::Problem::new(source.line, "", message);
        told.push(problem(Severity::Info, fault));
    }
    told
}

#[cfg(test)]
mod tests;
