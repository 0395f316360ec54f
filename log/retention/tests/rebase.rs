//! Streams that went back under a later epoch are given up like any other.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod site;

use ledge_proto::fold::snapshot::extract;
use ledge_proto::fold::{State, folded_stream};
use ledge_proto::frame::{Frame, FrameWriter, push_record};
use ledge_proto::ids::{Epoch, Incarnation, Lane, Mark, Position, StreamKey};
use ledge_proto::v1;
use ledge_proto::v1::snapshot::Purpose;
use ledge_retention::replay::fold_all;
use ledge_retention::{Outcome, Policy, Retention};
use site::{Site, desired, id, reported};

fn key() -> StreamKey {
    StreamKey {
        id: id(Lane::Down),
        incarnation: Incarnation([9; 16]),
    }
}

fn next(writer: &mut FrameWriter, n: u64) -> Frame {
    let mut payload = Vec::new();
    push_record(&mut payload, &desired(n));
    writer.frame(1, &payload).unwrap()
}

/// The cloud was put back: its stream goes on after record 5 under epoch 2, while this node had 8 of epoch 1, which it holds
/// no longer.
#[test]
fn a_stream_that_went_back_under_a_later_epoch_can_be_given_up() {
    let mut site = Site::new(Policy::default());
    let Ok(log) = site.open(1) else { panic!("opens") };
    let mut retention = Retention::new(Policy::default());
    let mut give_up = |log: &ledge_log::Log, want: u64| {
        let (mut n, mut gone) = (0, 0);
        while gone < want {
            n += 1;
            log.append_blocking(&id(Lane::UpState), vec![reported(n)])
                .unwrap();
            while let Outcome::GaveUp(_) = retention
                .step(log, &|_| ledge_proto::ids::Seq(0), site::stamp(n))
                .unwrap()
            {
                gone += 1;
            }
        }
    };
    let mut writer = FrameWriter::new(key());
    let mut at_five = State::new();
    for n in 1..=8 {
        let frame = next(&mut writer, n);
        if n <= 5 {
            at_five.apply_frame(&frame).unwrap();
        }
        log.append_frame_blocking(frame).unwrap();
    }
    // The base is at 8 of epoch 1.
    give_up(&log, 1);
    let mut rebase = extract(&at_five, &key(), Purpose::Rebase).unwrap().unwrap();
    for part in &mut rebase {
        part.epoch = 2;
        part.superseded_after = Some(5);
    }
    log.append_snapshot_blocking(rebase).unwrap();
    let chain = folded_stream(&at_five, &key().id).unwrap().unwrap().chain;
    let mark = Mark {
        position: Position {
            epoch: Epoch(2),
            seq: ledge_proto::ids::Seq(5),
        },
        chain: ledge_proto::ids::Chain::from_slice(&chain).unwrap(),
    };
    let mut writer = FrameWriter::resume(key(), mark);
    let mut expected = at_five.clone();
    for n in 16..=17 {
        let frame = next(&mut writer, n);
        expected.apply_frame(&frame).unwrap();
        log.append_frame_blocking(frame).unwrap();
    }
    give_up(&log, 8);
    let base = log.bases().into_iter().find(|base| base.key == key()).unwrap();
    assert_eq!(base.mark.position.to_string(), "2:7");
    let mut folded = State::new();
    fold_all(&log, &mut folded).unwrap();
    let of = |state: &State| {
        let wanted = |part: &v1::Snapshot| (part.epoch, part.seq, part.entries.clone());
        let parts = extract(state, &key(), Purpose::Base).unwrap().unwrap();
        parts.iter().map(wanted).collect::<Vec<_>>()
    };
    assert_eq!(of(&folded), of(&expected));
}
