//! Fresh before old, over real QUIC on a simulated line: after a week offline, state is current in the cloud within a round
//! trip, commands do not wait for the backlog, and telemetry drains within its bucket and its hours.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ledge_log::{Log, Options, SimDisk};
use ledge_proto::fold::snapshot::{self, SnapshotSource};
use ledge_proto::fold::{State, Table, view};
use ledge_proto::ids::{ClusterId, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey};
use ledge_proto::record::Payload;
use ledge_proto::session::{Local, Peer};
use ledge_proto::v1;
use ledge_replication::certs::{Authority, CLOUD_SERVER_NAME, CertFiles};
use ledge_replication::fences::Fences;
use ledge_replication::link::{
    Drain, LinkObserver, LinkParts, NoObserver, Rate, ReplaySlots, run_cloud, run_edge,
};
use ledge_replication::reset::OwnAppends;
use ledge_replication::tls;
use tokio_util::sync::CancellationToken;

const LINE: net::Line = net::Line {
    bits_per_second: 50_000.0,
    queue_bytes: 64 * 1024,
    loss: 0.2,
};
const ONE_WAY: Duration = Duration::from_millis(300);
const ROUND_TRIP: Duration = Duration::from_millis(600);
const RATE: Rate = Rate {
    bytes_per_second: 2000,
    burst: 4000,
};
const KEYS: u64 = 20;
const SEEDS: u64 = 13;
const COMMANDS: usize = 3;
const BETWEEN: Duration = Duration::from_secs(5);

fn scope() -> Scope {
    Scope::node("edge-1").unwrap()
}

fn id(lane: Lane) -> StreamId {
    StreamId::new(scope(), lane)
}

fn int(value: u64) -> Option<v1::Value> {
    Some(v1::Value {
        value: Some(v1::value::Value::Int(i64::try_from(value).unwrap())),
    })
}

fn record(key: String, payload: Payload) -> v1::Record {
    let (kind, payload) = payload.encode();
    v1::Record {
        kind,
        key,
        payload: payload.into(),
        ..Default::default()
    }
}

fn reported(n: u64) -> v1::Record {
    let key = format!("default/pump-{}/temperature", n % KEYS);
    record(key, Payload::TwinReported(v1::TwinReported { value: int(n) }))
}

fn sample(n: u64) -> v1::Record {
    let key = format!("default/pump-{}/temperature", n % KEYS);
    let mut sample = record(
        key,
        Payload::Sample(v1::Sample {
            value: int(n * 7919 % 1000),
        }),
    );
    sample.wall_us = i64::try_from(n).unwrap() * 1_000_003;
    sample
}

fn open(disk: &SimDisk, cluster: ClusterId, name: &str, seed: u64) -> Log {
    let options = Options {
        segment_bytes: 8 << 20,
        max_queue_bytes: 16 << 20,
        ..Options::deterministic(cluster, name, seed)
    };
    Log::open(Arc::new(disk.clone()), Path::new("/log"), options)
        .unwrap()
        .0
}

/// The disk of an edge that was alone for a while, and the state its records fold to.
fn alone(cluster: ClusterId, state: u64, data: u64) -> (SimDisk, State) {
    let disk = SimDisk::new();
    let log = open(&disk, cluster, "edge-1", 1);
    let fill = |lane, count, record: fn(u64) -> v1::Record| {
        for first in (0..count).step_by(4096) {
            let records = (first..count.min(first + 4096)).map(record).collect();
            log.append_blocking(&id(lane), records).unwrap();
        }
    };
    fill(Lane::UpState, state, reported);
    fill(Lane::UpData, data, sample);
    let folded = Folded::new(&log, State::new());
    let state = folded.with(&log.own_key(&id(Lane::UpState)), State::clone);
    drop(folded);
    log.close().unwrap();
    (disk, state)
}

/// The folded state of one log.
struct Folded {
    log: Log,
    state: Mutex<State>,
}

impl Folded {
    fn new(log: &Log, state: State) -> Arc<Folded> {
        Arc::new(Folded {
            log: log.clone(),
            state: Mutex::new(state),
        })
    }

    fn with<T>(&self, key: &StreamKey, use_it: impl FnOnce(&State) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let folded = ledge_proto::fold::folded_stream(&*state, &key.id).unwrap();
        let mut reader = self
            .log
            .read_stream(key, Seq(folded.map_or(0, |folded| folded.seq)));
        while let Some(frame) = reader.next().unwrap() {
            state.apply_frame(&frame).unwrap();
        }
        use_it(&state)
    }
}

impl SnapshotSource for Folded {
    fn live(&self, key: &StreamKey) -> Option<Vec<v1::Snapshot>> {
        self.with(key, |state| {
            snapshot::extract(state, key, v1::snapshot::Purpose::Base).unwrap()
        })
    }

