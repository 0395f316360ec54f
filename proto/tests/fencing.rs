//! The fault table of docs/format/session.md, row by row, with the real session at both ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::time::Duration;

use ledge_proto::fence::{self, Resolution};
use ledge_proto::ids::{Epoch, Incarnation, Lane, Seq};
use ledge_proto::v1;
use world::{
    CLOUD_INCARNATION, Edge, End, Item, Link, Log, Told, acquainted, established, in_step, key, meet,
    refusal, was_reset,
};

#[test]
fn clean_reconnect() {
    let (mut edge, mut cloud) = acquainted();
    edge.write(Lane::UpData, 200);
    let told = meet(&mut edge, &mut cloud, 2);
    assert!(established(&told) && !was_reset(&told), "{told:?}");
    in_step(&edge, &cloud);
    // Also after a restart, and the other way round.
    edge.start(2);
    cloud.append(&key(Lane::Down, CLOUD_INCARNATION), 950);
    let told = meet(&mut edge, &mut cloud, 3);
    assert!(established(&told) && !was_reset(&told), "{told:?}");
    in_step(&edge, &cloud);
    assert_eq!(cloud.node.current, edge.log.edge.token);
}

#[test]
fn re_imaged_node() {
    let (mut old, mut cloud) = acquainted();
    let mut new = Edge::new(3);
    new.start(50);
    let told = meet(&mut new, &mut cloud, 2);
    assert!(established(&told), "{told:?}");
    in_step(&new, &cloud);
    assert_eq!(cloud.node.closed, [vec![2; 16]]);
    // The disk it had before comes back: it is let in no more, and neither is the new one until somebody decides.
    old.start(51);
    let told = meet(&mut old, &mut cloud, 3);
    assert_eq!(refusal(&told), Some("IncarnationClosed"), "{told:?}");
    assert_eq!(refusal(&meet(&mut new, &mut cloud, 4)), Some("Quarantined"));
    assert_eq!(cloud.node.quarantine.as_ref().unwrap().since_us, 1_000_000);
}

#[test]
fn old_disk() {
    let (mut edge, mut cloud) = acquainted();
    let backup = edge.clone();
    for n in 0..5 {
        edge.write(Lane::UpData, 300 + n);
    }
    meet(&mut edge, &mut cloud, 2);
    // The virtual machine is put back to the backup. It starts, writes, and finds the cloud ahead.
    let mut edge = backup;
    edge.start(60);
    edge.write(Lane::UpData, 400);
    let told = meet(&mut edge, &mut cloud, 3);
    let data = edge.key(Lane::UpData);
    assert!(established(&told), "{told:?}");
    let reset = told.iter().find_map(|told| match told {
        Told::Reset {
            key,
            epoch,
            base,
            common,
        } if *key == data => Some((epoch.0, base.position.seq.0, common.unwrap().seq.0)),
        _ => None,
    });
    let (epoch, base, common) = reset.unwrap();
    assert_eq!((base, common), (15, 10), "{told:?}");
    assert!(epoch > 1);
    in_step(&edge, &cloud);
    // Nothing the cloud had acknowledged is gone, and what was written since is there.
    let says = cloud.says(&data);
    assert!((300..305).chain([400]).all(|n| says.contains(&n)), "{says:?}");
    assert_eq!(cloud.end(&data).unwrap().position.epoch.0, epoch);
    // And it goes on as ever.
    edge.write(Lane::UpData, 401);
    let told = meet(&mut edge, &mut cloud, 4);
    assert!(established(&told) && !was_reset(&told), "{told:?}");
    in_step(&edge, &cloud);
}

#[test]
fn cloned_disk_while_the_other_lives() {
    let (edge, mut cloud) = acquainted();
    let (mut first, mut second) = (edge.clone(), edge);
    meet(&mut first, &mut cloud, 2);
    cloud.other_session = true;
    second.start(70);
    let told = meet(&mut second, &mut cloud, 3);
    assert_eq!(refusal(&told), Some("Fork"), "{told:?}");
    assert!(told.contains(&Told::Quarantine(ledge_proto::session::RefuseReason::Fork)));
    // Both, until somebody decides.
    cloud.other_session = false;
    for edge in [&mut first, &mut second] {
        let told = meet(edge, &mut cloud, 4);
        assert_eq!(refusal(&told), Some("Quarantined"), "{told:?}");
    }
}

