//! Structural schemas: OpenAPI v3 as CustomResourceDefinitions and the API server's own documents write it, taken apart
//! once into what validation, defaulting, pruning, strategic merge and server-side apply ask for. Descriptions are left
//! out: documents for people are served from where they came from.
//!
//! Source: `apiextensions.k8s.io/v1` `JSONSchemaProps` and the `x-kubernetes-*` extensions of OpenAPI.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// JSON type that a schema asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "JSON's own names")]
pub enum Type {
    /// Nothing is said: anything goes.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
}

/// Who owns what of a list (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// One owner for the whole list.
    #[default]
    Atomic,
    /// Each element by itself.
    Set,
    /// Each element by the values of these fields.
    Map(Vec<String>),
}

/// What a strategic merge patch does to a list or map (`x-kubernetes-patch-strategy`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PatchStrategy {
    /// The patch replaces it.
    #[default]
    Replace,
    /// Elements are merged, lists of objects by this field.
    Merge {
        /// `x-kubernetes-patch-merge-key`; `None` for a list of scalars.
        key: Option<String>,
        /// `retainKeys`: keys that `$retainKeys` does not name are dropped.
        retain_keys: bool,
    },
    /// `retainKeys` alone.
    RetainKeys,
}

/// A CEL rule (`x-kubernetes-validations`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rule {
    /// The expression.
    pub rule: String,
    /// What the client is told; empty for the default text.
    pub message: String,
    /// An expression that gives the message.
    pub message_expression: String,
    /// `FieldValueInvalid` and others; empty for the first.
    pub reason: String,
    /// Path that the error is reported at, below the schema's own.
    pub field_path: String,
    /// Whether a transition rule also holds at creation.
    pub optional_old_self: bool,
}

/// A structural schema.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// What it may be.
    pub kind: Type,
    /// Whether null is a value.
    pub nullable: bool,
    /// Value put where the field is absent.
    pub default: Option<Value>,
    /// Allowed values; empty allows all.
    pub allowed: Vec<Value>,
    /// OpenAPI format, such as `date-time` or `int32`.
    pub format: String,
    /// Known fields.
    pub properties: BTreeMap<String, Arc<Schema>>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Fields of any name: their schema.
    pub additional: Option<Arc<Schema>>,
    /// Elements of a list.
    pub items: Option<Arc<Schema>>,
    /// `x-kubernetes-preserve-unknown-fields`, and objects about which nothing is said.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// Who owns what of a list.
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// What a strategic merge patch does here.
    pub patch: PatchStrategy,
    /// CEL rules.
    pub rules: Vec<Rule>,
    /// Bounds and combinations: kept as JSON, and read by validation only (`minimum`, `maxLength`, `pattern`, `oneOf` …).
    pub bounds: Option<Arc<Value>>,
}
//STUB
/// s
pub fn validate(_: &Schema, _: &Value) -> Vec<crate::error::Cause> {
    Vec::new()
}
/// s
pub fn default(_: &Schema, _: &mut Value) {}
/// s
pub fn prune(_: &Schema, _: &mut Value) -> Vec<String> {
    Vec::new()
}
/// s
pub fn rules(_: &Schema, _: &Value, _: Option<&Value>) -> Vec<crate::error::Cause> {
    Vec::new()
}
