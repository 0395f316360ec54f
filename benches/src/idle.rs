//! What a node that has nothing to tell costs on the wire: the real daemons, devices whose values do not change, and a
//! relay between them that counts every datagram.

mod relay;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ledge::quickstart::probe::{http_get, metric};
use ledge::quickstart::site::address;
use serde::Serialize;

use crate::site::{EVERY_READING, Property, Site, programs, stop};
use relay::{Counts, Relay};

/// MB (1,000,000 bytes) per day, both directions.
const TARGET_MB: f64 = 2.0;
/// Connecting, the devices' manifests and their first values are over by then.
const WARM_UP: Duration = Duration::from_secs(20);
const DAY: f64 = 86_400.0;
/// Registers that nobody writes.
const STILL: [Property; 3] = [
    Property::read("threshold", 10, 1),
    Property::read("setting", 11, 1),
    Property::read("both", 10, 2),
];

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Number of devices, three properties each, read once a second.
    pub devices: u32,
    /// How long datagrams are counted.
    pub length: Duration,
    /// A configuration of edgecore, instead of its defaults.
    pub edge_config: Option<PathBuf>,
    /// A configuration of cloudcore, instead of its defaults.
    pub cloud_config: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            devices: 10,
            length: Duration::from_secs(300),
            edge_config: None,
            cloud_config: None,
        }
    }
}

/// The line of output.
#[derive(Debug, Serialize)]
pub struct Row {
    id: &'static str,
    /// MB per day, both directions, with IP and UDP headers.
    value: f64,
    unit: &'static str,
    target: f64,
    met: bool,
    flush: &'static str,
    devices: u32,
    seconds: f64,
    /// MB per day from the edge and from the cloud.
    from_edge: f64,
    from_cloud: f64,
    /// Per day, from the edge and from the cloud.
    datagrams: [f64; 2],
    /// MB per day of samples and events, of reports and states, and of the session's messages (heartbeats and
    /// acknowledgements), as the programs count them.
    samples: f64,
    states: f64,
    control: f64,
    /// The rest: headers of IP and UDP, QUIC's packets and its own acknowledgements.
    transport: f64,
    /// Records from the edge in the time measured.
    records: f64,
    note: String,
}

/// Runs everything on loopback and counts. Without a configuration of edgecore, two sites side by side: one with its defaults,
/// one that records every reading by itself.
///
/// # Errors
/// When a program is missing or does not work.
pub async fn measure(plan: Plan) -> anyhow::Result<Vec<Row>> {
    if plan.edge_config.is_some() {
        return Ok(vec![site(plan, "idle").await?]);
    }
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("edgecore.yaml");
    std::fs::write(&config, EVERY_READING)?;
    let talkative = Plan {
        edge_config: Some(config),
        ..plan.clone()
    };
    let (default, talkative) = tokio::try_join!(site(plan, "idle"), site(talkative, "idle-unchanged-0s"))?;
    Ok(vec![default, talkative])
}

async fn site(plan: Plan, id: &'static str) -> anyhow::Result<Row> {
    let programs = programs()?;
    let dir = tempfile::tempdir()?;
    let site = Site::prepare(dir.path(), plan.devices, &STILL).await?;
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let (edge_config, cloud_config) = (text(&plan.edge_config), text(&plan.cloud_config));
    let manifests = site.path("manifests");
    let mut flags = vec!["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
    flags.extend(["--manifests", manifests.as_str()]);
    if let Some(config) = &cloud_config {
        flags.extend(["--config", config.as_str()]);
    }
    let cloud = site.launch(&programs, "cloudcore", &flags).start().await?;
    let relay = Relay::start(address(&cloud, "edges on ")?).await?;
    let hub = relay.address().to_string();
    let mut flags = vec!["--cloud", hub.as_str()];
    if let Some(config) = &edge_config {
        flags.extend(["--config", config.as_str()]);
    }
    let edge = site.launch(&programs, "edgecore", &flags).start().await?;
    let http = address(&edge, "health on ")?;

    tokio::time::sleep(WARM_UP).await;
    let (began, before, counted) = (Instant::now(), Lanes::of(http).await?, relay.counts());
    tokio::time::sleep(plan.length).await;
    let (after, counts) = (Lanes::of(http).await?, relay.counts() - counted);
    let seconds = began.elapsed().as_secs_f64();
    ensure!(after.links == 1.0, "the link was made {} times", after.links);
    ensure!(
        after.acked >= f64::from(plan.devices) * 3.0,
        "the devices' values are not in the cloud: {} samples",
        after.acked
    );
    stop(edge).await?;
    stop(cloud).await?;
    Ok(row(&plan, id, seconds, &after.since(&before), &counts))
}

fn row(plan: &Plan, id: &'static str, seconds: f64, lanes: &Lanes, counts: &Counts) -> Row {
    let daily = |bytes: f64| round(bytes / seconds * DAY / 1e6);
    let (edge, cloud) = (counts.from_edge.bytes(), counts.from_cloud.bytes());
    let mut note = format!(
        "counted from {} s after the start; sizes of datagrams:",
        WARM_UP.as_secs()
    );
    for (size, count) in counts.sizes() {
        write!(note, " {size}x{count}").ok();
    }
    Row {
        id,
        value: daily(edge + cloud),
        unit: "MB per day, 28 bytes of IP and UDP per datagram included",
        target: TARGET_MB,
        met: daily(edge + cloud) <= TARGET_MB,
        flush: "fdatasync before every acknowledgement",
        devices: plan.devices,
        seconds: round(seconds),
        from_edge: daily(edge),
        from_cloud: daily(cloud),
        datagrams: [&counts.from_edge, &counts.from_cloud].map(|way| round(way.datagrams() / seconds * DAY)),
        samples: daily(lanes.data),
        states: daily(lanes.state),
        control: daily(lanes.control),
        transport: daily(edge + cloud - lanes.data - lanes.state - lanes.control),
        records: lanes.records,
        note,
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// What edgecore says of its link.
struct Lanes {
    data: f64,
    state: f64,
    control: f64,
    records: f64,
    acked: f64,
    links: f64,
}

impl Lanes {
    async fn of(http: SocketAddr) -> anyhow::Result<Lanes> {
        let text = http_get(http, "/metrics").await.context("edgecore's metrics")?;
        let bytes = |lane: &str| metric(&text, "ledge_repl_bytes_total", &[("lane", lane)]);
        Ok(Lanes {
            data: bytes("up.data"),
            state: bytes("up.state"),
            control: bytes("control"),
            records: metric(&text, "ledge_repl_records_total", &[("direction", "sent")]),
            acked: metric(&text, "ledge_repl_acked_seq", &[("lane", "up.data")]),
            links: metric(&text, "ledge_link_established_total", &[]),
        })
    }

    fn since(&self, before: &Lanes) -> Lanes {
        Lanes {
            data: self.data - before.data,
            state: self.state - before.state,
            control: self.control - before.control,
            records: self.records - before.records,
            acked: self.acked,
            links: self.links,
        }
    }
}
