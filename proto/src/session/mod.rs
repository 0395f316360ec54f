//! The replication session as a state machine without I/O.
//!
//! `handle_*` takes what happened, `poll_*` gives what to do, and `now` (time since any fixed moment) is an
//! argument. Transports move bytes: control messages as in [`wire`], frames on one stream per lane as in
//! [`items`].
//!
//! An edge dials and says HELLO with what it holds; the cloud answers WELCOME with what it holds and a token, or
//! REFUSE; the edge keeps the token and says CONFIRM. Then each end sends the streams it writes, from just after what
//! the other end has, and acknowledges what it has made durable. Who may go on with which history is decided in
//! [`crate::fence`]; the whole exchange is told in docs/format/session.md.
//!
//! **The owner's part.** After each call, take every [`Event`] with [`Session::poll_event`] and every message with
//! [`Session::poll_transmit`]. An error ends the session; events and messages that remain are still taken, then the
//! connection is closed. Events of a session that was dropped have no effect.
//! - [`Event::Persist`]: hand the record to the log, and call [`Session::handle_persisted`] once it is durable. From the
//!   moment it is handed to the log, [`Holdings`] of every session of this node give the new fence. Two such records of
//!   one node reach the log in the order in which [`Holdings`] changed.
//! - [`Event::Note`]: hand the record to the log; nothing waits for it.
//! - [`Event::Reset`]: begin the new epoch, all of them durably, and call [`Session::handle_reset_done`].
//! - Cloud: after [`Event::Established`] or [`Event::Quarantine`], end every other session of the node.
//!
//! Reading order: [`owner`], this file, [`handshake`], [`acks`], [`heartbeat`], [`fetch`], [`wire`], [`items`].

mod acks;
mod backoff;
mod fetch;
mod handshake;
mod heartbeat;
pub mod items;
mod owner;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use backoff::Backoff;
pub use handshake::RefuseReason;
pub use owner::{ArchivePolicy, Event, Holdings, Local, Peer, SessionError};

use crate::fence::FenceUpdate;
use crate::ids::{Incarnation, Lane, Mark, NameError, Position, Scope, Seq, StreamId, StreamKey};
use crate::limits;
use crate::mutants;
use crate::v1;
use crate::v1::control_message::Message;
use crate::v1::snapshot::Purpose;

use acks::Acks;
use handshake::Handshake;
use heartbeat::Heartbeat;

/// Version of the session protocol.
pub const PROTOCOL_VERSION: u32 = 2;

/// What was acknowledged is made durable on the edge at most this often: it is a witness, not a promise.
const NOTE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    AwaitHello,
    AwaitWelcome,
    /// Until the owner says that what was asked for is durable.
    Storing(Stored),
    /// Until the owner says that the new epochs have begun.
    Resetting,
    AwaitConfirm,
    Open,
    Closed,
}

/// What follows once it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stored {
    /// The new token.
    Token,
    /// That it was confirmed.
    Confirmed,
    /// A quarantine.
    Refusal { reason: RefuseReason, message: String },
}

