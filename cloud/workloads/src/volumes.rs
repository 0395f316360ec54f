//! Volumes that are directories of a node: binds claims to volumes that are there, and makes those of local storage classes.
//!
//! A claim of a class that waits for its first consumer gets its volume on the node that the scheduler chose for the pod.
//! Removing a volume removes the object: the directory is the node's to remove.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
    PersistentVolumeSpec, PersistentVolumeStatus, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::Settings;
use crate::meta::{annotation, selects, terminating, uid};
use crate::names::Name;
use crate::plan::{Action, Note, Plan, Told};
use crate::quantity::milli;
use crate::world::{Kind, World};

/// The node that was chosen for the first pod of a claim.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// Provisioners whose volumes are directories of a node.
const LOCAL: &[&str] = &[
    "rancher.io/local-path",
    "kubernetes.io/host-path",
    "ledge.io/local-path",
];
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The default class: the newest of those that say they are.
fn default_class(world: &World) -> Option<&Arc<StorageClass>> {
    let says = |class: &&Arc<StorageClass>| annotation(&class.metadata, DEFAULT_CLASS) == Some("true");
    world.classes.iter().filter(says).max_by_key(|class| {
        let made = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (made, std::cmp::Reverse(class.metadata.name.clone()))
    })
}

fn class_of<'a>(world: &'a World, spec: &PersistentVolumeClaimSpec) -> Option<&'a Arc<StorageClass>> {
    let name = spec
        .storage_class_name
        .as_deref()
        .filter(|name| !name.is_empty())?;
    world.classes.get(&Name::new("", name))
}

/// Whether claims of the class wait until a pod with them has a node.
fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// What a claim lets the scheduler do.
#[derive(Debug)]
pub enum Readiness<'a> {
    /// It is bound to this volume: the pod goes where that is.
    Bound(&'a PersistentVolume),
    /// It waits for the node of its first pod, which may be this one already.
    WaitsForNode(Option<&'a str>),
    /// The pod cannot be scheduled, and why.
    Not(String),
}

/// What the claim of this name lets the scheduler do.
pub fn readiness<'a>(world: &'a World, name: &Name) -> Readiness<'a> {
    let Some(claim) = world.claims.get(name) else {
        return Readiness::Not(format!("persistentvolumeclaim \"{}\" not found", name.name));
    };
    if terminating(&claim.metadata) {
        return Readiness::Not(format!(
            "persistentvolumeclaim \"{}\" is being deleted",
            name.name
        ));
    }
    let spec = claim.spec.clone().unwrap_or_default();
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    if let Some(volume) = spec.volume_name.as_deref().filter(|_| bound) {
        return match world.volumes.get(&Name::new("", volume)) {
            Some(volume) => Readiness::Bound(volume),
            None => Readiness::Not(
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".to_owned(),
            ),
        };
    }
    match class_of(world, &spec) {
        Some(class) if waits_for_consumer(class) && spec.volume_name.is_none() => {
            Readiness::WaitsForNode(annotation(&claim.metadata, SELECTED_NODE))
        }
        _ => Readiness::Not("pod has unbound immediate PersistentVolumeClaims".to_owned()),
    }
}

/// Chooses a node for a claim that waits for one; `None` when it has it.
pub fn select_node(world: &World, name: &Name, node: &str) -> Option<Action> {
    let claim = world.claims.get(name)?;
    if annotation(&claim.metadata, SELECTED_NODE) == Some(node) {
        return None;
    }
    let body = json!({"metadata": {
        "uid": claim.metadata.uid,
        "annotations": {SELECTED_NODE: node},
    }});
    Some(Action::merge(Kind::PersistentVolumeClaim, name, "", body))
}

/// Brings a claim nearer to its volume.
pub fn decide_claim(world: &World, name: &Name, settings: &Settings) -> Plan {
    let Some(claim) = world
        .claims
        .get(name)
        .filter(|claim| !terminating(&claim.metadata))
    else {
        return Plan::default();
    };
    let spec = claim.spec.clone().unwrap_or_default();
    if let Some(volume) = spec.volume_name.as_deref().filter(|volume| !volume.is_empty()) {
        return with_volume(world, claim, volume);
    }
    let holds =
        |volume: &&Arc<PersistentVolume>| holder(volume).is_some_and(|holder| holds_for(holder, claim));
    if let Some(volume) = world.volumes.iter().find(holds) {
        return Plan::of(vec![name_volume(claim, volume)]);
    }
    let Some(class_name) = spec.storage_class_name.as_deref() else {
        let Some(class) = default_class(world) else {
            return pending(world, claim, &spec, "");
        };
        let body = json!({
            "metadata": {"uid": claim.metadata.uid},
            "spec": {"storageClassName": class.metadata.name},
        });
        return Plan::of(vec![Action::merge(Kind::PersistentVolumeClaim, name, "", body)]);
    };
    let class = class_of(world, &spec);
    let selected = annotation(&claim.metadata, SELECTED_NODE);
    if class.is_some_and(|class| waits_for_consumer(class)) && selected.is_none() {
        return pending(world, claim, &spec, class_name);
    }
    if let Some(volume) = fitting(world, claim, &spec, class_name, selected) {
        return Plan::of(vec![hold(claim, volume)]);
    }
    match class.filter(|class| LOCAL.contains(&class.provisioner.as_str())) {
        Some(class) => provision(world, claim, &spec, class, selected, settings),
        None => pending(world, claim, &spec, class_name),
    }
}

