//! A node without its daemon: log, projection, MetaServer. The test plays the cloud: it appends what the cloud would have
//! sent, and answers what the node asks.
#![allow(dead_code, reason = "each test uses a part")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ledge_log::{DiskStorage, Log, Options};
use ledge_metaserver::{Config, MetaServer, Outbox, OutboxError, Parts};
use ledge_projection::{Follower, Projection};
use ledge_proto::fold::{Table, view};
use ledge_proto::ids::{ClusterId, Lane, Scope, StreamId};
use ledge_proto::record::{Payload, object_key};
use ledge_proto::v1;
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a machine with other things to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn node() -> Scope {
    Scope::node("edge-1").unwrap()
}

pub(crate) struct Up(Log);

#[async_trait]
impl Outbox for Up {
    async fn append(&self, lane: Lane, records: Vec<(String, Payload)>) -> Result<(), OutboxError> {
        let records = records
            .iter()
            .map(|(key, payload)| record(key, payload))
            .collect();
        let appended = self.0.append(&StreamId::new(node(), lane), records).await;
        appended
            .map(|_| ())
            .map_err(|error| OutboxError::Failed(error.to_string()))
    }
}

pub(crate) fn record(key: &str, payload: &Payload) -> v1::Record {
    let (kind, payload) = payload.encode();
    v1::Record {
        kind,
        key: key.to_owned(),
        wall_us: 1_790_000_000_000_000,
        payload: payload.into(),
        ..Default::default()
    }
}

/// A running node.
pub(crate) struct Edge {
    pub(crate) log: Log,
    pub(crate) projection: Projection,
    pub(crate) link: watch::Sender<bool>,
    pub(crate) address: SocketAddr,
    follower: Follower,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    cloud: Option<JoinHandle<()>>,
}

impl Edge {
    pub(crate) async fn start(dir: &Path) -> Edge {
        let options = Options {
            segment_bytes: 8 << 20,
            ..Options::new(ClusterId([7; 16]), "edge-1")
        };
        let (log, _) = Log::open(Arc::new(DiskStorage), &dir.join("log"), options).unwrap();
        let options = ledge_projection::Options::edge();
        let (projection, _) = Projection::open(&dir.join("projection"), &log, &options).unwrap();
        Follower::catch_up(&log, &projection, || false).unwrap();
        let follower = Follower::start(log.clone(), projection.clone());
        let (link, up) = watch::channel(false);
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            anywhere: false,
        };
        let parts = Parts {
            node: node(),
            boot: log.identity().boot,
            projection: projection.clone(),
            outbox: Arc::new(Up(log.clone())),
            link: up,
        };
        let server = MetaServer::open(config, parts).await.unwrap();
        let address = server.address().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.run(stop.clone()));
        Edge {
            log,
            projection,
            link,
            address,
            follower,
            stop,
            serving,
            cloud: None,
        }
    }

    pub(crate) async fn stop(self) {
        if let Some(cloud) = self.cloud {
            cloud.abort();
            cloud.await.ok();
        }
        self.stop.cancel();
        self.serving.await.unwrap();
        self.follower.stop().unwrap();
        drop(self.projection);
        self.log.close().unwrap();
    }

    /// What the cloud sends, in one frame.
    pub(crate) async fn down(&self, scope: Scope, records: Vec<v1::Record>) {
        self.log
            .append(&StreamId::new(scope, Lane::Down), records)
            .await
            .unwrap();
    }

    /// Entries of a table of the node, once `enough` says so.
    pub(crate) async fn until<T: Message + Default>(
        &self,
        table: Table,
        enough: impl Fn(&[(String, T)]) -> bool,
    ) -> Vec<(String, T)> {
        let mut feed = self.projection.changes(&[table]);
        let found = async {
            loop {
                feed.next().await;
                let rows = view::entries::<_, T>(&self.projection.view(), &node(), table).unwrap();
                let rows: Vec<_> = rows.into_iter().map(|(key, row)| (key, row.content)).collect();
                if enough(&rows) {
                    return rows;
                }
            }
        };
        tokio::time::timeout(DEADLINE, found)
            .await
            .unwrap_or_else(|_| panic!("{table:?} does not come to that"))
    }

    /// Plays the cloud from now on, with the link up: answers each interest and each write once.
    pub(crate) fn play(&mut self, mut answer: impl FnMut(Asked) -> Vec<v1::Record> + Send + 'static) {
        self.link.send_replace(true);
        let (log, projection) = (self.log.clone(), self.projection.clone());
        let mut feed = projection.changes(&[Table::Interests, Table::KubeWrites]);
        self.cloud = Some(tokio::spawn(async move {
            let mut done = std::collections::BTreeSet::new();
            loop {
                feed.next().await;
                let view = projection.view();
                let mut records = Vec::new();
                let interests = view::entries(&view, &node(), Table::Interests).unwrap();
                for (id, row) in interests {
                    if done.insert(id.clone()) {
                        records.extend(answer(Asked::Interest(id, row.content)));
                    }
                }
                let writes = view::entries(&view, &node(), Table::KubeWrites).unwrap();
                for (id, row) in writes {
                    if done.insert(id.clone()) {
                        records.extend(answer(Asked::Write(id, row.content)));
                    }
                }
                drop(view);
                if !records.is_empty() {
                    log.append(&StreamId::new(node(), Lane::Down), records)
                        .await
                        .unwrap();
                }
            }
        }));
    }

    /// One request, without a client library.
    pub(crate) async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value) {
        let raw = raw(self.address, method, path, headers, body).await;
        let (head, body) = raw.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (
            code,
            serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())),
        )
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.http("GET", path, &[], "").await
    }
}

