//! Told when it is at the head and differs from what was told; folded again when ordered, once.

use std::sync::Arc;

use ledge_log::{DiskStorage, Log, Options};
use ledge_projection::Follower;
use ledge_proto::ids::ClusterId;
use ledge_replication::reset::OwnAppends;
use tokio::task::JoinHandle;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

struct Place {
    _dir: tempfile::TempDir,
    log: Log,
    projection: Projection,
    follower: Follower,
    heads: watch::Sender<Option<Vec<v1::LaneHead>>>,
    stop: CancellationToken,
    telling: JoinHandle<()>,
}

fn node() -> Scope {
    Scope::node("edge-1").unwrap()
}

fn down() -> StreamId {
    StreamId::new(node(), Lane::Down)
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 8 << 20,
            ..Options::new(ClusterId([1; 16]), "edge-1")
        };
        let (log, _) = Log::open(Arc::new(DiskStorage), &dir.path().join("log"), options).unwrap();
        let options = ledge_projection::Options::edge();
        let (projection, _) = Projection::open(&dir.path().join("projection"), &log, &options).unwrap();
        let follower = Follower::start(log.clone(), projection.clone());
        let heads = watch::Sender::new(None);
        let stop = CancellationToken::new();
        let applied = Applied {
            journal: LogJournal::new(log.clone(), &node(), OwnAppends::default()),
            projection: projection.clone(),
            node: node(),
            heads: heads.subscribe(),
        };
        let telling = tokio::spawn(applied.tell(stop.clone()));
        Place {
            _dir: dir,
            log,
            projection,
            follower,
            heads,
            stop,
            telling,
        }
    }

    async fn append(&self, key: &str, payload: &Payload) {
        let (kind, payload) = payload.encode();
        let record = v1::Record {
            kind,
            key: key.to_owned(),
            payload: payload.into(),
            ..Default::default()
        };
        self.log.append(&down(), vec![record]).await.unwrap();
    }

    fn link(&self, seq: u64) {
        let head = v1::LaneHead {
            scope: node().as_wire().to_owned(),
            lane: Lane::Down.as_wire(),
            seq,
            ..Default::default()
        };
        self.heads.send_replace(Some(vec![head]));
    }

    /// Waits for what is told as record `seq` of `up.state`.
    async fn told(&self, seq: u64) -> v1::DownApplied {
        let mut feed = self.projection.changes(&[Table::DownApplied]);
        let told = async {
            loop {
                feed.next().await;
                let view = self.projection.view();
                let found = view::entry::<_, v1::DownApplied>(&view, &node(), Table::DownApplied, "edge-1");
                if let Some(found) = found.unwrap().filter(|found| found.position.seq >= Seq(seq)) {
                    assert_eq!(found.position.seq, Seq(seq));
                    return found.content;
                }
            }
        };
        tokio::time::timeout(DEADLINE, told).await.unwrap()
    }

    /// How many records of `up.state` there are.
    fn said(&self) -> u64 {
        let key = self.log.own_key(&StreamId::new(node(), Lane::UpState));
        self.log.durable(&key).map_or(0, |mark| mark.position.seq.0)
    }

    async fn end(self) {
        self.stop.cancel();
        self.telling.await.unwrap();
        self.follower.stop().unwrap();
    }
}

fn object(version: &str) -> Payload {
    Payload::KubeObject(v1::KubeObject {
        resource_version: version.to_owned(),
        ..Default::default()
    })
}

#[tokio::test]
async fn it_is_told_at_the_head_and_again_only_when_it_changed() {
    let place = Place::new();
    place.append("/pods/a/b", &object("1")).await;
    // The cloud has one more that did not arrive yet.
    place.link(2);
    place.append("/pods/a/b", &object("2")).await;
    let told = place.told(1).await;
    assert_eq!(told.node.unwrap().seq, 2, "not before the head");
    let hash = lane_hash(&place.projection.view(), &node(), Lane::Down).unwrap();
    assert_eq!(told.node_hash, hash);
    assert_eq!(told.cluster, None);
    // A new link, and nothing new: nothing is said.
    place.heads.send_replace(None);
    place.link(2);
    place.append("/pods/a/b", &object("3")).await;
    place.link(3);
    // The order comes at once, and after it the telling, so that only one more record says that nothing came between.
    let found = v1::StreamPosition { epoch: 1, seq: 1 };
    let order = Payload::Repair(v1::Repair {
        found: Some(found),
        reason: "differs".to_owned(),
    });
    place.append("projection", &order).await;
    let told = place.told(2).await;
    assert_eq!(told.node.unwrap().seq, 4);
    assert_eq!(place.said(), 2);
    // The same order again, as after a restart: it was carried out.
    place.append("projection", &order).await;
    place.append("/pods/a/b", &object("5")).await;
    place.link(6);
    tokio::task::yield_now().await;
    assert_eq!(place.said(), 2);
    place.end().await;
}
