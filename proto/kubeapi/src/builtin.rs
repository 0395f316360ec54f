#![allow(missing_docs)]
use crate::resource::Resource;
use serde_json::Value;
pub fn default(_: &Resource, _: &mut Value) {}
/// stub
pub fn resources() -> Vec<Resource> {
    Vec::new()
}
