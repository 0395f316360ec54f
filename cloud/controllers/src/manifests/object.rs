//! What manifests say, decoded and checked each by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ledge_proto::record::device_key;
use ledge_proto::v1;

use super::modbus::{Connection, Visitor};
use super::selector::NodeSelector;

/// Kinds of objects this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A device.
    Device,
    /// What devices of one make have in common.
    DeviceModel,
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// `namespace/name`: the key of a device's records.
    pub fn device_key(&self) -> String {
        device_key(&self.namespace, &self.name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Device => "Device",
            Kind::DeviceModel => "DeviceModel",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}

/// Where an object was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// File in the manifests directory, or [`Source::API`].
    pub file: Arc<str>,
    /// Which document of the file, from 1; 0 in an API.
    pub document: usize,
    /// Line the object begins at, from 1; 0 in an API.
    pub line: u32,
}

impl Source {
    /// What stands in place of a file's name for objects of a Kubernetes API. No file can be called so.
    pub const API: &'static str = "Kubernetes API";

    /// An object of a Kubernetes API: its kind, namespace and name say where it is.
    pub fn api() -> Source {
        Source {
            file: Source::API.into(),
            document: 0,
            line: 0,
        }
    }
}

/// A device, by itself: its model and its node are not looked at yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Where it was written.
    pub source: Source,
    /// Name of its model, in its own namespace.
    pub model: String,
    /// Which node it is for.
    pub placement: Placement,
    /// How it is reached; the model may add to it.
    pub connection: Connection,
    /// What is read from and written to it, in the order of the manifest.
    pub properties: Vec<DeviceProperty>,
}

/// Which node a device is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// None.
    Nowhere,
    /// The node of this name.
    Node(String),
    /// One of the nodes this selects.
    Select(NodeSelector),
}

/// A property of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceProperty {
    /// Its name.
    pub name: String,
    /// Path of the field it was written at, for messages.
    pub path: String,
    /// Line it begins at.
    pub line: u32,
    /// Where its value is in the device; the model may add to it.
    pub visitor: Visitor,
    /// Time between two samples, milliseconds.
    pub collect_cycle_ms: u64,
    /// Longest time between two reports of an unchanged value, milliseconds.
    pub report_cycle_ms: u64,
    /// Whether reports leave the edge.
    pub report_to_cloud: bool,
    /// The value wished for, still untyped; `None` wishes nothing.
    pub desired: Option<Desired>,
}

/// A value wished for, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The value; its type is the model's.
    pub text: String,
    /// Path of the field it was written at, for messages.
    pub path: String,
    /// Line it is at.
    pub line: u32,
}

/// What devices of one make have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceModel {
    /// Where it was written.
    pub source: Source,
    /// How such devices are reached, as far as that is common to them.
    pub connection: Connection,
    /// Their properties, by name.
    pub properties: BTreeMap<String, ModelProperty>,
}

/// A property all devices of a model have.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelProperty {
    /// Type of its values.
    pub data_type: v1::DataType,
    /// Whether it can be written.
    pub writable: bool,
    /// Smallest value allowed.
    pub minimum: Option<f64>,
    /// Largest value allowed.
    pub maximum: Option<f64>,
    /// Unit of its values.
    pub unit: String,
    /// Where its value is in the device, as far as that is common to all.
    pub visitor: Visitor,
}

/// Everything accepted from a manifests directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Devices in force.
    pub devices: BTreeMap<ObjectKey, Device>,
    /// Models in force.
    pub models: BTreeMap<ObjectKey, DeviceModel>,
    /// Objects that are written down, but never in a way that could be accepted.
    pub refused: BTreeSet<ObjectKey>,
    /// Files that were read completely at least once: what they held is known.
    pub known_files: BTreeSet<String>,
    /// Some other file cannot be read completely, so that an object missing here may be in there.
    pub incomplete: bool,
}
