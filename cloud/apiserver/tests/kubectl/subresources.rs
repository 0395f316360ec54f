//! Subresources that are not plain objects, and events.

use serde_json::{Value, json};

use crate::place::Place;

const PODS: &str = "---
{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: q}, spec: {containers: [{name: c, image: i}]}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_once_and_evicted() {
    let Some(place) = Place::new() else { return };
    let pods = place.file("pods.yaml", PODS);
    place
        .serve(async {
            place.ok(&["apply", "-f", &pods]).await;
            let pod = "/api/v1/namespaces/default/pods/p";
            let binding = |node: &str| {
                json!({
                    "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "annotations": {"a": "b"}},
                    "target": {"kind": "Node", "name": node},
                })
            };
            let path = format!("{pod}/binding");
            let none = place.post(&path, &binding(""), &[]).await.unwrap_err();
            assert!(none.err.contains("target.name: Required value"), "{none:?}");
            place.post(&path, &binding("n1"), &[]).await.unwrap();
            let again = place.post(&path, &binding("n2"), &[]).await.unwrap_err();
            assert!(
                again.err.contains("Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""),
                "{again:?}"
            );
            let shown = "jsonpath={.spec.nodeName} {.metadata.annotations.a} {.status.conditions[?(@.type==\"PodScheduled\")].status}";
            assert_eq!(place.ok(&["get", "pod", "p", "-o", shown]).await, "n1 b True");
            let listed = place
                .ok(&["get", "pods", "--field-selector=spec.nodeName=n1", "-o", "name"])
                .await;
            assert_eq!(listed.trim(), "pod/p");

            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "q"}});
            let evict = "/api/v1/namespaces/default/pods/q/eviction";
            let other = place.post(&format!("{pod}/eviction"), &eviction, &[]).await.unwrap_err();
            assert!(other.err.contains("name in URL does not match"), "{other:?}");
            place.post(evict, &eviction, &[]).await.unwrap();
            assert_eq!(place.run(&["get", "pod", "q"]).await.code, 1);
            let gone = place.post(evict, &eviction, &[]).await.unwrap_err();
            assert!(gone.err.contains("pods \"q\" not found"), "{gone:?}");
            // A pod on a node is its node's to end.
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
            place.post(&format!("{pod}/eviction"), &eviction, &[]).await.unwrap();
            let marked = place
                .ok(&["get", "pod", "p", "-o", "jsonpath={.metadata.deletionGracePeriodSeconds}"])
                .await;
            assert_eq!(marked, "30");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_waits_for_finalizers_of_its_own() {
    let Some(place) = Place::new() else { return };
    place
        .serve(async {
            place.ok(&["create", "namespace", "dev"]).await;
            let finalize = |finalizers: Value| {
                let place = &place;
                async move {
                    let object = json!({
                        "apiVersion": "v1", "kind": "Namespace",
                        "metadata": {"name": "dev", "labels": {"not": "taken"}}, "spec": {"finalizers": finalizers},
                    });
                    let file = place.file("finalize.json", &object.to_string());
                    place.run(&["replace", "--raw", "/api/v1/namespaces/dev/finalize", "-f", &file]).await
                }
            };
            let ran = finalize(json!(["kubernetes", "example.com/x"])).await;
            assert_eq!(ran.code, 0, "{ran:?}");
            let shown = "jsonpath={.spec.finalizers} {.metadata.labels}";
            assert_eq!(
                place.ok(&["get", "ns", "dev", "-o", shown]).await,
                r#"["kubernetes","example.com/x"] {"kubernetes.io/metadata.name":"dev"}"#
            );
            let read = place.run(&["get", "--raw", "/api/v1/namespaces/dev/finalize"]).await;
            assert!(read.err.contains("does not allow this method"), "{read:?}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_asked_for_and_approved() {
    let Some(place) = Place::new() else { return };
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let request = request.pem().unwrap();
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, request);
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
        "spec": {"request": encoded, "signerName": "example.com/s", "usages": ["client auth"], "username": "root"},
    });
    let file = place.file("csr.json", &object.to_string());
    place
        .serve(async {
            place.ok(&["create", "-f", &file]).await;
            let shown = "jsonpath={.spec.username} {.status.conditions[*].type} {.status.certificate}";
            assert_eq!(
                place.ok(&["get", "csr", "c", "-o", shown]).await,
                "kubernetes-admin  "
            );
            place.ok(&["certificate", "approve", "c"]).await;
            assert_eq!(
                place.ok(&["get", "csr", "c", "-o", shown]).await,
                "kubernetes-admin Approved "
            );
            let put = |change: fn(&mut Vec<Value>)| {
                let place = &place;
                async move {
                    let told = place.ok(&["get", "csr", "c", "-o", "json"]).await;
                    let mut request: Value = serde_json::from_str(&told).unwrap();
                    change(request["status"]["conditions"].as_array_mut().unwrap());
                    let file = place.file("approval.json", &request.to_string());
                    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests/c/approval";
                    place.run(&["replace", "--raw", path, "-f", &file]).await
                }
            };
            let denied = put(|conditions| conditions.push(json!({"type": "Denied", "status": "True"}))).await;
            assert!(denied.err.contains("mutually exclusive"), "{denied:?}");
            let sign = [
                "patch",
                "csr",
                "c",
                "--subresource=status",
                "--type=merge",
                "-p",
                r#"{"status":{"certificate":"Yw=="}}"#,
            ];
            place.ok(&sign).await;
            assert_eq!(
                place.ok(&["get", "csr", "c", "-o", shown]).await,
                "kubernetes-admin Approved Yw=="
            );
            let back = put(Vec::clear).await;
            assert!(
                back.err
                    .contains("may not remove a condition of type \"Approved\""),
                "{back:?}"
            );
        })
        .await;
}

const EVENTS: &str = "---
apiVersion: v1
kind: Event
metadata: {name: one, namespace: default}
involvedObject: {kind: Pod, name: p, namespace: default, uid: u1}
reason: Pulled
message: It was pulled.
type: Normal
source: {component: kubelet}
---
apiVersion: events.k8s.io/v1
kind: Event
metadata: {name: two, namespace: default}
regarding: {kind: Node, name: node1, namespace: default}
reason: Failed
note: It failed.
type: Warning
eventTime: '2100-01-01T00:00:00.000000Z'
action: Try
reportingController: example.com/controller
reportingInstance: i
";

#[tokio::test(flavor = "multi_thread")]
async fn events_have_two_names_and_an_end() {
    let Some(place) = Place::new() else { return };
    let events = place.file("events.yaml", EVENTS);
    place
        .serve(async {
            place.ok(&["create", "-f", &events]).await;
            let names = |args: &'static [&'static str]| {
                let place = &place;
                async move {
                    let all = [args, &["-o", "name", "--no-headers"][..2]].concat();
                    let told = place.ok(&all).await;
                    told.lines()
                        .map(|line| line.rsplit('/').next().unwrap().to_owned())
                        .collect::<Vec<_>>()
                }
            };
            assert_eq!(names(&["get", "events"]).await, ["one", "two"]);
            assert_eq!(names(&["get", "events.events.k8s.io"]).await, ["one", "two"]);
            for (selector, expected) in [
                ("involvedObject.kind=Pod", "one"),
                ("involvedObject.name=node1", "two"),
                ("involvedObject.uid=u1", "one"),
                ("reason=Failed", "two"),
                ("type!=Warning", "one"),
                ("source=kubelet", "one"),
                ("reportingComponent=example.com/controller", "two"),
            ] {
                let listed = place
                    .ok(&["get", "events.v1.", "--field-selector", selector, "-o", "name"])
                    .await;
                assert_eq!(listed.trim(), format!("event/{expected}"), "{selector}");
            }
            let listed = place
                .ok(&[
                    "get",
                    "events.events.k8s.io",
                    "--field-selector=regarding.kind=Node,type=Warning",
                    "-o",
                    "jsonpath={.items[*].note}",
                ])
                .await;
            assert_eq!(listed, "It failed.");
            let unknown = place
                .run(&[
                    "get",
                    "events.events.k8s.io",
                    "--field-selector=involvedObject.kind=Node",
                ])
                .await;
            assert!(
                unknown
                    .err
                    .contains("field label not supported: involvedObject.kind"),
                "{unknown:?}"
            );
            let table = place.ok(&["get", "events.events.k8s.io"]).await;
            assert!(
                table.contains("It was pulled.") && table.contains("pod/p"),
                "{table}"
            );
            let table = place.ok(&["events"]).await;
            assert!(table.contains("It failed."), "{table}");
            let old = "jsonpath={.message} {.involvedObject.name} {.apiVersion}";
            assert_eq!(
                place.ok(&["get", "events.v1.", "two", "-o", old]).await,
                "It failed. node1 v1"
            );
            place.ok(&["label", "events.events.k8s.io", "two", "a=b"]).await;
            assert_eq!(names(&["get", "events", "-l", "a=b"]).await, ["two"]);
        })
        .await;
    // The first was seen when it was made, the other is said to be seen in 2100.
    place
        .serve_with(std::time::Duration::ZERO, async {
            place
                .ok(&["wait", "--for=delete", "events.v1./one", "--timeout=60s"])
                .await;
            place.ok(&["get", "events.v1.", "two"]).await;
        })
        .await;
}
