//! One change, many watches.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::Measured;
use crate::daemons::PATIENCE;
use crate::figures::{Percentiles, cpu, rounded};
use crate::plan::Plan;
use crate::servers::{RawServer, SKIPPED, Server};
use crate::wire::{Connection, Endpoint, JSON, MERGE};

/// A part of what the raw server does: our own target, nobody's promise.
const TARGET: f64 = 0.5;
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
const OBJECT: &str = "/api/v1/namespaces/default/configmaps/measured";
/// Connections that are opened at once.
const AT_ONCE: usize = 50;

/// One of those that are measured, with all its watches open.
struct Side {
    pids: Vec<u32>,
    control: Connection,
    /// How a change is asked for.
    method: &'static str,
    path: &'static str,
    media: &'static str,
    seen: mpsc::UnboundedReceiver<usize>,
    watchers: u32,
    /// Closes the watches when it is dropped.
    _watching: JoinSet<()>,
    times: Vec<Duration>,
    cpu: Duration,
}

pub(crate) async fn measure(plan: &Plan) -> anyhow::Result<Measured> {
    let (ours, real, raw) = (
        Server::ours().await?,
        Server::real().await?,
        RawServer::start().await?,
    );
    let mut our_side = Side::of_api(&ours, plan.watchers).await?;
    // The line that a watch of ours gives is what the raw server writes.
    let line = line_of(&ours).await?;
    let mut raw_side = Side::open(&raw.endpoint, vec![raw.pid], "/watch", plan.watchers).await?;
    (raw_side.method, raw_side.path, raw_side.media) = ("POST", "/write", JSON);
    let mut real_side = match &real {
        Some(real) => Some(Side::of_api(real, plan.watchers).await?),
        None => None,
    };
    // One round more than is counted: everything has been used once.
    for round in 0..=plan.rounds {
        raw_side.round(round, line.clone()).await?;
        our_side.round(round, marked(round)).await?;
        if let Some(side) = &mut real_side {
            side.round(round, marked(round)).await?;
        }
    }
    let (raw_times, our_times) = (raw_side.percentiles(), our_side.percentiles());
    let ratio = raw_times.p50 / our_times.p50;
    let met = ratio >= TARGET;
    let of_real = match real_side {
        Some(side) => {
            let times = side.percentiles();
            let mut row = side.row();
            row["ours_is_faster_by"] = rounded(times.p50 / our_times.p50).into();
            row
        }
        None => SKIPPED.into(),
    };
    // It is counted in steps of 10 ms: a short run may have none.
    let cpu_ratio = raw_side.cpu.as_secs_f64() / our_side.cpu.as_secs_f64();
    let cpu_ratio = match cpu_ratio.is_finite() {
        true => rounded(cpu_ratio).into(),
        false => Value::from("too short to say"),
    };
    let row = json!({
        "id": "K3", "what": "a change until the last of its watches has it, each on a TLS connection of its own",
        "watchers": plan.watchers, "rounds": plan.rounds, "line_bytes": line.len(), "unit": "ms",
        "flush": "fdatasync of the record before anybody is told, on every side",
        "raw": raw_side.row(), "ours": our_side.row(), "ratio": rounded(ratio),
        "ratio_of_processor_time": cpu_ratio,
        "kube_apiserver": of_real, "target": TARGET, "met": met,
    });
    Ok(Measured { row, met })
}

fn marked(round: u32) -> Bytes {
    json!({"metadata": {"annotations": {"mark": format!("{round:08}")}}})
        .to_string()
        .into()
}

/// What a watch says of one change, with its line break.
async fn line_of(server: &Server) -> anyhow::Result<Bytes> {
    let (found, finding) = watch::channel(Bytes::new());
    let connection = server.endpoint()?.connect().await?;
    let path = format!("{COLLECTION}?watch=true&fieldSelector=metadata.name=measured");
    let watching = connection.lines(&path, |line| {
        found.send_replace([line, b"\n"].concat().into());
        false
    });
    tokio::time::timeout(PATIENCE, watching).await??;
    let line = finding.borrow().clone();
    Ok(line)
}

impl Side {
    async fn of_api(server: &Server, watchers: u32) -> anyhow::Result<Side> {
        let endpoint = server.endpoint()?;
        let mut control = endpoint.connect().await?;
        let data = "x".repeat(512);
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "measured"}, "data": {"text": data}});
        let created = control
            .ask("POST", COLLECTION, JSON, object.to_string().into())
            .await?;
        let created: Value = serde_json::from_slice(&created)?;
        let version = created["metadata"]["resourceVersion"]
            .as_str()
            .context("no version")?;
        let path =
            format!("{COLLECTION}?watch=true&resourceVersion={version}&fieldSelector=metadata.name=measured");
        Side::open(&endpoint, server.pids.clone(), &path, watchers).await
    }

    /// Opens all watches. Their answers have begun when this returns.
    async fn open(endpoint: &Endpoint, pids: Vec<u32>, path: &str, watchers: u32) -> anyhow::Result<Side> {
        let (tell, seen) = mpsc::unbounded_channel();
        let connections: Vec<Connection> = stream::iter(0..watchers)
            .map(|_| endpoint.connect())
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut watching = JoinSet::new();
        for connection in connections {
            let (tell, path) = (tell.clone(), path.to_owned());
            watching.spawn(async move {
                // A watch that ends is missed by the round.
                connection
                    .lines(&path, |line| tell.send(line.len()).is_ok())
                    .await
                    .ok();
            });
        }
        Ok(Side {
            pids,
            control: endpoint.connect().await?,
            method: "PATCH",
            path: OBJECT,
            media: MERGE,
            seen,
            watchers,
            _watching: watching,
            times: Vec::new(),
            cpu: Duration::ZERO,
        })
    }

    /// One change, until every watch has it.
    async fn round(&mut self, round: u32, body: Bytes) -> anyhow::Result<()> {
        if round == 0 {
            // Requests of watches that have just been sent are taken up.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.control.open_again().await?;
        let used = cpu(&self.pids)?;
        let begun = Instant::now();
        let Side {
            control,
            seen,
            watchers,
            ..
        } = self;
        let all = async {
            for _ in 0..*watchers {
                if seen.recv().await.is_none() {
                    bail!("the watches ended");
                }
            }
            Ok(begun.elapsed())
        };
        let both = async { tokio::try_join!(control.ask(self.method, self.path, self.media, body), all) };
        let (_, took) = tokio::time::timeout(PATIENCE, both)
            .await
            .context("not every watch has seen the change")??;
        if round > 0 {
            self.times.push(took);
            self.cpu += cpu(&self.pids)?.saturating_sub(used);
        }
        Ok(())
    }

    fn percentiles(&self) -> Percentiles {
        Percentiles::of_times(&self.times)
    }

    fn row(&self) -> Value {
        let lines = f64::from(self.watchers) * self.times.len() as f64;
        let mut row = self.percentiles().row();
        row["processor_us_per_line"] = rounded(self.cpu.as_secs_f64() * 1e6 / lines).into();
        row
    }
}
