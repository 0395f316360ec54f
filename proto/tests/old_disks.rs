//! Disks from before, of which the cloud no longer holds, or never held, where they ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::time::Duration;

use ledge_proto::fence::{self, Resolution};
use ledge_proto::ids::Lane;
use world::{Edge, End, Link, Log, Told, acquainted, established, in_step, meet, refusal, was_reset};

/// As `acquainted`; the edge has noted what was acknowledged, with the receipts. Then its disk is copied, it goes on, and
/// the cloud lets go of everything but what came last. The copy is `unsaid` records ahead of what was acknowledged.
fn copied_long_ago(unsaid: u64) -> (Edge, Log) {
    let (mut edge, mut cloud) = acquainted();
    let mut link = Link::dial(&edge, &cloud, 2);
    link.run(&mut edge, &mut cloud);
    for _ in 0..3 {
        link.wait(Duration::from_secs(4));
        link.run(&mut edge, &mut cloud);
    }
    for n in 0..unsaid {
        edge.write(Lane::UpData, 250 + n);
    }
    let copy = edge.clone();
    edge.start(59);
    for n in 0..5 {
        edge.write(Lane::UpData, 300 + n);
    }
    meet(&mut edge, &mut cloud, 3);
    for lane in [Lane::UpState, Lane::UpData] {
        let end = cloud.end(&edge.key(lane)).unwrap();
        cloud.held_after.insert(edge.key(lane), end.position.seq);
    }
    (copy, cloud)
}

#[test]
fn old_disk_of_which_nothing_is_held_any_more() {
    let (mut edge, mut cloud) = copied_long_ago(0);
    edge.start(60);
    edge.write(Lane::UpData, 400);
    let told = meet(&mut edge, &mut cloud, 4);
    assert!(established(&told), "{told:?}");
    // The receipt proves where it ended to be in our history.
    let data = edge.key(Lane::UpData);
    let reset = told.iter().find_map(|told| match told {
        Told::Reset {
            key, base, common, ..
        } if *key == data => Some((base.position.seq.0, common.unwrap().seq.0)),
        _ => None,
    });
    assert_eq!(reset, Some((15, 10)), "{told:?}");
    in_step(&edge, &cloud);
    let mut says = cloud.says(&data);
    says.sort_unstable();
    assert_eq!(
        says,
        (100..110).chain(300..305).chain([400]).collect::<Vec<_>>(),
        "each once"
    );
}

/// A receipt of another key, or of a cloud that was put back since, proves nothing.
#[test]
fn old_disk_with_a_receipt_that_proves_nothing() {
    let (mut edge, mut cloud) = copied_long_ago(0);
    edge.start(60);
    let before = (edge.clone(), cloud.clone());
    for acked in &mut edge.log.edge.acknowledged {
        acked.receipt = vec![7; 16];
    }
    assert_eq!(refusal(&meet(&mut edge, &mut cloud, 4)), Some("Fork"));
    (edge, cloud) = before;
    cloud.cloud = fence::raise_restore_generation(cloud.cloud, 0);
    assert_eq!(refusal(&meet(&mut edge, &mut cloud, 4)), Some("Fork"));
}

#[test]
fn old_disk_that_cannot_be_compared() {
    // What it wrote after the last receipt may be what we had of it, or what a copy wrote by itself.
    let (mut edge, mut cloud) = copied_long_ago(1);
    edge.start(60);
    edge.write(Lane::UpData, 400);
    let told = meet(&mut edge, &mut cloud, 4);
    assert_eq!(refusal(&told), Some("Fork"), "{told:?}");
    assert_eq!(refusal(&meet(&mut edge, &mut cloud, 5)), Some("Quarantined"));
    // An operator decides for it: everything it holds goes again, under a new epoch.
    cloud.node = fence::resolve(cloud.node.clone(), Resolution::NewIncarnation);
    let told = meet(&mut edge, &mut cloud, 6);
    assert!(established(&told) && was_reset(&told), "{told:?}");
    in_step(&edge, &cloud);
    let says = cloud.says(&edge.key(Lane::UpData));
    assert!(
        (100..110)
            .chain(300..305)
            .chain([250, 400])
            .all(|n| says.contains(&n)),
        "{says:?}"
    );
}

/// A disk that an operator let in, and that crashed before it went on, has noted what the cloud acknowledged: to another
/// disk, of a history it does not share.
#[test]
fn acknowledged_to_another_disk() {
    let (edge, mut cloud) = acquainted();
    let (mut first, mut second) = (edge.clone(), edge);
    for n in 0..5 {
        first.write(Lane::UpData, 300 + n);
    }
    meet(&mut first, &mut cloud, 2);
    for n in 0..8 {
        second.write(Lane::UpData, 500 + n);
    }
    second.start(70);
    assert_eq!(refusal(&meet(&mut second, &mut cloud, 3)), Some("Fork"));
    cloud.node = fence::resolve(cloud.node.clone(), Resolution::NewIncarnation);
    let data = second.key(Lane::UpData);
    let noted = |edge: &Edge| {
        let mut acked = edge.log.edge.acknowledged.iter();
        acked.any(|acked| acked.lane == data.id.lane.as_wire() && acked.durable.as_ref().unwrap().seq == 15)
    };
    let mut link = Link::dial(&second, &cloud, 4);
    while !noted(&second) {
        let step = link.steps(&second, &cloud)[0];
        link.step(step, &mut second, &mut cloud);
    }
    link.crash(End::Edge, false, &mut second, &mut cloud);
    // What it resets is not begun.
    assert_eq!(second.log.end(&data).unwrap().position.epoch.0, 1);
    second.start(71);
    let told = meet(&mut second, &mut cloud, 5);
    assert!(established(&told) && was_reset(&told), "{told:?}");
    in_step(&second, &cloud);
    let mut says = cloud.says(&data);
    says.sort_unstable();
    let once: Vec<u64> = (100..110).chain(300..305).chain(500..508).collect();
    assert_eq!(says, once, "each once");
}
