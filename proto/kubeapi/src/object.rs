//! Objects as a store keeps them: JSON that is encoded once, and the few fields that are asked for without decoding it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::resource::GroupResource;

/// A resource version: the sequence number of the change in the store's stream. Zero is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of an object in a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// What it is.
    pub resource: GroupResource,
    /// Empty for what is not in a namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// An object as it was at one version. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Object {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    key: ObjectKey,
    version: Version,
    uid: String,
    labels: BTreeMap<String, String>,
    fields: BTreeMap<String, String>,
    foreign_version: Option<Box<str>>,
    json: Bytes,
}

impl Object {
    /// Takes `value`, an object in its storage version, sets `metadata.resourceVersion` and encodes it once. `selectable`
    /// are the dotted paths that field selectors of its resource may name, besides name and namespace.
    ///
    /// # Panics
    /// Never: a JSON value with string keys always encodes.
    pub fn new(key: ObjectKey, version: Version, mut value: Value, selectable: &[String]) -> Object {
        value["metadata"]["resourceVersion"] = Value::String(version.to_string());
        Object::encode(key, version, &value, selectable, None)
    }

    /// As [`Object::new`], of an object that another store versions: `metadata.resourceVersion` stays as it is, and `version`
    /// is the change's place among the changes of this store.
    ///
    /// # Panics
    /// Never, as [`Object::new`].
    pub fn mirrored(key: ObjectKey, version: Version, value: &Value, selectable: &[String]) -> Object {
        let foreign = value["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        Object::encode(key, version, value, selectable, Some(foreign.into()))
    }

    fn encode(
        key: ObjectKey,
        version: Version,
        value: &Value,
        selectable: &[String],
        foreign_version: Option<Box<str>>,
    ) -> Object {
        let labels = value["metadata"]["labels"].as_object();
        let labels = labels.into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        let fields = selectable
            .iter()
            .map(|path| (path.clone(), field(value, path)))
            .collect();
        Object {
            inner: Arc::new(Inner {
                version,
                uid: value["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
                labels: labels.collect(),
                fields,
                foreign_version,
                // It is kept: no longer than it is.
                json: serde_json::to_vec(value)
                    .unwrap_or_default()
                    .into_boxed_slice()
                    .into(),
                key,
            }),
        }
    }

    /// What selectors saw of an object that itself is not known any more. Its version is zero, and there is no JSON of it.
    pub fn remembered(
        key: ObjectKey,
        labels: BTreeMap<String, String>,
        fields: BTreeMap<String, String>,
    ) -> Object {
        Object {
            inner: Arc::new(Inner {
                key,
                version: Version::default(),
                uid: String::new(),
                labels,
                fields,
                foreign_version: None,
                json: Bytes::new(),
            }),
        }
    }

    /// Its name in the store.
    pub fn key(&self) -> &ObjectKey {
        &self.inner.key
    }

    /// The version of its last change.
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// `metadata.resourceVersion` where another store gave it; see [`Object::mirrored`].
    pub fn foreign_version(&self) -> Option<&str> {
        self.inner.foreign_version.as_deref()
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        &self.inner.uid
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.inner.labels
    }

    /// Fields that a field selector may name, besides name and namespace, by their paths.
    pub fn fields(&self) -> &BTreeMap<String, String> {
        &self.inner.fields
    }

    /// The value of a field that a field selector may name; `None` when it may not.
    pub fn field(&self, path: &str) -> Option<&str> {
        match path {
            "metadata.name" => Some(&self.inner.key.name),
            "metadata.namespace" => Some(&self.inner.key.namespace),
            path => self.inner.fields.get(path).map(String::as_str),
        }
    }

    /// The object as JSON in its storage version, with `metadata.resourceVersion`.
    pub fn json(&self) -> &Bytes {
        &self.inner.json
    }

    /// Decodes it.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.inner.json).unwrap_or_default()
    }
}

/// The text of a scalar at a dotted path; absent is empty, as field selectors see it.
fn field(value: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(value, |value, name| value.get(name));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(_) | Value::Number(_)) => found.map(Value::to_string).unwrap_or_default(),
        // Who reported an event: `source` names it in one of two places, as upstream selects by it.
        _ if path == "source" => match found.and_then(|source| source["component"].as_str()) {
            None | Some("") => field(value, "reportingComponent"),
            Some(component) => component.to_owned(),
        },
        _ => String::new(),
    }
}
