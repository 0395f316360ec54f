//! Two logs, and two ends of a link between them over real QUIC on loopback.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledge_log::{DiskStorage, Log, OnDamage, Options, ReadError};
use ledge_proto::fold::State;
use ledge_proto::fold::snapshot::{self, SnapshotSource};
use ledge_proto::ids::{ClusterId, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey};
use ledge_proto::session::{Local, stream_state};
use ledge_proto::v1::{self, snapshot::Purpose};
use ledge_replication::certs::{Authority, CLOUD_SERVER_NAME, CertFiles};
use ledge_replication::fences::Fences;
use ledge_replication::link::{Drain, LinkError, LinkObserver, LinkParts, ReplaySlots, run_cloud, run_edge};
use ledge_replication::reset::OwnAppends;
use ledge_replication::tls;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const HEARTBEAT: Duration = Duration::from_millis(200);

pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
    pub(crate) cloud_files: CertFiles,
    pub(crate) edge_files: CertFiles,
}

impl Site {
    pub(crate) fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("pki")).unwrap();
        let cloud_files = authority.issue_cloud(&[], &dir.path().join("pki")).unwrap();
        let edge_files = authority.issue_node("edge-1", &dir.path().join("pki")).unwrap();
        Site {
            dir,
            authority,
            cloud_files,
            edge_files,
        }
    }

    pub(crate) fn log(&self, name: &str) -> Log {
        self.log_of(name, self.authority.cluster())
    }

    pub(crate) fn log_of(&self, name: &str, cluster: ClusterId) -> Log {
        open(&self.dir.path().join(name), cluster, name)
    }

    pub(crate) fn local(&self, node: &str, log: &Log) -> Local {
        Local {
            cluster: log.identity().cluster,
            node: Scope::node(node).unwrap(),
            incarnation: log.identity().incarnation,
            boot_id: "boot".into(),
            labels: BTreeMap::new(),
            software: "test".into(),
            heartbeat: HEARTBEAT,
            heartbeat_idle: HEARTBEAT,
            nonce: rand::random(),
            wall_us: 0,
            receipts: None,
            archive: Default::default(),
        }
    }
}

pub(crate) fn open(dir: &Path, cluster: ClusterId, node: &str) -> Log {
    let options = Options {
        segment_bytes: 8 << 20,
        on_damage: OnDamage::Quarantine,
        ..Options::new(cluster, node.to_owned())
    };
    Log::open(Arc::new(DiskStorage), dir, options).unwrap().0
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) sent_records: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
}

