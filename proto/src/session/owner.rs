//! What a session is to its owner: what it asks, what it is told, and what it wants done.

use std::collections::BTreeMap;
use std::time::Duration;

use super::RefuseReason;
use crate::fence::receipt::ReceiptKey;
use crate::fence::{CloudLost, FenceUpdate, Ours};
use crate::ids::{ClusterId, Epoch, Incarnation, Mark, NameError, Position, Scope, Seq, StreamKey};
use crate::v1;

/// What this end's log holds and its fences say. The session asks, it never reads.
pub trait Holdings: Ours {
    /// Where a stream this end writes ended when the log was opened, `None` before its first record. (Edge.)
    fn opened(&self, key: &StreamKey) -> Option<Mark>;
    /// A mark above `peer` at which this end can give a snapshot and after which it holds every record; the lowest
    /// such, or another if that saves work. `None` when there is none.
    fn snapshot_mark(&self, key: &StreamKey, peer: Position) -> Option<Mark>;
    /// Up to where a received stream is in the archive. (Cloud, [`ArchivePolicy::Explicit`].)
    fn archived(&self, key: &StreamKey) -> Seq;
    /// The fence of this session's node, as last handed to the log. (Cloud.)
    fn node_fence(&self) -> v1::NodeFence;
    /// The cloud's own fence. (Cloud.)
    fn cloud_fence(&self) -> v1::CloudFence;
    /// The edge's fence, as last handed to the log. (Edge.)
    fn edge_fence(&self) -> v1::EdgeFence;
    /// Whether another session of this node is established. (Cloud.)
    fn other_session(&self) -> bool;
}

/// What "archived" means at this end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchivePolicy {
    /// There is no archive: what is durable counts as archived.
    #[default]
    FollowDurable,
    /// [`super::Session::handle_archived`] says so.
    Explicit,
}

/// What this end says of itself.
#[derive(Debug, Clone)]
pub struct Local {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Edge: its node name. Cloud: the node name the peer's certificate proves.
    pub node: Scope,
    /// Incarnation of this end's log.
    pub incarnation: Incarnation,
    /// Edge: which boot this is.
    pub boot_id: String,
    /// Edge: labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Program and version, for people.
    pub software: String,
    /// Cloud: heartbeat it asks for while there is something to tell. Edge: used until WELCOME.
    pub heartbeat: Duration,
    /// Cloud: longest heartbeat while there is nothing to tell.
    pub heartbeat_idle: Duration,
    /// Cloud: 16 random bytes, drawn for this session.
    pub nonce: [u8; 16],
    /// Cloud: wall clock at the beginning of the session, microseconds since 1970; noted in a quarantine.
    pub wall_us: i64,
    /// Cloud: signs what it acknowledges.
    pub receipts: Option<ReceiptKey>,
    /// Cloud: what it calls archived.
    pub archive: ArchivePolicy,
}

/// What the owner of a session has to do or know.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Make this durable, then call [`super::Session::handle_persisted`]: the session waits.
    Persist(FenceUpdate),
    /// Make this durable at leisure.
    Note(FenceUpdate),
    /// Begin a new epoch of a stream this end writes: fold it up to `common`, write that as a snapshot at
    /// (`epoch`, `base`), append again what this end holds after `common`, and record that history was lost. When all are durable, call [`super::Session::handle_reset_done`].
    Reset {
        /// A stream this end writes.
        key: StreamKey,
        /// The new epoch.
        epoch: Epoch,
        /// Its records follow this mark.
        base: Mark,
        /// The last record both ends are known to hold; `None` when there is none: everything this end holds is
        /// appended again.
        common: Option<Position>,
    },
    /// The handshake is done.
    Established {
        /// What the peer said of itself.
        peer: Peer,
    },
    /// Before [`Event::SendFrom`]: send a snapshot of `key` that stands at `at`. Where `at` is above the end of the
    /// records that are held nowhere else, what is between `after` and it is missing at the peer.
    SendSnapshot {
        /// A stream this end writes.
        key: StreamKey,
        /// Last record the peer has.
        after: Seq,
        /// Where the snapshot stands.
        at: Mark,
    },
    /// Send `key` from the first record after `after`, and go on as it grows.
    SendFrom {
        /// A stream this end writes.
        key: StreamKey,
        /// Last record the peer has.
        after: Seq,
    },
    /// The peer has this on stable storage.
    PeerDurable {
        /// A stream this end writes.
        key: StreamKey,
        /// Up to here.
        mark: Mark,
    },
    /// The peer has this in its archive: it may be let go of here.
    PeerArchived {
        /// A stream this end writes.
        key: StreamKey,
        /// Up to here.
        seq: Seq,
    },
    /// Where the peer's own streams end.
    PeerHeads(Vec<v1::LaneHead>),
    /// No disk of the node is let in from now on: end its other sessions. (Cloud.)
    Quarantine {
        /// Machine-readable.
        reason: RefuseReason,
        /// For people.
        message: String,
    },
    /// We had acknowledged these records, and no longer hold them; the edge sends what it still holds. (Cloud.)
    CloudLost(CloudLost),
    /// The peer cannot take the frame that holds this record as it is.
    Nack {
        /// A stream this end writes.
        key: StreamKey,
        /// The record.
        seq: Seq,
        /// Machine-readable.
        reason: String,
    },
    /// The peer has lost these records: send their frames on a stream of their own, or call
    /// [`super::Session::refuse_fetch`].
    Fetch {
        /// Names the request.
        id: u64,
        /// The stream.
        key: StreamKey,
        /// First record.
        first: Seq,
        /// Last record.
        last: Seq,
    },
    /// The peer does not hold what [`super::Session::fetch`] asked for.
    NotHeld {
        /// Names the request.
        id: u64,
    },
}

/// What the other end said of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Peer {
    /// Incarnation of its log (edge only).
    pub incarnation: Incarnation,
    /// Its boot (edge only).
    pub boot_id: String,
    /// Its labels (edge only).
    pub labels: BTreeMap<String, String>,
    /// Program and version.
    pub software: String,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// This end refuses the peer, and has told it.
    #[error("refused: {message} ({reason:?})")]
    Refusing {
        /// Machine-readable.
        reason: RefuseReason,
        /// For people: what and how to mend it.
        message: String,
    },
    /// The peer refuses this end.
    #[error("the other end refused: {message} ({reason})")]
    Refused {
        /// Machine-readable.
        reason: String,
        /// For people.
        message: String,
    },
    /// Nothing heard for two heartbeats.
    #[error("nothing heard for {0:?}: the link is half-open")]
    Silent(Duration),
    /// A message out of place or out of bounds.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// A name or id in a message is not valid.
    #[error("protocol violation: {0}")]
    Name(#[from] NameError),
}
