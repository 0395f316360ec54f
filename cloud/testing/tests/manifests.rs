//! The manifests that people have, applied with the real kubectl to a real API server that was told of Ledge's kinds. The
//! embedded API's own tests do the same, and more.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

#[path = "../../apiserver/tests/kubectl/manifests.rs"]
mod manifests;
#[path = "../src/programs.rs"]
mod programs;

use std::path::Path;

use ledge_cloud_testing::Cluster;

/// Runs kubectl, which has to succeed without a warning, and gives what it printed.
async fn kubectl(cluster: &Cluster, program: &Path, args: &[&str]) -> String {
    let output = tokio::process::Command::new(program)
        .args(args)
        .env("KUBECONFIG", cluster.kubeconfig())
        // Its cache of discovery must not outlive the test.
        .env("HOME", cluster.dir())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && err.is_empty(), "{args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_every_manifest_as_it_is() {
    let Some([program]) = programs::or_skip("kubectl against a real API server", ["LEDGE_KUBECTL"]) else {
        return;
    };
    let Some(cluster) = ledge_cloud_testing::real(&ledge_crds::definitions()).await else {
        return;
    };
    let run = async |args: &[&str]| kubectl(&cluster, &program, args).await;
    run(&["create", "namespace", "kubeedge"]).await;
    let (files, all) = (manifests::files(), manifests::directory());
    for file in &files {
        run(&["apply", "-f", file]).await;
    }
    let before = run(&["get", manifests::KINDS, "-A", "-o", "yaml"]).await;
    let told = run(&["apply", "-f", &all]).await;
    assert!(told.lines().all(|line| line.ends_with("unchanged")), "{told}");
    assert_eq!(run(&["diff", "-f", &all]).await, "");
    assert_eq!(run(&["get", manifests::KINDS, "-A", "-o", "yaml"]).await, before);
    run(&["apply", "--server-side", "-f", &all]).await;
    assert_eq!(run(&["diff", "--server-side", "-f", &all]).await, "");
    run(&["delete", "--wait=false", "-f", &all]).await;
}
