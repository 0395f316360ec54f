//! Objects of a Kubernetes API, read as the same manifests in a file are.

use std::sync::Arc;

use ledge_yaml::Node;
use ledge_yaml::tree::{Scalar, Value as Tree};
use serde_json::Value;

use super::document::{self, Decoded, Object};
use super::fields::Faults;
use super::load::problems;
use super::object::{Device, DeviceModel, ObjectKey, Source};
use super::problem::Problem;

/// An object of an API, decoded and checked by itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FromApi {
    /// Which object.
    pub(crate) key: ObjectKey,
    /// The object; `None`: it has mistakes.
    pub(crate) accepted: Option<Accepted>,
    /// What there is to tell.
    pub(crate) problems: Vec<Problem>,
}

/// A good object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Accepted {
    Device(Box<Device>),
    Model(Box<DeviceModel>),
}

/// Reads an object; `None` for one that is not a device or a model, or has no name.
pub(crate) fn from_api(object: &Value) -> Option<FromApi> {
    let file: Arc<str> = Source::API.into();
    let mut faults = Faults::default();
    let Decoded::Object { key, object } = document::decode(&tree(object), &file, 0, &mut faults) else {
        return None;
    };
    let key = key?;
    let good = faults.errors.is_empty();
    let accepted = match object {
        Object::Device(device) if good => Some(Accepted::Device(device)),
        Object::Model(model) if good => Some(Accepted::Model(model)),
        Object::Device(_) | Object::Model(_) | Object::Unknown => None,
    };
    Some(FromApi {
        problems: problems(faults, &Source::api(), Some(&key)),
        key,
        accepted,
    })
}

/// The tree that a file with this content gives, without lines.
fn tree(value: &Value) -> Node {
    let scalar = |text: String, plain| Tree::Scalar(Scalar { text, plain });
    let value = match value {
        Value::Null => scalar("null".to_owned(), true),
        Value::Bool(yes) => scalar(yes.to_string(), true),
        Value::Number(number) => scalar(number.to_string(), true),
        Value::String(text) => scalar(text.clone(), false),
        Value::Array(items) => Tree::List(items.iter().map(tree).collect()),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), tree(value)));
            Tree::Map(members.collect())
        }
    };
    Node { line: 0, value }
}
