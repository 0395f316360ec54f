//! The manifests that people have, as they are.

use std::path::{Path, PathBuf};

/// All of them that are objects of Kubernetes. Two others, `config-cloudcore.yaml` and `config-edgecore.yaml`, are files that
/// KubeEdge's daemons read for themselves: no API has such a kind, and kubectl could not apply them anywhere.
const FILES: [&str; 16] = [
    "cloudcore-ha.yaml",
    "configmap-secret-deployment.yaml",
    "deployment-modbus-mapper.yaml",
    "deployment-mqtt-mapper.yaml",
    "deployment-nginx-edge.yaml",
    "deployment-with-pvc.yaml",
    "device-mqtt-device-01.yaml",
    "device-sensor-01.yaml",
    "device-temperature-sensor-01.yaml",
    "devicemodel-modbus-temperature.yaml",
    "devicemodel-temperature-model.yaml",
    "edgeapplication.yaml",
    "nodegroup.yaml",
    "pvc.yaml",
    "rbac-edgecore.yaml",
    "storageclass.yaml",
];

/// Of other guides, for the controllers' own tests: two objects each.
const MORE: [&str; 2] = [
    "device-v1alpha2-modbus-tcp.yaml",
    "device-v1beta1-modbus-tcp.yaml",
];

/// What `kubectl get` is asked for to see all that the manifests made.
pub(crate) const KINDS: &str = "all,configmaps,secrets,persistentvolumeclaims,storageclasses,serviceaccounts,clusterroles,\
     clusterrolebindings,devices,devicemodels,edgeapplications,nodegroups";

/// The file of this name. Every crate whose tests use this is beside `cloud/controllers`.
pub(crate) fn file(name: &str) -> String {
    let path = folder().join(name);
    path.to_str().unwrap().to_owned()
}

/// All files, as an argument for kubectl.
pub(crate) fn directory() -> String {
    folder().to_str().unwrap().to_owned()
}

/// Every file that there is, none left out.
pub(crate) fn files() -> Vec<String> {
    let entries = folder().read_dir().unwrap();
    let mut there: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    let mut known: Vec<&str> = FILES.into_iter().chain(MORE).collect();
    known.sort_unstable();
    assert_eq!(there, known);
    there.iter().map(|name| file(name)).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../controllers/tests/manifests")
}
