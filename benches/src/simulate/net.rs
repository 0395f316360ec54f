//! The network: for each direction of a connection one line with a speed, and on it one ordered lane for control
//! and one for each stream. What is on a lane arrives in order or, when the connection breaks, not at all.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ledge_log::StreamReader;
use ledge_proto::ids::{Lane, Mark, Seq, StreamKey};
use ledge_retention::gaps::PeerGaps;

/// What travels.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A control message.
    Control(Bytes),
    /// A frame of a stream.
    Frame(StreamKey, Bytes),
    /// A part of a snapshot of a stream.
    Part(StreamKey, Bytes),
}

impl Item {
    /// The stream it is of.
    pub(super) fn stream(&self) -> Option<&StreamKey> {
        match self {
            Item::Control(_) => None,
            Item::Frame(key, _) | Item::Part(key, _) => Some(key),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Item::Control(bytes) | Item::Frame(_, bytes) | Item::Part(_, bytes) => bytes.len(),
        }
    }
}

/// Which lane of a connection, most urgent first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneKey {
    urgency: u8,
    stream: Option<StreamKey>,
}

impl LaneKey {
    pub(super) fn control() -> Self {
        LaneKey {
            urgency: 0,
            stream: None,
        }
    }

    /// As the link to the cloud orders them.
    pub(super) fn stream(key: &StreamKey) -> Self {
        let urgency = match key.id.lane {
            Lane::Down => 1,
            Lane::UpState => 2,
            Lane::UpData | Lane::Local | Lane::Api => 3,
        };
        LaneKey {
            urgency,
            stream: Some(key.clone()),
        }
    }

    pub(super) fn of(item: &Item) -> Self {
        match item {
            Item::Control(_) => LaneKey::control(),
            Item::Frame(key, _) | Item::Part(key, _) => LaneKey::stream(key),
        }
    }
}

/// Where one stream is sent from.
pub(super) struct Sender {
    pub(super) reader: StreamReader,
    /// Parts of a snapshot that go first.
    pub(super) parts: VecDeque<Bytes>,
    /// A snapshot that is to go first: the last record the peer has, and where the snapshot stands.
    pub(super) first: Option<(Seq, Mark)>,
    /// What the peer does not get of it.
    pub(super) gaps: PeerGaps,
}

impl Sender {
    pub(super) fn new(reader: StreamReader, first: Option<(Seq, Mark)>) -> Self {
        Sender {
            gaps: PeerGaps::new(reader.key().clone()),
            reader,
            first,
            parts: VecDeque::new(),
        }
    }
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Line {
    /// Control messages that wait for the line.
    pub(super) control: VecDeque<Bytes>,
    /// The streams sent, most urgent first.
    pub(super) senders: BTreeMap<LaneKey, Sender>,
    /// Something is being sent.
    pub(super) busy: bool,
    /// When the last item sent on each lane arrives.
    pub(super) last_arrival: BTreeMap<LaneKey, u64>,
    /// So many of the next frames arrive twice.
    pub(super) twice: u64,
    /// Nothing gets through until this time.
    pub(super) stalled_until: u64,
}
