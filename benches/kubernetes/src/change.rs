//! From a change in the API to an edge, with the real daemons.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use ledge_replication::certs::Authority;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::Measured;

const NODE: &str = "edge-1";
const NAME: &str = "measured";
const MARK: &str = "mark";
/// A change is at the edge within this time at the 99th percentile, from when the API answered.
const LIMIT: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn measure(changes: u32) -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir()?;
    let pki = dir.path().join("pki");
    let authority = Authority::create(&pki)?;
    authority.issue_cloud(&[], &pki)?;
    authority.issue_node(NODE, &pki)?;
    let cloud = start(
        dir.path(),
        "cloudcore",
        "cloudcore",
        &["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"],
    )
    .await?;
    let hub = cloud.word("edges on ")?;
    let edge = start(
        dir.path(),
        "edgecore",
        NODE,
        &["--cloud", &hub, "--meta-server", "127.0.0.1:0"],
    )
    .await?;
    let kubeconfig = Kubeconfig::read_from(dir.path().join("cloudcore/kubeconfig"))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let api = Client::try_from(config)?;
    let meta = format!("http://{}", edge.word("MetaServer on ")?).parse()?;
    let meta = Client::try_from(kube::Config::new(meta))?;
    let services: Api<Service> = Api::default_namespaced(api.clone());
    let service = json!({
        "metadata": {"name": NAME}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
    });
    services
        .create(&PostParams::default(), &serde_json::from_value(service)?)
        .await?;
    let mut seen_there = watch(api);
    let mut seen_at_edge = watch(meta);
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    // The first ones are not counted: connections are made, caches filled.
    for change in 0..changes + 20 {
        let mark = change.to_string();
        let patch = Patch::Merge(json!({"metadata": {"annotations": {MARK: mark}}}));
        let begun = Instant::now();
        services.patch(NAME, &PatchParams::default(), &patch).await?;
        let answered = begun.elapsed();
        let (there, at_edge) =
            tokio::try_join!(until(&mut seen_there, &mark), until(&mut seen_at_edge, &mark))?;
        if change >= 20 {
            times[0].push(answered);
            times[1].push(there - begun);
            times[2].push((at_edge - begun).saturating_sub(answered));
        }
    }
    drop((edge, cloud));
    let [answered, there, at_edge] = times.map(Percentiles::of);
    let row = json!({
        "id": "K1", "what": "a change in the API to an edge's MetaServer, over loopback, fsync on both sides", "changes": changes,
        "unit": "ms", "answered": answered.row(), "watch_of_the_api": there.row(), "edge_after_the_answer": at_edge.row(),
        "ratio_to_the_answer_p99": at_edge.p99.as_secs_f64() / answered.p99.as_secs_f64(), "limit_p99": LIMIT.as_millis(),
        "met": at_edge.p99 < LIMIT,
    });
    Ok(Measured {
        row,
        met: at_edge.p99 < LIMIT,
    })
}

/// When each mark was seen.
fn watch(client: Client) -> mpsc::Receiver<(String, Instant)> {
    let (seen, seeing) = mpsc::channel(64);
    tokio::spawn(async move {
        let api: Api<Service> = Api::default_namespaced(client);
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut stream = pin!(watcher(api, config).default_backoff().applied_objects());
        while let Some(service) = stream.next().await {
            let Ok(service) = service else { continue };
            let mark = service.metadata.annotations.and_then(|mut all| all.remove(MARK));
            if seen
                .send((mark.unwrap_or_default(), Instant::now()))
                .await
                .is_err()
            {
                return;
            }
        }
    });
    seeing
}

async fn until(seen: &mut mpsc::Receiver<(String, Instant)>, mark: &str) -> anyhow::Result<Instant> {
    let wait = async {
        loop {
            match seen.recv().await {
                Some((found, when)) if found == mark => return Ok(when),
                Some(_) => {}
                None => bail!("the watch ended"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .with_context(|| format!("change {mark} was not seen"))?
}

struct Percentiles {
    p50: Duration,
    p99: Duration,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Percentiles {
        times.sort();
        let at = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(place).copied().unwrap_or_default()
        };
        Percentiles {
            p50: at(50),
            p99: at(99),
        }
    }

    fn row(&self) -> serde_json::Value {
        json!({"p50": self.p50.as_secs_f64() * 1e3, "p99": self.p99.as_secs_f64() * 1e3})
    }
}

/// A running daemon; it ends with this.
struct Daemon {
    _child: Child,
    ready: String,
}

impl Daemon {
    /// The word after `marker` in the line it said when it was ready.
    fn word(&self, marker: &str) -> anyhow::Result<String> {
        let (_, rest) = self
            .ready
            .split_once(marker)
            .with_context(|| format!("no `{marker}` in: {}", self.ready))?;
        let word = rest.split_whitespace().next().unwrap_or_default();
        Ok(word.trim_end_matches(',').to_owned())
    }
}

async fn start(dir: &Path, program: &str, cert: &str, flags: &[&str]) -> anyhow::Result<Daemon> {
    let me = std::env::current_exe()?;
    let path = me.with_file_name(program);
    if !path.is_file() {
        bail!(
            "{} is missing: cargo build --release -p ledge-edge -p ledge-cloud",
            path.display()
        );
    }
    let pki = |file: String| -> PathBuf { dir.join("pki").join(file) };
    let mut child = Command::new(path)
        .arg("--data-dir")
        .arg(dir.join(program))
        .arg("--ca")
        .arg(pki("ca.crt".to_owned()))
        .arg("--cert")
        .arg(pki(format!("{cert}.crt")))
        .arg("--key")
        .arg(pki(format!("{cert}.key")))
        .args(["--http-listen", "off"])
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(dir.join(format!("{program}.log")))?)
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
    let Some(ready) = ready else {
        let log = std::fs::read_to_string(dir.join(format!("{program}.log")))?;
        bail!("{program} did not get ready: {log}");
    };
    Ok(Daemon { _child: child, ready })
}
