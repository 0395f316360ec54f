//! The ReplicaSets of a Deployment: which is the new one, and what they are called and annotated with.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::rollout::{Limits, Size};
use crate::hash;
use crate::meta::{Labels, annotation, owner_reference};

/// The label that tells the pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that are not for its ReplicaSets.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MOST,
    "deprecated.deployment.rollback.to",
];
/// Longest list of revisions that a set had before.
const HISTORY_MAX_BYTES: usize = 2000;

/// The ReplicaSets of a Deployment.
#[derive(Debug)]
pub(super) struct Sets {
    /// The one of the template as it is now.
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// What it is or will be called.
    pub(super) new_name: String,
    /// All others, oldest first.
    pub(super) old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    /// Takes apart the ReplicaSets that `deployment` controls.
    pub(super) fn of(deployment: &Deployment, spec: &DeploymentSpec, mut sets: Vec<Arc<ReplicaSet>>) -> Sets {
        sets.sort_by_key(|set| {
            let made = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (made, set.metadata.name.clone())
        });
        let template = without_hash(&spec.template);
        let is_new = |set: &Arc<ReplicaSet>| {
            let of_set = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            of_set.is_some_and(|of_set| without_hash(of_set) == template)
        };
        let new = sets.iter().position(is_new).map(|nth| sets.remove(nth));
        let new_name = match &new {
            Some(set) => set.metadata.name.clone().unwrap_or_default(),
            None => name(deployment, &hash_of(deployment, spec)),
        };
        Sets {
            new,
            new_name,
            old: sets,
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// Replicas they are to have together.
    pub(super) fn replicas(&self) -> i32 {
        self.all().map(|set| replicas(set)).sum()
    }

    /// The revision of the new set: after all others.
    pub(super) fn next_revision(&self) -> i64 {
        let revisions = self.old.iter().filter_map(|set| revision(&set.metadata));
        revisions.max().unwrap_or(0).saturating_add(1)
    }
}

/// Replicas a set is to have.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Replicas of a set that are available.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

pub(super) fn size(set: &ReplicaSet) -> Size {
    Size {
        replicas: replicas(set),
        available: available(set),
    }
}

/// The number in an annotation.
pub(super) fn number(metadata: &ObjectMeta, name: &str) -> Option<i32> {
    annotation(metadata, name)?.parse().ok()
}

pub(super) fn revision(metadata: &ObjectMeta) -> Option<i64> {
    annotation(metadata, REVISION)?.parse().ok()
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let metadata = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH_LABEL);
    }
    metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
    template
}

fn hash_of(deployment: &Deployment, spec: &DeploymentSpec) -> String {
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    hash::short(&spec.template, collisions.unwrap_or(0))
}

/// As upstream, a long name is cut so that the hash still fits.
fn name(deployment: &Deployment, hash: &str) -> String {
    let base = deployment.metadata.name.as_deref().unwrap_or_default();
    let base: String = base.chars().take(253 - 1 - hash.len()).collect();
    format!("{base}-{hash}")
}

/// The new set, with `replicas` replicas.
pub(super) fn birth(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    revision: i64,
    replicas: i32,
) -> ReplicaSet {
    let hash = hash_of(deployment, spec);
    let with_hash = |labels: Option<Labels>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        labels
    };
    let mut template = spec.template.clone();
    let metadata = template.metadata.get_or_insert_default();
    let labels = with_hash(metadata.labels.take());
    metadata.labels = Some(labels.clone());
    let mut selector = spec.selector.clone();
    selector.match_labels = Some(with_hash(selector.match_labels.take()));
    let mut annotations = copied(deployment);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.extend(size_annotations(Limits::of(spec)));
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name(deployment, &hash)),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn copied(deployment: &Deployment) -> BTreeMap<String, String> {
    let annotations = deployment.metadata.annotations.iter().flatten();
    annotations
        .filter(|(name, _)| !NOT_COPIED.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What a set's size was chosen for.
pub(super) fn size_annotations(limits: Limits) -> [(String, String); 2] {
    [
        (DESIRED.to_owned(), limits.wanted.to_string()),
        (MOST.to_owned(), limits.most().to_string()),
    ]
}

/// Annotations that the new set, which is there, lacks: those of the Deployment, and its revision if others came after it.
pub(super) fn missing_annotations(
    deployment: &Deployment,
    set: &ReplicaSet,
    next: i64,
) -> BTreeMap<String, String> {
    let mut missing = copied(deployment);
    missing.retain(|name, value| annotation(&set.metadata, name) != Some(value));
    let before = annotation(&set.metadata, REVISION);
    let number = revision(&set.metadata);
    // What is no number was not written by a controller: it is left alone.
    if number.unwrap_or(0) >= next || (before.is_some() && number.is_none()) {
        return missing;
    }
    missing.insert(REVISION.to_owned(), next.to_string());
    if let Some(before) = before {
        let history = annotation(&set.metadata, HISTORY).unwrap_or_default();
        missing.insert(HISTORY.to_owned(), history_with(history, before));
    }
    missing
}

/// The revisions that a set had, the oldest left out when they are too many.
fn history_with(history: &str, revision: &str) -> String {
    let mut kept = history;
    while !kept.is_empty() && kept.len() + 1 + revision.len() > HISTORY_MAX_BYTES {
        kept = kept.split_once(',').map_or("", |(_, rest)| rest);
    }
    match kept {
        "" => revision.to_owned(),
        kept => format!("{kept},{revision}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_of_revisions_is_bounded() {
        assert_eq!(history_with("", "1"), "1");
        assert_eq!(history_with("1,3", "5"), "1,3,5");
        let long = (0..1000)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
            .join(",");
        let cut = history_with(&long, "1000");
        assert!(
            cut.len() <= HISTORY_MAX_BYTES && cut.ends_with(",999,1000"),
            "{cut}"
        );
    }
}