    fn mark(&self, key: &StreamKey) -> Option<Mark> {
        self.with(key, |state| snapshot::folded_mark(state, key).unwrap())
    }

    fn changes(&self, key: &StreamKey, after: Position) -> Option<Vec<v1::Snapshot>> {
        self.with(key, |state| snapshot::changes(state, key, after).unwrap())
    }
}

/// What is known, by key of a table, and of which position.
type Known = BTreeMap<(Table, String), Position>;

fn known_of(state: &State) -> Known {
    let mut known = Known::new();
    let mut add = |table, key, position| known.insert((table, key), position);
    for (key, latest) in view::entries::<_, v1::TwinReported>(state, &scope(), Table::Reported).unwrap() {
        add(Table::Reported, key, latest.position);
    }
    for (key, latest) in view::entries::<_, v1::WriteResult>(state, &scope(), Table::WriteResults).unwrap() {
        add(Table::WriteResults, key, latest.position);
    }
    known
}

/// What happened when, in the simulation's time.
#[derive(Debug, Default)]
struct Story {
    wanted: Known,
    known: Known,
    up: Option<Duration>,
    current: Option<Duration>,
    commanded: Vec<Duration>,
    answered: Vec<Duration>,
    telemetry: Vec<(Duration, u64)>,
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap()
}

struct Cloud {
    folded: Arc<Folded>,
    story: Arc<Mutex<Story>>,
}

impl Cloud {
    fn learn(&self, known: Known) {
        let mut story = self.story.lock().unwrap();
        for (key, position) in known {
            let held = story.known.entry(key).or_insert(Position::ZERO);
            *held = (*held).max(position);
        }
        let current = story
            .wanted
            .iter()
            .all(|(key, wanted)| story.known.get(key).is_some_and(|held| held >= wanted));
        if current {
            story.current.get_or_insert_with(now);
        }
        let answers = story
            .known
            .keys()
            .filter(|(table, _)| *table == Table::WriteResults)
            .count();
        story.answered.resize_with(answers, now);
    }
}

impl LinkObserver for Cloud {
    fn hint(&self, _key: &StreamKey, parts: &[v1::Snapshot]) {
        let mut state = State::new();
        snapshot::load(&mut state, parts).unwrap();
        self.learn(known_of(&state));
    }

    fn durable(&self, key: &StreamKey, _mark: Mark) {
        if key.id.lane == Lane::UpState {
            let known = self.folded.with(key, known_of);
            self.learn(known);
        }
    }
}

struct Edge {
    log: Log,
    story: Arc<Mutex<Story>>,
}

impl LinkObserver for Edge {
    fn established(&self, _peer: &Peer) {
        self.story.lock().unwrap().up.get_or_insert_with(now);
    }

    /// A command arrived and is durable: it is carried out at once.
    fn durable(&self, _key: &StreamKey, mark: Mark) {
        let result = Payload::WriteResult(v1::WriteResult {
            value: int(1),
            ..Default::default()
        });
        let record = record(format!("default/pump-1/speed-{}", mark.position.seq), result);
        self.log
            .append_blocking(&id(Lane::UpState), vec![record])
            .unwrap();
    }

