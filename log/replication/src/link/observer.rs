//! Who wants to know how a link goes: metrics, the fleet's status, tests.

use ledge_proto::fence::CloudLost;
use ledge_proto::ids::{Lane, Mark, Seq, StreamKey};
use ledge_proto::session::{Peer, RefuseReason};
use ledge_proto::v1::{self, snapshot::Purpose};

use super::fetch::Refill;
use crate::reset::LostHistory;

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the peer.
    Sent,
    /// From the peer.
    Received,
}

impl Direction {
    /// As in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Sent => "sent",
            Direction::Received => "received",
        }
    }
}

/// Bytes that are not frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Parts of a snapshot, with framing.
    Snapshot(Lane, Purpose),
    /// Messages of the session, with framing.
    Control,
    /// All of the connection's datagrams: everything else and QUIC's own bytes, without IP and UDP headers.
    Quic,
}

/// Told of what happens on a link. Calls come from the link's tasks: return at once.
pub trait LinkObserver: Send + Sync + 'static {
    /// The handshake is done.
    fn established(&self, peer: &Peer) {
        let _ = peer;
    }

    /// The peer has this on stable storage.
    fn peer_durable(&self, key: &StreamKey, mark: Mark) {
        let _ = (key, mark);
    }

    /// The peer has this in its archive.
    fn peer_archived(&self, key: &StreamKey, seq: Seq) {
        let _ = (key, seq);
    }

    /// No disk of the node is let in from now on.
    fn quarantined(&self, reason: RefuseReason, message: &str) {
        let _ = (reason, message);
    }

    /// This end had acknowledged records that it does not hold.
    fn cloud_lost(&self, lost: &CloudLost) {
        let _ = lost;
    }

    /// A stream of ours goes on under a new epoch.
    fn history_lost(&self, lost: &LostHistory) {
        let _ = lost;
    }

    /// Where the peer's own streams end; comes with each heartbeat.
    fn peer_heads(&self, heads: &[v1::LaneHead]) {
        let _ = heads;
    }

    /// A frame was handed to the connection: its records and its bytes with framing.
    fn sent(&self, key: &StreamKey, records: u64, bytes: u64) {
        let _ = (key, records, bytes);
    }

    /// A frame arrived and was accepted.
    fn received(&self, key: &StreamKey, records: u64, bytes: u64) {
        let _ = (key, records, bytes);
    }

    /// Bytes that are not frames.
    fn traffic(&self, direction: Direction, what: Traffic, bytes: u64) {
        let _ = (direction, what, bytes);
    }

    /// Values of a stream ahead of the history that says so: `parts` is one whole snapshot. It is not stored, and
    /// nothing of it is acknowledged.
    fn hint(&self, key: &StreamKey, parts: &[v1::Snapshot]) {
        let _ = (key, parts);
    }

    /// Something became of damaged records of a stream.
    fn refill(&self, key: &StreamKey, what: Refill) {
        let _ = (key, what);
    }

    /// A received stream is on stable storage here up to `mark`.
    fn durable(&self, key: &StreamKey, mark: Mark) {
        let _ = (key, mark);
    }
}

/// Nobody.
#[derive(Debug)]
pub struct NoObserver;

impl LinkObserver for NoObserver {}
