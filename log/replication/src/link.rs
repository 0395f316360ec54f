//! One replication link: a QUIC connection, a session, and the log on this side of it.
//!
//! The session decides; the tasks here move bytes. One bidirectional stream carries control messages; each
//! stream of the log goes over a unidirectional QUIC stream of its own, as frames with a 4-byte big-endian
//! length, with the lane's priority. Received frames are appended as they are and acknowledged once they are
//! on stable storage here.

mod drain;
mod hints;
mod items;
mod lanes;
mod observer;
mod snapshots;
pub(crate) mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledge_log::Log;
use ledge_proto::fold::snapshot::SnapshotSource;
use ledge_proto::frame::FrameError;
use ledge_proto::ids::{Lane, Mark, Seq, StreamKey};
use ledge_proto::session::wire::{self, ControlError};
use ledge_proto::session::{Event, Holdings, Local, Session, SessionError};
use ledge_proto::v1::control_message::Message;
use ledge_proto::v1::{self, snapshot::Purpose};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::snapshots::Whole;
use self::window::Window;

pub use drain::{Drain, Hours, HoursError, Rate};
pub use observer::{Direction, LinkObserver, NoObserver, Traffic};
pub use snapshots::{NoSnapshots, PartError};
pub use window::ReplaySlots;

/// Priority of the control stream; lanes come below (see `lanes`).
const CONTROL_PRIORITY: i32 = 30;
/// How long the edge waits for cloudcore to take its control stream, and a refusal for being read.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a link ended. None of these lose anything: the next link goes on where this one was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The connection ended.
    #[error("connection: {0}")]
    Connection(#[from] quinn::ConnectionError),
    /// A stream of the connection ended in the middle.
    #[error("stream: {0}")]
    Stream(String),
    /// The peer sent something that is not a control message.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The peer sent something that is not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent a snapshot that cannot be one.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The peer sent a frame of a stream it may not write.
    #[error("the peer sent a frame of {0}, which is not its to write")]
    NotAllowed(StreamKey),
    /// Our log did not take a frame.
    #[error("log: {0}")]
    Append(#[from] ledge_log::AppendError),
    /// Our log could not be read.
    #[error("log: {0}")]
    Read(#[from] ledge_log::ReadError),
    /// The link was told to end.
    #[error("shut down")]
    Shutdown,
}

/// What both ends need to run a link.
#[derive(Clone)]
pub struct LinkParts {
    /// The log on this side.
    pub log: Log,
    /// What this end says of itself.
    pub local: Local,
    /// Streams this end writes and the peer receives.
    pub sends: Vec<StreamKey>,
    /// Folded state of the streams this end sends.
    pub snapshots: Arc<dyn SnapshotSource>,
    /// How fast telemetry leaves.
    pub drain: Drain,
    /// How many links of this process may receive at full speed at once.
    pub slots: ReplaySlots,
    /// Who wants to know how it goes.
    pub observer: Arc<dyn LinkObserver>,
    /// Ends the link.
    pub shutdown: CancellationToken,
}

impl std::fmt::Debug for LinkParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkParts")
            .field("local", &self.local)
            .field("sends", &self.sends)
            .finish_non_exhaustive()
    }
}

/// Runs the edge's end over a connection it dialled. `receives` tells what it holds of the `down` streams.
///
/// # Errors
/// Always: a link ends for a reason.
pub async fn run_edge(
    connection: Connection,
    parts: LinkParts,
    receives: Vec<v1::StreamState>,
) -> Result<(), LinkError> {
    let control = tokio::time::timeout(HANDSHAKE_TIMEOUT, connection.open_bi())
        .await
        .map_err(|_| LinkError::Session(SessionError::Silent(HANDSHAKE_TIMEOUT)))??;
    let origin = Instant::now();
    let session = Session::edge(
        parts.local.clone(),
        parts.sends.clone(),
        receives,
        &LogHoldings(&parts.log),
        origin.elapsed(),
    );
    drive(connection, control, parts, session, origin).await
}

/// Runs the cloud's end over a connection it accepted. `parts.local.node` is the node its certificate names.
///
/// # Errors
/// Always: a link ends for a reason.
pub async fn run_cloud(connection: Connection, parts: LinkParts) -> Result<(), LinkError> {
    let control = tokio::time::timeout(HANDSHAKE_TIMEOUT, connection.accept_bi())
        .await
        .map_err(|_| LinkError::Session(SessionError::Silent(HANDSHAKE_TIMEOUT)))??;
    let origin = Instant::now();
    let session = Session::cloud(parts.local.clone(), parts.sends.clone(), origin.elapsed());
    drive(connection, control, parts, session, origin).await
}

/// What the log holds, as the session asks it.
struct LogHoldings<'a>(&'a Log);

