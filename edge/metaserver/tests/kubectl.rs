//! The real kubectl against MetaServer. `LEDGE_KUBECTL` names the program; without it these tests are skipped, with a line
//! that says so, or fail where `CI` or `LEDGE_REQUIRE_KUBERNETES` is set.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

#[path = "../../../cloud/testing/src/programs.rs"]
mod programs;
mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use ledge_proto::ids::Scope;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};
use support::{Asked, Edge, config_map, namespace, node, object, pod, record};
use tokio::io::{AsyncBufReadExt, BufReader};

struct Kubectl {
    program: PathBuf,
    home: PathBuf,
    server: String,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Kubectl {
    fn new(edge: &Edge, home: &Path) -> Option<Kubectl> {
        let [program] = programs::or_skip("kubectl against MetaServer", ["LEDGE_KUBECTL"])?;
        Some(Kubectl {
            program,
            home: home.to_owned(),
            server: format!("http://{}", edge.address),
        })
    }

    fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(["--server", &self.server])
            .args(args)
            .env("HOME", &self.home)
            .env("KUBECONFIG", self.home.join("none"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().await.unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    async fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args).await;
        assert_eq!(ran.code, 0, "{args:?}: {}{}", ran.out, ran.err);
        ran.out
    }
}

fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com", "uid": "w", "resourceVersion": "3"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}},
            }],
        },
    })
}

/// What the node was told before the link went.
async fn told(edge: &Edge) {
    edge.down(
        Scope::cluster(),
        vec![
            object("namespaces", &namespace("default", 2)),
            object("customresourcedefinitions", &widgets()),
        ],
    )
    .await;
    let mut widget = config_map("left", 20, "x");
    widget["apiVersion"] = "example.com/v1".into();
    widget["kind"] = "Widget".into();
    widget["spec"] = json!({"size": 42});
    widget.as_object_mut().unwrap().remove("data");
    edge.down(
        node(),
        vec![
            object("pods", &pod("web", 10, &json!({"app": "web"}))),
            object("pods", &pod("db", 11, &json!({"app": "db"}))),
            object("configmaps", &config_map("settings", 7, "one")),
            object("widgets", &widget),
        ],
    )
    .await;
}

