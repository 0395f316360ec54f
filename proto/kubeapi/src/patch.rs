#![allow(missing_docs)]
use crate::{error::ApiError, schema::Schema};
use serde_json::Value;
pub fn json(v: &Value, _: &[u8]) -> Result<Value, ApiError> {
    Ok(v.clone())
}
pub fn merge(v: &Value, p: &Value) -> Value {
    let mut v = v.clone();
    fn go(v: &mut Value, p: &Value) {
        if let Value::Object(p) = p {
            if !v.is_object() {
                *v = Value::Object(Default::default());
            }
            for (k, x) in p {
                if x.is_null() {
                    if let Some(m) = v.as_object_mut() {
                        m.remove(k);
                    }
                } else {
                    go(&mut v[k], x)
                }
            }
        } else {
            *v = p.clone()
        }
    }
    go(&mut v, p);
    v
}
pub fn strategic(_: &Schema, v: &Value, p: &Value) -> Result<Value, ApiError> {
    Ok(merge(v, p))
}
