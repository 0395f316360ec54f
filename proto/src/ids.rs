//! Names and positions of streams. Positions are types, not numbers, so that they cannot be mixed up.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits;

/// Whom a stream belongs to: one node, or every node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Arc<str>);

impl Scope {
    /// The scope every node shares.
    pub fn cluster() -> Self {
        Scope(Arc::from(""))
    }

    /// The scope of one node. The name must be a DNS subdomain in lower case (RFC 1123), as Kubernetes asks.
    pub fn node(name: &str) -> Result<Self, NameError> {
        check_node_name(name)?;
        Ok(Scope(Arc::from(name)))
    }

    /// The node's name, or `None` for the cluster's scope.
    pub fn node_name(&self) -> Option<&str> {
        if self.0.is_empty() { None } else { Some(&self.0) }
    }

    /// As written in a frame header: the node's name, or empty for the cluster.
    pub fn as_wire(&self) -> &str {
        &self.0
    }

    /// Reads what [`Scope::as_wire`] wrote.
    pub fn from_wire(wire: &str) -> Result<Self, NameError> {
        if wire.is_empty() {
            Ok(Scope::cluster())
        } else {
            Scope::node(wire)
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.node_name().unwrap_or("cluster"))
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({self})")
    }
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a DNS subdomain in lower case.
    #[error(
        "`{0}` is not a valid node name: use lower-case letters, digits, `-` and `.`, at most 253 characters, beginning and ending with a letter or digit"
    )]
    Node(String),
    /// `cluster` names the scope every node shares.
    #[error("`cluster` cannot be a node's name: it names the streams every node shares")]
    Reserved,
    /// Not `SCOPE/LANE`.
    #[error(
        "`{0}` is not a stream: write SCOPE/LANE, for example `edge-1/up.data`, with lane down, up.state or up.data"
    )]
    Stream(String),
    /// A lane number this version does not know.
    #[error("lane {0} is unknown to this version")]
    Lane(u32),
    /// Sixteen bytes were wanted.
    #[error("an id of {0} bytes where 16 were expected")]
    IdLength(usize),
}

fn check_node_name(name: &str) -> Result<(), NameError> {
    let ends_ok = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let ok = bytes.len() <= limits::SCOPE_MAX_BYTES
        && ends_ok(bytes.first())
        && ends_ok(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-' || *b == b'.');
    if !ok {
        // A name from outside may be huge: show its beginning.
        return Err(NameError::Node(name.chars().take(80).collect()));
    }
    if name == "cluster" {
        return Err(NameError::Reserved);
    }
    Ok(())
}

/// Direction and urgency of a stream. Persisted: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Desired state and commands, cloud to edge.
    Down = 1,
    /// Latest status per key, edge to cloud.
    UpState = 2,
    /// Telemetry and events, edge to cloud.
    UpData = 3,
    /// What a daemon notes for itself, such as session tokens. Never leaves the log it was written to.
    Local = 4,
    /// Objects of the embedded Kubernetes API. Never leaves the log it was written to.
    Api = 5,
}

impl Lane {
    /// Every lane, in the order of their numbers.
    pub const ALL: [Lane; 5] = [Lane::Down, Lane::UpState, Lane::UpData, Lane::Local, Lane::Api];

    /// The lanes that are replicated.
    pub const REPLICATED: [Lane; 3] = [Lane::Down, Lane::UpState, Lane::UpData];

    /// Whether other logs get its records.
    pub fn is_replicated(self) -> bool {
        Lane::REPLICATED.contains(&self)
    }

