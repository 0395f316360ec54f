//! Cells of volumes, claims and storage classes.

use serde_json::Value;

use super::super::quantity::canonical;
use super::{UNSET, computed, flag, items, text, text_or};
use crate::resource::ColumnSource;

const CLASS_ANNOTATION: &str = "/metadata/annotations/volume.beta.kubernetes.io~1storage-class";

pub(super) fn source(resource: &str, column: &str) -> Option<ColumnSource> {
    match (resource, column) {
        ("persistentvolumes", "Capacity") => {
            computed(|volume, _| size(volume, "/spec/capacity/storage").into())
        }
        ("persistentvolumes", "Access Modes") => {
            computed(|volume, _| modes(volume, "/spec/accessModes").into())
        }
        ("persistentvolumes", "Reclaim Policy") => {
            computed(|volume, _| text(volume, "/spec/persistentVolumeReclaimPolicy").into())
        }
        ("persistentvolumes", "Claim") => computed(|volume, _| match &volume["spec"]["claimRef"] {
            Value::Object(_) => {
                let namespace = text(volume, "/spec/claimRef/namespace");
                format!("{namespace}/{}", text(volume, "/spec/claimRef/name")).into()
            }
            _ => "".into(),
        }),
        ("persistentvolumes", "Reason") => computed(|volume, _| text(volume, "/status/reason").into()),
        ("persistentvolumeclaims", "Volume") => computed(|claim, _| text(claim, "/spec/volumeName").into()),
        ("persistentvolumeclaims", "Capacity") => {
            computed(|claim, _| match text(claim, "/spec/volumeName") {
                "" => "".into(),
                _ => size(claim, "/status/capacity/storage").into(),
            })
        }
        ("persistentvolumeclaims", "Access Modes") => {
            computed(|claim, _| match text(claim, "/spec/volumeName") {
                "" => "".into(),
                _ => modes(claim, "/status/accessModes").into(),
            })
        }
        ("persistentvolumes" | "persistentvolumeclaims", "Status") => {
            computed(|object, _| match object["metadata"]["deletionTimestamp"] {
                Value::String(_) => "Terminating".into(),
                _ => text(object, "/status/phase").into(),
            })
        }
        ("persistentvolumes" | "persistentvolumeclaims", "StorageClass") => computed(|object, _| {
            text_or(object, CLASS_ANNOTATION, text(object, "/spec/storageClassName")).into()
        }),
        ("persistentvolumes" | "persistentvolumeclaims", "VolumeAttributesClass") => {
            computed(|object, _| text_or(object, "/spec/volumeAttributesClassName", UNSET).into())
        }
        ("persistentvolumes" | "persistentvolumeclaims", "VolumeMode") => {
            computed(|object, _| text_or(object, "/spec/volumeMode", UNSET).into())
        }
        ("storageclasses", "Provisioner") => computed(|class, _| text(class, "/provisioner").into()),
        ("storageclasses", "ReclaimPolicy") => {
            computed(|class, _| text_or(class, "/reclaimPolicy", "Delete").into())
        }
        ("storageclasses", "VolumeBindingMode") => {
            computed(|class, _| text_or(class, "/volumeBindingMode", "Immediate").into())
        }
        ("storageclasses", "AllowVolumeExpansion") => {
            computed(|class, _| flag(class, "/allowVolumeExpansion").into())
        }
        _ => None,
    }
}

/// Name of a storage class, and whether it is the default one.
pub(super) fn class_name(class: &Value, _: i64) -> Value {
    let annotation = |prefix: &str| {
        let pointer = format!("/metadata/annotations/{prefix}~1is-default-class");
        text(class, &pointer) == "true"
    };
    let name = text(class, "/metadata/name");
    match annotation("storageclass.kubernetes.io") || annotation("storageclass.beta.kubernetes.io") {
        true => format!("{name} (default)").into(),
        false => name.into(),
    }
}

/// A quantity; zero where there is none.
fn size(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => canonical(text).unwrap_or_else(|| text.clone()),
        Some(Value::Number(number)) => canonical(&number.to_string()).unwrap_or_else(|| number.to_string()),
        _ => "0".to_owned(),
    }
}

fn modes(object: &Value, pointer: &str) -> String {
    let listed = items(object, pointer);
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let there = short
        .iter()
        .filter(|(mode, _)| listed.iter().any(|found| found == mode));
    there.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}
