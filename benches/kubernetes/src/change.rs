//! From a change in the API to an edge, with the real daemons.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use crate::Measured;
use crate::daemons::{self, NODE, PATIENCE};
use crate::figures::{Percentiles, rounded};
use crate::raw::Appended;
use crate::servers::config_of;

const NAME: &str = "measured";
const MARK: &str = "mark";
/// A change is at the edge within this time at the 99th percentile, from when the API answered.
const LIMIT: Duration = Duration::from_millis(20);
/// The first ones are not counted: connections are made, caches filled.
const WARM_UP: u32 = 20;
/// What a change costs at least: the API's record, the one for nodes, and the same at the edge, each after the other.
const APPENDS: usize = 3;

pub(crate) async fn measure(changes: u32) -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir()?;
    daemons::certificates(dir.path())?;
    let cloud = daemons::cloudcore(dir.path()).await?;
    let hub = cloud.word("edges on ")?;
    let flags = ["--cloud", &hub, "--meta-server", "127.0.0.1:0"];
    let edge = daemons::start(dir.path(), "edgecore", NODE, &flags).await?;
    let api = Client::try_from(config_of(&dir.path().join("cloudcore/kubeconfig")).await?)?;
    let meta = format!("http://{}", edge.word("MetaServer on ")?).parse()?;
    let meta = Client::try_from(kube::Config::new(meta))?;
    let services: Api<Service> = Api::default_namespaced(api.clone());
    let service = json!({
        "metadata": {"name": NAME}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
    });
    let created = services
        .create(&PostParams::default(), &serde_json::from_value(service)?)
        .await?;
    let record = serde_json::to_vec(&created)?;
    let mut file = Appended::create(&dir.path().join("appended"), 16 << 20)?;
    let mut seen_there = watch(api);
    let mut seen_at_edge = watch(meta);
    let mut times: [Vec<Duration>; 5] = Default::default();
    for change in 0..changes + WARM_UP {
        let mark = change.to_string();
        let patch = Patch::Merge(json!({"metadata": {"annotations": {MARK: mark}}}));
        let begun = Instant::now();
        services.patch(NAME, &PatchParams::default(), &patch).await?;
        let answered = begun.elapsed();
        let (there, at_edge) =
            tokio::try_join!(until(&mut seen_there, &mark), until(&mut seen_at_edge, &mark))?;
        let appending = Instant::now();
        let bytes = record.clone();
        file = tokio::task::spawn_blocking(move || {
            for _ in 0..APPENDS {
                file.append(&bytes)?;
            }
            anyhow::Ok(file)
        })
        .await??;
        if change >= WARM_UP {
            let from_request = at_edge - begun;
            let from_answer = from_request.saturating_sub(answered);
            let all = [
                answered,
                there - begun,
                from_answer,
                from_request,
                appending.elapsed(),
            ];
            for (times, time) in times.iter_mut().zip(all) {
                times.push(time);
            }
        }
    }
    drop((edge, cloud));
    let [answered, there, from_answer, from_request, appends] =
        times.map(|times| Percentiles::of_times(&times));
    let limit_ms = LIMIT.as_secs_f64() * 1e3;
    let met = from_answer.p99 <= limit_ms;
    let row = json!({
        "id": "K1", "what": "a change in the API to an edge's MetaServer, over loopback", "changes": changes,
        "flush": "fdatasync of each record at both ends, before it is answered or sent",
        "unit": "ms", "answered": answered.row(), "watch_of_the_api": there.row(),
        "edge_from_answer": from_answer.row(), "edge_from_request": from_request.row(), "three_synced_appends": appends.row(),
        "limit_p99": limit_ms, "ratio_to_limit_from_answer": rounded(from_answer.p99 / limit_ms),
        "ratio_to_limit_from_request": rounded(from_request.p99 / limit_ms),
        "ratio_to_appends_p50": rounded(from_request.p50 / appends.p50),
        "ratio_to_appends_p99": rounded(from_request.p99 / appends.p99),
        "met": met, "met_from_request": from_request.p99 <= limit_ms,
    });
    Ok(Measured { row, met })
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
