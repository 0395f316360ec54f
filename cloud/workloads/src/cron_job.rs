//! CronJobs: a Job each time its schedule says so.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::job;
use crate::meta::{owner_reference, terminating};
use crate::names::Name;
use crate::plan::{Action, Note, Plan, Told, reference};
use crate::schedule::{Schedule, ScheduleError};
use crate::world::World;

/// Says for which time a Job was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Makes the Job that is due, and removes those that ended long ago.
pub fn decide(world: &World, name: &Name, now: Timestamp) -> Plan {
    let Some(cron) = world.cron_jobs.get(name) else {
        return Plan::default();
    };
    let Some(spec) = &cron.spec else {
        return Plan::default();
    };
    let uid = cron.metadata.uid.as_deref().unwrap_or_default();
    let turn = Turn {
        world,
        cron,
        spec,
        jobs: world.jobs.owned_by(&name.namespace, uid).cloned().collect(),
        now,
    };
    turn.decide()
}

struct Turn<'a> {
    world: &'a World,
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    jobs: Vec<Arc<Job>>,
    now: Timestamp,
}

impl Turn<'_> {
    fn decide(&self) -> Plan {
        let mut plan = Plan::default();
        let old = self.cron.status.clone().unwrap_or_default();
        let mut status = self.status(&old, &mut plan);
        self.clean(&mut plan);
        if !terminating(&self.cron.metadata) && self.spec.suspend != Some(true) {
            match Schedule::parse(&self.spec.schedule, self.spec.time_zone.as_deref()) {
                Ok(schedule) => self.follow(&schedule, &mut status, &mut plan),
                Err(error) => plan.notes.push(self.cannot(&error)),
            }
        }
        plan.actions
            .extend(Action::status(self.cron, Some(&old), &status));
        plan
    }

    /// The status as far as its Jobs go.
    fn status(&self, old: &CronJobStatus, plan: &mut Plan) -> CronJobStatus {
        let running = self.jobs.iter().filter(|job| job::finished(job).is_none());
        let active: Vec<ObjectReference> = running.map(|job| reference(&**job)).collect();
        for before in old.active.iter().flatten() {
            let found = self.jobs.iter().find(|job| job.metadata.uid == before.uid);
            let name = before.name.as_deref().unwrap_or_default();
            match found.map(|job| job::finished(job)) {
                None => plan.notes.push(Note::normal(
                    self.cron,
                    "MissingJob",
                    format!("Active job went missing: {name}"),
                )),
                Some(Some(end)) => plan.notes.push(Note::normal(
                    self.cron,
                    "SawCompletedJob",
                    format!("Saw completed job: {name}, condition: {}", end.type_),
                )),
                Some(None) => {}
            }
        }
        let ended = self
            .jobs
            .iter()
            .filter_map(|job| job.status.as_ref()?.completion_time.clone());
        let successful = ended
            .chain(old.last_successful_time.clone())
            .max_by_key(|time| time.0);
        CronJobStatus {
            // The version of a Job that runs changes: what is active does not.
            active: Some(active.into_iter().map(without_version).collect::<Vec<_>>())
                .filter(|active| !active.is_empty()),
            last_schedule_time: old.last_schedule_time.clone(),
            last_successful_time: successful,
        }
    }

    fn follow(&self, schedule: &Schedule, status: &mut CronJobStatus, plan: &mut Plan) {
        if let Some(next) = schedule.next(self.now) {
            plan.again_at(next);
        }
        let made = self.cron.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let since = self
            .cron
            .status
            .as_ref()
            .and_then(|status| status.last_schedule_time.as_ref());
        let since = since.map(|time| time.0).or(made).unwrap_or(self.now);
        let Some(due) = schedule.last(self.now).filter(|due| *due > since) else {
            return;
        };
        // It is made before the status says so: when that is lost, its name tells that it is there.
        let job = self.job(schedule, due);
        if self.world.jobs.get(&Name::of(&job.metadata)).is_some() {
            status.last_schedule_time = Some(Time(due));
            return;
        }
        if let Some(deadline_s) = self.spec.starting_deadline_seconds {
            let until = due.saturating_add(SignedDuration::from_secs(deadline_s));
            if until.is_ok_and(|until| until < self.now) {
                let time = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
                let message = format!("Missed scheduled time to start a job: {time}");
                plan.notes.push(Note::warning(self.cron, "MissSchedule", message));
                return;
            }
        }
        let running: Vec<&Arc<Job>> = self
            .jobs
            .iter()
            .filter(|job| job::finished(job).is_none())
            .collect();
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !running.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                return plan
                    .notes
                    .push(Note::normal(self.cron, "JobAlreadyActive", message));
            }
            Some("Replace") => {
                let going = running.iter().filter(|job| !terminating(&job.metadata));
                plan.actions.extend(going.map(|job| self.death(job)));
            }
            _ => {}
        }
        plan.actions.push(Action::create(&job).told(Told::about(
            self.cron,
            ("SuccessfulCreate", "Created job {}"),
            ("FailedCreate", "Error creating job: {}"),
        )));
    }

    /// The Job of one time; its name is that of the time, so that there is one.
    fn job(&self, schedule: &Schedule, due: Timestamp) -> Job {
        let template = self.spec.job_template.clone();
        let of_template = template.metadata.unwrap_or_default();
        let base = self.cron.metadata.name.as_deref().unwrap_or_default();
        let mut annotations = of_template.annotations.unwrap_or_default();
        let local = due.to_zoned(schedule.zone().clone());
        let time = match self.spec.time_zone {
            Some(_) => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            None => local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        };
        annotations.insert(SCHEDULED.to_owned(), time);
        Job {
            metadata: ObjectMeta {
                name: Some(format!("{base}-{}", due.as_second() / 60)),
                namespace: self.cron.metadata.namespace.clone(),
                labels: of_template.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![owner_reference(self.cron)]),
                ..ObjectMeta::default()
            },
            spec: template.spec,
            status: None,
        }
    }

    /// Removes Jobs that ended, beyond those that are kept; the oldest first.
    fn clean(&self, plan: &mut Plan) {
        for (kind, limit) in [
            ("Complete", self.spec.successful_jobs_history_limit.unwrap_or(3)),
            ("Failed", self.spec.failed_jobs_history_limit.unwrap_or(1)),
        ] {
            let ended = |job: &&Arc<Job>| job::finished(job).is_some_and(|end| end.type_ == kind);
            let mut ended: Vec<&Arc<Job>> = self.jobs.iter().filter(ended).collect();
            ended.sort_by_key(|job| {
                let started = job.status.as_ref().and_then(|status| status.start_time.as_ref());
                (started.map(|time| time.0), job.metadata.name.clone())
            });
            let many = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            let going = ended
                .into_iter()
                .take(many)
                .filter(|job| !terminating(&job.metadata));
            plan.actions.extend(going.map(|job| self.death(job)));
        }
    }

    fn death(&self, job: &Job) -> Action {
        Action::delete(job).told(Told::about(
            self.cron,
            ("SuccessfulDelete", "Deleted job {}"),
            ("FailedDelete", "Deleted job: {}"),
        ))
    }

    fn cannot(&self, error: &ScheduleError) -> Note {
        let schedule = &self.spec.schedule;
        let zone = self.spec.time_zone.as_deref().unwrap_or_default();
        match error {
            ScheduleError::Times(why) => {
                let message = format!("unparseable schedule: \"{schedule}\" : {why}");
                Note::warning(self.cron, "UnparseableSchedule", message)
            }
            ScheduleError::Zone(why) => Note::warning(
                self.cron,
                "UnknownTimeZone",
                format!("invalid timeZone: \"{zone}\": {why}"),
            ),
        }
    }
}

fn without_version(mut reference: ObjectReference) -> ObjectReference {
    reference.resource_version = None;
    reference
}
