//! A site on loopback: certificates, manifests and simulated Modbus devices for the real daemons.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::bail;
use ledge::quickstart::daemons::{Daemon, Launch};
use ledge::sim::modbus::{ModbusSim, SimOptions};
use ledge_replication::certs::Authority;
use tokio_util::sync::{CancellationToken, DropGuard};

const NODE: &str = "edge-1";

/// A configuration of edgecore: every reading a record of its own, and every report cycle a report.
pub(crate) const EVERY_READING: &str = "\
apiVersion: edgecore.config.kubeedge.io/v1alpha2
kind: EdgeCore
ledge:
  unchanged: {samples: 0s, reports: 0s}
";

/// A property of every device, in its holding registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Property {
    pub(crate) name: &'static str,
    pub(crate) offset: u32,
    /// Number of registers.
    pub(crate) limit: u32,
    pub(crate) desired: Option<&'static str>,
}

impl Property {
    pub(crate) const fn read(name: &'static str, offset: u32, limit: u32) -> Property {
        Property {
            name,
            offset,
            limit,
            desired: None,
        }
    }
}

/// Stops a daemon, which must end well.
pub(crate) async fn stop(daemon: Daemon) -> anyhow::Result<()> {
    daemon.stop().await?;
    Ok(())
}

/// The directory of the daemons: this program's own.
pub(crate) fn programs() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let dir = me.parent().unwrap_or(Path::new("."));
    for program in ["edgecore", "cloudcore"] {
        if !dir.join(program).is_file() {
            bail!(
                "{program} is not in {}: cargo build --release -p ledge-edge -p ledge-cloud",
                dir.display()
            );
        }
    }
    Ok(dir.to_owned())
}

/// Certificates, manifests and devices in a directory.
pub(crate) struct Site {
    dir: PathBuf,
    _devices: DropGuard,
}

impl Site {
    /// Makes certificates and `devices` devices with `properties`, at the default cycles: read once a second.
    pub(crate) async fn prepare(dir: &Path, devices: u32, properties: &[Property]) -> anyhow::Result<Site> {
        let pki = dir.join("pki");
        let authority = Authority::create(&pki)?;
        authority.issue_cloud(&[], &pki)?;
        authority.issue_node(NODE, &pki)?;
        fs::create_dir(dir.join("manifests"))?;
        fs::write(dir.join("manifests/model.yaml"), model(properties))?;
        let stop = CancellationToken::new();
        for n in 0..devices {
            let options = SimOptions {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                seed: n.into(),
                journal: None,
                delay_ms: 0,
                fault: None,
            };
            let device = ModbusSim::bind(options).await?;
            let manifest = manifest(n, device.address(), properties);
            fs::write(dir.join(format!("manifests/device-{n}.yaml")), manifest)?;
            tokio::spawn(device.run(stop.clone()));
        }
        Ok(Site {
            dir: dir.to_owned(),
            _devices: stop.drop_guard(),
        })
    }

    /// Path of a file of the site.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// How to start a daemon with the site's certificate.
    pub(crate) fn launch(&self, programs: &Path, program: &'static str, flags: &[&str]) -> Launch {
        let (cert, ready, own) = match program {
            "edgecore" => (NODE, "edgecore ready", &["--meta-server", "127.0.0.1:0"][..]),
            _ => ("cloudcore", "cloudcore ready", &[][..]),
        };
        let files = [
            ("--data-dir", self.path(program)),
            ("--ca", self.path("pki/ca.crt")),
            ("--cert", self.path(&format!("pki/{cert}.crt"))),
            ("--key", self.path(&format!("pki/{cert}.key"))),
            ("--http-listen", "127.0.0.1:0".to_owned()),
        ];
        Launch {
            program: programs.join(program),
            args: files
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value])
                .chain(own.iter().chain(flags).map(|flag| (*flag).to_owned()))
                .collect(),
            log: self.dir.join(format!("{program}.log")),
            ready,
        }
    }
}

fn model(properties: &[Property]) -> String {
    let properties: String = properties
        .iter()
        .map(|property| {
            let access = if property.desired.is_some() {
                "ReadWrite, minimum: 0, maximum: 100"
            } else {
                "ReadOnly"
            };
            format!(
                "  - {{name: {}, type: DOUBLE, accessMode: {access}}}\n",
                property.name
            )
        })
        .collect();
    format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {{name: sensor, namespace: default}}\nspec:\n  \
         protocol: modbus\n  properties:\n{properties}"
    )
}

fn manifest(n: u32, device: SocketAddr, properties: &[Property]) -> String {
    let properties: String = properties
        .iter()
        .map(|property| {
            let desired = property.desired.map_or(String::new(), |value| {
                format!("    desired: {{value: \"{value}\"}}\n")
            });
            format!(
                "  - name: {}\n{desired}    visitors:\n      protocolName: modbus\n      \
                 configData: {{register: HoldingRegister, offset: {}, limit: {}, scale: 0.1}}\n",
                property.name, property.offset, property.limit
            )
        })
        .collect();
    format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: sensor-{n}, namespace: default}}\nspec:\n  \
         deviceModelRef: {{name: sensor}}\n  nodeName: {NODE}\n  protocol:\n    protocolName: modbus\n    \
         configData: {{communicateMode: TCP, ip: {}, port: {}, slaveID: 1}}\n  properties:\n{properties}",
        device.ip(),
        device.port(),
    )
}