#[test]
fn cloned_disk_of_a_node_that_lost_nothing() {
    let (edge, mut cloud) = acquainted();
    let (mut first, mut second) = (edge.clone(), edge);
    // A session without a single record: sequence numbers and chains agree, only the token tells.
    meet(&mut first, &mut cloud, 2);
    second.log.reopen();
    let told = meet(&mut second, &mut cloud, 3);
    assert_eq!(refusal(&told), Some("Fork"), "{told:?}");
}

#[test]
fn cloned_disk_taken_for_an_old_one_is_found_out_when_the_other_comes_back() {
    let (edge, mut cloud) = acquainted();
    let (mut first, mut second) = (edge.clone(), edge);
    first.write(Lane::UpData, 300);
    meet(&mut first, &mut cloud, 2);
    // While the first is away, the second looks like a disk that was put back.
    second.start(70);
    let told = meet(&mut second, &mut cloud, 3);
    assert!(established(&told) && was_reset(&told), "{told:?}");
    // The first: still running, or started again.
    let (mut restarted, mut cloud_too) = (first.clone(), cloud.clone());
    assert_eq!(refusal(&meet(&mut first, &mut cloud, 4)), Some("Fork"));
    restarted.start(71);
    assert_eq!(refusal(&meet(&mut restarted, &mut cloud_too, 4)), Some("Fork"));
}

#[test]
fn cloned_disk_with_the_latest_token_and_another_history() {
    let (edge, mut cloud) = acquainted();
    let (mut first, mut second) = (edge.clone(), edge);
    first.start(70);
    second.start(71);
    meet(&mut first, &mut cloud, 2);
    // As if the second had copied the token too.
    second.log.edge.token.clone_from(&first.log.edge.token);
    second.log.opened.clone_from(&first.log.opened);
    cloud.other_session = true;
    let told = meet(&mut second, &mut cloud, 3);
    assert_eq!(refusal(&told), Some("Fork"), "{told:?}");
    assert!(cloud.node.quarantine.is_some());
}

#[test]
fn truncated_log() {
    let (mut edge, mut cloud) = acquainted();
    // The disk lied about its last writes: acknowledged records are gone, the token is still the latest.
    let data = edge.key(Lane::UpData);
    edge.log.streams.get_mut(&data).unwrap().truncate(7);
    edge.start(80);
    edge.write(Lane::UpData, 500);
    let told = meet(&mut edge, &mut cloud, 2);
    assert!(established(&told) && was_reset(&told), "{told:?}");
    in_step(&edge, &cloud);
    let says = cloud.says(&data);
    assert!((100..110).chain([500]).all(|n| says.contains(&n)), "{says:?}");
}

#[test]
fn truncated_log_that_has_outgrown_what_it_lost() {
    let (mut edge, mut cloud) = acquainted();
    let data = edge.key(Lane::UpData);
    edge.log.streams.get_mut(&data).unwrap().truncate(7);
    edge.start(80);
    // Only the edge can tell that the cloud's end is not on its chain.
    for n in 0..20 {
        edge.write(Lane::UpData, 500 + n);
    }
    let told = meet(&mut edge, &mut cloud, 2);
    assert!(established(&told) && was_reset(&told), "{told:?}");
    in_step(&edge, &cloud);
    let says = cloud.says(&data);
    assert!((100..110).chain(500..520).all(|n| says.contains(&n)), "{says:?}");
}

