//! From flags and file to [`Config`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use ledge_proto::ids::Scope;
use ledge_proto::limits;
use ledge_yaml::settings::Settings;

use super::{Args, Config, ConfigError, LogFormat, LogOptions, TlsPaths, keys, labels};

const API_VERSIONS: &[&str] = &[
    "edgecore.config.kubeedge.io/v1alpha2",
    "edgecore.config.kubeedge.io/v1alpha1",
];
const KIND: &str = "EdgeCore";

const DATA_DIR: &str = "/var/lib/ledge/edgecore";
const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9600);
// KubeEdge's own places, so that its certificates are found where they are.
const CA_FILE: &str = "/etc/kubeedge/ca/rootCA.crt";
const CERT_FILE: &str = "/etc/kubeedge/certs/server.crt";
const KEY_FILE: &str = "/etc/kubeedge/certs/server.key";
const HEARTBEAT: Duration = Duration::from_secs(15);
const SEGMENT_BYTES: u64 = 64 << 20;
/// A segment holds at least two of the largest blocks.
const SEGMENT_MIN_BYTES: u64 = 2 * limits::BLOCK_MAX_BYTES as u64;
const SEGMENT_MAX_BYTES: u64 = 4 << 30;
const LINGER_DATA: Duration = Duration::from_millis(100);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LONGEST: Duration = Duration::from_secs(32);
const LINGER_MAX: Duration = Duration::from_secs(10);

const SERVER: &str = "modules.edgeHub.quic.server";
const NODE_NAME: &str = "modules.edged.hostnameOverride";

