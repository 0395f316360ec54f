//! cloudcore's settings: flags over environment over file over defaults.
//!
//! The file has KubeEdge's shape, so that an existing `cloudcore.yaml` loads as it is; what Ledge adds is in its
//! section `ledge`. Reading order: [`Args`] (flags), `keys` (what a file may hold), [`load`](Config::load).

mod args;
mod keys;
mod kubernetes;
mod load;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use args::Args;
pub use kubernetes::KubernetesAt;
pub use ledge_daemon::config::{ConfigError, LogFormat, TlsPaths};
pub use ledge_retention::budget::DiskOptions;

/// A file with every setting at its default, for `--defaultconfig`.
pub const DEFAULT_FILE: &str = include_str!("default.yaml");
/// The shortest file worth starting from, for `--minconfig`.
pub const MINIMAL_FILE: &str = include_str!("minimal.yaml");

/// What cloudcore needs to know before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directory of the log and the projections.
    pub data_dir: PathBuf,
    /// Where edges connect. Port 0 takes any free port.
    pub quic_listen: SocketAddr,
    /// Where metrics and health are served; `None` serves neither.
    pub http_listen: Option<SocketAddr>,
    /// Where the Kubernetes API is.
    pub kubernetes: KubernetesAt,
    /// What is to be told about that.
    pub kubernetes_note: Option<String>,
    /// Directory of device manifests; `None` assigns no devices.
    pub manifests: Option<PathBuf>,
    /// Certificates.
    pub tls: TlsPaths,
    /// Whether the data is an older copy that was put back on purpose.
    pub restored: bool,
    /// Heartbeat proposed to edges. A link is half-open after two missed ones.
    pub heartbeat: Duration,
    /// The log.
    pub log: LogOptions,
    /// How much of the disk may be used, and what goes when it is.
    pub disk: DiskOptions,
    /// What is logged: a level, or directives such as `info,ledge_cloud=debug`.
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Keys of the file that were accepted and do nothing in this version.
    pub without_effect: Vec<String>,
}

/// Settings of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Size of a segment file; `None`: the usual, or smaller where the disk limit is small.
    pub segment_bytes: Option<u64>,
}

impl Config {
    /// The line that tells about keys without effect, when there are any.
    pub fn without_effect_message(&self) -> Option<String> {
        ledge_daemon::config::without_effect_message(&self.without_effect)
    }
}