#[test]
fn bit_rot() {
    let (mut edge, mut cloud) = acquainted();
    edge.write(Lane::UpData, 200);
    let mut link = Link::dial(&edge, &cloud, 2);
    link.run(&mut edge, &mut cloud);
    // Records 3 to 5 of the edge's own log cannot be read any more. HELLO shows nothing of that: it asks for them.
    let data = edge.key(Lane::UpData);
    assert!(link.edge.fetch(&data, Seq(5), Seq(3)).is_none());
    let id = link.edge.fetch(&data, Seq(3), Seq(5)).unwrap();
    assert!(link.edge.fetches(&data, Seq(4), Seq(4)) && !link.edge.fetches(&data, Seq(6), Seq(6)));
    link.run(&mut edge, &mut cloud);
    // The cloud does not hold them either (its daemon says so): they are a gap from now on.
    link.cloud.refuse_fetch(id);
    link.run(&mut edge, &mut cloud);
    assert!(!link.edge.fetches(&data, Seq(4), Seq(4)));
    assert!(link.established(End::Edge) && link.established(End::Cloud));
    // A range in the middle that nobody holds is skipped with a snapshot behind it: the cloud ends before, the edge's
    // oldest readable record comes after.
    let (mut edge, mut cloud) = acquainted();
    for n in 0..6 {
        edge.write(Lane::UpData, 200 + n);
    }
    edge.log.held_after.insert(data.clone(), Seq(13));
    let told = meet(&mut edge, &mut cloud, 3);
    assert!(established(&told), "{told:?}");
    let skipped = told
        .iter()
        .any(|told| matches!(told, Told::Snapshot { key, after: Seq(10), .. } if *key == data));
    assert!(skipped, "{told:?}");
    in_step(&edge, &cloud);
}

/// An edge that goes on while the cloud is put back to `before`.
fn restored() -> (Edge, Log) {
    let (mut edge, mut cloud) = acquainted();
    let backup = cloud.clone();
    edge.write(Lane::UpData, 300);
    cloud.append(&key(Lane::Down, CLOUD_INCARNATION), 990);
    let mut link = Link::dial(&edge, &cloud, 2);
    link.run(&mut edge, &mut cloud);
    // What was acknowledged is noted on the edge after a while.
    for _ in 0..3 {
        link.wait(Duration::from_secs(4));
        link.run(&mut edge, &mut cloud);
    }
    assert!(established(&link.told), "{:?}", link.told);
    let mut cloud = backup;
    cloud.cloud = fence::begin_leadership(cloud.cloud);
    (edge, cloud)
}

#[test]
fn restored_cloud_without_a_generation() {
    let (mut edge, mut cloud) = restored();
    let before = (edge.clone(), cloud.says(&edge.key(Lane::UpData)));
    let told = meet(&mut edge, &mut cloud, 3);
    assert_eq!(refusal(&told), Some("CloudRolledBack"), "{told:?}");
    assert!(
        told.iter()
            .any(|told| matches!(told, Told::Refused { message, .. } if message.contains("--restored")))
    );
    assert_eq!((edge.clone(), cloud.says(&edge.key(Lane::UpData))), before);
    assert!(cloud.node.quarantine.is_none(), "the node did nothing wrong");
}

#[test]
fn restored_cloud_with_a_generation() {
    let (mut edge, mut cloud) = restored();
    cloud.cloud = fence::raise_restore_generation(cloud.cloud, 0);
    let told = meet(&mut edge, &mut cloud, 3);
    assert!(established(&told), "{told:?}");
    // The edge's receipt proves what had been acknowledged.
    let lost = told.iter().find_map(|told| match told {
        Told::CloudLost(lost) => Some((lost.first.0, lost.last.0, lost.verified)),
        _ => None,
    });
    assert_eq!(lost, Some((11, 11, Some(true))), "{told:?}");
    in_step(&edge, &cloud);
    assert!(cloud.says(&edge.key(Lane::UpData)).contains(&300));
    // `down` began a new epoch, above what the edge held.
    assert_eq!(
        cloud
            .end(&key(Lane::Down, CLOUD_INCARNATION))
            .unwrap()
            .position
            .epoch
            .0,
        2
    );
    // And goes on; the same backup once more is refused.
    let told = meet(&mut edge, &mut cloud, 4);
    assert!(established(&told) && !was_reset(&told), "{told:?}");
    let (_, mut again) = restored();
    assert_eq!(refusal(&meet(&mut edge, &mut again, 5)), Some("CloudRolledBack"));
}

