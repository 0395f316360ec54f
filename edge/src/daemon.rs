//! The daemon's life: build (open and bind, start nothing), spawn, wait, drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ledge_daemon::health::Health;
use ledge_daemon::http::{HttpError, HttpFace};
use ledge_daemon::logging::{self, LogLevelError};
use ledge_daemon::settings::{Load, Settings};
use ledge_daemon::tasks::Tasks;
use ledge_daemon::{closing, damage, disk, log_metrics, retention, signal, status};
use ledge_log::{BlockNo, DiskStorage, Log, OnDamage, OnLostData, Options};
use ledge_metaserver::MetaServer;
use ledge_projection::{FollowError, Follower, Opened, Projection, ProjectionError};
use ledge_proto::ids::{Lane, NameError, Scope, Seq, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::session::{ArchivePolicy, Backoff, Local};
use ledge_proto::v1;
use ledge_replication::cert_clock::CertClock;
use ledge_replication::certs::{self, CertError, CertFiles};
use ledge_replication::fences::Fences;
use ledge_replication::link::Drain;
use ledge_replication::reset::{OwnAppends, ResetError};
use ledge_replication::tls::{self, TlsError};
use ledge_retention::budget::{Budget, BudgetError};
use ledge_retention::{Policy, reset};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, LogFormat};
use crate::hub::{HubClient, HubStatus};
use crate::mapper::{MapperManager, MapperOptions};
use crate::node::{self, LogJournal, SystemClock, boot_id, clock};
use crate::twin::{Clock, DeviceTable, Journal, JournalError, NewRecord};
use crate::{meta, tables};

/// Draining, in all below ten seconds: devices are let go first, then the cloud may take what is left, then the rest
/// stops.
const DRAIN_DEVICES: Duration = Duration::from_secs(4);
const DRAIN_LINK: Duration = Duration::from_secs(2);
const DRAIN_REST: Duration = Duration::from_secs(3);
/// Size of a segment where neither the operator nor a small limit says otherwise.
const SEGMENT_BYTES: u64 = 64 << 20;
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(1);