/// One end of a replication session.
#[derive(Debug)]
pub struct Session {
    local: Local,
    is_cloud: bool,
    phase: Phase,
    /// Streams this end writes.
    sends: Vec<StreamKey>,
    /// Streams the peer may write to us.
    accepts: Vec<StreamKey>,
    /// Edge: what it holds of the streams it receives.
    receives: Vec<v1::StreamState>,
    handshake: Handshake,
    acks: Acks,
    /// What the peer has archived of the streams this end writes.
    archived: BTreeMap<StreamKey, Seq>,
    /// Edge: its fence with what was acknowledged since, and when that is to be noted.
    edge_fence: v1::EdgeFence,
    note_due: Option<Duration>,
    fetches: fetch::Fetches,
    out: VecDeque<Message>,
    events: VecDeque<Event>,
    heartbeat: Heartbeat,
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
        Session {
            heartbeat: Heartbeat::new(local.heartbeat, local.heartbeat_idle, now),
            is_cloud: phase == Phase::AwaitHello,
            local,
            phase,
            sends,
            accepts: Vec::new(),
            receives,
            handshake: Handshake::default(),
            acks: Acks::default(),
            archived: BTreeMap::new(),
            edge_fence: v1::EdgeFence::default(),
            note_due: None,
            fetches: fetch::Fetches::default(),
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether the handshake is done and the session has not ended.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the peer may write this stream to us. Ask before storing a frame.
    pub fn accepts(&self, key: &StreamKey) -> bool {
        let open = self.phase == Phase::Open
            || (mutants::on("accept-before-confirm") && self.phase == Phase::AwaitConfirm);
        open && self.accepts.contains(key)
    }

    /// Whether the peer may move this stream on to `mark` with a snapshot. Ask before storing one.
    pub fn accepts_snapshot(&self, key: &StreamKey, mark: Mark) -> bool {
        let end = self.acks.end(key).map_or(Position::ZERO, |mark| mark.position);
        // The cloud writes its own streams; a node begins an epoch only where the cloud told it to.
        let epoch_given = !self.is_cloud || mark.position.epoch.0 <= self.handshake.highest_epoch.max(1);
        self.accepts(key) && mark.position > end && epoch_given
    }

    /// The stream of a scope and lane, as on the wire, that the peer may write.
    pub fn accepted(&self, scope: &str, lane: u32) -> Option<&StreamKey> {
        self.accepts
            .iter()
            .find(|key| key.id.scope.as_wire() == scope && key.id.lane.as_wire() == lane)
    }

    /// Heartbeat in force at this end: it is heard from at least this often.
    pub fn heartbeat(&self) -> Duration {
        self.heartbeat.mine()
    }

    /// Heartbeat in force at the other end: silence of twice this long means that the link is half-open.
    pub fn peer_heartbeat(&self) -> Duration {
        self.heartbeat.theirs()
    }

    /// A control message arrived.
    ///
    /// # Errors
    /// Any error ends the session; take what [`Session::poll_event`] and [`Session::poll_transmit`] still give, then
    /// close.
    pub fn handle_message(
        &mut self,
        message: Message,
        held: &dyn Holdings,
        now: Duration,
    ) -> Result<(), SessionError> {
        if self.phase == Phase::Closed {
            return Err(SessionError::Protocol("message after the end".into()));
        }
        self.heartbeat.heard(now);
        let result = self.dispatch(message, held, now);
        self.ended_by(result)
    }

    /// Ends the session if `result` is an error, and tells the peer if it is a refusal.
    fn ended_by(&mut self, result: Result<(), SessionError>) -> Result<(), SessionError> {
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
        // The edge is open once it has sent CONFIRM; the cloud has yet to make that durable when more arrives.
        let confirmed = matches!(self.phase, Phase::Open | Phase::Storing(Stored::Confirmed));
        match (message, &self.phase) {
            (Message::Hello(hello), Phase::AwaitHello) => self.on_hello(hello, held, now),
            (Message::Welcome(welcome), Phase::AwaitWelcome) => self.on_welcome(welcome, held, now),
            (Message::Confirm(confirm), Phase::AwaitConfirm) => self.on_confirm(&confirm, held),
            (Message::Refuse(refuse), phase) => {
                let (reason, message) = (bounded(refuse.reason), bounded(refuse.message));
                if *phase == Phase::AwaitConfirm && reason == RefuseReason::Fork.name() {
                    self.on_forked(message.clone(), held);
                }
                Err(SessionError::Refused { reason, message })
            }
            (Message::Ping(ping), phase) if *phase != Phase::AwaitHello => {
                if ping.heads.len() > limits::SESSION_MAX_STREAMS {
                    return Err(SessionError::Protocol("too many heads in a heartbeat".into()));
                }
                if let Some(heads) = self.heartbeat.on_ping(ping)? {
                    self.events.push_back(Event::PeerHeads(heads));
                }
                Ok(())
            }
            (Message::Ack(ack), _) if confirmed => self.on_ack(ack, held, now),
            (Message::Nack(nack), _) if confirmed => {
                let key = key_of(&nack.scope, nack.lane, &nack.incarnation)?;
                self.check_sends(&key, "NACK")?;
                self.events.push_back(Event::Nack {
                    key,
                    seq: Seq(nack.seq),
                    reason: bounded(nack.reason),
                });
                Ok(())
            }
            (Message::Fetch(fetch), _) if confirmed => self.on_fetch(&fetch),
            (Message::NotHeld(answer), _) if confirmed => {
                if self.fetches.done(answer.id) {
                    self.events.push_back(Event::NotHeld { id: answer.id });
                }
                Ok(())
            }
            (other, phase) => Err(SessionError::Protocol(format!(
                "{} in phase {phase:?}",
                name_of(&other)
            ))),
        }
    }

    fn check_sends(&self, key: &StreamKey, what: &str) -> Result<(), SessionError> {
        if self.sends.contains(key) {
            return Ok(());
        }
        Err(SessionError::Protocol(format!(
            "{what} of {key}, which this end does not send"
        )))
    }

    fn on_ack(&mut self, ack: v1::Ack, held: &dyn Holdings, now: Duration) -> Result<(), SessionError> {
        let key = key_of(&ack.scope, ack.lane, &ack.incarnation)?;
        self.check_sends(&key, "acknowledgement")?;
        let mark = acks::mark_of(&ack)?;
        let ours = held.durable(&key).map_or(Position::ZERO, |mark| mark.position);
        if mark.position > ours {
            return Err(SessionError::Protocol(format!(
                "acknowledgement of {key} up to {}, this end has {ours}",
                mark.position
            )));
        }
        if ack.archived_seq > ack.durable_seq {
            return Err(SessionError::Protocol(format!(
                "{key}: archived up to {}, durable only up to {}",
                ack.archived_seq, ack.durable_seq
            )));
        }
        self.heartbeat.stir(now);
        let archived = Seq(ack.archived_seq);
        if !self.is_cloud {
            self.note_ack(&key, mark, archived, ack.receipt, now);
        }
        self.events.push_back(Event::PeerDurable {
            key: key.clone(),
            mark,
        });
        self.peer_archived(key, archived);
        Ok(())
    }

    fn peer_archived(&mut self, key: StreamKey, seq: Seq) {
        if self.archived.get(&key).is_none_or(|before| seq > *before) && seq > Seq::ZERO {
            self.archived.insert(key.clone(), seq);
            self.events.push_back(Event::PeerArchived { key, seq });
        }
    }

    /// Bytes arrived on a lane: the link lives.
    pub fn handle_activity(&mut self, now: Duration) {
        self.heartbeat.heard(now);
    }

    /// A received stream is durable here up to `mark`: tell the peer.
    pub fn handle_durable(&mut self, key: &StreamKey, mark: Mark, now: Duration) {
        if self.accepts(key) {
            self.acks.durable(key, mark, now);
            self.heartbeat.stir(now);
        }
    }

    /// A received stream is in the archive up to `seq`: tell the peer. Without effect under
    /// [`ArchivePolicy::FollowDurable`].
    pub fn handle_archived(&mut self, key: &StreamKey, seq: Seq, now: Duration) {
        if self.accepts(key) && self.local.archive == ArchivePolicy::Explicit {
            self.acks.archived(key, seq, now);
        }
    }

    /// A snapshot of a received stream has arrived, and is durable where that is its purpose. A hint is neither
    /// stored nor acknowledged.
    pub fn handle_snapshot(&mut self, key: &StreamKey, purpose: Purpose, mark: Mark, now: Duration) {
        self.heartbeat.heard(now);
        if purpose == Purpose::Rebase || (purpose == Purpose::Hint && mutants::on("hint-moves-ack")) {
            self.handle_durable(key, mark, now);
        }
    }

    /// A received frame cannot be taken as it is.
    pub fn nack(&mut self, key: &StreamKey, seq: Seq, reason: &str) {
        if !self.accepts(key) {
            return;
        }
        self.out.push_back(Message::Nack(v1::Nack {
            scope: key.id.scope.as_wire().to_owned(),
            lane: key.id.lane.as_wire(),
            incarnation: key.incarnation.0.to_vec(),
            seq: seq.0,
            reason: reason.to_owned(),
        }));
    }

    /// Where the streams this end writes end now; what changed is told to the peer with the next heartbeat.
    pub fn set_heads(&mut self, heads: Vec<v1::LaneHead>, now: Duration) {
        self.heartbeat.set_heads(heads, now);
    }

    /// Time passed.
    ///
    /// # Errors
    /// [`SessionError::Silent`] when the link is half-open.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), SessionError> {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        if let Some(silence) = self.heartbeat.silence(now) {
            self.phase = Phase::Closed;
            return Err(SessionError::Silent(silence));
        }
        if self.phase != Phase::AwaitHello
            && let Some(ping) = self.heartbeat.poll(now)
        {
            self.out.push_back(Message::Ping(ping));
        }
        if self.phase == Phase::Open && self.note_due.is_some_and(|due| due <= now) {
            self.note_due = None;
            self.events
                .push_back(Event::Note(FenceUpdate::Edge(self.edge_fence.clone())));
        }
        Ok(())
    }

    /// When [`Session::handle_timeout`] or [`Session::poll_transmit`] next has something to do.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.phase == Phase::Closed {
            return None;
        }
        let mut next = self.heartbeat.gives_up_at();
        if self.phase != Phase::AwaitHello {
            next = next.min(self.heartbeat.next());
        }
        if self.phase == Phase::Open {
            next = [self.acks.next_due(), self.note_due]
                .into_iter()
                .flatten()
                .fold(next, Duration::min);
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
        let ack = self
            .acks
            .poll(self.local.archive, self.local.receipts.as_ref(), now)?;
        Some(Message::Ack(ack))
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
        ..Default::default()
    }
}

fn key_of(scope: &str, lane: u32, incarnation: &[u8]) -> Result<StreamKey, NameError> {
    Ok(StreamKey {
        id: StreamId::new(Scope::from_wire(scope)?, Lane::from_wire(lane)?),
        incarnation: Incarnation::from_slice(incarnation)?,
    })
}

/// Text of the peer's for logs and records, of a bounded length.
fn bounded(mut text: String) -> String {
    if text.len() > limits::SESSION_MAX_TEXT_BYTES {
        let end = (0..=limits::SESSION_MAX_TEXT_BYTES)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text
}

fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "HELLO",
        Message::Welcome(_) => "WELCOME",
        Message::Refuse(_) => "REFUSE",
        Message::Ack(_) => "ACK",
        Message::Ping(_) => "PING",
        Message::Confirm(_) => "CONFIRM",
        Message::Nack(_) => "NACK",
        Message::Fetch(_) => "FETCH",
        Message::NotHeld(_) => "NOT_HELD",
    }
}

#[cfg(test)]
mod tests;
