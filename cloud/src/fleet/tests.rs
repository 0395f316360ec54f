//! Links, against a log and its projection.

use std::sync::Arc;

use ledge_controllers::told::{Told, record};
use ledge_log::{DiskStorage, Options};
use ledge_projection::Follower;
use ledge_proto::ids::ClusterId;
use ledge_proto::record::Payload;
use ledge_replication::reset::OwnAppends;

use super::*;

fn head(node: &Scope, seq: u64) -> v1::LaneHead {
    v1::LaneHead {
        scope: node.as_wire().to_owned(),
        lane: Lane::UpState.as_wire(),
        seq,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_node_that_is_back_catches_up_to_where_its_state_ended() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(ClusterId([7; 16]), "cloud".to_owned());
    let (log, _) = Log::open(Arc::new(DiskStorage), &dir.path().join("log"), options).unwrap();
    let edge = ledge_projection::Options::edge();
    let (projection, _) = Projection::open(&dir.path().join("projection"), &log, &edge).unwrap();
    let follower = Follower::start(log.clone(), projection.clone());
    let fleet = Fleet::new(log.clone(), projection.clone());
    let told = Told {
        log: log.clone(),
        projection,
        appends: OwnAppends::default(),
    };
    let node = Scope::node("edge-1").unwrap();
    let says = async || {
        let state = Payload::NodeState(v1::NodeState::default());
        let stream = StreamId::new(node.clone(), Lane::UpState);
        let records = vec![record("edge-1".to_owned(), &state)];
        told.append(stream, records).await.unwrap();
    };
    assert!(!fleet.is_catching_up(&node), "it never connected");
    says().await;
    let peer = Peer {
        incarnation: log.identity().incarnation,
        boot_id: String::new(),
        labels: BTreeMap::new(),
        software: String::new(),
    };
    let link = fleet.observer(&node, 1);
    link.established(&peer);
    assert!(fleet.is_catching_up(&node), "it has not said how much there is");
    link.peer_heads(&[head(&node, 3)]);
    says().await;
    assert!(fleet.is_catching_up(&node));
    // What it tells from now on is not what it told meanwhile.
    link.peer_heads(&[head(&node, 9)]);
    says().await;
    assert!(!fleet.is_catching_up(&node));
    fleet.disconnected(&node, 1);
    fleet.observer(&node, 2).established(&peer);
    assert!(fleet.is_catching_up(&node), "the next link");
    fleet.disconnected(&node, 2);
    assert!(!fleet.is_catching_up(&node));
    follower.stop().unwrap();
}
