//! The place where the story happens: directories, certificates, configuration, manifests, and how to start each
//! program.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledge_replication::certs::{Authority, CertError};

use super::daemons::{Daemon, Launch, ProcessError};

/// The node of the story.
pub const NODE: &str = "edge-1";
/// Its device, as `namespace/name`.
pub const DEVICE: &str = "default/boiler";
/// The writable property.
pub const SETPOINT: &str = "alarm_threshold";
/// The property that the simulated device counts up with every read.
pub const COUNTER: &str = "reads";

/// Where the story's device keeps what.
#[derive(Debug, Clone, Copy)]
pub struct RegisterMap {
    /// Holding register read as temperature, tenths of a degree.
    pub temperature: u16,
    /// Holding register written as alarm threshold, tenths of a degree.
    pub setpoint: u16,
    /// First of two holding registers that count reads; only the simulated device has them.
    pub counter: Option<u16>,
}

/// Speeds of the story: short in a demonstration, shorter in tests.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Heartbeat of the link.
    pub heartbeat: Duration,
    /// Longest wait before dialling again.
    pub reconnect: Duration,
    /// Time between two samples of a property.
    pub collect: Duration,
    /// Segment size of both logs.
    pub segment_bytes: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            heartbeat: Duration::from_millis(500),
            reconnect: Duration::from_secs(1),
            collect: Duration::from_millis(100),
            segment_bytes: 16 << 20,
        }
    }
}

/// A prepared site.
#[derive(Debug)]
pub struct Site {
    dir: PathBuf,
    programs: PathBuf,
    ledge: PathBuf,
    pace: Pace,
    registers: RegisterMap,
}

/// Why a site could not be prepared.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its source's kind")]
pub enum SiteError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Cert(#[from] CertError),
}

impl Site {
    /// Makes the directories, the cluster and its certificates in `dir`, which must be empty or missing.
    /// `programs` holds cloudcore and edgecore; `ledge` is this program.
    ///
    /// # Errors
    /// See [`SiteError`].
    pub fn prepare(
        dir: &Path,
        programs: PathBuf,
        ledge: PathBuf,
        pace: Pace,
        registers: RegisterMap,
    ) -> Result<Site, SiteError> {
        let site = Site {
            dir: dir.to_owned(),
            programs,
            ledge,
            pace,
            registers,
        };
        for sub in ["", "manifests"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(|source| SiteError::Io { path, source })?;
        }
        let pki = site.pki();
        let authority = Authority::create(&pki)?;
        authority.issue_cloud(&[], &pki)?;
        authority.issue_node(NODE, &pki)?;
        Ok(site)
    }

    /// cloudcore's data directory.
    pub fn cloud_dir(&self) -> PathBuf {
        self.dir.join("cloud")
    }

    /// edgecore's data directory.
    pub fn edge_dir(&self) -> PathBuf {
        self.dir.join("edge")
    }

    /// What the simulated device says it answered and was told.
    pub fn device_journal(&self) -> PathBuf {
        self.dir.join("device.jsonl")
    }

    /// This program.
    pub fn ledge(&self) -> &Path {
        &self.ledge
    }

    /// Where the device keeps what.
    pub fn registers(&self) -> RegisterMap {
        self.registers
    }

