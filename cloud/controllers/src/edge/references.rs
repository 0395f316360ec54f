//! Which objects an object cannot do without.

use std::collections::BTreeSet;

use ledge_proto::record::object_key;
use serde_json::Value;

/// Keys of the objects that `object` of `resource` (core group) refers to.
pub(super) fn of(resource: &str, object: &Value) -> BTreeSet<String> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let mut found = Found {
        namespace,
        keys: BTreeSet::new(),
    };
    match resource {
        "pods" => found.of_pod(object),
        "persistentvolumeclaims" => {
            if let Some(name) = text(&object["spec"]["volumeName"]) {
                found.keys.insert(object_key("", "persistentvolumes", "", name));
            }
        }
        "persistentvolumes" => found.of_volume(&object["spec"]),
        "serviceaccounts" => {
            for list in ["secrets", "imagePullSecrets"] {
                each(&object[list]).for_each(|secret| found.add("secrets", &secret["name"]));
            }
        }
        _ => {}
    }
    found.keys
}

struct Found<'a> {
    namespace: &'a str,
    keys: BTreeSet<String>,
}

impl Found<'_> {
    fn add(&mut self, resource: &str, name: &Value) {
        if let Some(name) = text(name) {
            self.keys.insert(object_key("", resource, self.namespace, name));
        }
    }

    fn of_pod(&mut self, pod: &Value) {
        let spec = &pod["spec"];
        match text(&spec["serviceAccountName"]) {
            Some(_) => self.add("serviceaccounts", &spec["serviceAccountName"]),
            None => self.add("serviceaccounts", &"default".into()),
        }
        each(&spec["imagePullSecrets"]).for_each(|secret| self.add("secrets", &secret["name"]));
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            for container in each(&spec[list]) {
                for variable in each(&container["env"]) {
                    self.add("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
                    self.add("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
                }
                for from in each(&container["envFrom"]) {
                    self.add("configmaps", &from["configMapRef"]["name"]);
                    self.add("secrets", &from["secretRef"]["name"]);
                }
            }
        }
        let name = text(&pod["metadata"]["name"]).unwrap_or_default();
        for volume in each(&spec["volumes"]) {
            self.add("configmaps", &volume["configMap"]["name"]);
            self.add("secrets", &volume["secret"]["secretName"]);
            self.add(
                "persistentvolumeclaims",
                &volume["persistentVolumeClaim"]["claimName"],
            );
            if volume["ephemeral"].is_object() {
                let claim = format!("{name}-{}", text(&volume["name"]).unwrap_or_default());
                self.add("persistentvolumeclaims", &claim.into());
            }
            for source in each(&volume["projected"]["sources"]) {
                self.add("configmaps", &source["configMap"]["name"]);
                self.add("secrets", &source["secret"]["name"]);
            }
            self.of_volume(volume);
        }
    }

    /// Secrets with which storage is reached: of a volume of a pod in the pod's namespace, of a persistent volume in the
    /// one that is named.
    fn of_volume(&mut self, volume: &Value) {
        for source in volume
            .as_object()
            .into_iter()
            .flat_map(|members| members.values())
        {
            for reference in [
                "secretRef",
                "nodePublishSecretRef",
                "nodeStageSecretRef",
                "nodeExpandSecretRef",
            ] {
                let secret = &source[reference];
                let (Some(name), namespace) = (text(&secret["name"]), text(&secret["namespace"])) else {
                    continue;
                };
                let namespace = namespace.unwrap_or(self.namespace);
                self.keys.insert(object_key("", "secrets", namespace, name));
            }
        }
    }
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_needs_what_it_mounts_reads_and_pulls_with() {
        let pod = json!({
            "metadata": {"namespace": "shop", "name": "till"},
            "spec": {
                "serviceAccountName": "clerk",
                "imagePullSecrets": [{"name": "registry"}],
                "containers": [{
                    "env": [
                        {"name": "A", "value": "1"},
                        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "env-map", "key": "k"}}},
                        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}},
                    ],
                    "envFrom": [{"configMapRef": {"name": "all-map"}}, {"secretRef": {"name": "all-secret"}}],
                }],
                "initContainers": [{"envFrom": [{"configMapRef": {"name": "init-map"}}]}],
                "volumes": [
                    {"name": "a", "configMap": {"name": "vol-map"}},
                    {"name": "b", "secret": {"secretName": "vol-secret"}},
                    {"name": "c", "persistentVolumeClaim": {"claimName": "disk"}},
                    {"name": "d", "ephemeral": {"volumeClaimTemplate": {}}},
                    {"name": "e", "projected": {"sources": [{"configMap": {"name": "ca"}}, {"secret": {"name": "tls"}}]}},
                    {"name": "f", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "csi"}}},
                    {"name": "g", "emptyDir": {}},
                ],
            },
        });
        let keys = of("pods", &pod);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "/configmaps/shop/all-map",
                "/configmaps/shop/ca",
                "/configmaps/shop/env-map",
                "/configmaps/shop/init-map",
                "/configmaps/shop/vol-map",
                "/persistentvolumeclaims/shop/disk",
                "/persistentvolumeclaims/shop/till-d",
                "/secrets/shop/all-secret",
                "/secrets/shop/csi",
                "/secrets/shop/env-secret",
                "/secrets/shop/registry",
                "/secrets/shop/tls",
                "/secrets/shop/vol-secret",
                "/serviceaccounts/shop/clerk",
            ]
        );
    }

    #[test]
    fn claims_volumes_and_accounts_lead_further() {
        let claim = json!({"metadata": {"namespace": "shop"}, "spec": {"volumeName": "pv-1"}});
        assert_eq!(
            of("persistentvolumeclaims", &claim),
            ["/persistentvolumes//pv-1".to_owned()].into()
        );
        let volume = json!({"spec": {"csi": {"nodeStageSecretRef": {"name": "s", "namespace": "storage"}}}});
        assert_eq!(
            of("persistentvolumes", &volume),
            ["/secrets/storage/s".to_owned()].into()
        );
        let account = json!({"metadata": {"namespace": "shop"}, "imagePullSecrets": [{"name": "r"}]});
        assert_eq!(
            of("serviceaccounts", &account),
            ["/secrets/shop/r".to_owned()].into()
        );
    }
}