/// Why edgecore could not start or had to stop.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its source's kind")]
pub enum DaemonError {
    #[error(transparent)]
    LogLevel(#[from] LogLevelError),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error("{0} is not a node's certificate: make one with `ledge cert node NAME`")]
    NotANode(PathBuf),
    #[error(
        "the certificate names node {certificate}, the configuration {configured}: use that node's certificate, or leave the name out"
    )]
    NodeName { certificate: String, configured: String },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Disk(#[from] BudgetError),
    #[error(transparent)]
    OpenLog(#[from] ledge_log::OpenError),
    #[error(transparent)]
    CloseLog(#[from] ledge_log::CloseError),
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    #[error("projection: {0}")]
    Follow(#[from] FollowError),
    #[error("a new epoch that was cut off cannot be completed: {0}")]
    Reset(#[from] ResetError),
    #[error("log: {0}")]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    MetaServer(#[from] ledge_metaserver::OpenError),
}

/// edgecore, built but not running.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
    scope: Scope,
    log: Log,
    projection: Projection,
    budget: Budget,
    http: Option<HttpFace>,
    health: Health,
    hub: Option<HubClient>,
    meta: Option<MetaServer>,
    appends: OwnAppends,
    /// The first and the last of the durable blocks that the disk lost.
    lost: Option<(BlockNo, BlockNo)>,
}

impl Daemon {
    /// The whole life of the daemon, until a signal or a failed log. `load` reads the configuration again.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub fn build_and_run(config: Config, load: Load) -> Result<(), DaemonError> {
        logging::init(&config.log_level, config.log_format == LogFormat::Json)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("edgecore")
            .enable_all()
            .build()
            .map_err(DaemonError::Runtime)?;
        runtime.block_on(async {
            let stop = signal::stop_requested();
            let settings = Settings::new(config.disk.clone(), load);
            let daemon = Daemon::build(config, &stop).await?;
            if stop.is_cancelled() {
                // The projection may be behind: nothing may act on it.
                return Ok(closing::close(daemon.projection, daemon.log)?);
            }
            daemon.run(stop, settings).await
        })
    }

    /// Opens the log, brings the projection up to it, binds what listens. Nothing runs yet. Once `stop` is cancelled
    /// the rest is done in a hurry and the daemon may not be run.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn build(config: Config, stop: &CancellationToken) -> Result<Daemon, DaemonError> {
        if let Some(message) = config.without_effect_message() {
            tracing::info!("{message}");
        }
        let files = CertFiles {
            ca: config.tls.ca.clone(),
            cert: config.tls.cert.clone(),
            key: config.tls.key.clone(),
        };
        let identity = certs::identity_of_file(&files.cert)?;
        let scope = identity
            .node
            .ok_or_else(|| DaemonError::NotANode(files.cert.clone()))?;
        let node = scope.node_name().unwrap_or_default().to_owned();
        if let Some(configured) = &config.node_name
            && *configured != node
        {
            return Err(DaemonError::NodeName {
                certificate: node,
                configured: configured.clone(),
            });
        }
        let clock = CertClock::default();
        let tls = tls::client_config_at(&files, &clock)?;
        if let Some(problem) = identity.validity.problem(clock.now()) {
            tracing::error!(cert = %files.cert.display(), "{problem}; cloudcore will refuse it: renew it with `ledge cert node {node}`");
        }
        let budget = disk::budget(&config.data_dir, &config.disk, shares(&config))?;
        let options = Options {
            segment_bytes: budget.segment_bytes,
            max_bytes: budget.log_bytes,
            reserve_bytes: config.disk.reserve_bytes,
            linger: ledge_log::Linger {
                up_state: config.log.linger_state,
                up_data: config.log.linger_data,
                ..Default::default()
            },
            on_damage: OnDamage::Quarantine,
            // The cloud has what was sent of it; the node's devices cannot wait for anybody to look.
            on_lost_data: OnLostData::NewEpoch,
            ..Options::new(identity.cluster, node.clone())
        };
        let (log, recovery) = Log::open(Arc::new(DiskStorage), &config.data_dir.join("log"), options)?;
        tracing::info!(node, incarnation = %log.identity().incarnation, boot = log.identity().boot, ?recovery, "log open");
        damage::tell(&log);
        let lost = damage::lost_blocks(&recovery);
        if let Some((first, last)) = lost {
            tracing::error!(%first, %last, "the disk lost these blocks, which were durable: the node's streams go on under a new epoch");
        }
        if let Some(wall_us) = newest_record_us(&log, &scope) {
            clock.not_before_record(wall_us, identity.validity);
        }
        let projection = open_projection(&config, &log, stop)?;
        let health = Health::new();
        let http = match config.http_listen {
            Some(address) => Some(HttpFace::bind(address, health.clone()).await?),
            None => None,
        };
        let appends = OwnAppends::default();
        let noted = projection.clone();
        let hub = config.cloud.clone().map(|cloud| HubClient {
            cloud,
            server_name: config.server_name.clone(),
            tls,
            log: log.clone(),
            projection: projection.clone(),
            local: Local {
                cluster: identity.cluster,
                node: scope.clone(),
                incarnation: log.identity().incarnation,
                boot_id: boot_id(),
                labels: config.labels.clone(),
                software: format!("edgecore {}", env!("CARGO_PKG_VERSION")),
                heartbeat: config.heartbeat,
                // The cloud proposes; the rest of it is the cloud's to say.
                heartbeat_idle: config.heartbeat,
                nonce: [0; 16],
                wall_us: 0,
                receipts: None,
                archive: ArchivePolicy::FollowDurable,
            },
            fences: Fences::new(move || noted.view()),
            appends: appends.clone(),
            backoff: Backoff::new(config.backoff_first, config.backoff_longest),
            drain: Drain::new(config.drain.rate, config.drain.hours.clone()),
            status: Arc::default(),
        });
        let status = hub.as_ref().map(|hub| &*hub.status);
        let meta = match config.meta_server {
            Some(at) => Some(meta::open(at, &log, &projection, &scope, &appends, status).await?),
            None => None,
        };
        Ok(Daemon {
            config,
            scope,
            log,
            projection,
            budget,
            http,
            health,
            hub,
            meta,
            appends,
            lost,
        })
    }

    /// Runs until `stop` or a failed log, then drains: the log is closed last.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn run(self, stop: CancellationToken, settings: Settings) -> Result<(), DaemonError> {
        let Daemon {
            config,
            scope,
            log,
            projection,
            budget,
            http,
            health,
            hub,
            meta,
            appends,
            lost,
        } = self;
        damage::measure_lost(lost);
        let journal = LogJournal::new(log.clone(), &scope, appends);
        let shutdown = CancellationToken::new();
        let let_go = shutdown.child_token();
        let follower = Follower::start(log.clone(), projection.clone());
        let (mut devices, mut tasks) = (Tasks::new(), Tasks::new());
        let keeper = retention::Parts {
            log: log.clone(),
            policy: Policy {
                max_age: config.disk.max_age,
                degrade: config.disk.degrade,
                ..Policy::default()
            },
            archived: archived(hub.as_ref()),
            dir: config.data_dir.clone(),
            budget: watch::Sender::new(budget),
            shares: shares(&config),
            health: health.clone(),
        };
        // Before anything else is appended, and before a base hides where it was cut off.
        let (first, of, node) = (keeper.clone(), log.clone(), scope.clone());
        let unfinished = tokio::task::spawn_blocking(move || {
            let finished = finish_epochs(&of, &node).or_else(|_| {
                retention::make_room(&first);
                finish_epochs(&of, &node)
            });
            retention::make_room(&first);
            finished
        });
        if let Ok(finished) = unfinished.await {
            finished?;
        }
        announce(
            &journal,
            announcement(&config, &scope, lost),
            &mut tasks,
            &shutdown,
        )
        .await?;
        let mut address = "off".to_owned();
        let software = format!("edgecore {}", env!("CARGO_PKG_VERSION"));
        let measured = log_metrics::Measured::new(&keeper, &projection, software);
        if let Some(http) = http {
            address = shown(http.address());
            let http = http.with(status::router(measured.clone()));
            tasks.spawn("http", http.serve(shutdown.clone()));
        }
        tasks.spawn("status", status::note(measured.clone(), shutdown.clone()));
        tasks.spawn("log-metrics", log_metrics::publish(measured, shutdown.clone()));
        tasks.spawn("retention", retention::run(keeper, settings, shutdown.clone()));
        tasks.spawn("damage", damage::look_for(log.clone(), shutdown.clone()));
        tasks.spawn(
            "clock",
            clock::watch(journal.clone(), log.clone(), scope.clone(), shutdown.clone()),
        );
        let (table_in, table) = watch::channel(Arc::new(DeviceTable::default()));
        tasks.spawn(
            "device-table",
            tables::follow(projection.clone(), scope.clone(), table_in, shutdown.clone()),
        );
        let mappers = MapperOptions {
            unchanged: config.unchanged,
            ..MapperOptions::new(scope.clone())
        };
        let (failed_in, mut failed) = watch::channel(None);
        devices.spawn(
            "mappers",
            run_mappers(mappers, journal.clone(), table, failed_in, let_go.clone()),
        );
        let cloud = hub
            .as_ref()
            .map_or_else(|| "none".to_owned(), |hub| hub.cloud.clone());
        let status = hub.as_ref().map(|hub| hub.status.clone());
        node::speak(
            &mut tasks,
            &config,
            &scope,
            &journal,
            &projection,
            status.clone(),
            &shutdown,
        );
        if let Some(hub) = hub {
            tasks.spawn("hub", hub.run(shutdown.clone()));
        }
        let mut meta_address = "off".to_owned();
        if let Some(meta) = meta {
            meta_address = shown(meta.address());
            tasks.spawn("metaserver", meta.run(shutdown.clone()));
        }
        println!(
            "edgecore ready: node {scope}, cloud {cloud}, metrics and health on {address}, MetaServer on {meta_address}"
        );
        let failure = wait(&stop, &mut failed, &follower, &health).await;
        let_go.cancel();
        let mut late = devices.join(DRAIN_DEVICES).await;
        if failure.is_none() {
            say_goodbye(&journal, &scope, &log, status.as_deref()).await;
        }
        shutdown.cancel();
        late.extend(tasks.join(DRAIN_REST).await);
        tracing::info!(?late, "drained");
        let followed = follower.stop();
        closing::close(projection, log)?;
        followed?;
        failure.map_or(Ok(()), |err| Err(err.into()))
    }
}