impl Config {
    /// Reads the file named by `args`, if any, and lets the flags win over it.
    ///
    /// # Errors
    /// When the file cannot be read, or when it or a flag is wrong. Every mistake of the file is in the error.
    pub fn load(args: &Args) -> Result<Config, ConfigError> {
        let Some(path) = &args.config else {
            return Config::read(args, Path::new("flags"), Settings::empty());
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        Config::from_text(args, path, &text)
    }

    /// As [`Config::load`], with the file already read. `path` is for messages.
    ///
    /// # Errors
    /// When the text or a flag is wrong.
    pub fn from_text(args: &Args, path: &Path, text: &str) -> Result<Config, ConfigError> {
        let settings = Settings::open(text, API_VERSIONS, KIND, keys::SECTIONS).map_err(|problems| {
            ConfigError::File {
                path: path.to_owned(),
                problems,
            }
        })?;
        Config::read(args, path, settings)
    }

    /// A value of the file is looked at only where no flag says otherwise: a placeholder matters when it is needed.
    fn read(args: &Args, path: &Path, mut file: Settings) -> Result<Config, ConfigError> {
        let node_name = node_name(args, &mut file)?;
        let data_dir = or_file(&args.data_dir, &mut file, "ledge.dataDir", DATA_DIR);
        let cloud = cloud(args, &mut file)?;
        let server_name = file.text("ledge.serverName");
        let tls = TlsPaths {
            ca: or_file(&args.ca, &mut file, "modules.edgeHub.tlsCaFile", CA_FILE),
            cert: or_file(&args.cert, &mut file, "modules.edgeHub.tlsCertFile", CERT_FILE),
            key: or_file(
                &args.key,
                &mut file,
                "modules.edgeHub.tlsPrivateKeyFile",
                KEY_FILE,
            ),
        };
        let http_listen = http_listen(args, &mut file)?;
        let [shortest, longest] = [
            *limits::HEARTBEAT_RANGE_MS.start(),
            *limits::HEARTBEAT_RANGE_MS.end(),
        ]
        .map(Duration::from_millis);
        let heartbeat = file
            .duration(
                "modules.edgeHub.heartbeat",
                Duration::from_secs(1),
                shortest..=longest,
            )
            .unwrap_or(HEARTBEAT);
        let mut backoff = |key, default| {
            let range = Duration::from_millis(10)..=Duration::from_secs(3600);
            file.duration(key, Duration::from_secs(1), range).unwrap_or(default)
        };
        let backoff_first = backoff("ledge.reconnect.first", BACKOFF_FIRST);
        let backoff_longest = backoff("ledge.reconnect.longest", BACKOFF_LONGEST).max(backoff_first);
        let log = log_options(&mut file);
        let labels = node_labels(args, &mut file)?;
        let log_level = log_level(args, &mut file)?;
        let log_format = log_format(args, &mut file);
        let without_effect = file.finish().map_err(|problems| ConfigError::File {
            path: path.to_owned(),
            problems,
        })?;
        Ok(Config {
            node_name,
            data_dir,
            cloud,
            server_name,
            tls,
            http_listen,
            heartbeat,
            backoff_first,
            backoff_longest,
            log,
            labels,
            log_level,
            log_format,
            without_effect,
        })
    }
}

fn or_file(flag: &Option<PathBuf>, file: &mut Settings, key: &str, default: &str) -> PathBuf {
    flag.clone()
        .unwrap_or_else(|| file.text(key).unwrap_or_else(|| default.to_owned()).into())
}

fn node_name(args: &Args, file: &mut Settings) -> Result<Option<String>, ConfigError> {
    if let Some(name) = &args.node_name {
        Scope::node(name).map_err(|err| flag_error("--node-name", err.to_string()))?;
        return Ok(Some(name.clone()));
    }
    let name = file.text(NODE_NAME);
    if let Some(Err(err)) = name.as_deref().map(Scope::node) {
        file.problem(NODE_NAME, err.to_string(), None);
    }
    Ok(name)
}

fn cloud(args: &Args, file: &mut Settings) -> Result<Option<String>, ConfigError> {
    if let Some(server) = &args.cloud {
        check_host_port(server).map_err(|message| flag_error("--cloud", message))?;
        return Ok(Some(server.clone()));
    }
    let server = file.text(SERVER);
    if let Some(Err(message)) = server.as_deref().map(check_host_port) {
        file.problem(SERVER, message, None);
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

fn http_listen(args: &Args, file: &mut Settings) -> Result<Option<SocketAddr>, ConfigError> {
    const KEY: &str = "ledge.httpAddress";
    const EXPECTED: &str = "an address such as 127.0.0.1:9600, nor `off`";
    if let Some(text) = &args.http_listen {
        return on_or_off(text)
            .ok_or_else(|| flag_error("--http-listen", format!("`{text}` is not {EXPECTED}")));
    }
    let Some(text) = file.text(KEY) else {
        return Ok(Some(HTTP_LISTEN));
    };
    Ok(on_or_off(&text).unwrap_or_else(|| {
        file.problem(KEY, format!("`{text}` is not {EXPECTED}"), None);
        None
    }))
}

/// `Some(None)` for `off`.
fn on_or_off(text: &str) -> Option<Option<SocketAddr>> {
    if text.eq_ignore_ascii_case("off") {
        Some(None)
    } else {
        text.parse().ok().map(Some)
    }
}

fn log_options(file: &mut Settings) -> LogOptions {
    let mut linger = |key, default| {
        file.duration(key, Duration::from_millis(1), Duration::ZERO..=LINGER_MAX)
            .unwrap_or(default)
    };
    let linger_state = linger("ledge.log.lingerMs.state", Duration::ZERO);
    let linger_data = linger("ledge.log.lingerMs.data", LINGER_DATA);
    let segment_bytes = file
        .bytes("ledge.log.segmentBytes", SEGMENT_MIN_BYTES..=SEGMENT_MAX_BYTES)
        .unwrap_or(SEGMENT_BYTES);
    LogOptions {
        segment_bytes,
        linger_state,
        linger_data,
    }
}

fn node_labels(args: &Args, file: &mut Settings) -> Result<BTreeMap<String, String>, ConfigError> {
    if let Some(text) = &args.labels {
        return labels::parse(text).map_err(|message| flag_error("--labels", message));
    }
    let mut all = BTreeMap::new();
    // v1alpha1's name, then v1alpha2's, which wins.
    for key in ["modules.edged.labels", "modules.edged.nodeLabels"] {
        let found = file.text_map(key).unwrap_or_default();
        if let Err(message) = labels::check(&found) {
            file.problem(key, message, None);
        }
        all.extend(found);
    }
    Ok(all)
}

fn log_level(args: &Args, file: &mut Settings) -> Result<String, ConfigError> {
    if let Some(text) = &args.log_level {
        return check_log_level(text)
            .map(|()| text.clone())
            .map_err(|message| flag_error("--log-level", message));
    }
    let Some(text) = file.text("ledge.logLevel") else {
        return Ok("info".to_owned());
    };
    if let Err(message) = check_log_level(&text) {
        file.problem("ledge.logLevel", message, None);
    }
    Ok(text)
}

/// A level, or directives `TARGET=LEVEL`, separated by commas.
fn check_log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(level.trim()))
        {
            return Err(format!(
                "`{directive}` is not a level: one of {}",
                LEVELS.join(", ")
            ));
        }
    }
    Ok(())
}

fn log_format(args: &Args, file: &mut Settings) -> LogFormat {
    if let Some(format) = args.log_format {
        return format;
    }
    let Some(text) = file.text("ledge.logFormat") else {
        return LogFormat::default();
    };
    LogFormat::from_str(&text, true).unwrap_or_else(|_| {
        file.problem(
            "ledge.logFormat",
            format!("`{text}` is not a format: text or json"),
            None,
        );
        LogFormat::default()
    })
}

fn flag_error(flag: &'static str, message: String) -> ConfigError {
    ConfigError::Flag { flag, message }
}

#[cfg(test)]
mod tests;
