//! The next state of a fence: what is made durable before anything depends on it.

use super::HelloFacts;
use crate::ids::Incarnation;
use crate::limits;
use crate::session::RefuseReason;
use crate::v1;

/// What an operator decided about a node in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Whichever disk says HELLO next is the node's, and goes on as if its history began anew where the cloud's
    /// copy ends.
    NewIncarnation,
    /// Only the disk with this incarnation and token.
    ThisDisk {
        /// The disk.
        incarnation: Incarnation,
        /// The token it presents.
        token: v1::SessionToken,
    },
}

/// The state to make durable before WELCOME offers its token to the edge that said `hello` and was accepted. `nonce`
/// is drawn for this session; `generation` is the cloud's restore generation; `epoch` is the one given to streams
/// that go on under another, if any does.
#[must_use]
pub fn offer(
    node: &v1::NodeFence,
    hello: &HelloFacts,
    nonce: [u8; 16],
    generation: u64,
    epoch: Option<u32>,
) -> v1::NodeFence {
    let mut next = node.clone();
    next.quarantine = None;
    next.restore_generation = generation;
    next.epoch = next.epoch.max(epoch.unwrap_or_default());
    for end in hello.streams.iter().filter_map(|stream| stream.end) {
        // A cloud that was put back to an older state learns from the edge which epochs it had given.
        next.epoch = next.epoch.max(end.position.epoch.0);
    }
    let same_disk = node.incarnation == hello.incarnation.0;
    let presented = &hello.token;
    let current = counter(&node.current);
    if takes(node, presented) && same_disk && !node.confirmed {
        // WELCOME or CONFIRM was lost. Which of these tokens the edge keeps shows when it confirms one.
        if node.outstanding.len() >= limits::FENCE_MAX_OUTSTANDING {
            return next; // The same token again.
        }
        next.outstanding.extend(node.current.clone());
    } else {
        next.outstanding = vec![presented.clone()];
    }
    if !same_disk {
        if !node.incarnation.is_empty() {
            close(&mut next.closed, node.incarnation.clone());
        }
        next.closed.retain(|closed| *closed != hello.incarnation.0);
        next.incarnation = hello.incarnation.0.to_vec();
    } else if !takes(node, presented) && presented.counter < current && node.accepted.is_none() {
        next.rolled_back_from = presented.counter;
        next.rolled_back_to = current.saturating_add(1);
    }
    next.current = Some(v1::SessionToken {
        counter: current.max(presented.counter).saturating_add(1),
        nonce: nonce.to_vec(),
    });
    next.confirmed = false;
    next
}

/// The state to make durable once the edge has confirmed the token, and before anything of the session is stored.
#[must_use]
pub fn confirm(node: &v1::NodeFence) -> v1::NodeFence {
    let mut next = node.clone();
    next.confirmed = true;
    next.outstanding.clear();
    if next.accepted.take().is_some() {
        next.settled_below = counter(&next.current);
    }
    next
}

/// The state to make durable before the edge is told that no disk of its node is let in.
#[must_use]
pub fn quarantine(
    node: &v1::NodeFence,
    reason: RefuseReason,
    message: &str,
    since_us: i64,
    incarnation: Incarnation,
    token: &v1::SessionToken,
) -> v1::NodeFence {
    v1::NodeFence {
        quarantine: Some(v1::Quarantine {
            reason: reason.name().to_owned(),
            message: message.to_owned(),
            since_us,
            incarnation: incarnation.0.to_vec(),
            token: Some(token.clone()),
        }),
        ..node.clone()
    }
}

/// The state in which an operator's decision has effect; see the module's documentation.
#[must_use]
pub fn resolve(node: v1::NodeFence, resolution: Resolution) -> v1::NodeFence {
    let accepted = match resolution {
        Resolution::NewIncarnation => v1::Accepted::default(),
        Resolution::ThisDisk { incarnation, token } => v1::Accepted {
            incarnation: incarnation.0.to_vec(),
            token: Some(token),
        },
    };
    v1::NodeFence {
        quarantine: None,
        accepted: Some(accepted),
        // Whatever was offered and not confirmed is not taken from the disk that was not chosen.
        confirmed: true,
        outstanding: Vec::new(),
        ..node
    }
}

/// The state to make durable when a cloudcore begins to lead: edges follow no lower epoch from then on.
#[must_use]
pub fn begin_leadership(cloud: v1::CloudFence) -> v1::CloudFence {
    v1::CloudFence {
        cloud_epoch: cloud.cloud_epoch.saturating_add(1),
        ..cloud
    }
}

/// The state to note when a node was refused because it has followed a later restore generation than this cloud's: the
/// next one is above it, also when no clock says so. `None` when there is nothing to note.
#[must_use]
pub fn shown(cloud: &v1::CloudFence, generation: u64) -> Option<v1::CloudFence> {
    let news = generation > cloud.restore_generation.max(cloud.shown_generation)
        && generation <= limits::FENCE_MAX_SHOWN_GENERATION;
    news.then_some(v1::CloudFence {
        shown_generation: generation,
        ..*cloud
    })
}

/// The state to make durable when an operator says that this cloud's data is an older copy. The generation is taken
/// from the wall clock where that is further, so that it is above any before, even when this copy knows of none; and it
/// is above what nodes have shown to it ([`shown`]).
#[must_use]
pub fn raise_restore_generation(cloud: v1::CloudFence, wall_us: i64) -> v1::CloudFence {
    let seconds = u64::try_from(wall_us / 1_000_000).unwrap_or_default();
    v1::CloudFence {
        restore_generation: cloud
            .restore_generation
            .max(cloud.shown_generation)
            .saturating_add(1)
            .max(seconds),
        ..cloud
    }
}

/// Whether `token` is the node's latest, or one of those its disk may still hold instead.
pub(super) fn takes(node: &v1::NodeFence, token: &v1::SessionToken) -> bool {
    node.current.as_ref().unwrap_or(none()) == token || (!node.confirmed && node.outstanding.contains(token))
}

static ZERO: v1::SessionToken = v1::SessionToken {
    counter: 0,
    nonce: Vec::new(),
};

pub(super) fn counter(token: &Option<v1::SessionToken>) -> u64 {
    token.as_ref().map_or(0, |token| token.counter)
}

pub(super) fn none() -> &'static v1::SessionToken {
    &ZERO
}

fn close(closed: &mut Vec<Vec<u8>>, incarnation: Vec<u8>) {
    closed.push(incarnation);
    let over = closed.len().saturating_sub(limits::FENCE_MAX_CLOSED);
    closed.drain(..over);
}
