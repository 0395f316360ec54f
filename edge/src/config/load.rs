//! From flags and file to [`Config`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ledge_daemon::config::{ConfigFile, Shape};
use ledge_proto::ids::Scope;
use ledge_replication::link::{Hours, Rate};

use crate::twin::Unchanged;

use super::{Args, Config, ConfigError, DrainOptions, LogOptions, keys, labels};

const SHAPE: Shape = Shape {
    versions: &[
        "edgecore.config.kubeedge.io/v1alpha2",
        "edgecore.config.kubeedge.io/v1alpha1",
    ],
    kind: "EdgeCore",
    sections: keys::SECTIONS,
};

const DATA_DIR: &str = "/var/lib/ledge/edgecore";
const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9600);
const HEARTBEAT: Duration = Duration::from_secs(15);
const LINGER_DATA: Duration = Duration::from_millis(100);
const LINGER_MAX: Duration = Duration::from_secs(10);
const UNCHANGED: Duration = Duration::from_secs(5 * 60);
const UNCHANGED_MAX: Duration = Duration::from_secs(24 * 3600);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LONGEST: Duration = Duration::from_secs(32);

const SERVER: &str = "modules.edgeHub.quic.server";
const SCHEDULE: &str = "ledge.hub.drain.schedule";
const NODE_NAME: &str = "modules.edged.hostnameOverride";

impl Config {
    /// Reads the file named by `args`, if any, and lets the flags win over it.
    ///
    /// # Errors
    /// When the file cannot be read, or when it or a flag is wrong. Every mistake of the file is in the error.
    pub fn load(args: &Args) -> Result<Config, ConfigError> {
        Config::read(args, ConfigFile::open(args.config.as_deref(), &SHAPE)?)
    }

    /// As [`Config::load`], with the file already read. `path` is for messages.
    ///
    /// # Errors
    /// When the text or a flag is wrong.
    pub fn from_text(args: &Args, path: &Path, text: &str) -> Result<Config, ConfigError> {
        Config::read(args, ConfigFile::from_text(path, text, &SHAPE)?)
    }

    fn read(args: &Args, mut file: ConfigFile) -> Result<Config, ConfigError> {
        let (backoff_first, backoff_longest) = backoff(&mut file);
        Ok(Config {
            node_name: node_name(args, &mut file)?,
            data_dir: file.path(args.data_dir.as_deref(), "ledge.dataDir", DATA_DIR),
            cloud: cloud(args, &mut file)?,
            server_name: file.settings.text("ledge.serverName"),
            tls: file.tls(
                [args.ca.as_deref(), args.cert.as_deref(), args.key.as_deref()],
                [
                    "modules.edgeHub.tlsCaFile",
                    "modules.edgeHub.tlsCertFile",
                    "modules.edgeHub.tlsPrivateKeyFile",
                ],
            ),
            http_listen: file.http_listen(
                args.http_listen.as_deref(),
                &["ledge.httpAddress"],
                HTTP_LISTEN,
            )?,
            heartbeat: file.heartbeat("modules.edgeHub.heartbeat", HEARTBEAT),
            backoff_first,
            backoff_longest,
            drain: drain(&mut file),
            unchanged: unchanged(&mut file),
            log: log_options(&mut file),
            disk: file.disk(args.disk_limit.as_deref())?,
            labels: node_labels(args, &mut file)?,
            log_level: file.log_level(args.log_level.as_deref())?,
            log_format: file.log_format(args.log_format),
            without_effect: file.finish()?,
        })
    }
}

fn node_name(args: &Args, file: &mut ConfigFile) -> Result<Option<String>, ConfigError> {
    if let Some(name) = &args.node_name {
        Scope::node(name).map_err(|err| ConfigError::flag("--node-name", err.to_string()))?;
        return Ok(Some(name.clone()));
    }
    let name = file.settings.text(NODE_NAME);
    if let Some(Err(err)) = name.as_deref().map(Scope::node) {
        file.settings.problem(NODE_NAME, err.to_string(), None);
    }
    Ok(name)
}

