//! A line that is cut in the middle of a transfer, both ways and then one way, over real QUIC on a simulated network:
//! what arrives is what was written, once and in order, and only what is missing is sent again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledge_log::{Log, Options, SimDisk};
use ledge_proto::ids::{ClusterId, Lane, Scope, Seq, StreamId, StreamKey};
use ledge_proto::session::{Local, Peer};
use ledge_proto::v1;
use ledge_replication::certs::{Authority, CLOUD_SERVER_NAME, CertFiles};
use ledge_replication::fences::Fences;
use ledge_replication::link::{
    Drain, LinkObserver, LinkParts, NoObserver, NoSnapshots, ReplaySlots, run_cloud, run_edge,
};
use ledge_replication::reset::OwnAppends;
use ledge_replication::tls;
use tokio_util::sync::CancellationToken;

const LINE: net::Line = net::Line {
    bits_per_second: 400_000.0,
    queue_bytes: 64 * 1024,
    loss: 0.02,
};
const ONE_WAY: Duration = Duration::from_millis(40);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long a cut lasts: longer than it takes to be noticed.
const CUT: Duration = Duration::from_secs(15);
const FRAMES: u64 = 300;
const PER_FRAME: u64 = 10;
const RECORDS: u64 = FRAMES * PER_FRAME;

fn scope() -> Scope {
    Scope::node("edge-1").unwrap()
}

fn id(lane: Lane) -> StreamId {
    StreamId::new(scope(), lane)
}

/// A record that does not compress to nothing.
fn record(n: u64) -> v1::Record {
    let noise = (0..12u64).flat_map(|i| {
        (n * 12 + i)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(23)
            .to_le_bytes()
    });
    v1::Record {
        kind: 1,
        key: format!("d/p/{n}"),
        payload: noise.collect::<Vec<u8>>().into(),
        ..Default::default()
    }
}

fn open(cluster: ClusterId, name: &str, seed: u64) -> Log {
    let options = Options {
        segment_bytes: 8 << 20,
        ..Options::deterministic(cluster, name, seed)
    };
    Log::open(Arc::new(SimDisk::new()), Path::new("/log"), options)
        .unwrap()
        .0
}

fn end(log: &Log, key: &StreamKey) -> u64 {
    log.durable(key).map_or(0, |mark| mark.position.seq.0)
}

/// One session, as the edge saw it.
#[derive(Debug)]
struct Session {
    /// What the cloud held of the telemetry when it began.
    held: u64,
    /// Records of it sent.
    sent: u64,
}

struct Edge {
    cloud: Log,
    data: StreamKey,
    sessions: Arc<Mutex<Vec<Session>>>,
}

impl LinkObserver for Edge {
    fn established(&self, _peer: &Peer) {
        let held = end(&self.cloud, &self.data);
        self.sessions.lock().unwrap().push(Session { held, sent: 0 });
    }

    fn sent(&self, key: &StreamKey, records: u64, _bytes: u64) {
        if *key == self.data {
            self.sessions.lock().unwrap().last_mut().unwrap().sent += records;
        }
    }
}

