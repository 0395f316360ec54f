//! What happens: start, work, outage, power cut, work offline, return, and the claims.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ledge_proto::ids::{Lane, NameError, Scope};
use serde_json::Value;
use tokio::time::sleep;

use super::claims::{self, Claim, LookError, Side};
use super::daemons::{Daemon, ProcessError};
use super::probe::{self, http_get, http_json, metric};
use super::relay::Relay;
use super::site::{COUNTER, DEVICE, NODE, Pace, RegisterMap, SETPOINT, Site, SiteError, address};
use crate::moment::Moment;

const SOON: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the user chose.
#[derive(Debug, Clone)]
pub struct Choices {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// Where cloudcore and edgecore are.
    pub programs: PathBuf,
    /// A device of the user's own.
    pub device: Option<SocketAddr>,
    /// Where it keeps what.
    pub registers: RegisterMap,
}

/// Why the story could not be told to its end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its source's kind")]
pub enum StoryError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error(transparent)]
    Look(#[from] LookError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("waited {waited:?} for {what}; last seen: {seen}")]
    Waited {
        what: String,
        waited: Duration,
        seen: String,
    },
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> StoryError {
    let what = what.to_owned();
    move |source| StoryError::Io { what, source }
}

/// Tells the story as it happens.
pub struct Narrator<'a> {
    /// Receives whole lines.
    pub tell: &'a mut dyn FnMut(&str),
    began: Instant,
    step: u32,
}

