use proptest::prelude::*;

use super::*;
use crate::ids::Lane;

fn key() -> StreamKey {
    StreamKey {
        id: StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpData),
        incarnation: Incarnation([7; 16]),
    }
}

fn record(n: u64, payload: Vec<u8>) -> v1::Record {
    v1::Record {
        kind: 1,
        key: format!("default/pump/{n}"),
        wall_us: 1,
        payload: payload.into(),
        ..Default::default()
    }
}

fn frame_of(writer: &mut FrameWriter, records: &[v1::Record]) -> Frame {
    let mut payload = Vec::new();
    for record in records {
        push_record(&mut payload, record);
    }
    writer
        .frame(u32::try_from(records.len()).unwrap(), &payload)
        .unwrap()
}

proptest! {
    #[test]
    fn frames_round_trip(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..40)) {
        let records: Vec<_> = payloads.into_iter().enumerate().map(|(n, p)| record(n as u64, p)).collect();
        let mut writer = FrameWriter::new(key());
        let first = frame_of(&mut writer, &records);
        let second = frame_of(&mut writer, &records);
        let parsed = Frame::parse(second.bytes().clone()).unwrap();
        prop_assert_eq!(parsed.first_seq(), first.last_seq().next());
        parsed.follows(first.chain()).unwrap();
        first.follows(key().genesis_chain()).unwrap();
        prop_assert!(parsed.follows(key().genesis_chain()).is_err());
        let back: Vec<_> = parsed.records().unwrap().map(|r| r.unwrap().1).collect();
        prop_assert_eq!(back, records);
    }

    #[test]
    fn any_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8, count in 1usize..20) {
        let records: Vec<_> = (0..count).map(|n| record(n as u64, vec![3; 50])).collect();
        let frame = frame_of(&mut FrameWriter::new(key()), &records);
        let mut bytes = frame.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Frame::parse(bytes.into()).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(frame) = Frame::parse(bytes.into()) {
            let _ = frame.records().map(Iterator::count);
        }
    }
}

#[test]
fn a_truncated_frame_is_refused_at_every_length() {
    let frame = frame_of(&mut FrameWriter::new(key()), &[record(1, vec![1, 2, 3])]);
    for len in 0..frame.bytes().len() {
        assert!(Frame::parse(frame.bytes().slice(..len)).is_err(), "{len}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let mut writer = FrameWriter::new(key());
    let payload = vec![0; limits::FRAME_MAX_RAW_BYTES + 1];
    assert!(matches!(
        writer.frame(1, &payload),
        Err(FrameError::TooLarge { .. })
    ));
}

#[test]
fn an_oversized_record_is_refused_by_the_writer() {
    // Pseudo-random, so that compression does not bring it under the limit.
    let mut state = 1u32;
    let payload: Vec<u8> = (0..limits::FRAME_MAX_BYTES)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        })
        .collect();
    let mut writer = FrameWriter::new(key());
    let before = writer.next_seq();
    assert!(matches!(
        writer.frame(1, &payload),
        Err(FrameError::TooLarge { .. })
    ));
    assert_eq!(
        writer.next_seq(),
        before,
        "a refused frame takes no sequence number"
    );
}
