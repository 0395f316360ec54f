//! HELLO, WELCOME, CONFIRM: who the peer is and where each stream goes on.
//!
//! Reading order: this file, [`cloud`], [`edge`].

mod cloud;
mod edge;

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Event, Holdings, PROTOCOL_VERSION, Peer, Phase, Session, SessionError};
use crate::fence;
use crate::fence::decide::same_chain;
use crate::ids::{Incarnation, Mark, Position, Seq, StreamKey};
use crate::limits;
use crate::v1;

/// Why one end will not replicate with the other. The names go over the wire: never rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefuseReason {
    /// The other end speaks another version.
    Version,
    /// The other end belongs to another cluster.
    ForeignCluster,
    /// The certificate names another node than HELLO.
    NodeMismatch,
    /// The peer has less of its own stream than we acknowledged: its disk lost history.
    HistoryLost,
    /// Both ends hold the same position with different content, or two disks claim to be one node's.
    Fork,
    /// The peer needs records that are no longer held.
    NotHeld,
    /// No disk of the node is let in until an operator decides.
    Quarantined,
    /// Another cloudcore leads since.
    StaleCloud,
    /// The cloud holds less than it acknowledged.
    CloudRolledBack,
    /// The disk was replaced by another one before.
    IncarnationClosed,
    /// Another disk or session of the node has taken its place.
    Superseded,
}

impl RefuseReason {
    /// As written on the wire.
    pub fn name(self) -> &'static str {
        match self {
            RefuseReason::Version => "Version",
            RefuseReason::ForeignCluster => "ForeignCluster",
            RefuseReason::NodeMismatch => "NodeMismatch",
            RefuseReason::HistoryLost => "HistoryLost",
            RefuseReason::Fork => "Fork",
            RefuseReason::NotHeld => "NotHeld",
            RefuseReason::Quarantined => "Quarantined",
            RefuseReason::StaleCloud => "StaleCloud",
            RefuseReason::CloudRolledBack => "CloudRolledBack",
            RefuseReason::IncarnationClosed => "IncarnationClosed",
            RefuseReason::Superseded => "Superseded",
        }
    }
}

pub(super) fn refuse<T>(reason: RefuseReason, message: String) -> Result<T, SessionError> {
    Err(SessionError::Refusing { reason, message })
}

/// What the handshake has settled and the end of it needs.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// Token offered (cloud) or to be confirmed (edge).
    pub(super) token: v1::SessionToken,
    /// How this end's streams go on.
    starts: Vec<(StreamKey, Start)>,
    /// Streams whose new epoch has not begun yet.
    resetting: BTreeSet<StreamKey>,
    /// Events of the resets, until the fence is durable.
    resets: Vec<Event>,
    peer: Peer,
    /// Cloud: the disk that said HELLO, and the token it presented.
    incarnation: Incarnation,
    presented: v1::SessionToken,
    /// Cloud: states of the streams the edge writes, for WELCOME.
    welcome: Vec<v1::StreamState>,
    /// Highest epoch the peer may begin.
    pub(super) highest_epoch: u32,
}

/// Where a stream this end writes goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// From the first record after the peer's end.
    After(Option<Mark>),
    /// With a snapshot at `at`, then from there. The peer ends at `peer`.
    Snapshot { peer: Seq, at: Mark },
}

/// How the peer's end of a stream stands to our copy of it.
enum Standing {
    Start(Start),
    /// The peer's end is not in our history.
    Diverged,
    /// The peer needs records that are not held here, and there is no snapshot that stands for them.
    NotHeld,
}

/// Where to go on sending `key` to a peer that ends at `peer`.
fn standing(key: &StreamKey, peer: Option<Mark>, held: &dyn Holdings) -> Standing {
    let position = peer.map_or(Position::ZERO, |mark| mark.position);
    let snapshot = || match held.snapshot_mark(key, position) {
        Some(at) if at.position > position => Standing::Start(Start::Snapshot {
            peer: position.seq,
            at,
        }),
        _ => Standing::NotHeld,
    };
    let Some(theirs) = peer else {
        if held.held_after(key) != Seq::ZERO {
            return snapshot();
        }
        // An epoch that began before the first record.
        let begun = held
            .durable(key)
            .is_some_and(|mark| mark.position.seq == Seq::ZERO);
        return match snapshot() {
            Standing::Start(start) if begun => Standing::Start(start),
            _ => Standing::Start(Start::After(None)),
        };
    };
    let end = held.durable(key).map_or(Position::ZERO, |mark| mark.position);
    if position > end {
        return Standing::Diverged;
    }
    match held.mark_at(key, position.seq) {
        // The peer stands in an epoch that is not ours: of another copy of this end, which has the number, too.
        Some(ours) if ours.position.epoch < position.epoch => Standing::Diverged,
        Some(ours) if same_chain(ours, theirs) => {
            if ours.position.epoch > position.epoch {
                // The peer stands right where a later epoch of ours begins: it begins with a snapshot.
                Standing::Start(Start::Snapshot {
                    peer: position.seq,
                    at: ours,
                })
            } else {
                Standing::Start(Start::After(Some(theirs)))
            }
        }
        // What the peer holds was superseded by an epoch of ours that it has not heard of.
        _ if position.epoch < end.epoch => snapshot(),
        None if position.seq < held.held_after(key) => snapshot(),
        _ => Standing::Diverged,
    }
}

