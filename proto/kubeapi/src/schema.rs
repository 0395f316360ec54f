//! Structural schemas: OpenAPI v3 as CustomResourceDefinitions and the API server's own documents write it, taken apart
//! once into what validation, defaulting, pruning, strategic merge and server-side apply ask for. Descriptions are left
//! out: documents for people are served from where they came from.
//!
//! Reading order: this file, [`parse`] and [`definitions`] (where schemas come from), [`validate`], [`default()`],
//! [`prune()`], [`rules`] (what is done with them).
//!
//! Source: `apiextensions.k8s.io/v1` `JSONSchemaProps` and the `x-kubernetes-*` extensions of OpenAPI.

mod bounds;
pub mod cause;
mod default;
mod definitions;
mod duplicates;
mod formats;
mod lists;
mod meta;
mod parse;
mod prune;
mod rules;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub use bounds::{Bounds, Number, Pattern};
pub use default::default;
pub use definitions::{Definitions, Read};
pub use duplicates::duplicates;
pub use meta::object_meta;
pub use prune::{MAX_UNKNOWN, prune};
pub use rules::{CompiledRules, check, check_rules};
pub use validate::{mistyped, validate};

/// Deepest nesting of schemas and of objects: what the JSON decoder reads back.
pub const MAX_DEPTH: usize = 127;

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

impl Type {
    /// As messages name it; empty for [`Type::Any`].
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Any => "",
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::IntOrString => "integer,string",
        }
    }
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
    /// Bounds and combinations: read by validation only (`minimum`, `maxLength`, `pattern`, `oneOf` …).
    pub bounds: Option<Arc<Bounds>>,
    /// What the types of the API server make of an empty object of a built-in kind: fields that are never absent there.
    /// Nobody owns those by having created the object. `None` for custom kinds.
    pub empty: Option<Value>,
    /// CEL rules of the whole tree, compiled; at the root of a schema that has any.
    pub compiled: Option<CompiledRules>,
}

impl Schema {
    /// The schema of field `name`; `None` where nothing is known of it.
    pub fn field(&self, name: &str) -> Option<&Arc<Schema>> {
        self.properties.get(name).or(self.additional.as_ref())
    }

    /// Whether `name` is one of the fields the schema lists, as against a key of a map.
    pub fn lists(&self, name: &str) -> bool {
        self.properties.contains_key(name)
    }
}

#[cfg(test)]
mod tests;
