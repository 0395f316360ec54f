//! The tables of a projection.

use crate::ids::{Lane, Scope};

/// A table of a projection. Persisted: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// How far `down` is folded.
    DownStream = 0x10,
    /// Devices of the node: `namespace/device` to [`crate::v1::DeviceSpec`].
    Devices = 0x11,
    /// Desired values: `namespace/device/property` to [`crate::v1::TwinDesired`].
    Desired = 0x12,
    /// How far `up.state` is folded.
    UpStateStream = 0x20,
    /// Reported values: `namespace/device/property` to [`crate::v1::TwinReported`].
    Reported = 0x21,
    /// Whether devices answer: `namespace/device` to [`crate::v1::DeviceState`].
    DeviceStates = 0x22,
    /// Last write to each property: `namespace/device/property` to [`crate::v1::WriteResult`].
    WriteResults = 0x23,
    /// The daemon: node name to [`crate::v1::NodeState`].
    NodeStates = 0x24,
    /// How far `up.data` is folded.
    UpDataStream = 0x30,
    /// Latest samples: `namespace/device/property` to [`crate::v1::Sample`].
    LatestSamples = 0x31,
    /// Gaps: the gap's key to [`crate::v1::Gap`].
    Gaps = 0x32,
    /// How far `local` is folded.
    LocalStream = 0x40,
    /// On the cloud: what is known of a node's disk ([`crate::v1::NodeFence`]).
    NodeFences = 0x41,
    /// On the edge: what is known of the cloud ([`crate::v1::EdgeFence`]).
    EdgeFences = 0x42,
    /// On the cloud: leadership and restore generation ([`crate::v1::CloudFence`]).
    CloudFences = 0x43,
    /// On the cloud: what it gave up of a node's telemetry; the gap's key to [`crate::v1::Gap`].
    GivenUp = 0x44,
    /// How far `api` is folded.
    ApiStream = 0x50,
    /// Objects of the embedded Kubernetes API: `group/resource/namespace/name` to [`crate::v1::ApiObject`].
    ApiObjects = 0x51,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Table; 18] = [
        Table::DownStream,
        Table::Devices,
        Table::Desired,
        Table::UpStateStream,
        Table::Reported,
        Table::DeviceStates,
        Table::WriteResults,
        Table::NodeStates,
        Table::UpDataStream,
        Table::LatestSamples,
        Table::Gaps,
        Table::LocalStream,
        Table::NodeFences,
        Table::EdgeFences,
        Table::CloudFences,
        Table::GivenUp,
        Table::ApiStream,
        Table::ApiObjects,
    ];

    /// The one lane whose records write this table.
    pub fn lane(self) -> Lane {
        match self {
            Table::DownStream | Table::Devices | Table::Desired => Lane::Down,
            Table::UpStateStream
            | Table::Reported
            | Table::DeviceStates
            | Table::WriteResults
            | Table::NodeStates => Lane::UpState,
            Table::UpDataStream | Table::LatestSamples | Table::Gaps => Lane::UpData,
            Table::LocalStream
            | Table::NodeFences
            | Table::EdgeFences
            | Table::CloudFences
            | Table::GivenUp => Lane::Local,
            Table::ApiStream | Table::ApiObjects => Lane::Api,
        }
    }

    /// The key, in a store, of the entry of `scope` under `key`; with an empty `key`, what the keys of the whole table
    /// begin with.
    pub fn store_key(self, scope: &Scope, key: &[u8]) -> Vec<u8> {
        self::key(scope, self, key)
    }

    /// The table an entry's key belongs to, given what follows the scope's prefix.
    pub(crate) fn of_key(rest: &[u8]) -> Option<Table> {
        let number = *rest.first()?;
        Table::ALL.into_iter().find(|table| *table as u8 == number)
    }

    /// The table that tells how far `lane` is folded.
    pub fn stream_of(lane: Lane) -> Table {
        match lane {
            Lane::Down => Table::DownStream,
            Lane::UpState => Table::UpStateStream,
            Lane::UpData => Table::UpDataStream,
            Lane::Local => Table::LocalStream,
            Lane::Api => Table::ApiStream,
        }
    }
}

/// The key of an entry; with an empty `key`, the prefix of the whole table.
pub(crate) fn key(scope: &Scope, table: Table, key: &[u8]) -> Vec<u8> {
    let mut out = scope_prefix(scope);
    out.push(table as u8);
    out.extend_from_slice(key);
    out
}

/// The prefix of everything in a scope. Scopes hold no zero byte (they are DNS names).
pub(crate) fn scope_prefix(scope: &Scope) -> Vec<u8> {
    let wire = scope.as_wire().as_bytes();
    let mut out = Vec::with_capacity(wire.len() + 48);
    out.extend_from_slice(wire);
    out.push(0);
    out
}
