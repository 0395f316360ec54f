//! MetaServer in the real edgecore: what the log holds is served without a cloud, and a write survives a kill.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ledge_log::{DiskStorage, Log, Options};
use ledge_proto::ids::{ClusterId, Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use ledge_replication::certs::Authority;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

const NODE: &str = "edge-1";
const DEADLINE: Duration = Duration::from_secs(60);

struct Edgecore {
    child: Child,
    meta: SocketAddr,
}

async fn start(dir: &Path) -> Edgecore {
    let path = |name: &str| dir.join(name).display().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgecore"))
        .args(["--data-dir", &path("data"), "--ca", &path("ca.crt")])
        .args(["--cert", &path("edge-1.crt"), "--key", &path("edge-1.key")])
        .args(["--http-listen", "off", "--meta-server", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("edgecore ended");
            if let Some((_, address)) = line.split_once("MetaServer on ") {
                return address.trim().parse().unwrap();
            }
        }
    };
    let meta = tokio::time::timeout(DEADLINE, ready).await.unwrap();
    Edgecore { child, meta }
}

impl Edgecore {
    async fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.meta).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-type: application/merge-patch+json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut out = String::new();
        let read = stream.read_to_string(&mut out);
        tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap();
        out
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// What an earlier start was told by the cloud.
async fn told(dir: &Path, cluster: ClusterId) {
    let options = Options {
        segment_bytes: 8 << 20,
        ..Options::new(cluster, NODE)
    };
    let (log, _) = Log::open(Arc::new(DiskStorage), &dir.join("data/log"), options).unwrap();
    let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"default","uid":"u","resourceVersion":"7"},"spec":{"nodeName":"edge-1","containers":[]}}"#;
    let object = Payload::KubeObject(v1::KubeObject {
        json: json.as_bytes().into(),
        uid: "u".to_owned(),
        resource_version: "7".to_owned(),
    });
    let (kind, payload) = object.encode();
    let record = v1::Record {
        kind,
        key: "/pods/default/web".to_owned(),
        payload: payload.into(),
        ..Default::default()
    };
    let down = StreamId::new(Scope::node(NODE).unwrap(), Lane::Down);
    log.append(&down, vec![record]).await.unwrap();
    log.close().unwrap();
}

#[tokio::test]
async fn it_serves_what_the_log_holds_and_keeps_what_it_is_asked() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path()).unwrap();
    authority.issue_node(NODE, dir.path()).unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    told(dir.path(), authority.cluster()).await;
    let edge = start(dir.path()).await;
    let pods = edge.ask("GET", "/api/v1/pods", "").await;
    assert!(
        pods.starts_with("HTTP/1.0 200") && pods.contains("\"web\""),
        "{pods}"
    );
    let path = "/api/v1/namespaces/default/pods/web";
    let waits = edge
        .ask("PATCH", path, r#"{"metadata":{"labels":{"a":"b"}}}"#)
        .await;
    assert!(
        waits.starts_with("HTTP/1.0 503") && waits.contains("in this node's log"),
        "{waits}"
    );
    edge.kill().await;

    let edge = start(dir.path()).await;
    let pod = edge.ask("GET", path, "").await;
    assert!(pod.starts_with("HTTP/1.0 200"), "{pod}");
    let writes = edge.ask("GET", "/apis/edge.ledge/v1alpha1/writes", "").await;
    assert!(
        writes.contains("\"Pending\"") && writes.contains(path),
        "{writes}"
    );
    edge.kill().await;
}
