//! What a feed tells: everything at first, then each entry that changed, once.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use ledge_log::{DiskStorage, Log, Options};
use ledge_projection::{Changed, Changes, Follower, Projection};
use ledge_proto::fold::Table;
use ledge_proto::ids::{ClusterId, Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;

fn scope() -> Scope {
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

#[tokio::test]
async fn a_feed_tells_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(
        std::sync::Arc::new(DiskStorage),
        &dir.path().join("log"),
        Options {
            segment_bytes: 8 << 20,
            ..Options::new(ClusterId([1; 16]), "cloud")
        },
    )
    .unwrap();
    let (projection, _) = Projection::open(
        &dir.path().join("projection"),
        &log,
        &ledge_projection::Options::edge(),
    )
    .unwrap();
    let follower = Follower::start(log.clone(), projection.clone());
    let mut feed = projection.changes(&[Table::Desired]);
    assert_eq!(feed.next().await, Changes::All);
    let stream = StreamId::new(scope(), Lane::Down);
    let wish = Payload::TwinDesired(v1::TwinDesired::default());
    let object = Payload::KubeObject(v1::KubeObject::default());
    let records = vec![
        record("/pods/a/b", &object),
        record("a/d/p", &wish),
        record("a/d/p", &wish),
    ];
    log.append(&stream, records).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), feed.next())
        .await
        .unwrap();
    let changed = Changed {
        scope: scope(),
        table: Table::Desired,
        key: "a/d/p".to_owned(),
    };
    assert_eq!(told, Changes::Entries([changed].into()));
    // A table nobody asked for wakes nobody up.
    log.append(&stream, vec![record("/pods/a/b", &object)])
        .await
        .unwrap();
    log.append(&stream, vec![record("a/d/q", &wish)]).await.unwrap();
    let Changes::Entries(told) = tokio::time::timeout(Duration::from_secs(60), feed.next())
        .await
        .unwrap()
    else {
        panic!("everything");
    };
    assert_eq!(
        told.into_iter().map(|changed| changed.key).collect::<Vec<_>>(),
        ["a/d/q"]
    );
    follower.stop().unwrap();
}