fn holder(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether a volume's reference is to this claim; one without a UID is to the name.
fn holds_for(holder: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    holder.name == claim.metadata.name
        && holder.namespace == claim.metadata.namespace
        && holder
            .uid
            .as_ref()
            .is_none_or(|uid| Some(uid) == claim.metadata.uid.as_ref())
}

/// Says that the claim is pending, and once what it waits for.
fn pending(
    world: &World,
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    class: &str,
) -> Plan {
    let mut plan = Plan::default();
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let why = match class_of(world, spec) {
        Some(class) if waits_for_consumer(class) => Note::normal(
            claim,
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        Some(class) => Note::normal(
            claim,
            "ExternalProvisioning",
            format!(
                "waiting for a volume to be created by the provisioner \"{}\"",
                class.provisioner
            ),
        ),
        None if class.is_empty() => Note::normal(
            claim,
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        ),
        None => Note::warning(
            claim,
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io \"{class}\" not found"),
        ),
    };
    if annotation(&claim.metadata, SELECTED_NODE).is_none() {
        plan.notes.push(why);
    }
    if phase != Some("Pending") {
        let status = PersistentVolumeClaimStatus {
            phase: Some("Pending".to_owned()),
            ..claim.status.clone().unwrap_or_default()
        };
        plan.actions
            .extend(Action::status(claim, claim.status.as_ref(), &status));
    }
    plan
}

/// A claim that names its volume.
fn with_volume(world: &World, claim: &PersistentVolumeClaim, name: &str) -> Plan {
    let old = claim.status.clone().unwrap_or_default();
    let mut new = old.clone();
    match world.volumes.get(&Name::new("", name)) {
        None if old.phase.as_deref() == Some("Bound") => {
            new.phase = Some("Lost".to_owned());
            let told = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            let mut plan = Plan::of(Action::status(claim, Some(&old), &new).into_iter().collect());
            plan.notes.push(Note::warning(claim, "ClaimLost", told));
            return plan;
        }
        None => new.phase = Some(old.phase.clone().unwrap_or_else(|| "Pending".to_owned())),
        Some(volume) => match holder(volume) {
            None => return Plan::of(vec![hold(claim, volume)]),
            Some(holder) if holds_for(holder, claim) => {
                let spec = volume.spec.clone().unwrap_or_default();
                new.phase = Some("Bound".to_owned());
                new.access_modes = spec.access_modes;
                new.capacity = spec.capacity;
            }
            Some(_) => {
                let mut plan = Plan::default();
                let told = format!("volume \"{name}\" already bound to a different claim.");
                plan.notes.push(Note::warning(claim, "FailedBinding", told));
                return plan;
            }
        },
    }
    Plan::of(Action::status(claim, Some(&old), &new).into_iter().collect())
}

fn name_volume(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Action {
    let body = json!({
        "metadata": {
            "uid": claim.metadata.uid,
            "annotations": {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"},
        },
        "spec": {"volumeName": volume.metadata.name},
    });
    Action::merge(Kind::PersistentVolumeClaim, &Name::of(&claim.metadata), "", body)
}

fn claim_reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Takes a volume for the claim.
fn hold(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Action {
    let body = json!({
        "metadata": {"uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version},
        "spec": {"claimRef": claim_reference(claim)},
    });
    Action::merge(Kind::PersistentVolume, &Name::of(&volume.metadata), "", body)
}

/// The smallest volume that nobody has and that will do.
fn fitting<'a>(
    world: &'a World,
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    class: &str,
    node: Option<&str>,
) -> Option<&'a Arc<PersistentVolume>> {
    let asked = asked(spec);
    let node = node.and_then(|node| world.nodes.get(&Name::new("", node)));
    let size = |volume: &PersistentVolume| milli(volume.spec.as_ref()?.capacity.as_ref()?.get("storage")?);
    let will_do = |volume: &&Arc<PersistentVolume>| {
        let Some(of_volume) = &volume.spec else {
            return false;
        };
        let modes = spec.access_modes.iter().flatten();
        let mut modes = modes.into_iter();
        let has = of_volume.access_modes.as_deref().unwrap_or_default();
        of_volume
            .claim_ref
            .as_ref()
            .is_none_or(|holder| holder.uid.is_none() && holds_for(holder, claim))
            && !terminating(&volume.metadata)
            && of_volume.storage_class_name.as_deref().unwrap_or_default() == class
            && of_volume.volume_mode.as_deref().unwrap_or("Filesystem")
                == spec.volume_mode.as_deref().unwrap_or("Filesystem")
            && modes.all(|mode| has.contains(mode))
            && size(volume).is_some_and(|size| size >= asked)
            && spec
                .selector
                .as_ref()
                .is_none_or(|selector| selects(selector, volume.metadata.labels.as_ref()))
            && node.is_none_or(|node| reachable(volume, node))
    };
    let fitting = world.volumes.iter().filter(will_do);
    fitting.min_by_key(|volume| (size(volume), volume.metadata.name.clone()))
}

fn asked(spec: &PersistentVolumeClaimSpec) -> i128 {
    let requests = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    requests
        .and_then(|requests| milli(requests.get("storage")?))
        .unwrap_or(0)
}

/// Whether the volume can be used on the node.
pub fn reachable(volume: &PersistentVolume, node: &k8s_openapi::api::core::v1::Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| {
        let mut terms = required.node_selector_terms.iter();
        terms.any(|term| crate::scheduler::affinity::term_admits(term, node))
    })
}

/// Makes the volume of a claim.
fn provision(
    world: &World,
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    class: &StorageClass,
    node: Option<&str>,
    settings: &Settings,
) -> Plan {
    let affinity = match node.map(|node| world.nodes.get(&Name::new("", node)).ok_or(node)) {
        None => None,
        Some(Ok(node)) => Some(on_node(node)),
        Some(Err(_)) => {
            // The node went: another is chosen.
            let body = json!({"metadata": {
                "uid": claim.metadata.uid,
                "annotations": {SELECTED_NODE: null},
            }});
            let name = Name::of(&claim.metadata);
            return Plan::of(vec![Action::merge(Kind::PersistentVolumeClaim, &name, "", body)]);
        }
    };
    let claim_name = Name::of(&claim.metadata);
    let name = format!("pvc-{}", uid(&claim.metadata));
    let parameter = class
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.get("nodePath"));
    let base = parameter
        .map_or(settings.volumes.as_str(), String::as_str)
        .trim_end_matches('/');
    let requests = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.clone());
    let storage = requests.unwrap_or_default().remove("storage").unwrap_or_default();
    let volume = PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some([(PROVISIONED_BY.to_owned(), class.provisioner.clone())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes.clone(),
            capacity: Some(BTreeMap::from([("storage".to_owned(), storage)])),
            claim_ref: Some(claim_reference(claim)),
            host_path: Some(HostPathVolumeSource {
                path: format!("{base}/{name}_{}_{}", claim_name.namespace, claim_name.name),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            node_affinity: affinity,
            persistent_volume_reclaim_policy: Some(
                class
                    .reclaim_policy
                    .clone()
                    .unwrap_or_else(|| "Delete".to_owned()),
            ),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some(
                spec.volume_mode
                    .clone()
                    .unwrap_or_else(|| "Filesystem".to_owned()),
            ),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    };
    Plan::of(vec![Action::create(&volume).told(Told::about(
        claim,
        ("ProvisioningSucceeded", "Successfully provisioned volume {}"),
        ("ProvisioningFailed", "failed to provision volume: {}"),
    ))])
}

fn on_node(node: &k8s_openapi::api::core::v1::Node) -> VolumeNodeAffinity {
    let name = node.metadata.name.clone().unwrap_or_default();
    let hostname = node
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(HOSTNAME).cloned());
    let requirement = |key: &str, value: String| NodeSelectorRequirement {
        key: key.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![value]),
    };
    let term = match hostname {
        Some(hostname) => NodeSelectorTerm {
            match_expressions: Some(vec![requirement(HOSTNAME, hostname)]),
            match_fields: None,
        },
        None => NodeSelectorTerm {
            match_expressions: None,
            match_fields: Some(vec![requirement("metadata.name", name)]),
        },
    };
    VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: vec![term],
        }),
    }
}

