//! Volumes of pods, persistent volumes, claims.

use serde_json::{Value, json};

use super::fields::{
    Fields, at, canonical, canonical_list, each, inner, made, put, put_nonzero, requirements, text,
};
use super::pod::pull_policy;

/// Read by all, written by root: 0644.
const FILE_MODE: u32 = 0o644;

/// An hour.
const TOKEN_SECONDS: u32 = 3600;

/// A volume of a pod.
pub(super) fn volume(volume: &mut Fields) {
    if volume.keys().all(|name| name == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(directory) = inner(volume, "emptyDir") {
        canonical(directory, "sizeLimit");
    }
    if let Some(image) = inner(volume, "image") {
        let policy = pull_policy(text(image, "reference"));
        put_nonzero(image, "pullPolicy", policy);
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(files) = inner(volume, name) {
            put(files, "defaultMode", FILE_MODE);
        }
    }
    if let Some(downward) = inner(volume, "downwardAPI") {
        each(downward, "items").for_each(selectors);
    }
    if let Some(projected) = inner(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(downward) = inner(source, "downwardAPI") {
                each(downward, "items").for_each(selectors);
            }
            if let Some(token) = inner(source, "serviceAccountToken") {
                put(token, "expirationSeconds", TOKEN_SECONDS);
            }
        }
    }
    if let Some(template) = at(volume, &["ephemeral", "volumeClaimTemplate"]) {
        made(template, "metadata");
        if let Some(spec) = made(template, "spec") {
            claim_spec(spec);
        }
    }
    sources(volume);
}

/// What volumes of pods and persistent volumes have in common.
fn sources(volume: &mut Fields) {
    if let Some(path) = inner(volume, "hostPath") {
        put(path, "type", "");
    }
    if let Some(disk) = inner(volume, "iscsi") {
        put_nonzero(disk, "iscsiInterface", "default");
    }
    if let Some(disk) = inner(volume, "rbd") {
        put_nonzero(disk, "pool", "rbd");
        put_nonzero(disk, "user", "admin");
        put_nonzero(disk, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = inner(volume, "azureDisk") {
        put(disk, "cachingMode", "ReadWrite");
        put(disk, "fsType", "ext4");
        put(disk, "readOnly", false);
        put(disk, "kind", "Shared");
    }
    if let Some(disk) = inner(volume, "scaleIO") {
        put_nonzero(disk, "storageMode", "ThinProvisioned");
        put_nonzero(disk, "fsType", "xfs");
    }
}

/// References to fields of the pod itself, in an environment variable or a file.
pub(super) fn selectors(holder: &mut Fields) {
    if let Some(field) = inner(holder, "fieldRef") {
        put_nonzero(field, "apiVersion", "v1");
    }
    if let Some(resource) = inner(holder, "resourceFieldRef") {
        put(resource, "divisor", "0");
        canonical(resource, "divisor");
    }
}

/// A PersistentVolume.
pub(super) fn persistent(volume: &mut Fields) {
    if let Some(spec) = made(volume, "spec") {
        put_nonzero(spec, "persistentVolumeReclaimPolicy", "Retain");
        put(spec, "volumeMode", "Filesystem");
        canonical_list(spec, "capacity");
        sources(spec);
    }
    if let Some(status) = made(volume, "status") {
        put_nonzero(status, "phase", "Pending");
    }
}

/// A PersistentVolumeClaim.
pub(super) fn claim(claim: &mut Fields) {
    if let Some(spec) = made(claim, "spec") {
        claim_spec(spec);
    }
    if let Some(status) = made(claim, "status") {
        put_nonzero(status, "phase", "Pending");
        canonical_list(status, "capacity");
        canonical_list(status, "allocatedResources");
    }
}

/// A claim in a StatefulSet.
pub(super) fn claim_template(template: &mut Fields) {
    put_nonzero(template, "apiVersion", "v1");
    put_nonzero(template, "kind", "PersistentVolumeClaim");
    made(template, "metadata");
    claim(template);
}

fn claim_spec(spec: &mut Fields) {
    put(spec, "volumeMode", "Filesystem");
    requirements(spec, "resources");
    same_source(spec);
}

/// `dataSource` and `dataSourceRef` say the same, except that the newer one may name another namespace.
fn same_source(spec: &mut Fields) {
    let (old, new) = (
        spec.get("dataSource").cloned(),
        spec.get("dataSourceRef").cloned(),
    );
    match (old, new) {
        (Some(old), None) if supported(&old) => {
            spec.insert("dataSourceRef".to_owned(), old);
        }
        (None, Some(new)) if supported(&new) && new.get("namespace").is_none() => {
            spec.insert("dataSource".to_owned(), new);
        }
        _ => {}
    }
}

fn supported(source: &Value) -> bool {
    let group = source.get("apiGroup").and_then(Value::as_str).unwrap_or_default();
    let kind = source.get("kind").and_then(Value::as_str).unwrap_or_default();
    matches!(
        (group, kind),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}
