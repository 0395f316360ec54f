//! B3a: from one log to another over QUIC, acknowledged after fsync, against a raw QUIC stream.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use ledge_log::Log;
use ledge_log::storage::sim::Rng;
use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::{Incarnation, Mark, Scope, Seq, StreamKey};
use ledge_replication::certs::{Authority, CLOUD_SERVER_NAME, CertFiles};
use ledge_replication::link::{LinkObserver, NoObserver, run_cloud, run_edge};
use ledge_replication::tls;
use quinn::Endpoint;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::ends::parts;
use super::harness::{Comparison, Plan, Row, Slice, compare};
use super::workload::{give_up, key, open, open_keeping, payload};

const CHUNK: usize = 256 * 1024;
const RECORDS: u32 = 1024;

struct Bench {
    /// Of the edge's end, on the thread that measures.
    runtime: Runtime,
    cloud: OwnThread,
    server: Endpoint,
    client: Endpoint,
    address: SocketAddr,
    tls: quinn::ClientConfig,
    source: Log,
    target: Log,
    /// One stream per slice: a stream can be replicated once.
    streams: Vec<(StreamKey, u64, u64)>,
    next: usize,
}

pub(super) fn replicate(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (id, compressible, target) in [("B3a-wire", false, 0.80), ("B3a-logical", true, 2.4)] {
        if !context.wants(id) {
            continue;
        }
        let dir = context.dir.join(id);
        // Warm-up, and two slices a round; each transfers one stream.
        let slices = context.plan.rounds * 2 + 1;
        // Long enough that the handshake and the last, delayed acknowledgement (25 ms) do not decide.
        let mib = match (context.plan.quick, compressible) {
            (true, _) => 32,
            (false, false) => 128,
            (false, true) => 384,
        };
        let mut bench = prepare(&dir, slices, mib, compressible)?;
        let bytes = mib << 20;
        let comparison = Comparison {
            id: id.to_owned(),
            unit: if compressible {
                "GB/s before compression"
            } else {
                "GB/s on the wire"
            },
            flush: "ours: fdatasync on the receiving side before the acknowledgement; raw: none",
            target,
        };
        let shared = std::cell::RefCell::new(&mut bench);
        let row = compare(
            comparison,
            context.plan,
            &mut |plan| shared.borrow_mut().raw(plan, bytes),
            &mut |plan| shared.borrow_mut().ours(plan, compressible),
        )?;
        rows.push(row);
    }
    Ok(rows)
}

fn prepare(dir: &Path, slices: usize, mib: usize, compressible: bool) -> anyhow::Result<Bench> {
    let pki = dir.join("pki");
    let authority = Authority::create(&pki)?;
    let cloud: CertFiles = authority.issue_cloud(&[], &pki)?;
    let edge = authority.issue_node("edge-1", &pki)?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = {
        let _inside = runtime.enter();
        Endpoint::client(any)?
    };
    let own_thread = OwnThread::start()?;
    let server = {
        let _inside = own_thread.handle.enter();
        Endpoint::server(tls::server_config(&cloud)?, any)?
    };
    let source = open(&dir.join("source"))?;
    let mut streams = Vec::new();
    for slice in 0..slices {
        streams.push(fill(&source, slice, mib << 20, compressible)?);
    }
    let target = open_keeping(&dir.join("target"), 64)?;
    // More than will be written: blocks are padded, segments end with an index.
    let enough = streams.iter().map(|(_, _, bytes)| bytes).sum::<u64>() * 5 / 4;
    warm(&target, enough)?;
    let address = server.local_addr()?;
    let tls = tls::client_config(&edge)?;
    Ok(Bench {
        runtime,
        cloud: own_thread,
        server,
        client,
        address,
        tls,
        source,
        target,
        streams,
        next: 0,
    })
}

/// One stream of about `bytes` bytes before compression.
fn fill(log: &Log, slice: usize, bytes: usize, compressible: bool) -> anyhow::Result<(StreamKey, u64, u64)> {
    let incarnation = Incarnation([u8::try_from(slice)?; 16]);
    let stream = StreamKey {
        incarnation,
        ..key(1)
    };
    let mut writer = FrameWriter::new(stream.clone());
    let mut rng = Rng::new(slice as u64);
    let (mut raw, mut stored) = (0, 0);
    let noise = payload(&mut rng, RECORDS, 208);
    let samples = samples(&mut rng);
    while raw < bytes {
        let body = if compressible { &samples } else { &noise };
        let frame = writer.frame(RECORDS, body)?;
        raw += body.len();
        stored += frame.bytes().len() as u64;
        log.append_frame_blocking(frame)?;
    }
    Ok((stream, raw as u64, stored))
}

/// Samples as a mapper writes them: four properties of a few devices, values that move a little.
fn samples(rng: &mut Rng) -> Vec<u8> {
    use ledge_proto::record::Payload;
    use ledge_proto::v1;
    let mut out = Vec::new();
    let mut wall_us = 1_760_000_000_000_000;
    for n in 0..RECORDS {
        wall_us += 250_000;
        let mut step = [0; 1];
        rng.fill(&mut step);
        let value = 20.0 + f64::from(n % 4) * 10.0 + f64::from(step[0] % 16) / 10.0;
        let sample = v1::Sample {
            value: Some(v1::Value {
                value: Some(v1::value::Value::Double(value)),
            }),
        };
        let (kind, payload) = Payload::Sample(sample).encode();
        let record = v1::Record {
            kind,
            key: format!(
                "default/pump-{}/{}",
                n / 4 % 8,
                ["temperature", "pressure", "humidity", "flow"][n as usize % 4]
            ),
            wall_us,
            clock: 1,
            mono_us: 1_000_000 + u64::from(n) * 250_000,
            boot: 3,
            payload: payload.into(),
            ..Default::default()
        };
        ledge_proto::frame::push_record(&mut out, &record);
    }
    out
}

