//! Jobs: pods that are to succeed so many times.
//!
//! Pods carry a finalizer until the Job's status has counted them, so that one that is removed is counted all the same.
//! Pod failure policies, success policies and limits per index are not carried out.
//!
//! Reading order: [`indexes`], `tally` (what is counted), this file.

pub mod indexes;
mod tally;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::meta::{claim, terminating};
use crate::names::{Name, Task};
use crate::plan::{Action, Note, Plan, Told};
use crate::pods::{by_dispensability, ended_at, from_template, ready, restarts};
use crate::world::{Kind, World};
use tally::{FINALIZER, INDEX, Tally};

/// So many pods are made or removed before it is looked again.
const AT_ONCE: usize = 100;
/// The wait after the first failure; each further one is twice as long.
const BACKOFF_FIRST_S: i64 = 10;
/// The longest wait.
const BACKOFF_LAST_S: i64 = 600;
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";

/// Brings a Job one step nearer to its end.
pub fn decide(world: &World, name: &Name, now: Timestamp) -> Plan {
    let Some(job) = world.jobs.get(name) else {
        return Plan::default();
    };
    let Some(spec) = &job.spec else {
        return Plan::default();
    };
    if spec
        .managed_by
        .as_deref()
        .is_some_and(|manager| manager != "kubernetes.io/job-controller")
    {
        return Plan::default();
    }
    let Some(selector) = &spec.selector else {
        return Plan::of(vec![choose(job)]);
    };
    let claimed = claim(&**job, selector, &world.pods);
    if !claimed.actions.is_empty() {
        return Plan::of(claimed.actions);
    }
    let tally = Tally::of(job, spec, claimed.objects);
    let mut plan = Plan::of(tally.release());
    let run = Run {
        job,
        spec,
        tally,
        trouble: world.troubles.contains_key(&Task::Job(name.clone())),
        now,
    };
    match finished(job) {
        Some(condition) => run.after(condition, &mut plan),
        None if terminating(&job.metadata) => {}
        None => run.step(&mut plan),
    }
    plan
}

/// Gives a Job the selector and the labels that only its pods have, as the API of a cluster does.
fn choose(job: &Job) -> Action {
    let (uid, name) = (&job.metadata.uid, &job.metadata.name);
    let labels = json!({
        UID_LABEL: uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    });
    let body = json!({"metadata": {"uid": uid}, "spec": {
        "selector": {"matchLabels": {UID_LABEL: uid}},
        "template": {"metadata": {"labels": labels}},
    }});
    Action::merge(Kind::Job, &Name::of(&job.metadata), "", body)
}

/// The condition that says that the Job has ended.
pub fn finished(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    })
}

/// How a Job ends.
struct End {
    succeeded: bool,
    reason: &'static str,
    message: &'static str,
}

struct Run<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    tally: Tally,
    trouble: bool,
    now: Timestamp,
}

