//! From flags and file to [`Config`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledge_daemon::config::{ConfigFile, Shape};
use ledge_proto::limits;

use super::{Args, Config, ConfigError, LogOptions, keys, kubernetes};

const SHAPE: Shape = Shape {
    versions: &["cloudcore.config.kubeedge.io/v1alpha1"],
    kind: "CloudCore",
    sections: keys::SECTIONS,
};

const DATA_DIR: &str = "/var/lib/ledge/cloudcore";
const QUIC_PORT: u16 = 10001;
const HTTP_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9091);

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
        let manifests = args.manifests.clone();
        let kubernetes = kubernetes::decide(args, &mut file, kubernetes::is_pod())?;
        Ok(Config {
            data_dir: file.path(args.data_dir.as_deref(), "ledge.dataDir", DATA_DIR),
            quic_listen: args.listen.unwrap_or_else(|| quic_listen(&mut file)),
            http_listen: file.http_listen(
                args.http_listen.as_deref(),
                // KubeEdge's name for the same thing; Ledge's own wins.
                &["ledge.httpAddress", "commonConfig.monitorServer.bindAddress"],
                HTTP_LISTEN,
            )?,
            kubernetes: kubernetes.at,
            kubernetes_note: kubernetes.note,
            manifests: manifests.or_else(|| file.settings.text("ledge.manifestsDir").map(PathBuf::from)),
            tls: file.tls(
                [args.ca.as_deref(), args.cert.as_deref(), args.key.as_deref()],
                [
                    "modules.cloudHub.tlsCAFile",
                    "modules.cloudHub.tlsCertFile",
                    "modules.cloudHub.tlsPrivateKeyFile",
                ],
            ),
            restored: args.restored,
            heartbeat: file.heartbeat(
                "modules.cloudHub.keepaliveInterval",
                Duration::from_millis(limits::HEARTBEAT_MS),
            ),
            log: LogOptions {
                segment_bytes: file.segment_bytes(),
            },
            disk: file.disk(args.disk_limit.as_deref())?,
            log_level: file.log_level(args.log_level.as_deref())?,
            log_format: file.log_format(args.log_format),
            without_effect: file.finish()?,
        })
    }
}

fn quic_listen(file: &mut ConfigFile) -> SocketAddr {
    let ip = file
        .settings
        .parsed("modules.cloudHub.quic.address", "an IP address");
    let port = file.settings.number("modules.cloudHub.quic.port", 0..=u16::MAX);
    SocketAddr::new(
        ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        port.unwrap_or(QUIC_PORT),
    )
}

#[cfg(test)]
mod tests;
