//! Deployments: ReplicaSets of one template after the other.
//!
//! Reading order: [`rollout`] (arithmetic), `sets`, `status`, this file.

pub mod rollout;
mod sets;
mod status;

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::meta::{annotation, claim, selects_all, terminating};
use crate::names::{Name, Task};
use crate::plan::{Action, Note, Plan, Told};
use crate::pods::finished;
use crate::world::{Kind, World};
use rollout::{Limits, Part, grown, recreates, scaled, shrunk};
use sets::{DESIRED, MOST, REVISION, Sets, available, number, replicas, size};
use status::{Moment, Phase, complete};

/// Brings a Deployment's ReplicaSets one step nearer to what it says.
pub fn decide(world: &World, name: &Name, now: Timestamp) -> Plan {
    let Some(deployment) = world.deployments.get(name) else {
        return Plan::default();
    };
    let Some(spec) = &deployment.spec else {
        return Plan::default();
    };
    if selects_all(&spec.selector) {
        return selects_everything(deployment);
    }
    let claimed = claim(&**deployment, &spec.selector, &world.replica_sets);
    if !claimed.actions.is_empty() {
        return Plan::of(claimed.actions);
    }
    let sets = Sets::of(deployment, spec, claimed.objects);
    let rollout = Rollout {
        world,
        deployment,
        spec,
        limits: Limits::of(spec),
        sets,
    };
    rollout.decide(now)
}

fn selects_everything(deployment: &Deployment) -> Plan {
    let old = deployment.status.clone().unwrap_or_default();
    if old.observed_generation == deployment.metadata.generation {
        return Plan::default();
    }
    let new = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        ..old.clone()
    };
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    let mut plan = Plan::of(Action::status(deployment, Some(&old), &new).into_iter().collect());
    plan.notes
        .push(Note::warning(deployment, "SelectingAll", message));
    plan
}

/// A Deployment and what it has.
struct Rollout<'a> {
    world: &'a World,
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    limits: Limits,
    sets: Sets,
}

