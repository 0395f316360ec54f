use proptest::prelude::*;

use super::*;
use crate::frame::{FrameWriter, push_record};
use crate::ids::{Incarnation, StreamKey};
use crate::record::Payload;

fn scope() -> Scope {
    Scope::node("edge-1").unwrap()
}

fn writer(lane: Lane, incarnation: u8) -> FrameWriter {
    FrameWriter::new(StreamKey {
        id: StreamId::new(scope(), lane),
        incarnation: Incarnation([incarnation; 16]),
    })
}

fn frame(writer: &mut FrameWriter, records: &[v1::Record]) -> Frame {
    let mut payload = Vec::new();
    for record in records {
        push_record(&mut payload, record);
    }
    writer
        .frame(u32::try_from(records.len()).unwrap(), &payload)
        .unwrap()
}

fn double(value: f64) -> Option<v1::Value> {
    Some(v1::Value {
        value: Some(v1::value::Value::Double(value)),
    })
}

fn sample(key: &str, mono_us: u64, value: f64) -> v1::Record {
    let (kind, payload) = Payload::Sample(v1::Sample { value: double(value) }).encode();
    v1::Record {
        kind,
        key: key.into(),
        mono_us,
        payload: payload.into(),
        ..Default::default()
    }
}

fn reported(key: &str, value: f64) -> v1::Record {
    let (kind, payload) = Payload::TwinReported(v1::TwinReported { value: double(value) }).encode();
    v1::Record {
        kind,
        key: key.into(),
        payload: payload.into(),
        ..Default::default()
    }
}

fn desired(key: &str, value: f64) -> v1::Record {
    let (kind, payload) = Payload::TwinDesired(v1::TwinDesired { value: double(value) }).encode();
    v1::Record {
        kind,
        key: key.into(),
        payload: payload.into(),
        ..Default::default()
    }
}

#[test]
fn late_data_never_moves_latest_backwards() {
    let mut state = State::new();
    let mut data = writer(Lane::UpData, 1);
    state
        .apply_frame(&frame(
            &mut data,
            &[sample("d/p/t", 20, 2.0), sample("d/p/t", 10, 1.0)],
        ))
        .unwrap();
    let twin = &view::devices(&state, &scope()).unwrap()["d/p"].twins["t"];
    let latest = twin.sample.as_ref().unwrap();
    assert_eq!((latest.content.value.clone(), latest.count), (double(2.0), 2));
}

#[test]
fn a_new_incarnation_replaces_what_the_old_one_said_on_its_lane_only() {
    let mut state = State::new();
    state
        .apply_frame(&frame(&mut writer(Lane::UpState, 1), &[reported("d/p/t", 1.0)]))
        .unwrap();
    state
        .apply_frame(&frame(&mut writer(Lane::Down, 1), &[desired("d/p/t", 5.0)]))
        .unwrap();
    state
        .apply_frame(&frame(&mut writer(Lane::UpState, 2), &[reported("d/p/u", 2.0)]))
        .unwrap();
    let twins = &view::devices(&state, &scope()).unwrap()["d/p"].twins;
    assert_eq!(twins["t"].reported, None);
    assert!(twins["t"].desired.is_some());
    assert!(twins["u"].reported.is_some());
}

#[test]
fn missing_records_are_an_error_and_repeated_ones_are_not() {
    let mut state = State::new();
    let mut lane = writer(Lane::UpState, 1);
    let first = frame(&mut lane, &[reported("d/p/t", 1.0)]);
    let second = frame(&mut lane, &[reported("d/p/t", 2.0)]);
    let third = frame(&mut lane, &[reported("d/p/t", 3.0)]);
    state.apply_frame(&first).unwrap();
    let gap = state.apply_frame(&third).unwrap_err();
    assert!(
        matches!(
            gap,
            FoldError::Gap {
                folded: Seq(1),
                found: Seq(3),
                ..
            }
        ),
        "{gap}"
    );
    state.apply_frame(&second).unwrap();
    let before = state.clone();
    state.apply_frame(&first).unwrap();
    state.apply_frame(&second).unwrap();
    assert_eq!(state, before);
}

proptest! {
    /// Cloud and edge see the lanes interleaved differently; the state must not tell.
    #[test]
    fn interleaving_of_lanes_makes_no_difference(
        ups in prop::collection::vec((0u8..4, -5.0f64..5.0), 1..20),
        downs in prop::collection::vec((0u8..4, -5.0f64..5.0), 1..20),
        order in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (mut up, mut down) = (writer(Lane::UpState, 1), writer(Lane::Down, 2));
        let mut ups: Vec<_> = ups.iter().map(|(k, v)| frame(&mut up, &[reported(&format!("d/{k}/t"), *v)])).collect();
        let mut downs: Vec<_> =
            downs.iter().map(|(k, v)| frame(&mut down, &[desired(&format!("d/{k}/t"), *v)])).collect();
        let mut one = State::new();
        for f in ups.iter().chain(&downs) {
            one.apply_frame(f).unwrap();
        }
        let mut other = State::new();
        for take_up in order {
            let from = if take_up { &mut ups } else { &mut downs };
            if !from.is_empty() {
                other.apply_frame(&from.remove(0)).unwrap();
            }
        }
        for f in ups.iter().chain(&downs) {
            other.apply_frame(f).unwrap();
        }
        prop_assert_eq!(one.hash(&scope()), other.hash(&scope()));
    }
}