/// Brings a volume's phase up to date, and removes one that was made for a claim which is gone.
pub fn decide_volume(world: &World, name: &Name) -> Plan {
    let Some(volume) = world
        .volumes
        .get(name)
        .filter(|volume| !terminating(&volume.metadata))
    else {
        return Plan::default();
    };
    let old = volume.status.clone().unwrap_or_default();
    let phase = match holder(volume).filter(|holder| holder.uid.is_some()) {
        None => "Available",
        Some(holder) => {
            let claim = Name::new(
                holder.namespace.as_deref().unwrap_or_default(),
                holder.name.as_deref().unwrap_or_default(),
            );
            let claim = world
                .claims
                .get(&claim)
                .filter(|claim| claim.metadata.uid == holder.uid);
            if claim.is_some() { "Bound" } else { "Released" }
        }
    };
    let policy = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let made_here = annotation(&volume.metadata, PROVISIONED_BY).is_some_and(|by| LOCAL.contains(&by));
    if phase == "Released" && policy == Some("Delete") && made_here {
        return Plan::of(vec![Action::delete(&**volume)]);
    }
    let new = PersistentVolumeStatus {
        phase: Some(phase.to_owned()),
        ..old.clone()
    };
    Plan::of(Action::status(&**volume, Some(&old), &new).into_iter().collect())
}