impl Holdings for LogHoldings<'_> {
    fn durable(&self, key: &StreamKey) -> Option<Mark> {
        self.0.durable(key)
    }

    fn mark_at(&self, key: &StreamKey, seq: Seq) -> Option<Mark> {
        match self.0.mark_at(key, seq) {
            Ok(mark) => mark,
            Err(err) => {
                tracing::error!(%key, %seq, %err, "cannot read the log");
                None
            }
        }
    }
}

/// What the tasks of one link share.
struct Link {
    connection: Connection,
    log: Log,
    session: Mutex<Session>,
    origin: Instant,
    /// Something was said to the session: it may have something to send.
    wake: Notify,
    observer: Arc<dyn LinkObserver>,
    snapshots: Arc<dyn SnapshotSource>,
    drain: Drain,
    /// What the peer acknowledged of the streams we send.
    acked: Mutex<BTreeMap<StreamKey, Seq>>,
    /// Whether the lanes may send: what must be there first has arrived.
    gate: watch::Sender<bool>,
}

impl Link {
    fn session(&self) -> MutexGuard<'_, Session> {
        // The session is a plain value: a panic elsewhere leaves it as it was.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn acked(&self, key: &StreamKey) -> Seq {
        let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.get(key).copied().unwrap_or(Seq::ZERO)
    }

    fn open_gate(&self) {
        self.gate.send_if_modified(|open| !std::mem::replace(open, true));
    }

    async fn gate_open(&self) {
        // The sender lives in `self`.
        let _ = self.gate.subscribe().wait_for(|open| *open).await;
    }

    /// Whether the peer may write this stream. Something arrived, so the link lives.
    fn allowed(&self, key: &StreamKey) -> Result<(), LinkError> {
        let mut session = self.session();
        session.handle_activity(self.now());
        if session.accepts(key) {
            Ok(())
        } else {
            Err(LinkError::NotAllowed(key.clone()))
        }
    }

    fn take_snapshot(&self, whole: Whole) {
        let what = Traffic::Snapshot(whole.key.id.lane, whole.purpose);
        self.observer.traffic(Direction::Received, what, whole.bytes);
        if whole.purpose == Purpose::Hint {
            self.observer.hint(&whole.key, &whole.parts);
        }
    }
}

async fn drive(
    connection: Connection,
    (mut control_out, control_in): (SendStream, RecvStream),
    parts: LinkParts,
    session: Session,
    origin: Instant,
) -> Result<(), LinkError> {
    control_out.set_priority(CONTROL_PRIORITY).ok();
    let link = Arc::new(Link {
        connection: connection.clone(),
        log: parts.log,
        session: Mutex::new(session),
        origin,
        wake: Notify::new(),
        observer: parts.observer,
        snapshots: parts.snapshots,
        drain: parts.drain,
        acked: Mutex::new(parts.sends.iter().map(|key| (key.clone(), Seq::ZERO)).collect()),
        gate: watch::Sender::new(!parts.sends.iter().any(hinted)),
    });
    let mut window = Window::new(connection.clone(), parts.slots);
    let mut meter = UdpMeter::default();
    let mut tasks: JoinSet<Result<(), LinkError>> = JoinSet::new();
    let (messages_in, mut messages) = mpsc::channel(16);
    tasks.spawn(read_control(link.clone(), control_in, messages_in));
    let mut receiving = false;
    let result = loop {
        if let Err(err) = flush(&link, &mut control_out).await {
            break Err(err);
        }
        while let Some(event) = { link.session().poll_event() } {
            match event {
                Event::Established { peer } => link.observer.established(&peer),
                Event::SendFrom { key, after } => {
                    if hinted(&key) {
                        tasks.spawn(hints::send(link.clone(), key.clone(), after));
                    }
                    tasks.spawn(lanes::send(link.clone(), key, after));
                }
                Event::PeerDurable { key, mark } => {
                    let mut acked = link.acked.lock().unwrap_or_else(PoisonError::into_inner);
                    acked.insert(key.clone(), mark.position.seq);
                    drop(acked);
                    link.observer.peer_durable(&key, mark);
                }
                Event::PeerHeads(heads) => {
                    window.set_backlog(backlog(&link, &heads));
                    link.observer.peer_heads(&heads);
                }
            }
        }
        if !receiving && link.session().is_open() {
            // Lanes are taken only once the peer is known to be who it should be.
            receiving = true;
            tasks.spawn(lanes::accept(link.clone()));
        }
        let deadline = { link.session().poll_timeout() };
        // In this order: a message that arrived before its stream ended (a refusal) is heard before the ending.
        let step = tokio::select! {
            biased;
            () = parts.shutdown.cancelled() => Err(LinkError::Shutdown),
            () = sleep_until(link.origin, deadline) => {
                meter.tell(&link);
                let heads = heads(&link);
                let mut session = link.session();
                session.set_heads(heads);
                session.handle_timeout(link.now()).map_err(LinkError::from)
            }
            Some(message) = messages.recv() => {
                link.session().handle_message(message, &LogHoldings(&link.log), link.now()).map_err(LinkError::from)
            }
            () = link.wake.notified() => Ok(()),
            () = window.raise() => Ok(()),
            Some(ended) = tasks.join_next() => match ended {
                Ok(result) => result,
                Err(join) => Err(LinkError::Stream(format!("a task of the link failed: {join}"))),
            },
            reason = connection.closed() => Err(LinkError::Connection(reason)),
        };
        if let Err(err) = step {
            break Err(err);
        }
    };
    tasks.shutdown().await;
    meter.tell(&link);
    if let Err(LinkError::Session(SessionError::Refusing { .. })) = &result {
        // Say why, and give the peer a moment to read it before the connection goes.
        flush(&link, &mut control_out).await.ok();
        control_out.finish().ok();
        tokio::time::timeout(FAREWELL, connection.closed()).await.ok();
    }
    let result = match (result, connection.close_reason()) {
        // Why the connection went says more than which of its streams noticed first.
        (Err(LinkError::Stream(_)), Some(reason)) => Err(LinkError::Connection(reason)),
        (result, _) => result,
    };
    connection.close(VarInt::from_u32(0), b"bye");
    result
}

