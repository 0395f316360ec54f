//! Jobs and CronJobs, against the embedded API in this process; time goes on when a test says so.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use ledge_workloads::ManualClock;
use serde_json::{Value, json};
use support::{Cluster, names};

fn task(image: &str, spec: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "task", "namespace": "default"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}},
    });
    job["spec"]
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    job
}

fn ended(job: &Job) -> Option<(String, String)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|one| matches!(one.type_.as_str(), "Complete" | "Failed"))?;
    Some((condition.type_.clone(), condition.reason.clone()?))
}

fn is(job: &Job, kind: &str, reason: &str) -> bool {
    ended(job) == Some((kind.to_owned(), reason.to_owned()))
}

async fn start() -> (Cluster, ManualClock) {
    let clock = ManualClock::new(Timestamp::now());
    let mut cluster = Cluster::with(Arc::new(clock.clone())).await;
    cluster.node("a", json!({}), json!([])).await;
    (cluster, clock)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_completes_and_goes_when_its_time_has_come() {
    let (cluster, clock) = start().await;
    let spec = json!({"completions": 4, "parallelism": 2, "ttlSecondsAfterFinished": 60});
    cluster.create::<Job>(task("succeed", spec)).await;
    let job = cluster
        .until("task", |job: &Job| is(job, "Complete", "CompletionsReached"))
        .await;
    let status = job.status.unwrap();
    assert_eq!(
        (status.succeeded, status.failed, status.active),
        (Some(4), None, None)
    );
    assert!(status.completion_time.is_some() && status.uncounted_terminated_pods.is_none());
    let pods = cluster
        .until_all::<Pod>(|pods| pods.iter().all(|pod| pod.metadata.finalizers.is_none()))
        .await;
    assert_eq!(pods.len(), 4);
    assert_eq!(cluster.event("task", "Completed").await, "Job completed");
    clock.advance(SignedDuration::from_secs(61));
    cluster.until_all::<Job>(<[Job]>::is_empty).await;
    cluster.until_all::<Pod>(<[Pod]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_too_often_has_failed() {
    let (cluster, _) = start().await;
    cluster
        .create::<Job>(task("fail", json!({"backoffLimit": 2})))
        .await;
    let job = cluster
        .until("task", |job: &Job| is(job, "Failed", "BackoffLimitExceeded"))
        .await;
    assert_eq!(job.status.unwrap().failed, Some(3));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_removed_is_counted_and_a_deadline_ends_the_job() {
    let (cluster, clock) = start().await;
    cluster
        .create::<Job>(task("run", json!({"activeDeadlineSeconds": 600})))
        .await;
    let first = cluster
        .until_all::<Pod>(|pods| pods.len() == 1 && names(pods)[0].starts_with("task-"))
        .await;
    cluster
        .api::<Pod>()
        .delete(&names(&first)[0], &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until("task", |job: &Job| {
            job.status.as_ref().and_then(|status| status.failed) == Some(1)
        })
        .await;
    // Its replacement waits for a while.
    clock.advance(SignedDuration::from_secs(60));
    cluster
        .until_all::<Pod>(|pods| pods.len() == 1 && names(pods) != names(&first))
        .await;
    clock.advance(SignedDuration::from_secs(600));
    cluster
        .until("task", |job: &Job| is(job, "Failed", "DeadlineExceeded"))
        .await;
    cluster.until_all::<Pod>(<[Pod]>::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_indexed_job_does_each_index_and_a_suspended_one_none() {
    let (cluster, _) = start().await;
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "suspend": true});
    cluster.create::<Job>(task("succeed", spec)).await;
    cluster.event("task", "Suspended").await;
    cluster.until_all::<Pod>(<[Pod]>::is_empty).await;
    cluster
        .merge::<Job>("task", json!({"spec": {"suspend": false}}))
        .await;
    let job = cluster
        .until("task", |job: &Job| is(job, "Complete", "CompletionsReached"))
        .await;
    assert_eq!(job.status.unwrap().completed_indexes.as_deref(), Some("0-2"));
    let pods = cluster.until_all::<Pod>(|pods| pods.len() == 3).await;
    let label = "batch.kubernetes.io/job-completion-index";
    let indexes: BTreeSet<_> = pods
        .iter()
        .map(|pod| pod.metadata.labels.as_ref().unwrap()[label].clone())
        .collect();
    assert_eq!(indexes, ["0", "1", "2"].map(str::to_owned).into());
    cluster.stop().await;
}

fn cron(image: &str, spec: Value) -> Value {
    let template = task(image, json!({}))["spec"].clone();
    let mut cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick", "namespace": "default"},
        "spec": {"schedule": "0 * * * *", "timeZone": "Etc/UTC", "jobTemplate": {"spec": template}},
    });
    cron["spec"]
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    cron
}

const HOUR: SignedDuration = SignedDuration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_makes_jobs_and_keeps_the_last_ones() {
    let (cluster, clock) = start().await;
    cluster
        .create::<CronJob>(cron("succeed", json!({"successfulJobsHistoryLimit": 2})))
        .await;
    let mut last = None;
    for _ in 0..4 {
        clock.advance(HOUR);
        let before = last.clone();
        let cron = cluster
            .until("tick", |cron: &CronJob| {
                let status = cron.status.clone().unwrap_or_default();
                status.last_schedule_time.is_some() && status.last_schedule_time != before
            })
            .await;
        last = cron.status.unwrap().last_schedule_time;
        cluster
            .until_all::<Job>(|jobs| !jobs.is_empty() && jobs.iter().all(|job| ended(job).is_some()))
            .await;
    }
    let minutes = last.unwrap().0.as_second() / 60;
    let wanted = [format!("tick-{}", minutes - 60), format!("tick-{minutes}")];
    cluster.until_all::<Job>(|jobs| names(jobs) == wanted).await;
    assert!(
        cluster
            .event("tick", "SuccessfulCreate")
            .await
            .starts_with("Created job tick-")
    );
    cluster
        .until("tick", |cron: &CronJob| {
            cron.status.as_ref().is_some_and(|status| status.active.is_none())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_forbids_or_replaces_what_still_runs() {
    let (cluster, clock) = start().await;
    cluster
        .create::<CronJob>(cron("run", json!({"concurrencyPolicy": "Forbid"})))
        .await;
    let active = |cron: &CronJob| {
        let active = cron
            .status
            .iter()
            .flat_map(|status| status.active.iter().flatten());
        active.filter_map(|job| job.name.clone()).collect::<Vec<_>>()
    };
    cluster.until("tick", |_: &CronJob| true).await;
    clock.advance(HOUR);
    let first = active(
        &cluster
            .until("tick", |cron: &CronJob| active(cron).len() == 1)
            .await,
    );
    clock.advance(HOUR);
    cluster.event("tick", "JobAlreadyActive").await;
    let jobs = cluster.until_all::<Job>(|jobs| jobs.len() == 1).await;
    assert_eq!(names(&jobs), first);
    cluster
        .merge::<CronJob>("tick", json!({"spec": {"concurrencyPolicy": "Replace"}}))
        .await;
    let second = cluster
        .until("tick", |cron: &CronJob| {
            active(cron).len() == 1 && active(cron) != first
        })
        .await;
    cluster
        .until_all::<Job>(|jobs| names(jobs) == active(&second))
        .await;
    cluster
        .merge::<CronJob>("tick", json!({"spec": {"schedule": "@sometimes"}}))
        .await;
    assert!(
        cluster
            .event("tick", "UnparseableSchedule")
            .await
            .starts_with("unparseable schedule: \"@sometimes\"")
    );
    cluster.stop().await;
}