    fn sent(&self, key: &StreamKey, _records: u64, bytes: u64) {
        if key.id.lane == Lane::UpData {
            self.story.lock().unwrap().telemetry.push((now(), bytes));
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

    fn parts(&self, log: &Log, sends: Vec<Lane>, folded: Arc<Folded>) -> LinkParts {
        let key = |lane| log.own_key(&id(lane));
        LinkParts {
            log: log.clone(),
            local: Local {
                cluster: self.cluster,
                node: scope(),
                incarnation: log.identity().incarnation,
                boot_id: "boot".into(),
                labels: BTreeMap::new(),
                software: "test".into(),
                heartbeat: Duration::from_secs(15),
                heartbeat_idle: Duration::from_secs(15),
                nonce: [7; 16],
                wall_us: 0,
                receipts: None,
                archive: Default::default(),
            },
            sends: sends.into_iter().map(key).collect(),
            fences: Fences::default(),
            appends: OwnAppends::default(),
            snapshots: folded,
            drain: Drain::unlimited(),
            slots: ReplaySlots::new(1),
            observer: Arc::new(NoObserver),
            shutdown: CancellationToken::new(),
        }
    }

    /// Connects an edge that was alone to an empty cloud, and sends it commands one after the other.
    fn run(&self, (disk, state): &(SimDisk, State), drain: Drain, seed: u64) -> Story {
        let edge_log = open(&disk.after_kill(), self.cluster, "edge-1", seed);
        let cloud_log = open(&SimDisk::new(), self.cluster, "cloud", seed + 1000);
        let edge_folded = Folded::new(&edge_log, state.clone());
        let cloud_folded = Folded::new(&cloud_log, State::new());
        let state = edge_log.own_key(&id(Lane::UpState));
        let story = Arc::new(Mutex::new(Story {
            wanted: edge_folded.with(&state, known_of),
            ..Story::default()
        }));
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(3600))
            .min_message_latency(ONE_WAY)
            .max_message_latency(ONE_WAY)
            .udp_capacity(4096)
            .build();
        let cloud = LinkParts {
            observer: Arc::new(Cloud {
                folded: cloud_folded.clone(),
                story: story.clone(),
            }),
            ..self.parts(&cloud_log, vec![Lane::Down], cloud_folded)
        };
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
            drain,
            observer: Arc::new(Edge {
                log: edge_log.clone(),
                story: story.clone(),
            }),
            ..self.parts(&edge_log, vec![Lane::UpState, Lane::UpData], edge_folded)
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
        loop {
            sim.step().unwrap();
            let mut story = story.lock().unwrap();
            assert!(
                sim.elapsed() < Duration::from_secs(3000),
                "seed {seed}: {story:?}"
            );
            let Some(current) = story.current else { continue };
            let settled = sim.elapsed() > story.answered.last().unwrap_or(&current).saturating_add(BETWEEN);
            if !settled || story.answered.len() < story.commanded.len() {
                continue;
            }
            if story.commanded.len() == COMMANDS {
                break;
            }
            let desired = Payload::TwinDesired(v1::TwinDesired { value: int(1) });
            let command = record("default/pump-1/speed".into(), desired);
            cloud_log.append_blocking(&id(Lane::Down), vec![command]).unwrap();
            story.commanded.push(sim.elapsed());
        }
        std::mem::take(&mut *story.lock().unwrap())
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How long after the session began the state was current, in the median.
fn current(stories: &[Story]) -> Duration {
    let times = stories
        .iter()
        .map(|story| story.current.unwrap() - story.up.unwrap());
    median(times.collect())
}

/// How long a command took to be answered, in the median.
fn answer(stories: &[Story]) -> Duration {
    let times = stories.iter().flat_map(|story| {
        let pairs = story.answered.iter().zip(&story.commanded);
        pairs.map(|(answered, commanded)| *answered - *commanded)
    });
    median(times.collect())
}

/// 20 values changed once a minute for a week, and a million samples.
fn week(site: &Site) -> (SimDisk, State) {
    alone(site.cluster, 7 * 24 * 60 * KEYS, 1_000_000)
}

#[test]
fn after_a_week_offline_state_is_current_in_a_round_trip_and_commands_do_not_wait() {
    let site = Site::new();
    let (backlog, nothing) = (week(&site), alone(site.cluster, KEYS, 0));
    let run = |disk| -> Vec<Story> {
        let drain = || Drain::new(Some(RATE), Vec::new());
        (1..=SEEDS).map(|seed| site.run(disk, drain(), seed)).collect()
    };
    let (after, before) = (run(&backlog), run(&nothing));
    println!(
        "state current after {:?} with a backlog, {:?} without; a command answered after {:?}, {:?}",
        current(&after),
        current(&before),
        answer(&after),
        answer(&before),
    );
    // Which packets are lost depends on which are sent, so that the two cannot be compared seed by seed, and their medians
    // only roughly (see B3b for that). A round trip has 300 ms to spare for what is on the line before: two packets of 1200 bytes,
    // not a backlog.
    assert!(current(&after) <= ROUND_TRIP, "{:?}", current(&after));
    assert!(current(&before) <= ROUND_TRIP, "{:?}", current(&before));
    // The line is full, so that a lost packet is noticed later and the next one waits for its turn among those in
    // flight; it does not wait for the backlog, which takes hours.
    let ratio = answer(&after).as_secs_f64() / answer(&before).as_secs_f64();
    assert!(ratio <= 3.0, "{ratio}");
    for story in &after {
        let began = story.up.unwrap();
        let mut sent = 0;
        for (at, bytes) in &story.telemetry {
            sent += bytes;
            let allowed =
                f64::from(RATE.burst) + (*at - began).as_secs_f64() * f64::from(RATE.bytes_per_second);
            assert!(sent as f64 <= allowed + 1.0, "{sent} bytes at {at:?}");
        }
        assert!(sent > 0, "no telemetry left");
    }
}

#[test]
fn outside_its_hours_telemetry_waits_and_nothing_else_does() {
    let site = Site::new();
    let noon = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_014_400); // 12:00 UTC
    let drain = || Drain::new(None, vec!["01:00-02:00".parse().unwrap()]).with_clock(noon);
    let backlog = week(&site);
    for seed in 1..=3 {
        let story = site.run(&backlog, drain(), seed);
        assert_eq!(story.answered.len(), COMMANDS);
        assert_eq!(story.telemetry, [], "seed {seed}");
    }
}
