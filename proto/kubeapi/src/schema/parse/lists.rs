//! `x-kubernetes-list-type` and its keys.

use serde_json::{Map, Value};

use super::{Reading, text, texts};
use crate::schema::{ListType, Schema, Type, cause};

impl Reading {
    pub(super) fn lists(&mut self, json: &Map<String, Value>, out: &mut Schema) {
        let keys = texts(json.get("x-kubernetes-list-map-keys"));
        let list = text(json, "x-kubernetes-list-type");
        if !list.is_empty() && out.kind != Type::Array {
            let why = "must be array if x-kubernetes-list-type is specified";
            match text(json, "type") {
                "" => self.required("type", why),
                other => self.invalid("type", &other.into(), why),
            }
        }
        if !keys.is_empty() && list != "map" {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            match list {
                "" => self.required("x-kubernetes-list-type", why),
                other => self.invalid("x-kubernetes-list-type", &other.into(), why),
            }
        }
        match list {
            "" | "atomic" => {}
            "set" => {
                let parts = out
                    .items
                    .as_ref()
                    .is_some_and(|items| items.kind == Type::Object && !items.atomic_map);
                if parts {
                    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
                    self.invalid("items.x-kubernetes-map-type", &Value::Null, why);
                }
                out.list = ListType::Set;
            }
            "map" => {
                self.map_keys(&keys, out);
                out.list = ListType::Map(keys);
            }
            other => {
                let known = ["atomic", "set", "map"].map(Value::from);
                let cause = cause::not_supported(self.at("x-kubernetes-list-type"), &other.into(), &known);
                self.add(cause);
            }
        }
        if matches!(out.list, ListType::Map(_) | ListType::Set)
            && out.items.as_ref().is_some_and(|items| items.nullable)
        {
            let why = format!("cannot be nullable when x-kubernetes-list-type is {list}");
            self.forbidden("items.nullable", &why);
        }
    }

    fn map_keys(&mut self, keys: &[String], out: &Schema) {
        if keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            self.required("x-kubernetes-list-map-keys", why);
        }
        let Some(items) = out.items.clone() else {
            self.required("items", "must have a schema if x-kubernetes-list-type is map");
            return;
        };
        if items.kind != Type::Object {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid("items.type", &items.kind.as_str().into(), why);
        }
        for (at, key) in keys.iter().enumerate() {
            match items.properties.get(key) {
                None => {
                    let why = "entries must all be names of item properties";
                    self.invalid("x-kubernetes-list-map-keys", &keys.to_vec().into(), why);
                }
                Some(field) if matches!(field.kind, Type::Object | Type::Array) => {
                    let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.invalid(&format!("items.properties[{key}].type"), &"object".into(), why);
                }
                Some(field) if field.default.is_none() && !items.required.contains(key) => {
                    let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be \
                               a required property";
                    self.required(&format!("items.properties[{key}].default"), why);
                }
                Some(_) => {}
            }
            if keys.iter().take(at).any(|other| other == key) {
                let why = "must not contain duplicate entries";
                self.invalid("x-kubernetes-list-map-keys", &keys.to_vec().into(), why);
            }
        }
    }
}
