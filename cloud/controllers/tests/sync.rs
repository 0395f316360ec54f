//! A node whose projection is not what it was told is told to fold it again, once.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use ledge_proto::fold::{Table, folded_stream, lane_hash};
use ledge_proto::ids::{Lane, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use support::{Place, scope};

/// What a node says that has folded everything it was told.
fn applied(place: &Place) -> v1::DownApplied {
    let view = place.told.view();
    let of = |name: &str| {
        let scope = scope(name);
        let folded = folded_stream(&view, &StreamId::new(scope.clone(), Lane::Down)).unwrap();
        let position = folded.map(|folded| v1::StreamPosition {
            epoch: folded.epoch,
            seq: folded.seq,
        });
        (position, lane_hash(&view, &scope, Lane::Down).unwrap().to_vec())
    };
    let ((node, node_hash), (cluster, cluster_hash)) = (of("edge-1"), of(""));
    v1::DownApplied {
        node,
        cluster,
        node_hash,
        cluster_hash,
    }
}

async fn says(place: &Place, applied: v1::DownApplied) {
    let payload = Payload::DownApplied(applied);
    place.node_says("edge-1", Lane::UpState, "edge-1", &payload).await;
}

fn repair(place: &Place) -> Option<v1::Repair> {
    place.entry("edge-1", Table::Repairs, "projection")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_difference_at_the_same_record_is_repaired_and_once() {
    let mut place = Place::start().await;
    place.config_map("prices", "1").await;
    place.pod("till", "edge-1", "prices").await;
    place
        .until("the pod's objects", async |place| {
            (place.objects("edge-1").len() == 2).then_some(())
        })
        .await;
    place.settled("before").await;
    let right = applied(&place);
    says(&place, right.clone()).await;
    // Of another record: nothing to compare with.
    let mut ahead = right.clone();
    ahead.node_hash = vec![0; 32];
    ahead.node.as_mut().unwrap().seq += 1000;
    says(&place, ahead).await;
    place.settled("after").await;
    assert_eq!(repair(&place), None);
    let mut wrong = applied(&place);
    wrong.cluster_hash = vec![0; 32];
    says(&place, wrong).await;
    let ordered = place.until("a repair", async |place| repair(place)).await;
    assert!(ordered.reason.contains("cluster/down"), "{}", ordered.reason);
    // The same finding again, after a restart, is the same order.
    let head = place.head("edge-1", Lane::Down);
    place.stop().await;
    place.run();
    place.settled("restarted").await;
    assert_eq!(place.head("edge-1", Lane::Down), head);
}
