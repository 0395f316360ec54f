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
    /// up.data: a Kubernetes event ([`v1::KubeEvent`]).
    KubeEvent = 8,
    /// up.data: readings that gave the same value again ([`v1::SampleRun`]).
    SampleRun = 9,
    /// up.state: a property's latest value ([`v1::TwinReported`]).
    TwinReported = 16,
    /// up.state: whether a device answers ([`v1::DeviceState`]).
    DeviceState = 17,
    /// up.state: the daemon and its machine ([`v1::NodeState`]).
    NodeState = 18,
    /// up.state: what a write came to ([`v1::WriteResult`]).
    WriteResult = 19,
    /// up.state: the status of an object this node runs ([`v1::KubeStatus`]).
    KubeStatus = 20,
    /// up.state: this node no longer runs the object (empty payload).
    KubeStatusRemoved = 21,
    /// up.state: objects somebody on this node asked for ([`v1::Interest`]).
    Interest = 22,
    /// up.state: nobody asks for them any more (empty payload).
    InterestRemoved = 23,
    /// up.state: a request that changes something in the Kubernetes API ([`v1::KubeWrite`]).
    KubeWrite = 24,
    /// up.state: the result of a write was taken (empty payload).
    KubeWriteRemoved = 25,
    /// up.state: what the projection of `down` comes to ([`v1::DownApplied`]).
    DownApplied = 26,
    /// down: a device this node owns ([`v1::DeviceSpec`]).
    DeviceSpec = 32,
    /// down: a device this node no longer owns (empty payload).
    DeviceRemoved = 33,
    /// down: what a property should be ([`v1::TwinDesired`]).
    TwinDesired = 34,
    /// down: a Kubernetes object that is needed here ([`v1::KubeObject`]).
    KubeObject = 35,
    /// down: an object that is not needed here any more ([`v1::KubeObjectRemoved`]).
    KubeObjectRemoved = 36,
    /// down: what became of an interest ([`v1::InterestState`]).
    InterestState = 37,
    /// down: an interest is forgotten (empty payload).
    InterestStateRemoved = 38,
    /// down: what a write came to ([`v1::KubeWriteResult`]).
    KubeWriteResult = 39,
    /// down: a write is forgotten (empty payload).
    KubeWriteResultRemoved = 40,
    /// down: the projection has to be folded again ([`v1::Repair`]).
    Repair = 41,
    /// local, cloud: what the cloud knows of a node's disk ([`v1::NodeFence`]).
    NodeFence = 48,
    /// local, edge: what the node knows of the cloud ([`v1::EdgeFence`]).
    EdgeFence = 49,
    /// local, cloud: leadership and restore generation ([`v1::CloudFence`]).
    CloudFence = 50,
    /// local, cloud: up to where a node's events were written to the API ([`v1::EventCursor`]).
    EventCursor = 51,
    /// api: an object was created or changed ([`v1::ApiObject`]).
    ApiObject = 64,
    /// api: an object was deleted ([`v1::ApiObject`], what it was last).
    ApiObjectDeleted = 65,
}