impl LinkObserver for Counts {
    fn sent(&self, _key: &StreamKey, records: u64, bytes: u64) {
        self.sent_records.fetch_add(records, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Folds a log's own records whenever it is asked.
pub(crate) struct Folded(pub(crate) Log);

impl Folded {
    pub(crate) fn state(&self, key: &StreamKey) -> State {
        let mut state = State::new();
        let mut reader = self.0.read_stream(key, Seq::ZERO);
        loop {
            match reader.next() {
                Ok(Some(frame)) => state.apply_frame(&frame).unwrap(),
                // As far as it can be read.
                Ok(None) | Err(ReadError::Damaged { .. }) => return state,
                Err(ReadError::Jump { snapshot, .. }) => {
                    let at = snapshot.unwrap();
                    snapshot::load(&mut state, &self.0.read_snapshot(&at).unwrap()).unwrap();
                    reader = self.0.read_stream(key, at.mark.position.seq);
                }
                Err(err) => panic!("{err}"),
            }
        }
    }
}

impl SnapshotSource for Folded {
    fn live(&self, key: &StreamKey) -> Option<Vec<v1::Snapshot>> {
        snapshot::extract(&self.state(key), key, Purpose::Base).unwrap()
    }

    fn mark(&self, key: &StreamKey) -> Option<Mark> {
        snapshot::folded_mark(&self.state(key), key).unwrap()
    }

    fn changes(&self, key: &StreamKey, after: Position) -> Option<Vec<v1::Snapshot>> {
        snapshot::changes(&self.state(key), key, after).unwrap()
    }
}

/// The fences as a log notes them.
pub(crate) fn noted(log: &Log) -> Fences {
    let log = log.clone();
    Fences::new(move || {
        let mut state = State::new();
        for stream in log
            .streams()
            .into_iter()
            .filter(|stream| stream.key.id.lane == Lane::Local)
        {
            let mut reader = log.read_stream(&stream.key, Seq::ZERO);
            while let Some(frame) = reader.next().unwrap() {
                state.apply_frame(&frame).unwrap();
            }
        }
        state
    })
}

pub(crate) struct Link {
    pub(crate) edge: JoinHandle<Result<(), LinkError>>,
    pub(crate) cloud: JoinHandle<Result<(), LinkError>>,
    pub(crate) stop: CancellationToken,
    pub(crate) edge_counts: Arc<Counts>,
    pub(crate) cloud_counts: Arc<Counts>,
    pub(crate) endpoints: (quinn::Endpoint, quinn::Endpoint),
}

/// Connects `edge` and `cloud`; `says` is the node the edge says it is, `cert` the one its certificate names.
pub(crate) async fn link(site: &Site, edge: &Log, cloud: &Log, says: &str, cert: &str) -> Link {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = quinn::Endpoint::server(tls::server_config(&site.cloud_files).unwrap(), any).unwrap();
    let client = quinn::Endpoint::client(any).unwrap();
    let address = server.local_addr().unwrap();
    let config = tls::client_config(&site.edge_files).unwrap();
    let stop = CancellationToken::new();
    let (edge_counts, cloud_counts) = (Arc::<Counts>::default(), Arc::<Counts>::default());
    let key = |log: &Log, scope: Scope, lane| StreamKey {
        id: StreamId::new(scope, lane),
        incarnation: log.identity().incarnation,
    };
    let node = Scope::node(cert).unwrap();
    let cloud_parts = LinkParts {
        log: cloud.clone(),
        local: site.local(cert, cloud),
        sends: vec![
            key(cloud, node, Lane::Down),
            key(cloud, Scope::cluster(), Lane::Down),
        ],
        fences: noted(cloud),
        appends: OwnAppends::default(),
        snapshots: Arc::new(Folded(cloud.clone())),
        drain: Drain::unlimited(),
        slots: ReplaySlots::new(1),
        observer: cloud_counts.clone(),
        shutdown: stop.clone(),
    };
    let says = Scope::node(says).unwrap();
    let edge_parts = LinkParts {
        log: edge.clone(),
        local: site.local(says.node_name().unwrap(), edge),
        sends: vec![
            key(edge, says.clone(), Lane::UpState),
            key(edge, says.clone(), Lane::UpData),
        ],
        fences: noted(edge),
        appends: OwnAppends::default(),
        snapshots: Arc::new(Folded(edge.clone())),
        drain: Drain::unlimited(),
        slots: ReplaySlots::new(1),
        observer: edge_counts.clone(),
        shutdown: stop.clone(),
    };
    let down = key(cloud, says, Lane::Down);
    let receives = vec![stream_state(&down, edge.durable(&down))];
    let accepting = server.clone();
    let cloud = tokio::spawn(async move {
        let connection = accepting.accept().await.unwrap().await.unwrap();
        run_cloud(connection, cloud_parts).await
    });
    let connection = client
        .connect_with(config, address, CLOUD_SERVER_NAME)
        .unwrap()
        .await
        .unwrap();
    let edge = tokio::spawn(run_edge(connection, edge_parts, receives));
    Link {
        edge,
        cloud,
        stop,
        edge_counts,
        cloud_counts,
        endpoints: (client, server),
    }
}

impl Link {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        assert!(matches!(
            self.edge.await.unwrap(),
            Err(LinkError::Shutdown | LinkError::Connection(_))
        ));
        assert!(matches!(
            self.cloud.await.unwrap(),
            Err(LinkError::Shutdown | LinkError::Connection(_))
        ));
    }
}

pub(crate) fn records(n: u64) -> Vec<v1::Record> {
    (0..n)
        .map(|n| v1::Record {
            kind: 1,
            key: format!("d/p/{n}"),
            wall_us: 1,
            ..Default::default()
        })
        .collect()
}

pub(crate) async fn append(log: &Log, scope: &str, lane: Lane, n: u64) {
    log.append(&StreamId::new(Scope::node(scope).unwrap(), lane), records(n))
        .await
        .unwrap();
}

pub(crate) fn end(log: &Log, writer: &Log, lane: Lane) -> Seq {
    let id = StreamId::new(Scope::node("edge-1").unwrap(), lane);
    let key = StreamKey {
        id,
        incarnation: writer.identity().incarnation,
    };
    log.durable(&key).map_or(Seq::ZERO, |mark| mark.position.seq)
}

pub(crate) async fn wait_until(what: &str, mut yes: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !yes() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited for {what}");
}

/// What `log` folds the stream to that `writer` writes.
pub(crate) fn folded(log: &Log, writer: &Log, lane: Lane) -> State {
    Folded(log.clone()).state(&writer.own_key(&StreamId::new(Scope::node("edge-1").unwrap(), lane)))
}