    /// Writes the device's manifests. The desired value, in degrees, is what a user would edit.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_manifests(&self, device: SocketAddr, setpoint: f64) -> Result<(), SiteError> {
        let RegisterMap {
            temperature,
            setpoint: setpoint_register,
            counter,
        } = self.registers;
        let collect = self.pace.collect.as_millis();
        let property = |name: &str, register: u16, limit: u16, scale: f64, desired: Option<f64>| {
            let desired =
                desired.map_or_else(String::new, |v| format!("    desired:\n      value: \"{v}\"\n"));
            format!(
                "  - name: {name}\n{desired}    collectCycle: {collect}\n    reportCycle: 1000\n    reportToCloud: true\n    \
                 visitors:\n      protocolName: modbus\n      configData:\n        register: HoldingRegister\n        \
                 offset: {register}\n        limit: {limit}\n        scale: {scale}\n        isSwap: false\n        isRegisterSwap: false\n"
            )
        };
        let mut properties = property("temperature", temperature, 1, 0.1, None);
        properties += &property(SETPOINT, setpoint_register, 1, 0.1, Some(setpoint));
        let mut model =
            "  - name: temperature\n    type: DOUBLE\n    accessMode: ReadOnly\n    unit: Celsius\n"
                .to_owned();
        model += &format!(
            "  - name: {SETPOINT}\n    type: DOUBLE\n    accessMode: ReadWrite\n    minimum: 0\n    maximum: 100\n    unit: Celsius\n"
        );
        if let Some(counter) = counter {
            properties += &property(COUNTER, counter, 2, 1.0, None);
            model += &format!("  - name: {COUNTER}\n    type: INT\n    accessMode: ReadOnly\n");
        }
        let model = format!(
            "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata:\n  name: boiler-model\n  namespace: default\n\
             spec:\n  protocol: modbus\n  properties:\n{model}"
        );
        let manifest = format!(
            "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata:\n  name: boiler\n  namespace: default\nspec:\n  \
             deviceModelRef:\n    name: boiler-model\n  nodeName: {NODE}\n  protocol:\n    protocolName: modbus\n    configData:\n      \
             communicateMode: TCP\n      ip: {}\n      port: {}\n      slaveID: 1\n  properties:\n{properties}",
            device.ip(),
            device.port()
        );
        self.write("manifests/model.yaml", &model)?;
        self.write("manifests/device.yaml", &manifest)
    }

    /// How to start cloudcore on `listen` (port 0 takes any).
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn cloudcore(&self, listen: SocketAddr) -> Result<Launch, SiteError> {
        let pki = self.pki();
        let config = format!(
            "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\nledge:\n  dataDir: {data}\n  manifestsDir: {manifests}\n  \
             httpAddress: 127.0.0.1:0\n  apiAddress: 127.0.0.1:0\n  log:\n    segmentBytes: {segment}\nmodules:\n  cloudHub:\n    keepaliveInterval: {heartbeat}ms\n    \
             tlsCAFile: {pki}/ca.crt\n    tlsCertFile: {pki}/cloudcore.crt\n    tlsPrivateKeyFile: {pki}/cloudcore.key\n",
            data = self.cloud_dir().display(),
            manifests = self.dir.join("manifests").display(),
            segment = self.pace.segment_bytes,
            heartbeat = self.pace.heartbeat.as_millis(),
            pki = pki.display(),
        );
        self.write("cloudcore.yaml", &config)?;
        Ok(Launch {
            program: self.programs.join("cloudcore"),
            args: vec![
                "--config".into(),
                self.path("cloudcore.yaml"),
                "--listen".into(),
                listen.to_string(),
            ],
            log: self.dir.join("cloudcore.log"),
            ready: "cloudcore ready",
        })
    }

    /// How to start edgecore with its cloud at `cloud`.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn edgecore(&self, cloud: SocketAddr) -> Result<Launch, SiteError> {
        // Every reading is a record of its own: the story counts them, and a device of somebody else may not change at all.
        let config = format!(
            "apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\nledge:\n  dataDir: {data}\n  httpAddress: 127.0.0.1:0\n  \
             reconnect:\n    first: 100ms\n    longest: {reconnect}ms\n  log:\n    segmentBytes: {segment}\n    lingerMs:\n      data: 20\n  unchanged:\n    samples: 0s\n    reports: 0s\n\
             modules:\n  metaManager:\n    metaServer:\n      server: 127.0.0.1:0\n  edged:\n    hostnameOverride: {NODE}\n  edgeHub:\n    heartbeat: {heartbeat}ms\n    tlsCaFile: {pki}/ca.crt\n    \
             tlsCertFile: {pki}/{NODE}.crt\n    tlsPrivateKeyFile: {pki}/{NODE}.key\n    quic:\n      server: {cloud}\n",
            data = self.edge_dir().display(),
            reconnect = self.pace.reconnect.as_millis(),
            segment = self.pace.segment_bytes,
            heartbeat = self.pace.heartbeat.as_millis(),
            pki = self.pki().display(),
        );
        self.write("edgecore.yaml", &config)?;
        Ok(Launch {
            program: self.programs.join("edgecore"),
            args: vec!["--config".into(), self.path("edgecore.yaml")],
            log: self.dir.join("edgecore.log"),
            ready: "edgecore ready",
        })
    }

    /// Starts the simulated device.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn start_device(&self) -> Result<(Daemon, SocketAddr), ProcessError> {
        let launch = Launch {
            program: self.ledge.clone(),
            args: ["sim", "modbus", "--listen", "127.0.0.1:0", "--journal"]
                .into_iter()
                .map(str::to_owned)
                .chain([self.device_journal().display().to_string()])
                .collect(),
            log: self.dir.join("device.log"),
            ready: "modbus device ready",
        };
        let daemon = launch.start().await?;
        let address = address(&daemon, "ready on ")?;
        Ok((daemon, address))
    }

    fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Replaces a file as a whole, as editors do.
    fn write(&self, name: &str, content: &str) -> Result<(), SiteError> {
        let path = self.dir.join(name);
        let draft = path.with_extension("draft");
        fs::write(&draft, content)
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(|source| SiteError::Io { path, source })
    }
}

/// An address out of a daemon's ready line.
///
/// # Errors
/// When there is none.
pub fn address(daemon: &Daemon, marker: &str) -> Result<SocketAddr, ProcessError> {
    daemon
        .ready_word(marker)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| ProcessError::Io {
            program: daemon.ready_line().to_owned(),
            source: io::Error::other(format!("no address after `{marker}` in its ready line")),
        })
}
