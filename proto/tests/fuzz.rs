//! Fuzz targets of every decoder that reads bytes from a peer or a disk. `cargo test` runs them briefly with random
//! input; `cargo bolero test -p ledge-proto --test fuzz NAME` (cargo-bolero) runs one with coverage for as long as wanted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use bytes::Bytes;
use ledge_proto::checksum::crc32c_of;
use ledge_proto::fold::State;
use ledge_proto::frame::{DictionaryId, Frame, FrameWriter};
use ledge_proto::ids::{Incarnation, Lane, Scope, StreamId, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::session::wire;
use ledge_proto::{limits, v1};
use prost::Message as _;

/// Whatever parses as a frame stays within its limits, and folding it does not panic.
fn check_frame(bytes: &[u8]) {
    let Ok(frame) = Frame::parse(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    assert_eq!(&frame.bytes()[..], bytes, "a frame is its bytes");
    assert!(frame.raw_len() <= limits::FRAME_MAX_RAW_BYTES);
    if let Ok(records) = frame.records() {
        assert!(records.count() <= frame.count() as usize);
    }
    State::new().apply_frame(&frame).ok();
}

#[test]
fn frame() {
    bolero::check!().for_each(check_frame);
}

/// As `frame`, past the checksum: a valid frame around arbitrary records.
#[test]
fn frame_of_arbitrary_payload() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let id = StreamId::new(Scope::cluster(), Lane::Down);
        let mut writer = FrameWriter::new(StreamKey {
            id,
            incarnation: Incarnation([1; 16]),
        });
        let count = bytes.first().copied().unwrap_or(1).max(1);
        if let Ok(frame) = writer.frame(u32::from(count), bytes) {
            assert_eq!(&frame.payload().expect("what was compressed")[..], bytes);
            check_frame(frame.bytes());
        }
    });
}

/// As `frame`, with a header that is in order: whatever bytes are decompressed, with and without a dictionary.
#[test]
fn frame_of_arbitrary_compressed_bytes() {
    bolero::check!().for_each(|bytes: &[u8]| {
        for (codec, dict_id) in [(1, 0), (2, DictionaryId::V1.as_wire()), (2, 77)] {
            let header = v1::FrameHeader {
                lane: Lane::UpData.as_wire(),
                incarnation: Bytes::from_static(&[1; 16]),
                epoch: 1,
                first_seq: 1,
                count: 1 + u32::from(bytes.first().copied().unwrap_or(0)),
                raw_len: bytes
                    .get(1..3)
                    .map_or(9, |len| u32::from(len[0]) << 8 | u32::from(len[1])),
                codec,
                dict_id,
                ..Default::default()
            };
            let mut frame = header.encode_to_vec();
            frame.extend_from_slice(&[14 << 3 | 2, 16]);
            frame.extend_from_slice(&[0; 16]);
            let mut frame = [&encode_length(frame.len() + 5)[..], &frame].concat();
            let crc = crc32c_of(&[&frame, bytes]);
            frame.push(15 << 3 | 5);
            frame.extend_from_slice(&crc.to_le_bytes());
            frame.extend_from_slice(bytes);
            Frame::parse(Bytes::from(frame.clone())).expect("the header is in order");
            check_frame(&frame);
        }
    });
}

fn encode_length(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(len as u64, &mut out);
    out
}

#[test]
fn control_message() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(message) = wire::decode(bytes) {
            let again = wire::encode(message.clone()).expect("what was decoded is within the limit");
            assert_eq!(wire::decode(&again[4..]), Ok(message));
        }
    });
}

#[test]
fn record_payload() {
    bolero::check!().for_each(|bytes: &[u8]| {
        for kind in RecordKind::ALL {
            let record = v1::Record {
                kind: kind.as_wire(),
                payload: Bytes::copy_from_slice(bytes),
                ..Default::default()
            };
            if let Ok(payload) = Payload::decode(&record) {
                let (number, encoded) = payload.encode();
                let again = v1::Record {
                    kind: number,
                    payload: encoded.into(),
                    ..Default::default()
                };
                assert!(Payload::decode(&again).is_ok());
            }
        }
    });
}

/// Control messages of any content, to a session in any phase: no panic, and whatever is answered can be sent.
#[test]
fn session_of_arbitrary_messages() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let (mut edge, mut cloud) = (world::Edge::new(2), world::Log::default());
        edge.start(1);
        let mut link = world::Link::dial(&edge, &cloud, 1);
        link.begin(&mut edge, &mut cloud);
        // Steps of the real exchange, and messages of the input in between.
        for piece in bytes.split(|byte| *byte == 0xff).take(16) {
            if let Ok(message) = wire::decode(piece) {
                link.inject(world::End::Cloud, message.clone());
                link.inject(world::End::Edge, message);
            }
            for step in link.steps(&edge, &cloud) {
                link.step(step, &mut edge, &mut cloud);
            }
        }
    });
}
