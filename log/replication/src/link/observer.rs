//! Who wants to know how a link goes: metrics, the fleet's status, tests.

use ledge_proto::ids::{Mark, StreamKey};
use ledge_proto::session::Peer;
use ledge_proto::v1;

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

    /// A received stream is on stable storage here up to `mark`.
    fn durable(&self, key: &StreamKey, mark: Mark) {
        let _ = (key, mark);
    }
}

/// Nobody.
#[derive(Debug)]
pub struct NoObserver;

impl LinkObserver for NoObserver {}