impl RecordKind {
    /// Every kind this version knows.
    pub const ALL: [RecordKind; 36] = [
        RecordKind::Sample,
        RecordKind::DeviceEvent,
        RecordKind::DaemonEvent,
        RecordKind::Gap,
        RecordKind::WriteIntent,
        RecordKind::SampleSummary,
        RecordKind::ClockSync,
        RecordKind::KubeEvent,
        RecordKind::SampleRun,
        RecordKind::TwinReported,
        RecordKind::DeviceState,
        RecordKind::NodeState,
        RecordKind::WriteResult,
        RecordKind::KubeStatus,
        RecordKind::KubeStatusRemoved,
        RecordKind::Interest,
        RecordKind::InterestRemoved,
        RecordKind::KubeWrite,
        RecordKind::KubeWriteRemoved,
        RecordKind::DownApplied,
        RecordKind::DeviceSpec,
        RecordKind::DeviceRemoved,
        RecordKind::TwinDesired,
        RecordKind::KubeObject,
        RecordKind::KubeObjectRemoved,
        RecordKind::InterestState,
        RecordKind::InterestStateRemoved,
        RecordKind::KubeWriteResult,
        RecordKind::KubeWriteResultRemoved,
        RecordKind::Repair,
        RecordKind::NodeFence,
        RecordKind::EdgeFence,
        RecordKind::CloudFence,
        RecordKind::EventCursor,
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
            RecordKind::SampleRun => "SampleRun",
            RecordKind::ClockSync => "ClockSync",
            RecordKind::KubeEvent => "KubeEvent",
            RecordKind::TwinReported => "TwinReported",
            RecordKind::DeviceState => "DeviceState",
            RecordKind::NodeState => "NodeState",
            RecordKind::WriteResult => "WriteResult",
            RecordKind::KubeStatus => "KubeStatus",
            RecordKind::KubeStatusRemoved => "KubeStatusRemoved",
            RecordKind::Interest => "Interest",
            RecordKind::InterestRemoved => "InterestRemoved",
            RecordKind::KubeWrite => "KubeWrite",
            RecordKind::KubeWriteRemoved => "KubeWriteRemoved",
            RecordKind::DownApplied => "DownApplied",
            RecordKind::DeviceSpec => "DeviceSpec",
            RecordKind::DeviceRemoved => "DeviceRemoved",
            RecordKind::TwinDesired => "TwinDesired",
            RecordKind::KubeObject => "KubeObject",
            RecordKind::KubeObjectRemoved => "KubeObjectRemoved",
            RecordKind::InterestState => "InterestState",
            RecordKind::InterestStateRemoved => "InterestStateRemoved",
            RecordKind::KubeWriteResult => "KubeWriteResult",
            RecordKind::KubeWriteResultRemoved => "KubeWriteResultRemoved",
            RecordKind::Repair => "Repair",
            RecordKind::NodeFence => "NodeFence",
            RecordKind::EdgeFence => "EdgeFence",
            RecordKind::CloudFence => "CloudFence",
            RecordKind::EventCursor => "EventCursor",
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
    #[allow(missing_docs, reason = "see the kind")]
    SampleRun(v1::SampleRun),
    ClockSync(v1::ClockSync),
    KubeEvent(v1::KubeEvent),
    TwinReported(v1::TwinReported),
    DeviceState(v1::DeviceState),
    NodeState(v1::NodeState),
    WriteResult(v1::WriteResult),
    KubeStatus(v1::KubeStatus),
    KubeStatusRemoved,
    Interest(v1::Interest),
    InterestRemoved,
    KubeWrite(v1::KubeWrite),
    KubeWriteRemoved,
    DownApplied(v1::DownApplied),
    DeviceSpec(Box<v1::DeviceSpec>),
    DeviceRemoved,
    TwinDesired(v1::TwinDesired),
    KubeObject(v1::KubeObject),
    KubeObjectRemoved(v1::KubeObjectRemoved),
    InterestState(v1::InterestState),
    InterestStateRemoved,
    KubeWriteResult(v1::KubeWriteResult),
    KubeWriteResultRemoved,
    Repair(v1::Repair),
    NodeFence(Box<v1::NodeFence>),
    EdgeFence(v1::EdgeFence),
    CloudFence(v1::CloudFence),
    EventCursor(v1::EventCursor),
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
            Some(RecordKind::SampleRun) => Payload::SampleRun(Message::decode(bytes)?),
            Some(RecordKind::ClockSync) => Payload::ClockSync(Message::decode(bytes)?),
            Some(RecordKind::KubeEvent) => Payload::KubeEvent(Message::decode(bytes)?),
            Some(RecordKind::TwinReported) => Payload::TwinReported(Message::decode(bytes)?),
            Some(RecordKind::DeviceState) => Payload::DeviceState(Message::decode(bytes)?),
            Some(RecordKind::NodeState) => Payload::NodeState(Message::decode(bytes)?),
            Some(RecordKind::WriteResult) => Payload::WriteResult(Message::decode(bytes)?),
            Some(RecordKind::KubeStatus) => Payload::KubeStatus(Message::decode(bytes)?),
            Some(RecordKind::KubeStatusRemoved) => Payload::KubeStatusRemoved,
            Some(RecordKind::Interest) => Payload::Interest(Message::decode(bytes)?),
            Some(RecordKind::InterestRemoved) => Payload::InterestRemoved,
            Some(RecordKind::KubeWrite) => Payload::KubeWrite(Message::decode(bytes)?),
            Some(RecordKind::KubeWriteRemoved) => Payload::KubeWriteRemoved,
            Some(RecordKind::DownApplied) => Payload::DownApplied(Message::decode(bytes)?),
            Some(RecordKind::DeviceSpec) => Payload::DeviceSpec(Box::new(Message::decode(bytes)?)),
            Some(RecordKind::DeviceRemoved) => Payload::DeviceRemoved,
            Some(RecordKind::TwinDesired) => Payload::TwinDesired(Message::decode(bytes)?),
            Some(RecordKind::KubeObject) => Payload::KubeObject(Message::decode(bytes)?),
            Some(RecordKind::KubeObjectRemoved) => Payload::KubeObjectRemoved(Message::decode(bytes)?),
            Some(RecordKind::InterestState) => Payload::InterestState(Message::decode(bytes)?),
            Some(RecordKind::InterestStateRemoved) => Payload::InterestStateRemoved,
            Some(RecordKind::KubeWriteResult) => Payload::KubeWriteResult(Message::decode(bytes)?),
            Some(RecordKind::KubeWriteResultRemoved) => Payload::KubeWriteResultRemoved,
            Some(RecordKind::Repair) => Payload::Repair(Message::decode(bytes)?),
            Some(RecordKind::NodeFence) => Payload::NodeFence(Box::new(Message::decode(bytes)?)),
            Some(RecordKind::EdgeFence) => Payload::EdgeFence(Message::decode(bytes)?),
            Some(RecordKind::CloudFence) => Payload::CloudFence(Message::decode(bytes)?),
            Some(RecordKind::EventCursor) => Payload::EventCursor(Message::decode(bytes)?),
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
            Payload::SampleRun(m) => of(K::SampleRun, m.encode_to_vec()),
            Payload::ClockSync(m) => of(K::ClockSync, m.encode_to_vec()),
            Payload::KubeEvent(m) => of(K::KubeEvent, m.encode_to_vec()),
            Payload::TwinReported(m) => of(K::TwinReported, m.encode_to_vec()),
            Payload::DeviceState(m) => of(K::DeviceState, m.encode_to_vec()),
            Payload::NodeState(m) => of(K::NodeState, m.encode_to_vec()),
            Payload::WriteResult(m) => of(K::WriteResult, m.encode_to_vec()),
            Payload::KubeStatus(m) => of(K::KubeStatus, m.encode_to_vec()),
            Payload::KubeStatusRemoved => of(K::KubeStatusRemoved, Vec::new()),
            Payload::Interest(m) => of(K::Interest, m.encode_to_vec()),
            Payload::InterestRemoved => of(K::InterestRemoved, Vec::new()),
            Payload::KubeWrite(m) => of(K::KubeWrite, m.encode_to_vec()),
            Payload::KubeWriteRemoved => of(K::KubeWriteRemoved, Vec::new()),
            Payload::DownApplied(m) => of(K::DownApplied, m.encode_to_vec()),
            Payload::DeviceSpec(m) => of(K::DeviceSpec, m.encode_to_vec()),
            Payload::DeviceRemoved => of(K::DeviceRemoved, Vec::new()),
            Payload::TwinDesired(m) => of(K::TwinDesired, m.encode_to_vec()),
            Payload::KubeObject(m) => of(K::KubeObject, m.encode_to_vec()),
            Payload::KubeObjectRemoved(m) => of(K::KubeObjectRemoved, m.encode_to_vec()),
            Payload::InterestState(m) => of(K::InterestState, m.encode_to_vec()),
            Payload::InterestStateRemoved => of(K::InterestStateRemoved, Vec::new()),
            Payload::KubeWriteResult(m) => of(K::KubeWriteResult, m.encode_to_vec()),
            Payload::KubeWriteResultRemoved => of(K::KubeWriteResultRemoved, Vec::new()),
            Payload::Repair(m) => of(K::Repair, m.encode_to_vec()),
            Payload::NodeFence(m) => of(K::NodeFence, m.encode_to_vec()),
            Payload::EdgeFence(m) => of(K::EdgeFence, m.encode_to_vec()),
            Payload::CloudFence(m) => of(K::CloudFence, m.encode_to_vec()),
            Payload::EventCursor(m) => of(K::EventCursor, m.encode_to_vec()),
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

/// Key of a Kubernetes object: `group/resource/namespace/name`, each possibly empty.
pub fn object_key(group: &str, resource: &str, namespace: &str, name: &str) -> String {
    format!("{group}/{resource}/{namespace}/{name}")
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
