//! The node's own status: told when it differs from what was told last, so that an idle node says nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ledge_kubeapi::meta;
use ledge_projection::Projection;
use ledge_proto::fold::{Table, view};
use ledge_proto::ids::{Lane, Scope};
use ledge_proto::record::{Payload, object_key};
use ledge_proto::v1;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::machine::Machine;
use super::{LogJournal, SystemClock};
use crate::twin::{Clock, Journal, NewRecord};

/// How often the machine is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What telling the status needs.
pub(crate) struct Status {
    pub(crate) journal: LogJournal,
    pub(crate) projection: Projection,
    pub(crate) node: Scope,
    pub(crate) data_dir: PathBuf,
    /// Where cloudcore is, `HOST:PORT`.
    pub(crate) cloud: Option<String>,
}

impl Status {
    /// Tells the status until `shutdown`.
    pub(crate) async fn tell(self, shutdown: CancellationToken) {
        let name = self.node.node_name().unwrap_or_default().to_owned();
        let key = object_key("", "nodes", "", &name);
        let mut said = self.said(&key);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let machine = Machine::read(&self.data_dir, self.cloud_address());
            let stamp = SystemClock.stamp();
            let status = machine.status(&name, &said, &meta::time(stamp.wall_us));
            if status == said {
                continue;
            }
            let told = NewRecord {
                key: key.clone(),
                payload: Payload::KubeStatus(v1::KubeStatus {
                    uid: String::new(),
                    json: serde_json::to_vec(&status).unwrap_or_default(),
                }),
                stamp,
                cause: None,
            };
            match self.journal.append(Lane::UpState, vec![told]).await {
                Ok(()) => said = status,
                Err(error) if error.may_retry() => {
                    tracing::warn!(%error, "the node's status cannot be told yet");
                }
                // The mappers' recorder stops the daemon.
                Err(_) => return,
            }
        }
    }

    /// What was told last, in this start or before; null when nothing was.
    fn said(&self, key: &str) -> Value {
        let view = self.projection.view();
        let found = view::entry::<_, v1::KubeStatus>(&view, &self.node, Table::KubeStatuses, key);
        let json = found.ok().flatten().map(|latest| latest.content.json);
        json.and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    /// Where the cloud is, when that needs no question to others.
    fn cloud_address(&self) -> Option<SocketAddr> {
        self.cloud.as_ref()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ledge_log::{DiskStorage, Log, Options};
    use ledge_projection::Follower;
    use ledge_proto::ids::{ClusterId, StreamId};
    use ledge_replication::reset::OwnAppends;

    use super::*;

    #[tokio::test]
    async fn an_idle_node_tells_its_status_once_also_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let node = Scope::node("edge-1").unwrap();
        let options = Options {
            segment_bytes: 8 << 20,
            ..Options::new(ClusterId([1; 16]), "edge-1")
        };
        let (log, _) = Log::open(Arc::new(DiskStorage), &dir.path().join("log"), options).unwrap();
        let options = ledge_projection::Options::edge();
        let (projection, _) = Projection::open(&dir.path().join("projection"), &log, &options).unwrap();
        let follower = Follower::start(log.clone(), projection.clone());
        let up = log.own_key(&StreamId::new(node.clone(), Lane::UpState));
        let mut feed = projection.changes(&[Table::KubeStatuses]);
        feed.next().await;
        // From now on hours are over as soon as nobody has anything to do.
        tokio::time::pause();
        for start in 0..2 {
            let status = Status {
                journal: LogJournal::new(log.clone(), &node, OwnAppends::default()),
                projection: projection.clone(),
                node: node.clone(),
                data_dir: dir.path().to_owned(),
                cloud: None,
            };
            let stop = CancellationToken::new();
            let telling = tokio::spawn(status.tell(stop.clone()));
            if start == 0 {
                feed.next().await;
            }
            tokio::time::sleep(LOOK_EVERY * 20).await;
            stop.cancel();
            telling.await.unwrap();
            assert_eq!(log.durable(&up).unwrap().position.seq.0, 1);
        }
        let view = projection.view();
        let found = view::entry::<_, v1::KubeStatus>(&view, &node, Table::KubeStatuses, "/nodes//edge-1");
        let said: Value = serde_json::from_slice(&found.unwrap().unwrap().content.json).unwrap();
        assert_eq!(
            said["addresses"].as_array().unwrap().last().unwrap()["address"],
            "edge-1"
        );
        assert!(said["capacity"]["cpu"].is_string() && said["nodeInfo"]["bootID"].is_string());
        drop(view);
        follower.stop().unwrap();
    }
}
