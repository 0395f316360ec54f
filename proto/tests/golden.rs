//! Frames as released versions wrote them. They are on disks: they are read the same for ever. Never change a fixture.

#![allow(clippy::unwrap_used, reason = "a test")]

use bytes::Bytes;
use ledge_proto::frame::{Codec, DictionaryId, Frame, FrameWriter, push_record};
use ledge_proto::ids::{Incarnation, Lane, Scope, StreamId, StreamKey};
use ledge_proto::record::Payload;
use ledge_proto::v1;

const FIXTURES: [(&str, Codec, u32, &str); 3] = [
    ("raw", Codec::Raw, 2, include_str!("fixtures/frame-raw.hex")),
    ("zstd", Codec::Zstd, 80, include_str!("fixtures/frame-zstd.hex")),
    (
        "dictionary-v1",
        Codec::ZstdDictionary,
        3,
        include_str!("fixtures/frame-dictionary-v1.hex"),
    ),
];

fn key() -> StreamKey {
    StreamKey {
        id: StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpData),
        incarnation: Incarnation([7; 16]),
    }
}

fn records(count: u32) -> Vec<v1::Record> {
    (0..count)
        .map(|n| {
            let value = v1::value::Value::Double(20.0 + f64::from(n) / 4.0);
            let sample = v1::Sample {
                value: Some(v1::Value { value: Some(value) }),
            };
            let (kind, payload) = Payload::Sample(sample).encode();
            v1::Record {
                kind,
                key: format!("default/pump-{}/temperature", n % 7),
                wall_us: 1_767_225_600_000_000 + i64::from(n) * 1_000_000,
                clock: 1,
                mono_us: 5_000_000 + u64::from(n) * 1_000_000,
                boot: 2,
                payload: payload.into(),
                ..Default::default()
            }
        })
        .collect()
}

/// The first frame of the stream, as it is written today. The fixtures were made by it.
fn written(codec: Codec, count: u32) -> Frame {
    let dictionary = (codec == Codec::ZstdDictionary).then_some(DictionaryId::V1);
    let mut payload = Vec::new();
    for record in records(count) {
        push_record(&mut payload, &record);
    }
    FrameWriter::new(key())
        .with_dictionary(dictionary)
        .frame(count, &payload)
        .unwrap()
}

#[test]
fn frames_of_every_codec_are_read_as_they_were_written() {
    for (name, codec, count, hex) in FIXTURES {
        let bytes: String = hex.split_whitespace().collect();
        let frame = Frame::parse(Bytes::from(hex::decode(bytes).unwrap())).unwrap();
        assert_eq!((frame.codec(), frame.count()), (codec, count), "{name}");
        assert_eq!(frame.key(), &key(), "{name}");
        frame.follows(key().genesis_chain()).unwrap();
        assert_eq!(written(codec, count).codec(), codec, "{name}");
        let read: Vec<_> = frame.records().unwrap().map(|record| record.unwrap().1).collect();
        assert_eq!(read, records(count), "{name}");
    }
}

/// A raw frame depends on nothing but the format; what zstd makes may change with its version.
#[test]
fn a_raw_frame_is_written_as_it_was() {
    let (_, codec, count, hex) = FIXTURES[0];
    let now = hex::encode(written(codec, count).bytes());
    assert_eq!(now, hex.split_whitespace().collect::<String>());
}