    /// The lane's name: `down`, `up.state`, `up.data`, `local` or `api`.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Down => "down",
            Lane::UpState => "up.state",
            Lane::UpData => "up.data",
            Lane::Local => "local",
            Lane::Api => "api",
        }
    }

    /// The number written in frames.
    pub fn as_wire(self) -> u32 {
        self as u32
    }

    /// Reads what [`Lane::as_wire`] wrote.
    pub fn from_wire(number: u32) -> Result<Self, NameError> {
        Lane::ALL
            .into_iter()
            .find(|lane| lane.as_wire() == number)
            .ok_or(NameError::Lane(number))
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A logical log with one writer and dense sequence numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Whose stream it is.
    pub scope: Scope,
    /// Which of the scope's streams.
    pub lane: Lane,
}

impl StreamId {
    /// The stream `lane` of `scope`.
    pub fn new(scope: Scope, lane: Lane) -> Self {
        StreamId { scope, lane }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scope, self.lane)
    }
}

impl FromStr for StreamId {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let bad = || NameError::Stream(s.chars().take(80).collect());
        let (scope, lane) = s.rsplit_once('/').ok_or_else(bad)?;
        let lane = Lane::ALL.into_iter().find(|l| l.name() == lane).ok_or_else(bad)?;
        let scope = if scope == "cluster" {
            Scope::cluster()
        } else {
            Scope::node(scope)?
        };
        Ok(StreamId { scope, lane })
    }
}

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads sixteen bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, NameError> {
                bytes.try_into().map($name).map_err(|_| NameError::IdLength(bytes.len()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(&self.0[..4]))
            }
        }
    };
}

id16! {
    /// Which life of a disk wrote a stream: drawn at random when a log is created.
    Incarnation
}
id16! {
    /// First 16 bytes of the BLAKE3 hash that links a frame to all frames before it in its stream.
    Chain
}
id16! {
    /// Which cluster a log or certificate belongs to.
    ClusterId
}

/// A stream of one incarnation: what is dense and has one writer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The stream.
    pub id: StreamId,
    /// Which life of the writer's disk.
    pub incarnation: Incarnation,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, hex::encode(&self.incarnation.0[..4]))
    }
}

impl StreamKey {
    /// The chain before the first frame: binds the stream's name to everything that follows.
    pub fn genesis_chain(&self) -> Chain {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"ledge stream v1\0");
        hasher.update(self.id.scope.as_wire().as_bytes());
        hasher.update(&[0, self.id.lane as u8]);
        hasher.update(&self.incarnation.0);
        Chain(truncate16(&hasher))
    }
}

/// First 16 bytes of a BLAKE3 hash.
pub fn truncate16(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Leadership under which a record was written, from 1. Order of records is (epoch, seq).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The first epoch of a stream.
    pub const FIRST: Epoch = Epoch(1);
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Sequence number of a record within its stream, dense from 1; 0 stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first record.
    pub const ZERO: Seq = Seq(0);

    /// The next sequence number.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in a stream. Ordered by epoch, then sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Leadership.
    pub epoch: Epoch,
    /// Sequence number.
    pub seq: Seq,
}

impl Position {
    /// Before the first record of a stream.
    pub const ZERO: Position = Position {
        epoch: Epoch(0),
        seq: Seq(0),
    };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

/// The end of a frame: a position and the chain that proves everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Last record.
    pub position: Position,
    /// Chain of the frame that ends there.
    pub chain: Chain,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_names_round_trip() {
        for name in ["edge-1/up.data", "cluster/down", "a.b/up.state"] {
            assert_eq!(name.parse::<StreamId>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn bad_names_are_refused_with_the_rule() {
        for name in ["", "-a", "A", "a/b", "é", "cluster", &"a".repeat(254)] {
            assert!(Scope::node(name).is_err(), "{name}");
        }
        let err = "edge-1".parse::<StreamId>().unwrap_err().to_string();
        assert!(err.contains("SCOPE/LANE"), "{err}");
    }

    #[test]
    fn positions_order_by_epoch_first() {
        let at = |epoch, seq| Position {
            epoch: Epoch(epoch),
            seq: Seq(seq),
        };
        assert!(at(2, 1) > at(1, 100));
        assert!(at(1, 2) > at(1, 1));
    }
}
