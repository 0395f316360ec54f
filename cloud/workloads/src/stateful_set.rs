//! StatefulSets: pods with names and volumes of their own, one after the other.
//!
//! The template of an older revision is not kept: a pod below the partition that is lost comes back with the newest one.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};

use crate::hash;
use crate::meta::{claim, terminating};
use crate::names::Name;
use crate::plan::{Action, Plan, Told};
use crate::pods::{Availability, REVISION_HASH, availability, finished, from_template, label, ready};
use crate::world::World;

/// So many pods are made or removed at once where their order does not matter.
const AT_ONCE: usize = 100;

/// Brings the pods of a StatefulSet one step nearer to what it says.
pub fn decide(world: &World, name: &Name, now: Timestamp) -> Plan {
    let Some(set) = world.stateful_sets.get(name) else {
        return Plan::default();
    };
    let Some(spec) = &set.spec else {
        return Plan::default();
    };
    let claimed = claim(&**set, &spec.selector, &world.pods);
    if !claimed.actions.is_empty() {
        return Plan::of(claimed.actions);
    }
    let base = format!("{}-", name.name);
    let ordinal = |pod: &Pod| {
        pod.metadata
            .name
            .as_deref()?
            .strip_prefix(&base)?
            .parse::<i32>()
            .ok()
    };
    let pods = claimed
        .objects
        .into_iter()
        .filter_map(|pod| Some((ordinal(&pod)?, pod)))
        .collect();
    let stateful = Stateful {
        world,
        set,
        spec,
        revision: format!("{}-{}", name.name, hash::short(&spec.template, 0)),
        pods,
        now,
    };
    stateful.decide()
}

struct Stateful<'a> {
    world: &'a World,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    /// The name of the template as it is now.
    revision: String,
    /// By ordinal.
    pods: BTreeMap<i32, Arc<Pod>>,
    now: Timestamp,
}