/// An address for people.
fn shown(address: std::io::Result<SocketAddr>) -> String {
    address.map_or_else(|err| err.to_string(), |address| address.to_string())
}

/// How far the node's streams are archived: as far as the cloud said in this start of the daemon, or as was noted before.
fn archived(hub: Option<&HubClient>) -> retention::Archived {
    let cloud = hub.map(|hub| (hub.status.clone(), hub.fences.clone()));
    Arc::new(move |key| {
        let Some((status, fences)) = &cloud else {
            return Seq::ZERO;
        };
        let of_stream = |acked: &&v1::Acknowledged| {
            (acked.scope.as_str(), acked.lane) == (key.id.scope.as_wire(), key.id.lane.as_wire())
                && acked.incarnation == key.incarnation.0.as_slice()
        };
        let noted = match fences.of(&key.id.scope) {
            Ok(fences) => fences
                .edge()
                .acknowledged
                .iter()
                .find(of_stream)
                .map_or(Seq::ZERO, |acked| Seq(acked.archived_seq)),
            Err(err) => {
                // What is not known to be archived is kept, or gets a gap record.
                tracing::warn!(%err, stream = %key, "cannot tell how far it is archived");
                Seq::ZERO
            }
        };
        noted.max(status.archived(key))
    })
}

/// Completes new epochs that a crash cut off.
fn finish_epochs(log: &Log, scope: &Scope) -> Result<(), ResetError> {
    let keys = [Lane::UpState, Lane::UpData].map(|lane| log.own_key(&StreamId::new(scope.clone(), lane)));
    for done in reset::finish(log, &keys, SystemClock.stamp())? {
        let missing = done.appended_again;
        if missing > 0 || done.records.is_some() {
            tracing::warn!(stream = %done.key.id, missing, "a new epoch was cut off; it is completed now");
        }
    }
    Ok(())
}