impl<'a> Narrator<'a> {
    /// A narrator that starts its clock now.
    pub fn new(tell: &'a mut dyn FnMut(&str)) -> Self {
        Narrator {
            tell,
            began: Instant::now(),
            step: 0,
        }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn step(&mut self, title: &str) {
        self.step += 1;
        let line = format!(
            "\n{}. {title}   [{:.1} s]",
            self.step,
            self.began.elapsed().as_secs_f64()
        );
        (self.tell)(&line);
    }

    fn say(&mut self, text: &str) {
        for line in text.lines() {
            (self.tell)(&format!("   {line}"));
        }
    }
}

impl std::fmt::Debug for Narrator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Narrator")
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

struct Running {
    site: Site,
    scope: Scope,
    relay: Relay,
    device: SocketAddr,
    simulator: Option<Daemon>,
    cloud: Daemon,
    cloud_http: SocketAddr,
    edge: Daemon,
    edge_http: SocketAddr,
}

/// Tells the whole story and returns its claims.
///
/// # Errors
/// When it cannot be told to its end; claims that do not hold are not errors.
pub async fn tell(choices: &Choices, narrator: &mut Narrator<'_>) -> Result<Vec<Claim>, StoryError> {
    let mut running = begin(choices, narrator).await?;
    work_online(&mut running, narrator).await?;
    let outage = cut_the_link(&mut running, narrator).await?;
    let (running, interruptions) = lose_power(running, narrator).await?;
    let ending = come_back(&running, &outage, narrator).await?;
    finish(running, &outage, &ending, interruptions, narrator).await
}

async fn begin(choices: &Choices, narrator: &mut Narrator<'_>) -> Result<Running, StoryError> {
    narrator.step("Start a cloud, an edge and a device");
    let ledge = std::env::current_exe().map_err(io_error("this program's own path"))?;
    let site = Site::prepare(
        &choices.dir,
        choices.programs.clone(),
        ledge,
        Pace::default(),
        choices.registers,
    )?;
    let (simulator, device) = match choices.device {
        Some(device) => {
            narrator.say(&format!("device     {device}, yours"));
            (None, device)
        }
        None => {
            let (simulator, device) = site.start_device().await?;
            narrator.say(&format!("device     {device}, simulated: Modbus TCP, unit 1"));
            (Some(simulator), device)
        }
    };
    site.write_manifests(device, 30.0)?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let cloud = site.cloudcore(any)?.start().await?;
    let cloud_http = address(&cloud, "health on ")?;
    let hub = address(&cloud, "edges on ")?;
    narrator.say(&format!(
        "cloudcore  edges on {hub}, fleet on http://{cloud_http}/v1/nodes"
    ));
    let relay = Relay::start(hub)
        .await
        .map_err(io_error("the link between edge and cloud"))?;
    let edge = site.edgecore(relay.address())?.start().await?;
    let edge_http = address(&edge, "health on ")?;
    narrator.say(&format!(
        "edgecore   node {NODE}, dials {} (a link this program can cut)",
        relay.address()
    ));
    let scope = Scope::node(NODE)?;
    Ok(Running {
        site,
        scope,
        relay,
        device,
        simulator,
        cloud,
        cloud_http,
        edge,
        edge_http,
    })
}

async fn work_online(running: &mut Running, narrator: &mut Narrator<'_>) -> Result<(), StoryError> {
    narrator.step("Telemetry arrives");
    let cloud = running.cloud_http;
    wait_for("the first samples in the cloud", SOON, async || {
        let node = http_json(cloud, &format!("/v1/nodes/{NODE}")).await?;
        let samples = &twin(&node, "temperature")["samples"];
        Ok((samples.as_u64() >= Some(5), samples.to_string()))
    })
    .await?;
    for _ in 0..4 {
        let node = http_json(cloud, &format!("/v1/nodes/{NODE}"))
            .await
            .map_err(io_error("cloudcore"))?;
        let temperature = twin(&node, "temperature");
        narrator.say(&format!(
            "cloud sees {DEVICE}: temperature {:>5} °C, {} samples, lag {} records",
            temperature["reported"], temperature["samples"], node["link"]["lagRecords"],
        ));
        sleep(Duration::from_millis(500)).await;
    }

    narrator.step("A desired value reaches the device");
    let register = running.site.registers().setpoint;
    narrator.say(&format!(
        "edit the manifest: {SETPOINT} desired 35 °C (register {register} should hold 350)"
    ));
    let edited = Instant::now();
    running.site.write_manifests(running.device, 35.0)?;
    wait_register(running.device, register, 350).await?;
    narrator.say(&format!(
        "the device's register holds 350 after {:.0} ms",
        edited.elapsed().as_secs_f64() * 1e3
    ));
    wait_reported(cloud, 35.0).await?;
    narrator.say(&format!(
        "the cloud sees it reported after {:.0} ms",
        edited.elapsed().as_secs_f64() * 1e3
    ));
    Ok(())
}

/// What is remembered of the outage.
struct Outage {
    began: Instant,
    middle: Moment,
    /// Where the cloud's copy of the node's streams ended.
    cloud_had: u64,
}

async fn cut_the_link(running: &mut Running, narrator: &mut Narrator<'_>) -> Result<Outage, StoryError> {
    narrator.step("The link dies");
    running.relay.cut();
    let began = Instant::now();
    narrator.say("every packet between edge and cloud is dropped; neither side is told");
    let (edge, cloud) = (running.edge_http, running.cloud_http);
    wait_for("edgecore to notice", SOON, async || {
        let up = metric(&http_get(edge, "/metrics").await?, "ledge_link_up", &[]);
        Ok((up == 0.0, format!("ledge_link_up {up}")))
    })
    .await?;
    narrator.say(&format!(
        "edgecore noticed after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    wait_for("cloudcore to notice", SOON, async || {
        let node = http_json(cloud, &format!("/v1/nodes/{NODE}")).await?;
        Ok((node["link"]["connected"] == false, node["link"].to_string()))
    })
    .await?;
    let cloud_had = held(&running.site.cloud_dir(), &running.scope)?;
    narrator.say("meanwhile in the cloud: the manifest is edited, desired 42 °C; the edge cannot know yet");
    running.site.write_manifests(running.device, 42.0)?;
    let register = running.site.registers().setpoint;
    narrator.say("meanwhile at the device: somebody turns the knob to 10 °C");
    probe::write_register(running.device, register, 100)
        .await
        .map_err(io_error("the device"))?;
    wait_register(running.device, register, 350).await?;
    narrator.say("edgecore, alone, turned it back to 35 °C: the last desired value it knows stays in force");
    sleep(Duration::from_secs(2)).await;
    Ok(Outage {
        began,
        middle: Moment::now(),
        cloud_had,
    })
}

async fn lose_power(
    mut running: Running,
    narrator: &mut Narrator<'_>,
) -> Result<(Running, usize), StoryError> {
    narrator.step("The edge loses power");
    let edge_had = held(&running.site.edge_dir(), &running.scope)?;
    let Running { edge, .. } = running;
    edge.kill().await?;
    narrator.say("edgecore killed with SIGKILL, no last words");
    sleep(Duration::from_millis(500)).await;
    running.edge = running.site.edgecore(running.relay.address())?.start().await?;
    running.edge_http = address(&running.edge, "health on ")?;
    narrator.say("edgecore started again, still without a link");
    let edge_dir = running.site.edge_dir();
    let scope = running.scope.clone();
    wait_for("edgecore to go on collecting", SOON, async || {
        let now = held(&edge_dir, &scope).map_err(|err| io::Error::other(err.to_string()))?;
        Ok((now >= edge_had + 20, format!("{now} records, {edge_had} before")))
    })
    .await?;
    let now = held(&running.site.edge_dir(), &running.scope)?;
    narrator.say(&format!(
        "it goes on collecting: {edge_had} records before, {now} now"
    ));
    let register = running.site.registers().setpoint;
    probe::write_register(running.device, register, 100)
        .await
        .map_err(io_error("the device"))?;
    wait_register(running.device, register, 350).await?;
    narrator.say("and controlling: the knob was turned again, edgecore turned it back");
    sleep(Duration::from_secs(2)).await;
    // One answer may have been in flight at the SIGKILL, and one at the final stop.
    Ok((running, 2))
}

/// What is remembered of the return.
struct Ending {
    backlog: u64,
    sent_records: f64,
    sent_bytes: f64,
    edge_at_return: u64,
}

async fn come_back(
    running: &Running,
    outage: &Outage,
    narrator: &mut Narrator<'_>,
) -> Result<Ending, StoryError> {
    narrator.step("The link returns");
    let edge_at_return = held(&running.site.edge_dir(), &running.scope)?;
    let backlog = edge_at_return - outage.cloud_had;
    let dropped = running.relay.dropped();
    running.relay.restore();
    let restored = Instant::now();
    narrator.say(&format!(
        "after {:.1} s without a link ({dropped} packets dropped), {backlog} records wait on the edge",
        outage.began.elapsed().as_secs_f64()
    ));
    let cloud = running.cloud_http;
    wait_for("the cloud to catch up", SOON, async || {
        let node = http_json(cloud, &format!("/v1/nodes/{NODE}")).await?;
        let link = &node["link"];
        let done = link["connected"] == true
            && link["lagRecords"].as_u64().is_some_and(|lag| lag < 50)
            && held(&running.site.cloud_dir(), &running.scope).is_ok_and(|have| have >= edge_at_return);
        Ok((done, link.to_string()))
    })
    .await?;
    let metrics = http_get(running.edge_http, "/metrics")
        .await
        .map_err(io_error("edgecore"))?;
    let sent_records = metric(&metrics, "ledge_repl_records_total", &[("direction", "sent")]);
    let sent_bytes = metric(&metrics, "ledge_repl_bytes_total", &[("direction", "sent")]);
    narrator.say(&format!(
        "caught up {:.0} ms after the link returned: {sent_records} records in {sent_bytes} bytes went over",
        restored.elapsed().as_secs_f64() * 1e3
    ));
    wait_register(running.device, running.site.registers().setpoint, 420).await?;
    narrator.say("the desired value set during the outage is in the device: 42 °C");
    wait_reported(cloud, 42.0).await?;
    Ok(Ending {
        backlog,
        sent_records,
        sent_bytes,
        edge_at_return,
    })
}

async fn finish(
    running: Running,
    outage: &Outage,
    ending: &Ending,
    interruptions: usize,
    narrator: &mut Narrator<'_>,
) -> Result<Vec<Claim>, StoryError> {
    narrator.step("Stop, and check every claim");
    let Running {
        site,
        scope,
        device,
        simulator,
        cloud,
        edge,
        ..
    } = running;
    let in_device = probe::read_register(device, site.registers().setpoint)
        .await
        .map_err(io_error("the device"))?;
    edge.stop().await?;
    cloud.stop().await?;
    drop(simulator);
    let counter_key = format!("{DEVICE}/{COUNTER}");
    let edge = Side::read(&site.edge_dir(), &scope, &counter_key)?;
    let cloud = Side::read(&site.cloud_dir(), &scope, &counter_key)?;
    let mut claims = vec![claims::nothing_lost_or_doubled(&edge, &cloud)];
    if site.registers().counter.is_some() {
        let handed_out = claims::handed_out(&site.device_journal())?;
        claims.push(claims::device_agrees(&handed_out, &cloud, interruptions));
    }
    claims.push(claims::same_hash(&edge, &cloud, &scope));
    claims.push(only_the_missing_part(&cloud, outage, ending));
    claims.push(Claim::new(
        "The desired value set during the outage is in the device",
        in_device == 420,
        format!("register holds {in_device}, wanted 420 (42.0 °C)"),
    ));
    claims.extend(answers(&site, outage, narrator).await?);
    Ok(claims)
}

/// Every record beyond what the cloud had was sent once; none of the others were sent again.
fn only_the_missing_part(cloud: &Side, outage: &Outage, ending: &Ending) -> Claim {
    let up = |lane| cloud.ends.get(&lane).map_or(0, |(_, records)| *records);
    let whole = up(Lane::UpState) + up(Lane::UpData);
    #[allow(clippy::cast_precision_loss, reason = "a few thousand records")]
    let missing = (whole - outage.cloud_had) as f64;
    #[allow(clippy::cast_precision_loss, reason = "a few thousand records")]
    let backlog = ending.backlog as f64;
    Claim::new(
        "Only the missing part was sent",
        ending.sent_records >= backlog && ending.sent_records <= missing,
        format!(
            "the cloud had {}, {} were missing, {} records ({} bytes) were sent by the time it had caught up",
            outage.cloud_had,
            ending.edge_at_return - outage.cloud_had,
            ending.sent_records,
            ending.sent_bytes
        ),
    )
}

async fn answers(
    site: &Site,
    outage: &Outage,
    narrator: &mut Narrator<'_>,
) -> Result<Vec<Claim>, StoryError> {
    let (edge, cloud, ledge) = (site.edge_dir(), site.cloud_dir(), site.ledge());
    let query = format!(
        "SELECT property, count(*) AS samples, min(value) AS lowest, max(value) AS highest FROM samples \
         WHERE node = '{NODE}' GROUP BY property ORDER BY property"
    );
    let sql = |dir: &Path| vec!["sql".to_owned(), dir.display().to_string(), query.clone()];
    let (same, told) = claims::same_answer(ledge, &edge, &cloud, sql).await?;
    narrator.say(&format!("ledge sql DIR \"{query}\""));
    narrator.say(&told);
    let mut claims = vec![Claim::new(
        "The same SQL gives the same answer on edge and cloud",
        same,
        "see above",
    )];
    let middle = outage.middle.to_string();
    let at = |dir: &Path| {
        ["at", &dir.display().to_string(), "--time", &middle]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (same, told) = claims::same_answer(ledge, &edge, &cloud, at).await?;
    narrator.say(&format!("ledge at DIR --time {middle}"));
    narrator.say(&told);
    let shows = told.contains("boiler") && told.contains(SETPOINT);
    claims.push(Claim::new(
        "The state as it was in the middle of the outage, on either side",
        same && shows,
        "see above",
    ));
    let mut clean = true;
    let mut told = Vec::new();
    for dir in [&edge, &cloud] {
        let (ok, output) = claims::verify_clean(ledge, dir).await?;
        clean &= ok;
        told.push(if ok { "intact".to_owned() } else { output });
    }
    claims.push(Claim::new(
        "`ledge log verify` finds both logs intact",
        clean,
        told.join(", "),
    ));
    Ok(claims)
}

/// Records the log in `dir` holds of the node's own streams.
fn held(dir: &Path, scope: &Scope) -> Result<u64, LookError> {
    claims::records_up(dir, scope)
}

fn twin<'a>(node: &'a Value, property: &str) -> &'a Value {
    &node["devices"][DEVICE]["twins"][property]
}