impl Run<'_> {
    /// Removes a Job that ended long enough ago.
    fn after(&self, condition: &JobCondition, plan: &mut Plan) {
        let Some(ttl_s) = self
            .spec
            .ttl_seconds_after_finished
            .filter(|_| !terminating(&self.job.metadata))
        else {
            return;
        };
        let since = condition
            .last_transition_time
            .as_ref()
            .map_or(self.now, |time| time.0);
        match since.saturating_add(SignedDuration::from_secs(ttl_s.into())) {
            Ok(at) if at > self.now => plan.again_at(at),
            _ => plan.actions.push(Action::delete(self.job)),
        }
    }

    fn step(&self, plan: &mut Plan) {
        let mut status = self.tally.status(self.job);
        let suspended = self.spec.suspend == Some(true);
        self.note_suspension(suspended, &mut status, plan);
        if !suspended && status.start_time.is_none() {
            status.start_time = Some(Time(self.now));
        }
        let end = self.end(&status, plan);
        match &end {
            Some(end) => self.finish(end, &mut status, plan),
            None => self.manage(suspended, plan),
        }
        plan.actions
            .extend(Action::status(self.job, self.job.status.as_ref(), &status));
    }

    fn note_suspension(&self, suspended: bool, status: &mut JobStatus, plan: &mut Plan) {
        let conditions = status.conditions.get_or_insert_default();
        let said = conditions
            .iter()
            .any(|one| one.type_ == "Suspended" && one.status == "True");
        let known = conditions.iter().any(|one| one.type_ == "Suspended");
        if said == suspended || (!suspended && !known) {
            status.conditions = status
                .conditions
                .take()
                .filter(|conditions| !conditions.is_empty());
            return;
        }
        conditions.retain(|one| one.type_ != "Suspended");
        let (value, reason, event, message) = match suspended {
            true => ("True", "JobSuspended", "Suspended", "Job suspended"),
            false => ("False", "JobResumed", "Resumed", "Job resumed"),
        };
        conditions.push(self.condition("Suspended", value, reason, message));
        status.start_time = None;
        plan.notes.push(Note::normal(self.job, event, message));
    }

    fn condition(&self, kind: &str, status: &str, reason: &str, message: &str) -> JobCondition {
        JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        }
    }

    /// Whether the Job ends, and how.
    fn end(&self, status: &JobStatus, plan: &mut Plan) -> Option<End> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let repeats = self.restarts();
        let in_place = repeats > 0 && repeats >= limit;
        if self.tally.failed > limit || in_place {
            return Some(End {
                succeeded: false,
                reason: "BackoffLimitExceeded",
                message: "Job has reached the specified backoff limit",
            });
        }
        let started = status.start_time.as_ref().map(|time| time.0);
        if let (Some(started), Some(deadline_s)) = (started, self.spec.active_deadline_seconds) {
            match started.saturating_add(SignedDuration::from_secs(deadline_s)) {
                Ok(at) if at > self.now => plan.again_at(at),
                _ => {
                    return Some(End {
                        succeeded: false,
                        reason: "DeadlineExceeded",
                        message: "Job was active longer than specified deadline",
                    });
                }
            }
        }
        let complete = match self.spec.completions {
            Some(completions) => self.tally.succeeded >= completions,
            // Of a common queue, one that found it empty is enough, once the others are done.
            None => self.tally.succeeded > 0 && self.tally.active.is_empty(),
        };
        complete.then_some(End {
            succeeded: true,
            reason: "CompletionsReached",
            message: "Reached expected number of succeeded pods",
        })
    }

    /// Restarts of containers in pods that are restarted in place.
    fn restarts(&self) -> i32 {
        let policy = self
            .spec
            .template
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref());
        match policy {
            Some("OnFailure") => self.tally.active.iter().map(|pod| restarts(pod)).sum(),
            _ => 0,
        }
    }

    /// Ends the pods that still run; when none is left and all are counted, says that it is over.
    fn finish(&self, end: &End, status: &mut JobStatus, plan: &mut Plan) {
        let (target, last) = match end.succeeded {
            true => ("SuccessCriteriaMet", "Complete"),
            false => ("FailureTarget", "Failed"),
        };
        let conditions = status.conditions.get_or_insert_default();
        if !conditions.iter().any(|condition| condition.type_ == target) {
            conditions.push(self.condition(target, "True", end.reason, end.message));
        }
        plan.actions
            .extend(self.tally.active.iter().take(AT_ONCE).map(|pod| self.death(pod)));
        let counted = status.uncounted_terminated_pods.is_none();
        if !self.tally.active.is_empty() || !counted || self.tally.terminating > 0 {
            return;
        }
        conditions.push(self.condition(last, "True", end.reason, end.message));
        status.active = None;
        status.ready = Some(0);
        if end.succeeded {
            status.completion_time = Some(Time(self.now));
            plan.notes
                .push(Note::normal(self.job, "Completed", "Job completed"));
        } else {
            plan.notes.push(Note::warning(self.job, end.reason, end.message));
        }
    }

    /// Makes pods that are missing, removes those that are too many.
    fn manage(&self, suspended: bool, plan: &mut Plan) {
        let active = self.tally.active.len();
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let wanted = match self.spec.completions {
            _ if suspended => 0,
            Some(completions) => {
                parallelism.min(usize::try_from(completions - self.tally.succeeded).unwrap_or(0))
            }
            None if self.tally.succeeded > 0 => active.min(parallelism),
            None => parallelism,
        };
        if active > wanted {
            let mut going = self.tally.active.clone();
            by_dispensability(&mut going, &self.tally.active);
            going.truncate((active - wanted).min(AT_ONCE));
            plan.actions.extend(going.iter().map(|pod| self.death(pod)));
            return;
        }
        if let Some(at) = self.not_before().filter(|at| active < wanted && *at > self.now) {
            plan.again_at(at);
            return;
        }
        // What was refused is tried with one.
        let most = if self.trouble { 1 } else { AT_ONCE };
        let missing = (wanted - active).min(most);
        if self.tally.indexed {
            let taken: BTreeSet<i32> = self
                .tally
                .active
                .iter()
                .filter_map(|pod| tally::index(pod))
                .collect();
            let completions = self.spec.completions.unwrap_or(0);
            let free = (0..completions)
                .filter(|index| !taken.contains(index) && !self.tally.completed.contains(index));
            plan.actions
                .extend(free.take(missing).map(|index| self.birth(Some(index))));
        } else {
            plan.actions.extend((0..missing).map(|_| self.birth(None)));
        }
    }

    /// When the next pod may come after failures.
    fn not_before(&self) -> Option<Timestamp> {
        let failed = u32::try_from(self.tally.failed)
            .ok()
            .filter(|failed| *failed > 0)?;
        let last = self.tally.failures.iter().filter_map(|pod| ended_at(pod)).max()?;
        let wait_s = BACKOFF_FIRST_S
            .saturating_mul(1 << (failed - 1).min(16))
            .min(BACKOFF_LAST_S);
        last.checked_add(SignedDuration::from_secs(wait_s)).ok()
    }

    fn birth(&self, index: Option<i32>) -> Action {
        let mut pod = from_template(self.job, &self.spec.template);
        pod.metadata
            .finalizers
            .get_or_insert_default()
            .push(FINALIZER.to_owned());
        if let Some(index) = index {
            self.mark(&mut pod, index);
        }
        Action::create(&pod).told(Told::about(
            self.job,
            ("SuccessfulCreate", "Created pod: {}"),
            ("FailedCreate", "Error creating: {}"),
        ))
    }

    /// Tells a pod its index, in every way that upstream does.
    fn mark(&self, pod: &mut Pod, index: i32) {
        let base = self.job.metadata.name.as_deref().unwrap_or_default();
        pod.metadata.generate_name = Some(format!("{base}-{index}-"));
        for map in [&mut pod.metadata.annotations, &mut pod.metadata.labels] {
            map.get_or_insert_default()
                .insert(INDEX.to_owned(), index.to_string());
        }
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(format!("{base}-{index}"));
        for container in spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
        {
            let environment = container.env.get_or_insert_default();
            if environment.iter().all(|one| one.name != "JOB_COMPLETION_INDEX") {
                environment.push(EnvVar {
                    name: "JOB_COMPLETION_INDEX".to_owned(),
                    value: None,
                    value_from: Some(EnvVarSource {
                        field_ref: Some(ObjectFieldSelector {
                            api_version: None,
                            field_path: format!("metadata.labels['{INDEX}']"),
                        }),
                        ..EnvVarSource::default()
                    }),
                });
            }
        }
    }

    fn death(&self, pod: &Arc<Pod>) -> Action {
        Action::delete(&**pod).told(Told::about(
            self.job,
            ("SuccessfulDelete", "Deleted pod: {}"),
            ("FailedDelete", "Error deleting: {}"),
        ))
    }
}

/// Pods that are ready.
pub(crate) fn ready_count(pods: &[Arc<Pod>]) -> i32 {
    i32::try_from(pods.iter().filter(|pod| ready(pod)).count()).unwrap_or(i32::MAX)
}
