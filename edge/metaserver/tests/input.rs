//! Whatever is sent to MetaServer, it answers or hangs up, and goes on.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use support::{Edge, node, object, pod};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Requests that are nearly right, and bytes that are none.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec![
        "GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW",
    ]);
    let path = prop_oneof![
        Just("/api/v1/namespaces/default/pods/a/status".to_owned()),
        Just("/api/v1/pods?watch=1&timeoutSeconds=0&resourceVersion=7".to_owned()),
        Just("/api/v1/namespaces/default/events".to_owned()),
        Just("/api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3D%00".to_owned()),
        Just("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases".to_owned()),
        Just("/apis/edge.ledge/v1alpha1/writes/x/y".to_owned()),
        "/(api|apis|openapi|version)(/[a-z0-9.%]{0,12}){0,6}(\\?[a-zA-Z=&%,.0-9]{0,40})?",
    ];
    let kind = prop::sample::select(vec![
        "application/json",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "application/vnd.kubernetes.protobuf",
        "",
    ]);
    let body = prop_oneof![
        Just("{}".to_owned()),
        Just("[{\"op\":\"add\",\"path\":\"/status/x\",\"value\":1}]".to_owned()),
        Just("{\"status\":{\"conditions\":[null,{\"type\":1}]},\"metadata\":{\"generateName\":\"\"}}".to_owned()),
        Just(format!("{}1{}", "[".repeat(500), "]".repeat(500))),
        Just("{\"apiVersion\":\"v1\",\"kind\":\"Event\",\"metadata\":{\"name\":\"x\"},\"involvedObject\":{\"name\":\"/\",\"kind\":7}}".to_owned()),
        "\\PC{0,60}",
    ];
    let near = (method, path, kind, body).prop_map(|(method, path, kind, body)| {
        let length = body.len();
        format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    });
    prop_oneof![4 => near, 1 => prop::collection::vec(any::<u8>(), 0..300)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_sent_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path()).await;
    edge.down(node(), vec![object("pods", &pod("a", 10, &json!({})))])
        .await;
    let mut runner = TestRunner::deterministic();
    let requests = requests();
    let mut answered = 0;
    for _ in 0..400 {
        let request = requests.new_tree(&mut runner).unwrap().current();
        let mut stream = tokio::net::TcpStream::connect(edge.address).await.unwrap();
        // It may hang up before it has read everything.
        stream.write_all(&request).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(support::DEADLINE, read).await.unwrap().ok();
        let text = String::from_utf8_lossy(&answer);
        assert!(
            !text.starts_with("HTTP/1.0 500") && !text.starts_with("HTTP/1.1 500"),
            "{}: {text}",
            String::from_utf8_lossy(&request)
        );
        answered += usize::from(!answer.is_empty());
    }
    assert!(answered > 200, "{answered}");
    assert_eq!(edge.get("/api/v1/namespaces/default/pods/a").await.0, 200);
    // Another machine's name in the request: somebody's browser.
    let (code, _) = edge
        .http("GET", "/api/v1/pods", &[("host", "evil.example.com")], "")
        .await;
    assert_eq!(code, 403);
    // Whatever panics takes its connection with it, and the server's task with it when it ends.
    edge.stop().await;
}

#[tokio::test]
async fn it_is_bound_to_the_loopback_only() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path()).await;
    let refused = edge.open_at("0.0.0.0:0").await.unwrap_err().to_string();
    assert!(refused.contains("no authentication"), "{refused}");
    edge.stop().await;
}
