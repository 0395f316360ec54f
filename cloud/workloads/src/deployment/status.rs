//! What a Deployment's status says.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::rollout::Limits;
use super::sets::Sets;
use crate::plan::Plan;

/// A condition, before its times are known.
struct Said<'a> {
    kind: &'a str,
    status: &'a str,
    reason: &'a str,
    message: String,
}

/// What a rollout does at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It goes on, or is done.
    Rolls,
    /// The number of replicas changes: how far the rollout is, is not judged.
    Scales,
    /// The new set is made at this moment.
    Begins,
}

/// The seconds a rollout may stand still; `None` for ever.
pub(super) fn deadline_s(deployment: &Deployment) -> Option<i32> {
    let deadline = deployment.spec.as_ref()?.progress_deadline_seconds;
    deadline.filter(|deadline| *deadline != i32::MAX)
}

/// What a status is made from.
pub(super) struct Moment<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) sets: &'a Sets,
    pub(super) phase: Phase,
    /// What the API last refused.
    pub(super) trouble: Option<&'a String>,
    pub(super) now: Timestamp,
}

impl Moment<'_> {
    /// The status now; `plan` is told when it has to be looked at again.
    pub(super) fn status(&self, plan: &mut Plan) -> DeploymentStatus {
        let old = self.deployment.status.clone().unwrap_or_default();
        let mut status = self.counts(&old);
        let mut conditions = status.conditions.take().unwrap_or_default();
        let limits = self.deployment.spec.as_ref().map(Limits::of);
        let least = limits.map_or(0, |limits| limits.wanted - limits.unavailable);
        let available = if status.available_replicas.unwrap_or(0) >= least {
            said(
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            )
        } else {
            said(
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        set(&mut conditions, self.now, available);
        match deadline_s(self.deployment) {
            Some(deadline_s) => self.progress(deadline_s, &old, &status, &mut conditions, plan),
            None => conditions.retain(|condition| condition.type_ != "Progressing"),
        }
        if self.phase == Phase::Rolls {
            failures(self.sets, &mut conditions, self.now);
        }
        status.conditions = Some(conditions).filter(|conditions| !conditions.is_empty());
        status
    }

    fn counts(&self, old: &DeploymentStatus) -> DeploymentStatus {
        let sum = |of: fn(&ReplicaSet) -> i32| self.sets.all().map(|set| of(set)).sum::<i32>();
        let nonzero = |count: i32| Some(count).filter(|count| *count > 0);
        let replicas = sum(|set| set.status.as_ref().map_or(0, |status| status.replicas));
        let ready = sum(|set| {
            set.status
                .as_ref()
                .and_then(|status| status.ready_replicas)
                .unwrap_or(0)
        });
        let available = sum(super::sets::available);
        let wanted = sum(super::sets::replicas);
        let updated = self.sets.new.as_ref().and_then(|set| set.status.as_ref());
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: nonzero(replicas),
            updated_replicas: nonzero(updated.map_or(0, |status| status.replicas)),
            ready_replicas: nonzero(ready),
            available_replicas: nonzero(available),
            unavailable_replicas: nonzero(wanted - available),
            ..old.clone()
        }
    }

    /// The condition `Progressing`.
    fn progress(
        &self,
        deadline_s: i32,
        old: &DeploymentStatus,
        status: &DeploymentStatus,
        conditions: &mut Vec<DeploymentCondition>,
        plan: &mut Plan,
    ) {
        let now = self.now;
        let current = progressing(conditions).cloned();
        let reason = current
            .as_ref()
            .and_then(|current| current.reason.as_deref())
            .unwrap_or_default();
        let paused = self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        if reason != TIMED_OUT && paused != (reason == "DeploymentPaused") {
            let (reason, message) = if paused {
                ("DeploymentPaused", "Deployment is paused")
            } else {
                ("DeploymentResumed", "Deployment is resumed")
            };
            return set(conditions, now, said("Progressing", "Unknown", reason, message));
        }
        match self.phase {
            Phase::Scales => return,
            Phase::Begins => return set(conditions, now, self.begins()),
            Phase::Rolls => {}
        }
        if status.replicas == status.updated_replicas && reason == AVAILABLE {
            return;
        }
        let whose = match &self.sets.new {
            Some(set) => format!(
                "ReplicaSet \"{}\"",
                set.metadata.name.as_deref().unwrap_or_default()
            ),
            None => format!(
                "Deployment \"{}\"",
                self.deployment.metadata.name.as_deref().unwrap_or_default()
            ),
        };
        let over = |since: &Timestamp| until(*since, deadline_s).is_some_and(|until| until < now);
        if complete(self.deployment, status) {
            let message = format!("{whose} has successfully progressed.");
            set(conditions, now, said("Progressing", "True", AVAILABLE, message));
        } else if current.is_none() && self.sets.new.is_some() {
            let message = format!("Found new replica set \"{}\"", self.sets.new_name);
            set(
                conditions,
                now,
                said("Progressing", "True", "FoundNewReplicaSet", message),
            );
        } else if went_on(old, status) {
            // With each step its time is another, whatever it says.
            let message = format!("{whose} is progressing.");
            let mut condition = made(said("Progressing", "True", "ReplicaSetUpdated", message), now);
            if let Some(current) = current.filter(|current| current.status == "True") {
                condition.last_transition_time = current.last_transition_time;
            }
            conditions.retain(|condition| condition.type_ != "Progressing");
            conditions.push(condition);
        } else if reason != AVAILABLE && updated(current.as_ref()).as_ref().is_some_and(over) {
            let message = format!("{whose} has timed out progressing.");
            set(conditions, now, said("Progressing", "False", TIMED_OUT, message));
        }
        // Look again when the rollout has stood still for too long.
        let open = progressing(conditions)
            .filter(|condition| !matches!(condition.reason.as_deref(), Some(AVAILABLE | TIMED_OUT)));
        if let Some(at) = updated(open).and_then(|since| until(since, deadline_s.saturating_add(1))) {
            plan.again_at(at);
        }
    }

    /// What is said while the new set is made.
    fn begins(&self) -> Said<'static> {
        let new = &self.sets.new_name;
        match self.trouble {
            None => {
                let message = format!("Created new replica set \"{new}\"");
                said("Progressing", "True", "NewReplicaSetCreated", message)
            }
            Some(why) => {
                let message = format!("Failed to create new replica set \"{new}\": {why}");
                said("Progressing", "False", "ReplicaSetCreateError", message)
            }
        }
    }
}

