//! Where Kubernetes is: flags over the file over the environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ledge_daemon::config::{ConfigError, ConfigFile};

use super::Args;

/// Where the embedded API listens unless told otherwise.
const API_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6443);
/// KubeEdge's key.
const KUBECONFIG_KEY: &str = "kubeAPIConfig.kubeConfig";

/// Where the Kubernetes API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubernetesAt {
    /// In this process, listening here.
    Embedded(SocketAddr),
    /// A cluster's, which this kubeconfig names.
    Kubeconfig(PathBuf),
    /// Of the cluster whose pod this process is.
    InCluster,
    /// There is none.
    Nowhere,
}

/// What was decided, and what is to be told about it.
pub(super) struct Decided {
    pub at: KubernetesAt,
    pub note: Option<String>,
}

/// Decides from flags and file; `in_cluster`: whether the environment says that this process is a pod.
pub(super) fn decide(args: &Args, file: &mut ConfigFile, in_cluster: bool) -> Result<Decided, ConfigError> {
    let of_file = file.settings.text(KUBECONFIG_KEY).filter(|path| !path.is_empty());
    let flag = args.api_listen.as_deref();
    let listen = file.api_listen(flag, "ledge.apiAddress")?;
    let mut note = None;
    let at = if let Some(path) = &args.kubeconfig {
        if !path.is_file() {
            let why = format!("there is no file {}", path.display());
            return Err(ConfigError::flag("--kubeconfig", why));
        }
        KubernetesAt::Kubeconfig(path.clone())
    } else if let (Some(_), Some(Some(listen))) = (flag, listen) {
        KubernetesAt::Embedded(listen)
    } else if let Some(path) = of_file.as_deref().filter(|path| Path::new(path).is_file()) {
        KubernetesAt::Kubeconfig(path.into())
    } else {
        note = of_file.map(|path| format!("{KUBECONFIG_KEY}: there is no file {path}; going on without it"));
        match listen {
            Some(Some(listen)) => KubernetesAt::Embedded(listen),
            _ if in_cluster => KubernetesAt::InCluster,
            Some(None) => KubernetesAt::Nowhere,
            None => KubernetesAt::Embedded(API_LISTEN),
        }
    };
    Ok(Decided { at, note })
}

/// Whether the environment says that this process is a pod of a cluster.
pub(super) fn is_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        && Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").is_file()
}