/// Two copies of the cloud's data are started as restored, and each begins an epoch of `down` of the same number.
#[test]
fn two_restored_clouds_with_an_epoch_of_the_same_number() {
    let (mut edge, mut cloud) = acquainted();
    let down = key(Lane::Down, CLOUD_INCARNATION);
    let (mut first, mut second) = (cloud.clone(), cloud.clone());
    cloud.append(&down, 940);
    meet(&mut edge, &mut cloud, 2);
    first.cloud = fence::raise_restore_generation(fence::begin_leadership(first.cloud), 0);
    let told = meet(&mut edge, &mut first, 3);
    assert!(established(&told), "{told:?}");
    let begun = |log: &Log| log.end(&down).unwrap().position;
    assert_eq!((begun(&first).epoch.0, begun(&first).seq.0), (2, 3));
    // The second has gone on in its first epoch before it began the next, for another node.
    second.append(&down, 950);
    let mut mark = second.append(&down, 951);
    let common = Some(mark.position);
    mark.position.epoch = Epoch(2);
    second
        .streams
        .get_mut(&down)
        .unwrap()
        .push(Item::Rebase { mark, common });
    second.cloud = fence::raise_restore_generation(fence::begin_leadership(first.cloud), 0);
    let told = meet(&mut edge, &mut second, 4);
    assert!(established(&told), "{told:?}");
    assert_eq!(begun(&second).epoch.0, 3);
    in_step(&edge, &second);
}

#[test]
fn restored_cloud_that_lost_everything() {
    let (mut edge, _) = acquainted();
    let mut cloud = Log {
        cloud: fence::begin_leadership(v1::CloudFence::default()),
        ..Log::default()
    };
    assert_eq!(refusal(&meet(&mut edge, &mut cloud, 2)), Some("CloudRolledBack"));
    cloud.cloud = fence::raise_restore_generation(cloud.cloud, 0);
    let told = meet(&mut edge, &mut cloud, 3);
    assert!(established(&told), "{told:?}");
    in_step(&edge, &cloud);
    assert_eq!(cloud.says(&edge.key(Lane::UpData)).len(), 10);
}

#[test]
fn two_cloudcores() {
    let (mut edge, old) = acquainted();
    let mut new = old.clone();
    new.cloud = fence::begin_leadership(new.cloud);
    assert!(established(&meet(&mut edge, &mut new, 2)));
    // The older one still believes that it leads. It is refused, whatever the edge has to say.
    let mut old = old;
    let told = meet(&mut edge, &mut old, 3);
    assert_eq!(refusal(&told), Some("StaleCloud"), "{told:?}");
    // And an edge whose HELLO did not say so refuses by itself.
    let mut welcome = Log {
        cloud: old.cloud,
        ..new.clone()
    };
    let mut forgetful = edge.clone();
    forgetful.log.edge.max_cloud_epoch_seen = 0;
    let mut link = Link::dial(&forgetful, &welcome, 4);
    link.run(&mut edge, &mut welcome);
    assert_eq!(refusal(&link.told), Some("StaleCloud"), "{:?}", link.told);
}

/// A node in quarantine because of two disks; the first had the last session.
fn quarantined() -> (Edge, Edge, Log) {
    let (edge, mut cloud) = acquainted();
    let (mut first, mut second) = (edge.clone(), edge);
    first.start(70);
    meet(&mut first, &mut cloud, 2);
    cloud.other_session = true;
    second.start(71);
    meet(&mut second, &mut cloud, 3);
    cloud.other_session = false;
    assert!(cloud.node.quarantine.is_some());
    (first, second, cloud)
}

#[test]
fn an_operator_decides_for_the_disk_that_was_refused() {
    let (mut first, mut second, mut cloud) = quarantined();
    let why = cloud.node.quarantine.clone().unwrap();
    let this = Resolution::ThisDisk {
        incarnation: Incarnation::from_slice(&why.incarnation).unwrap(),
        token: why.token.unwrap(),
    };
    cloud.node = fence::resolve(cloud.node.clone(), this);
    assert_eq!(refusal(&meet(&mut first, &mut cloud, 4)), Some("Superseded"));
    let told = meet(&mut second, &mut cloud, 5);
    assert!(established(&told), "{told:?}");
    in_step(&second, &cloud);
    // The other one stays out, and puts nobody in quarantine.
    assert_eq!(refusal(&meet(&mut first, &mut cloud, 6)), Some("Superseded"));
    assert!(established(&meet(&mut second, &mut cloud, 7)));
}

#[test]
fn an_operator_takes_whichever_comes() {
    let (mut first, mut second, mut cloud) = quarantined();
    cloud.node = fence::resolve(cloud.node.clone(), Resolution::NewIncarnation);
    let told = meet(&mut first, &mut cloud, 4);
    assert!(established(&told), "{told:?}");
    in_step(&first, &cloud);
    assert_eq!(refusal(&meet(&mut second, &mut cloud, 5)), Some("Superseded"));
    assert!(established(&meet(&mut first, &mut cloud, 6)));
    // An empty disk is always a new beginning.
    let mut new = Edge::new(9);
    new.start(90);
    assert!(established(&meet(&mut new, &mut cloud, 7)));
    in_step(&new, &cloud);
}

