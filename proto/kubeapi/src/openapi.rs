#![allow(missing_docs)]
use serde_json::Value; use crate::resource::Registry; use bytes::Bytes;
pub fn index(_:&Registry)->Value{Value::Null}
pub fn document(_:&Registry,_:&str)->Option<Bytes>{None}
pub fn v2(_:&Registry)->Value{Value::Null}