impl Stateful<'_> {
    fn decide(&self) -> Plan {
        let mut plan = Plan::default();
        if !terminating(&self.set.metadata) {
            plan.actions = self.step();
        }
        let status = self.status(&mut plan);
        plan.actions
            .extend(Action::status(self.set, self.set.status.as_ref(), &status));
        plan
    }

    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1).max(0)
    }

    fn start(&self) -> i32 {
        self.spec
            .ordinals
            .as_ref()
            .and_then(|ordinals| ordinals.start)
            .unwrap_or(0)
    }

    fn ordinals(&self) -> std::ops::Range<i32> {
        self.start()..self.start().saturating_add(self.replicas())
    }

    fn in_order(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        !terminating(&pod.metadata) && availability(pod, min_ready, self.now) == Availability::Yes
    }

    /// What is to be done next; in order, only what concerns one pod.
    fn step(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for ordinal in self.ordinals() {
            let settled = match self.pods.get(&ordinal) {
                None => {
                    actions.extend(self.birth(ordinal));
                    false
                }
                Some(pod) if terminating(&pod.metadata) => false,
                Some(pod) if finished(pod) => {
                    actions.push(self.death(pod));
                    false
                }
                Some(pod) => self.is_available(pod),
            };
            if (self.in_order() && !settled) || actions.len() >= AT_ONCE {
                return actions;
            }
        }
        // The last ones go first.
        let range = self.ordinals();
        for (_, pod) in self
            .pods
            .iter()
            .rev()
            .filter(|(ordinal, _)| !range.contains(ordinal))
        {
            if !terminating(&pod.metadata) {
                actions.push(self.death(pod));
            }
            if self.in_order() || actions.len() >= AT_ONCE {
                return actions;
            }
        }
        if actions.is_empty() {
            self.update()
        } else {
            actions
        }
    }

    /// Replaces the last pod of an older template, when all after it are available.
    fn update(&self) -> Vec<Action> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return Vec::new();
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0).max(0);
        let from = self.start().saturating_add(partition);
        for (_, pod) in self.pods.iter().rev().filter(|(ordinal, _)| **ordinal >= from) {
            if self.is_old(pod) && !terminating(&pod.metadata) {
                return vec![self.death(pod)];
            }
            if !self.is_available(pod) {
                return Vec::new();
            }
        }
        Vec::new()
    }

    fn is_old(&self, pod: &Pod) -> bool {
        label(&pod.metadata, REVISION_HASH) != Some(&self.revision)
    }

    /// The pod of an ordinal, and before it the claims it has none of yet.
    fn birth(&self, ordinal: i32) -> Vec<Action> {
        let name = Name::of(&self.set.metadata);
        let pod_name = format!("{}-{ordinal}", name.name);
        let mut pod = from_template(self.set, &self.spec.template);
        pod.metadata.generate_name = None;
        pod.metadata.name = Some(pod_name.clone());
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), pod_name.clone());
        labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
        labels.insert(REVISION_HASH.to_owned(), self.revision.clone());
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(pod_name.clone());
        spec.subdomain.clone_from(&self.spec.service_name);
        let mut actions = Vec::new();
        for template in self.spec.volume_claim_templates.iter().flatten() {
            let of_template = template.metadata.name.clone().unwrap_or_default();
            let claim_name = format!("{of_template}-{pod_name}");
            let volumes = spec.volumes.get_or_insert_default();
            volumes.retain(|volume| volume.name != of_template);
            volumes.push(Volume {
                name: of_template,
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim_name.clone(),
                    read_only: None,
                }),
                ..Volume::default()
            });
            if self.world.claims.get(&name.beside(&claim_name)).is_none() {
                actions.push(self.claim(template, &claim_name, &pod_name));
            }
        }
        if actions.is_empty() {
            let what = format!("create Pod {pod_name} in StatefulSet {}", name.name);
            actions.push(Action::create(&pod).told(Told::about(
                self.set,
                ("SuccessfulCreate", format!("{what} successful")),
                ("FailedCreate", format!("{what} failed error: {{}}")),
            )));
        }
        actions
    }

    fn claim(&self, template: &PersistentVolumeClaim, name: &str, pod: &str) -> Action {
        let mut claim = template.clone();
        claim.status = None;
        claim.metadata.name = Some(name.to_owned());
        claim.metadata.namespace.clone_from(&self.set.metadata.namespace);
        let chosen = self.spec.selector.match_labels.clone().unwrap_or_default();
        claim.metadata.labels.get_or_insert_default().extend(chosen);
        let set = self.set.metadata.name.as_deref().unwrap_or_default();
        let what = format!("create Claim {name} Pod {pod} in StatefulSet {set}");
        Action::create(&claim).told(Told::about(
            self.set,
            ("SuccessfulCreate", format!("{what} success")),
            ("FailedCreate", format!("{what} failed error: {{}}")),
        ))
    }

    fn death(&self, pod: &Arc<Pod>) -> Action {
        let set = self.set.metadata.name.as_deref().unwrap_or_default();
        let what = format!("delete Pod {{}} in StatefulSet {set}");
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        Action::delete(&**pod).told(Told::about(
            self.set,
            ("SuccessfulDelete", format!("{what} successful")),
            (
                "FailedDelete",
                format!("delete Pod {name} in StatefulSet {set} failed error: {{}}"),
            ),
        ))
    }

    fn status(&self, plan: &mut Plan) -> StatefulSetStatus {
        let old = self.set.status.clone().unwrap_or_default();
        let current = old
            .current_revision
            .clone()
            .unwrap_or_else(|| self.revision.clone());
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            update_revision: Some(self.revision.clone()),
            collision_count: Some(old.collision_count.unwrap_or(0)),
            conditions: old.conditions,
            ..StatefulSetStatus::default()
        };
        let (mut ready_count, mut available, mut at_current, mut updated) = (0, 0, 0, 0);
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        for pod in self.pods.values() {
            status.replicas += 1;
            ready_count += i32::from(ready(pod));
            match availability(pod, min_ready, self.now) {
                Availability::Yes => available += 1,
                Availability::At(at) => plan.again_at(at),
                Availability::No => {}
            }
            if !terminating(&pod.metadata) {
                let revision = label(&pod.metadata, REVISION_HASH);
                at_current += i32::from(revision == Some(&current));
                updated += i32::from(revision == Some(&self.revision));
            }
        }
        // All are of the newest template: it is the current one now.
        let over = updated == self.replicas() && status.replicas == updated && ready_count == updated;
        status.current_revision = Some(if over { self.revision.clone() } else { current });
        let nonzero = |count: i32| Some(count).filter(|count| *count > 0);
        status.ready_replicas = nonzero(ready_count);
        status.available_replicas = Some(available);
        status.current_replicas = nonzero(if over { updated } else { at_current });
        status.updated_replicas = nonzero(updated);
        status
    }
}