/// Two copies of a running disk went on, and the one whose history the cloud did not take is let in.
#[test]
fn what_the_cloud_holds_already_is_not_sent_again() {
    let (mut edge, mut cloud) = acquainted();
    let data = edge.key(Lane::UpData);
    // More than the edge was told of: it goes on without a word of the cloud, and so does its copy.
    edge.write(Lane::UpData, 200);
    edge.write(Lane::UpData, 201);
    let mut first = edge.clone();
    meet(&mut first, &mut cloud, 2);
    first.write(Lane::UpData, 300);
    meet(&mut first, &mut cloud, 3);
    edge.write(Lane::UpData, 400);
    let told = meet(&mut edge, &mut cloud, 4);
    assert!(established(&told) && was_reset(&told), "{told:?}");
    in_step(&edge, &cloud);
    let mut says = cloud.says(&data);
    assert!(says.contains(&400), "{says:?}");
    let before = says.len();
    says.sort_unstable();
    says.dedup();
    assert_eq!(says.len(), before, "{says:?}");
}

/// An older state of the disk, from right where the cloud's copy began another epoch.
#[test]
fn old_disk_that_lost_nothing_but_an_epoch() {
    let (mut edge, mut cloud) = acquainted();
    let backup = edge.clone();
    edge.write(Lane::UpData, 300);
    meet(&mut edge, &mut cloud, 2);
    // Put back once, it goes on in epoch 2 from where the cloud ends.
    let mut once = backup.clone();
    once.start(60);
    assert!(was_reset(&meet(&mut once, &mut cloud, 3)));
    in_step(&once, &cloud);
    // What it looked like when its streams had not begun the epoch yet has the same end.
    let mut again = once.clone();
    for lane in [Lane::UpState, Lane::UpData] {
        let key = again.key(lane);
        let items = again.log.streams.get_mut(&key).unwrap();
        items.retain(|item| item.mark().position.epoch.0 == 1);
    }
    again.log.reopen();
    cloud.node = fence::resolve(cloud.node.clone(), Resolution::NewIncarnation);
    let told = meet(&mut again, &mut cloud, 4);
    assert!(established(&told), "{told:?}");
    in_step(&again, &cloud);
}

/// A disk that an operator lets back in after another one took its place says all of its own again: what is shown of
/// the node is what it says.
#[test]
fn a_disk_that_comes_back_begins_an_epoch() {
    let (mut old, mut cloud) = acquainted();
    let mut new = Edge::new(3);
    new.start(50);
    assert!(established(&meet(&mut new, &mut cloud, 2)));
    assert!(refusal(&meet(&mut old, &mut cloud, 3)).is_some());
    cloud.node = fence::resolve(cloud.node.clone(), Resolution::NewIncarnation);
    let told = meet(&mut old, &mut cloud, 4);
    assert!(established(&told) && was_reset(&told), "{told:?}");
    in_step(&old, &cloud);
    assert_eq!(cloud.end(&old.key(Lane::UpData)).unwrap().position.epoch.0, 2);
}

/// A clock that was ahead at the first restore does not keep the second one from being followed.
#[test]
fn a_cloud_restored_twice_is_above_what_nodes_have_followed() {
    let (mut edge, mut cloud) = restored();
    let older = cloud.clone();
    let ahead_us = 4_000_000_000_000_000;
    cloud.cloud = fence::raise_restore_generation(cloud.cloud, ahead_us);
    assert!(established(&meet(&mut edge, &mut cloud, 5)));
    // The older copy once more, by a clock that is right.
    let mut cloud = older;
    cloud.cloud = fence::raise_restore_generation(cloud.cloud, ahead_us / 2);
    assert_eq!(refusal(&meet(&mut edge, &mut cloud, 6)), Some("CloudRolledBack"));
    cloud.cloud = fence::raise_restore_generation(cloud.cloud, ahead_us / 2);
    let told = meet(&mut edge, &mut cloud, 7);
    assert!(established(&told), "{told:?}");
    in_step(&edge, &cloud);
}
