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

fn a_record() -> impl Strategy<Value = v1::Record> {
    let value = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..60),
        2 => (any::<u8>(), 0usize..200).prop_map(|(byte, len)| vec![byte; len]),
        1 => prop::collection::vec(any::<u8>(), 2_000..9_000),
    ];
    (0u32..40, "[a-z0-9/-]{0,40}", any::<i64>(), any::<u64>(), value).prop_map(
        |(kind, key, wall_us, mono_us, payload)| v1::Record {
            kind,
            key,
            wall_us,
            mono_us,
            payload: payload.into(),
            ..Default::default()
        },
    )
}

proptest! {
    #[test]
    fn every_way_to_compress_gives_the_records_back(
        records in prop_oneof![
            prop::collection::vec(a_record(), 1..16),
            prop::collection::vec(a_record(), 16..100),
            prop::collection::vec(Just(v1::Record::default()), 1..300),
        ],
        dictionary in prop_oneof![Just(Some(DictionaryId::V1)), Just(None), Just(Some(DictionaryId::of(b"other")))],
    ) {
        let mut writer = FrameWriter::new(key()).with_dictionary(dictionary);
        let frame = frame_of(&mut writer, &records);
        let plain: usize = records.iter().map(|record| record.encode_length_delimited_to_vec().len()).sum();
        prop_assert_eq!(frame.raw_len(), plain);
        prop_assert!(frame.bytes().len() - frame.payload_at <= plain, "compressing never makes it longer");
        let parsed = Frame::parse(frame.bytes().clone()).unwrap();
        parsed.follows(key().genesis_chain()).unwrap();
        parsed.check_dictionary().unwrap();
        prop_assert_eq!(parsed.dictionary(), frame.dictionary());
        let back: Vec<_> = parsed.records().unwrap().map(|r| r.unwrap().1).collect();
        prop_assert_eq!(back, records);
    }

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

fn samples(count: u64) -> Vec<v1::Record> {
    let value = v1::value::Value::Double(21.5);
    let sample = v1::Sample {
        value: Some(v1::Value { value: Some(value) }),
    };
    let sample = |n| v1::Record {
        key: format!("default/sensor-{n}/temperature"),
        wall_us: 1_767_225_600_000_000 + i64::try_from(n).unwrap(),
        ..record(n, sample.encode_to_vec())
    };
    (0..count).map(sample).collect()
}

#[test]
fn a_frame_of_few_records_is_compressed_with_the_dictionary_and_one_of_many_without() {
    let codec = |count, writer: FrameWriter| frame_of(&mut writer.clone(), &samples(count)).codec();
    let writer = FrameWriter::new(key());
    for count in [1, 2, 15, 16, 63] {
        assert_eq!(codec(count, writer.clone()), Codec::ZstdDictionary, "{count}");
    }
    assert_eq!(codec(64, writer.clone()), Codec::Zstd);
    let without = writer.with_dictionary(None);
    assert_eq!(codec(7, without.clone()), Codec::Raw);
    assert_eq!(codec(8, without), Codec::Zstd);
}

#[test]
fn one_sample_is_smaller_with_the_dictionary() {
    let writer = FrameWriter::new(key());
    let with = frame_of(&mut writer.clone(), &samples(1));
    let without = frame_of(&mut writer.with_dictionary(None), &samples(1));
    assert!(
        with.bytes().len() + 10 < without.bytes().len(),
        "{} and {} bytes",
        with.bytes().len(),
        without.bytes().len()
    );
}

#[test]
fn what_does_not_get_smaller_is_stored_raw() {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..500)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let mut writer = FrameWriter::new(key());
    assert_eq!(frame_of(&mut writer, &[record(0, noise)]).codec(), Codec::Raw);
}

/// A frame whose header names a dictionary that is not known here.
fn of_another_dictionary() -> Frame {
    FrameWriter::new(key())
        .assemble(
            1,
            40,
            Codec::ZstdDictionary,
            Some(DictionaryId::of(b"of a later version")),
            &[1, 2, 3],
        )
        .unwrap()
}

#[test]
fn a_frame_of_an_unknown_dictionary_can_be_kept_and_followed_but_not_read() {
    let frame = Frame::parse(of_another_dictionary().bytes().clone()).unwrap();
    frame.follows(key().genesis_chain()).unwrap();
    let id = DictionaryId::of(b"of a later version");
    let unknown = FrameError::UnknownDictionary { id };
    assert_eq!(frame.check_dictionary(), Err(unknown.clone()));
    assert_eq!(frame.payload(), Err(unknown.clone()));
    assert_eq!(frame.records().unwrap_err(), unknown);
    assert!(unknown.to_string().contains(&id.to_string()), "{unknown}");
}

#[test]
fn codec_and_dictionary_go_together() {
    let writer = FrameWriter::new(key());
    let wrong = [
        (Codec::ZstdDictionary, None),
        (Codec::Zstd, Some(DictionaryId::V1)),
        (Codec::Raw, Some(DictionaryId::V1)),
    ];
    for (codec, dictionary) in wrong {
        let frame = writer.assemble(1, 3, codec, dictionary, &[1, 2, 3]).unwrap();
        let refused = Frame::parse(frame.bytes().clone());
        assert!(
            matches!(refused, Err(FrameError::Malformed(_))),
            "{codec:?} {refused:?}"
        );
    }
}
