//! edgecore's settings: flags over environment over file over defaults.
//!
//! The file has KubeEdge's shape, so that an existing `edgecore.yaml` loads as it is; what Ledge adds is in its
//! section `ledge`. Reading order: [`Args`] (flags), `keys` (what a file may hold), [`load`](Config::load).

mod args;
mod keys;
mod labels;
mod load;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use args::Args;
use ledge_replication::link::{Hours, Rate};

use crate::twin::Unchanged;

pub use ledge_daemon::config::{ConfigError, LogFormat, TlsPaths};
pub use ledge_retention::budget::DiskOptions;

/// A file with every setting at its default, for `--defaultconfig`.
pub const DEFAULT_FILE: &str = include_str!("default.yaml");
/// The shortest file worth starting from, for `--minconfig`.
pub const MINIMAL_FILE: &str = include_str!("minimal.yaml");

/// What edgecore needs to know before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node's name; `None` takes it from the certificate.
    pub node_name: Option<String>,
    /// Directory of the log and the projections.
    pub data_dir: PathBuf,
    /// Where cloudcore listens, `HOST:PORT`; `None` runs without a cloud.
    pub cloud: Option<String>,
    /// Name asked for in cloudcore's certificate; `None` asks for `cloudcore`, which every one made by `ledge cert` has.
    pub server_name: Option<String>,
    /// Certificates.
    pub tls: TlsPaths,
    /// Where metrics and health are served; `None` serves neither.
    pub http_listen: Option<SocketAddr>,
    /// MetaServer; `None` turns it off.
    pub meta_server: Option<ledge_metaserver::Config>,
    /// Heartbeat until cloudcore proposes another. A link is half-open after two missed ones.
    pub heartbeat: Duration,
    /// Ceiling of the first wait before dialling again; it doubles with every attempt that fails.
    pub backoff_first: Duration,
    /// Where that ceiling stops.
    pub backoff_longest: Duration,
    /// How fast telemetry leaves.
    pub drain: DrainOptions,
    /// How long a device's value that stays the same is not told again.
    pub unchanged: Unchanged,
    /// The log.
    pub log: LogOptions,
    /// How much of the disk may be used, and what goes when it is.
    pub disk: DiskOptions,
    /// Labels this node reports.
    pub labels: BTreeMap<String, String>,
    /// What is logged: a level, or directives such as `info,ledge_edge=debug`.
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Keys of the file that were accepted and do nothing in this version.
    pub without_effect: Vec<String>,
}

/// How fast telemetry leaves, and when. State and commands are never held back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainOptions {
    /// `None`: as fast as the link takes it.
    pub rate: Option<Rate>,
    /// Parts of the day in which it may leave, UTC; none stand for the whole day.
    pub hours: Vec<Hours>,
}

/// Settings of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Size of a segment file; `None`: the usual, or smaller where the disk limit is small.
    pub segment_bytes: Option<u64>,
    /// How long a record of `up.state` may wait for others before it is synced to disk.
    pub linger_state: Duration,
    /// How long a record of `up.data` may wait for others before it is synced to disk.
    pub linger_data: Duration,
}

impl Config {
    /// The line that tells about keys without effect, when there are any.
    pub fn without_effect_message(&self) -> Option<String> {
        ledge_daemon::config::without_effect_message(&self.without_effect)
    }
}
