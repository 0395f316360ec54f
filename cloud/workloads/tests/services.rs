//! Services and what is behind them, accounts and volumes, against the embedded API in this process.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use support::{Cluster, names};

fn pod(name: &str, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    })
}

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]},
    });
    service["spec"]
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    service
}

/// Addresses that are ready, and those that are not.
fn addresses(endpoints: &Endpoints) -> (Vec<String>, Vec<String>) {
    let (mut ready, mut unready) = (Vec::new(), Vec::new());
    for subset in endpoints.subsets.iter().flatten() {
        let name = |address: &k8s_openapi::api::core::v1::EndpointAddress| {
            address.target_ref.as_ref().unwrap().name.clone().unwrap()
        };
        ready.extend(subset.addresses.iter().flatten().map(name));
        unready.extend(subset.not_ready_addresses.iter().flatten().map(name));
    }
    ready.sort();
    (ready, unready)
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_an_address_and_the_pods_that_are_ready() {
    let mut cluster = Cluster::start().await;
    cluster.node("a", json!({}), json!([])).await;
    cluster
        .create::<Service>(service("web", json!({"type": "NodePort"})))
        .await;
    cluster
        .create::<Service>(service("headless", json!({"clusterIP": "None"})))
        .await;
    let made = cluster
        .until("web", |service: &Service| {
            service
                .spec
                .as_ref()
                .unwrap()
                .cluster_ip
                .as_deref()
                .is_some_and(|address| address.starts_with("10."))
        })
        .await;
    let port = made.spec.as_ref().unwrap().ports.as_ref().unwrap()[0]
        .node_port
        .unwrap();
    assert!((30000..=32767).contains(&port), "{port}");
    for name in ["one", "two"] {
        cluster.create::<Pod>(pod(name, "run")).await;
    }
    let endpoints = cluster
        .until("web", |one: &Endpoints| addresses(one).0 == ["one", "two"])
        .await;
    let subset = &endpoints.subsets.unwrap()[0];
    assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
    assert_eq!(
        subset.addresses.as_ref().unwrap()[0].node_name.as_deref(),
        Some("a")
    );
    cluster
        .until("headless", |one: &Endpoints| addresses(one).0 == ["one", "two"])
        .await;
    let headless = cluster.until("headless", |_: &Service| true).await;
    assert_eq!(headless.spec.unwrap().cluster_ip.as_deref(), Some("None"));

    let slices = cluster
        .until_all::<EndpointSlice>(|slices| {
            slices.len() == 2 && slices.iter().all(|slice| slice.endpoints.len() == 2)
        })
        .await;
    let labels = slices[0].metadata.labels.as_ref().unwrap();
    assert!(labels.contains_key("kubernetes.io/service-name"));
    assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));

    cluster
        .api::<Pod>()
        .delete("one", &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until("web", |one: &Endpoints| {
            addresses(one) == (owned(&["two"]), vec![])
        })
        .await;
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let patch = kube::api::Patch::Strategic(unready);
    cluster
        .api::<Pod>()
        .patch_status("two", &Default::default(), &patch)
        .await
        .unwrap();
    cluster
        .until("web", |one: &Endpoints| {
            addresses(one) == (vec![], owned(&["two"]))
        })
        .await;
    cluster
        .merge::<Service>("web", json!({"spec": {"publishNotReadyAddresses": true}}))
        .await;
    cluster
        .until("web", |one: &Endpoints| {
            addresses(one) == (owned(&["two"]), vec![])
        })
        .await;

    cluster
        .api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until_all::<Endpoints>(|all| names(all) == ["headless"])
        .await;
    cluster
        .until_all::<EndpointSlice>(|slices| slices.len() == 1)
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_namespace_has_an_account() {
    let cluster = Cluster::start().await;
    cluster.until("default", |_: &ServiceAccount| true).await;
    cluster
        .api::<ServiceAccount>()
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    cluster.until("default", |_: &ServiceAccount| true).await;
    cluster
        .create::<Namespace>(json!({"metadata": {"name": "dev"}}))
        .await;
    let dev: kube::Api<ServiceAccount> = kube::Api::namespaced(cluster.client.clone(), "dev");
    let started = std::time::Instant::now();
    while dev.get_opt("default").await.unwrap().is_none() {
        assert!(started.elapsed() < std::time::Duration::from_secs(60));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    cluster.stop().await;
}

fn claim(name: &str, class: Option<&str>) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_gets_its_volume_on_the_node_of_its_first_pod() {
    let mut cluster = Cluster::start().await;
    cluster
        .storage_class("local-path", "WaitForFirstConsumer", true)
        .await;
    for node in ["a", "b"] {
        cluster.node(node, json!({}), json!([])).await;
    }
    // It names no class: it is of the default one.
    cluster.create::<PersistentVolumeClaim>(claim("data", None)).await;
    cluster.event("data", "WaitForFirstConsumer").await;
    cluster
        .until("data", |claim: &PersistentVolumeClaim| phase(claim) == "Pending")
        .await;
    let mut one = pod("one", "run");
    one["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    one["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "b"});
    cluster.create::<Pod>(one.clone()).await;
    let bound = cluster
        .until("data", |claim: &PersistentVolumeClaim| phase(claim) == "Bound")
        .await;
    assert_eq!(
        bound.spec.as_ref().unwrap().storage_class_name.as_deref(),
        Some("local-path")
    );
    let volume = bound.spec.unwrap().volume_name.unwrap();
    let held = |volume: &PersistentVolume| {
        volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    };
    let volume = cluster.until(&volume, held).await;
    let path = volume
        .spec
        .as_ref()
        .unwrap()
        .host_path
        .as_ref()
        .unwrap()
        .path
        .clone();
    assert!(
        path.starts_with("/opt/local-path-provisioner/pvc-") && path.ends_with("_default_data"),
        "{path}"
    );
    let on = |pod: &Pod, node: &str| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node);
    cluster.until("one", |pod: &Pod| on(pod, "b")).await;

    // The next pod with it goes where it is, whatever else is free; one that may not, waits.
    let mut two = pod("two", "run");
    two["spec"]["volumes"] = one["spec"]["volumes"].clone();
    cluster.create::<Pod>(two.clone()).await;
    cluster.until("two", |pod: &Pod| on(pod, "b")).await;
    let mut three = two;
    three["metadata"]["name"] = "three".into();
    three["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "a"});
    cluster.create::<Pod>(three).await;
    let why = cluster.event("three", "FailedScheduling").await;
    assert_eq!(
        why,
        "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) didn't match Pod's node affinity/selector."
    );

    // A claim that goes takes the volume that was made for it along.
    cluster
        .api::<PersistentVolumeClaim>()
        .delete("data", &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until_all::<PersistentVolume>(<[PersistentVolume]>::is_empty)
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_takes_the_smallest_volume_that_will_do() {
    let cluster = Cluster::start().await;
    for (name, size) in [("small", "500Mi"), ("right", "2Gi"), ("large", "20Gi")] {
        let volume = json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
                "storageClassName": "manual", "hostPath": {"path": "/mnt/x"},
            },
        });
        cluster.create::<PersistentVolume>(volume).await;
    }
    let free = |volume: &PersistentVolume| {
        volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available")
    };
    for name in ["small", "right", "large"] {
        cluster.until(name, free).await;
    }
    cluster
        .create::<PersistentVolumeClaim>(claim("data", Some("manual")))
        .await;
    let bound = cluster
        .until("data", |claim: &PersistentVolumeClaim| phase(claim) == "Bound")
        .await;
    assert_eq!(bound.spec.unwrap().volume_name.as_deref(), Some("right"));
    assert_eq!(bound.status.unwrap().capacity.unwrap()["storage"].0, "2Gi");
    cluster.stop().await;
}
