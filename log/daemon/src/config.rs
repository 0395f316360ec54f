//! What the two daemons' configurations have in common. What only one of them has is beside that daemon.

mod disk;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use ledge_log::SEGMENT_MAX_BYTES;
use ledge_proto::limits;
use ledge_yaml::Problem;
use ledge_yaml::keys::Section;
use ledge_yaml::settings::Settings;

// KubeEdge's own places, so that its certificates are found where they are.
const CA_FILE: &str = "/etc/kubeedge/ca/rootCA.crt";
const CERT_FILE: &str = "/etc/kubeedge/certs/server.crt";
const KEY_FILE: &str = "/etc/kubeedge/certs/server.key";
/// Smallest segment of a daemon: it holds at least two of the largest blocks.
pub const SEGMENT_MIN_BYTES: u64 = 2 * limits::BLOCK_MAX_BYTES as u64;

/// Form of a daemon's own log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Files of a daemon's TLS identity, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPaths {
    /// Certificate authority of the cluster.
    pub ca: PathBuf,
    /// This daemon's certificate chain.
    pub cert: PathBuf,
    /// This daemon's private key.
    pub key: PathBuf,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{} cannot be used:{}", path.display(), Lines(problems))]
    File {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, in the order of the file.
        problems: Vec<Problem>,
    },
    /// A flag, or its variable in the environment, is wrong.
    #[error("{flag}: {message}")]
    Flag {
        /// For example `--http-listen`.
        flag: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

impl ConfigError {
    /// A flag that is wrong.
    pub fn flag(flag: &'static str, message: impl Into<String>) -> Self {
        ConfigError::Flag {
            flag,
            message: message.into(),
        }
    }
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Which files a daemon reads.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Values of `apiVersion`.
    pub versions: &'static [&'static str],
    /// Value of `kind`.
    pub kind: &'static str,
    /// Keys.
    pub sections: &'static [Section],
}

/// A configuration that is being read: a file, if there is one, below the flags.
///
/// A value of the file is looked at only where no flag says otherwise: a placeholder matters when it is needed.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    /// The file's values.
    pub settings: Settings,
}

