//! B3b: how long after a reconnect with a backlog the node's current state is known to the cloud, against one round trip
//! and one fdatasync.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ledge_log::Log;
use ledge_projection::{Follower, Options, Projection};
use ledge_proto::ids::{ClusterId, Lane, Scope, StreamId, StreamKey};
use ledge_proto::record::{Payload, property_key};
use ledge_proto::v1;
use ledge_replication::certs::{Authority, CLOUD_SERVER_NAME};
use ledge_replication::link::{LinkObserver, LinkParts, run_cloud, run_edge};
use ledge_replication::{link::NoObserver, tls};
use quinn::{Connection, Endpoint};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::ends::{any, client, node_log, parts};
use super::harness::{Comparison, Plan, Row, Slice, compare};
use super::usage::Usage;
use super::workload::RawFile;

const CLUSTER: ClusterId = ClusterId([1; 16]);
const DEVICES: u32 = 100;
const PER_APPEND: u32 = 4096;
/// One in so many records of the backlog is a report; the others are samples.
const SAMPLES_PER_REPORT: u32 = 9;

struct Bench {
    runtime: Runtime,
    server: Endpoint,
    client: Endpoint,
    address: SocketAddr,
    tls: quinn::ClientConfig,
    edge: Log,
    folded: Arc<Projection>,
    dir: std::path::PathBuf,
    clouds: u32,
    raw: RawFile,
}

/// Tells when the values of `up.state` have arrived.
struct Arrived(Arc<Notify>);

impl LinkObserver for Arrived {
    fn hint(&self, key: &StreamKey, _parts: &[v1::Snapshot]) {
        if key.id.lane == Lane::UpState {
            self.0.notify_one();
        }
    }
}

pub(super) fn state(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (id, backlog) in [("B3b-10k", 10_000), ("B3b-1M", 1_000_000)] {
        if !context.wants(id) {
            continue;
        }
        let mut bench = Bench::prepare(&context.dir.join(id), backlog)?;
        let shared = std::cell::RefCell::new(&mut bench);
        let row = compare(
            Comparison {
                id: id.to_owned(),
                unit: "per second, one after the other",
                flush: "ours: what HELLO, WELCOME and CONFIRM make durable on both sides; raw: one fdatasync",
                target: 1.0 / 1.2,
            },
            context.plan,
            &mut |plan| shared.borrow_mut().raw(plan),
            &mut |plan| shared.borrow_mut().ours(plan),
        )?;
        let note = format!(
            "from the connection's handshake until current values of {DEVICES} properties are at the other end; a backlog of \
             {backlog} records"
        );
        rows.push(Row { note, ..row });
    }
    Ok(rows)
}

fn record(n: u32, report: bool) -> v1::Record {
    let value = Some(v1::Value {
        value: Some(v1::value::Value::Double(f64::from(n % 977))),
    });
    let payload = if report {
        Payload::TwinReported(v1::TwinReported { value })
    } else {
        Payload::Sample(v1::Sample { value })
    };
    let (kind, payload) = payload.encode();
    v1::Record {
        kind,
        key: property_key("default", &format!("pump-{}", n % DEVICES), "temperature"),
        wall_us: 1_767_225_600_000_000 + i64::from(n) * 1000,
        mono_us: 5_000_000 + u64::from(n) * 1000,
        boot: 1,
        payload: payload.into(),
        ..Default::default()
    }
}

impl Bench {
    fn prepare(dir: &Path, backlog: u32) -> anyhow::Result<Bench> {
        let pki = dir.join("pki");
        let authority = Authority::create(&pki)?;
        let cloud = authority.issue_cloud(&[], &pki)?;
        let node = authority.issue_node("edge-1", &pki)?;
        let edge = node_log(&dir.join("edge"), CLUSTER, "edge-1")?;
        let scope = Scope::node("edge-1")?;
        for (lane, count) in [
            (Lane::UpState, backlog / (SAMPLES_PER_REPORT + 1)),
            (Lane::UpData, backlog - backlog / (SAMPLES_PER_REPORT + 1)),
        ] {
            let stream = StreamId::new(scope.clone(), lane);
            for first in (0..count).step_by(PER_APPEND as usize) {
                let records =
                    (first..count.min(first + PER_APPEND)).map(|n| record(n, lane == Lane::UpState));
                edge.append_blocking(&stream, records.collect())?;
            }
        }
        let (projection, _) = Projection::open(&dir.join("projection"), &edge, &Options::edge())?;
        Follower::catch_up(&edge, &projection, || false)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let inside = runtime.enter();
        let server = Endpoint::server(tls::server_config(&cloud)?, any())?;
        let client = client()?;
        drop(inside);
        Ok(Bench {
            address: server.local_addr()?,
            runtime,
            server,
            client,
            tls: tls::client_config(&node)?,
            edge,
            folded: Arc::new(projection),
            raw: RawFile::create(&dir.join("raw"), 8 << 20)?,
            dir: dir.to_owned(),
            clouds: 0,
        })
    }