/// Sends what the session has to say.
async fn flush(link: &Link, control_out: &mut SendStream) -> Result<(), LinkError> {
    while let Some(message) = { link.session().poll_transmit(link.now()) } {
        let bytes = wire::encode(message)?;
        link.observer
            .traffic(Direction::Sent, Traffic::Control, bytes.len() as u64);
        control_out
            .write_chunk(bytes)
            .await
            .map_err(|err| LinkError::Stream(err.to_string()))?;
    }
    Ok(())
}

async fn read_control(
    link: Arc<Link>,
    mut control: RecvStream,
    messages: mpsc::Sender<Message>,
) -> Result<(), LinkError> {
    loop {
        let mut prefix = [0; 4];
        control
            .read_exact(&mut prefix)
            .await
            .map_err(|err| LinkError::Stream(err.to_string()))?;
        let mut body = vec![0; wire::decode_len(prefix)?];
        control
            .read_exact(&mut body)
            .await
            .map_err(|err| LinkError::Stream(err.to_string()))?;
        link.observer
            .traffic(Direction::Received, Traffic::Control, 4 + body.len() as u64);
        if messages.send(wire::decode(&body)?).await.is_err() {
            return Ok(());
        }
    }
}

/// Whether current values of a stream go ahead of its history.
fn hinted(key: &StreamKey) -> bool {
    key.id.lane == Lane::UpState
}

/// Records the peer has written and we do not hold yet.
fn backlog(link: &Link, heads: &[v1::LaneHead]) -> u64 {
    let session = link.session();
    let behind = |head: &v1::LaneHead| {
        let key = session.accepted(&head.scope, head.lane)?;
        let held = link.log.durable(key).map_or(0, |mark| mark.position.seq.0);
        Some(head.seq.saturating_sub(held))
    };
    heads.iter().filter_map(behind).fold(0, u64::saturating_add)
}

/// Tells the observer what the connection's datagrams came to since it was last told.
#[derive(Default)]
struct UdpMeter {
    sent: u64,
    received: u64,
}

impl UdpMeter {
    fn tell(&mut self, link: &Link) {
        let stats = link.connection.stats();
        let (sent, received) = (stats.udp_tx.bytes, stats.udp_rx.bytes);
        let tell = |direction, bytes| link.observer.traffic(direction, Traffic::Quic, bytes);
        tell(Direction::Sent, sent.saturating_sub(self.sent));
        tell(Direction::Received, received.saturating_sub(self.received));
        *self = UdpMeter { sent, received };
    }
}

async fn sleep_until(origin: Instant, deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(origin + deadline).await,
        None => std::future::pending().await,
    }
}

/// Where the streams we send end, and how old the oldest record is that the peer has not acknowledged.
fn heads(link: &Link) -> Vec<v1::LaneHead> {
    let log = &link.log;
    let acked = link.acked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    acked
        .iter()
        .map(|(key, acked)| {
            let head = log.durable(key).map_or(Seq::ZERO, |mark| mark.position.seq);
            v1::LaneHead {
                scope: key.id.scope.as_wire().to_owned(),
                lane: key.id.lane.as_wire(),
                seq: head.0,
                oldest_unacked_ms: if head > *acked {
                    oldest_age_ms(log, key, *acked)
                } else {
                    0
                },
            }
        })
        .collect()
}

fn oldest_age_ms(log: &Log, key: &StreamKey, acked: Seq) -> u64 {
    let written_us = log
        .read_stream(key, acked)
        .next()
        .ok()
        .flatten()
        .and_then(|frame| frame.records().ok()?.next()?.ok())
        .map(|(_, record)| record.wall_us);
    let now_us = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    written_us.map_or(0, |written| u64::try_from((now_us - written) / 1000).unwrap_or(0))
}