#[test]
fn a_new_epoch_is_folded_although_its_numbers_were_there_before() {
    let mut lost = writer(Lane::UpState, 1);
    let mut state = State::new();
    state
        .apply_frame(&frame(&mut lost, &[reported("d/p/t", 1.0)]))
        .unwrap();
    // History up to record 1 stands; records 2 and 3 are lost, and the stream goes on from 1 in epoch 2.
    let common = snapshot::extract(&state, &lost.key().clone(), v1::snapshot::Purpose::Rebase)
        .unwrap()
        .unwrap();
    let base = snapshot::mark_of(&common[0]).unwrap();
    let old = [2.0, 3.0].map(|value| frame(&mut lost, &[reported("d/p/t", value)]));
    for frame in &old {
        state.apply_frame(frame).unwrap();
    }
    let mark = crate::ids::Mark {
        position: Position {
            epoch: crate::ids::Epoch(2),
            ..base.position
        },
        ..base
    };
    let mut again = FrameWriter::resume(lost.key().clone(), mark);
    let next = frame(&mut again, &[reported("d/p/t", 9.0)]);
    let err = state.apply_frame(&next).unwrap_err();
    assert!(
        matches!(err, FoldError::Gap { .. }),
        "not without its beginning: {err}"
    );
    let begun: Vec<_> = common
        .into_iter()
        .map(|part| v1::Snapshot { epoch: 2, ..part })
        .collect();
    snapshot::load(&mut state, &begun).unwrap();
    state.apply_frame(&next).unwrap();
    // Frames of the epoch before no longer stand.
    let folded = state.clone();
    for frame in &old {
        state.apply_frame(frame).unwrap();
    }
    assert_eq!(state, folded);
    let twin = &view::devices(&state, &scope()).unwrap()["d/p"].twins["t"];
    assert_eq!(twin.reported.as_ref().unwrap().content.value, double(9.0));
}

#[test]
fn a_summary_changes_nothing_since_its_samples_were_folded() {
    let summary = |mono_us, count, value| {
        let (kind, payload) = Payload::SampleSummary(v1::SampleSummary {
            count,
            last: double(value),
            method: v1::Replacement::MinuteAverages.into(),
            ..Default::default()
        })
        .encode();
        v1::Record {
            kind,
            key: "d/p/t".into(),
            mono_us,
            payload: payload.into(),
            ..Default::default()
        }
    };
    let mut state = State::new();
    let mut data = writer(Lane::UpData, 1);
    let records = [
        summary(10, 60, 1.5),
        sample("d/p/t", 20, 2.0),
        summary(15, 5, 1.7),
    ];
    state.apply_frame(&frame(&mut data, &records)).unwrap();
    let twin = &view::devices(&state, &scope()).unwrap()["d/p"].twins["t"];
    let latest = twin.sample.as_ref().unwrap();
    assert_eq!((latest.content.value.clone(), latest.count), (double(2.0), 1));
}

#[test]
fn a_run_counts_as_its_readings_and_is_a_sample_to_readers() {
    let run = |mono_us, count, value| {
        let (kind, payload) = Payload::SampleRun(v1::SampleRun {
            value: double(value),
            count,
            span_us: 9,
            longest_us: 1,
        })
        .encode();
        v1::Record {
            kind,
            payload: payload.into(),
            ..sample("d/p/t", mono_us, value)
        }
    };
    let garbage = v1::Record {
        payload: vec![0xff; 5].into(),
        ..run(50, 7, 9.0)
    };
    let (mut state, mut data) = (State::new(), writer(Lane::UpData, 1));
    let records = [
        sample("d/p/t", 10, 2.0),
        run(20, 10, 2.0),
        sample("d/p/t", 30, 3.0),
        // It comes late: it counts, and the latest value stays.
        run(15, 5, 1.0),
        garbage,
    ];
    state.apply_frame(&frame(&mut data, &records)).unwrap();
    let twin = &view::devices(&state, &scope()).unwrap()["d/p"].twins["t"];
    let latest = twin.sample.as_ref().unwrap();
    assert_eq!((latest.content.value.clone(), latest.count), (double(3.0), 17));
    assert_eq!(latest.mono_us, 30);
    let ended = run(40, u64::MAX, 3.0);
    state.apply_frame(&frame(&mut data, &[ended])).unwrap();
    let twin = &view::devices(&state, &scope()).unwrap()["d/p"].twins["t"];
    let latest = twin.sample.as_ref().unwrap();
    assert_eq!((latest.mono_us, latest.count), (40, u64::MAX), "no overflow");
}

#[test]
fn fences_are_folded_and_are_no_part_of_the_hash() {
    use crate::fence::FenceUpdate;
    let mut state = State::new();
    let hash = state.hash(&scope());
    let fence = v1::NodeFence {
        epoch: 3,
        ..Default::default()
    };
    let update = FenceUpdate::Node(Box::new(fence.clone()));
    assert_eq!(update.stream(&scope()), StreamId::new(scope(), Lane::Local));
    let mut local = writer(Lane::Local, 1);
    state.apply_frame(&frame(&mut local, &[update.record()])).unwrap();
    let edge = FenceUpdate::Edge(v1::EdgeFence {
        max_cloud_epoch_seen: 4,
        ..Default::default()
    });
    state.apply_frame(&frame(&mut local, &[edge.record()])).unwrap();
    assert_eq!(
        view::node_fence(&state, &scope()).unwrap().unwrap().content,
        fence
    );
    assert_eq!(
        view::edge_fence(&state, &scope())
            .unwrap()
            .unwrap()
            .content
            .max_cloud_epoch_seen,
        4
    );
    assert_eq!(view::cloud_fence(&state).unwrap(), None);
    assert_eq!(state.hash(&scope()), hash);
}
