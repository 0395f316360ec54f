//! The hub client: dials cloudcore, runs a link, and dials again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledge_log::Log;
use ledge_projection::Projection;
use ledge_proto::fold::folded_stream;
use ledge_proto::ids::{Incarnation, Lane, Mark, Scope, Seq, StreamId, StreamKey};
use ledge_proto::session::{Backoff, Local, Peer, RefuseReason, SessionError, stream_state};
use ledge_proto::v1;
use ledge_replication::certs::CLOUD_SERVER_NAME;
use ledge_replication::fences::Fences;
use ledge_replication::link::{
    Direction, Drain, LinkError, LinkObserver, LinkParts, Refill, ReplaySlots, Traffic, run_edge,
};
use ledge_replication::meters;
use ledge_replication::reset::{LostHistory, OwnAppends};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the hub client needs.
#[derive(Debug)]
pub struct HubClient {
    /// Where cloudcore listens, `HOST:PORT`.
    pub cloud: String,
    /// Name asked for in cloudcore's certificate; `None` asks for the fixed one.
    pub server_name: Option<String>,
    /// TLS identity of this node.
    pub tls: quinn::ClientConfig,
    /// The node's log.
    pub log: Log,
    /// Tells which life of the cloud's log the node follows.
    pub projection: Projection,
    /// What the node says of itself.
    pub local: Local,
    /// What the node knows of the cloud.
    pub fences: Fences,
    /// Lets appends to the node's own streams through.
    pub appends: OwnAppends,
    /// Waits between two attempts.
    pub backoff: Backoff,
    /// How fast telemetry leaves.
    pub drain: Drain,
    /// How the link stands, for others to see.
    pub status: Arc<HubStatus>,
}

