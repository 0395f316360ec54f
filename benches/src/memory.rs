//! edgecore's memory: the real daemon, connected to a real cloudcore, reading simulated Modbus TCP devices.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ledge::quickstart::daemons::{Daemon, Launch};
use ledge::quickstart::probe::{http_get, metric};
use ledge::quickstart::site::address;
use ledge::sim::modbus::{ModbusSim, SimOptions};
use ledge_replication::certs::Authority;
use serde::Serialize;
use tokio_util::sync::{CancellationToken, DropGuard};

const NODE: &str = "edge-1";
/// Properties of each device that are read once a second.
const PROPERTIES: u32 = 3;
const TARGET_MIB: f64 = 25.0;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Number of devices, each with an address of its own.
    pub devices: u32,
    /// How long edgecore works before it is looked at.
    pub length: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            devices: 100,
            length: Duration::from_secs(30),
        }
    }
}

/// The line of output.
#[derive(Debug, Serialize)]
pub struct Row {
    id: &'static str,
    devices: u32,
    seconds: u64,
    /// Samples that were durable in the cloud, per second.
    samples_per_second: f64,
    rss_mib: f64,
    /// Of it, memory of its own; the rest are pages of the program's file.
    rss_anon_mib: f64,
    rss_file_mib: f64,
    /// The most it ever was.
    rss_peak_mib: f64,
    threads: u64,
    target_mib: f64,
    met: bool,
}

/// Runs everything on loopback and looks at edgecore.
///
/// # Errors
/// When a program is missing or does not work.
pub async fn measure(plan: Plan) -> anyhow::Result<Row> {
    let programs = programs()?;
    let dir = tempfile::tempdir()?;
    let site = Site::prepare(dir.path(), plan.devices).await?;
    let cloud = site
        .launch(
            &programs,
            "cloudcore",
            &["--listen", "127.0.0.1:0", "--manifests", &site.path("manifests")],
        )
        .start()
        .await?;
    let hub = address(&cloud, "edges on ")?.to_string();
    let edge = site
        .launch(&programs, "edgecore", &["--cloud", &hub])
        .start()
        .await?;
    let http = address(&edge, "health on ")?;
    let pid = edge.pid().context("edgecore has ended")?;

    // The first cycles are connections being made.
    tokio::time::sleep(Duration::from_secs(5).min(plan.length / 2)).await;
    let (began, before) = (Instant::now(), samples(http).await?);
    tokio::time::sleep(
        plan.length
            .saturating_sub(Duration::from_secs(5))
            .max(plan.length / 2),
    )
    .await;
    let samples_per_second = (samples(http).await? - before) / began.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let row = Row {
        id: "edge-memory",
        devices: plan.devices,
        seconds: plan.length.as_secs(),
        samples_per_second: (samples_per_second * 10.0).round() / 10.0,
        rss_mib: mib(&status, "VmRSS")?,
        rss_anon_mib: mib(&status, "RssAnon")?,
        rss_file_mib: mib(&status, "RssFile")?,
        rss_peak_mib: mib(&status, "VmHWM")?,
        threads: field(&status, "Threads")?,
        target_mib: TARGET_MIB,
        met: mib(&status, "VmRSS")? <= TARGET_MIB,
    };
    if row.samples_per_second < f64::from(plan.devices * PROPERTIES) * 0.9 {
        bail!("edgecore did not keep up, so its memory says nothing: {row:?}");
    }
    stop(edge).await?;
    stop(cloud).await?;
    Ok(row)
}

async fn stop(daemon: Daemon) -> anyhow::Result<()> {
    daemon.stop().await?;
    Ok(())
}

/// The directory of the daemons: this program's own.
fn programs() -> anyhow::Result<PathBuf> {
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

async fn samples(http: SocketAddr) -> anyhow::Result<f64> {
    let text = http_get(http, "/metrics").await?;
    Ok(metric(&text, "ledge_repl_acked_seq", &[("lane", "up.data")]))
}

fn field(status: &str, name: &str) -> anyhow::Result<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next());
    let value = value.with_context(|| format!("no {name} in the process' status"))?;
    Ok(value.parse()?)
}

fn mib(status: &str, name: &str) -> anyhow::Result<f64> {
    #[allow(clippy::cast_precision_loss, reason = "kibibytes")]
    let kib = field(status, name)? as f64;
    Ok((kib / 102.4).round() / 10.0)
}

/// Certificates, manifests and devices in a directory.
struct Site {
    dir: PathBuf,
    _devices: DropGuard,
}

impl Site {
    async fn prepare(dir: &Path, devices: u32) -> anyhow::Result<Site> {
        let pki = dir.join("pki");
        let authority = Authority::create(&pki)?;
        authority.issue_cloud(&[], &pki)?;
        authority.issue_node(NODE, &pki)?;
        fs::create_dir(dir.join("manifests"))?;
        fs::write(dir.join("manifests/model.yaml"), MODEL)?;
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
            let manifest = manifest(n, device.address());
            fs::write(dir.join(format!("manifests/device-{n}.yaml")), manifest)?;
            tokio::spawn(device.run(stop.clone()));
        }
        Ok(Site {
            dir: dir.to_owned(),
            _devices: stop.drop_guard(),
        })
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn launch(&self, programs: &Path, program: &'static str, flags: &[&str]) -> Launch {
        let (cert, ready) = match program {
            "edgecore" => (NODE, "edgecore ready"),
            _ => ("cloudcore", "cloudcore ready"),
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
                .chain(flags.iter().map(|flag| (*flag).to_owned()))
                .collect(),
            log: self.dir.join(format!("{program}.log")),
            ready,
        }
    }
}

const MODEL: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: sensor, namespace: default}
spec:
  protocol: modbus
  properties:
  - {name: temperature, type: DOUBLE, accessMode: ReadOnly}
  - {name: humidity, type: DOUBLE, accessMode: ReadOnly}
  - {name: threshold, type: DOUBLE, accessMode: ReadWrite, minimum: 0, maximum: 100}
";

fn manifest(n: u32, device: SocketAddr) -> String {
    let property = |name: &str, offset: u32, desired: &str| {
        format!(
            "  - name: {name}\n{desired}    collectCycle: 1000\n    reportCycle: 10000\n    reportToCloud: true\n    \
             visitors:\n      protocolName: modbus\n      configData: {{register: HoldingRegister, offset: {offset}, limit: 1, scale: 0.1}}\n"
        )
    };
    let properties = [
        property("temperature", 0, ""),
        property("humidity", 1, ""),
        property("threshold", 10, "    desired: {value: \"30\"}\n"),
    ];
    format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: sensor-{n}, namespace: default}}\nspec:\n  \
         deviceModelRef: {{name: sensor}}\n  nodeName: {NODE}\n  protocol:\n    protocolName: modbus\n    \
         configData: {{communicateMode: TCP, ip: {}, port: {}, slaveID: 1}}\n  properties:\n{}",
        device.ip(),
        device.port(),
        properties.concat()
    )
}
