#![allow(missing_docs)]
use crate::resource::Registry;
use bytes::Bytes;
use serde_json::Value;
pub fn index(_: &Registry) -> Value {
    Value::Null
}
pub fn document(_: &Registry, _: &str) -> Option<Bytes> {
    None
}
pub fn v2(_: &Registry) -> Value {
    Value::Null
}
