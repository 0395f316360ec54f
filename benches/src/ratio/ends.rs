//! The two ends of a link, for benchmarks that run one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledge_log::{DiskStorage, Log, Options};
use ledge_proto::ids::{ClusterId, Incarnation, Scope, StreamKey};
use ledge_proto::session::{ArchivePolicy, Local};
use ledge_replication::fences::Fences;
use ledge_replication::link::{Drain, LinkObserver, LinkParts, NoSnapshots, ReplaySlots};
use ledge_replication::reset::OwnAppends;
use quinn::Endpoint;
use tokio_util::sync::CancellationToken;

/// Any port of loopback.
pub(super) fn any() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// One end of a link of `node`.
pub(super) fn parts(
    log: &Log,
    (node, incarnation): (Scope, Incarnation),
    sends: Vec<StreamKey>,
    observer: Arc<dyn LinkObserver>,
    stop: &CancellationToken,
) -> LinkParts {
    LinkParts {
        log: log.clone(),
        local: Local {
            cluster: log.identity().cluster,
            node,
            incarnation,
            boot_id: String::new(),
            labels: BTreeMap::new(),
            software: "ratio".into(),
            heartbeat: Duration::from_secs(5),
            heartbeat_idle: Duration::from_secs(5),
            nonce: [7; 16],
            wall_us: 0,
            receipts: None,
            archive: ArchivePolicy::default(),
        },
        sends,
        fences: Fences::default(),
        appends: OwnAppends::default(),
        snapshots: Arc::new(NoSnapshots),
        drain: Drain::unlimited(),
        slots: ReplaySlots::new(1),
        observer,
        shutdown: stop.clone(),
    }
}

/// A log that takes little room, and fills no segment ahead while something is measured.
pub(super) fn node_log(dir: &Path, cluster: ClusterId, name: &str) -> anyhow::Result<Log> {
    let options = Options {
        segment_bytes: 8 << 20,
        prepare_ahead: false,
        ..Options::new(cluster, name)
    };
    Ok(Log::open(Arc::new(DiskStorage), dir, options)?.0)
}

/// A client on a port of its own. Call it inside the runtime it is to use.
pub(super) fn client() -> std::io::Result<Endpoint> {
    Endpoint::client(any())
}