async fn wait_reported(cloud: SocketAddr, degrees: f64) -> Result<(), StoryError> {
    wait_for(
        &format!("the cloud to see {SETPOINT} reported as {degrees}"),
        SOON,
        async || {
            let node = http_json(cloud, &format!("/v1/nodes/{NODE}")).await?;
            let reported = &twin(&node, SETPOINT)["reported"];
            Ok((
                reported
                    .as_f64()
                    .is_some_and(|seen| (seen - degrees).abs() < 0.05),
                reported.to_string(),
            ))
        },
    )
    .await
}

async fn wait_register(device: SocketAddr, register: u16, value: u16) -> Result<(), StoryError> {
    wait_for(
        &format!("register {register} of the device to hold {value}"),
        SOON,
        async || {
            let seen = probe::read_register(device, register).await?;
            Ok((seen == value, seen.to_string()))
        },
    )
    .await
}

/// Looks until `look` says yes. Looking may fail meanwhile.
async fn wait_for(
    what: &str,
    limit: Duration,
    look: impl AsyncFn() -> io::Result<(bool, String)>,
) -> Result<(), StoryError> {
    let began = Instant::now();
    loop {
        let seen = match look().await {
            Ok((true, _)) => return Ok(()),
            Ok((false, seen)) => seen,
            Err(err) => err.to_string(),
        };
        if began.elapsed() >= limit {
            return Err(StoryError::Waited {
                what: what.to_owned(),
                waited: limit,
                seen,
            });
        }
        sleep(LOOK_EVERY).await;
    }
}
