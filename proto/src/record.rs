//! Kinds of records and their payloads.

use prost::Message;

use crate::v1;

/// What a record tells. Persisted: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum RecordKind {
    /// up.data: one sample of one property ([`v1::Sample`]).
    Sample = 1,
    /// up.data: a device event ([`v1::Event`]).
    DeviceEvent = 2,
    /// up.data: a daemon's own event ([`v1::Event`]).
    DaemonEvent = 3,
    /// up.data: records that were dropped ([`v1::Gap`]).
    Gap = 4,
    /// up.data: about to write to a device ([`v1::WriteIntent`]).
    WriteIntent = 5,
    /// up.data: what was kept of samples that were dropped ([`v1::SampleSummary`]).
    SampleSummary = 6,
    /// up.data: the wall clock became synced or jumped ([`v1::ClockSync`]).
    ClockSync = 7,
    /// up.state: a property's latest value ([`v1::TwinReported`]).
    TwinReported = 16,
    /// up.state: whether a device answers ([`v1::DeviceState`]).
    DeviceState = 17,
    /// up.state: the daemon and its machine ([`v1::NodeState`]).
    NodeState = 18,
    /// up.state: what a write came to ([`v1::WriteResult`]).
    WriteResult = 19,
    /// down: a device this node owns ([`v1::DeviceSpec`]).
    DeviceSpec = 32,
    /// down: a device this node no longer owns (empty payload).
    DeviceRemoved = 33,
    /// down: what a property should be ([`v1::TwinDesired`]).
    TwinDesired = 34,
    /// local, cloud: what the cloud knows of a node's disk ([`v1::NodeFence`]).
    NodeFence = 48,
    /// local, edge: what the node knows of the cloud ([`v1::EdgeFence`]).
    EdgeFence = 49,
    /// local, cloud: leadership and restore generation ([`v1::CloudFence`]).
    CloudFence = 50,
    /// api: an object was created or changed ([`v1::ApiObject`]).
    ApiObject = 64,
    /// api: an object was deleted ([`v1::ApiObject`], what it was last).
    ApiObjectDeleted = 65,
}

impl RecordKind {
    /// Every kind this version knows.
    pub const ALL: [RecordKind; 19] = [
        RecordKind::Sample,
        RecordKind::DeviceEvent,
        RecordKind::DaemonEvent,
        RecordKind::Gap,
        RecordKind::WriteIntent,
        RecordKind::SampleSummary,
        RecordKind::ClockSync,
        RecordKind::TwinReported,
        RecordKind::DeviceState,
        RecordKind::NodeState,
        RecordKind::WriteResult,
        RecordKind::DeviceSpec,
        RecordKind::DeviceRemoved,
        RecordKind::TwinDesired,
        RecordKind::NodeFence,
        RecordKind::EdgeFence,
        RecordKind::CloudFence,
        RecordKind::ApiObject,
        RecordKind::ApiObjectDeleted,
    ];

    /// The number written in records.
    pub fn as_wire(self) -> u32 {
        self as u32
    }

    /// Reads what [`RecordKind::as_wire`] wrote; `None` for a kind of a later version.
    pub fn from_wire(number: u32) -> Option<Self> {
        RecordKind::ALL.into_iter().find(|kind| kind.as_wire() == number)
    }

    /// The name shown to people.
    pub fn name(self) -> &'static str {
        match self {
            RecordKind::Sample => "Sample",
            RecordKind::DeviceEvent => "DeviceEvent",
            RecordKind::DaemonEvent => "DaemonEvent",
            RecordKind::Gap => "Gap",
            RecordKind::WriteIntent => "WriteIntent",
            RecordKind::SampleSummary => "SampleSummary",
            RecordKind::ClockSync => "ClockSync",
            RecordKind::TwinReported => "TwinReported",
            RecordKind::DeviceState => "DeviceState",
            RecordKind::NodeState => "NodeState",
            RecordKind::WriteResult => "WriteResult",
            RecordKind::DeviceSpec => "DeviceSpec",
            RecordKind::DeviceRemoved => "DeviceRemoved",
            RecordKind::TwinDesired => "TwinDesired",
            RecordKind::NodeFence => "NodeFence",
            RecordKind::EdgeFence => "EdgeFence",
            RecordKind::CloudFence => "CloudFence",
            RecordKind::ApiObject => "ApiObject",
            RecordKind::ApiObjectDeleted => "ApiObjectDeleted",
        }
    }
}

/// A record's payload, decoded.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the kind of the same name")]
pub enum Payload {
    Sample(v1::Sample),
    DeviceEvent(v1::Event),
    DaemonEvent(v1::Event),
    Gap(v1::Gap),
    WriteIntent(v1::WriteIntent),
    SampleSummary(v1::SampleSummary),
    ClockSync(v1::ClockSync),
    TwinReported(v1::TwinReported),
    DeviceState(v1::DeviceState),
    NodeState(v1::NodeState),
    WriteResult(v1::WriteResult),
    DeviceSpec(Box<v1::DeviceSpec>),
    DeviceRemoved,
    TwinDesired(v1::TwinDesired),
    NodeFence(Box<v1::NodeFence>),
    EdgeFence(v1::EdgeFence),
    CloudFence(v1::CloudFence),
    ApiObject(v1::ApiObject),
    ApiObjectDeleted(v1::ApiObject),
    /// A kind of a later version: kept, not understood.
    Unknown(u32),
}

