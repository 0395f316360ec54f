//! B3d: handshakes per second. B3c: what an idle connection costs the server in memory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ledge::quickstart::daemons::{Daemon, Launch};
use ledge::quickstart::site::address;
use ledge_log::Log;
use ledge_proto::ids::{Lane, Scope, StreamId, StreamKey};
use ledge_proto::session::Peer;
use ledge_replication::certs::{self, Authority, CLOUD_SERVER_NAME, CertFiles};
use ledge_replication::link::{LinkObserver, NoObserver, run_cloud, run_edge};
use ledge_replication::tls;
use quinn::{Connection, Endpoint};
use rustls_pki_types::CertificateDer;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::ends::{any, client, node_log, parts};
use super::harness::{Comparison, Plan, Row, Slice, compare, round};

/// Handshakes under way at once, each of a node of its own.
const NODES: usize = 16;
/// Nodes of B3c that connect at once.
const AT_ONCE: usize = 32;

/// A node: its certificate, its log, and the client end it dials with.
struct Node {
    tls: quinn::ClientConfig,
    endpoint: Endpoint,
    log: Log,
    scope: Scope,
}

struct Storm {
    runtime: Runtime,
    server: Endpoint,
    address: SocketAddr,
    nodes: Vec<Arc<Node>>,
    cloud: Log,
}

struct Established(Arc<Notify>);

