//! Who is measured: cloudcore's embedded API, a real API server with its etcd where there is one, and the raw server.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};
use ledge_cloud_testing::real::{Durability, Programs, Real};
use tempfile::TempDir;
use tokio::process::Command;

use crate::daemons::{self, Daemon};
use crate::wire::Endpoint;

/// What a row says where there is no real API server.
pub(crate) const SKIPPED: &str = "skipped: LEDGE_KUBE_APISERVER and LEDGE_ETCD name no programs";

/// A Kubernetes API, for as long as this is there.
pub(crate) struct Server {
    pub(crate) config: kube::Config,
    pub(crate) pids: Vec<u32>,
    /// What ends with this: ours, or the real one.
    _ours: Option<(Daemon, TempDir)>,
    _real: Option<Real>,
}

impl Server {
    /// cloudcore with the embedded API; it syncs what it answers.
    pub(crate) async fn ours() -> anyhow::Result<Server> {
        let dir = tempfile::tempdir()?;
        daemons::certificates(dir.path())?;
        let daemon = daemons::cloudcore(dir.path()).await?;
        let config = config_of(&dir.path().join("cloudcore/kubeconfig")).await?;
        Ok(Server {
            config,
            pids: vec![daemon.pid()?],
            _ours: Some((daemon, dir)),
            _real: None,
        })
    }

    /// The real one, where there is one; its etcd syncs what it answers.
    pub(crate) async fn real() -> anyhow::Result<Option<Server>> {
        let named = |name| std::env::var_os(name).filter(|path| !path.is_empty());
        let (Some(apiserver), Some(etcd)) = (named("LEDGE_KUBE_APISERVER"), named("LEDGE_ETCD")) else {
            return Ok(None);
        };
        let programs = Programs {
            apiserver: apiserver.into(),
            etcd: etcd.into(),
        };
        let real = Real::start(&programs, Durability::Synced).await;
        Ok(Some(Server {
            config: config_of(real.kubeconfig()).await?,
            pids: vec![real.pids().apiserver, real.pids().etcd],
            _ours: None,
            _real: Some(real),
        }))
    }

    pub(crate) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        Endpoint::of(&self.config)
    }
}

/// The raw server, for as long as this is there.
pub(crate) struct RawServer {
    pub(crate) endpoint: Endpoint,
    pub(crate) pid: u32,
    _daemon: Daemon,
    _dir: TempDir,
}

impl RawServer {
    pub(crate) async fn start() -> anyhow::Result<RawServer> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("raw").arg(dir.path());
        let daemon = Daemon::start(&mut command, &dir.path().join("log")).await?;
        let config = config_of(&dir.path().join("kubeconfig")).await?;
        Ok(RawServer {
            endpoint: Endpoint::of(&config)?,
            pid: daemon.pid()?,
            _daemon: daemon,
            _dir: dir,
        })
    }
}

pub(crate) async fn config_of(kubeconfig: &Path) -> anyhow::Result<kube::Config> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}
