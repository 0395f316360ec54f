//! What nodes ask for: kinds of every sort, and a part of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::api::{DeleteParams, Patch, PatchParams};
use ledge_cloud_testing::{becomes_true, clusters, eventually};
use ledge_proto::fold::Table;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};

use crate::overlay;
use crate::place::Anywhere;

const CLASSES: &str = "/storage.k8s.io/v1/StorageClass/storageclasses";
const CRON_JOBS: &str = "batch/v1/CronJob/cronjobs";
const JOBS: &str = "batch/v1/Job/jobs";
const WIDGETS: &str = "example.org/v1/Widget/widgets";

fn widgets() -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// A pod's template with what it must have.
fn template() -> Value {
    json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}})
}

fn cron_job(name: &str, app: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"schedule": "* * * * *", "suspend": true, "jobTemplate": {"spec": {"template": template()}}},
    })
}

/// Nodes may see everything that is asked for here.
async fn permit(place: &Anywhere) {
    let name = place.cluster.unique("nodes-see");
    let rules = json!([
        {"apiGroups": ["batch", "example.org", "storage.k8s.io"], "resources": ["*"], "verbs": ["list", "watch"]},
    ]);
    let role = json!({"metadata": {"name": name}, "rules": rules});
    place
        .make("/rbac.authorization.k8s.io/v1/ClusterRole/clusterroles", role)
        .await;
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": format!("system:node:{}", place.name())}],
    });
    place
        .make(
            "/rbac.authorization.k8s.io/v1/ClusterRoleBinding/clusterrolebindings",
            binding,
        )
        .await;
}

async fn asks(place: &Anywhere, id: &str, interest: v1::Interest) {
    place.says(Lane::UpState, id, &Payload::Interest(interest)).await;
}

/// Waits until everything that the interest takes was told.
async fn all_told(place: &Anywhere, id: &str) {
    eventually(&format!("{id} on {}", place.cluster.name()), async || {
        let state: v1::InterestState = place.entry(Table::InterestStates, id)?;
        (state.code == 200).then_some(())
    })
    .await;
}

