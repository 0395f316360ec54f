//! A list of many pods, whole and in parts.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::Measured;
use crate::figures::{Percentiles, cpu, rounded};
use crate::plan::Plan;
use crate::servers::{RawServer, SKIPPED, Server};
use crate::wire::{Connection, Endpoint, JSON};

const COLLECTION: &str = "/api/v1/namespaces/default/pods";
/// As many as kubectl asks for at once.
const PART: usize = 500;
/// Our own target for the whole list: no slower than encoding the same JSON. A list in parts is encoded no more often, but
/// asked for in as many requests.
const TARGET: f64 = 1.0;
const AT_ONCE: u32 = 32;

struct Side {
    pids: Vec<u32>,
    connection: Connection,
    times: [Vec<Duration>; 2],
    cpu: [Duration; 2],
    bytes: usize,
}

pub(crate) async fn measure(plan: &Plan) -> anyhow::Result<Vec<Measured>> {
    let (ours, real, raw) = (
        Server::ours().await?,
        Server::real().await?,
        RawServer::start().await?,
    );
    fill(&ours.endpoint()?, plan.pods).await?;
    let mut our_side = Side::new(&ours.endpoint()?, ours.pids.clone()).await?;
    let mut raw_side = Side::new(&raw.endpoint, vec![raw.pid]).await?;
    let list = our_side.connection.get(COLLECTION).await?;
    let listed: Value = serde_json::from_slice(&list)?;
    ensure!(
        listed["items"]
            .as_array()
            .is_some_and(|items| items.len() == plan.pods as usize),
        "not every pod is listed"
    );
    drop(listed);
    raw_side.connection.ask("POST", "/hold", JSON, list).await?;
    let mut real_side = match &real {
        Some(real) => {
            fill(&real.endpoint()?, plan.pods).await?;
            Some(Side::new(&real.endpoint()?, real.pids.clone()).await?)
        }
        None => None,
    };
    for round in 0..=plan.lists {
        raw_side.round(round, 0, "/list").await?;
        for side in [Some(&mut our_side), real_side.as_mut()].into_iter().flatten() {
            side.round(round, 0, COLLECTION).await?;
            side.round(round, 1, COLLECTION).await?;
        }
    }
    let whole = row(plan, 0, &raw_side, &our_side, real_side.as_ref());
    let parts = row(plan, 1, &raw_side, &our_side, real_side.as_ref());
    Ok(vec![whole, parts])
}

fn row(plan: &Plan, form: usize, raw: &Side, ours: &Side, real: Option<&Side>) -> Measured {
    let (raw_times, our_times) = (raw.percentiles(0), ours.percentiles(form));
    let ratio = raw_times.p50 / our_times.p50;
    let met = form == 1 || ratio >= TARGET;
    let of_real = real.map_or(SKIPPED.into(), |side| {
        let times = side.percentiles(form);
        json!({
            "p50": rounded(times.p50), "p99": rounded(times.p99), "mb": rounded(side.bytes as f64 / 1e6),
            "processor_ms": side.processor_ms(form), "ours_is_faster_by": rounded(times.p50 / our_times.p50),
        })
    });
    let (id, what) = match form {
        0 => ("K4-whole", "a list of pods, whole"),
        _ => ("K4-parts", "the same list in parts of 500"),
    };
    let mut row = json!({
        "id": id, "what": what, "pods": plan.pods, "lists": plan.lists,
        "mb": rounded(ours.bytes as f64 / 1e6), "unit": "ms", "flush": "nothing is written",
        "raw": raw_times.row(), "ours": our_times.row(), "ratio": rounded(ratio),
        "processor_ms": {"raw": raw.processor_ms(0), "ours": ours.processor_ms(form)}, "kube_apiserver": of_real,
    });
    if form == 0 {
        row["target"] = TARGET.into();
        row["met"] = met.into();
    }
    Measured { row, met }
}

/// Pods of nobody: no scheduler takes them.
fn pod(number: u32) -> Bytes {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{number:05}"), "labels": {"app": "measured", "part": (number % 10).to_string()}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "app", "image": "example.org/app:1", "args": ["--serve"],
                "env": [{"name": "PLACE", "value": "edge"}], "ports": [{"containerPort": 8080}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            }],
        },
    })
    .to_string()
    .into()
}

async fn fill(endpoint: &Endpoint, pods: u32) -> anyhow::Result<()> {
    let work = (0..AT_ONCE).map(|first| async move {
        let mut connection = endpoint.connect().await?;
        for number in (first..pods).step_by(AT_ONCE as usize) {
            connection.ask("POST", COLLECTION, JSON, pod(number)).await?;
        }
        anyhow::Ok(())
    });
    stream::iter(work)
        .buffer_unordered(AT_ONCE as usize)
        .try_collect()
        .await
}

impl Side {
    async fn new(endpoint: &Endpoint, pids: Vec<u32>) -> anyhow::Result<Side> {
        Ok(Side {
            pids,
            connection: endpoint.connect().await?,
            times: Default::default(),
            cpu: Default::default(),
            bytes: 0,
        })
    }

    /// One list: `form` 0 is whole, 1 in parts.
    async fn round(&mut self, round: u32, form: usize, path: &str) -> anyhow::Result<()> {
        self.connection.open_again().await?;
        let used = cpu(&self.pids)?;
        let begun = Instant::now();
        if form == 0 {
            self.bytes = self.connection.get(path).await?.len();
        } else {
            let mut token = String::new();
            loop {
                let part = self
                    .connection
                    .get(&format!("{path}?limit={PART}&continue={token}"))
                    .await?;
                match continue_of(&part)? {
                    Some(next) => token = next,
                    None => break,
                }
            }
        }
        let took = begun.elapsed();
        // The first one fills caches.
        if round > 0 {
            self.times[form].push(took);
            self.cpu[form] += cpu(&self.pids)?.saturating_sub(used);
        }
        Ok(())
    }

    fn percentiles(&self, form: usize) -> Percentiles {
        Percentiles::of_times(&self.times[form])
    }

    fn processor_ms(&self, form: usize) -> f64 {
        rounded(self.cpu[form].as_secs_f64() * 1e3 / self.times[form].len() as f64)
    }
}

/// The token for the next part, found without reading the items: they would cost the client more than the server.
fn continue_of(part: &[u8]) -> anyhow::Result<Option<String>> {
    const NAME: &[u8] = b"\"continue\":\"";
    let items = find(part, b"\"items\":[").context("no list")?;
    let Some(at) = find(&part[..items], NAME) else {
        return Ok(None);
    };
    let rest = &part[at + NAME.len()..];
    let end = find(rest, b"\"").context("a token without an end")?;
    let token = String::from_utf8(rest[..end].to_vec())?;
    Ok(Some(token).filter(|token| !token.is_empty()))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
