//! Two logs, two ends of a link over real QUIC on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledge_log::{BlockNo, DiskStorage, Log, LogView, OnDamage, Options, ReadError};
use ledge_proto::fold::State;
use ledge_proto::fold::snapshot::{self, SnapshotSource};
use ledge_proto::ids::{ClusterId, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey};
use ledge_proto::session::{Local, SessionError, stream_state};
use ledge_proto::v1::{self, snapshot::Purpose};
use ledge_replication::certs::{Authority, CLOUD_SERVER_NAME, CertFiles};
use ledge_replication::fences::Fences;
use ledge_replication::link::{Drain, LinkError, LinkObserver, LinkParts, ReplaySlots, run_cloud, run_edge};
use ledge_replication::reset::OwnAppends;
use ledge_replication::tls;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const HEARTBEAT: Duration = Duration::from_millis(200);

struct Site {
    dir: TempDir,
    authority: Authority,
    cloud_files: CertFiles,
    edge_files: CertFiles,
}

impl Site {
    fn new() -> Site {
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

    fn log(&self, name: &str) -> Log {
        self.log_of(name, self.authority.cluster())
    }

    fn log_of(&self, name: &str, cluster: ClusterId) -> Log {
        open(&self.dir.path().join(name), cluster, name)
    }

    fn local(&self, node: &str, log: &Log) -> Local {
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

fn open(dir: &Path, cluster: ClusterId, node: &str) -> Log {
    let options = Options {
        segment_bytes: 8 << 20,
        on_damage: OnDamage::Quarantine,
        ..Options::new(cluster, node.to_owned())
    };
    Log::open(Arc::new(DiskStorage), dir, options).unwrap().0
}

#[derive(Default)]
struct Counts {
    sent_records: AtomicU64,
    sent_bytes: AtomicU64,
}

impl LinkObserver for Counts {
    fn sent(&self, _key: &StreamKey, records: u64, bytes: u64) {
        self.sent_records.fetch_add(records, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Folds a log's own records whenever it is asked.
struct Folded(Log);

impl Folded {
    fn state(&self, key: &StreamKey) -> State {
        let mut state = State::new();
        let mut reader = self.0.read_stream(key, Seq::ZERO);
        loop {
            match reader.next() {
                Ok(Some(frame)) => state.apply_frame(&frame).unwrap(),
                Ok(None) => return state,
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
fn noted(log: &Log) -> Fences {
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

struct Link {
    edge: JoinHandle<Result<(), LinkError>>,
    cloud: JoinHandle<Result<(), LinkError>>,
    stop: CancellationToken,
    edge_counts: Arc<Counts>,
    cloud_counts: Arc<Counts>,
    endpoints: (quinn::Endpoint, quinn::Endpoint),
}

/// Connects `edge` and `cloud`; `says` is the node the edge says it is, `cert` the one its certificate names.
async fn link(site: &Site, edge: &Log, cloud: &Log, says: &str, cert: &str) -> Link {
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
    async fn stop(self) {
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

fn records(n: u64) -> Vec<v1::Record> {
    (0..n)
        .map(|n| v1::Record {
            kind: 1,
            key: format!("d/p/{n}"),
            wall_us: 1,
            ..Default::default()
        })
        .collect()
}

async fn append(log: &Log, scope: &str, lane: Lane, n: u64) {
    log.append(&StreamId::new(Scope::node(scope).unwrap(), lane), records(n))
        .await
        .unwrap();
}

fn end(log: &Log, writer: &Log, lane: Lane) -> Seq {
    let id = StreamId::new(Scope::node("edge-1").unwrap(), lane);
    let key = StreamKey {
        id,
        incarnation: writer.identity().incarnation,
    };
    log.durable(&key).map_or(Seq::ZERO, |mark| mark.position.seq)
}

async fn wait_until(what: &str, mut yes: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !yes() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited for {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_replicate_and_resume_sends_only_what_is_missing() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    append(&edge, "edge-1", Lane::UpData, 1000).await;
    append(&edge, "edge-1", Lane::UpState, 10).await;
    append(&cloud, "edge-1", Lane::Down, 20).await;

    let first = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("everything to arrive", || {
        end(&cloud, &edge, Lane::UpData) == Seq(1000)
            && end(&cloud, &edge, Lane::UpState) == Seq(10)
            && end(&edge, &cloud, Lane::Down) == Seq(20)
    })
    .await;
    // A live link carries new records without being asked.
    append(&edge, "edge-1", Lane::UpData, 5).await;
    append(&cloud, "edge-1", Lane::Down, 2).await;
    wait_until("live records", || {
        end(&cloud, &edge, Lane::UpData) == Seq(1005) && end(&edge, &cloud, Lane::Down) == Seq(22)
    })
    .await;
    first.stop().await;

    append(&edge, "edge-1", Lane::UpData, 7).await;
    append(&cloud, "edge-1", Lane::Down, 3).await;
    let second = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the missing records", || {
        end(&cloud, &edge, Lane::UpData) == Seq(1012) && end(&edge, &cloud, Lane::Down) == Seq(25)
    })
    .await;
    assert_eq!(second.edge_counts.sent_records.load(Ordering::Relaxed), 7);
    assert_eq!(second.cloud_counts.sent_records.load(Ordering::Relaxed), 3);
    assert!(second.edge_counts.sent_bytes.load(Ordering::Relaxed) < 1000);
    second.stop().await;
}

/// What `log` folds the stream to that `writer` writes.
fn folded(log: &Log, writer: &Log, lane: Lane) -> State {
    Folded(log.clone()).state(&writer.own_key(&StreamId::new(Scope::node("edge-1").unwrap(), lane)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_writer_no_longer_holds_arrives_as_a_snapshot_and_the_rest_as_records() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    append(&edge, "edge-1", Lane::UpState, 500).await;
    let state = edge.own_key(&StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpState));
    // Everything so far goes: segments are filled until it can.
    let filler = StreamId::new(Scope::node("filler").unwrap(), Lane::UpData);
    let mut noise = vec![0; 1 << 20];
    SmallRng::seed_from_u64(1).fill_bytes(&mut noise);
    let noise = v1::Record {
        kind: 1,
        payload: noise.into(),
        ..Default::default()
    };
    for _ in 0..9 {
        edge.append(&filler, vec![noise.clone()]).await.unwrap();
    }
    for key in [&state, &edge.own_key(&filler)] {
        let parts = Folded(edge.clone()).live(key).unwrap();
        edge.append_snapshot(parts).await.unwrap();
    }
    let oldest = edge.oldest_segment().unwrap().unwrap();
    assert_eq!(edge.recycle_before(oldest.last_block.next()).unwrap(), 1);
    append(&edge, "edge-1", Lane::UpState, 7).await;

    let first = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("everything to arrive", || {
        end(&cloud, &edge, Lane::UpState) == Seq(507)
    })
    .await;
    assert_eq!(first.edge_counts.sent_records.load(Ordering::Relaxed), 7);
    assert_eq!(
        folded(&cloud, &edge, Lane::UpState),
        folded(&edge, &edge, Lane::UpState)
    );
    first.stop().await;

    // Both go on from there.
    append(&edge, "edge-1", Lane::UpState, 3).await;
    let second = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the rest", || end(&cloud, &edge, Lane::UpState) == Seq(510)).await;
    assert_eq!(second.edge_counts.sent_records.load(Ordering::Relaxed), 3);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_far_behind_gets_what_its_desired_state_comes_to() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    // One value, wished for again and again.
    for _ in 0..20 {
        let id = StreamId::new(Scope::node("edge-1").unwrap(), Lane::Down);
        let same = v1::Record {
            key: "d/p/0".into(),
            ..records(1).remove(0)
        };
        cloud.append(&id, vec![same; 100]).await.unwrap();
    }
    let link = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the wish", || end(&edge, &cloud, Lane::Down) == Seq(2000)).await;
    assert_eq!(link.cloud_counts.sent_records.load(Ordering::Relaxed), 0);
    assert_eq!(
        folded(&edge, &cloud, Lane::Down),
        folded(&cloud, &cloud, Lane::Down)
    );
    append(&cloud, "edge-1", Lane::Down, 2).await;
    wait_until("what is wished next", || {
        end(&edge, &cloud, Lane::Down) == Seq(2002)
    })
    .await;
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_speak_for_another_and_is_told_why() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-2"), site.log("cloud"));
    append(&edge, "edge-2", Lane::UpData, 3).await;
    let link = link(&site, &edge, &cloud, "edge-2", "edge-1").await;
    let told = link.edge.await.unwrap().unwrap_err();
    let LinkError::Session(SessionError::Refused { reason, message }) = told else {
        panic!("{told}")
    };
    assert_eq!(reason, "NodeMismatch");
    assert!(
        message.contains("edge-1") && message.contains("edge-2"),
        "{message}"
    );
    assert!(cloud.streams().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_clusters_log_is_refused_and_told_why() {
    let site = Site::new();
    let (edge, cloud) = (site.log_of("edge-1", ClusterId([9; 16])), site.log("cloud"));
    append(&edge, "edge-1", Lane::UpData, 3).await;
    let link = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    let told = link.edge.await.unwrap().unwrap_err();
    assert!(
        matches!(&told, LinkError::Session(SessionError::Refused { reason, .. }) if reason == "ForeignCluster"),
        "{told}"
    );
    assert!(cloud.streams().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_falls_silent_is_given_up_within_two_heartbeats() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    append(&edge, "edge-1", Lane::UpData, 3).await;
    let link = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the first records", || end(&cloud, &edge, Lane::UpData) == Seq(3)).await;
    // The cloud's tasks stop answering; its endpoint still acknowledges packets, as a hung process' kernel would.
    link.cloud.abort();
    let ended = tokio::time::timeout(Duration::from_secs(5), link.edge)
        .await
        .expect("half-open")
        .unwrap();
    let err = ended.unwrap_err();
    assert!(
        matches!(
            err,
            LinkError::Session(SessionError::Silent(_)) | LinkError::Connection(_) | LinkError::Stream(_)
        ),
        "{err}"
    );
    drop(link.endpoints);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_gets_no_connection() {
    let (site, other) = (Site::new(), Site::new());
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = quinn::Endpoint::server(tls::server_config(&site.cloud_files).unwrap(), any).unwrap();
    let address = server.local_addr().unwrap();
    let accepted = tokio::spawn(async move { server.accept().await.unwrap().await });
    let client = quinn::Endpoint::client(any).unwrap();
    let config = tls::client_config(&other.edge_files).unwrap();
    let connected = client
        .connect_with(config, address, CLOUD_SERVER_NAME)
        .unwrap()
        .await;
    assert!(connected.is_err(), "the edge must not trust a foreign cloud");
    assert!(accepted.await.unwrap().is_err());
}

/// Flips a bit in the middle of frame `n` of a stream in the closed log `name`.
fn flip(site: &Site, name: &str, key: &StreamKey, n: usize) {
    let dir = site.dir.path().join(name);
    let view = LogView::open(Arc::new(DiskStorage), &dir).unwrap();
    let mut reader = view.read_stream(key, Seq::ZERO);
    let frame = std::iter::from_fn(|| reader.next().unwrap()).nth(n).unwrap();
    let path = dir.join(ledge_log::SegmentNo(0).file_name());
    let mut bytes = std::fs::read(&path).unwrap();
    let frame = &frame.bytes()[..];
    let at = bytes
        .windows(frame.len())
        .position(|found| found == frame)
        .unwrap();
    bytes[at + frame.len() / 2] ^= 8;
    std::fs::write(&path, bytes).unwrap();
}

/// Reads a whole log; what cannot be read is quarantined then. Returns how many stretches are.
fn read_through(log: &Log) -> usize {
    let mut reader = log.read_blocks(BlockNo::ZERO);
    while reader.position() < log.durable_block() {
        if reader.next_block().is_err() {
            reader = log.read_blocks(reader.position().next());
        }
    }
    log.quarantined().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_on_one_side_comes_back_from_the_other() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    let node = Scope::node("edge-1").unwrap();
    for _ in 0..20 {
        append(&edge, "edge-1", Lane::UpData, 3).await;
        append(&cloud, "edge-1", Lane::Down, 2).await;
    }
    append(&edge, "edge-1", Lane::UpState, 1).await;
    let first = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("everything to arrive", || {
        end(&cloud, &edge, Lane::UpData) == Seq(60)
            && end(&cloud, &edge, Lane::UpState) == Seq(1)
            && end(&edge, &cloud, Lane::Down) == Seq(40)
    })
    .await;
    // Each in a block of its own, in the cloud too.
    for n in 1..4 {
        append(&edge, "edge-1", Lane::UpData, 3).await;
        wait_until("three more", || {
            end(&cloud, &edge, Lane::UpData) == Seq(60 + 3 * n)
        })
        .await;
    }
    first.stop().await;
    let data = edge.own_key(&StreamId::new(node.clone(), Lane::UpData));
    let down = cloud.own_key(&StreamId::new(node, Lane::Down));
    edge.close().unwrap();
    cloud.close().unwrap();
    // Its own and the other's stream on either side.
    flip(&site, "edge-1", &data, 4);
    flip(&site, "edge-1", &down, 7);
    flip(&site, "cloud", &down, 11);
    flip(&site, "cloud", &data, 21);

    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    assert!(read_through(&edge) >= 2 && read_through(&cloud) >= 2);
    let second = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("what was lost", || {
        edge.quarantined().is_empty() && cloud.quarantined().is_empty()
    })
    .await;
    append(&edge, "edge-1", Lane::UpData, 5).await;
    wait_until("new records", || end(&cloud, &edge, Lane::UpData) == Seq(74)).await;
    second.stop().await;
    for (log, name) in [(edge, "edge-1"), (cloud, "cloud")] {
        assert_eq!(log.stats().damaged, 0, "{name}");
        log.close().unwrap();
        let report = ledge_log::verify(&DiskStorage, &site.dir.path().join(name)).unwrap();
        assert!(report.is_sound(), "{name}: {:?}", report.findings);
    }
}