    /// Both ends of a new connection.
    async fn connect(&self) -> anyhow::Result<(Connection, Connection)> {
        let accept = async { anyhow::Ok(self.server.accept().await.context("no connection")?.await?) };
        let dial = self
            .client
            .connect_with(self.tls.clone(), self.address, CLOUD_SERVER_NAME)?;
        tokio::try_join!(accept, async { Ok(dial.await?) })
    }

    /// A request, a sector made durable, and the answer.
    fn raw(&mut self, plan: &Plan) -> anyhow::Result<Slice> {
        let mut slice = Slice::default();
        let block = vec![7; 4096];
        while slice.busy < plan.slice {
            let (cloud, edge) = self.runtime.block_on(self.connect())?;
            plan.begin()?;
            let used = Usage::now();
            let raw = &mut self.raw;
            let took = self.runtime.block_on(async {
                let began = Instant::now();
                let ask = async {
                    let (mut send, mut receive) = edge.open_bi().await?;
                    send.write_all(&[1; 64]).await?;
                    receive.read_exact(&mut [0; 64]).await?;
                    anyhow::Ok(began.elapsed())
                };
                let answer = async {
                    let (mut send, mut receive) = cloud.accept_bi().await?;
                    receive.read_exact(&mut [0; 64]).await?;
                    raw.append(&block)?;
                    send.write_all(&[2; 64]).await?;
                    anyhow::Ok(())
                };
                Ok::<_, anyhow::Error>(tokio::try_join!(ask, answer)?.0)
            })?;
            let used = Usage::now() - used;
            plan.end()?;
            edge.close(0u32.into(), b"");
            add(&mut slice, took, used);
        }
        Ok(slice.with_syncs(self.raw.take_syncs()))
    }

    /// Links to a cloud that knows nothing of the node yet.
    fn ours(&mut self, plan: &Plan) -> anyhow::Result<Slice> {
        let mut slice = Slice::default();
        let mut syncs = 0;
        while slice.busy < plan.slice {
            self.clouds += 1;
            let edge_syncs = self.edge.stats().syncs;
            let dir = self.dir.join(format!("cloud-{}", self.clouds));
            let cloud = node_log(&dir, CLUSTER, "cloud")?;
            let (seen, stop) = (Arc::new(Notify::new()), CancellationToken::new());
            let scope = Scope::node("edge-1")?;
            let incarnation = self.edge.identity().incarnation;
            let stream = |lane| StreamKey {
                id: StreamId::new(scope.clone(), lane),
                incarnation,
            };
            let sends = vec![stream(Lane::UpState), stream(Lane::UpData)];
            let edge_parts = LinkParts {
                snapshots: self.folded.clone(),
                ..parts(
                    &self.edge,
                    (scope.clone(), incarnation),
                    sends,
                    Arc::new(NoObserver),
                    &stop,
                )
            };
            let who = (scope, cloud.identity().incarnation);
            let cloud_parts = parts(&cloud, who, Vec::new(), Arc::new(Arrived(seen.clone())), &stop);
            let (cloud_end, edge_end) = self.runtime.block_on(self.connect())?;
            plan.begin()?;
            let used = Usage::now();
            let took = self.runtime.block_on(async {
                let began = Instant::now();
                let serve = tokio::spawn(run_cloud(cloud_end, cloud_parts));
                let mut dial = tokio::spawn(run_edge(edge_end, edge_parts, Vec::new()));
                let took = tokio::select! {
                    () = seen.notified() => began.elapsed(),
                    ended = &mut dial => {
                        anyhow::bail!("the link ended: {:?}; the cloud's end: {:?}", ended?, serve.await?)
                    }
                    () = tokio::time::sleep(Duration::from_secs(20)) => anyhow::bail!("no state within 20 s"),
                };
                stop.cancel();
                dial.await?.ok();
                serve.await?.ok();
                anyhow::Ok(took)
            })?;
            let used = Usage::now() - used;
            plan.end()?;
            syncs += cloud.stats().syncs + self.edge.stats().syncs - edge_syncs;
            cloud.close()?;
            std::fs::remove_dir_all(&dir)?;
            add(&mut slice, took, used);
        }
        Ok(slice.with_syncs(syncs))
    }
}

fn add(slice: &mut Slice, took: Duration, used: Usage) {
    slice.usage = Some(slice.usage.unwrap_or_default() + used);
    slice.units += 1.0;
    slice.busy += took;
    slice.latencies_us.push(took.as_secs_f64() * 1e6);
}
