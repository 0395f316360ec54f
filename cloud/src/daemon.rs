//! The daemon's life: build (open and bind, start nothing), spawn, wait, drain.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ledge_controllers::device::{self, DeviceController};
use ledge_controllers::manifests::{WatchError, WatchOptions, Watcher};
use ledge_controllers::told::Told;
use ledge_daemon::health::Health;
use ledge_daemon::http::{HttpError, HttpFace};
use ledge_daemon::logging::{self, LogLevelError};
use ledge_daemon::settings::{Load, Settings};
use ledge_daemon::tasks::Tasks;
use ledge_daemon::{closing, damage, disk, log_metrics, retention, signal, status};
use ledge_log::{DiskStorage, Log, OnDamage, Options};
use ledge_projection::{FollowError, Follower, Opened, Projection, ProjectionError};
use ledge_proto::fence::receipt::ReceiptKey;
use ledge_proto::ids::{Scope, Seq};
use ledge_proto::limits;
use ledge_replication::certs::{self, CertError, CertFiles};
use ledge_replication::link::ReplaySlots;
use ledge_replication::reset::OwnAppends;
use ledge_replication::tls::{self, TlsError};
use ledge_retention::budget::BudgetError;
use ledge_retention::{Keeper, Policy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::config::{Config, LogFormat};
use crate::fleet::Fleet;
use crate::hub::{Hub, HubParts, ListenError};
use crate::kubernetes::{Kubernetes, KubernetesError};
use crate::leadership::{self, LeadershipError};
use crate::memory;

/// Size of a segment where neither the operator nor a small limit says otherwise.
const SEGMENT_BYTES: u64 = 256 << 20;
/// Everything that runs is told to stop and joined within this time.
const DRAIN: Duration = Duration::from_secs(8);

/// Why cloudcore could not start or had to stop.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its source's kind")]
pub enum DaemonError {
    #[error(transparent)]
    LogLevel(#[from] LogLevelError),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error("{cert} is the certificate of {node}, not cloudcore's: make one with `ledge cert cloud`")]
    NotACloud { cert: PathBuf, node: Scope },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Disk(#[from] BudgetError),
    #[error(transparent)]
    OpenLog(#[from] ledge_log::OpenError),
    #[error(transparent)]
    CloseLog(#[from] ledge_log::CloseError),
    #[error("the log failed: {0}; stopping, so that it is opened and checked again")]
    LogFailed(String),
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    #[error("cannot read {path}: {source}")]
    Key { path: PathBuf, source: std::io::Error },
    #[error("projection: {0}")]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Manifests(#[from] WatchError),
}

/// cloudcore, built but not running.
#[derive(Debug)]
pub struct Daemon {
    log: Log,
    projection: Projection,
    keeper: retention::Parts,
    http: Option<HttpFace>,
    kubernetes: Option<Kubernetes>,
    fleet: Fleet,
    health: Health,
    hub: Hub,
    manifests: Option<Watcher>,
    appends: OwnAppends,
}

impl Daemon {
    /// The whole life of the daemon, until a signal or a failed log. `load` reads the configuration again.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub fn build_and_run(config: Config, load: Load) -> Result<(), DaemonError> {
        logging::init(&config.log_level, config.log_format == LogFormat::Json)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("cloudcore")
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
        for message in [config.without_effect_message(), config.kubernetes_note.clone()]
            .into_iter()
            .flatten()
        {
            tracing::info!("{message}");
        }
        let files = CertFiles {
            ca: config.tls.ca.clone(),
            cert: config.tls.cert.clone(),
            key: config.tls.key.clone(),
        };
        let identity = certs::identity_of_file(&files.cert)?;
        if let Some(node) = identity.node {
            return Err(DaemonError::NotACloud {
                cert: files.cert,
                node,
            });
        }
        let cluster = identity.cluster;
        let tls = tls::server_config(&files)?;
        if let Some(problem) = identity.validity.problem(SystemTime::now()) {
            tracing::error!(cert = %files.cert.display(), "{problem}; edges will refuse it: renew it with `ledge cert cloud`");
        }
        let manifests = match &config.manifests {
            Some(dir) => Some(Watcher::start(dir, WatchOptions::default()).await?),
            None => None,
        };
        let budget = disk::budget(&config.data_dir, &config.disk, shares(&config))?;
        let options = Options {
            segment_bytes: budget.segment_bytes,
            max_bytes: budget.log_bytes,
            reserve_bytes: config.disk.reserve_bytes,
            on_damage: OnDamage::Quarantine,
            ..Options::new(cluster, "cloud".to_owned())
        };
        let (log, recovery) = Log::open(Arc::new(DiskStorage), &config.data_dir.join("log"), options)?;
        tracing::info!(%cluster, incarnation = %log.identity().incarnation, boot = log.identity().boot, ?recovery, "log open");
        damage::tell(&log);
        let (followed, health) = (log.clone(), Health::new());
        let keeper = retention::Parts {
            log: log.clone(),
            policy: Policy {
                keeper: Keeper::Cloud,
                max_age: config.disk.max_age,
                degrade: config.disk.degrade,
                ..Policy::default()
            },
            // There is no archive beside the log: what is durable here is archived.
            archived: Arc::new(move |key| followed.durable(key).map_or(Seq::ZERO, |mark| mark.position.seq)),
            dir: config.data_dir.clone(),
            budget: watch::Sender::new(budget),
            shares: shares(&config),
            health: health.clone(),
        };
        retention::make_room(&keeper);
        let (projection, opened) = Projection::open(
            &config.data_dir.join("projection"),
            &log,
            &ledge_projection::Options::cloud(),
        )?;
        match opened {
            Opened::Continuing => {
                tracing::info!(applied = %projection.applied().block, "projection continues")
            }
            Opened::Rebuilding(reason) => tracing::info!(reason, "projection is folded again from the log"),
        }
        Follower::catch_up(&log, &projection, || stop.is_cancelled())?;
        // What was folded has grown beside the log.
        retention::make_room(&keeper);
        let fences = leadership::begin(&log, &projection, config.restored, now_us()).await?;
        let appends = OwnAppends::default();
        let fleet = Fleet::new(log.clone(), projection.clone());
        let http = match config.http_listen {
            Some(address) => {
                let face = HttpFace::bind(address, health.clone()).await?;
                let api = Api {
                    log: log.clone(),
                    fleet: fleet.clone(),
                    projection: projection.clone(),
                    fences: fences.clone(),
                };
                Some(face.with(api::router(api)))
            }
            None => None,
        };
        let parts = HubParts {
            log: log.clone(),
            cluster,
            heartbeat: config.heartbeat,
            heartbeat_idle: (config.heartbeat * 5).min(Duration::from_millis(limits::HEARTBEAT_IDLE_MS)),
            fences: fences.clone(),
            appends: appends.clone(),
            receipts: receipt_key(&files)?,
            snapshots: Arc::new(projection.clone()),
            slots: ReplaySlots::new(replay_slots()),
            fleet: fleet.clone(),
        };
        let hub = Hub::bind(config.quic_listen, tls, parts)?;
        let told = Told {
            log: log.clone(),
            projection: projection.clone(),
            appends: appends.clone(),
        };
        let kubernetes = Kubernetes::open(&config, told).await?;
        Ok(Daemon {
            log,
            projection,
            keeper,
            http,
            kubernetes,
            fleet,
            health,
            hub,
            manifests,
            appends,
        })
    }

    /// Runs until `stop` or a failed log, then drains: the log is closed last.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn run(self, stop: CancellationToken, settings: Settings) -> Result<(), DaemonError> {
        let Daemon {
            log,
            projection,
            keeper,
            http,
            kubernetes,
            fleet,
            health,
            hub,
            manifests,
            appends,
        } = self;
        let shutdown = CancellationToken::new();
        let follower = Follower::start(log.clone(), projection.clone());
        let mut tasks = Tasks::new();
        let told = |address: std::io::Result<std::net::SocketAddr>| {
            address.map_or_else(|err| err.to_string(), |address| address.to_string())
        };
        let mut http_address = "off".to_owned();
        let software = format!("cloudcore {}", env!("CARGO_PKG_VERSION"));
        let measured = log_metrics::Measured::new(&keeper, &projection, software);
        if let Some(http) = http {
            http_address = told(http.address());
            let http = http.with(status::router(measured.clone()));
            tasks.spawn("http", http.serve(shutdown.clone()));
        }
        let mut api_address = String::new();
        let devices = DeviceController {
            told: Told {
                log: log.clone(),
                projection: projection.clone(),
                appends,
            },
            directory: manifests.as_ref().map(Watcher::subscribe),
            kubernetes: kubernetes.as_ref().map(|kubernetes| device::Kubernetes {
                client: kubernetes.client(),
                reports: Arc::new(fleet.clone()),
            }),
        };
        if devices.directory.is_some() || devices.kubernetes.is_some() {
            tasks.spawn("device-controller", devices.run(shutdown.clone()));
        }
        if let Some(kubernetes) = kubernetes {
            api_address = format!(", Kubernetes API on {}", kubernetes.place());
            kubernetes.spawn(&mut tasks, Arc::new(fleet), &shutdown);
        }
        tasks.spawn("status", status::note(measured.clone(), shutdown.clone()));
        tasks.spawn("log-metrics", log_metrics::publish(measured, shutdown.clone()));
        tasks.spawn("retention", retention::run(keeper, settings, shutdown.clone()));
        tasks.spawn("damage", damage::look_for(log.clone(), shutdown.clone()));
        tasks.spawn("memory", memory::give_back_once(shutdown.clone()));
        let hub_address = told(hub.address());
        tasks.spawn("hub", hub.run(shutdown.clone()));
        println!(
            "cloudcore ready: edges on {hub_address}, metrics and health on {http_address}{api_address}"
        );
        let failure = wait(&stop, &log, &follower, &health).await;
        shutdown.cancel();
        let late = tasks.join(DRAIN).await;
        if let Some(watcher) = manifests {
            watcher.stop().await;
        }
        tracing::info!(?late, "drained");
        let followed = follower.stop();
        closing::close(projection, log)?;
        followed?;
        failure.map_or(Ok(()), Err)
    }
}

/// The wall clock, microseconds since 1970.
fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Edges that may catch up at full speed at once: what the processors can take in, and memory can hold.
fn replay_slots() -> usize {
    const SLOTS_PER_CORE: usize = 64;
    SLOTS_PER_CORE * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Waits for the reason to stop; an error when nobody asked for it.
async fn wait(
    stop: &CancellationToken,
    log: &Log,
    follower: &Follower,
    health: &Health,
) -> Option<DaemonError> {
    let mut check = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            _ = check.tick() => {
                if let Some(reason) = log.stats().poisoned {
                    tracing::error!(reason, "the log failed");
                    return Some(DaemonError::LogFailed(reason));
                }
                if !follower.is_running() {
                    // Its error is told by the drain; the next start folds it again.
                tracing::error!("the projection stopped following the log: stopping");
                health.fail("projection", "it stopped following the log".to_owned());
                return None;
                }
            }
        }
    }
}

/// The private key outlives the data, so that receipts can be told from others after the data was put back.
fn receipt_key(files: &CertFiles) -> Result<ReceiptKey, DaemonError> {
    let secret = std::fs::read(&files.key).map_err(|source| DaemonError::Key {
        path: files.key.clone(),
        source,
    })?;
    Ok(ReceiptKey::of_secret(&secret))
}

/// What the division of the disk depends on besides its limit.
fn shares(config: &Config) -> disk::Shares {
    disk::Shares {
        segment_bytes: config.log.segment_bytes,
        usual_segment_bytes: SEGMENT_BYTES,
        projection: ledge_projection::Options::cloud().disk_share(),
    }
}
