//! What a Job's pods came to, each counted once.
//!
//! A pod that ended is first noted in the status by its UID, then loses its finalizer, then is counted and its UID goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::indexes;
use crate::meta::{annotation, terminating, uid};
use crate::names::Name;
use crate::plan::Action;
use crate::pods::{finished, phase};
use crate::world::Kind;

/// Keeps a pod until it is counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Says which index a pod works on.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// See the module.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) indexed: bool,
    /// Pods that run or are to run.
    pub(super) active: Vec<Arc<Pod>>,
    /// Pods that failed and are still there.
    pub(super) failures: Vec<Arc<Pod>>,
    /// Pods that are about to go and have not ended yet.
    pub(super) terminating: i32,
    /// Successes, with those that the status does not count yet.
    pub(super) succeeded: i32,
    /// Failures, with those that the status does not count yet.
    pub(super) failed: i32,
    /// Indexes that succeeded.
    pub(super) completed: BTreeSet<i32>,
    /// What the status is to count.
    counted: (i32, i32),
    /// UIDs of pods that the status is to note and not to count yet.
    noted: (BTreeSet<String>, BTreeSet<String>),
    /// Pods that may lose their finalizer: the status holds them.
    held: Vec<Arc<Pod>>,
}

/// The index of a pod.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    annotation(&pod.metadata, INDEX)?
        .parse()
        .ok()
        .filter(|index| *index >= 0)
}

fn tracked(pod: &Pod) -> bool {
    pod.metadata
        .finalizers
        .iter()
        .flatten()
        .any(|one| one == FINALIZER)
}

impl Tally {
    /// Counts `pods`, which are the Job's.
    pub(super) fn of(job: &Job, spec: &JobSpec, pods: Vec<Arc<Pod>>) -> Tally {
        let status = job.status.clone().unwrap_or_default();
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let completions = spec.completions.unwrap_or(0);
        let told = status.completed_indexes.as_deref().filter(|_| indexed);
        let before = told
            .map(|text| indexes::parse(text, completions))
            .unwrap_or_default();
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let known = |uids: Option<Vec<String>>| uids.unwrap_or_default().into_iter().collect::<BTreeSet<_>>();
        let known = (known(uncounted.succeeded), known(uncounted.failed));
        let mut tally = Tally {
            indexed,
            active: Vec::new(),
            failures: Vec::new(),
            terminating: 0,
            succeeded: 0,
            failed: 0,
            completed: before.clone(),
            counted: (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0)),
            noted: (BTreeSet::new(), BTreeSet::new()),
            held: Vec::new(),
        };
        for pod in pods {
            let over = finished(&pod);
            if !over && !terminating(&pod.metadata) {
                tally.active.push(pod);
                continue;
            }
            tally.terminating += i32::from(!over);
            let id = uid(&pod.metadata).to_owned();
            let success = phase(&pod) == "Succeeded";
            if tracked(&pod) {
                match (success, index(&pod).filter(|_| indexed)) {
                    (true, Some(index)) if index < completions => {
                        tally.completed.insert(index);
                        if before.contains(&index) {
                            tally.held.push(Arc::clone(&pod));
                        }
                    }
                    _ => {
                        if known.0.contains(&id) || known.1.contains(&id) {
                            tally.held.push(Arc::clone(&pod));
                        }
                        // What it was when it was noted stays what it was.
                        let success = known.0.contains(&id) || success && !known.1.contains(&id);
                        let noted = if success {
                            &mut tally.noted.0
                        } else {
                            &mut tally.noted.1
                        };
                        noted.insert(id);
                    }
                }
            }
            if !success {
                tally.failures.push(pod);
            }
        }
        // Noted before, and without its finalizer now: counted.
        let free = |known: &BTreeSet<String>, noted: &BTreeSet<String>| {
            i32::try_from(known.difference(noted).count()).unwrap_or(i32::MAX)
        };
        tally.counted.0 += free(&known.0, &tally.noted.0);
        tally.counted.1 += free(&known.1, &tally.noted.1);
        let many = |set: &BTreeSet<String>| i32::try_from(set.len()).unwrap_or(i32::MAX);
        if indexed {
            tally.counted.0 = i32::try_from(tally.completed.len()).unwrap_or(i32::MAX);
            tally.succeeded = tally.counted.0;
        } else {
            tally.succeeded = tally.counted.0 + many(&tally.noted.0);
        }
        tally.failed = tally.counted.1 + many(&tally.noted.1);
        tally
    }

    /// Takes the finalizer from pods that the status holds.
    pub(super) fn release(&self) -> Vec<Action> {
        let release = |pod: &Arc<Pod>| {
            let finalizers = pod.metadata.finalizers.iter().flatten();
            let left: Vec<&String> = finalizers.filter(|one| *one != FINALIZER).collect();
            let body = json!({"metadata": {
                "uid": pod.metadata.uid,
                "resourceVersion": pod.metadata.resource_version,
                "finalizers": left,
            }});
            Action::merge(Kind::Pod, &Name::of(&pod.metadata), "", body)
        };
        self.held.iter().map(release).collect()
    }

    /// The status as far as pods go.
    pub(super) fn status(&self, job: &Job) -> JobStatus {
        let nonzero = |count: i32| Some(count).filter(|count| *count > 0);
        let list = |uids: &BTreeSet<String>| {
            Some(uids.iter().cloned().collect::<Vec<_>>()).filter(|uids| !uids.is_empty())
        };
        let uncounted = UncountedTerminatedPods {
            succeeded: list(&self.noted.0),
            failed: list(&self.noted.1),
        };
        let none = self.noted.0.is_empty() && self.noted.1.is_empty();
        JobStatus {
            active: nonzero(i32::try_from(self.active.len()).unwrap_or(i32::MAX)),
            ready: Some(super::ready_count(&self.active)),
            terminating: Some(self.terminating),
            succeeded: nonzero(self.counted.0),
            failed: nonzero(self.counted.1),
            completed_indexes: self.indexed.then(|| indexes::format(&self.completed)),
            uncounted_terminated_pods: (!none).then_some(uncounted),
            ..job.status.clone().unwrap_or_default()
        }
    }
}