fn cloud(args: &Args, file: &mut ConfigFile) -> Result<Option<String>, ConfigError> {
    if let Some(server) = &args.cloud {
        check_host_port(server).map_err(|message| ConfigError::flag("--cloud", message))?;
        return Ok(Some(server.clone()));
    }
    let server = file.settings.text(SERVER);
    if let Some(Err(message)) = server.as_deref().map(check_host_port) {
        file.settings.problem(SERVER, message, None);
    }
    Ok(server)
}

/// `host:port`, `1.2.3.4:port` or `[::1]:port`.
fn check_host_port(text: &str) -> Result<(), String> {
    let wrong = || format!("`{text}` is not HOST:PORT, for example cloud.example.com:10001");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port_ok = port.parse::<u16>().is_ok_and(|port| port != 0);
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        }
    };
    if port_ok && host_ok { Ok(()) } else { Err(wrong()) }
}

/// First and longest ceiling of the wait before dialling again.
fn backoff(file: &mut ConfigFile) -> (Duration, Duration) {
    let mut ceiling = |key, default| {
        let range = Duration::from_millis(10)..=Duration::from_secs(3600);
        file.settings
            .duration(key, Duration::from_secs(1), range)
            .unwrap_or(default)
    };
    let first = ceiling("ledge.reconnect.first", BACKOFF_FIRST);
    let longest = ceiling("ledge.reconnect.longest", BACKOFF_LONGEST);
    (first, longest.max(first))
}

/// How fast telemetry leaves. No rate, or a rate of 0, is no limit; without a burst, one second's worth may go at once.
fn drain(file: &mut ConfigFile) -> DrainOptions {
    let limit = u64::from(u32::MAX);
    let bytes = |file: &mut ConfigFile, key| {
        let bytes = file.settings.bytes(key, 0..=limit)?;
        u32::try_from(bytes).ok().filter(|bytes| *bytes > 0)
    };
    let burst = bytes(file, "ledge.hub.drain.burst");
    let rate = bytes(file, "ledge.hub.drain.bytesPerSecond").map(|bytes_per_second| Rate {
        bytes_per_second,
        burst: burst.unwrap_or(bytes_per_second),
    });
    let mut hours = Vec::new();
    for text in file.settings.text_list(SCHEDULE).unwrap_or_default() {
        match text.parse::<Hours>() {
            Ok(part) => hours.push(part),
            Err(err) => file.settings.problem(SCHEDULE, err.to_string(), None),
        }
    }
    DrainOptions { rate, hours }
}

/// How long a value that stays the same is not told again.
fn unchanged(file: &mut ConfigFile) -> Unchanged {
    let mut longest = |key| {
        let range = Duration::ZERO..=UNCHANGED_MAX;
        file.settings
            .duration(key, Duration::from_secs(1), range)
            .unwrap_or(UNCHANGED)
    };
    Unchanged {
        samples: longest("ledge.unchanged.samples"),
        reports: longest("ledge.unchanged.reports"),
    }
}

fn log_options(file: &mut ConfigFile) -> LogOptions {
    let mut linger = |key, default| {
        let range = Duration::ZERO..=LINGER_MAX;
        file.settings
            .duration(key, Duration::from_millis(1), range)
            .unwrap_or(default)
    };
    let linger_state = linger("ledge.log.lingerMs.state", Duration::ZERO);
    let linger_data = linger("ledge.log.lingerMs.data", LINGER_DATA);
    LogOptions {
        segment_bytes: file.segment_bytes(),
        linger_state,
        linger_data,
    }
}

fn node_labels(args: &Args, file: &mut ConfigFile) -> Result<BTreeMap<String, String>, ConfigError> {
    if let Some(text) = &args.labels {
        return labels::parse(text).map_err(|message| ConfigError::flag("--labels", message));
    }
    let mut all = BTreeMap::new();
    // v1alpha1's name, then v1alpha2's, which wins.
    for key in ["modules.edged.labels", "modules.edged.nodeLabels"] {
        let found = file.settings.text_map(key).unwrap_or_default();
        if let Err(message) = labels::check(&found) {
            file.settings.problem(key, message, None);
        }
        all.extend(found);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