/// How the link stands.
#[derive(Debug, Default)]
pub struct HubStatus {
    link: Mutex<LinkState>,
    changed: Notify,
    up: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct LinkState {
    up: bool,
    acked: BTreeMap<StreamKey, Seq>,
}

impl HubStatus {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a link, from now on.
    pub fn link(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// How far the cloud has archived a stream of this node, as far as this start of the daemon heard.
    pub fn archived(&self, key: &StreamKey) -> Seq {
        self.lock().acked.get(key).copied().unwrap_or(Seq::ZERO)
    }

    /// Waits until the cloud has acknowledged everything in the node's own streams, or there is no link.
    /// Returns whether it has.
    pub async fn acknowledged(&self, log: &Log) -> bool {
        loop {
            let changed = self.changed.notified();
            {
                let link = self.lock();
                if !link.up {
                    return false;
                }
                let held = |key: &StreamKey| log.durable(key).map_or(Seq::ZERO, |mark| mark.position.seq);
                if link.acked.iter().all(|(key, acked)| *acked >= held(key)) {
                    return true;
                }
            }
            changed.await;
        }
    }
}

/// What went wrong before there was a link.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot resolve {address}: {source}")]
    Resolve { address: String, source: std::io::Error },
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("cannot open a UDP socket: {0}")]
    Socket(std::io::Error),
    #[error("{address}: {reason}")]
    Connect { address: SocketAddr, reason: String },
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl HubClient {
    /// Keeps a link until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut backoff = self.backoff.clone();
        metrics::gauge!("ledge_link_up").set(0.0);
        metrics::gauge!("ledge_link_quarantined").set(0.0);
        while !shutdown.is_cancelled() {
            let observer = Arc::new(EdgeObserver {
                status: self.status.clone(),
            });
            *self.status.lock() = LinkState {
                up: false,
                acked: self
                    .own_streams()
                    .into_iter()
                    .map(|key| (key, Seq::ZERO))
                    .collect(),
            };
            let ended = tokio::select! {
                ended = self.dial(observer.clone(), shutdown.clone()) => ended,
                () = shutdown.cancelled() => return,
            };
            metrics::gauge!("ledge_link_up").set(0.0);
            self.status.up.send_replace(false);
            if std::mem::take(&mut self.status.lock().up) {
                backoff.reset();
            }
            self.status.changed.notify_waiters();
            let Err(err) = ended else { continue };
            let wait = backoff.next_wait(random());
            match &err {
                DialError::Link(LinkError::Shutdown) if shutdown.is_cancelled() => return,
                DialError::Link(LinkError::Session(
                    SessionError::Refused { .. } | SessionError::Refusing { .. },
                )) => {
                    metrics::gauge!("ledge_link_quarantined").set(f64::from(u8::from(is_quarantine(&err))));
                    tracing::error!(cloud = %self.cloud, %err, "cloudcore and this node do not fit together; work goes on")
                }
                _ => tracing::warn!(cloud = %self.cloud, %err, retry_in = ?wait, "no link; work goes on"),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn dial(&self, observer: Arc<EdgeObserver>, shutdown: CancellationToken) -> Result<(), DialError> {
        let address = tokio::net::lookup_host(&self.cloud)
            .await
            .map_err(|source| DialError::Resolve {
                address: self.cloud.clone(),
                source,
            })?
            .next()
            .ok_or_else(|| DialError::NoAddress(self.cloud.clone()))?;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let refused = |reason: String| DialError::Connect { address, reason };
        let endpoint = quinn::Endpoint::client(any).map_err(DialError::Socket)?;
        let name = self.server_name.as_deref().unwrap_or(CLOUD_SERVER_NAME);
        let connecting = endpoint
            .connect_with(self.tls.clone(), address, name)
            .map_err(|err| refused(err.to_string()))?;
        let connection = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| refused(format!("no answer within {CONNECT_TIMEOUT:?}")))?
            .map_err(|err| refused(err.to_string()))?;
        let parts = LinkParts {
            log: self.log.clone(),
            local: self.local.clone(),
            fences: self.fences.clone(),
            appends: self.appends.clone(),
            sends: self.own_streams(),
            snapshots: Arc::new(self.projection.clone()),
            drain: self.drain.clone(),
            // There is one link.
            slots: ReplaySlots::new(1),
            observer,
            shutdown,
        };
        let ended = run_edge(connection, parts, self.received_streams()).await;
        // Let the farewell leave before the socket goes.
        timeout(Duration::from_millis(200), endpoint.wait_idle())
            .await
            .ok();
        Ok(ended?)
    }

    fn own_streams(&self) -> Vec<StreamKey> {
        [Lane::UpState, Lane::UpData]
            .into_iter()
            .map(|lane| StreamKey {
                id: StreamId::new(self.local.node.clone(), lane),
                incarnation: self.local.incarnation,
            })
            .collect()
    }

    /// What this node holds of the streams the cloud writes, in the life of the cloud's log it last followed.
    fn received_streams(&self) -> Vec<v1::StreamState> {
        [self.local.node.clone(), Scope::cluster()]
            .into_iter()
            .filter_map(|scope| {
                let id = StreamId::new(scope, Lane::Down);
                let folded = match folded_stream(&self.projection.view(), &id) {
                    Ok(folded) => folded?,
                    Err(err) => {
                        tracing::error!(stream = %id, %err, "cannot read the projection; asking for all of it");
                        return None;
                    }
                };
                let incarnation = Incarnation::from_slice(&folded.incarnation).ok()?;
                let key = StreamKey { id, incarnation };
                Some(stream_state(&key, self.log.durable(&key)))
            })
            .collect()
    }
}

/// Whether an operator has to decide before the node is let in again.
fn is_quarantine(err: &DialError) -> bool {
    let DialError::Link(LinkError::Session(SessionError::Refused { reason, .. })) = err else {
        return false;
    };
    [
        RefuseReason::Quarantined,
        RefuseReason::Fork,
        RefuseReason::IncarnationClosed,
    ]
    .iter()
    .any(|quarantine| quarantine.name() == reason)
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness every edge waits the same; that is a nuisance, not a fault.
    getrandom::fill(&mut bytes).ok();
    u64::from_ne_bytes(bytes)
}

#[derive(Debug)]
struct EdgeObserver {
    status: Arc<HubStatus>,
}

impl LinkObserver for EdgeObserver {
    fn established(&self, _peer: &Peer) {
        self.status.lock().up = true;
        self.status.up.send_replace(true);
        metrics::gauge!("ledge_link_up").set(1.0);
        metrics::gauge!("ledge_link_quarantined").set(0.0);
        metrics::counter!("ledge_link_established_total").increment(1);
        tracing::info!("link to cloudcore established");
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "gauges are doubles; sequence numbers stay below 2^53"
    )]
    fn peer_durable(&self, key: &StreamKey, mark: Mark) {
        self.status.lock().acked.insert(key.clone(), mark.position.seq);
        self.status.changed.notify_waiters();
        metrics::gauge!("ledge_repl_acked_seq", "lane" => key.id.lane.name()).set(mark.position.seq.0 as f64);
    }

    fn sent(&self, key: &StreamKey, records: u64, bytes: u64) {
        meters::frame(Direction::Sent, key, records, bytes);
    }

    fn received(&self, key: &StreamKey, records: u64, bytes: u64) {
        meters::frame(Direction::Received, key, records, bytes);
    }

    fn history_lost(&self, lost: &LostHistory) {
        metrics::counter!("ledge_history_lost_total", "lane" => lost.key.id.lane.name()).increment(1);
        tracing::error!(
            stream = %lost.key.id, epoch = %lost.epoch, lost = ?lost.records, again = lost.appended_again,
            "this disk is an older state of the node's: the stream goes on under a new epoch"
        );
    }

    fn refill(&self, _key: &StreamKey, what: Refill) {
        meters::refill(what);
    }

    fn traffic(&self, direction: Direction, what: Traffic, bytes: u64) {
        meters::traffic(direction, what, bytes);
    }
}
