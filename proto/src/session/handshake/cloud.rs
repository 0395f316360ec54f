//! The cloud's side of the handshake.

use std::time::Duration;

use super::super::acks::archived_of;
use super::super::{
    ArchivePolicy, Event, Holdings, Message, Peer, Phase, Session, SessionError, Stored, stream_state,
};
use super::{
    PROTOCOL_VERSION, RefuseReason, Standing, Start, check_bounds, check_token, check_version, refuse,
    standing,
};
use crate::fence::facts::{end_of, is_about, seq_of, wire_mark};
use crate::fence::{self, Action, Decision, FenceUpdate, HelloFacts, Reset};
use crate::ids::{ClusterId, Epoch, Incarnation, Mark, Position, Seq, StreamKey};
use crate::limits;
use crate::mutants;
use crate::v1;
use crate::v1::stream_state::Action as WireAction;

impl Session {
    pub(in super::super) fn on_hello(
        &mut self,
        hello: v1::Hello,
        held: &dyn Holdings,
        now: Duration,
    ) -> Result<(), SessionError> {
        check_version(hello.version)?;
        check_bounds(&hello.streams)?;
        check_token(hello.token.as_ref().unwrap_or(&v1::SessionToken::default()))?;
        if hello.labels.len() > limits::NODE_MAX_LABELS {
            return Err(SessionError::Protocol(format!("{} labels", hello.labels.len())));
        }
        self.check_identity(&hello)?;
        let receipts = self.local.receipts.clone();
        let verify = move |key: &StreamKey, mark: &Mark, receipt: &[u8]| {
            receipts
                .as_ref()
                .map(|receipts| receipts.verify(key, mark, receipt))
        };
        let facts = HelloFacts::of(&hello, &self.local.node, &verify)?;
        let (node, cloud) = (held.node_fence(), held.cloud_fence());
        let decision = fence::decide(&node, &cloud, &facts, held, held.other_session());
        let (streams, lost) = match decision {
            Decision::Accept { streams, lost } => (streams, lost),
            Decision::Refuse(reason, message) => {
                if let Some(shown) = fence::shown(&cloud, facts.restore_generation_seen) {
                    self.events.push_back(Event::Note(FenceUpdate::Cloud(shown)));
                }
                return refuse(reason, message);
            }
            Decision::Quarantine(reason, message) => {
                self.quarantine(&node, reason, message, facts.incarnation, &facts.token);
                return Ok(());
            }
        };
        self.events.extend(lost.into_iter().map(Event::CloudLost));
        let mut highest: Option<Epoch> = None;
        for (key, action) in streams {
            let (action, reset) = match action {
                Action::Resume { if_diverged } => (WireAction::Resume, if_diverged),
                Action::Reset(reset) => (WireAction::Reset, Some(reset)),
            };
            highest = highest.max(reset.map(|reset| reset.epoch));
            let state = v1::StreamState {
                action: action.into(),
                reset_epoch: reset.map_or(0, |reset| reset.epoch.0),
                opened_is_common: reset.is_some_and(|reset| reset.common.is_some()),
                candidates: facts
                    .streams
                    .iter()
                    .find(|stream| reset.is_some() && stream.key == key)
                    .map(|stream| fence::candidates(stream, held))
                    .unwrap_or_default()
                    .into_iter()
                    .map(wire_mark)
                    .collect(),
                ..self.state_of(&key, held)
            };
            self.handshake.welcome.push(state);
            self.accepts.push(key);
        }
        let raised = cloud.restore_generation > facts.restore_generation_seen;
        for key in self.sends.clone() {
            self.plan_down(&key, &hello, held, raised)?;
        }
        let offered = fence::offer(
            &node,
            &facts,
            self.local.nonce,
            cloud.restore_generation,
            highest.map(|epoch| epoch.0),
        );
        self.handshake.highest_epoch = offered.epoch;
        self.handshake.token = offered.current.clone().unwrap_or_default();
        self.handshake.incarnation = facts.incarnation;
        self.handshake.presented = facts.token.clone();
        self.handshake.peer = Peer {
            incarnation: facts.incarnation,
            boot_id: hello.boot_id,
            labels: hello.labels,
            software: hello.software,
        };
        self.events
            .push_back(Event::Persist(FenceUpdate::Node(Box::new(offered))));
        self.phase = Phase::Storing(Stored::Token);
        if mutants::on("ratchet-not-persisted") {
            return self.stored(Stored::Token, held, now);
        }
        Ok(())
    }

    fn check_identity(&self, hello: &v1::Hello) -> Result<(), SessionError> {
        let cluster = ClusterId::from_slice(&hello.cluster)?;
        if cluster != self.local.cluster {
            return refuse(
                RefuseReason::ForeignCluster,
                format!(
                    "node {} belongs to cluster {cluster}, this is cluster {}: join it to this cluster with an empty data directory",
                    hello.node, self.local.cluster
                ),
            );
        }
        if hello.node != self.local.node.as_wire() {
            return refuse(
                RefuseReason::NodeMismatch,
                format!(
                    "the certificate names node {}, but the edge says it is {}: use the certificate made for that node, or start edgecore with --node-name {}",
                    self.local.node, hello.node, self.local.node
                ),
            );
        }
        Ok(())
    }