impl Session {
    /// What was asked for with [`Event::Persist`] is durable.
    ///
    /// # Errors
    /// As [`Session::handle_message`]: a refusal is sent only now, once the quarantine it tells of is durable.
    pub fn handle_persisted(&mut self, held: &dyn Holdings, now: Duration) -> Result<(), SessionError> {
        let Phase::Storing(then) = &self.phase else {
            return Ok(());
        };
        let then = then.clone();
        let result = self.stored(then, held, now);
        self.ended_by(result)
    }

    fn stored(
        &mut self,
        then: super::Stored,
        held: &dyn Holdings,
        now: Duration,
    ) -> Result<(), SessionError> {
        match then {
            super::Stored::Refusal { reason, message } => refuse(reason, message),
            super::Stored::Confirmed => {
                self.open(now);
                Ok(())
            }
            super::Stored::Token => {
                self.phase = Phase::Resetting;
                self.events.extend(std::mem::take(&mut self.handshake.resets));
                self.after_resets(held, now)
            }
        }
    }

    /// These streams go on under the epoch that [`Event::Reset`] named, durably.
    ///
    /// # Errors
    /// As [`Session::handle_message`].
    pub fn handle_reset_done(
        &mut self,
        keys: &[StreamKey],
        held: &dyn Holdings,
        now: Duration,
    ) -> Result<(), SessionError> {
        if self.phase != Phase::Resetting {
            return Ok(());
        }
        for key in keys {
            self.handshake.resetting.remove(key);
        }
        let result = self.after_resets(held, now);
        self.ended_by(result)
    }

    fn after_resets(&mut self, held: &dyn Holdings, now: Duration) -> Result<(), SessionError> {
        if !self.handshake.resetting.is_empty() {
            return Ok(());
        }
        if self.is_cloud {
            self.send_welcome(held)
        } else {
            self.send_confirm(now)
        }
    }

    /// Lets the owner begin `reset` once the fence is durable; the stream goes on with a snapshot at its beginning.
    fn plan_reset(&mut self, key: &StreamKey, reset: fence::Reset, peer: Option<Mark>) {
        let at = Mark {
            position: Position {
                epoch: reset.epoch,
                seq: reset.base.position.seq,
            },
            chain: reset.base.chain,
        };
        let peer = peer.map_or(Seq::ZERO, |mark| mark.position.seq);
        self.handshake.resetting.insert(key.clone());
        self.handshake
            .starts
            .push((key.clone(), Start::Snapshot { peer, at }));
        self.handshake.resets.push(Event::Reset {
            key: key.clone(),
            epoch: reset.epoch,
            base: reset.base,
            common: reset.common,
        });
    }

    /// Both ends have what they need: streams begin to flow.
    fn open(&mut self, now: Duration) {
        self.phase = Phase::Open;
        self.heartbeat.begin(now);
        self.events.push_back(Event::Established {
            peer: std::mem::take(&mut self.handshake.peer),
        });
        for (key, start) in std::mem::take(&mut self.handshake.starts) {
            let after = match start {
                Start::After(mark) => {
                    if let Some(mark) = mark {
                        self.events.push_back(Event::PeerDurable {
                            key: key.clone(),
                            mark,
                        });
                    }
                    mark.map_or(Seq::ZERO, |mark| mark.position.seq)
                }
                Start::Snapshot { peer, at } => {
                    self.events.push_back(Event::SendSnapshot {
                        key: key.clone(),
                        after: peer,
                        at,
                    });
                    at.position.seq
                }
            };
            self.events.push_back(Event::SendFrom { key, after });
        }
    }
}

fn check_version(version: u32) -> Result<(), SessionError> {
    if version == PROTOCOL_VERSION {
        return Ok(());
    }
    refuse(
        RefuseReason::Version,
        format!(
            "the other end speaks version {version} of the session protocol, this end {PROTOCOL_VERSION}: upgrade the older one"
        ),
    )
}

fn check_bounds(streams: &[v1::StreamState]) -> Result<(), SessionError> {
    if streams.len() > limits::SESSION_MAX_STREAMS {
        return Err(SessionError::Protocol(format!(
            "{} streams in one message",
            streams.len()
        )));
    }
    Ok(())
}

fn check_token(token: &v1::SessionToken) -> Result<(), SessionError> {
    let fits = if token.counter == 0 {
        token.nonce.is_empty()
    } else {
        token.nonce.len() == 16
    };
    if fits {
        Ok(())
    } else {
        Err(SessionError::Protocol(format!(
            "session token with a nonce of {} bytes",
            token.nonce.len()
        )))
    }
}
