//! The edge's side of the handshake.

use std::time::Duration;

use super::super::{Event, Holdings, Message, Phase, Session, SessionError, Stored, key_of, stream_state};
use super::{
    PROTOCOL_VERSION, RefuseReason, Standing, check_bounds, check_token, check_version, refuse, standing,
};
use crate::fence::decide::same_chain;
use crate::fence::facts::{end_of, is_about, mark, wire_mark};
use crate::fence::{self, FenceUpdate, Reset, WelcomeFacts};
use crate::ids::{Epoch, Lane, Mark, Position, Seq, StreamKey};
use crate::limits;
use crate::mutants;
use crate::v1;
use crate::v1::stream_state::Action as WireAction;

impl Session {
    pub(in super::super) fn hello(&self, held: &dyn Holdings) -> v1::Hello {
        let fence = held.edge_fence();
        let mut streams: Vec<_> = self
            .sends
            .iter()
            .map(|key| v1::StreamState {
                opened: held.opened(key).map(wire_mark),
                acknowledged: fence
                    .acknowledged
                    .iter()
                    .find(|acked| acked_is_about(acked, key))
                    .cloned(),
                ..stream_state(key, held.durable(key))
            })
            .collect();
        streams.extend(self.receives.iter().cloned());
        v1::Hello {
            version: PROTOCOL_VERSION,
            cluster: self.local.cluster.0.to_vec(),
            node: self.local.node.as_wire().to_owned(),
            incarnation: self.local.incarnation.0.to_vec(),
            boot_id: self.local.boot_id.clone(),
            streams,
            token: fence.token,
            max_cloud_epoch_seen: fence.max_cloud_epoch_seen,
            restore_generation_seen: fence.restore_generation_seen,
            labels: self.local.labels.clone(),
            software: self.local.software.clone(),
        }
    }

    pub(in super::super) fn on_welcome(
        &mut self,
        welcome: v1::Welcome,
        held: &dyn Holdings,
        now: Duration,
    ) -> Result<(), SessionError> {
        check_version(welcome.version)?;
        check_bounds(&welcome.streams)?;
        self.heartbeat
            .adopt(welcome.heartbeat_ms, welcome.heartbeat_idle_ms)?;
        let token = welcome.token.clone().unwrap_or_default();
        check_token(&token)?;
        let mut states = Vec::new();
        for state in &welcome.streams {
            let key = key_of(&state.scope, state.lane, &state.incarnation)?;
            states.push((key, end_of(state)?));
        }
        let facts = WelcomeFacts {
            cloud_epoch: welcome.cloud_epoch,
            restore_generation: welcome.restore_generation,
            token: token.clone(),
            streams: states,
        };
        let mut edge = held.edge_fence();
        if let Err((reason, message)) = fence::judge_welcome(&edge, &facts, held) {
            return refuse(reason, message);
        }
        edge.acknowledged.clear();
        for key in self.sends.clone() {
            let state = welcome.streams.iter().find(|state| is_about(state, &key));
            self.plan_up(&key, state, held)?;
            // What the cloud says now is what it holds, also when that is less than before.
            edge.acknowledged.extend(state.and_then(acknowledged_of));
        }
        for (key, durable) in facts.streams {
            let ours_to_receive = key.id.lane == Lane::Down
                && (key.id.scope == self.local.node || key.id.scope.node_name().is_none());
            if ours_to_receive && !self.accepts.contains(&key) {
                self.handshake.highest_epoch = self
                    .handshake
                    .highest_epoch
                    .max(durable.map_or(0, |mark| mark.position.epoch.0));
                self.acks.begin(key.clone(), held.durable(&key), Seq::ZERO);
                self.accepts.push(key);
            }
        }
        edge.max_cloud_epoch_seen = if welcome.restore_generation > edge.restore_generation_seen {
            welcome.cloud_epoch
        } else {
            edge.max_cloud_epoch_seen.max(welcome.cloud_epoch)
        };
        edge.restore_generation_seen = welcome.restore_generation;
        edge.token = Some(token.clone());
        self.handshake.token = token;
        self.edge_fence = edge.clone();
        self.events.push_back(Event::Persist(FenceUpdate::Edge(edge)));
        self.phase = Phase::Storing(Stored::Token);
        if mutants::on("ratchet-not-persisted") {
            return self.stored(Stored::Token, held, now);
        }
        Ok(())
    }