/// Wall clock of the newest record the node wrote while its clock was set.
fn newest_record_us(log: &Log, scope: &Scope) -> Option<i64> {
    let newest = |lane| {
        let key = log.own_key(&StreamId::new(scope.clone(), lane));
        let end = log.durable(&key)?.position.seq;
        let frame = log
            .read_stream(&key, Seq(end.0.saturating_sub(1)))
            .next()
            .ok()??;
        let times = frame
            .records()
            .ok()?
            .filter_map(|item| item.ok())
            .filter(|(_, record)| record.clock() == v1::ClockQuality::ClockSynced)
            .map(|(_, record)| record.wall_us);
        times.max()
    };
    newest(Lane::UpState).max(newest(Lane::UpData))
}

/// The last record of an orderly stop, and a moment for the cloud to take everything.
async fn say_goodbye(journal: &LogJournal, scope: &Scope, log: &Log, status: Option<&HubStatus>) {
    let stopped = NewRecord {
        key: scope.node_name().unwrap_or_default().to_owned(),
        payload: Payload::DaemonEvent(v1::Event {
            reason: "Stopped".into(),
            message: String::new(),
        }),
        stamp: SystemClock.stamp(),
        cause: None,
    };
    if let Err(err) = journal.append(Lane::UpData, vec![stopped]).await {
        tracing::warn!(%err, "the stop could not be recorded");
    }
    let Some(status) = status else { return };
    match tokio::time::timeout(DRAIN_LINK, status.acknowledged(log)).await {
        Ok(true) => tracing::info!("the cloud has everything"),
        _ => tracing::info!("the cloud does not have everything yet; it gets the rest after the next start"),
    }
}

fn open_projection(config: &Config, log: &Log, stop: &CancellationToken) -> Result<Projection, DaemonError> {
    let (projection, opened) = Projection::open(
        &config.data_dir.join("projection"),
        log,
        &ledge_projection::Options::edge(),
    )?;
    match opened {
        Opened::Continuing => tracing::info!(applied = %projection.applied().block, "projection continues"),
        Opened::Rebuilding(reason) => tracing::info!(reason, "projection is folded again from the log"),
    }
    Follower::catch_up(log, &projection, || stop.is_cancelled())?;
    Ok(projection)
}

