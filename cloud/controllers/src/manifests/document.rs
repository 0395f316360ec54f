//! One document: which object it is, and the object.

use std::sync::Arc;

use ledge_proto::ids::Scope;
use ledge_yaml::Node;
use ledge_yaml::units::shown;

use super::fields::{Faults, Fields};
use super::object::{Device, DeviceModel, Kind, ObjectKey, Source};
use super::{device, model};

const GROUP: &str = "devices.kubeedge.io";
const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha2"];
const DEFAULT_NAMESPACE: &str = "default";

/// What a document holds.
pub(super) enum Decoded {
    /// A Kubernetes object that is for somebody else: its kind.
    Other(String),
    /// An object of ours, not necessarily a good one: see the faults.
    Object {
        /// Which object, when its name can be read.
        key: Option<ObjectKey>,
        /// The object.
        object: Object,
    },
}

/// An object of ours.
pub(super) enum Object {
    Device(Box<Device>),
    Model(Box<DeviceModel>),
    /// Not even its kind can be told.
    Unknown,
}

/// The objects of a document: one, or the items of a list as `kubectl get -o yaml` writes it.
pub(super) fn items(document: &Node) -> Vec<&Node> {
    let kind = document.get("kind").and_then(Node::text).unwrap_or_default();
    match document.get("items").and_then(Node::list) {
        Some(items) if matches!(kind, "List" | "DeviceList" | "DeviceModelList") => items.iter().collect(),
        _ => vec![document],
    }
}

/// Decodes one object.
pub(super) fn decode(node: &Node, file: &Arc<str>, document: usize, faults: &mut Faults) -> Decoded {
    let source = Source {
        file: file.clone(),
        document,
        line: node.line,
    };
    let mut fields = Fields::of(node, "", faults);
    let unknown = Decoded::Object {
        key: None,
        object: Object::Unknown,
    };
    if !faults.errors.is_empty() {
        return unknown;
    }
    let api_version = fields.text("apiVersion", faults);
    let kind_name = fields.text("kind", faults);
    let (Some(api_version), Some(kind_name)) = (api_version, kind_name) else {
        faults.error_with_hint(
            node.line,
            "",
            "not a Kubernetes object",
            "it needs apiVersion and kind, for example devices.kubeedge.io/v1beta1 and Device",
        );
        return unknown;
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = match kind_name {
        "Device" => Kind::Device,
        "DeviceModel" => Kind::DeviceModel,
        _ => return Decoded::Other(format!("{} {}", shown(api_version), shown(kind_name))),
    };
    if group != GROUP {
        return Decoded::Other(format!("{} {}", shown(api_version), shown(kind_name)));
    }
    let key = fields
        .map("metadata", faults)
        .and_then(|metadata| key(kind, metadata, faults));
    if !VERSIONS.contains(&version) {
        let message = format!("version `{}` is not read", shown(version));
        faults.error_with_hint(
            node.line,
            "apiVersion",
            message,
            format!("write {GROUP}/{}", VERSIONS[0]),
        );
        return Decoded::Object {
            key,
            object: Object::Unknown,
        };
    }
    if key.is_none() && faults.errors.is_empty() {
        faults.error(node.line, "metadata.name", "missing");
    }
    let object = match kind {
        Kind::Device => Object::Device(Box::new(device::decode(fields, source, faults))),
        Kind::DeviceModel => Object::Model(Box::new(model::decode(fields, source, faults))),
    };
    Decoded::Object { key, object }
}

fn key(kind: Kind, mut metadata: Fields<'_>, faults: &mut Faults) -> Option<ObjectKey> {
    let name = metadata.required_text("name", faults);
    let namespace = metadata.text("namespace", faults).unwrap_or(DEFAULT_NAMESPACE);
    for (field, text) in [("name", name), ("namespace", Some(namespace))] {
        // Kubernetes asks the same of objects as of nodes.
        if text.is_some_and(|text| text != "cluster" && Scope::node(text).is_err()) {
            let message = format!("`{}` is not a valid name", shown(text.unwrap_or_default()));
            let hint = "lower-case letters, digits, `-` and `.`, at most 253, beginning and ending with a letter or digit";
            faults.error_with_hint(metadata.line, &metadata.path_of(field), message, hint);
        }
    }
    metadata.skip(&[
        "labels",
        "annotations",
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "ownerReferences",
        "finalizers",
        "selfLink",
    ]);
    metadata.finish(faults);
    Some(ObjectKey {
        kind,
        namespace: namespace.to_owned(),
        name: name?.to_owned(),
    })
}
