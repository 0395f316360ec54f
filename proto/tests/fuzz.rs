//! Fuzz targets of every decoder that reads bytes from a peer or a disk. `cargo test` runs them briefly with random
//! input; `cargo bolero test -p ledge-proto --test fuzz NAME` (cargo-bolero) runs one with coverage for as long as wanted.

use bytes::Bytes;
use ledge_proto::fold::State;
use ledge_proto::frame::{Frame, FrameWriter};
use ledge_proto::ids::{Incarnation, Lane, Scope, StreamId, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::session::wire;
use ledge_proto::{limits, v1};

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
            check_frame(frame.bytes());
        }
    });
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
