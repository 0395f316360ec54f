//! A node and a cloud that have talked to each other.

use ledge_proto::fence;
use ledge_proto::ids::Lane;

use super::{CLOUD_INCARNATION, Edge, Log, established, key, meet};

/// A node that has talked to its cloud: ten samples acknowledged.
pub fn acquainted() -> (Edge, Log) {
    let (mut edge, mut cloud) = (Edge::new(2), Log::default());
    cloud.cloud = fence::begin_leadership(cloud.cloud);
    edge.start(1);
    for n in 0..10 {
        edge.write(Lane::UpData, 100 + n);
    }
    let down = key(Lane::Down, CLOUD_INCARNATION);
    for n in 0..3 {
        cloud.append(&down, 900 + n);
    }
    let told = meet(&mut edge, &mut cloud, 1);
    assert!(established(&told), "{told:?}");
    in_step(&edge, &cloud);
    (edge, cloud)
}

/// Both hold the same standing records, and everything the edge said is at the cloud.
pub fn in_step(edge: &Edge, cloud: &Log) {
    for lane in [Lane::UpState, Lane::UpData] {
        let key = edge.key(lane);
        assert_eq!(edge.log.end(&key), cloud.end(&key), "{key}");
    }
    let down = key(Lane::Down, CLOUD_INCARNATION);
    assert_eq!(edge.log.end(&down), cloud.end(&down));
}
