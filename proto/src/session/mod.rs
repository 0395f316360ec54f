//! The replication session as a state machine without I/O.
//!
//! `handle_*` takes what happened, `poll_*` gives what to do, and `now` (time since any fixed moment) is an
//! argument. Transports move bytes: control messages as in [`wire`], frames on one stream per lane.
//!
//! An edge dials and says HELLO with what it holds; the cloud answers WELCOME with what it holds, or REFUSE.
//! Then each end sends the streams it writes, from just after what the other end has, and acknowledges what it
//! has made durable. Either end that hears nothing for two heartbeats gives the link up.

mod backoff;
mod handshake;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use backoff::Backoff;
pub use handshake::RefuseReason;

use crate::ids::{
    Chain, ClusterId, Epoch, Incarnation, Lane, Mark, NameError, Position, Scope, Seq, StreamId, StreamKey,
};
use crate::limits;
use crate::v1;
use crate::v1::control_message::Message;

/// Version of the session protocol.
pub const PROTOCOL_VERSION: u32 = 1;

/// Acknowledgements of telemetry are coalesced for this long; those of state go out at once.
const DATA_ACK_DELAY: Duration = Duration::from_millis(25);

/// What this end's log holds. The session asks, it never reads.
pub trait Holdings {
    /// Last durable record of a stream, if any.
    fn durable(&self, key: &StreamKey) -> Option<Mark>;
    /// The mark of the frame that ends exactly at `seq`, if it is still held.
    fn mark_at(&self, key: &StreamKey, seq: Seq) -> Option<Mark>;
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
    /// Cloud: heartbeat it asks for. Edge: used until WELCOME.
    pub heartbeat: Duration,
}

/// What the owner of a session has to do or know.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The handshake is done.
    Established {
        /// What the peer said of itself.
        peer: Peer,
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
    /// Where the peer's own streams end.
    PeerHeads(Vec<v1::LaneHead>),
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

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    AwaitHello,
    AwaitWelcome,
    Open,
    Closed,
}

#[derive(Debug)]
struct PendingAck {
    mark: Mark,
    due: Duration,
}

/// One end of a replication session.
#[derive(Debug)]
pub struct Session {
    local: Local,
    phase: Phase,
    /// Streams this end writes.
    sends: Vec<StreamKey>,
    /// Streams the peer may write to us.
    accepts: Vec<StreamKey>,
    /// Edge: what it holds of the streams it receives.
    receives: Vec<v1::StreamState>,
    acks: BTreeMap<StreamKey, PendingAck>,
    out: VecDeque<Message>,
    events: VecDeque<Event>,
    heads: Vec<v1::LaneHead>,
    heartbeat: Duration,
    last_heard: Duration,
    next_ping: Duration,
}

impl Session {
    /// The edge's end: says HELLO at once.
    ///
    /// `sends` are the streams this node writes; `receives` tells what it holds of those it receives.
    pub fn edge(
        local: Local,
        sends: Vec<StreamKey>,
        receives: Vec<v1::StreamState>,
        held: &dyn Holdings,
        now: Duration,
    ) -> Self {
        let mut session = Session::new(Phase::AwaitWelcome, local, sends, receives, now);
        let hello = session.hello(held);
        session.out.push_back(Message::Hello(hello));
        session
    }

    /// The cloud's end: waits for HELLO. `sends` are the `down` streams for this node.
    pub fn cloud(local: Local, sends: Vec<StreamKey>, now: Duration) -> Self {
        Session::new(Phase::AwaitHello, local, sends, Vec::new(), now)
    }

    fn new(
        phase: Phase,
        local: Local,
        sends: Vec<StreamKey>,
        receives: Vec<v1::StreamState>,
        now: Duration,
    ) -> Self {
        let heartbeat = local.heartbeat;
        Session {
            local,
            phase,
            sends,
            accepts: Vec::new(),
            receives,
            acks: BTreeMap::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            heads: Vec::new(),
            heartbeat,
            last_heard: now,
            next_ping: now + heartbeat,
        }
    }

    /// Whether the handshake is done and the session has not ended.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the peer may write this stream to us. Ask before storing a frame.
    pub fn accepts(&self, key: &StreamKey) -> bool {
        self.phase == Phase::Open && self.accepts.contains(key)
    }

    /// The stream of a scope and lane, as on the wire, that the peer may write.
    pub fn accepted(&self, scope: &str, lane: u32) -> Option<&StreamKey> {
        self.accepts
            .iter()
            .find(|key| key.id.scope.as_wire() == scope && key.id.lane.as_wire() == lane)
    }

    /// Heartbeat in force.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// A control message arrived.
    ///
    /// # Errors
    /// Any error ends the session; send what [`Session::poll_transmit`] still gives, then close.
    pub fn handle_message(
        &mut self,
        message: Message,
        held: &dyn Holdings,
        now: Duration,
    ) -> Result<(), SessionError> {
        if self.phase == Phase::Closed {
            return Err(SessionError::Protocol("message after the end".into()));
        }
        self.last_heard = now;
        let result = self.dispatch(message, held, now);
        if let Err(err) = &result {
            self.phase = Phase::Closed;
            if let SessionError::Refusing { reason, message } = err {
                self.out.push_back(Message::Refuse(v1::Refuse {
                    reason: reason.name().to_owned(),
                    message: message.clone(),
                }));
            }
        }
        result
    }