#[tokio::test]
async fn reads_without_a_link_also_after_a_restart() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let edge = Edge::start(dir.path()).await;
    told(&edge).await;
    edge.stop().await;
    let edge = Edge::start(dir.path()).await;
    let Some(kubectl) = Kubectl::new(&edge, home.path()) else {
        return;
    };
    let table = kubectl.ok(&["get", "pods"]).await;
    assert!(
        table.starts_with("NAME")
            && table.contains("web")
            && table.contains("0/1")
            && table.contains("Pending"),
        "{table}"
    );
    let wide = kubectl.ok(&["get", "po", "-A", "-o", "wide"]).await;
    assert!(wide.contains("edge-1") && wide.contains("NAMESPACE"), "{wide}");
    assert_eq!(
        kubectl.ok(&["get", "pods", "-l", "app=db", "-o", "name"]).await,
        "pod/db\n"
    );
    let yaml = kubectl.ok(&["get", "pod", "web", "-o", "yaml"]).await;
    assert!(
        yaml.contains("resourceVersion: \"10\"") && yaml.contains("image: example.com/main:1"),
        "{yaml}"
    );
    let json = kubectl
        .ok(&["get", "cm", "settings", "-o", "jsonpath={.data.key}"])
        .await;
    assert_eq!(json, "one");
    let widgets = kubectl.ok(&["get", "wd", "left"]).await;
    assert!(widgets.contains("SIZE") && widgets.contains("42"), "{widgets}");
    let described = kubectl.ok(&["describe", "pod", "web"]).await;
    assert!(
        described.contains("Node:") && described.contains("example.com/main:1"),
        "{described}"
    );
    let explained = kubectl.ok(&["explain", "widgets.spec"]).await;
    assert!(explained.contains("size"), "{explained}");
    let resources = kubectl.ok(&["api-resources"]).await;
    assert!(
        resources.contains("edge.ledge/v1alpha1") && resources.contains("example.com/v1"),
        "{resources}"
    );
    assert!(kubectl.ok(&["version"]).await.contains("Server Version"));
    // What is not here is not known, and that is what kubectl says.
    let ran = kubectl.run(&["get", "secrets"]).await;
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("ServiceUnavailable") && ran.err.contains("was never fetched"),
        "{}",
        ran.err
    );
    let ran = kubectl.run(&["get", "ns", "other"]).await;
    assert!(
        ran.err.contains("(NotFound): namespaces \"other\" not found"),
        "{}",
        ran.err
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_watch_shows_what_comes() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let edge = Edge::start(dir.path()).await;
    told(&edge).await;
    let Some(kubectl) = Kubectl::new(&edge, home.path()) else {
        return;
    };
    let mut child = kubectl
        .command(&["get", "pods", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(support::DEADLINE, lines.next_line())
            .await
            .unwrap();
        line.unwrap().unwrap()
    };
    assert_eq!(
        (next().await, next().await),
        ("pod/db".to_owned(), "pod/web".to_owned())
    );
    edge.down(node(), vec![object("pods", &pod("cache", 30, &json!({})))])
        .await;
    assert_eq!(next().await, "pod/cache");
    child.kill().await.unwrap();
    edge.stop().await;
}

#[tokio::test]
async fn writes_reach_the_api_server_and_wait_without_a_link() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut edge = Edge::start(dir.path()).await;
    told(&edge).await;
    let Some(kubectl) = Kubectl::new(&edge, home.path()) else {
        return;
    };
    let ran = kubectl
        .run(&[
            "patch",
            "cm",
            "settings",
            "--type=merge",
            "-p",
            r#"{"data":{"key":"two"}}"#,
        ])
        .await;
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(
        ran.err.contains("the write is in this node's log") && ran.err.contains("no link"),
        "{}",
        ran.err
    );
    let writes = kubectl.ok(&["get", "writes"]).await;
    assert!(
        writes.contains("PATCH")
            && writes.contains("/api/v1/namespaces/default/configmaps/settings")
            && writes.contains("Pending"),
        "{writes}"
    );
    // Plays an API server that does as it is told, version by version.
    let mut version = 100;
    edge.play(move |asked| {
        version += 1;
        let (id, write) = match asked {
            Asked::Interest(id, _) => {
                let state = v1::InterestState {
                    code: 200,
                    ..Default::default()
                };
                return vec![record(&id, &Payload::InterestState(state))];
            }
            Asked::Write(id, write) => (id, write),
        };
        let body: Value = serde_json::from_slice(&write.body).unwrap_or_default();
        let (mut records, code, told) = match write.method.as_str() {
            "DELETE" => {
                let gone = record(
                    &write.object,
                    &Payload::KubeObjectRemoved(v1::KubeObjectRemoved::default()),
                );
                (
                    vec![gone],
                    200,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
                )
            }
            "POST" => {
                let mut made = config_map(body["metadata"]["name"].as_str().unwrap(), version, "made");
                made["data"] = body["data"].clone();
                (vec![object("configmaps", &made)], 201, made)
            }
            _ => {
                let mut changed = config_map("settings", version, "one");
                for field in ["data", "metadata"] {
                    for (name, value) in body[field].as_object().into_iter().flatten() {
                        changed[field][name] = value.clone();
                    }
                }
                (vec![object("configmaps", &changed)], 200, changed)
            }
        };
        let json = serde_json::to_vec(&told).unwrap().into();
        records.push(record(
            &id,
            &Payload::KubeWriteResult(v1::KubeWriteResult { code, json }),
        ));
        records
    });
    // The one that waited is done first.
    let done = kubectl
        .ok(&[
            "wait",
            "writes",
            "--all",
            "--for=jsonpath={.status.state}=Done",
            "--timeout=60s",
        ])
        .await;
    assert!(done.contains("condition met"), "{done}");
    assert_eq!(
        kubectl
            .ok(&["get", "cm", "settings", "-o", "jsonpath={.data.key}"])
            .await,
        "two"
    );
    assert!(
        kubectl
            .ok(&["label", "cm", "settings", "color=red"])
            .await
            .contains("labeled")
    );
    assert_eq!(
        kubectl.ok(&["get", "cm", "-l", "color=red", "-o", "name"]).await,
        "configmap/settings\n"
    );
    assert!(
        kubectl
            .ok(&["annotate", "cm", "settings", "why=that"])
            .await
            .contains("annotated")
    );
    let file = home.path().join("made.yaml");
    std::fs::write(
        &file,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: made}\ndata: {a: b}\n",
    )
    .unwrap();
    assert!(
        kubectl
            .ok(&["apply", "-f", file.to_str().unwrap()])
            .await
            .contains("configmap/made created")
    );
    assert_eq!(
        kubectl
            .ok(&["get", "cm", "made", "-o", "jsonpath={.data.a}"])
            .await,
        "b"
    );
    assert!(kubectl.ok(&["delete", "cm", "made"]).await.contains("deleted"));
    let ran = kubectl.run(&["get", "cm", "made"]).await;
    assert!(ran.err.contains("NotFound"), "{}", ran.err);
    edge.stop().await;
}
