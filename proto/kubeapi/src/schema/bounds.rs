//! What a schema says of a value besides its type.

use std::sync::{Arc, OnceLock};

use regex::{Regex, RegexBuilder};

use super::Schema;

/// Largest compiled pattern, bytes.
const PATTERN_MAX_BYTES: usize = 1 << 20;

/// Bounds and combinations.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the names of JSON schema")]
pub struct Bounds {
    pub minimum: Option<Number>,
    pub exclusive_minimum: bool,
    pub maximum: Option<Number>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<Number>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub all_of: Vec<Arc<Schema>>,
    pub any_of: Vec<Arc<Schema>>,
    pub one_of: Vec<Arc<Schema>>,
    pub not: Option<Arc<Schema>>,
}

impl Bounds {
    /// Whether they say nothing.
    pub fn is_empty(&self) -> bool {
        self.minimum.is_none()
            && self.maximum.is_none()
            && self.multiple_of.is_none()
            && self.min_length.is_none()
            && self.max_length.is_none()
            && self.pattern.is_none()
            && self.min_items.is_none()
            && self.max_items.is_none()
            && !self.unique_items
            && self.min_properties.is_none()
            && self.max_properties.is_none()
            && self.all_of.is_empty()
            && self.any_of.is_empty()
            && self.one_of.is_empty()
            && self.not.is_none()
    }
}

/// A number of a bound.
pub type Number = serde_json::Number;

/// A regular expression, compiled when it is first asked.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    compiled: Arc<OnceLock<Result<Regex, String>>>,
}

impl Pattern {
    /// Takes it as written; whether it is valid shows at the first use.
    pub fn new(source: &str) -> Pattern {
        Pattern {
            source: source.to_owned(),
            compiled: Arc::default(),
        }
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether it is found anywhere in `text`.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub fn is_match(&self, text: &str) -> Result<bool, &str> {
        match self.compiled() {
            Ok(regex) => Ok(regex.is_match(text)),
            Err(why) => Err(why),
        }
    }

    /// What is wrong with the pattern, when something is.
    pub fn error(&self) -> Option<&str> {
        self.compiled().as_ref().err().map(String::as_str)
    }

    fn compiled(&self) -> &Result<Regex, String> {
        self.compiled.get_or_init(|| {
            let built = RegexBuilder::new(&self.source)
                .size_limit(PATTERN_MAX_BYTES)
                .build();
            built.map_err(|error| error.to_string())
        })
    }
}