impl Payload {
    /// Decodes the payload of `record` by its kind.
    ///
    /// # Errors
    /// When the payload is not the message its kind promises.
    pub fn decode(record: &v1::Record) -> Result<Payload, prost::DecodeError> {
        let bytes = record.payload.clone();
        Ok(match RecordKind::from_wire(record.kind) {
            None => Payload::Unknown(record.kind),
            Some(RecordKind::Sample) => Payload::Sample(Message::decode(bytes)?),
            Some(RecordKind::DeviceEvent) => Payload::DeviceEvent(Message::decode(bytes)?),
            Some(RecordKind::DaemonEvent) => Payload::DaemonEvent(Message::decode(bytes)?),
            Some(RecordKind::Gap) => Payload::Gap(Message::decode(bytes)?),
            Some(RecordKind::WriteIntent) => Payload::WriteIntent(Message::decode(bytes)?),
            Some(RecordKind::SampleSummary) => Payload::SampleSummary(Message::decode(bytes)?),
            Some(RecordKind::ClockSync) => Payload::ClockSync(Message::decode(bytes)?),
            Some(RecordKind::TwinReported) => Payload::TwinReported(Message::decode(bytes)?),
            Some(RecordKind::DeviceState) => Payload::DeviceState(Message::decode(bytes)?),
            Some(RecordKind::NodeState) => Payload::NodeState(Message::decode(bytes)?),
            Some(RecordKind::WriteResult) => Payload::WriteResult(Message::decode(bytes)?),
            Some(RecordKind::DeviceSpec) => Payload::DeviceSpec(Box::new(Message::decode(bytes)?)),
            Some(RecordKind::DeviceRemoved) => Payload::DeviceRemoved,
            Some(RecordKind::TwinDesired) => Payload::TwinDesired(Message::decode(bytes)?),
            Some(RecordKind::NodeFence) => Payload::NodeFence(Box::new(Message::decode(bytes)?)),
            Some(RecordKind::EdgeFence) => Payload::EdgeFence(Message::decode(bytes)?),
            Some(RecordKind::CloudFence) => Payload::CloudFence(Message::decode(bytes)?),
            Some(RecordKind::ApiObject) => Payload::ApiObject(Message::decode(bytes)?),
            Some(RecordKind::ApiObjectDeleted) => Payload::ApiObjectDeleted(Message::decode(bytes)?),
        })
    }

    /// The kind's number and the encoded message.
    pub fn encode(&self) -> (u32, Vec<u8>) {
        use RecordKind as K;
        let of = |kind: K, bytes: Vec<u8>| (kind.as_wire(), bytes);
        match self {
            Payload::Sample(m) => of(K::Sample, m.encode_to_vec()),
            Payload::DeviceEvent(m) => of(K::DeviceEvent, m.encode_to_vec()),
            Payload::DaemonEvent(m) => of(K::DaemonEvent, m.encode_to_vec()),
            Payload::Gap(m) => of(K::Gap, m.encode_to_vec()),
            Payload::WriteIntent(m) => of(K::WriteIntent, m.encode_to_vec()),
            Payload::SampleSummary(m) => of(K::SampleSummary, m.encode_to_vec()),
            Payload::ClockSync(m) => of(K::ClockSync, m.encode_to_vec()),
            Payload::TwinReported(m) => of(K::TwinReported, m.encode_to_vec()),
            Payload::DeviceState(m) => of(K::DeviceState, m.encode_to_vec()),
            Payload::NodeState(m) => of(K::NodeState, m.encode_to_vec()),
            Payload::WriteResult(m) => of(K::WriteResult, m.encode_to_vec()),
            Payload::DeviceSpec(m) => of(K::DeviceSpec, m.encode_to_vec()),
            Payload::DeviceRemoved => of(K::DeviceRemoved, Vec::new()),
            Payload::TwinDesired(m) => of(K::TwinDesired, m.encode_to_vec()),
            Payload::NodeFence(m) => of(K::NodeFence, m.encode_to_vec()),
            Payload::EdgeFence(m) => of(K::EdgeFence, m.encode_to_vec()),
            Payload::CloudFence(m) => of(K::CloudFence, m.encode_to_vec()),
            Payload::ApiObject(m) => of(K::ApiObject, m.encode_to_vec()),
            Payload::ApiObjectDeleted(m) => of(K::ApiObjectDeleted, m.encode_to_vec()),
            Payload::Unknown(kind) => (*kind, Vec::new()),
        }
    }
}

/// Key of a property: `namespace/device/property`.
pub fn property_key(namespace: &str, device: &str, property: &str) -> String {
    format!("{namespace}/{device}/{property}")
}

/// Key of a device: `namespace/device`.
pub fn device_key(namespace: &str, device: &str) -> String {
    format!("{namespace}/{device}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_number_and_decodes_its_own_payload() {
        for kind in RecordKind::ALL {
            assert_eq!(RecordKind::from_wire(kind.as_wire()), Some(kind));
            let record = v1::Record {
                kind: kind.as_wire(),
                ..Default::default()
            };
            let payload = Payload::decode(&record).unwrap();
            assert_eq!(payload.encode().0, kind.as_wire(), "{}", kind.name());
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_kept() {
        let record = v1::Record {
            kind: 9999,
            ..Default::default()
        };
        assert_eq!(Payload::decode(&record).unwrap(), Payload::Unknown(9999));
    }
}