/// Waits for the reason to stop; an error when nobody asked for it.
async fn wait(
    stop: &CancellationToken,
    failed: &mut watch::Receiver<Option<JournalError>>,
    follower: &Follower,
    health: &Health,
) -> Option<JournalError> {
    let mut check = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            Ok(()) = failed.changed() => {
                if let Some(err) = failed.borrow().clone() {
                    tracing::error!(%err, "the log failed: stopping, so that it is opened and checked again");
                    return Some(err);
                }
            }
            _ = check.tick() => if !follower.is_running() {
                // Its error is told by the drain; the next start folds it again.
                tracing::error!("the projection stopped following the log: stopping");
                health.fail("projection", "it stopped following the log".to_owned());
                return None;
            }
        }
    }
}

/// The first records of every start: that it started, what the node is, and what its disk lost.
fn announcement(
    config: &Config,
    scope: &Scope,
    lost: Option<(BlockNo, BlockNo)>,
) -> impl Iterator<Item = (Lane, NewRecord)> {
    let stamp = SystemClock.stamp();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let name = scope.node_name().unwrap_or_default().to_owned();
    let record = move |payload| NewRecord {
        key: name.clone(),
        payload,
        stamp,
        cause: None,
    };
    let event = |reason: &str, message| {
        Payload::DaemonEvent(v1::Event {
            reason: reason.into(),
            message,
        })
    };
    let started = event("Started", format!("edgecore {version}"));
    let lost = lost.map(|(first, last)| {
        let message =
            format!("blocks {first} to {last} of the log were durable, and are not on the disk any more");
        event("DiskLostBlocks", message)
    });
    let state = Payload::NodeState(v1::NodeState {
        version,
        boot_id: boot_id(),
        labels: config.labels.clone(),
    });
    [
        Some((Lane::UpData, started)),
        lost.map(|lost| (Lane::UpData, lost)),
        Some((Lane::UpState, state)),
    ]
    .into_iter()
    .flatten()
    .map(move |(lane, payload)| (lane, record(payload)))
}

/// Appends the first records before anything else is; when the log is full, as soon as there is room.
async fn announce(
    journal: &LogJournal,
    announcement: impl Iterator<Item = (Lane, NewRecord)>,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> Result<(), JournalError> {
    for (lane, record) in announcement {
        match journal.append(lane, vec![record.clone()]).await {
            Err(err) if err.may_retry() => {
                tracing::error!(%err, "the start cannot be recorded yet");
                let (journal, shutdown) = (journal.clone(), shutdown.clone());
                tasks.spawn("announce", async move {
                    let recorded = append_when_there_is_room(&journal, lane, record);
                    tokio::select! {
                        () = recorded => {}
                        () = shutdown.cancelled() => {}
                    }
                });
            }
            appended => appended?,
        }
    }
    Ok(())
}

async fn append_when_there_is_room(journal: &LogJournal, lane: Lane, record: NewRecord) {
    loop {
        tokio::time::sleep(LOOK_FOR_ROOM_EVERY).await;
        // A log that failed is told of by the mappers' recorder.
        match journal.append(lane, vec![record.clone()]).await {
            Err(err) if err.may_retry() => {}
            _ => return,
        }
    }
}

async fn run_mappers(
    options: MapperOptions,
    journal: LogJournal,
    table: watch::Receiver<Arc<DeviceTable>>,
    failed: watch::Sender<Option<JournalError>>,
    shutdown: CancellationToken,
) {
    let manager = MapperManager::new(options);
    let stopped = manager.run(journal, Arc::new(SystemClock), table, shutdown).await;
    if !stopped.late.is_empty() {
        tracing::warn!(tasks = ?stopped.late, "mapper tasks were aborted");
    }
    if let Some(err) = stopped.journal {
        failed.send_replace(Some(err));
    }
}

/// What the division of the disk depends on besides its limit.
fn shares(config: &Config) -> disk::Shares {
    disk::Shares {
        segment_bytes: config.log.segment_bytes,
        usual_segment_bytes: SEGMENT_BYTES,
        projection: ledge_projection::Options::edge().disk_share(),
    }
}
