//! edgecore's flags. Each can also be given in the environment, and in the file.

use std::path::PathBuf;

use ledge_daemon::config::LogFormat;

/// The edge part of Ledge: collects from devices, keeps everything in its log, and works with or without the cloud.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "edgecore", version, max_term_width = 110)]
pub struct Args {
    /// Configuration file (YAML, as KubeEdge's edgecore.yaml)
    #[arg(long, value_name = "FILE", env = "LEDGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory of the log and the projections [file: ledge.dataDir] [default: /var/lib/ledge/edgecore]
    #[arg(long, value_name = "DIR", env = "LEDGE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where cloudcore listens; none: run without a cloud [file: modules.edgeHub.quic.server]
    #[arg(long, value_name = "HOST:PORT", env = "LEDGE_CLOUD")]
    pub cloud: Option<String>,
    /// This node's name [file: modules.edged.hostnameOverride] [default: the name in the certificate]
    #[arg(long, value_name = "NAME", env = "LEDGE_NODE_NAME")]
    pub node_name: Option<String>,
    /// Certificate authority, PEM [file: modules.edgeHub.tlsCaFile]
    #[arg(long, value_name = "FILE", env = "LEDGE_CA")]
    pub ca: Option<PathBuf>,
    /// Certificate, PEM [file: modules.edgeHub.tlsCertFile]
    #[arg(long, value_name = "FILE", env = "LEDGE_CERT")]
    pub cert: Option<PathBuf>,
    /// Private key, PEM [file: modules.edgeHub.tlsPrivateKeyFile]
    #[arg(long, value_name = "FILE", env = "LEDGE_KEY")]
    pub key: Option<PathBuf>,
    /// Address of metrics and health, or `off` [file: ledge.httpAddress] [default: 127.0.0.1:9600]
    #[arg(long, value_name = "IP:PORT", env = "LEDGE_HTTP_LISTEN")]
    pub http_listen: Option<String>,
    /// Address of MetaServer, the node's Kubernetes API, or `off` [file: modules.metaManager.metaServer.server] [default: 127.0.0.1:10550]
    #[arg(long, value_name = "IP:PORT", env = "LEDGE_META_SERVER")]
    pub meta_server: Option<String>,
    /// Labels this node reports, instead of those in the file [file: modules.edged.nodeLabels]
    #[arg(long, value_name = "KEY=VALUE,…", env = "LEDGE_LABELS")]
    pub labels: Option<String>,
    /// Most the data directory may take: a size, a share of its file system such as 80%, or `none` [file: ledge.disk.limit] [default: 80%]
    #[arg(long, value_name = "LIMIT", env = "LEDGE_DISK_LIMIT")]
    pub disk_limit: Option<String>,
    /// Level, or directives such as `info,ledge_edge=debug` [file: ledge.logLevel] [default: info]
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