impl LinkObserver for Established {
    fn established(&self, _peer: &Peer) {
        self.0.notify_one();
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

impl Node {
    fn new(dir: &Path, authority: &Authority, cloud: &Log, n: usize) -> anyhow::Result<Node> {
        let name = format!("edge-{n}");
        let files = authority.issue_node(&name, &dir.join("pki"))?;
        Ok(Node {
            tls: tls::client_config(&files)?,
            endpoint: client()?,
            log: node_log(&dir.join(&name), cloud.identity().cluster, &name)?,
            scope: Scope::node(&name)?,
        })
    }

    async fn connect(&self, address: SocketAddr) -> anyhow::Result<Connection> {
        let connecting = self
            .endpoint
            .connect_with(self.tls.clone(), address, CLOUD_SERVER_NAME)?;
        Ok(connecting.await?)
    }

    /// HELLO and WELCOME after the connection's handshake, then the end.
    async fn link(&self, connection: Connection) -> anyhow::Result<()> {
        let (seen, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let who = (self.scope.clone(), self.log.identity().incarnation);
        let stream = StreamKey {
            id: StreamId::new(self.scope.clone(), Lane::UpData),
            incarnation: who.1,
        };
        let edge = parts(
            &self.log,
            who,
            vec![stream],
            Arc::new(Established(seen.clone())),
            &stop,
        );
        let mut link = tokio::spawn(run_edge(connection, edge, Vec::new()));
        tokio::select! {
            () = seen.notified() => {}
            ended = &mut link => anyhow::bail!("the link was not established: {:?}", ended?),
        }
        stop.cancel();
        link.await?.ok();
        Ok(())
    }
}

impl Storm {
    fn prepare(dir: &Path) -> anyhow::Result<Storm> {
        let pki = dir.join("pki");
        let authority = Authority::create(&pki)?;
        let files = authority.issue_cloud(&[], &pki)?;
        let cloud = node_log(&dir.join("cloud"), authority.cluster(), "cloud")?;
        let runtime = runtime()?;
        let _inside = runtime.enter();
        let server = Endpoint::server(tls::server_config(&files)?, any())?;
        let nodes = (0..NODES)
            .map(|n| Ok(Arc::new(Node::new(dir, &authority, &cloud, n)?)))
            .collect::<anyhow::Result<_>>()?;
        drop(_inside);
        Ok(Storm {
            address: server.local_addr()?,
            runtime,
            server,
            nodes,
            cloud,
        })
    }

    /// Flushes of all logs so far.
    fn syncs(&self) -> u64 {
        let edges = self.nodes.iter().map(|node| node.log.stats().syncs);
        self.cloud.stats().syncs + edges.sum::<u64>()
    }

    /// Every node dials, again and again, for the length of a slice. With `linked`, both ends also greet each other.
    fn run(&self, plan: &Plan, linked: bool) -> anyhow::Result<Slice> {
        let stop = CancellationToken::new();
        let before = self.syncs();
        let slice = self.runtime.block_on(async {
            let serve = tokio::spawn(serve(
                self.server.clone(),
                linked.then(|| self.cloud.clone()),
                stop.clone(),
            ));
            plan.begin()?;
            let began = Instant::now();
            let mut dials = JoinSet::new();
            for node in &self.nodes {
                let (node, address, length) = (node.clone(), self.address, plan.slice);
                dials.spawn(async move {
                    let mut latencies = Vec::new();
                    while began.elapsed() < length {
                        let start = Instant::now();
                        let connection = node.connect(address).await?;
                        if linked {
                            node.link(connection).await?;
                        } else {
                            connection.close(0u32.into(), b"");
                        }
                        latencies.push(start.elapsed().as_secs_f64() * 1e6);
                    }
                    anyhow::Ok(latencies)
                });
            }
            let mut slice = Slice::default();
            while let Some(latencies) = dials.join_next().await {
                slice.latencies_us.extend(latencies??);
            }
            slice.busy = began.elapsed();
            plan.end()?;
            stop.cancel();
            serve.await?;
            anyhow::Ok(slice)
        })?;
        #[allow(clippy::cast_precision_loss, reason = "a count")]
        let units = slice.latencies_us.len() as f64;
        Ok(Slice { units, ..slice }.with_syncs(self.syncs() - before))
    }
}

/// Accepts until told to stop; with a log, runs the cloud's end of each link.
async fn serve(server: Endpoint, log: Option<Log>, stop: CancellationToken) {
    let mut links = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = server.accept() => incoming,
            _ = links.join_next(), if !links.is_empty() => continue,
            () = stop.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        let (log, stop) = (log.clone(), stop.clone());
        links.spawn(async move {
            let Ok(connection) = incoming.await else { return };
            match (log, node_of(&connection)) {
                (Some(log), Some(node)) => {
                    let who = (node, log.identity().incarnation);
                    let cloud = parts(&log, who, Vec::new(), Arc::new(NoObserver), &stop);
                    run_cloud(connection, cloud).await.ok();
                }
                _ => drop(connection.closed().await),
            }
        });
    }
}

/// Which node the peer's certificate names.
fn node_of(connection: &Connection) -> Option<Scope> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    certs::identity_of(chain.first()?).ok()?.node
}

pub(super) fn handshakes(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let storm = Storm::prepare(&context.dir)?;
    let row = compare(
        Comparison {
            id: "B3d".to_owned(),
            unit: "handshakes/s, both ends here",
            flush: "ours: what HELLO and WELCOME make durable; raw: none",
            target: 0.9,
        },
        context.plan,
        &mut |plan| storm.run(plan, false),
        &mut |plan| storm.run(plan, true),
    )?;
    let note = format!("{NODES} nodes at once, TLS 1.3 with certificates both ways, no resumption");
    Ok(vec![Row { note, ..row }])
}

/// Accepts connections and keeps them: the other half of B3c's raw side, run as a process of its own. Prints where it
/// listens. It ends when it is killed.
pub(super) fn serve_raw(pki: &Path) -> anyhow::Result<()> {
    let file = |name: &str| pki.join(name);
    let files = CertFiles {
        ca: file("ca.crt"),
        cert: file("cloudcore.crt"),
        key: file("cloudcore.key"),
    };
    runtime()?.block_on(async {
        let server = Endpoint::server(tls::server_config(&files)?, any())?;
        println!("listens on {} now", server.local_addr()?);
        serve(server, None, CancellationToken::new()).await;
        Ok(())
    })
}

pub(super) fn idle_memory(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let nodes = if context.plan.quick { 300 } else { 2000 };
    let pki = context.dir.join("pki");
    let authority = Authority::create(&pki)?;
    authority.issue_cloud(&[], &pki)?;
    let files = (0..nodes)
        .map(|n| Ok(authority.issue_node(&format!("edge-{n}"), &pki)?))
        .collect::<anyhow::Result<Vec<CertFiles>>>()?;
    runtime()?.block_on(async {
        let me = std::env::current_exe()?;
        let text = |path: &Path| path.display().to_string();
        let raw = Launch {
            program: me.clone(),
            args: vec!["--serve-raw".to_owned(), text(&pki)],
            log: context.dir.join("raw.log"),
            ready: "listens on",
        };
        let cloudcore = me.with_file_name("cloudcore");
        anyhow::ensure!(
            cloudcore.is_file(),
            "{} is missing: cargo build --release -p ledge-cloud",
            cloudcore.display()
        );
        let flags = [
            ("--data-dir", context.dir.join("cloudcore")),
            ("--ca", pki.join("ca.crt")),
            ("--cert", pki.join("cloudcore.crt")),
            ("--key", pki.join("cloudcore.key")),
            ("--http-listen", PathBuf::from("off")),
            // The other end serves no API either.
            ("--api-listen", PathBuf::from("off")),
            ("--listen", PathBuf::from("127.0.0.1:0")),
        ];
        let cloud = Launch {
            program: cloudcore,
            args: flags
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), text(&value)])
                .collect(),
            log: context.dir.join("cloudcore.log"),
            ready: "cloudcore ready",
        };
        let raw = idle_connections(&raw.start().await?, "listens on ", &files, None).await?;
        let log = node_log(&context.dir.join("edges"), authority.cluster(), "edges")?;
        let ours = idle_connections(&cloud.start().await?, "edges on ", &files, Some(&log)).await?;
        let ratio = ours / raw;
        let what = Comparison {
            id: "B3c".to_owned(),
            unit: "KiB resident per idle connection",
            flush: "none",
            target: 45.0,
        };
        Ok(vec![Row {
            raw: round(raw),
            ours: round(ours),
            ratio: round(ratio),
            ratio_min: round(ratio),
            met: ours <= 45.0,
            slices: 1,
            note: format!("{nodes} nodes; the target is for ours, in KiB"),
            ..Row::empty(what)
        }])
    })
}