pub(crate) async fn raw(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += "host: 127.0.0.1\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream
        .write_all(format!("{head}\r\n{body}").as_bytes())
        .await
        .ok();
    let mut out = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut out))
        .await
        .unwrap()
        .ok();
    String::from_utf8_lossy(&out).into_owned()
}

/// The first `count` lines of a watch.
pub(crate) async fn watched(edge: &Edge, path: &str, count: usize) -> Vec<Value> {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut stream = tokio::net::TcpStream::connect(edge.address).await.unwrap();
    let head = format!("GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut out = Vec::new();
    while out.len() < count {
        let line = tokio::time::timeout(DEADLINE, lines.next_line())
            .await
            .unwrap()
            .unwrap();
        let line = line.unwrap_or_else(|| panic!("the watch ended after {out:?}"));
        if line.starts_with('{') {
            out.push(serde_json::from_str(&line).unwrap());
        }
    }
    out
}

/// What the node asks the cloud.
pub(crate) enum Asked {
    Interest(String, v1::Interest),
    Write(String, v1::KubeWrite),
}

/// An object on its way down.
pub(crate) fn object(resource: &str, value: &Value) -> v1::Record {
    let metadata = &value["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&value["apiVersion"]);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let key = object_key(
        group,
        resource,
        &text(&metadata["namespace"]),
        &text(&metadata["name"]),
    );
    let payload = Payload::KubeObject(v1::KubeObject {
        json: serde_json::to_vec(value).unwrap().into(),
        uid: text(&metadata["uid"]),
        resource_version: text(&metadata["resourceVersion"]),
    });
    record(&key, &payload)
}

pub(crate) fn removed(key: &str) -> v1::Record {
    record(key, &Payload::KubeObjectRemoved(v1::KubeObjectRemoved::default()))
}

pub(crate) fn pod(name: &str, version: u64, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": format!("uid-of-{name}"),
            "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels,
        },
        "spec": {
            "nodeName": "edge-1",
            "containers": [{"name": "main", "image": "example.com/main:1"}],
        },
        "status": {"phase": "Pending"},
    })
}

pub(crate) fn config_map(name: &str, version: u64, value: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": format!("uid-of-{name}"),
            "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "data": {"key": value},
    })
}

pub(crate) fn namespace(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "uid": format!("uid-of-{name}"),
            "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })
}
