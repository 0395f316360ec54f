//! The real kubectl, and the `kube` client, against the embedded API. `LEDGE_KUBECTL` names the program; without it its tests
//! are skipped, with a line that says so, or fail where `CI` or `LEDGE_REQUIRE_KUBERNETES` is set.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

#[path = "kubectl/access.rs"]
mod access;
#[path = "kubectl/client.rs"]
mod client;
#[path = "kubectl/commands.rs"]
mod commands;
#[path = "kubectl/deletion.rs"]
mod deletion;
#[path = "kubectl/manifests.rs"]
mod manifests;
#[path = "kubectl/own_kinds.rs"]
mod own_kinds;
#[path = "kubectl/place.rs"]
mod place;
#[path = "../../testing/src/programs.rs"]
mod programs;
#[path = "kubectl/subresources.rs"]
mod subresources;

use std::process::Stdio;

use place::Place;

const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.count, statusReplicasPath: .status.count}}
    additionalPrinterColumns: [{name: Count, type: integer, jsonPath: .spec.count}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [count]
            properties:
              count: {type: integer, minimum: 0, description: How many.}
              color: {type: string, default: red}
            x-kubernetes-validations: [{rule: 'self.count < 10', message: too many}]
          status: {type: object, properties: {count: {type: integer}}}
";

const WIDGET: &str =
    "---\n{apiVersion: example.com/v1, kind: Widget, metadata: {name: one}, spec: {count: 3}}";

#[tokio::test(flavor = "multi_thread")]
async fn manifests_apply_as_they_are_and_stay_over_a_restart() {
    let Some(place) = Place::with_ledges_kinds() else {
        return;
    };
    let (files, all) = (manifests::files(), manifests::directory());
    let before = place
        .serve(async {
            for file in &files {
                let ran = place.run(&["apply", "-f", file]).await;
                assert!(ran.code == 0 && ran.err.is_empty(), "{file}: {ran:?}");
            }
            let told = place.ok(&["apply", "-f", &all]).await;
            assert!(told.lines().all(|line| line.ends_with("unchanged")), "{told}");
            assert_eq!(place.ok(&["diff", "-f", &all]).await, "");
            let wide = place.ok(&["get", "deployments", "-A", "-o", "wide"]).await;
            assert!(wide.contains("nginx:1.25-alpine"), "{wide}");
            let described = place.ok(&["describe", "deployment", "nginx-edge"]).await;
            assert!(described.contains("nginx:1.25-alpine"), "{described}");
            place.ok(&["get", manifests::KINDS, "-A", "-o", "yaml"]).await
        })
        .await;
    for kind in [
        "Device",
        "DeviceModel",
        "EdgeApplication",
        "NodeGroup",
        "ClusterRole",
    ] {
        assert!(before.contains(&format!("  kind: {kind}\n")), "{kind}: {before}");
    }
    let after = place
        .serve(async {
            let after = place.ok(&["get", manifests::KINDS, "-A", "-o", "yaml"]).await;
            // Who goes over to the other way of applying owns what was applied before: there is nobody to conflict with.
            place.ok(&["apply", "--server-side", "-f", &all]).await;
            after
        })
        .await;
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_apply_as_they_are_on_the_servers_side() {
    let Some(place) = Place::with_ledges_kinds() else {
        return;
    };
    let (files, directory) = (manifests::files(), manifests::directory());
    let all = [
        "get",
        manifests::KINDS,
        "-A",
        "-o",
        "yaml",
        "--show-managed-fields",
    ];
    let before = place
        .serve(async {
            for file in &files {
                let ran = place.run(&["apply", "--server-side", "-f", file]).await;
                assert!(ran.code == 0 && ran.err.is_empty(), "{file}: {ran:?}");
            }
            let before = place.ok(&all).await;
            place.ok(&["apply", "--server-side", "-f", &directory]).await;
            let differs = place.ok(&["diff", "--server-side", "-f", &directory]).await;
            assert_eq!(differs, "");
            // kubectl says `serverside-applied` each time: that nothing was changed is seen in the versions.
            assert_eq!(place.ok(&all).await, before);
            before
        })
        .await;
    let after = place.serve(async { place.ok(&all).await }).await;
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_changing_a_deployment() {
    let Some(place) = Place::new() else { return };
    let file = manifests::file("deployment-nginx-edge.yaml");
    place
        .serve(async {
            place.ok(&["apply", "--server-side", "-f", &file]).await;
            let web = "deployment/nginx-edge";
            place.ok(&["scale", web, "--replicas=3"]).await;
            place.ok(&["label", web, "tier=front"]).await;
            place.ok(&["annotate", web, "note=x"]).await;
            place.ok(&["patch", web, "--type=json", "-p", r#"[{"op":"replace","path":"/spec/replicas","value":4}]"#]).await;
            place.ok(&["patch", web, "--type=merge", "-p", r#"{"spec":{"paused":true}}"#]).await;
            let image = r#"{"spec":{"template":{"spec":{"containers":[{"name":"nginx","image":"nginx:2"}]}}}}"#;
            place.ok(&["patch", web, "-p", image]).await;
            let path = "jsonpath={.spec.replicas} {.spec.paused} {.spec.template.spec.containers[0].image} \
                        {.spec.template.spec.containers[0].ports[0].containerPort} {.metadata.labels.tier} {.metadata.generation}";
            let now = place.ok(&["get", web, "-o", path]).await;
            assert_eq!(now, "4 true nginx:2 80 front 5");

            // Who applied it first is told that others changed it since.
            let again = place.run(&["apply", "--server-side", "-f", &file]).await;
            assert_eq!(again.code, 1, "{again:?}");
            assert!(again.err.contains("conflict"), "{again:?}");
            place.ok(&["apply", "--server-side", "--force-conflicts", "-f", &file]).await;

            let dry = place.ok(&["scale", web, "--replicas=9", "--dry-run=server"]).await;
            assert!(dry.contains("scaled"), "{dry}");
            assert_ne!(place.ok(&["get", web, "-o", "jsonpath={.spec.replicas}"]).await, "9");
            place.ok(&["delete", web]).await;
            let gone = place.run(&["get", web]).await;
            assert_eq!(gone.code, 1);
            assert_eq!(
                gone.err.trim(),
                "Error from server (NotFound): deployments.apps \"nginx-edge\" not found"
            );
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_ones_own() {
    let Some(place) = Place::new() else { return };
    let definition = place.file("crd.yaml", WIDGETS);
    let widget = place.file("widget.yaml", WIDGET);
    place
        .serve(async {
            place.ok(&["apply", "-f", &definition]).await;
            place
                .ok(&[
                    "wait",
                    "--for=condition=Established",
                    "crd/widgets.example.com",
                    "--timeout=10s",
                ])
                .await;
            place.ok(&["apply", "-f", &widget]).await;
            let table = place.ok(&["get", "wd"]).await;
            assert!(table.starts_with("NAME   COUNT\none    3"), "{table}");
            assert_eq!(
                place
                    .ok(&["get", "wd", "one", "-o", "jsonpath={.spec.color}"])
                    .await,
                "red"
            );
            place.ok(&["scale", "wd", "one", "--replicas=5"]).await;

            let refused = place
                .run(&[
                    "patch",
                    "wd",
                    "one",
                    "--type=merge",
                    "-p",
                    r#"{"spec":{"count":11}}"#,
                ])
                .await;
            assert!(refused.err.contains("too many"), "{refused:?}");
            let refused = place
                .run(&[
                    "patch",
                    "wd",
                    "one",
                    "--type=merge",
                    "-p",
                    r#"{"spec":{"count":"a"}}"#,
                ])
                .await;
            assert!(refused.err.contains("must be of type integer"), "{refused:?}");
            let warned = place
                .run(&["patch", "wd", "one", "--type=merge", "-p", r#"{"spec":{"zz":1}}"#])
                .await;
            assert!(warned.err.contains("unknown field \"spec.zz\""), "{warned:?}");
            let told = place.ok(&["explain", "widget.spec.count"]).await;
            assert!(told.contains("How many."), "{told}");

            place
                .ok(&["delete", "crd", "widgets.example.com", "--timeout=20s"])
                .await;
            assert_eq!(place.run(&["get", "wd"]).await.code, 1);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_changes_and_a_namespace_takes_its_content_along() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let Some(place) = Place::new() else { return };
    let namespace = place.file(
        "ns.yaml",
        "---\n{apiVersion: v1, kind: Namespace, metadata: {name: dev}}",
    );
    let map = place.file(
        "map.yaml",
        "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: m, namespace: dev}, data: {a: b}}",
    );
    place
        .serve(async {
            let early = place.run(&["apply", "-f", &map]).await;
            assert!(early.err.contains("namespaces \"dev\" not found"), "{early:?}");
            place.ok(&["apply", "-f", &namespace]).await;
            let mut watch = place
                .command(&[
                    "get",
                    "cm",
                    "-n",
                    "dev",
                    "-w",
                    "--no-headers",
                    "--output-watch-events",
                ])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
            place.ok(&["apply", "-f", &map]).await;
            let line = lines.next_line().await.unwrap().unwrap();
            assert!(line.starts_with("ADDED") && line.contains(" m "), "{line}");
            place.ok(&["delete", "ns", "dev", "--timeout=20s"]).await;
            let line = lines.next_line().await.unwrap().unwrap();
            assert!(line.starts_with("DELETED"), "{line}");
            watch.kill().await.unwrap();
            assert_eq!(place.run(&["get", "ns", "dev"]).await.code, 1);
        })
        .await;
}
