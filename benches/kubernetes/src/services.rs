//! Many services, many nodes: written once for all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::PostParams;
use kube::{Api, Client};
use ledge_apiserver::embedded::{Config, Embedded, Limits};
use ledge_apiserver::local::Local;
use ledge_controllers::Controllers;
use ledge_controllers::links::{Link, Links};
use ledge_controllers::told::Told;
use ledge_log::{DiskStorage, Log, Options};
use ledge_projection::{Follower, Projection};
use ledge_proto::fold::{Table, folded_stream, view};
use ledge_proto::ids::{ClusterId, Lane, Scope, StreamId};
use ledge_proto::v1;
use ledge_replication::reset::OwnAppends;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Measured;

const PATIENCE: Duration = Duration::from_secs(120);
/// Requests at once.
const AT_ONCE: usize = 32;

/// Nobody is connected.
#[derive(Debug, Default)]
struct NoLinks(watch::Sender<u64>);

impl Links for NoLinks {
    fn link(&self, _: &Scope) -> Option<Link> {
        None
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

pub(crate) async fn measure(services: u32, nodes: u32) -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir()?;
    let options = Options::new(ClusterId([7; 16]), "cloud".to_owned());
    let (log, _) = Log::open(Arc::new(DiskStorage), &dir.path().join("log"), options)?;
    let cloud = ledge_projection::Options::cloud();
    let (projection, _) = Projection::open(&dir.path().join("projection"), &log, &cloud)?;
    Follower::catch_up(&log, &projection, || false)?;
    let config = Config {
        listen: "127.0.0.1:0".parse()?,
        names: Vec::new(),
        data_dir: dir.path().to_owned(),
        limits: Limits::default(),
    };
    let embedded = Embedded::open(config, log.clone(), &projection, &[]).await?;
    let follower = Follower::start(log.clone(), projection.clone());
    let client = Client::new(Local::privileged(embedded.api().clone(), "bench"), "default");
    let told = Told {
        log: log.clone(),
        projection,
        appends: OwnAppends::default(),
    };
    let controllers = Controllers {
        client: client.clone(),
        told: told.clone(),
        every_node: true,
        links: Arc::new(NoLinks::default()),
    };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(controllers.run(shutdown.clone()));
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let params = PostParams::default();
    for node in 0..nodes {
        let pod = json!({
            "metadata": {"name": format!("pod-{node}")},
            "spec": {"nodeName": format!("node-{node}"), "containers": [{"name": "c", "image": "example.org/app:1"}]},
        });
        pods.create(&params, &serde_json::from_value(pod)?).await?;
    }
    let scopes = (0..nodes)
        .map(|node| Scope::node(&format!("node-{node}")))
        .collect::<Result<Vec<_>, _>>()?;
    until(&told, || {
        Ok(scopes
            .iter()
            .all(|scope| head(&told, scope).is_ok_and(|head| head > 0)))
    })
    .await?;
    let of_nodes = || -> anyhow::Result<u64> { scopes.iter().map(|scope| head(&told, scope)).sum() };
    let (before_nodes, before) = (of_nodes()?, head(&told, &Scope::cluster())?);
    let begun = Instant::now();
    let api: Api<Service> = Api::default_namespaced(client);
    let (api, params) = (&api, &params);
    let creations = (0..services).map(|number| async move {
        let service = json!({
            "metadata": {"name": format!("service-{number}")},
            "spec": {"clusterIP": "None", "selector": {"app": "a"}, "ports": [{"port": 80}]},
        });
        api.create(params, &serde_json::from_value(service)?).await?;
        anyhow::Ok(())
    });
    stream::iter(creations)
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    let made = begun.elapsed();
    until(&told, || {
        let entries =
            view::entries::<_, v1::KubeObject>(&told.view(), &Scope::cluster(), Table::KubeObjects)?;
        let there = entries
            .iter()
            .filter(|(key, _)| key.starts_with("/services/default/service-"))
            .count();
        Ok(there == services as usize)
    })
    .await?;
    let all_told = begun.elapsed();
    let records = head(&told, &Scope::cluster())? - before + of_nodes()? - before_nodes;
    shutdown.cancel();
    running.await?;
    follower.stop()?;
    let each = u64::from(services) * u64::from(nodes);
    let met = records <= u64::from(services);
    let row = json!({
        "id": "K2", "what": "services to nodes: records told, beside one for each service and node", "services": services, "nodes": nodes,
        "records": records, "one_for_each": each, "seconds_made": made.as_secs_f64(), "seconds_told": all_told.as_secs_f64(),
        "limit": services, "met": met,
    });
    Ok(Measured { row, met })
}

fn head(told: &Told, scope: &Scope) -> anyhow::Result<u64> {
    let folded = folded_stream(&told.view(), &StreamId::new(scope.clone(), Lane::Down))?;
    Ok(folded.map_or(0, |folded| folded.seq))
}

async fn until(told: &Told, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut applied = told.projection.subscribe();
    while !holds()? {
        ensure!(Instant::now() < deadline, "not told within {PATIENCE:?}");
        tokio::time::timeout(Duration::from_secs(1), applied.changed())
            .await
            .ok();
    }
    Ok(())
}
