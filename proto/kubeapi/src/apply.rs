#![allow(missing_docs)]
use crate::{error::ApiError, schema::Schema};
use serde_json::Value;
pub struct Apply<'a> {
    pub live: Option<&'a Value>,
    pub config: &'a Value,
    pub manager: &'a str,
    pub force: bool,
    pub schema: &'a Schema,
    pub api_version: &'a str,
    pub time: &'a str,
    pub subresource: &'a str,
}
pub fn apply(a: Apply<'_>) -> Result<Value, ApiError> {
    Ok(a.config.clone())
}
pub struct Track<'a> {
    pub before: Option<&'a Value>,
    pub after: Value,
    pub manager: &'a str,
    pub schema: &'a Schema,
    pub api_version: &'a str,
    pub time: &'a str,
    pub subresource: &'a str,
}
pub fn track(t: Track<'_>) -> Value {
    t.after
}