    /// How a stream of our own goes on, given where the cloud ends and what it says about it.
    fn plan_up(
        &mut self,
        key: &StreamKey,
        state: Option<&v1::StreamState>,
        held: &dyn Holdings,
    ) -> Result<(), SessionError> {
        let peer = state.map_or(Ok(None), end_of)?;
        let reset = match (state, peer) {
            (Some(state), Some(base)) if state.reset_epoch > 0 => Some(Reset {
                epoch: Epoch(state.reset_epoch),
                base,
                common: common_of(key, state, held)?,
            }),
            _ => None,
        };
        if state.is_some_and(|state| state.action() == WireAction::Reset) {
            let Some(reset) = reset else {
                return Err(SessionError::Protocol(format!("{key}: RESET without an epoch")));
            };
            return self.begin_reset(key, reset, held);
        }
        match (standing(key, peer, held), reset) {
            (Standing::Start(start), _) => {
                self.handshake.starts.push((key.clone(), start));
                Ok(())
            }
            (Standing::Diverged, Some(reset)) => self.begin_reset(key, reset, held),
            (Standing::Diverged, None) => refuse(
                RefuseReason::Fork,
                format!(
                    "{key}: the cloud ends at {}, with another history than this disk's: it was copied or put back to an older state",
                    peer.map_or(Position::ZERO, |mark| mark.position)
                ),
            ),
            (Standing::NotHeld, _) => refuse(
                RefuseReason::NotHeld,
                format!(
                    "{key}: the cloud ends at {}, and what follows is no longer held here",
                    peer.map_or(Position::ZERO, |mark| mark.position)
                ),
            ),
        }
    }

    fn begin_reset(
        &mut self,
        key: &StreamKey,
        reset: Reset,
        held: &dyn Holdings,
    ) -> Result<(), SessionError> {
        let ours = held.durable(key).map_or(Epoch(0), |mark| mark.position.epoch);
        if reset.epoch <= ours {
            return Err(SessionError::Protocol(format!(
                "{key}: RESET to epoch {}, this end is in epoch {ours}",
                reset.epoch
            )));
        }
        self.plan_reset(key, reset, Some(reset.base));
        Ok(())
    }

    /// The token is durable, and our streams go on under the epoch they should.
    pub(super) fn send_confirm(&mut self, now: Duration) -> Result<(), SessionError> {
        self.out.push_back(Message::Confirm(v1::Confirm {
            token: Some(self.handshake.token.clone()),
        }));
        self.open(now);
        Ok(())
    }

    /// Takes note of an acknowledgement; it is made durable from time to time.
    pub(in super::super) fn note_ack(
        &mut self,
        key: &StreamKey,
        mark: Mark,
        archived: Seq,
        receipt: Vec<u8>,
        now: Duration,
    ) {
        let acked = v1::Acknowledged {
            scope: key.id.scope.as_wire().to_owned(),
            lane: key.id.lane.as_wire(),
            incarnation: key.incarnation.0.to_vec(),
            durable: Some(wire_mark(mark)),
            archived_seq: archived.0,
            receipt,
        };
        match self
            .edge_fence
            .acknowledged
            .iter_mut()
            .find(|known| acked_is_about(known, key))
        {
            Some(known) => *known = acked,
            None => self.edge_fence.acknowledged.push(acked),
        }
        self.note_due.get_or_insert(now + super::super::NOTE_EVERY);
    }
}

/// The last record both ends hold, as far as the cloud and this end can tell.
fn common_of(
    key: &StreamKey,
    state: &v1::StreamState,
    held: &dyn Holdings,
) -> Result<Option<Position>, SessionError> {
    if state.candidates.len() > limits::SESSION_MAX_CANDIDATES {
        return Err(SessionError::Protocol(format!(
            "{key}: {} candidates for the last common record",
            state.candidates.len()
        )));
    }
    for theirs in state.candidates.iter().rev() {
        let Some(theirs) = mark(Some(theirs))? else {
            continue;
        };
        let here = held.mark_at(key, theirs.position.seq);
        if let Some(here) = here.filter(|here| same_chain(*here, theirs)) {
            return Ok(Some(here.position));
        }
    }
    let opened = || held.opened(key).map_or(Position::ZERO, |mark| mark.position);
    Ok(state.opened_is_common.then(opened))
}

fn acknowledged_of(state: &v1::StreamState) -> Option<v1::Acknowledged> {
    (state.epoch > 0).then(|| v1::Acknowledged {
        scope: state.scope.clone(),
        lane: state.lane,
        incarnation: state.incarnation.clone(),
        durable: Some(v1::Mark {
            epoch: state.epoch,
            seq: state.seq,
            chain: state.chain.clone(),
        }),
        archived_seq: state.archived_seq,
        receipt: state.receipt.clone(),
    })
}

fn acked_is_about(acked: &v1::Acknowledged, key: &StreamKey) -> bool {
    acked.scope == key.id.scope.as_wire()
        && acked.lane == key.id.lane.as_wire()
        && acked.incarnation == key.incarnation.0
}
