//! edgecore's memory: the real daemon, connected to a real cloudcore, reading simulated Modbus TCP devices.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ledge::quickstart::probe::{http_get, metric};
use ledge::quickstart::site::address;
use serde::Serialize;

use crate::site::{EVERY_READING, Property, Site, programs, stop};

/// Properties of each device that are read once a second.
const PROPERTIES: u32 = 3;
const TARGET_MIB: f64 = 25.0;
const MOVING: [Property; PROPERTIES as usize] = [
    Property::read("temperature", 0, 1),
    Property::read("humidity", 1, 1),
    Property {
        desired: Some("30"),
        ..Property::read("threshold", 10, 1)
    },
];

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
    let site = Site::prepare(dir.path(), plan.devices, &MOVING).await?;
    let cloud = site
        .launch(
            &programs,
            "cloudcore",
            &[
                "--listen",
                "127.0.0.1:0",
                "--api-listen",
                "127.0.0.1:0",
                "--manifests",
                &site.path("manifests"),
            ],
        )
        .start()
        .await?;
    let hub = address(&cloud, "edges on ")?.to_string();
    // Some of the values stay the same for long: they are to be work all the same.
    let config = site.path("edgecore.yaml");
    fs::write(&config, EVERY_READING)?;
    let edge = site
        .launch(&programs, "edgecore", &["--cloud", &hub, "--config", &config])
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

async fn samples(http: SocketAddr) -> anyhow::Result<f64> {
    let text = http_get(http, "/metrics").await?;
    Ok(metric(&text, "ledge_repl_acked_seq", &[("lane", "up.data")]))
}

/// A number of `/proc/PID/status`.
pub(crate) fn field(status: &str, name: &str) -> anyhow::Result<u64> {
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
