//! What tests of controllers rely on: each cluster serves what it was given, has a namespace of the test's own, and is gone
//! when nobody uses it.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ApiResource, GroupVersionKind, ListParams, PostParams};
use ledge_cloud_testing::real::{Durability, Programs, Real};
use ledge_cloud_testing::{becomes_true, clusters};
use serde_json::{Value, json};

fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer"}}}
                }}},
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_served() {
    for cluster in clusters(&[widgets()]).await {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"));
        let widget = json!({
            "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"size": 3},
        });
        let applied = cluster.apply(&kind, true, widget).await;
        assert_eq!(
            applied.metadata.namespace.as_deref(),
            Some(cluster.namespace()),
            "{}",
            cluster.name()
        );
        assert_eq!(applied.data["spec"]["size"], 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_fresh() {
    let (one, other) = (clusters(&[]).await, clusters(&[]).await);
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        assert_ne!(one.namespace(), other.namespace());
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        let maps: Api<ConfigMap> = Api::default_namespaced(one.client("system:test"));
        maps.create(&PostParams::default(), &map).await.unwrap();
        let others: Api<ConfigMap> = Api::default_namespaced(other.client("system:test"));
        let names: Vec<_> = others.list(&ListParams::default()).await.unwrap().items;
        assert!(
            names.iter().all(|map| map.metadata.name.as_deref() != Some("a")),
            "{}",
            one.name()
        );
        // An embedded API is the test's own; a real one is shared.
        let namespaces: Api<Namespace> = Api::all(other.client("system:test"));
        let shared = namespaces.get_opt(one.namespace()).await.unwrap().is_some();
        assert_eq!(shared, one.is_real());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_end_with_their_owner() {
    let Some(programs) = Programs::or_skip() else {
        return;
    };
    let real = Real::start(&programs, Durability::Synced).await;
    let dir = real.kubeconfig().parent().unwrap().to_owned();
    let pids = real.pids();
    let runs = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A program that has ended is `Z` until this process asks for its exit code, which it never does.
        let state = status.rsplit(')').next().unwrap_or_default().trim_start();
        !state.is_empty() && !state.starts_with('Z')
    };
    assert!(runs(pids.apiserver) && runs(pids.etcd) && dir.exists());
    drop(real);
    becomes_true("both have ended and left nothing", async || {
        !runs(pids.apiserver) && !runs(pids.etcd) && !dir.exists()
    })
    .await;
}
