//! cloudcore's flags. Each can also be given in the environment, and in the file.

use std::net::SocketAddr;
use std::path::PathBuf;

use ledge_daemon::config::LogFormat;

/// The cloud part of Ledge: keeps the fleet's log, assigns devices to edges, serves their state.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "cloudcore", version, max_term_width = 110)]
pub struct Args {
    /// Configuration file (YAML, as KubeEdge's cloudcore.yaml)
    #[arg(long, value_name = "FILE", env = "LEDGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory of the log and the projections [file: ledge.dataDir] [default: /var/lib/ledge/cloudcore]
    #[arg(long, value_name = "DIR", env = "LEDGE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address edges connect to, UDP [file: modules.cloudHub.quic.address and .port] [default: 0.0.0.0:10001]
    #[arg(long, value_name = "IP:PORT", env = "LEDGE_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Address of metrics and health, or `off` [file: ledge.httpAddress] [default: 127.0.0.1:9091]
    #[arg(long, value_name = "IP:PORT", env = "LEDGE_HTTP_LISTEN")]
    pub http_listen: Option<String>,
    /// The cluster's kubeconfig. Without it, and outside a cluster, cloudcore serves a Kubernetes API of its own [file: kubeAPIConfig.kubeConfig]
    #[arg(
        long,
        value_name = "FILE",
        env = "LEDGE_KUBECONFIG",
        conflicts_with = "api_listen"
    )]
    pub kubeconfig: Option<PathBuf>,
    /// Address of that API, or `off`; its kubeconfig is written to the data directory [file: ledge.apiAddress] [default: 127.0.0.1:6443]
    #[arg(long, value_name = "IP:PORT", env = "LEDGE_API_LISTEN")]
    pub api_listen: Option<String>,
    /// Directory of Device and DeviceModel manifests [file: ledge.manifestsDir]
    #[arg(long, value_name = "DIR", env = "LEDGE_MANIFESTS")]
    pub manifests: Option<PathBuf>,
    /// The data is an older copy that was put back on purpose: nodes send again what it lacks. For one start only
    #[arg(long)]
    pub restored: bool,
    /// Certificate authority, PEM [file: modules.cloudHub.tlsCAFile]
    #[arg(long, value_name = "FILE", env = "LEDGE_CA")]
    pub ca: Option<PathBuf>,
    /// Certificate, PEM [file: modules.cloudHub.tlsCertFile]
    #[arg(long, value_name = "FILE", env = "LEDGE_CERT")]
    pub cert: Option<PathBuf>,
    /// Private key, PEM [file: modules.cloudHub.tlsPrivateKeyFile]
    #[arg(long, value_name = "FILE", env = "LEDGE_KEY")]
    pub key: Option<PathBuf>,
    /// Most the data directory may take: a size, a share of its file system such as 80%, or `none` [file: ledge.disk.limit] [default: 80%]
    #[arg(long, value_name = "LIMIT", env = "LEDGE_DISK_LIMIT")]
    pub disk_limit: Option<String>,
    /// Level, or directives such as `info,ledge_cloud=debug` [file: ledge.logLevel] [default: info]
    #[arg(long, value_name = "LEVEL", env = "LEDGE_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// Form of the log lines [file: ledge.logFormat] [default: text]
    #[arg(long, value_name = "FORMAT", env = "LEDGE_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Print a file with every setting at its default, and stop
    #[arg(long, conflicts_with = "minconfig")]
    pub defaultconfig: bool,
    /// Print the shortest file worth starting from, and stop
    #[arg(long)]
    pub minconfig: bool,
    /// Check the configuration, tell everything that is wrong with it, and stop
    #[arg(long)]
    pub check_config: bool,
}

impl Args {
    /// The file to print instead of starting, when one was asked for.
    pub fn file_to_print(&self) -> Option<&'static str> {
        match (self.defaultconfig, self.minconfig) {
            (true, _) => Some(super::DEFAULT_FILE),
            (_, true) => Some(super::MINIMAL_FILE),
            _ => None,
        }
    }
}