/// Leaves the target with enough segments that were written once, as a log that has run for a while has.
fn warm(target: &Log, bytes: u64) -> anyhow::Result<()> {
    let stream = StreamKey {
        incarnation: Incarnation([0xff; 16]),
        ..key(2)
    };
    let mut writer = FrameWriter::new(stream);
    let noise = payload(&mut Rng::new(7), RECORDS, 208);
    let mut written = 0;
    while written < bytes {
        let frame = writer.frame(RECORDS, &noise)?;
        written += frame.bytes().len() as u64;
        target.append_frame_blocking(frame)?;
    }
    give_up(target)
}

/// A runtime of one thread. Each end has its own, as the two programs do: a thread of both would send and receive in
/// turn, and two threads of both would pass the work to and fro.
struct OwnThread {
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl OwnThread {
    fn start() -> std::io::Result<OwnThread> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("cloud".to_owned())
            .spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(OwnThread {
            handle,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Acked(watch::Sender<Seq>);

impl LinkObserver for Acked {
    fn peer_durable(&self, _key: &StreamKey, mark: Mark) {
        self.0.send_replace(mark.position.seq);
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

impl Bench {
    /// One unidirectional stream of `bytes` bytes in chunks of 256 KiB; over when the receiver has them all.
    fn raw(&mut self, plan: &Plan, bytes: usize) -> anyhow::Result<Slice> {
        let (server, client, tls, address) = (
            self.server.clone(),
            self.client.clone(),
            self.tls.clone(),
            self.address,
        );
        let busy = self.runtime.block_on(async {
            let receive = self.cloud.handle.spawn(async move {
                let connection = server.accept().await.context("no connection")?.await?;
                let mut stream = connection.accept_uni().await?;
                let mut bufs = vec![Bytes::new(); 32];
                let mut got = 0;
                while let Some(n) = stream.read_chunks(&mut bufs).await? {
                    got += bufs[..n].iter().map(Bytes::len).sum::<usize>();
                }
                connection.close(0u32.into(), b"");
                anyhow::Ok(got)
            });
            let connection = client.connect_with(tls, address, CLOUD_SERVER_NAME)?.await?;
            let chunk = Bytes::from(vec![0x5a; CHUNK]);
            plan.begin()?;
            let began = Instant::now();
            let mut stream = connection.open_uni().await?;
            for _ in 0..bytes / CHUNK {
                stream.write_chunk(chunk.clone()).await?;
            }
            stream.finish()?;
            let got = receive.await??;
            let busy = began.elapsed();
            plan.end()?;
            anyhow::ensure!(got == bytes, "{got} of {bytes} bytes arrived");
            anyhow::Ok(busy)
        })?;
        Ok(slice(bytes as u64, busy))
    }

    /// One stream of the source log into the target log; over when the last record is acknowledged.
    fn ours(&mut self, plan: &Plan, logical: bool) -> anyhow::Result<Slice> {
        let (stream, raw, stored) = self
            .streams
            .get(self.next)
            .cloned()
            .context("no stream is left")?;
        self.next += 1;
        let syncs_before = self.target.stats().syncs;
        let last = self
            .source
            .durable(&stream)
            .context("an empty stream")?
            .position
            .seq;
        let (acked, mut seen) = watch::channel(Seq::ZERO);
        let stop = CancellationToken::new();
        let who = (stream.id.scope.clone(), stream.incarnation);
        let cloud = parts(&self.target, who.clone(), Vec::new(), Arc::new(NoObserver), &stop);
        let edge = parts(
            &self.source,
            who,
            vec![stream.clone()],
            Arc::new(Acked(acked)),
            &stop,
        );
        debug_assert!(stream.id.scope != Scope::cluster());
        let (server, client, tls, address) = (
            self.server.clone(),
            self.client.clone(),
            self.tls.clone(),
            self.address,
        );
        let busy = self.runtime.block_on(async {
            let serve = self.cloud.handle.spawn(async move {
                let connection = server.accept().await.context("no connection")?.await?;
                anyhow::Ok(run_cloud(connection, cloud).await)
            });
            let connection = client.connect_with(tls, address, CLOUD_SERVER_NAME)?.await?;
            plan.begin()?;
            let began = Instant::now();
            let dial = tokio::spawn(run_edge(connection, edge, Vec::new()));
            tokio::time::timeout(Duration::from_secs(60), seen.wait_for(|seq| *seq >= last))
                .await
                .context("not acknowledged within a minute")??;
            let busy = began.elapsed();
            plan.end()?;
            stop.cancel();
            dial.await?.ok();
            serve.await??.ok();
            anyhow::Ok(busy)
        })?;
        let syncs = self.target.stats().syncs - syncs_before;
        Ok(slice(if logical { raw } else { stored }, busy).with_syncs(syncs))
    }
}

fn slice(bytes: u64, busy: Duration) -> Slice {
    Slice {
        units: giga(bytes),
        busy,
        ..Slice::default()
    }
    .of_bytes(1e9)
}
