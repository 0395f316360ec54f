//! What the cloud's log gives up of telemetry that a node wrote is noted, by whoever wrote it.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod site;

use std::collections::BTreeSet;

use ledge_proto::fold::{State, view};
use ledge_proto::frame::{FrameWriter, push_record};
use ledge_proto::ids::{Incarnation, Lane, Seq, StreamKey};
use ledge_retention::replay::fold_all;
use ledge_retention::{Keeper, Outcome, Policy, Retention};
use site::{Site, id, sample, scope, stamp};

fn telemetry(life: u8) -> StreamKey {
    StreamKey {
        id: id(Lane::UpData),
        incarnation: Incarnation([life; 16]),
    }
}

#[test]
fn the_cloud_notes_what_it_gives_up_of_every_life_of_a_node() {
    let policy = Policy {
        keeper: Keeper::Cloud,
        ..Policy::default()
    };
    let mut site = Site::new(policy.clone());
    let mut gone = 0;
    let mut ends = std::collections::BTreeMap::new();
    let mut n = 0;
    for (start, life) in [3, 3, 5, 5].into_iter().enumerate() {
        let Ok(log) = site.open(start as u64 + 1) else {
            panic!("opens")
        };
        let mut retention = Retention::new(policy.clone());
        let key = telemetry(life);
        let mut writer = match log.durable(&key) {
            Some(mark) => FrameWriter::resume(key.clone(), mark),
            None => FrameWriter::new(key.clone()),
        };
        for _ in 0..60 {
            n += 1;
            let mut payload = Vec::new();
            push_record(&mut payload, &sample(n));
            let frame = writer.frame(1, &payload).unwrap();
            ends.insert(life, frame.last_seq().0);
            log.append_frame_blocking(frame).unwrap();
            let archived = |key: &StreamKey| log.durable(key).map_or(Seq::ZERO, |mark| mark.position.seq);
            while let Outcome::GaveUp(_) = retention.step(&log, &archived, stamp(n)).unwrap() {
                gone += 1;
            }
        }
        log.close().unwrap();
    }
    assert!(gone > 2, "{gone}");
    let Ok(log) = site.open(9) else { panic!("opens") };
    let mut state = State::new();
    fold_all(&log, &mut state).unwrap();
    let noted = view::given_up(&state, &scope()).unwrap();
    assert!(noted.len() >= 2, "one entry for each life: {noted:?}");
    for (life, end) in ends {
        let key = telemetry(life);
        let mut missing: BTreeSet<u64> = (1..=end).collect();
        let first = log.streams().into_iter().find(|info| info.key == key);
        let first = first.map_or(end + 1, |info| info.first_seq.0);
        missing.retain(|seq| *seq < first);
        for (name, gap) in noted
            .iter()
            .filter(|(name, _)| name.contains(&key.incarnation.to_string()))
        {
            assert_eq!(
                (gap.content.reason.as_str(), gap.content.scope.as_str()),
                ("DiskLimit", "edge-1"),
                "{name}"
            );
            for seq in gap.content.first_seq..=gap.content.last_seq {
                assert!(missing.remove(&seq), "{name}: {seq} is held, or noted twice");
            }
        }
        assert!(missing.is_empty(), "gone and not noted: {missing:?}");
    }
    // The node's own gaps are the node's to tell.
    assert!(view::gaps(&state, &scope()).unwrap().is_empty());
}
