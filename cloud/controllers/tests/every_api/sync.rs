//! A node whose projection is not what it was told is told to fold it again, once.

use std::time::Duration;

use crate::support::{Place, places, scope};
use ledge_proto::fold::{Table, folded_stream, lane_hash};
use ledge_proto::ids::{Lane, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;

/// What the node says if it has folded everything it was told.
fn applied(place: &Place, node: &str) -> v1::DownApplied {
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
    let ((node, node_hash), (cluster, cluster_hash)) = (of(node), of(""));
    v1::DownApplied {
        node,
        cluster,
        node_hash,
        cluster_hash,
    }
}

async fn says(place: &Place, node: &str, applied: v1::DownApplied) {
    let payload = Payload::DownApplied(applied);
    place.node_says(node, Lane::UpState, node, &payload).await;
}

fn repair(place: &Place, node: &str) -> Option<v1::Repair> {
    place.entry(node, Table::Repairs, "projection")
}

/// The node says that what all nodes are told came to something else for it, until it is told what to do. In a cluster it
/// has to say it again when all nodes were told more meanwhile: then there was nothing to compare.
async fn says_wrong(place: &Place, node: &str) -> v1::Repair {
    place
        .until("a repair", async |place| {
            let mut wrong = applied(place, node);
            wrong.cluster_hash = vec![0; 32];
            says(place, node, wrong).await;
            for _ in 0..100 {
                if let Some(repair) = repair(place, node) {
                    return Some(repair);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            None
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_difference_at_the_same_record_is_repaired_and_once() {
    for mut place in places().await {
        place.run();
        let edge = place.edge("edge-1").await;
        let node = edge.as_str();
        place.config_map("prices", "1").await;
        place.pod("till", node, "prices").await;
        let (map, pod) = (place.key("configmaps", "prices"), place.key("pods", "till"));
        place.holds(node, &[&map, &pod]).await;
        place.settled("before").await;
        let right = applied(&place, node);
        says(&place, node, right.clone()).await;
        // Of another record: nothing to compare with.
        let mut ahead = right.clone();
        ahead.node_hash = vec![0; 32];
        ahead.node.as_mut().unwrap().seq += 1000;
        says(&place, node, ahead).await;
        place.settled("after").await;
        assert_eq!(repair(&place, node), None);
        let ordered = says_wrong(&place, node).await;
        assert!(ordered.reason.contains("cluster/down"), "{}", ordered.reason);
        // The same finding again, after a restart, is the same order.
        let head = place.head(node, Lane::Down);
        place.stop().await;
        place.run();
        place.settled("restarted").await;
        assert_eq!(place.head(node, Lane::Down), head);
    }
}
