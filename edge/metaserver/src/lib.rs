//! MetaServer: the Kubernetes API of a node, at 127.0.0.1:10550, from the node's own projection, with or without a link.
//!
//! Reads are answered from what the cloud told the node (lane `down`, of the node and of the cluster). What the node was not
//! told is asked for with an interest in its log, and kept current from then on. Whatever changes something is a record in
//! the node's log before anything else; the API server carries it out, and what it said is the answer. Without a link, the
//! answer says where the request stands.
//!
//! There is no authentication: it listens on the loopback only, and whoever asks speaks for the node.
//!
//! Reading order: [`mod@version`], `kinds`, `ledger`, [`Mirror`], `door`, `interests`, `writes`, `own`, `partial`, `server`,
//! [`MetaServer`] (this file).

mod door;
mod environment;
mod interests;
mod kinds;
mod ledger;
mod mirror;
mod outbox;
mod own;
mod partial;
mod server;
mod version;
mod writes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ledge_kubeapi::objects::Limits;
use ledge_kubeapi::serve::{AllowAll, Api};
use ledge_projection::{ChangeFeed, Changes, Projection, ReadError};
use ledge_proto::ids::Scope;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use interests::{INTERESTS_MAX, REFUSED_FOR, UNUSED_FOR};
pub use kinds::{OWN_GROUP, OWN_VERSION, WRITES};
pub use mirror::Mirror;
pub use outbox::{Outbox, OutboxError};
pub use server::ServeError;
pub use writes::{PENDING_MAX, PENDING_MAX_BYTES, WRITE_MAX_BYTES};

use door::Door;
use environment::SystemEnvironment;
use interests::Interests;
use server::Server;
use writes::Writes;

/// Bytes of past changes that watches can begin from, on a gateway with little memory.
const WINDOW_BYTES: usize = 2 << 20;
/// Changes a watcher may be behind.
const WATCHER_BACKLOG: usize = 512;

/// Where MetaServer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Listens there although it is not on the loopback: whoever reaches it may do what the node may.
    pub anywhere: bool,
}

/// What MetaServer works with.
pub struct Parts {
    /// The node.
    pub node: Scope,
    /// Which start of the log this is ([`ledge_log::Identity::boot`]).
    pub boot: u32,
    /// The projection of the node's log, up to date.
    pub projection: Projection,
    /// The way into the log.
    pub outbox: Arc<dyn Outbox>,
    /// Whether there is a link to the cloud.
    pub link: watch::Receiver<bool>,
}

/// Why MetaServer cannot be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its source's kind")]
pub enum OpenError {
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("MetaServer cannot read the projection: {0}")]
    Read(#[from] ReadError),
}

/// MetaServer, bound but not serving.
pub struct MetaServer {
    api: Api,
    mirror: Mirror,
    feed: ChangeFeed,
    projection: Projection,
    interests: Arc<Interests>,
    writes: Arc<Writes>,
    server: Server,
}

impl MetaServer {
    /// Binds, and reads the projection.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(config: Config, parts: Parts) -> Result<MetaServer, OpenError> {
        let server = Server::bind(config.listen, config.anywhere).await?;
        let Parts {
            node,
            boot,
            projection,
            outbox,
            link,
        } = parts;
        let limits = Limits {
            window_bytes: WINDOW_BYTES,
            watcher_backlog: WATCHER_BACKLOG,
        };
        // Before the first look, so that nothing falls between.
        let feed = projection.changes(&mirror::TABLES);
        let mirror = Mirror::load(&projection.view(), node, boot, limits)?;
        let interests = Arc::new(Interests::new(mirror.clone(), Arc::clone(&outbox), link.clone()));
        let writes = Arc::new(Writes::new(mirror.clone(), Arc::clone(&outbox), link));
        let door = Door::new(
            mirror.clone(),
            outbox,
            Arc::clone(&interests),
            Arc::clone(&writes),
        );
        let api = Api::new(
            Arc::new(mirror.clone()),
            Arc::new(SystemEnvironment),
            Arc::new(AllowAll),
            Arc::new(door),
        );
        Ok(MetaServer {
            api,
            mirror,
            feed,
            projection,
            interests,
            writes,
            server,
        })
    }

    /// Where it listens, with the real port.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.server.address()
    }

    /// What the node holds, for others in the same process.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let MetaServer {
            api,
            mirror,
            feed,
            projection,
            interests,
            writes,
            server,
        } = self;
        let kept = async {
            tokio::join!(interests.take_back_unused(), writes.take_results());
        };
        let node: Arc<str> = mirror.node().into();
        tokio::select! {
            () = server.serve(api, node, shutdown) => {}
            () = follow(mirror, feed, projection) => {}
            () = kept => {}
        }
    }
}

impl std::fmt::Debug for MetaServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetaServer")
            .field("mirror", &self.mirror)
            .finish_non_exhaustive()
    }
}

/// Keeps the mirror up with the projection. Never ends.
async fn follow(mirror: Mirror, mut feed: ChangeFeed, projection: Projection) {
    let mut missed = false;
    loop {
        let changes = feed.next().await;
        let changes = if missed { Changes::All } else { changes };
        let taken = mirror.take_in(&projection.view(), &changes);
        missed = taken.is_err();
        if let Err(error) = taken {
            // The daemon stops when its projection does; until then, what is shown stays as it was.
            tracing::error!(%error, "MetaServer cannot read the projection; it shows what it read before");
        }
    }
}
