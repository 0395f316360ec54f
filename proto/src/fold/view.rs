//! Typed reading of folded state: nodes, devices, twins.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;

use super::table::{Table, key as table_key};
use super::{FoldError, Read, decode};
use crate::ids::{Epoch, Position, Scope, Seq};
use crate::retime::{ClockNotes, is_doubtful};
use crate::v1;

/// The latest record about something: its content and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest<T> {
    /// The decoded payload.
    pub content: T,
    /// Position in its stream.
    pub position: Position,
    /// Wall clock at the event, microseconds since 1970.
    pub wall_us: i64,
    /// How far that clock can be trusted.
    pub clock: v1::ClockQuality,
    /// `wall_us` was corrected by what became known of the clock later; see [`Latest::retime`].
    pub retimed: bool,
    /// Start of the writer it was written in.
    pub boot: u32,
    /// The writer's monotonic clock, microseconds.
    pub mono_us: u64,
    /// The record that made it happen.
    pub cause: Option<v1::Cause>,
    /// How many samples were folded (samples only).
    pub count: u64,
}

impl<T> Latest<T> {
    /// Whether [`Latest::retime`] may know better when it was.
    pub fn is_doubtful(&self) -> bool {
        !self.retimed && is_doubtful(self.clock)
    }

    /// Corrects the time of a record that was written before its writer's clock was set.
    pub fn retime(&mut self, notes: &ClockNotes) {
        if !self.retimed
            && let Some(wall_us) = notes.time_of(self.clock, self.boot, self.mono_us)
        {
            (self.wall_us, self.retimed) = (wall_us, true);
        }
    }
}

impl Twin {
    /// As [`Latest::is_doubtful`], of what the node wrote.
    pub fn is_doubtful(&self) -> bool {
        self.reported.as_ref().is_some_and(Latest::is_doubtful)
            || self.write_result.as_ref().is_some_and(Latest::is_doubtful)
            || self.sample.as_ref().is_some_and(Latest::is_doubtful)
    }

    /// As [`Latest::retime`], by the node's notes, of what the node wrote.
    pub fn retime(&mut self, notes: &ClockNotes) {
        if let Some(reported) = &mut self.reported {
            reported.retime(notes);
        }
        if let Some(result) = &mut self.write_result {
            result.retime(notes);
        }
        if let Some(sample) = &mut self.sample {
            sample.retime(notes);
        }
    }
}

impl Device {
    /// As [`Latest::is_doubtful`], of what the node wrote.
    pub fn is_doubtful(&self) -> bool {
        self.state.as_ref().is_some_and(Latest::is_doubtful) || self.twins.values().any(Twin::is_doubtful)
    }

    /// As [`Latest::retime`], by the node's notes, of what the node wrote.
    pub fn retime(&mut self, notes: &ClockNotes) {
        if let Some(state) = &mut self.state {
            state.retime(notes);
        }
        for twin in self.twins.values_mut() {
            twin.retime(notes);
        }
    }
}

/// What reading a store gives, or why not.
pub type Found<T, S> = Result<T, FoldError<<S as Read>::Error>>;

/// The latest record about each of several things, by key.
pub type Keyed<T> = Vec<(String, Latest<T>)>;

/// One property of a device: what it should be, what it was reported to be, what was last sampled.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Twin {
    /// What it should be.
    pub desired: Option<Latest<v1::TwinDesired>>,
    /// What it was last reported to be.
    pub reported: Option<Latest<v1::TwinReported>>,
    /// What the last write came to.
    pub write_result: Option<Latest<v1::WriteResult>>,
    /// The latest sample.
    pub sample: Option<Latest<v1::Sample>>,
}

/// One device and its properties.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Device {
    /// How it is configured; `None` when it was removed but is still remembered.
    pub spec: Option<Latest<v1::DeviceSpec>>,
    /// Whether it answers.
    pub state: Option<Latest<v1::DeviceState>>,
    /// Its properties by name.
    pub twins: BTreeMap<String, Twin>,
}

/// All devices of a scope by `namespace/name`.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn devices<S: Read>(store: &S, scope: &Scope) -> Found<BTreeMap<String, Device>, S> {
    let mut devices: BTreeMap<String, Device> = BTreeMap::new();
    for (key, spec) in entries(store, scope, Table::Devices)? {
        devices.entry(key).or_default().spec = Some(spec);
    }
    for (key, state) in entries(store, scope, Table::DeviceStates)? {
        devices.entry(key).or_default().state = Some(state);
    }
    for (key, desired) in entries(store, scope, Table::Desired)? {
        if let Some(twin) = twin_of(&mut devices, &key) {
            twin.desired = Some(desired);
        }
    }
    for (key, reported) in entries(store, scope, Table::Reported)? {
        if let Some(twin) = twin_of(&mut devices, &key) {
            twin.reported = Some(reported);
        }
    }
    for (key, result) in entries(store, scope, Table::WriteResults)? {
        if let Some(twin) = twin_of(&mut devices, &key) {
            twin.write_result = Some(result);
        }
    }
    for (key, sample) in entries(store, scope, Table::LatestSamples)? {
        if let Some(twin) = twin_of(&mut devices, &key) {
            twin.sample = Some(sample);
        }
    }
    Ok(devices)
}