const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

fn progressing(conditions: &[DeploymentCondition]) -> Option<&DeploymentCondition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == "Progressing")
}

fn updated(condition: Option<&DeploymentCondition>) -> Option<Timestamp> {
    Some(condition?.last_update_time.as_ref()?.0)
}

fn until(since: Timestamp, seconds: i32) -> Option<Timestamp> {
    since.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

/// Whether all replicas are updated and available, and no others are left.
pub(super) fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let counts = [
        status.replicas,
        status.updated_replicas,
        status.available_replicas,
    ];
    counts.into_iter().all(|count| count.unwrap_or(0) == wanted)
}

fn went_on(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    let left = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || left(new) < left(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

/// What a ReplicaSet cannot make is the Deployment's trouble too; the new set's before the others'.
fn failures(sets: &Sets, conditions: &mut Vec<DeploymentCondition>, now: Timestamp) {
    let failure = |set: &Arc<ReplicaSet>| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions
            .iter()
            .find(|condition| condition.type_ == "ReplicaFailure")
            .cloned()
    };
    let Some(failure) = sets.new.iter().chain(&sets.old).find_map(failure) else {
        conditions.retain(|condition| condition.type_ != "ReplicaFailure");
        return;
    };
    let (reason, message) = (
        failure.reason.unwrap_or_default(),
        failure.message.unwrap_or_default(),
    );
    set(
        conditions,
        now,
        said("ReplicaFailure", &failure.status, &reason, message),
    );
}

fn said<'a>(kind: &'a str, status: &'a str, reason: &'a str, message: impl Into<String>) -> Said<'a> {
    Said {
        kind,
        status,
        reason,
        message: message.into(),
    }
}

fn made(said: Said<'_>, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: said.kind.to_owned(),
        status: said.status.to_owned(),
        reason: Some(said.reason.to_owned()),
        message: Some(said.message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition; one that says the same already stays as it is.
fn set(conditions: &mut Vec<DeploymentCondition>, now: Timestamp, said: Said<'_>) {
    let mut new = made(said, now);
    if let Some(old) = conditions.iter().find(|condition| condition.type_ == new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    conditions.retain(|condition| condition.type_ != new.type_);
    conditions.push(new);
}
