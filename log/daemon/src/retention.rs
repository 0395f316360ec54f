//! Keeps the log within its limit: gives up the oldest segment when there is no room for the next.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ledge_log::Log;
use ledge_proto::ids::{Seq, StreamKey};
use ledge_retention::budget::{Budget, DiskOptions};
use ledge_retention::{GivenUp, Outcome, Policy, Retention, RetentionError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::disk::Shares;
use crate::fit::Fit;
use crate::health::Health;
use crate::settings::Settings;

/// Looks for what became too old, and whether others filled the disk or made room, so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Measures the rest of the data directory so often: some dozens of files.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Says how far a stream is archived.
pub type Archived = Arc<dyn Fn(&StreamKey) -> Seq + Send + Sync>;

/// What is kept within its limit, and how.
#[derive(Clone)]
pub struct Parts {
    /// The log.
    pub log: Log,
    /// What goes and when.
    pub policy: Policy,
    /// How far streams are archived.
    pub archived: Archived,
    /// The data directory, and how it is divided.
    pub dir: PathBuf,
    /// See [`crate::disk::budget`]. It changes with the settings; others may watch it.
    pub budget: watch::Sender<Budget>,
    /// What the division depends on besides the limit.
    pub shares: Shares,
    /// Where a limit that cannot be kept is told.
    pub health: Health,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("policy", &self.policy)
            .field("budget", &*self.budget.borrow())
            .finish_non_exhaustive()
    }
}

/// Divides the disk by what is there now, and gives up what has to go: before anything is appended to a log that was full
/// when it was opened. What stands in the way is told by [`run`].
pub fn make_room(parts: &Parts) {
    Fit::default().look(parts);
    let mut retention = Retention::new(parts.policy.clone());
    if let Err(err) = give_up(parts, &mut retention, &CancellationToken::new()) {
        tracing::error!(%err, "the log cannot make room");
    }
}

/// Gives up what has to go until `shutdown`. What `settings` say anew takes effect from then on.
pub async fn run(mut parts: Parts, mut settings: Settings, shutdown: CancellationToken) {
    let mut retention = Retention::new(parts.policy.clone());
    let mut room = parts.log.subscribe_room();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut measure = tokio::time::interval(MEASURE_EVERY);
    measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Told::default();
    let mut fit = Fit::default();
    loop {
        tokio::select! {
            changed = room.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {}
            _ = measure.tick() => {
                // When the log has to make room for it, that is told by `room`.
                let of = parts.clone();
                let looked = tokio::task::spawn_blocking(move || {
                    fit.look(&of);
                    fit
                });
                fit = looked.await.unwrap_or_default();
                continue;
            }
            disk = settings.changed() => parts.change(&disk).await,
            () = shutdown.cancelled() => return,
        }
        retention.set_policy(parts.policy.clone());
        let (parts, stop) = (parts.clone(), shutdown.clone());
        let gave_up = tokio::task::spawn_blocking(move || {
            let outcome = give_up(&parts, &mut retention, &stop);
            (retention, outcome)
        });
        let Ok((same, outcome)) = gave_up.await else {
            tracing::error!("giving up the oldest segment panicked: the log stops growing at its limit");
            return;
        };
        retention = same;
        told.tell(outcome);
    }
}

impl Parts {
    /// Divides the disk anew. What cannot be used leaves everything as it is.
    async fn change(&mut self, disk: &DiskOptions) {
        let (dir, disk, shares) = (self.dir.clone(), disk.clone(), self.shares);
        let log = self.log.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let budget = crate::disk::budget(&dir, &disk, shares).map_err(|err| err.to_string())?;
            let set = log.set_limit(budget.log_bytes, budget.segment_bytes);
            set.map_err(|err| err.to_string())?;
            Ok::<_, String>((budget, disk))
        });
        match changed.await {
            Ok(Ok((budget, disk))) => {
                self.budget.send_replace(budget);
                self.policy.max_age = disk.max_age;
                self.policy.degrade = disk.degrade;
                tracing::info!(limit = %disk.limit, "the disk limit was changed");
            }
            Ok(Err(reason)) => tracing::error!(reason, "the disk settings stay as they were"),
            Err(err) => tracing::error!(%err, "the disk settings stay as they were"),
        }
    }
}

/// Gives up segments until none has to go. What is left is why the last one did not.
fn give_up(
    parts: &Parts,
    retention: &mut Retention,
    stop: &CancellationToken,
) -> Result<Outcome, RetentionError> {
    loop {
        let outcome = retention.step(&parts.log, &*parts.archived, clock::stamp())?;
        let Outcome::GaveUp(given_up) = &outcome else {
            return Ok(outcome);
        };
        count(given_up);
        if stop.is_cancelled() {
            return Ok(outcome);
        }
    }
}

fn count(given_up: &GivenUp) {
    let reason = given_up.reason.name();
    metrics::counter!("ledge_retention_segments_total", "reason" => reason).increment(1);
    metrics::counter!("ledge_retention_dropped_records_total", "reason" => reason)
        .increment(given_up.dropped);
    metrics::counter!("ledge_retention_unreadable_records_total").increment(given_up.unreadable);
    metrics::counter!("ledge_retention_gap_records_total", "reason" => reason).increment(given_up.gaps);
    metrics::counter!("ledge_retention_summaries_total", "reason" => reason).increment(given_up.summaries);
    let (first, last) = given_up.blocks;
    if given_up.unreadable > 0 {
        tracing::error!(
            %first, %last, unreadable = given_up.unreadable,
            "records that could not be read were given up; gap records of reason Corrupt tell which"
        );
    }
    if given_up.dropped > 0 {
        tracing::warn!(
            %first, %last, reason, dropped = given_up.dropped, gaps = given_up.gaps, summaries = given_up.summaries,
            "telemetry that is nowhere else was given up; a gap record tells which"
        );
    } else {
        tracing::info!(%first, %last, reason, bases = given_up.bases, "the oldest segment of the log was given up");
    }
}

/// Says once what stands in the way, and once that it no longer does.
#[derive(Default)]
struct Told {
    last: Option<String>,
}

impl Told {
    fn tell(&mut self, outcome: Result<Outcome, RetentionError>) {
        let problem = match outcome {
            Ok(Outcome::Nothing | Outcome::GaveUp(_)) => None,
            Ok(Outcome::OnlyOne(reason)) => Some(format!(
                "{reason}: the log has one segment only, there is nothing to give up"
            )),
            Ok(Outcome::NotArchived {
                stream,
                last,
                archived,
            }) => Some(format!(
                "the oldest segment holds {stream} up to {last}, which is archived up to {archived}"
            )),
            Err(err) => Some(err.to_string()),
        };
        metrics::gauge!("ledge_retention_blocked").set(if problem.is_some() { 1.0 } else { 0.0 });
        if problem == self.last {
            return;
        }
        match &problem {
            Some(problem) => tracing::error!(problem, "the log cannot make room"),
            None => tracing::info!("the log can make room again"),
        }
        self.last = problem;
    }
}
