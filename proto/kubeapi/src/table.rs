#![allow(missing_docs)]
use crate::resource::Resource;
use serde_json::Value;
pub enum Include {
    Metadata,
}
impl Include {
    pub fn parse(_: &str) -> Self {
        Include::Metadata
    }
}
pub struct Table<'a> {
    pub resource: &'a Resource,
    pub objects: &'a [Value],
    pub metadata: Value,
    pub include: Include,
    pub columns: bool,
    pub now_us: i64,
}
pub fn render(_: &Table<'_>) -> Value {
    Value::Null
}
