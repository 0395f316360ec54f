//! The `kube` client against the embedded API, over TLS with the written kubeconfig: what `docs/kubernetes-api.md` lists.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, ObjectReference, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, EvictParams, GroupVersionKind, ListParams, Patch,
    PatchParams, PostParams, Preconditions, PropagationPolicy, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt, reflector, wait, watcher};
use kube::{Client, Config, Discovery, Error, ResourceExt};
use serde_json::{Value, json};

use crate::place::Place;

impl Place {
    async fn client(&self) -> Client {
        let config = Kubeconfig::read_from(self.dir.path().join("kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(config, &options).await.unwrap();
        Client::try_from(config).unwrap()
    }
}

fn of<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn map(name: &str, color: &str) -> ConfigMap {
    of(json!({"metadata": {"name": name, "labels": {"color": color}}, "data": {"k": name}}))
}

/// Code and reason of a refusal.
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> (u16, String) {
    match answer.unwrap_err() {
        Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other}"),
    }
}

fn names<K: ResourceExt>(items: impl IntoIterator<Item = K>) -> Vec<String> {
    items.into_iter().map(|item| item.name_any()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects() {
    let place = Place::here();
    place
        .serve(Box::pin(async {
            let client = place.client().await;
            let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
            let (post, list) = (PostParams::default(), ListParams::default());
            for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
                maps.create(&post, &map(name, color)).await.unwrap();
            }
            assert_eq!(refused(maps.create(&post, &map("a", "red")).await), (409, "AlreadyExists".into()));
            let generated = of::<ConfigMap>(json!({"metadata": {"generateName": "g-"}}));
            let generated = maps.create(&post, &generated).await.unwrap().name_any();
            assert!(generated.starts_with("g-") && generated.len() == 7, "{generated}");
            maps.delete(&generated, &DeleteParams::default()).await.unwrap();

            assert_eq!(maps.get_opt("none").await.unwrap(), None);
            assert_eq!(refused(maps.get("none").await), (404, "NotFound".into()));
            assert_eq!(maps.get_metadata("a").await.unwrap().name_any(), "a");
            assert_eq!(names(maps.list(&list.clone().labels("color=red")).await.unwrap()), ["a", "c"]);
            assert_eq!(names(maps.list(&list.clone().fields("metadata.name=b")).await.unwrap()), ["b"]);
            assert_eq!(names(maps.list_metadata(&list).await.unwrap()), ["a", "b", "c"]);
            let first = maps.list(&list.clone().limit(2)).await.unwrap();
            assert_eq!(first.metadata.remaining_item_count, Some(1));
            let token = first.metadata.continue_.clone().unwrap();
            let rest = maps.list(&list.clone().limit(2).continue_token(&token)).await.unwrap();
            assert_eq!((names(first), names(rest)), (vec!["a".into(), "b".into()], vec!["c".into()]));
            let all: Api<ConfigMap> = Api::all(client.clone());
            assert!(all.list(&list).await.unwrap().items.len() >= 3);

            // Updates: a version of before is refused.
            let before = maps.get("a").await.unwrap();
            let mut newer = before.clone();
            newer.data = Some([("k".to_owned(), "new".to_owned())].into());
            let newer = maps.replace("a", &post, &newer).await.unwrap();
            assert_ne!(newer.resource_version(), before.resource_version());
            assert_eq!(refused(maps.replace("a", &post, &before).await), (409, "Conflict".into()));
            let dry = PostParams { dry_run: true, ..post.clone() };
            maps.create(&dry, &map("d", "red")).await.unwrap();
            assert_eq!(maps.get_opt("d").await.unwrap(), None);

            // Patches.
            let params = PatchParams::default();
            let patched = maps.patch("a", &params, &Patch::Merge(json!({"data": {"m": "1"}}))).await.unwrap();
            assert_eq!(patched.data.unwrap().len(), 2);
            let patch = Patch::Strategic(json!({"metadata": {"labels": {"color": "green"}}}));
            assert_eq!(maps.patch_metadata("a", &params, &patch).await.unwrap().labels()["color"], "green");
            let json_patch: json_patch::Patch = of(json!([{"op": "remove", "path": "/data/m"}]));
            let patched = maps.patch("a", &params, &Patch::Json::<()>(json_patch)).await.unwrap();
            assert_eq!(patched.data.unwrap().len(), 1);
            let apply = PatchParams::apply("one");
            let applied = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "e"}, "data": {"k": value}});
            maps.patch("e", &apply, &Patch::Apply(applied("1"))).await.unwrap();
            let other = PatchParams::apply("two");
            let conflict = maps.patch("e", &other, &Patch::Apply(applied("2"))).await;
            assert_eq!(refused(conflict), (409, "Conflict".into()));
            let forced = maps.patch("e", &other.force(), &Patch::Apply(applied("2"))).await.unwrap();
            assert_eq!(forced.data.unwrap()["k"], "2");

            // Deletion.
            let uid = DeleteParams::default().preconditions(Preconditions {
                uid: Some("another".to_owned()),
                resource_version: None,
            });
            assert_eq!(refused(maps.delete("e", &uid).await), (409, "Conflict".into()));
            assert!(maps.delete("e", &DeleteParams::default()).await.unwrap().is_right());
            let red = ListParams::default().labels("color=red");
            maps.delete_collection(&DeleteParams::default(), &red).await.unwrap();
            assert_eq!(names(maps.list(&list).await.unwrap()), ["a", "b"]);
            let held = of::<ConfigMap>(json!({"metadata": {"name": "held", "finalizers": ["example.com/f"]}}));
            maps.create(&post, &held).await.unwrap();
            let background = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default()
            };
            let marked = maps.delete("held", &background).await.unwrap().left().unwrap();
            assert!(marked.metadata.deletion_timestamp.is_some());
            let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            maps.patch("held", &params, &free).await.unwrap();
            assert_eq!(maps.get_opt("held").await.unwrap(), None);
        }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_and_what_is_built_on_them() {
    let place = Place::here();
    place
        .serve(Box::pin(async {
            let client = place.client().await;
            let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
            let post = PostParams::default();
            let version = maps
                .list(&ListParams::default())
                .await
                .unwrap()
                .metadata
                .resource_version
                .unwrap();
            maps.create(&post, &map("a", "red")).await.unwrap();
            maps.create(&post, &map("b", "blue")).await.unwrap();
            let blue = Patch::Merge(json!({"metadata": {"labels": {"color": "blue"}}}));
            maps.patch("a", &PatchParams::default(), &blue).await.unwrap();
            maps.delete("b", &DeleteParams::default()).await.unwrap();
            let seen = |params: WatchParams, count: usize| {
                let (maps, version) = (maps.clone(), version.clone());
                async move {
                    let events = maps.watch(&params, &version).await.unwrap().take(count);
                    let told = events.map_ok(|event| match event {
                        WatchEvent::Added(map) => format!("+{}", map.name_any()),
                        WatchEvent::Modified(map) => format!("~{}", map.name_any()),
                        WatchEvent::Deleted(map) => format!("-{}", map.name_any()),
                        other => format!("{other:?}"),
                    });
                    told.try_collect::<Vec<_>>().await.unwrap()
                }
            };
            assert_eq!(seen(WatchParams::default(), 4).await, ["+a", "+b", "~a", "-b"]);
            // One that ceases to match is told as gone.
            assert_eq!(
                seen(WatchParams::default().labels("color=red"), 2).await,
                ["+a", "-a"]
            );
            let streamed = WatchParams::streaming_lists();
            let first = maps
                .watch(&streamed, "0")
                .await
                .unwrap()
                .take(2)
                .try_collect::<Vec<_>>()
                .await
                .unwrap();
            assert!(
                matches!(&first[..], [WatchEvent::Added(_), WatchEvent::Bookmark(_)]),
                "{first:?}"
            );

            for config in [
                watcher::Config::default(),
                watcher::Config::default().streaming_lists(),
            ] {
                let (reader, writer) = reflector::store();
                let stream = reflector(writer, watcher(maps.clone(), config.labels("color")))
                    .default_backoff()
                    .touched_objects();
                let mut stream = std::pin::pin!(stream);
                assert_eq!(stream.next().await.unwrap().unwrap().name_any(), "a");
                maps.create(&post, &map("c", "red")).await.unwrap();
                assert_eq!(stream.next().await.unwrap().unwrap().name_any(), "c");
                assert_eq!(reader.state().len(), 2);
                maps.delete("c", &DeleteParams::default()).await.unwrap();
            }
        }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources() {
    let place = Place::here();
    place
        .serve(Box::pin(async {
            let client = place.client().await;
            let (post, patch) = (PostParams::default(), PatchParams::default());
            let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
            let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
            let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
            deployments.create(&post, &of(json!({"metadata": {"name": "d"}, "spec": spec}))).await.unwrap();
            assert_eq!(deployments.get_scale("d").await.unwrap().spec.unwrap().replicas, Some(1));
            let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
            deployments.patch_scale("d", &patch, &three).await.unwrap();
            let status = Patch::Merge(json!({"status": {"observedGeneration": 2}, "spec": {"replicas": 9}}));
            deployments.patch_status("d", &patch, &status).await.unwrap();
            let found = deployments.get("d").await.unwrap();
            assert_eq!(found.spec.unwrap().replicas, Some(3));
            assert_eq!(found.status.unwrap().observed_generation, Some(2));
            deployments.restart("d").await.unwrap();

            let pods: Api<Pod> = Api::default_namespaced(client.clone());
            let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
            pods.create(&post, &of(pod)).await.unwrap();
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
            let bound: Value = pods.create_subresource("binding", "p", &post, &binding).await.unwrap();
            assert_eq!(bound["status"], "Success");
            let evicted = pods.evict("p", &EvictParams::default()).await.unwrap();
            assert!(evicted.is_success());
            assert_eq!(refused(pods.logs("p", &Default::default()).await), (404, "NotFound".into()));

            let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
            accounts.create(&post, &of(json!({"metadata": {"name": "robot"}}))).await.unwrap();
            let asked: TokenRequest = of(json!({"metadata": {}, "spec": {"audiences": []}}));
            let made = accounts.create_token_request("robot", &post, &asked).await.unwrap();
            let review = json!({"metadata": {}, "spec": {"token": made.status.unwrap().token}});
            let reviews: Api<TokenReview> = Api::all(client.clone());
            let told = reviews.create(&post, &of(review)).await.unwrap().status.unwrap();
            assert_eq!(told.authenticated, Some(true));

            let nodes: Api<Node> = Api::all(client.clone());
            nodes.create(&post, &of(json!({"metadata": {"name": "n"}}))).await.unwrap();
            assert_eq!(nodes.cordon("n").await.unwrap().spec.unwrap().unschedulable, Some(true));
            nodes.uncordon("n").await.unwrap();

            let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
            let request = json!({"metadata": {"name": "r"}, "spec": {"request": "eA==", "signerName": "example.com/s", "usages": ["client auth"]}});
            requests.create(&post, &of(request)).await.unwrap();
            let yes = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
            requests.patch_approval("r", &patch, &Patch::Merge(yes)).await.unwrap();
            let reporter = Reporter { controller: "example.com/controller".to_owned(), instance: Some("i".to_owned()) };
            let event = Event {
                type_: EventType::Warning,
                reason: "Failed".to_owned(),
                note: Some("It failed.".to_owned()),
                action: "Try".to_owned(),
                secondary: None,
            };
            let about = ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some("n".to_owned()),
                ..ObjectReference::default()
            };
            Recorder::new(client.clone(), reporter).publish(&event, &about).await.unwrap();
            let events: Api<k8s_openapi::api::core::v1::Event> = Api::default_namespaced(client.clone());
            let found = events.list(&ListParams::default().fields("involvedObject.name=n")).await.unwrap();
            assert_eq!(found.items[0].message.as_deref(), Some("It failed."));

            let namespaces: Api<Namespace> = Api::all(client);
            namespaces.create(&post, &of(json!({"metadata": {"name": "dev"}}))).await.unwrap();
            namespaces.delete("dev", &DeleteParams::default()).await.unwrap();
            let gone = wait::await_condition(namespaces.clone(), "dev", |found: Option<&Namespace>| found.is_none());
            gone.await.unwrap();
        }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_ones_own_and_discovery() {
    let place = Place::here();
    place
        .serve(Box::pin(async {
            let client = place.client().await;
            let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
            let definition = json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": "widgets.example.com"},
                "spec": {
                    "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                    "versions": [{
                        "name": "v1", "served": true, "storage": true,
                        "subresources": {"scale": {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count"}},
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                            "spec": {"type": "object", "properties": {
                                "count": {"type": "integer"}, "color": {"type": "string", "default": "red"},
                            }},
                            "status": {"type": "object", "properties": {"count": {"type": "integer"}}},
                        }}},
                    }],
                },
            });
            let apply = PatchParams::apply("test");
            definitions.patch("widgets.example.com", &apply, &Patch::Apply(&definition)).await.unwrap();
            let established = wait::conditions::is_crd_established();
            wait::await_condition(definitions.clone(), "widgets.example.com", established).await.unwrap();

            let widget = GroupVersionKind::gvk("example.com", "v1", "Widget");
            for discovery in [
                Discovery::new(client.clone()).run().await.unwrap(),
                Discovery::new(client.clone()).run_aggregated().await.unwrap(),
            ] {
                let (resource, capabilities) = discovery.resolve_gvk(&widget).unwrap();
                assert_eq!(resource.plural, "widgets");
                assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural.ends_with("scale")));
                assert!(discovery.has_group("apps"));
            }
            let widgets: Api<DynamicObject> =
                Api::default_namespaced_with(client.clone(), &ApiResource::from_gvk(&widget));
            let of_count = |count: Value| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"count": count}});
            widgets.patch("w", &apply, &Patch::Apply(of_count(3.into()))).await.unwrap();
            assert_eq!(widgets.get("w").await.unwrap().data["spec"]["color"], "red");
            let wrong = Patch::Merge(json!({"spec": {"count": "x"}}));
            let wrong = widgets.patch("w", &PatchParams::default(), &wrong).await;
            assert_eq!(refused(wrong), (422, "Invalid".into()));
            let scale = widgets.get_scale("w").await.unwrap();
            assert_eq!(scale.spec.unwrap().replicas, Some(3));
            definitions.delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
            let gone = |found: Option<&CustomResourceDefinition>| found.is_none();
            wait::await_condition(definitions, "widgets.example.com", gone).await.unwrap();
            assert_eq!(refused(widgets.get("w").await).0, 404);
        }))
        .await;
}
