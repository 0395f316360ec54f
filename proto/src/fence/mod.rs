//! Fencing: which disk of a node, and which cloud, may go on with which history.
//!
//! Everything here is a function of its arguments. [`decide()`] is the cloud's decision about a HELLO, [`judge_welcome`]
//! the edge's about a WELCOME; [`offer`], [`confirm`], [`quarantine`] and [`resolve`] give the next state to be made
//! durable. The states are payloads of records on the lane `local`: [`v1::NodeFence`], [`v1::EdgeFence`],
//! [`v1::CloudFence`].
//!
//! A **token** proves that a disk took part in the last session. The cloud makes token n+1 durable, then offers it;
//! the edge makes it durable, then confirms it. Until then the cloud also takes token n and every token it offered
//! since: whichever message was lost, the disk presents one of them; once one is confirmed, the others are stale. Two
//! copies of a disk cannot both hold the confirmed token for longer than one session, and the one that does not is
//! told from a disk that was rolled back by what it lost.
//!
//! **An operator's decision** ends a quarantine. It names a disk ([`Resolution::ThisDisk`]) or takes whichever says
//! HELLO first ([`Resolution::NewIncarnation`]); that disk goes on from where the cloud's copy ends, under a raised
//! epoch, whatever its own copy looks like, and gets a new token. Disks with an older token are from then on refused
//! without another quarantine.
//!
//! Reading order: [`facts`], [`mod@decide`], [`advance`], [`receipt`].

pub mod advance;
pub mod decide;
pub mod facts;
pub mod receipt;

pub use advance::{
    Resolution, begin_leadership, confirm, offer, quarantine, raise_restore_generation, resolve, shown,
};
pub use decide::{Action, CloudLost, Decision, Reset, candidates, decide, judge_welcome};
pub use facts::{Acked, HelloFacts, Ours, StreamFacts, WelcomeFacts};

use crate::ids::{Lane, Scope, StreamId};
use crate::record::Payload;
use crate::v1;

/// Key of the records that hold a fence: there is one per scope.
pub const RECORD_KEY: &str = "fence";

/// The next state of a fence: to be appended to the stream [`FenceUpdate::stream`].
#[derive(Debug, Clone, PartialEq)]
pub enum FenceUpdate {
    /// On the cloud, about a node.
    Node(Box<v1::NodeFence>),
    /// On the edge.
    Edge(v1::EdgeFence),
    /// On the cloud, about itself.
    Cloud(v1::CloudFence),
}

impl FenceUpdate {
    /// The stream it belongs to; `node` is the node of the session.
    pub fn stream(&self, node: &Scope) -> StreamId {
        let scope = match self {
            FenceUpdate::Node(_) | FenceUpdate::Edge(_) => node.clone(),
            FenceUpdate::Cloud(_) => Scope::cluster(),
        };
        StreamId::new(scope, Lane::Local)
    }

    /// The record to append: its kind, key and payload. The times are for whoever has a clock.
    pub fn record(&self) -> v1::Record {
        let payload = match self {
            FenceUpdate::Node(fence) => Payload::NodeFence(fence.clone()),
            FenceUpdate::Edge(fence) => Payload::EdgeFence(fence.clone()),
            FenceUpdate::Cloud(fence) => Payload::CloudFence(*fence),
        };
        let (kind, payload) = payload.encode();
        v1::Record {
            kind,
            key: RECORD_KEY.to_owned(),
            payload: payload.into(),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests;