    fn dispatch(&mut self, message: Message, held: &dyn Holdings, now: Duration) -> Result<(), SessionError> {
        match (message, &self.phase) {
            (Message::Hello(hello), Phase::AwaitHello) => self.on_hello(hello, held, now),
            (Message::Welcome(welcome), Phase::AwaitWelcome) => self.on_welcome(welcome, held, now),
            (Message::Refuse(refuse), _) => Err(SessionError::Refused {
                reason: refuse.reason,
                message: refuse.message,
            }),
            (Message::Ack(ack), Phase::Open) => self.on_ack(&ack, held),
            (Message::Ping(ping), Phase::Open) => {
                if ping.heads.len() > limits::SESSION_MAX_STREAMS {
                    return Err(SessionError::Protocol("too many heads in a heartbeat".into()));
                }
                self.events.push_back(Event::PeerHeads(ping.heads));
                Ok(())
            }
            (other, phase) => Err(SessionError::Protocol(format!(
                "{} in phase {phase:?}",
                name_of(&other)
            ))),
        }
    }

    fn on_ack(&mut self, ack: &v1::Ack, held: &dyn Holdings) -> Result<(), SessionError> {
        let key = key_of(&ack.scope, ack.lane, &ack.incarnation)?;
        if !self.sends.contains(&key) {
            return Err(SessionError::Protocol(format!(
                "acknowledgement of {key}, which this end does not send"
            )));
        }
        let mark = Mark {
            position: Position {
                epoch: Epoch(ack.epoch),
                seq: Seq(ack.durable_seq),
            },
            chain: Chain::from_slice(&ack.durable_chain)?,
        };
        let ours = held.durable(&key).map_or(Seq::ZERO, |mark| mark.position.seq);
        if mark.position.seq > ours {
            return Err(SessionError::Protocol(format!(
                "acknowledgement of {key} up to {}, this end has {ours}",
                mark.position.seq
            )));
        }
        self.events.push_back(Event::PeerDurable { key, mark });
        Ok(())
    }

    /// Bytes arrived on a lane: the link lives.
    pub fn handle_activity(&mut self, now: Duration) {
        self.last_heard = now;
    }

    /// A received stream is durable here up to `mark`: tell the peer.
    pub fn handle_durable(&mut self, key: &StreamKey, mark: Mark, now: Duration) {
        if !self.accepts(key) {
            return;
        }
        let delay = if key.id.lane == Lane::UpData {
            DATA_ACK_DELAY
        } else {
            Duration::ZERO
        };
        let pending = self.acks.entry(key.clone()).or_insert(PendingAck {
            mark,
            due: now + delay,
        });
        if mark.position > pending.mark.position {
            pending.mark = mark;
        }
    }

    /// Where the streams this end writes end now; told to the peer with the next heartbeat.
    pub fn set_heads(&mut self, heads: Vec<v1::LaneHead>) {
        self.heads = heads;
    }

    /// Time passed.
    ///
    /// # Errors
    /// [`SessionError::Silent`] when the link is half-open.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), SessionError> {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        let silence = now.saturating_sub(self.last_heard);
        if silence >= self.heartbeat * 2 {
            self.phase = Phase::Closed;
            return Err(SessionError::Silent(silence));
        }
        if self.phase == Phase::Open && now >= self.next_ping {
            self.next_ping = now + self.heartbeat;
            self.out.push_back(Message::Ping(v1::Ping {
                heads: self.heads.clone(),
            }));
        }
        Ok(())
    }

    /// When [`Session::handle_timeout`] or [`Session::poll_transmit`] next has something to do.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.phase == Phase::Closed {
            return None;
        }
        let mut next = self.last_heard + self.heartbeat * 2;
        if self.phase == Phase::Open {
            next = next.min(self.next_ping);
            if let Some(due) = self.acks.values().map(|ack| ack.due).min() {
                next = next.min(due);
            }
        }
        Some(next)
    }

    /// The next control message to send.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Message> {
        if let Some(message) = self.out.pop_front() {
            return Some(message);
        }
        if self.phase != Phase::Open {
            return None;
        }
        let key = self
            .acks
            .iter()
            .find(|(_, ack)| ack.due <= now)
            .map(|(key, _)| key.clone())?;
        let ack = self.acks.remove(&key)?;
        Some(Message::Ack(v1::Ack {
            scope: key.id.scope.as_wire().to_owned(),
            lane: key.id.lane.as_wire(),
            incarnation: key.incarnation.0.to_vec(),
            epoch: ack.mark.position.epoch.0,
            durable_seq: ack.mark.position.seq.0,
            durable_chain: ack.mark.chain.0.to_vec(),
            archived_seq: 0,
        }))
    }

    /// The next thing to do or know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// What one end holds of a stream, as said in HELLO and WELCOME.
pub fn stream_state(key: &StreamKey, durable: Option<Mark>) -> v1::StreamState {
    v1::StreamState {
        scope: key.id.scope.as_wire().to_owned(),
        lane: key.id.lane.as_wire(),
        incarnation: key.incarnation.0.to_vec(),
        epoch: durable.map_or(0, |mark| mark.position.epoch.0),
        seq: durable.map_or(0, |mark| mark.position.seq.0),
        chain: durable.map_or(Vec::new(), |mark| mark.chain.0.to_vec()),
        first_seq: 0,
    }
}

fn key_of(scope: &str, lane: u32, incarnation: &[u8]) -> Result<StreamKey, NameError> {
    Ok(StreamKey {
        id: StreamId::new(Scope::from_wire(scope)?, Lane::from_wire(lane)?),
        incarnation: Incarnation::from_slice(incarnation)?,
    })
}

fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "HELLO",
        Message::Welcome(_) => "WELCOME",
        Message::Refuse(_) => "REFUSE",
        Message::Ack(_) => "ACK",
        Message::Ping(_) => "PING",
    }
}

#[cfg(test)]
mod tests;
