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
    /// Kubernetes objects that are needed here: `group/resource/namespace/name` to [`crate::v1::KubeObject`].
    KubeObjects = 0x13,
    /// What became of interests: id to [`crate::v1::InterestState`].
    InterestStates = 0x14,
    /// What writes came to: id to [`crate::v1::KubeWriteResult`].
    KubeWriteResults = 0x15,
    /// The last order to fold again: `projection` to [`crate::v1::Repair`].
    Repairs = 0x16,
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
    /// Status of what the node runs: `group/resource/namespace/name` to [`crate::v1::KubeStatus`].
    KubeStatuses = 0x25,
    /// What somebody on the node asked for: id to [`crate::v1::Interest`].
    Interests = 0x26,
    /// Writes to the Kubernetes API whose results were not taken yet: id to [`crate::v1::KubeWrite`].
    KubeWrites = 0x27,
    /// What the node's projection of `down` comes to: node name to [`crate::v1::DownApplied`].
    DownApplied = 0x28,
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
    /// On the cloud: up to where a node's events were written to the API ([`crate::v1::EventCursor`]).
    EventCursors = 0x45,
    /// How far `api` is folded.
    ApiStream = 0x50,
    /// Objects of the embedded Kubernetes API: `group/resource/namespace/name` to [`crate::v1::ApiObject`].
    ApiObjects = 0x51,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Table; 27] = [
        Table::DownStream,
        Table::Devices,
        Table::Desired,
        Table::KubeObjects,
        Table::InterestStates,
        Table::KubeWriteResults,
        Table::Repairs,
        Table::UpStateStream,
        Table::Reported,
        Table::DeviceStates,
        Table::WriteResults,
        Table::NodeStates,
        Table::KubeStatuses,
        Table::Interests,
        Table::KubeWrites,
        Table::DownApplied,
        Table::UpDataStream,
        Table::LatestSamples,
        Table::Gaps,
        Table::LocalStream,
        Table::NodeFences,
        Table::EdgeFences,
        Table::CloudFences,
        Table::GivenUp,
        Table::EventCursors,
        Table::ApiStream,
        Table::ApiObjects,
    ];

    /// The one lane whose records write this table.
    pub fn lane(self) -> Lane {
        match self {
            Table::DownStream
            | Table::Devices
            | Table::Desired
            | Table::KubeObjects
            | Table::InterestStates
            | Table::KubeWriteResults
            | Table::Repairs => Lane::Down,
            Table::UpStateStream
            | Table::Reported
            | Table::DeviceStates
            | Table::WriteResults
            | Table::NodeStates
            | Table::KubeStatuses
            | Table::Interests
            | Table::KubeWrites
            | Table::DownApplied => Lane::UpState,
            Table::UpDataStream | Table::LatestSamples | Table::Gaps => Lane::UpData,
            Table::LocalStream
            | Table::NodeFences
            | Table::EdgeFences
            | Table::CloudFences
            | Table::GivenUp
            | Table::EventCursors => Lane::Local,
            Table::ApiStream | Table::ApiObjects => Lane::Api,
        }
    }

    /// The key, in a store, of the entry of `scope` under `key`; with an empty `key`, what the keys of the whole table
    /// begin with.
    pub fn store_key(self, scope: &Scope, key: &[u8]) -> Vec<u8> {
        self::key(scope, self, key)
    }

    /// What [`Table::store_key`] was made of; `None` for what is no key of a table.
    pub fn parse_store_key(key: &[u8]) -> Option<(Scope, Table, String)> {
        let end = key.iter().position(|byte| *byte == 0)?;
        let scope = Scope::from_wire(std::str::from_utf8(&key[..end]).ok()?).ok()?;
        let table = Table::of_key(&key[end + 1..])?;
        let key = String::from_utf8_lossy(&key[end + 2..]).into_owned();
        Some((scope, table, key))
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
