//! Streams that are folded again: what differs is put right, and told; everything else stays.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use ledge_log::{DiskStorage, Log, Options};
use ledge_projection::{AgainError, Changed, Changes, Follower, Opened, Projection};
use ledge_proto::fold::{Table, lane_hash};
use ledge_proto::ids::{ClusterId, Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;

fn node() -> Scope {
    Scope::node("edge-1").unwrap()
}

fn record(key: &str, payload: &Payload) -> v1::Record {
    let (kind, payload) = payload.encode();
    v1::Record {
        kind,
        key: key.to_owned(),
        payload: payload.into(),
        ..Default::default()
    }
}

fn object(version: &str) -> Payload {
    Payload::KubeObject(v1::KubeObject {
        resource_version: version.to_owned(),
        ..Default::default()
    })
}

#[tokio::test]
async fn what_differs_is_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 8 << 20,
        ..Options::new(ClusterId([1; 16]), "edge-1")
    };
    let (log, _) = Log::open(Arc::new(DiskStorage), &dir.path().join("log"), options).unwrap();
    let down = StreamId::new(node(), Lane::Down);
    let up = StreamId::new(node(), Lane::UpState);
    let state = Payload::DeviceState(v1::DeviceState::default());
    log.append(&up, vec![record("a/d", &state)]).await.unwrap();
    for version in ["1", "2"] {
        let records = vec![
            record("/pods/a/one", &object(version)),
            record("/pods/a/two", &object("7")),
        ];
        log.append(&down, records).await.unwrap();
    }
    let projection_dir = dir.path().join("projection");
    let open = || Projection::open(&projection_dir, &log, &ledge_projection::Options::edge()).unwrap();
    let (projection, _) = open();
    Follower::catch_up(&log, &projection, || false).unwrap();
    let right = lane_hash(&projection.view(), &node(), Lane::Down).unwrap();
    let whole = projection.state_hash(&node()).unwrap();
    projection.persist().unwrap();
    drop(projection);

    // Three mistakes that no checksum finds.
    {
        let db = fjall::Database::builder(&projection_dir).open().unwrap();
        let state = db.keyspace("state", Default::default).unwrap();
        let key = |name: &str| Table::KubeObjects.store_key(&node(), name.as_bytes());
        let one = state.get(key("/pods/a/one")).unwrap().unwrap();
        state.insert(key("/pods/a/two"), one).unwrap();
        state.remove(key("/pods/a/one")).unwrap();
        state.insert(key("/pods/a/three"), "").unwrap();
        db.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let (projection, opened) = open();
    assert_eq!(opened, Opened::Continuing);
    assert_ne!(lane_hash(&projection.view(), &node(), Lane::Down).unwrap(), right);
    let follower = Follower::start(log.clone(), projection.clone());
    let mut feed = projection.changes(&[Table::KubeObjects]);
    assert_eq!(feed.next().await, Changes::All);
    assert_eq!(projection.fold_again(vec![down.clone()]).await.unwrap(), 3);
    assert_eq!(lane_hash(&projection.view(), &node(), Lane::Down).unwrap(), right);
    assert_eq!(projection.state_hash(&node()).unwrap(), whole);
    let changed = |name: &str| Changed {
        scope: node(),
        table: Table::KubeObjects,
        key: format!("/pods/a/{name}"),
    };
    let all = ["one", "two", "three"].map(changed);
    assert_eq!(feed.next().await, Changes::Entries(all.into()));
    assert_eq!(projection.fold_again(vec![down.clone()]).await.unwrap(), 0);
    // It goes on from there.
    log.append(&down, vec![record("/pods/a/one", &object("9"))])
        .await
        .unwrap();
    let more = tokio::time::timeout(Duration::from_secs(60), feed.next())
        .await
        .unwrap();
    assert_eq!(more, Changes::Entries([changed("one")].into()));
    follower.stop().unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(60), async {
        // The thread has ended: nobody is left to do it, and nobody waits for ever.
        projection.fold_again(vec![down]).await
    });
    assert!(matches!(stopped.await, Ok(Err(AgainError::Stopped))));
}
