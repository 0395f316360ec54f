//! What a pod refers to in its namespace. Source: `k8s.io/kubernetes/pkg/api/v1/pod` (VisitPodSecretNames and its like).

use std::collections::BTreeSet;

use serde_json::Value;

/// What is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ServiceAccount,
}

impl Kind {
    /// What a pod itself can refer to, with the resources' names.
    pub(super) const ALL: [(Kind, &'static str); 4] = [
        (Kind::ServiceAccount, "serviceaccounts"),
        (Kind::Secret, "secrets"),
        (Kind::ConfigMap, "configmaps"),
        (Kind::Claim, "persistentvolumeclaims"),
    ];
}

/// Volumes whose secret stands in a field `secretRef.name`.
const WITH_SECRET_REF: [&str; 6] = ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi"];

/// Names of the objects of one kind that `pod` refers to.
pub(super) fn of(pod: &Value, kind: Kind) -> BTreeSet<String> {
    let spec = &pod["spec"];
    let mut out = BTreeSet::new();
    let mut add = |name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            out.insert(name.to_owned());
        }
    };
    match kind {
        Kind::Pod | Kind::Volume => {}
        Kind::ServiceAccount => add(&spec["serviceAccountName"]),
        Kind::Secret => {
            for one in list(&spec["imagePullSecrets"]) {
                add(&one["name"]);
            }
            for container in containers(spec) {
                for env in list(&container["env"]) {
                    add(&env["valueFrom"]["secretKeyRef"]["name"]);
                }
                for from in list(&container["envFrom"]) {
                    add(&from["secretRef"]["name"]);
                }
            }
            for volume in list(&spec["volumes"]) {
                add(&volume["secret"]["secretName"]);
                add(&volume["azureFile"]["secretName"]);
                add(&volume["csi"]["nodePublishSecretRef"]["name"]);
                add(&volume["storageos"]["secretRef"]["name"]);
                for kind in WITH_SECRET_REF {
                    add(&volume[kind]["secretRef"]["name"]);
                }
                for source in list(&volume["projected"]["sources"]) {
                    add(&source["secret"]["name"]);
                }
            }
        }
        Kind::ConfigMap => {
            for container in containers(spec) {
                for env in list(&container["env"]) {
                    add(&env["valueFrom"]["configMapKeyRef"]["name"]);
                }
                for from in list(&container["envFrom"]) {
                    add(&from["configMapRef"]["name"]);
                }
            }
            for volume in list(&spec["volumes"]) {
                add(&volume["configMap"]["name"]);
                for source in list(&volume["projected"]["sources"]) {
                    add(&source["configMap"]["name"]);
                }
            }
        }
        Kind::Claim => {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            for volume in list(&spec["volumes"]) {
                add(&volume["persistentVolumeClaim"]["claimName"]);
                if volume["ephemeral"].is_object() {
                    let volume = volume["name"].as_str().unwrap_or_default();
                    add(&format!("{name}-{volume}").into());
                }
            }
        }
    }
    out
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|field| list(&spec[field]))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
