//! The hub: accepts edges, one link per node.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ledge_log::Log;
use ledge_proto::fence::receipt::ReceiptKey;
use ledge_proto::fold::snapshot::SnapshotSource;
use ledge_proto::ids::{ClusterId, Lane, Scope, StreamId, StreamKey};
use ledge_proto::session::{ArchivePolicy, Local};
use ledge_replication::certs::{self, CertError};
use ledge_replication::fences::Fences;
use ledge_replication::link::{Drain, LinkError, LinkParts, ReplaySlots, run_cloud};
use ledge_replication::reset::OwnAppends;
use quinn::{Connection, Endpoint, Incoming, VarInt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Handshakes under way at once; beyond, a dialling edge must first prove its address (QUIC retry).
const HANDSHAKES_BEFORE_RETRY: usize = 256;

/// Why the hub could not listen.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on UDP {address} for edges: {source}; choose another with --listen (port 0 takes any)"
)]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// What the hub needs.
#[derive(Clone)]
pub struct HubParts {
    /// The cloud's log.
    pub log: Log,
    /// The cluster of our certificate.
    pub cluster: ClusterId,
    /// Heartbeat proposed to edges.
    pub heartbeat: Duration,
    /// Longest heartbeat proposed to edges while there is nothing to tell.
    pub heartbeat_idle: Duration,
    /// What the cloud knows of itself and its nodes' disks.
    pub fences: Fences,
    /// Lets appends to the cloud's own streams through.
    pub appends: OwnAppends,
    /// Signs what is acknowledged.
    pub receipts: ReceiptKey,
    /// Folded state of the streams the cloud sends.
    pub snapshots: Arc<dyn SnapshotSource>,
    /// How many edges may catch up at full speed at once.
    pub slots: ReplaySlots,
    /// Told how links go.
    pub fleet: Fleet,
}

impl std::fmt::Debug for HubParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubParts")
            .field("cluster", &self.cluster)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}

/// A bound hub; nothing is accepted yet.
#[derive(Debug)]
pub struct Hub {
    endpoint: Endpoint,
    parts: HubParts,
}

#[derive(Debug, thiserror::Error)]
enum RefusedLink {
    #[error("handshake: {0}")]
    Handshake(#[from] quinn::ConnectionError),
    #[error("no handshake within {HANDSHAKE_TIMEOUT:?}")]
    Slow,
    #[error("no client certificate")]
    NoCertificate,
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error("its certificate is not a node's")]
    NotANode,
    #[error("its certificate is of cluster {0}")]
    Foreign(ClusterId),
}

impl Hub {
    /// Binds `address`.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(address: SocketAddr, tls: quinn::ServerConfig, parts: HubParts) -> Result<Self, ListenError> {
        let endpoint = Endpoint::server(tls, address).map_err(|source| ListenError { address, source })?;
        Ok(Hub { endpoint, parts })
    }

    /// The address, with the real port.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Accepts edges until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut serial = 0;
        let mut links = JoinSet::new();
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    if links.len() > HANDSHAKES_BEFORE_RETRY && incoming.may_retry() && !incoming.remote_address_validated() {
                        incoming.retry().ok();
                        continue;
                    }
                    serial += 1;
                    let (parts, stop) = (self.parts.clone(), shutdown.child_token());
                    links.spawn(serve(incoming, parts, serial, stop));
                }
                Some(_) = links.join_next() => {}
                () = shutdown.cancelled() => break,
            }
        }
        while links.join_next().await.is_some() {}
        self.endpoint.close(VarInt::from_u32(0), b"shutdown");
        timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await.ok();
    }
}

async fn serve(incoming: Incoming, parts: HubParts, serial: u64, stop: CancellationToken) {
    let from = incoming.remote_address();
    let (connection, node) = match admit(incoming, parts.cluster).await {
        Ok(admitted) => admitted,
        Err(err) => {
            metrics::counter!("ledge_link_refused_total").increment(1);
            tracing::warn!(%from, %err, "connection refused");
            return;
        }
    };
    let incarnation = parts.log.identity().incarnation;
    let down = |scope: Scope| StreamKey {
        id: StreamId::new(scope, Lane::Down),
        incarnation,
    };
    let link = LinkParts {
        log: parts.log.clone(),
        local: Local {
            cluster: parts.cluster,
            node: node.clone(),
            incarnation,
            boot_id: String::new(),
            labels: Default::default(),
            software: format!("cloudcore {}", env!("CARGO_PKG_VERSION")),
            heartbeat: parts.heartbeat,
            heartbeat_idle: parts.heartbeat_idle,
            nonce: nonce(),
            wall_us: wall_us(),
            receipts: Some(parts.receipts.clone()),
            archive: ArchivePolicy::FollowDurable,
        },
        fences: parts.fences.clone(),
        appends: parts.appends.clone(),
        sends: vec![down(node.clone()), down(Scope::cluster())],
        snapshots: parts.snapshots.clone(),
        // Commands and desired state are never held back.
        drain: Drain::unlimited(),
        slots: parts.slots.clone(),
        observer: parts.fleet.observer(&node, serial),
        shutdown: stop,
    };
    let ended = run_cloud(connection, link).await;
    parts.fleet.disconnected(&node, serial);
    match ended {
        Err(LinkError::Shutdown | LinkError::Replaced) | Ok(()) => {
            tracing::info!(%node, %from, "link closed")
        }
        Err(err) => tracing::warn!(%node, %from, %err, "link ended"),
    }
}

/// Sets a session's token apart from every other.
fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    // Without randomness the counter alone tells tokens apart: copies of a disk are found out one session later.
    getrandom::fill(&mut nonce).ok();
    nonce
}

fn wall_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Completes the handshake and learns from the certificate which node this is.
async fn admit(incoming: Incoming, cluster: ClusterId) -> Result<(Connection, Scope), RefusedLink> {
    let connection = timeout(HANDSHAKE_TIMEOUT, async { incoming.await })
        .await
        .map_err(|_| RefusedLink::Slow)??;
    let node = peer_node(&connection, cluster).inspect_err(|err| {
        connection.close(VarInt::from_u32(1), err.to_string().as_bytes());
    })?;
    Ok((connection, node))
}

fn peer_node(connection: &Connection, cluster: ClusterId) -> Result<Scope, RefusedLink> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| {
            identity
                .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
                .ok()
        })
        .ok_or(RefusedLink::NoCertificate)?;
    let identity = certs::identity_of(chain.first().ok_or(RefusedLink::NoCertificate)?)?;
    if identity.cluster != cluster {
        return Err(RefusedLink::Foreign(identity.cluster));
    }
    identity.node.ok_or(RefusedLink::NotANode)
}
