//! What the log says a node's devices are and should be. Built from the projection, read by the mappers.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledge_proto::ids::Position;
use ledge_proto::v1;

/// Every device of this node by its key, `namespace/name`.
///
/// Sent through a watch channel; an entry that did not change keeps its `Arc`, so that comparing two tables is
/// cheap.
#[derive(Debug, Clone, Default)]
pub struct DeviceTable {
    /// Devices by `namespace/name`.
    pub devices: BTreeMap<String, Arc<DeviceEntry>>,
}

/// What the log says of one device.
///
/// Mappers follow `spec` and `desired` as they change. They read `reported`, `results` and `state` once, when they
/// start to serve the device: from then on they know better, because they write them. A change in only these
/// three needs no new table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceEntry {
    /// How to reach it and what it has.
    pub spec: v1::DeviceSpec,
    /// What its properties should be, by property.
    pub desired: BTreeMap<String, Desired>,
    /// The last value reported to `up.state`, by property.
    pub reported: BTreeMap<String, v1::Value>,
    /// What the last write came to, by property.
    pub results: BTreeMap<String, v1::WriteResult>,
    /// The last state reported: online, offline, unhealthy or unknown.
    pub state: Option<String>,
}

/// What a property should be, and which record of the node's `down` stream said so.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The value. An empty one is the same as no desired value.
    pub value: v1::Value,
    /// Where the wish stands in the node's `down` stream.
    pub position: Position,
}
