//! HELLO and WELCOME: who the peer is and where each stream goes on.

use std::time::Duration;

use super::{
    Event, Holdings, Message, PROTOCOL_VERSION, Peer, Phase, Session, SessionError, key_of, stream_state,
};
use crate::ids::{ClusterId, Incarnation, Lane, Seq, StreamId, StreamKey};
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
    /// Both ends hold the same position with different content.
    Fork,
    /// The peer needs records that are no longer held.
    NotHeld,
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
        }
    }
}

fn refuse<T>(reason: RefuseReason, message: String) -> Result<T, SessionError> {
    Err(SessionError::Refusing { reason, message })
}

impl Session {
    pub(super) fn hello(&self, held: &dyn Holdings) -> v1::Hello {
        let mut streams: Vec<_> = self
            .sends
            .iter()
            .map(|key| stream_state(key, held.durable(key)))
            .collect();
        streams.extend(self.receives.iter().cloned());
        v1::Hello {
            version: PROTOCOL_VERSION,
            cluster: self.local.cluster.0.to_vec(),
            node: self.local.node.as_wire().to_owned(),
            incarnation: self.local.incarnation.0.to_vec(),
            boot_id: self.local.boot_id.clone(),
            streams,
            session_token: Vec::new(),
            max_cloud_epoch_seen: 0,
            labels: self.local.labels.clone(),
            software: self.local.software.clone(),
        }
    }

    pub(super) fn on_hello(
        &mut self,
        hello: v1::Hello,
        held: &dyn Holdings,
        now: Duration,
    ) -> Result<(), SessionError> {
        check_version(hello.version)?;
        check_bounds(&hello.streams)?;
        if hello.labels.len() > limits::NODE_MAX_LABELS {
            return Err(SessionError::Protocol(format!("{} labels", hello.labels.len())));
        }
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
        let incarnation = Incarnation::from_slice(&hello.incarnation)?;
        let mut streams = Vec::new();
        for lane in [Lane::UpState, Lane::UpData] {
            let key = StreamKey {
                id: StreamId::new(self.local.node.clone(), lane),
                incarnation,
            };
            let ours = held.durable(&key);
            let theirs = find(&hello.streams, &key.id).map_or(0, |state| state.seq);
            let acked = ours.map_or(0, |mark| mark.position.seq.0);
            if theirs < acked {
                return refuse(
                    RefuseReason::HistoryLost,
                    format!(
                        "{}: the edge has records up to {theirs}, the cloud already holds {acked}: the edge's disk lost acknowledged history (restored from a backup or snapshot?); start it with an empty data directory to begin a new incarnation",
                        key.id
                    ),
                );
            }
            streams.push(stream_state(&key, ours));
            self.accepts.push(key);
        }
        for key in self.sends.clone() {
            streams.push(stream_state(&key, held.durable(&key)));
            self.resume(&key, find(&hello.streams, &key.id), held)?;
        }
        self.out.push_back(Message::Welcome(v1::Welcome {
            version: PROTOCOL_VERSION,
            cloud_epoch: 1,
            session_token: Vec::new(),
            streams,
            heartbeat_ms: u64::try_from(self.heartbeat.as_millis()).unwrap_or(limits::HEARTBEAT_MS),
            restore_generation: 0,
        }));
        self.open(
            Peer {
                incarnation,
                boot_id: hello.boot_id,
                labels: hello.labels,
                software: hello.software,
            },
            now,
        );
        Ok(())
    }

    pub(super) fn on_welcome(
        &mut self,
        welcome: v1::Welcome,
        held: &dyn Holdings,
        now: Duration,
    ) -> Result<(), SessionError> {
        check_version(welcome.version)?;
        check_bounds(&welcome.streams)?;
        if !limits::HEARTBEAT_RANGE_MS.contains(&welcome.heartbeat_ms) {
            return Err(SessionError::Protocol(format!(
                "heartbeat of {} ms",
                welcome.heartbeat_ms
            )));
        }
        self.heartbeat = Duration::from_millis(welcome.heartbeat_ms);
        for key in self.sends.clone() {
            self.resume(&key, find(&welcome.streams, &key.id), held)?;
        }
        for state in &welcome.streams {
            let key = key_of(&state.scope, state.lane, &state.incarnation)?;
            let ours_to_receive = key.id.lane == Lane::Down
                && (key.id.scope == self.local.node || key.id.scope.node_name().is_none());
            if !ours_to_receive {
                continue;
            }
            let acked = held.durable(&key).map_or(0, |mark| mark.position.seq.0);
            if state.seq < acked {
                return refuse(
                    RefuseReason::HistoryLost,
                    format!(
                        "{}: the cloud has records up to {}, this node already holds {acked}: cloudcore was restored from an older copy of its data",
                        key.id, state.seq
                    ),
                );
            }
            self.accepts.push(key);
        }
        self.open(Peer::default(), now);
        Ok(())
    }

    fn open(&mut self, peer: Peer, now: Duration) {
        self.phase = Phase::Open;
        // The first heartbeat follows at once: it carries the heads, from which the peer tells its lag.
        self.next_ping = now;
        self.events.push_front(Event::Established { peer });
    }

    /// Where to go on sending `key`, given what the peer has of it.
    fn resume(
        &mut self,
        key: &StreamKey,
        peer: Option<&v1::StreamState>,
        held: &dyn Holdings,
    ) -> Result<(), SessionError> {
        let theirs = peer.filter(|state| state.seq > 0 && state.incarnation == key.incarnation.0);
        let Some(theirs) = theirs else {
            self.events.push_back(Event::SendFrom {
                key: key.clone(),
                after: Seq::ZERO,
            });
            return Ok(());
        };
        let seq = Seq(theirs.seq);
        let last = held.durable(key).map_or(Seq::ZERO, |mark| mark.position.seq);
        if seq > last {
            return refuse(
                RefuseReason::HistoryLost,
                format!(
                    "{}: the other end holds records up to {seq}, this end only up to {last}: history was lost here",
                    key.id
                ),
            );
        }
        match held.mark_at(key, seq) {
            Some(mark) if mark.chain.0.as_slice() == theirs.chain => {
                self.events.push_back(Event::SendFrom {
                    key: key.clone(),
                    after: seq,
                });
                self.events.push_back(Event::PeerDurable {
                    key: key.clone(),
                    mark,
                });
                Ok(())
            }
            Some(_) => refuse(
                RefuseReason::Fork,
                format!(
                    "{}: both ends hold record {seq} with different histories: a cloned or rolled-back disk; keep one copy and start the other with an empty data directory",
                    key.id
                ),
            ),
            None => refuse(
                RefuseReason::NotHeld,
                format!(
                    "{}: record {seq}, where the other end stands, is not the end of a frame held here",
                    key.id
                ),
            ),
        }
    }
}

fn find<'a>(streams: &'a [v1::StreamState], id: &StreamId) -> Option<&'a v1::StreamState> {
    streams
        .iter()
        .find(|state| state.scope == id.scope.as_wire() && state.lane == id.lane.as_wire())
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
