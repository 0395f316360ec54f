//! Two logs, two ends of a link over real QUIC on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pair;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use ledge_proto::fold::snapshot::SnapshotSource;
use ledge_proto::ids::{ClusterId, Lane, Scope, Seq, StreamId};
use ledge_proto::session::SessionError;
use ledge_proto::v1::{self};
use ledge_replication::certs::CLOUD_SERVER_NAME;
use ledge_replication::link::LinkError;
use ledge_replication::tls;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use pair::*;

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_replicate_and_resume_sends_only_what_is_missing() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    append(&edge, "edge-1", Lane::UpData, 1000).await;
    append(&edge, "edge-1", Lane::UpState, 10).await;
    append(&cloud, "edge-1", Lane::Down, 20).await;

    let first = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("everything to arrive", || {
        end(&cloud, &edge, Lane::UpData) == Seq(1000)
            && end(&cloud, &edge, Lane::UpState) == Seq(10)
            && end(&edge, &cloud, Lane::Down) == Seq(20)
    })
    .await;
    // A live link carries new records without being asked.
    append(&edge, "edge-1", Lane::UpData, 5).await;
    append(&cloud, "edge-1", Lane::Down, 2).await;
    wait_until("live records", || {
        end(&cloud, &edge, Lane::UpData) == Seq(1005) && end(&edge, &cloud, Lane::Down) == Seq(22)
    })
    .await;
    first.stop().await;

    append(&edge, "edge-1", Lane::UpData, 7).await;
    append(&cloud, "edge-1", Lane::Down, 3).await;
    let second = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the missing records", || {
        end(&cloud, &edge, Lane::UpData) == Seq(1012) && end(&edge, &cloud, Lane::Down) == Seq(25)
    })
    .await;
    assert_eq!(second.edge_counts.sent_records.load(Ordering::Relaxed), 7);
    assert_eq!(second.cloud_counts.sent_records.load(Ordering::Relaxed), 3);
    assert!(second.edge_counts.sent_bytes.load(Ordering::Relaxed) < 1000);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_writer_no_longer_holds_arrives_as_a_snapshot_and_the_rest_as_records() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    append(&edge, "edge-1", Lane::UpState, 500).await;
    let state = edge.own_key(&StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpState));
    // Everything so far goes: segments are filled until it can.
    let filler = StreamId::new(Scope::node("filler").unwrap(), Lane::UpData);
    let mut noise = vec![0; 1 << 20];
    SmallRng::seed_from_u64(1).fill_bytes(&mut noise);
    let noise = v1::Record {
        kind: 1,
        payload: noise.into(),
        ..Default::default()
    };
    for _ in 0..9 {
        edge.append(&filler, vec![noise.clone()]).await.unwrap();
    }
    for key in [&state, &edge.own_key(&filler)] {
        let parts = Folded(edge.clone()).live(key).unwrap();
        edge.append_snapshot(parts).await.unwrap();
    }
    let oldest = edge.oldest_segment().unwrap().unwrap();
    assert_eq!(edge.recycle_before(oldest.last_block.next()).unwrap(), 1);
    append(&edge, "edge-1", Lane::UpState, 7).await;

    let first = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("everything to arrive", || {
        end(&cloud, &edge, Lane::UpState) == Seq(507)
    })
    .await;
    assert_eq!(first.edge_counts.sent_records.load(Ordering::Relaxed), 7);
    assert_eq!(
        folded(&cloud, &edge, Lane::UpState),
        folded(&edge, &edge, Lane::UpState)
    );
    first.stop().await;

    // Both go on from there.
    append(&edge, "edge-1", Lane::UpState, 3).await;
    let second = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the rest", || end(&cloud, &edge, Lane::UpState) == Seq(510)).await;
    assert_eq!(second.edge_counts.sent_records.load(Ordering::Relaxed), 3);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_far_behind_gets_what_its_desired_state_comes_to() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    // One value, wished for again and again.
    for _ in 0..20 {
        let id = StreamId::new(Scope::node("edge-1").unwrap(), Lane::Down);
        let same = v1::Record {
            key: "d/p/0".into(),
            ..records(1).remove(0)
        };
        cloud.append(&id, vec![same; 100]).await.unwrap();
    }
    let link = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the wish", || end(&edge, &cloud, Lane::Down) == Seq(2000)).await;
    assert_eq!(link.cloud_counts.sent_records.load(Ordering::Relaxed), 0);
    assert_eq!(
        folded(&edge, &cloud, Lane::Down),
        folded(&cloud, &cloud, Lane::Down)
    );
    append(&cloud, "edge-1", Lane::Down, 2).await;
    wait_until("what is wished next", || {
        end(&edge, &cloud, Lane::Down) == Seq(2002)
    })
    .await;
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_speak_for_another_and_is_told_why() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-2"), site.log("cloud"));
    append(&edge, "edge-2", Lane::UpData, 3).await;
    let link = link(&site, &edge, &cloud, "edge-2", "edge-1").await;
    let told = link.edge.await.unwrap().unwrap_err();
    let LinkError::Session(SessionError::Refused { reason, message }) = told else {
        panic!("{told}")
    };
    assert_eq!(reason, "NodeMismatch");
    assert!(
        message.contains("edge-1") && message.contains("edge-2"),
        "{message}"
    );
    assert!(cloud.streams().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_clusters_log_is_refused_and_told_why() {
    let site = Site::new();
    let (edge, cloud) = (site.log_of("edge-1", ClusterId([9; 16])), site.log("cloud"));
    append(&edge, "edge-1", Lane::UpData, 3).await;
    let link = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    let told = link.edge.await.unwrap().unwrap_err();
    assert!(
        matches!(&told, LinkError::Session(SessionError::Refused { reason, .. }) if reason == "ForeignCluster"),
        "{told}"
    );
    assert!(cloud.streams().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_falls_silent_is_given_up_within_two_heartbeats() {
    let site = Site::new();
    let (edge, cloud) = (site.log("edge-1"), site.log("cloud"));
    append(&edge, "edge-1", Lane::UpData, 3).await;
    let link = link(&site, &edge, &cloud, "edge-1", "edge-1").await;
    wait_until("the first records", || end(&cloud, &edge, Lane::UpData) == Seq(3)).await;
    // The cloud's tasks stop answering; its endpoint still acknowledges packets, as a hung process' kernel would.
    link.cloud.abort();
    let ended = tokio::time::timeout(Duration::from_secs(5), link.edge)
        .await
        .expect("half-open")
        .unwrap();
    let err = ended.unwrap_err();
    assert!(
        matches!(
            err,
            LinkError::Session(SessionError::Silent(_)) | LinkError::Connection(_) | LinkError::Stream(_)
        ),
        "{err}"
    );
    drop(link.endpoints);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_gets_no_connection() {
    let (site, other) = (Site::new(), Site::new());
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = quinn::Endpoint::server(tls::server_config(&site.cloud_files).unwrap(), any).unwrap();
    let address = server.local_addr().unwrap();
    let accepted = tokio::spawn(async move { server.accept().await.unwrap().await });
    let client = quinn::Endpoint::client(any).unwrap();
    let config = tls::client_config(&other.edge_files).unwrap();
    let connected = client
        .connect_with(config, address, CLOUD_SERVER_NAME)
        .unwrap()
        .await;
    assert!(connected.is_err(), "the edge must not trust a foreign cloud");
    assert!(accepted.await.unwrap().is_err());
}