/// One device of a scope, by its key `namespace/name`.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn device<S: Read>(store: &S, scope: &Scope, key: &str) -> Found<Device, S> {
    let mut device = Device {
        spec: entry(store, scope, Table::Devices, key)?,
        state: entry(store, scope, Table::DeviceStates, key)?,
        twins: BTreeMap::new(),
    };
    let properties = format!("{key}/");
    for (property, desired) in entries_under(store, scope, Table::Desired, &properties)? {
        device.twins.entry(property).or_default().desired = Some(desired);
    }
    for (property, reported) in entries_under(store, scope, Table::Reported, &properties)? {
        device.twins.entry(property).or_default().reported = Some(reported);
    }
    for (property, result) in entries_under(store, scope, Table::WriteResults, &properties)? {
        device.twins.entry(property).or_default().write_result = Some(result);
    }
    for (property, sample) in entries_under(store, scope, Table::LatestSamples, &properties)? {
        device.twins.entry(property).or_default().sample = Some(sample);
    }
    Ok(device)
}

fn twin_of<'a>(devices: &'a mut BTreeMap<String, Device>, key: &str) -> Option<&'a mut Twin> {
    let (device, property) = key.rsplit_once('/')?;
    Some(
        devices
            .entry(device.to_owned())
            .or_default()
            .twins
            .entry(property.to_owned())
            .or_default(),
    )
}

/// What the node last said of itself.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn node<S: Read>(store: &S, scope: &Scope) -> Found<Option<Latest<v1::NodeState>>, S> {
    Ok(entries(store, scope, Table::NodeStates)?
        .into_iter()
        .next()
        .map(|(_, state)| state))
}

/// Gaps known in the scope, by key.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn gaps<S: Read>(store: &S, scope: &Scope) -> Found<Keyed<v1::Gap>, S> {
    entries(store, scope, Table::Gaps)
}

/// What this log gave up of telemetry that others wrote in the scope, by key.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn given_up<S: Read>(store: &S, scope: &Scope) -> Found<Keyed<v1::Gap>, S> {
    entries(store, scope, Table::GivenUp)
}

/// What the cloud last noted of a node's disk.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn node_fence<S: Read>(store: &S, node: &Scope) -> Found<Option<Latest<v1::NodeFence>>, S> {
    only(store, node, Table::NodeFences)
}

/// What the edge last noted of the cloud.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn edge_fence<S: Read>(store: &S, node: &Scope) -> Found<Option<Latest<v1::EdgeFence>>, S> {
    only(store, node, Table::EdgeFences)
}

/// What the cloud last noted of itself.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn cloud_fence<S: Read>(store: &S) -> Found<Option<Latest<v1::CloudFence>>, S> {
    only(store, &Scope::cluster(), Table::CloudFences)
}

fn only<S: Read, T: Message + Default>(
    store: &S,
    scope: &Scope,
    table: Table,
) -> Found<Option<Latest<T>>, S> {
    Ok(entries(store, scope, table)?.pop().map(|(_, latest)| latest))
}

/// Every scope the store knows something about from replicated lanes, in order.
///
/// # Errors
/// When the store fails.
pub fn scopes<S: Read>(store: &S) -> Result<Vec<Scope>, S::Error> {
    let mut names = BTreeSet::new();
    store.scan(b"", &mut |key, _| {
        if let Some(end) = key.iter().position(|byte| *byte == 0)
            && Table::of_key(&key[end + 1..]).is_none_or(|table| table.lane().is_replicated())
            && let Ok(name) = std::str::from_utf8(&key[..end])
            && let Ok(scope) = Scope::from_wire(name)
        {
            names.insert(scope);
        }
    })?;
    Ok(names.into_iter().collect())
}

/// The entries of one table of a scope, in the order of their keys.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn entries<S: Read, T: Message + Default>(store: &S, scope: &Scope, table: Table) -> Found<Keyed<T>, S> {
    entries_under(store, scope, table, "")
}

/// As [`entries`], of those keys that begin with `beginning`, and what follows it of each key.
fn entries_under<S: Read, T: Message + Default>(
    store: &S,
    scope: &Scope,
    table: Table,
    beginning: &str,
) -> Found<Keyed<T>, S> {
    let prefix = table_key(scope, table, beginning.as_bytes());
    let mut raw = Vec::new();
    store
        .scan(&prefix, &mut |key, value| {
            raw.push((
                String::from_utf8_lossy(&key[prefix.len()..]).into_owned(),
                Bytes::copy_from_slice(value),
            ));
        })
        .map_err(FoldError::Store)?;
    raw.into_iter()
        .map(|(key, value)| Ok((key, latest(table, value)?)))
        .collect()
}

/// One entry of a table of a scope; `None` when there is none.
///
/// # Errors
/// When the store fails or the entry is damaged.
pub fn entry<S: Read, T: Message + Default>(
    store: &S,
    scope: &Scope,
    table: Table,
    key: &str,
) -> Found<Option<Latest<T>>, S> {
    let found = store
        .get(&table_key(scope, table, key.as_bytes()))
        .map_err(FoldError::Store)?;
    found.map(|value| latest(table, value)).transpose()
}

fn latest<T: Message + Default, E>(table: Table, value: Bytes) -> Result<Latest<T>, FoldError<E>> {
    let entry: v1::Entry = decode(table, value)?;
    Ok(Latest {
        content: decode(table, entry.payload.clone())?,
        position: Position {
            epoch: Epoch(entry.epoch),
            seq: Seq(entry.seq),
        },
        wall_us: entry.wall_us,
        clock: entry.clock(),
        retimed: false,
        boot: entry.boot,
        mono_us: entry.mono_us,
        cause: entry.cause,
        count: entry.count,
    })
}
