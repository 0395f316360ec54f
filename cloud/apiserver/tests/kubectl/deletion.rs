//! Deletion of objects that own others: in the background, in the foreground, and with the dependents left alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::place::Place;

/// Longest wait for something that comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A reference to an owner, and whether the owner waits for the dependent when it is deleted in the foreground.
struct Owner<'a> {
    kind: &'a str,
    name: &'a str,
    blocked: bool,
}

fn map(name: &str, blocked: bool) -> Owner<'_> {
    let kind = "ConfigMap";
    Owner { kind, name, blocked }
}

impl Place {
    /// Makes an object that `owners` own.
    async fn owned(&self, mut object: Value, owners: &[Owner<'_>]) {
        let mut references = Vec::new();
        for Owner { kind, name, blocked } in owners {
            let api = if *kind == "ConfigMap" { "v1" } else { "apps/v1" };
            let uid = self
                .ok(&["get", kind, name, "-o", "jsonpath={.metadata.uid}"])
                .await;
            references.push(json!({"apiVersion": api, "kind": kind, "name": name, "uid": uid, "blockOwnerDeletion": blocked}));
        }
        object["metadata"]["ownerReferences"] = references.into();
        let file = self.file("owned.json", &object.to_string());
        self.ok(&["create", "-f", &file]).await;
    }

    async fn config_map(&self, name: &str, owners: &[Owner<'_>], finalizers: &[&str]) {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "finalizers": finalizers}});
        self.owned(object, owners).await;
    }

    /// Looks until what is told of an object is `wanted`.
    async fn becomes(&self, object: &str, path: &str, wanted: &str) {
        let began = Instant::now();
        loop {
            let ran = self
                .run(&["get", object, "-o", &format!("jsonpath={path}")])
                .await;
            if ran.code == 0 && ran.out == wanted {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{object} {path}: {ran:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn goes(&self, objects: &[&str]) {
        let wait = ["wait", "--for=delete", "--timeout=60s"];
        self.ok(&[&wait, objects].concat()).await;
    }

    /// The names of the ConfigMaps that there are.
    async fn maps(&self) -> String {
        // One is in every namespace by itself.
        let all = self.ok(&["get", "cm", "-o", "name"]).await;
        let own = all.lines().filter(|name| !name.ends_with("kube-root-ca.crt"));
        own.map(|name| name.trim_start_matches("configmap/"))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

const OWNERS: &str = "{.metadata.ownerReferences[*].name}";
const FINALIZERS: &str = "{.metadata.finalizers[*]}";

/// `first` owns `one`, and with `second` also `both`; `one` owns `under`.
async fn a_family(place: &Place) {
    place.config_map("first", &[], &[]).await;
    place.config_map("second", &[], &[]).await;
    place.config_map("one", &[map("first", true)], &[]).await;
    let owners = [map("first", true), map("second", true)];
    place.config_map("both", &owners, &[]).await;
    place.config_map("under", &[map("one", true)], &[]).await;
    assert_eq!(place.maps().await, "both first one second under");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_background_dependents_go_with_their_last_owner() {
    let Some(place) = Place::new() else { return };
    place
        .serve(async {
            a_family(&place).await;
            place.ok(&["delete", "cm", "first"]).await;
            place.goes(&["cm/one", "cm/under"]).await;
            place.becomes("cm/both", OWNERS, "second").await;
            assert_eq!(place.maps().await, "both second");
            place
                .ok(&["delete", "cm", "second", "--cascade=background"])
                .await;
            place.goes(&["cm/both"]).await;
            assert_eq!(place.maps().await, "");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_stay_and_lose_only_the_owner_that_went() {
    let Some(place) = Place::new() else { return };
    place
        .serve(async {
            a_family(&place).await;
            place
                .ok(&["delete", "cm", "first", "--cascade=orphan", "--timeout=60s"])
                .await;
            assert_eq!(place.maps().await, "both one second under");
            place.becomes("cm/one", OWNERS, "").await;
            place.becomes("cm/both", OWNERS, "second").await;
            place.becomes("cm/under", OWNERS, "one").await;
            // Its owner went without it; now it goes as any other, and what it owns with it.
            place
                .ok(&["delete", "cm", "one", "--cascade=foreground", "--timeout=60s"])
                .await;
            assert_eq!(place.maps().await, "both second");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_foreground_an_owner_waits_for_all_below_it() {
    let Some(place) = Place::new() else { return };
    place
        .serve(async {
            a_family(&place).await;
            place
                .config_map("held", &[map("one", true)], &["example.com/hold"])
                .await;
            let owner = [map("first", false)];
            place
                .config_map("unblocking", &owner, &["example.com/hold"])
                .await;
            place
                .ok(&["delete", "cm", "first", "--cascade=foreground", "--wait=false"])
                .await;

            // Each level waits for the one below; who has another owner stays with that one.
            place.becomes("cm/first", FINALIZERS, "foregroundDeletion").await;
            place.becomes("cm/one", FINALIZERS, "foregroundDeletion").await;
            place.goes(&["cm/under"]).await;
            place.becomes("cm/both", OWNERS, "second").await;
            let marked = "{.metadata.deletionGracePeriodSeconds}";
            place.becomes("cm/held", marked, "0").await;
            place.becomes("cm/unblocking", marked, "0").await;
            assert_eq!(place.maps().await, "both first held one second unblocking");

            let release = r#"{"metadata":{"finalizers":null}}"#;
            place
                .ok(&["patch", "cm", "held", "--type=merge", "-p", release])
                .await;
            place.goes(&["cm/held", "cm/one", "cm/first"]).await;
            // Nobody waited for this one.
            assert_eq!(place.maps().await, "both second unblocking");
            place
                .ok(&["patch", "cm", "unblocking", "--type=merge", "-p", release])
                .await;
            place.goes(&["cm/unblocking"]).await;
            assert_eq!(place.maps().await, "both second");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_how_takes_back_what_was_said_before() {
    let Some(place) = Place::new() else { return };
    place
        .serve(async {
            place.config_map("first", &[], &[]).await;
            place
                .config_map("held", &[map("first", true)], &["example.com/hold"])
                .await;
            place
                .ok(&["delete", "cm", "first", "--cascade=foreground", "--wait=false"])
                .await;
            place.becomes("cm/first", FINALIZERS, "foregroundDeletion").await;
            place
                .ok(&["delete", "cm", "first", "--cascade=background", "--timeout=60s"])
                .await;
            assert_eq!(place.maps().await, "held");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_own_each_other_go_in_the_foreground_too() {
    let Some(place) = Place::new() else { return };
    place
        .serve(async {
            place.config_map("a", &[], &[]).await;
            place.config_map("b", &[map("a", true)], &[]).await;
            let uid = place
                .ok(&["get", "cm", "b", "-o", "jsonpath={.metadata.uid}"])
                .await;
            let back = json!({"metadata": {"ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "b", "uid": uid, "blockOwnerDeletion": true,
            }]}});
            place
                .ok(&["patch", "cm", "a", "--type=merge", "-p", &back.to_string()])
                .await;
            place
                .ok(&["delete", "cm", "a", "--cascade=foreground", "--timeout=60s"])
                .await;
            place.goes(&["cm/b"]).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_in_the_foreground_waits_until_its_node_ended_the_pods() {
    let Some(place) = Place::new() else { return };
    let spec = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    });
    let of = |kind: &str| json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec": spec});
    let pod = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}})
    };
    let by = |kind| Owner {
        kind,
        name: "web",
        blocked: true,
    };
    place
        .serve(async {
            place.owned(of("Deployment"), &[]).await;
            place.owned(of("ReplicaSet"), &[by("Deployment")]).await;
            place.owned(pod("web"), &[by("ReplicaSet")]).await;
            place.owned(pod("alone"), &[]).await;
            for object in ["deployment/web", "pod/alone"] {
                place
                    .ok(&["delete", object, "--cascade=foreground", "--wait=false"])
                    .await;
            }
            // A pod has nothing below it, but a node that has to end it: until that has said so it is there.
            place
                .becomes("pod/web", "{.metadata.deletionGracePeriodSeconds}", "30")
                .await;
            place.becomes("pod/alone", FINALIZERS, "").await;
            place.becomes("rs/web", FINALIZERS, "foregroundDeletion").await;
            place
                .becomes("deployment/web", FINALIZERS, "foregroundDeletion")
                .await;
            let ended = ["--grace-period=0", "--force", "--timeout=60s"];
            for pod in ["pod/web", "pod/alone"] {
                place.ok(&[&["delete", pod], &ended[..]].concat()).await;
            }
            place.goes(&["rs/web", "deployment/web"]).await;
        })
        .await;
}
