//! From flags and file to [`Config`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use ledge_proto::limits;
use ledge_yaml::settings::Settings;

use super::{Args, Config, ConfigError, LogFormat, LogOptions, TlsPaths, keys};

const API_VERSIONS: &[&str] = &["cloudcore.config.kubeedge.io/v1alpha1"];
const KIND: &str = "CloudCore";

const DATA_DIR: &str = "/var/lib/ledge/cloudcore";
const QUIC_PORT: u16 = 10001;
const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9091);
// KubeEdge's own places, so that its certificates are found where they are.
const CA_FILE: &str = "/etc/kubeedge/ca/rootCA.crt";
const CERT_FILE: &str = "/etc/kubeedge/certs/server.crt";
const KEY_FILE: &str = "/etc/kubeedge/certs/server.key";
const SEGMENT_BYTES: u64 = 256 << 20;
/// A segment holds at least two of the largest blocks.
const SEGMENT_MIN_BYTES: u64 = 2 * limits::BLOCK_MAX_BYTES as u64;
const SEGMENT_MAX_BYTES: u64 = 4 << 30;

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
        let data_dir = or_file(&args.data_dir, &mut file, "ledge.dataDir", DATA_DIR);
        let quic_listen = match args.listen {
            Some(listen) => listen,
            None => {
                let ip = file.parsed("modules.cloudHub.quic.address", "an IP address");
                let port = file.number("modules.cloudHub.quic.port", 0..=u16::MAX);
                SocketAddr::new(
                    ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
                    port.unwrap_or(QUIC_PORT),
                )
            }
        };
        let http_listen = http_listen(args, &mut file)?;
        let manifests = args
            .manifests
            .clone()
            .or_else(|| file.text("ledge.manifestsDir").map(PathBuf::from));
        let tls = TlsPaths {
            ca: or_file(&args.ca, &mut file, "modules.cloudHub.tlsCAFile", CA_FILE),
            cert: or_file(&args.cert, &mut file, "modules.cloudHub.tlsCertFile", CERT_FILE),
            key: or_file(
                &args.key,
                &mut file,
                "modules.cloudHub.tlsPrivateKeyFile",
                KEY_FILE,
            ),
        };
        let [shortest, longest] = [
            *limits::HEARTBEAT_RANGE_MS.start(),
            *limits::HEARTBEAT_RANGE_MS.end(),
        ]
        .map(Duration::from_millis);
        let heartbeat = file
            .duration(
                "modules.cloudHub.keepaliveInterval",
                Duration::from_secs(1),
                shortest..=longest,
            )
            .unwrap_or(Duration::from_millis(limits::HEARTBEAT_MS));
        let segment_bytes = file
            .bytes("ledge.log.segmentBytes", SEGMENT_MIN_BYTES..=SEGMENT_MAX_BYTES)
            .unwrap_or(SEGMENT_BYTES);
        let log_level = log_level(args, &mut file)?;
        let log_format = log_format(args, &mut file);
        let without_effect = file.finish().map_err(|problems| ConfigError::File {
            path: path.to_owned(),
            problems,
        })?;
        Ok(Config {
            data_dir,
            quic_listen,
            http_listen,
            manifests,
            tls,
            heartbeat,
            log: LogOptions { segment_bytes },
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

fn http_listen(args: &Args, file: &mut Settings) -> Result<Option<SocketAddr>, ConfigError> {
    const EXPECTED: &str = "an address such as 127.0.0.1:9091, nor `off`";
    if let Some(text) = &args.http_listen {
        return on_or_off(text)
            .ok_or_else(|| flag_error("--http-listen", format!("`{text}` is not {EXPECTED}")));
    }
    // KubeEdge's name for the same thing; Ledge's own wins.
    for key in ["ledge.httpAddress", "commonConfig.monitorServer.bindAddress"] {
        let Some(text) = file.text(key) else { continue };
        match on_or_off(&text) {
            Some(listen) => return Ok(listen),
            None => file.problem(key, format!("`{text}` is not {EXPECTED}"), None),
        }
    }
    Ok(Some(HTTP_LISTEN))
}

/// `Some(None)` for `off`.
fn on_or_off(text: &str) -> Option<Option<SocketAddr>> {
    if text.eq_ignore_ascii_case("off") {
        Some(None)
    } else {
        text.parse().ok().map(Some)
    }
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