struct Site {
    _dir: tempfile::TempDir,
    cluster: ClusterId,
    cloud: CertFiles,
    edge: CertFiles,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("pki")).unwrap();
        Site {
            cluster: authority.cluster(),
            cloud: authority.issue_cloud(&[], &dir.path().join("pki")).unwrap(),
            edge: authority.issue_node("edge-1", &dir.path().join("pki")).unwrap(),
            _dir: dir,
        }
    }

    fn parts(&self, log: &Log, lanes: &[Lane]) -> LinkParts {
        LinkParts {
            log: log.clone(),
            local: Local {
                cluster: self.cluster,
                node: scope(),
                incarnation: log.identity().incarnation,
                boot_id: "boot".into(),
                labels: BTreeMap::new(),
                software: "test".into(),
                heartbeat: HEARTBEAT,
                heartbeat_idle: HEARTBEAT,
                nonce: [7; 16],
                wall_us: 0,
                receipts: None,
                archive: Default::default(),
            },
            sends: lanes.iter().map(|lane| log.own_key(&id(*lane))).collect(),
            fences: Fences::default(),
            appends: OwnAppends::default(),
            snapshots: Arc::new(NoSnapshots),
            drain: Drain::unlimited(),
            slots: ReplaySlots::new(1),
            observer: Arc::new(NoObserver),
            shutdown: CancellationToken::new(),
        }
    }

    /// Runs a transfer that is cut twice; returns every frame the cloud took, and the sessions it took.
    fn run(&self, seed: u64) -> (Vec<Vec<u8>>, Vec<Session>) {
        let (edge_log, cloud_log) = (
            open(self.cluster, "edge-1", seed),
            open(self.cluster, "cloud", seed + 1000),
        );
        for frame in 0..FRAMES {
            let records = (0..PER_FRAME).map(|n| record(frame * PER_FRAME + n)).collect();
            edge_log.append_blocking(&id(Lane::UpData), records).unwrap();
        }
        let data = edge_log.own_key(&id(Lane::UpData));
        let sessions = Arc::<Mutex<Vec<Session>>>::default();
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(600))
            .min_message_latency(ONE_WAY)
            .max_message_latency(ONE_WAY)
            .udp_capacity(4096)
            .build();
        let cloud = self.parts(&cloud_log, &[Lane::Down]);
        let server = tls::server_config(&self.cloud).unwrap();
        sim.host("cloud", move || {
            let (cloud, server) = (cloud.clone(), server.clone());
            async move {
                let endpoint = net::endpoint(10001, LINE, seed * 2, Some(server)).await;
                while let Some(incoming) = endpoint.accept().await {
                    let cloud = cloud.clone();
                    tokio::spawn(async move {
                        if let Ok(connection) = incoming.await {
                            run_cloud(connection, cloud).await.ok();
                        }
                    });
                }
                Ok(())
            }
        });
        let edge = LinkParts {
            observer: Arc::new(Edge {
                cloud: cloud_log.clone(),
                data: data.clone(),
                sessions: sessions.clone(),
            }),
            ..self.parts(&edge_log, &[Lane::UpState, Lane::UpData])
        };
        let client = tls::client_config(&self.edge).unwrap();
        sim.host("edge", move || {
            let (edge, client) = (edge.clone(), client.clone());
            async move {
                let endpoint = net::endpoint(9999, LINE, seed * 2 + 1, None).await;
                loop {
                    let to = (turmoil::lookup("cloud"), 10001).into();
                    let connecting = endpoint.connect_with(client.clone(), to, CLOUD_SERVER_NAME)?;
                    if let Ok(connection) = connecting.await {
                        run_edge(connection, edge.clone(), Vec::new()).await.ok();
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
        // In the middle of the transfer nothing passes; later, nothing the edge says.
        let until = |sim: &mut turmoil::Sim<'_>, records: u64| {
            while end(&cloud_log, &data) < records {
                sim.step().unwrap();
                assert!(sim.elapsed() < Duration::from_secs(500), "seed {seed}");
            }
        };
        until(&mut sim, RECORDS / 4);
        sim.partition("edge", "cloud");
        let arrived = pass(&mut sim, &cloud_log, &data);
        assert!(
            arrived < RECORDS / 2,
            "seed {seed}: {arrived} arrived over a line that was cut"
        );
        sim.repair("edge", "cloud");
        until(&mut sim, RECORDS / 2);
        sim.partition_oneway("edge", "cloud");
        let arrived = pass(&mut sim, &cloud_log, &data);
        assert!(
            arrived < RECORDS,
            "seed {seed}: {arrived} arrived over a line that was cut"
        );
        sim.repair_oneway("edge", "cloud");
        until(&mut sim, RECORDS);
        assert_eq!(cloud_log.durable(&data), edge_log.durable(&data), "seed {seed}");
        let frames = |log: &Log| {
            let mut reader = log.read_stream(&data, Seq::ZERO);
            let frames = std::iter::from_fn(|| reader.next().unwrap());
            frames.map(|frame| frame.bytes().to_vec()).collect::<Vec<_>>()
        };
        assert!(frames(&cloud_log) == frames(&edge_log), "seed {seed}");
        let sessions = std::mem::take(&mut *sessions.lock().unwrap());
        (frames(&cloud_log), sessions)
    }
}

/// Lets a cut last; returns what of the stream has arrived.
fn pass(sim: &mut turmoil::Sim<'_>, log: &Log, key: &StreamKey) -> u64 {
    let until = sim.elapsed() + CUT;
    while sim.elapsed() < until {
        sim.step().unwrap();
    }
    end(log, key)
}

#[test]
fn a_line_that_is_cut_loses_doubles_and_reorders_nothing() {
    let site = Site::new();
    for seed in 1..=2 {
        let (frames, sessions) = site.run(seed);
        assert!(sessions.len() >= 3, "seed {seed}: {sessions:?}");
        for (n, session) in sessions.iter().enumerate() {
            let missing = RECORDS - session.held;
            assert!(session.sent <= missing, "seed {seed}: {sessions:?}");
            if n + 1 == sessions.len() {
                assert_eq!(session.sent, missing, "seed {seed}: {sessions:?}");
                assert!(session.held >= RECORDS / 2, "seed {seed}: {sessions:?}");
            }
        }
        let (again, _) = site.run(seed);
        assert!(frames == again, "seed {seed}: not the same twice");
    }
}
