#![allow(missing_docs)]
use serde_json::Value; use crate::resource::Registry;
pub fn wants_aggregated(_:&str)->bool{false}
pub fn aggregated(_:&Registry,_:bool,_:&str)->(Value,&'static str){(Value::Null,"")}
pub fn api_versions(_:&Registry)->Value{Value::Null}
pub fn api_group_list(_:&Registry)->Value{Value::Null}
pub fn api_group(_:&Registry,_:&str)->Option<Value>{None}
pub fn api_resource_list(_:&Registry,_:&str,_:&str)->Option<Value>{None}
pub fn version()->Value{Value::Null}
pub fn paths(_:&Registry)->Value{Value::Null}
