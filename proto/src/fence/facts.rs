//! What a HELLO and a WELCOME say, checked and typed.

use crate::ids::{
    Chain, Epoch, Incarnation, Lane, Mark, NameError, Position, Scope, Seq, StreamId, StreamKey,
};
use crate::v1;

/// What this end's log holds of a stream, as the decision asks it.
pub trait Ours {
    /// Last durable record of a stream, if any.
    fn durable(&self, key: &StreamKey) -> Option<Mark>;
    /// The mark of the frame (or snapshot) of the standing history that ends exactly at `seq`, if it is still held.
    fn mark_at(&self, key: &StreamKey, seq: Seq) -> Option<Mark>;
    /// Last record before those still held; 0 when all are.
    fn held_after(&self, key: &StreamKey) -> Seq;
}

/// Tells whether a receipt is ours; `None` without a key to tell.
pub type Verify = dyn Fn(&StreamKey, &Mark, &[u8]) -> Option<bool>;

/// What an edge says about itself in HELLO.
#[derive(Debug, Clone, PartialEq)]
pub struct HelloFacts {
    /// Its disk.
    pub incarnation: Incarnation,
    /// The token it keeps; counter 0 for none.
    pub token: v1::SessionToken,
    /// Highest leadership it followed, within `restore_generation_seen`.
    pub max_cloud_epoch_seen: u64,
    /// Restore generation it followed last.
    pub restore_generation_seen: u64,
    /// The streams it writes.
    pub streams: Vec<StreamFacts>,
}

/// A stream an edge writes.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamFacts {
    /// The stream.
    pub key: StreamKey,
    /// Where it ends; `None` when nothing is written yet.
    pub end: Option<Mark>,
    /// Where it ended when the edge's log was opened.
    pub opened: Option<Mark>,
    /// What it knows to be acknowledged.
    pub acked: Option<Acked>,
}

/// What an edge knows to be acknowledged of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// On stable storage at the cloud.
    pub durable: Mark,
    /// In the archive.
    pub archived: Seq,
    /// Whether the receipt is ours; `None` without a key to tell.
    pub verified: Option<bool>,
}

/// What a cloud says about itself in WELCOME.
#[derive(Debug, Clone, PartialEq)]
pub struct WelcomeFacts {
    /// Its leadership.
    pub cloud_epoch: u64,
    /// Its restore generation.
    pub restore_generation: u64,
    /// The token it offers.
    pub token: v1::SessionToken,
    /// Where it ends in the streams the edge writes or receives.
    pub streams: Vec<(StreamKey, Option<Mark>)>,
}

impl HelloFacts {
    /// Reads a HELLO. `node` is the node the certificate names; streams of others, and those the node does not write,
    /// are left out. `verify` tells whether a receipt is ours.
    ///
    /// # Errors
    /// When an id or a mark is malformed.
    pub fn of(hello: &v1::Hello, node: &Scope, verify: &Verify) -> Result<HelloFacts, NameError> {
        let incarnation = Incarnation::from_slice(&hello.incarnation)?;
        let mut streams = Vec::new();
        for lane in [Lane::UpState, Lane::UpData] {
            let key = StreamKey {
                id: StreamId::new(node.clone(), lane),
                incarnation,
            };
            let state = hello.streams.iter().find(|state| is_about(state, &key));
            let acked = state.and_then(|state| state.acknowledged.as_ref());
            let acked = match acked.map(|acked| (acked, mark(acked.durable.as_ref()))) {
                Some((acked, Ok(Some(durable)))) => Some(Acked {
                    durable,
                    archived: Seq(acked.archived_seq.min(durable.position.seq.0)),
                    verified: verify(&key, &durable, &acked.receipt),
                }),
                Some((_, Err(err))) => return Err(err),
                Some((_, Ok(None))) | None => None,
            };
            streams.push(StreamFacts {
                end: state.map_or(Ok(None), end_of)?,
                opened: state.map_or(Ok(None), |state| mark(state.opened.as_ref()))?,
                acked,
                key,
            });
        }
        Ok(HelloFacts {
            incarnation,
            token: hello.token.clone().unwrap_or_default(),
            max_cloud_epoch_seen: hello.max_cloud_epoch_seen,
            restore_generation_seen: hello.restore_generation_seen,
            streams,
        })
    }
}

/// Whether `state` is about this stream of this incarnation.
pub fn is_about(state: &v1::StreamState, key: &StreamKey) -> bool {
    state.scope == key.id.scope.as_wire()
        && state.lane == key.id.lane.as_wire()
        && state.incarnation == key.incarnation.0
}

/// Where a stream ends at the other end; `None` when it has nothing.
///
/// # Errors
/// When the chain is malformed.
pub fn end_of(state: &v1::StreamState) -> Result<Option<Mark>, NameError> {
    mark_of(state.epoch, state.seq, &state.chain)
}

/// A mark from the wire; `None` before the first record of the first epoch.
///
/// # Errors
/// When the chain is malformed.
pub fn mark(wire: Option<&v1::Mark>) -> Result<Option<Mark>, NameError> {
    wire.map_or(Ok(None), |wire| mark_of(wire.epoch, wire.seq, &wire.chain))
}

fn mark_of(epoch: u32, seq: u64, chain: &[u8]) -> Result<Option<Mark>, NameError> {
    let position = Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    };
    if position == Position::ZERO {
        return Ok(None);
    }
    let chain = Chain::from_slice(chain)?;
    Ok(Some(Mark { position, chain }))
}

/// A mark for the wire.
pub fn wire_mark(mark: Mark) -> v1::Mark {
    v1::Mark {
        epoch: mark.position.epoch.0,
        seq: mark.position.seq.0,
        chain: mark.chain.0.to_vec(),
    }
}

/// The sequence number of an end, 0 for none.
pub fn seq_of(mark: Option<Mark>) -> Seq {
    mark.map_or(Seq::ZERO, |mark| mark.position.seq)
}

/// The position of an end, zero for none.
pub fn position_of(mark: Option<Mark>) -> Position {
    mark.map_or(Position::ZERO, |mark| mark.position)
}
