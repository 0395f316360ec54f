#![allow(missing_docs)]
use serde_json::Value; use crate::resource::Resource;
pub fn default(_:&Resource,_:&mut Value){}
