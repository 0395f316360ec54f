//! One replication link: a QUIC connection, a session, and the log on this side of it.
//!
//! The session decides; the tasks here move bytes. One bidirectional stream carries control messages; each
//! stream of the log goes over a unidirectional QUIC stream of its own, as frames with a 4-byte big-endian
//! length, with the lane's priority. Received frames are appended as they are and acknowledged once they are
//! on stable storage here.
//!
//! Reading order: this file, [`drive`], [`lanes`], [`hints`].

mod drain;
mod drive;
mod fetch;
mod heads;
mod hints;
mod holdings;
mod in_place;
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
use ledge_proto::ids::{Lane, Seq, StreamKey};
use ledge_proto::session::wire::ControlError;
use ledge_proto::session::{Local, Session, SessionError};
use ledge_proto::v1;
use quinn::Connection;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::holdings::LogHoldings;
use crate::fences::{FenceError, Fences, NodeFences, SessionEntry};
use crate::reset::{OwnAppends, ResetError};

pub use drain::{Drain, Hours, HoursError, Rate};
pub use fetch::Refill;
pub use observer::{Direction, LinkObserver, NoObserver, Traffic};
pub use snapshots::{NoSnapshots, PartError};
pub use window::ReplaySlots;

/// How long the control stream may take to come.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// What was noted of the node cannot be read.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// A stream we write could not begin its new epoch.
    #[error("a new epoch could not begin: {0}")]
    Reset(#[from] ResetError),
    /// The peer cannot take a frame.
    #[error("the other end cannot take the frame of {key} that holds record {seq}: {reason}")]
    Nack {
        /// The stream.
        key: StreamKey,
        /// The record.
        seq: Seq,
        /// Machine-readable.
        reason: String,
    },
    /// Another session of the node took the place of this one, or the node was put in quarantine.
    #[error("another session of the node took its place, or the node was put in quarantine")]
    Replaced,
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
    /// What this end noted of who may go on with which history.
    pub fences: Fences,
    /// Lets appends to this log's own streams through.
    pub appends: OwnAppends,
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
    let begin = |parts: &LinkParts, held: &LogHoldings<'_>| {
        let (local, sends) = (parts.local.clone(), parts.sends.clone());
        Session::edge(local, sends, receives, held, Duration::ZERO)
    };
    drive::run(connection, control, parts, begin).await
}

/// Runs the cloud's end over a connection it accepted. `parts.local.node` is the node its certificate names.
///
/// # Errors
/// Always: a link ends for a reason.
pub async fn run_cloud(connection: Connection, parts: LinkParts) -> Result<(), LinkError> {
    let control = tokio::time::timeout(HANDSHAKE_TIMEOUT, connection.accept_bi())
        .await
        .map_err(|_| LinkError::Session(SessionError::Silent(HANDSHAKE_TIMEOUT)))??;
    let begin = |parts: &LinkParts, _: &LogHoldings<'_>| {
        Session::cloud(parts.local.clone(), parts.sends.clone(), Duration::ZERO)
    };
    drive::run(connection, control, parts, begin).await
}

/// What the tasks of one link share.
struct Link {
    connection: Connection,
    log: Log,
    session: Mutex<Session>,
    /// This session among those of its node.
    entry: SessionEntry,
    /// What the cloud noted of itself.
    cloud: Arc<NodeFences>,
    appends: OwnAppends,
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
    /// Requests for damaged records that the peer cannot answer.
    not_held: Mutex<Vec<u64>>,
    /// Something happened to what was asked for.
    refilled: Notify,
}

impl Link {
    fn session(&self) -> MutexGuard<'_, Session> {
        // The session is a plain value: a panic elsewhere leaves it as it was.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holdings(&self) -> LogHoldings<'_> {
        LogHoldings {
            log: &self.log,
            snapshots: &*self.snapshots,
            entry: &self.entry,
            cloud: &self.cloud,
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn acked(&self, key: &StreamKey) -> Seq {
        let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.get(key).copied().unwrap_or(Seq::ZERO)
    }

    fn not_held(&self) -> MutexGuard<'_, Vec<u64>> {
        self.not_held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer may hold the stream: one of the two writes it for the other.
    fn shares(&self, key: &StreamKey) -> bool {
        let sent = self
            .acked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(key);
        sent || self.session().accepts(key)
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
}

/// Runs what reads files or folds where it holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LinkError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|err| LinkError::Stream(format!("a task of the link failed: {err}")))
}

/// Whether current values of a stream go ahead of its history.
fn hinted(key: &StreamKey) -> bool {
    key.id.lane == Lane::UpState
}