impl ConfigFile {
    /// Reads the file at `path`; without a path, every value is absent.
    ///
    /// # Errors
    /// When the file cannot be read, or is not YAML of one document.
    pub fn open(path: Option<&Path>, shape: &Shape) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Ok(ConfigFile {
                path: PathBuf::from("flags"),
                settings: Settings::empty(),
            });
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        ConfigFile::from_text(path, &text, shape)
    }

    /// As [`ConfigFile::open`], with the file already read. `path` is for messages.
    ///
    /// # Errors
    /// When the text is not YAML of one document.
    pub fn from_text(path: &Path, text: &str, shape: &Shape) -> Result<Self, ConfigError> {
        let settings =
            Settings::open(text, shape.versions, shape.kind, shape.sections).map_err(|problems| {
                ConfigError::File {
                    path: path.to_owned(),
                    problems,
                }
            })?;
        Ok(ConfigFile {
            path: path.to_owned(),
            settings,
        })
    }

    /// Keys that were accepted and do nothing.
    ///
    /// # Errors
    /// Everything that was found wrong with the file.
    pub fn finish(self) -> Result<Vec<String>, ConfigError> {
        let ConfigFile { path, settings } = self;
        settings
            .finish()
            .map_err(|problems| ConfigError::File { path, problems })
    }

    /// A path from a flag, the file or the default.
    pub fn path(&mut self, flag: Option<&Path>, key: &str, default: &str) -> PathBuf {
        match flag {
            Some(path) => path.to_owned(),
            None => self
                .settings
                .text(key)
                .unwrap_or_else(|| default.to_owned())
                .into(),
        }
    }

    /// The TLS files, from flags or from the three keys `[ca, cert, key]`.
    pub fn tls(&mut self, [ca, cert, key]: [Option<&Path>; 3], keys: [&str; 3]) -> TlsPaths {
        TlsPaths {
            ca: self.path(ca, keys[0], CA_FILE),
            cert: self.path(cert, keys[1], CERT_FILE),
            key: self.path(key, keys[2], KEY_FILE),
        }
    }

    /// Where metrics and health are served, from `--http-listen` or the first of `keys` that is there; `None` for
    /// `off`.
    ///
    /// # Errors
    /// When the flag is neither an address nor `off`.
    pub fn http_listen(
        &mut self,
        flag: Option<&str>,
        keys: &[&str],
        default: SocketAddr,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        let wrong = |text: &str| format!("`{text}` is not an address such as {default}, nor `off`");
        if let Some(text) = flag {
            return on_or_off(text).ok_or_else(|| ConfigError::flag("--http-listen", wrong(text)));
        }
        for key in keys {
            let Some(text) = self.settings.text(key) else {
                continue;
            };
            match on_or_off(&text) {
                Some(listen) => return Ok(listen),
                None => self.settings.problem(key, wrong(&text), None),
            }
        }
        Ok(Some(default))
    }

    /// Where something is served, from `flag` or `key`, `default` when neither says; `None` for `off`.
    ///
    /// # Errors
    /// When the flag is neither an address nor `off`.
    pub fn listen(
        &mut self,
        (flag, given): (&'static str, Option<&str>),
        key: &str,
        default: SocketAddr,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        let wrong = |text: &str| format!("`{text}` is not an address such as {default}, nor `off`");
        if let Some(text) = given {
            return on_or_off(text).ok_or_else(|| ConfigError::flag(flag, wrong(text)));
        }
        let Some(text) = self.settings.text(key) else {
            return Ok(Some(default));
        };
        let listen = on_or_off(&text);
        if listen.is_none() {
            self.settings.problem(key, wrong(&text), None);
        }
        Ok(listen.flatten())
    }

    /// Where the embedded Kubernetes API is served, from `--api-listen` or `key`: `Some(None)` for `off`, `None` when
    /// neither says.
    ///
    /// # Errors
    /// When the flag is neither an address nor `off`.
    pub fn api_listen(
        &mut self,
        flag: Option<&str>,
        key: &str,
    ) -> Result<Option<Option<SocketAddr>>, ConfigError> {
        let wrong = |text: &str| format!("`{text}` is not an address such as 127.0.0.1:6443, nor `off`");
        if let Some(text) = flag {
            let listen = on_or_off(text).ok_or_else(|| ConfigError::flag("--api-listen", wrong(text)))?;
            return Ok(Some(listen));
        }
        let Some(text) = self.settings.text(key) else {
            return Ok(None);
        };
        let listen = on_or_off(&text);
        if listen.is_none() {
            self.settings.problem(key, wrong(&text), None);
        }
        Ok(listen)
    }

    /// Time between two heartbeats; a bare number is seconds.
    pub fn heartbeat(&mut self, key: &str, default: Duration) -> Duration {
        let [shortest, longest] = [
            *limits::HEARTBEAT_RANGE_MS.start(),
            *limits::HEARTBEAT_RANGE_MS.end(),
        ]
        .map(Duration::from_millis);
        self.settings
            .duration(key, Duration::from_secs(1), shortest..=longest)
            .unwrap_or(default)
    }

    /// Size of a segment file of the log, where the file says one.
    pub fn segment_bytes(&mut self) -> Option<u64> {
        let range = SEGMENT_MIN_BYTES..=SEGMENT_MAX_BYTES;
        self.settings.bytes("ledge.log.segmentBytes", range)
    }

    /// Level or directives of the daemon's own log lines.
    ///
    /// # Errors
    /// When the flag is wrong.
    pub fn log_level(&mut self, flag: Option<&str>) -> Result<String, ConfigError> {
        const KEY: &str = "ledge.logLevel";
        if let Some(text) = flag {
            check_log_level(text).map_err(|message| ConfigError::flag("--log-level", message))?;
            return Ok(text.to_owned());
        }
        let text = self.settings.text(KEY).unwrap_or_else(|| "info".to_owned());
        if let Err(message) = check_log_level(&text) {
            self.settings.problem(KEY, message, None);
        }
        Ok(text)
    }

    /// Form of the daemon's own log lines.
    pub fn log_format(&mut self, flag: Option<LogFormat>) -> LogFormat {
        const KEY: &str = "ledge.logFormat";
        if let Some(format) = flag {
            return format;
        }
        let Some(text) = self.settings.text(KEY) else {
            return LogFormat::default();
        };
        LogFormat::from_str(&text, true).unwrap_or_else(|_| {
            self.settings
                .problem(KEY, format!("`{text}` is not a format: text or json"), None);
            LogFormat::default()
        })
    }
}

/// The line that tells about keys without effect, when there are any.
pub fn without_effect_message(keys: &[String]) -> Option<String> {
    (!keys.is_empty()).then(|| format!("accepted, without effect: {}", keys.join(", ")))
}

/// `Some(None)` for `off`.
fn on_or_off(text: &str) -> Option<Option<SocketAddr>> {
    if text.eq_ignore_ascii_case("off") {
        Some(None)
    } else {
        text.parse().ok().map(Some)
    }
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
