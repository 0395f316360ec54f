//! The real kubectl follows a rollout. `LEDGE_KUBECTL` names the program; without it this test is skipped, with a line that
//! says so, or fails where `CI` or `LEDGE_REQUIRE_KUBERNETES` is set.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

#[path = "../../testing/src/programs.rs"]
mod programs;
mod support;

use std::path::Path;

use serde_json::json;
use support::Cluster;

/// Runs kubectl, which has to succeed, and gives what it printed.
async fn kubectl(cluster: &Cluster, program: &Path, args: &[&str]) -> String {
    let output = tokio::process::Command::new(program)
        .args(args)
        .env("KUBECONFIG", &cluster.kubeconfig)
        // Its cache of discovery must not outlive the test.
        .env("HOME", cluster.dir.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_rolled_out_scaled_and_rolled_back() {
    let Some([program]) = programs::or_skip("kubectl on workloads", ["LEDGE_KUBECTL"]) else {
        return;
    };
    let mut cluster = Cluster::start().await;
    for node in ["edge-1", "edge-2"] {
        cluster
            .node(node, json!({"node-role.kubernetes.io/edge": ""}), json!([]))
            .await;
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../controllers/tests/manifests/deployment-nginx-edge.yaml");
    let manifest = manifest.to_str().unwrap();
    let web = "deployment/nginx-edge";
    let run = async |args: &[&str]| kubectl(&cluster, &program, args).await;
    let rolled_out = async || {
        let told = run(&["rollout", "status", web, "--timeout=60s"]).await;
        assert!(told.contains("successfully rolled out"), "{told}");
    };

    run(&["apply", "-f", manifest]).await;
    rolled_out().await;
    let wide = run(&["get", "pods", "-o", "wide", "--no-headers"]).await;
    assert!(wide.contains("edge-1") && wide.contains("edge-2"), "{wide}");
    assert!(wide.lines().all(|line| line.contains("Running")), "{wide}");

    run(&["scale", web, "--replicas=3"]).await;
    rolled_out().await;
    let image = "jsonpath={.spec.template.spec.containers[0].image} {.status.readyReplicas}";
    run(&["set", "image", web, "nginx=nginx:2"]).await;
    run(&["annotate", web, "kubernetes.io/change-cause=second"]).await;
    rolled_out().await;
    assert_eq!(run(&["get", web, "-o", image]).await, "nginx:2 3");
    let history = run(&["rollout", "history", web]).await;
    let lines: Vec<Vec<&str>> = history
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(
        lines.contains(&vec!["1", "<none>"]) && lines.contains(&vec!["2", "second"]),
        "{history}"
    );

    run(&["rollout", "undo", web]).await;
    rolled_out().await;
    assert_eq!(run(&["get", web, "-o", image]).await, "nginx:1.25-alpine 3");
    let revision = "jsonpath={.metadata.annotations.deployment\\.kubernetes\\.io/revision}";
    assert_eq!(run(&["get", web, "-o", revision]).await, "3");
    let described = run(&["describe", web]).await;
    assert!(described.contains("ScalingReplicaSet"), "{described}");

    run(&["rollout", "pause", web]).await;
    run(&["set", "image", web, "nginx=nginx:3"]).await;
    run(&["rollout", "resume", web]).await;
    rolled_out().await;
    run(&["rollout", "restart", web]).await;
    rolled_out().await;
    assert_eq!(run(&["get", web, "-o", image]).await, "nginx:3 3");

    run(&["delete", "-f", manifest, "--timeout=30s"]).await;
    run(&["wait", "--for=delete", "pods", "--all", "--timeout=30s"]).await;
    cluster.stop().await;
}