/// Waits until the node holds exactly these.
async fn holds(place: &Anywhere, mut keys: Vec<String>) {
    keys.sort();
    let what = format!("the node holds {keys:?}, on {}", place.cluster.name());
    becomes_true(&what, async || place.objects() == keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_kind_and_any_part_of_it_may_be_asked_for() {
    for cluster in clusters(&[widgets()]).await {
        let mut place = Anywhere::new(cluster);
        permit(&place).await;
        let namespace = place.cluster.namespace().to_owned();
        let in_namespace = |kind: &str, name: &str| format!("{kind}/{namespace}/{name}");
        let [one, other] = ["one", "other"].map(|name| place.cluster.unique(name));
        for name in [&one, &other] {
            place
                .make(
                    CLASSES,
                    json!({"metadata": {"name": name}, "provisioner": "example.org/p"}),
                )
                .await;
        }
        place
            .make(WIDGETS, json!({"metadata": {"name": "w"}, "spec": {"size": 1}}))
            .await;
        place.make(CRON_JOBS, cron_job("ours", "a")).await;
        place.make(CRON_JOBS, cron_job("theirs", "b")).await;
        for name in ["yes", "no"] {
            let job = json!({"metadata": {"name": name}, "spec": {"suspend": true, "template": template()}});
            place.make(JOBS, job).await;
        }
        let interest = |group: &str, resource: &str| v1::Interest {
            group: group.to_owned(),
            resource: resource.to_owned(),
            ..Default::default()
        };
        let here = |group: &str, resource: &str| v1::Interest {
            namespace: namespace.clone(),
            ..interest(group, resource)
        };
        asks(&place, "i-kind", here("example.org", "widgets")).await;
        let named = v1::Interest {
            name: one.clone(),
            ..interest("storage.k8s.io", "storageclasses")
        };
        asks(&place, "i-name", named).await;
        let labelled = v1::Interest {
            label_selector: "app=a".to_owned(),
            ..here("batch", "cronjobs")
        };
        asks(&place, "i-label", labelled).await;
        let by_field = v1::Interest {
            field_selector: "metadata.name!=no".to_owned(),
            ..here("batch", "jobs")
        };
        asks(&place, "i-field", by_field).await;
        place.run();
        for id in ["i-kind", "i-name", "i-label", "i-field"] {
            all_told(&place, id).await;
        }
        let class = format!("storage.k8s.io/storageclasses//{one}");
        let mut keys = vec![
            in_namespace("example.org/widgets", "w"),
            class,
            in_namespace("batch/cronjobs", "ours"),
            in_namespace("batch/jobs", "yes"),
        ];
        holds(&place, keys.clone()).await;
        let widget: v1::KubeObject = place.entry(Table::KubeObjects, &keys[0]).unwrap();
        let widget: Value = serde_json::from_slice(&widget.json).unwrap();
        assert_eq!(
            (&widget["apiVersion"], &widget["kind"], &widget["spec"]["size"]),
            (&json!("example.org/v1"), &json!("Widget"), &json!(1))
        );
        // What is chosen by its label comes and goes with it.
        let label = |app: &str| Patch::Merge(json!({"metadata": {"labels": {"app": app}}}));
        let cron_jobs = place.api(CRON_JOBS);
        cron_jobs
            .patch("ours", &PatchParams::default(), &label("b"))
            .await
            .unwrap();
        cron_jobs
            .patch("theirs", &PatchParams::default(), &label("a"))
            .await
            .unwrap();
        keys[2] = in_namespace("batch/cronjobs", "theirs");
        holds(&place, keys).await;
        for id in ["i-kind", "i-name", "i-label", "i-field"] {
            place.says(Lane::UpState, id, &Payload::InterestRemoved).await;
        }
        holds(&place, Vec::new()).await;
        place.stop().await;
    }
}

/// The API server forgot the version from which it is to watch: what came and went meanwhile is found by a new list.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_expired_version_the_list_is_made_again() {
    let mut place = Anywhere::new(ledge_cloud_testing::embedded(&[]).await);
    permit(&place).await;
    for name in ["gone", "stays"] {
        place.make(CRON_JOBS, cron_job(name, "a")).await;
    }
    let expired = Arc::new(AtomicBool::new(false));
    let (said, cron_jobs, others) = (expired.clone(), place.api(CRON_JOBS), place.api(CRON_JOBS));
    let made = serde_json::from_value({
        let mut job = cron_job("new", "a");
        job["apiVersion"] = json!("batch/v1");
        job["kind"] = json!("CronJob");
        job
    });
    let made: kube::api::DynamicObject = made.unwrap();
    let client = overlay::over(place.cluster.client("system:cloudcore"), move |request| {
        let query = request.uri().query().unwrap_or_default();
        let watch = request.uri().path().ends_with("/cronjobs") && query.contains("watch=true");
        let first = watch && !said.swap(true, Ordering::SeqCst);
        let (cron_jobs, others, made) = (cron_jobs.clone(), others.clone(), made.clone());
        Box::pin(async move {
            if !first {
                return Ok(None);
            }
            cron_jobs.delete("gone", &DeleteParams::default()).await.unwrap();
            others.create(&Default::default(), &made).await.unwrap();
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
                "message": "too old resource version", "code": 410,
            });
            Ok(Some(overlay::json(
                200,
                &json!({"type": "ERROR", "object": status}),
            )))
        })
    });
    let interest = v1::Interest {
        group: "batch".to_owned(),
        resource: "cronjobs".to_owned(),
        namespace: place.cluster.namespace().to_owned(),
        ..Default::default()
    };
    asks(&place, "i-1", interest).await;
    place.run_through(client);
    let keys = ["new", "stays"].map(|name| format!("batch/cronjobs/{}/{name}", place.cluster.namespace()));
    holds(&place, keys.to_vec()).await;
    assert!(expired.load(Ordering::SeqCst));
    place.stop().await;
}