impl Rollout<'_> {
    fn decide(&self, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let mut phase = Phase::Scales;
        if !terminating(&self.deployment.metadata) {
            let (now_in, actions) = self.step();
            phase = now_in;
            plan.actions = actions;
        }
        let task = Task::Deployment(Name::of(&self.deployment.metadata));
        let trouble = self.world.troubles.get(&task);
        let moment = Moment {
            deployment: self.deployment,
            sets: &self.sets,
            phase,
            trouble,
            now,
        };
        let mut new = moment.status(&mut plan);
        if self.name_is_taken() {
            new.collision_count = Some(new.collision_count.unwrap_or(0).saturating_add(1));
        }
        let old = self.deployment.status.as_ref();
        plan.actions.extend(Action::status(self.deployment, old, &new));
        plan
    }

    /// What is to be done next.
    fn step(&self) -> (Phase, Vec<Action>) {
        if self.spec.paused == Some(true) || self.is_scaled() {
            let mut actions = self.annotations();
            if actions.is_empty() {
                actions = self.scale();
            }
            if actions.is_empty() && self.spec.paused == Some(true) {
                actions = self.cleanup();
            }
            return (Phase::Scales, actions);
        }
        let recreates = recreates(self.spec);
        if recreates {
            let old = self.sets.old.iter().filter(|set| replicas(set) > 0);
            let down: Vec<Action> = old.flat_map(|set| self.resize(set, 0)).collect();
            if !down.is_empty() {
                return (Phase::Rolls, down);
            }
            if self.old_pods_run() {
                return (Phase::Rolls, Vec::new());
            }
        }
        let Some(new) = &self.sets.new else {
            return (Phase::Begins, self.begin());
        };
        let mut actions = self.annotations();
        let total = self.sets.replicas();
        let target = match recreates {
            true => self.limits.wanted,
            false => grown(self.limits, replicas(new), total),
        };
        if actions.is_empty() {
            actions.extend(self.resize(new, target));
        }
        if actions.is_empty() && !recreates {
            let active: Vec<&Arc<ReplicaSet>> =
                self.sets.old.iter().filter(|set| replicas(set) > 0).collect();
            let sizes: Vec<_> = active.iter().map(|set| size(set)).collect();
            let sizes = shrunk(self.limits, size(new), &sizes);
            let moved = active
                .into_iter()
                .zip(sizes)
                .filter(|(set, size)| replicas(set) != *size);
            actions.extend(moved.flat_map(|(set, size)| self.resize(set, size)));
        }
        let status = self.deployment.status.clone().unwrap_or_default();
        let done = complete(self.deployment, &status);
        if actions.is_empty() && done {
            actions = self.cleanup();
        }
        (Phase::Rolls, actions)
    }

    /// Makes the new set.
    fn begin(&self) -> Vec<Action> {
        if self.name_is_taken() {
            // The status counts the collision, and the next name is another.
            return Vec::new();
        }
        let size = match recreates(self.spec) {
            true => self.limits.wanted,
            false => grown(self.limits, 0, self.sets.replicas()),
        };
        let set = sets::birth(self.deployment, self.spec, self.sets.next_revision(), size);
        let done = match size {
            0 => ("", String::new()),
            size => (
                "ScalingReplicaSet",
                format!("Scaled up replica set {{}} from 0 to {size}"),
            ),
        };
        let refused = format!(
            "Failed to create new replica set \"{}\": {{}}",
            self.sets.new_name
        );
        let told = Told::about(self.deployment, done, ("ReplicaSetCreateError", refused));
        vec![Action::create(&set).told(told)]
    }

    /// Whether a ReplicaSet of another template, or of somebody else, has the name that the new one would have.
    fn name_is_taken(&self) -> bool {
        let name = Name::of(&self.deployment.metadata).beside(&self.sets.new_name);
        self.sets.new.is_none() && self.world.replica_sets.get(&name).is_some()
    }

    /// Brings annotations of the new set, its `minReadySeconds` and the Deployment's revision up to date.
    fn annotations(&self) -> Vec<Action> {
        let Some(new) = &self.sets.new else {
            return Vec::new();
        };
        let missing = sets::missing_annotations(self.deployment, new, self.sets.next_revision());
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let of_set = new
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or(0);
        if !missing.is_empty() || min_ready != of_set {
            let body = json!({
                "metadata": {"uid": new.metadata.uid, "annotations": missing},
                "spec": {"minReadySeconds": min_ready},
            });
            return vec![Action::merge(
                Kind::ReplicaSet,
                &Name::of(&new.metadata),
                "",
                body,
            )];
        }
        let revision = annotation(&new.metadata, REVISION);
        if revision.is_none() || annotation(&self.deployment.metadata, REVISION) == revision {
            return Vec::new();
        }
        let body = json!({"metadata": {
            "uid": self.deployment.metadata.uid,
            "annotations": {REVISION: revision},
        }});
        let name = Name::of(&self.deployment.metadata);
        vec![Action::merge(Kind::Deployment, &name, "", body)]
    }

    /// Whether the wanted number changed since the sizes of the sets were chosen.
    fn is_scaled(&self) -> bool {
        let mut active = self.sets.all().filter(|set| replicas(set) > 0);
        active.any(|set| number(&set.metadata, DESIRED).is_some_and(|desired| desired != self.limits.wanted))
    }

    /// Changes sizes without going on with the rollout.
    fn scale(&self) -> Vec<Action> {
        let wanted = self.limits.wanted;
        let mut active: Vec<&Arc<ReplicaSet>> = self.sets.all().filter(|set| replicas(set) > 0).collect();
        if active.len() < 2 {
            let newest = self.sets.new.as_ref().or(self.sets.old.last());
            let only = active.first().copied().or(newest);
            return only
                .into_iter()
                .flat_map(|set| self.resize(set, wanted))
                .collect();
        }
        let saturated = self.sets.new.as_ref().is_some_and(|new| {
            number(&new.metadata, DESIRED) == Some(wanted)
                && replicas(new) == wanted
                && available(new) == wanted
        });
        if saturated {
            let old = self.sets.old.iter().filter(|set| replicas(set) > 0);
            return old.flat_map(|set| self.resize(set, 0)).collect();
        }
        if recreates(self.spec) {
            return Vec::new();
        }
        let grows = self.limits.most() > self.sets.replicas();
        let made = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        active.sort_by(|a, b| {
            let age = made(a)
                .cmp(&made(b))
                .then_with(|| a.metadata.name.cmp(&b.metadata.name));
            let age = if grows { age.reverse() } else { age };
            Reverse(replicas(a)).cmp(&Reverse(replicas(b))).then(age)
        });
        let parts: Vec<Part> = active
            .iter()
            .map(|set| Part {
                replicas: replicas(set),
                most_then: number(&set.metadata, MOST).unwrap_or_else(|| self.sets.replicas()),
            })
            .collect();
        let sizes = scaled(self.limits, &parts);
        active
            .into_iter()
            .zip(sizes)
            .flat_map(|(set, size)| self.resize(set, size))
            .collect()
    }

    /// Gives a set another size, and notes what it was chosen for.
    fn resize(&self, set: &Arc<ReplicaSet>, size: i32) -> Option<Action> {
        let annotations = sets::size_annotations(self.limits);
        let noted = annotations
            .iter()
            .all(|(name, value)| annotation(&set.metadata, name) == Some(value));
        let before = replicas(set);
        if before == size && noted {
            return None;
        }
        let body = json!({
            "metadata": {
                "uid": set.metadata.uid,
                "resourceVersion": set.metadata.resource_version,
                "annotations": std::collections::BTreeMap::from(annotations),
            },
            "spec": {"replicas": size},
        });
        let action = Action::merge(Kind::ReplicaSet, &Name::of(&set.metadata), "", body);
        if before == size {
            return Some(action);
        }
        let way = if size > before { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {{}} from {before} to {size}");
        Some(action.told(Told::about(
            self.deployment,
            ("ScalingReplicaSet", message),
            ("", ""),
        )))
    }

    /// Whether a pod of an old set is still there: one that ends may still write.
    fn old_pods_run(&self) -> bool {
        let namespace = self.deployment.metadata.namespace.as_deref().unwrap_or_default();
        self.sets.old.iter().any(|set| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let mut pods = self.world.pods.owned_by(namespace, uid);
            pods.any(|pod| !finished(pod))
        })
    }

    /// Removes old sets that are too many.
    fn cleanup(&self) -> Vec<Action> {
        let limit = self.spec.revision_history_limit.unwrap_or(10);
        let mut old: Vec<&Arc<ReplicaSet>> = self
            .sets
            .old
            .iter()
            .filter(|set| !terminating(&set.metadata))
            .collect();
        let Some(many) = old.len().checked_sub(usize::try_from(limit).unwrap_or(0)) else {
            return Vec::new();
        };
        old.sort_by_key(|set| sets::revision(&set.metadata).unwrap_or(0));
        let idle = |set: &&Arc<ReplicaSet>| {
            let status = set.status.as_ref();
            let observed = status.and_then(|status| status.observed_generation) >= set.metadata.generation;
            observed && replicas(set) == 0 && status.is_none_or(|status| status.replicas == 0)
        };
        let gone = old.into_iter().take(many).filter(idle);
        gone.map(|set| Action::delete(&**set)).collect()
    }
}