    /// How a stream of our own goes on. We are its writer: an end that is not in our history is replaced.
    fn plan_down(
        &mut self,
        key: &StreamKey,
        hello: &v1::Hello,
        held: &dyn Holdings,
        raised: bool,
    ) -> Result<(), SessionError> {
        let state = hello.streams.iter().find(|state| is_about(state, key));
        let peer = state.map_or(Ok(None), end_of)?;
        let base = held.durable(key);
        match standing(key, peer, held) {
            Standing::Start(start) => self.handshake.starts.push((key.clone(), start)),
            Standing::NotHeld => {
                return refuse(
                    RefuseReason::NotHeld,
                    format!(
                        "{key}: the node ends at {}, and what follows is no longer held",
                        seq_of(peer)
                    ),
                );
            }
            Standing::Diverged => {
                let position = peer.map_or(Position::ZERO, |mark| mark.position);
                let ours = base.map_or(Position::ZERO, |mark| mark.position);
                if position > ours && !raised {
                    return refuse(
                        RefuseReason::CloudRolledBack,
                        format!(
                            "{key}: the node holds {position}, the cloud wrote only {ours}: its data was put back to an older state; if that was done on purpose, start it once with `cloudcore --restored`"
                        ),
                    );
                }
                let base = base.unwrap_or(Mark {
                    position: Position::ZERO,
                    chain: key.genesis_chain(),
                });
                let epoch = Epoch(position.epoch.max(ours.epoch).0.saturating_add(1));
                let reset = Reset {
                    epoch,
                    base,
                    common: Some(base.position),
                };
                self.plan_reset(key, reset, peer);
            }
        }
        Ok(())
    }

    fn state_of(&self, key: &StreamKey, held: &dyn Holdings) -> v1::StreamState {
        let durable = held.durable(key);
        let policy = self.local.archive;
        let archived = durable.map_or(Seq::ZERO, |mark| archived_of(policy, mark, held.archived(key)));
        v1::StreamState {
            archived_seq: archived.0,
            receipt: match (&self.local.receipts, durable) {
                (Some(receipts), Some(mark)) => receipts.sign(key, &mark).to_vec(),
                _ => Vec::new(),
            },
            ..stream_state(key, durable)
        }
    }

    /// The fence is durable, and our own streams go on under the epoch they should.
    pub(super) fn send_welcome(&mut self, held: &dyn Holdings) -> Result<(), SessionError> {
        let mut streams = std::mem::take(&mut self.handshake.welcome);
        for (key, start) in &self.handshake.starts {
            let action = match start {
                Start::After(_) => WireAction::Resume,
                Start::Snapshot { .. } => WireAction::Snapshot,
            };
            streams.push(v1::StreamState {
                action: action.into(),
                ..stream_state(key, held.durable(key))
            });
        }
        let cloud = held.cloud_fence();
        let (heartbeat_ms, heartbeat_idle_ms) = self.heartbeat.proposal();
        self.out.push_back(Message::Welcome(v1::Welcome {
            version: PROTOCOL_VERSION,
            cloud_epoch: cloud.cloud_epoch,
            streams,
            heartbeat_ms,
            heartbeat_idle_ms,
            restore_generation: cloud.restore_generation,
            token: Some(self.handshake.token.clone()),
        }));
        for key in self.accepts.clone() {
            let archived = if self.local.archive == ArchivePolicy::Explicit {
                held.archived(&key)
            } else {
                Seq::ZERO
            };
            let durable = held.durable(&key);
            self.acks.begin(key, durable, archived);
        }
        self.phase = Phase::AwaitConfirm;
        Ok(())
    }

    pub(in super::super) fn on_confirm(
        &mut self,
        confirm: &v1::Confirm,
        held: &dyn Holdings,
    ) -> Result<(), SessionError> {
        if confirm.token.as_ref() != Some(&self.handshake.token) {
            return Err(SessionError::Protocol(
                "CONFIRM of a token that was not offered".into(),
            ));
        }
        let node = held.node_fence();
        if node.quarantine.is_some() {
            return refuse(
                RefuseReason::Quarantined,
                "the node was put in quarantine meanwhile; decide with `ledge node resolve`".to_owned(),
            );
        }
        if node.current.as_ref() != Some(&self.handshake.token) {
            return refuse(
                RefuseReason::Superseded,
                "another session of this node has begun meanwhile".to_owned(),
            );
        }
        self.events
            .push_back(Event::Persist(FenceUpdate::Node(Box::new(fence::confirm(&node)))));
        self.phase = Phase::Storing(Stored::Confirmed);
        Ok(())
    }

    /// The edge says that its chain does not hold our end: two disks have gone different ways.
    pub(in super::super) fn on_forked(&mut self, message: String, held: &dyn Holdings) {
        let node = held.node_fence();
        if node.quarantine.is_some() || node.current.as_ref() != Some(&self.handshake.token) {
            return;
        }
        let (incarnation, token) = (self.handshake.incarnation, self.handshake.presented.clone());
        self.quarantine(&node, RefuseReason::Fork, message, incarnation, &token);
    }

    fn quarantine(
        &mut self,
        node: &v1::NodeFence,
        reason: RefuseReason,
        message: String,
        incarnation: Incarnation,
        token: &v1::SessionToken,
    ) {
        let fence = fence::quarantine(node, reason, &message, self.local.wall_us, incarnation, token);
        self.events
            .push_back(Event::Persist(FenceUpdate::Node(Box::new(fence))));
        self.events.push_back(Event::Quarantine {
            reason,
            message: message.clone(),
        });
        let message = format!("{message}; decide with `ledge node resolve`");
        self.phase = Phase::Storing(Stored::Refusal { reason, message });
    }
}