/// Connects every node to `server`, with `log` also greets it, and tells how much the server's resident memory grew
/// per connection, KiB.
async fn idle_connections(
    server: &Daemon,
    marker: &str,
    files: &[CertFiles],
    log: Option<&Log>,
) -> anyhow::Result<f64> {
    let (target, pid) = (
        address(server, marker)?,
        server.pid().context("the server has ended")?,
    );
    let before = resident_kib(pid)?;
    let stop = CancellationToken::new();
    let endpoint = client()?;
    let (mut kept, mut links) = (Vec::new(), JoinSet::new());
    for (group, some) in files.chunks(AT_ONCE).enumerate() {
        let mut dials = Vec::new();
        for files in some {
            dials.push(endpoint.connect_with(tls::client_config(files)?, target, CLOUD_SERVER_NAME)?);
        }
        let mut greeted = Vec::new();
        for (n, dial) in dials.into_iter().enumerate() {
            let connection = dial.await?;
            kept.push(connection.clone());
            if let Some(log) = log {
                let seen = Arc::new(Notify::new());
                let node = Scope::node(&format!("edge-{}", group * AT_ONCE + n))?;
                let who = (node, log.identity().incarnation);
                let edge = parts(log, who, Vec::new(), Arc::new(Established(seen.clone())), &stop);
                links.spawn(run_edge(connection, edge, Vec::new()));
                greeted.push(seen);
            }
        }
        for seen in greeted {
            tokio::time::timeout(Duration::from_secs(10), seen.notified())
                .await
                .context("a link was not established")?;
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    anyhow::ensure!(links.try_join_next().is_none(), "a link ended");
    anyhow::ensure!(
        kept.iter().all(|connection| connection.close_reason().is_none()),
        "a connection ended"
    );
    let after = resident_kib(pid)?;
    stop.cancel();
    links.shutdown().await;
    #[allow(clippy::cast_precision_loss, reason = "kibibytes")]
    let per_connection = after.saturating_sub(before) as f64 / files.len() as f64;
    Ok(per_connection)
}

fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    crate::memory::field(&std::fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS")
}
