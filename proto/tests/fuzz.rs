//! Fuzz targets of every decoder that reads bytes from a peer or a disk. `cargo test` replays the corpus in `__fuzz__/`
//! and adds random inputs; `cargo bolero test -p ledge-proto --test fuzz NAME` (cargo-bolero) runs one with coverage for
//! as long as wanted. `LEDGE_WRITE_CORPUS=1 cargo test -p ledge-proto --test fuzz corpus` writes the corpus again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod seeds;
mod world;

use bytes::Bytes;
use ledge_proto::checksum::crc32c_of;
use ledge_proto::fold::{FoldError, Read, State, Table, snapshot, view};
use ledge_proto::frame::{DictionaryId, Frame, FrameWriter};
use ledge_proto::ids::{Incarnation, Lane, Position, StreamId, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::session::items::{Item, ItemError, ItemReader, frame_prefix, part_prefix};
use ledge_proto::session::wire;
use ledge_proto::v1::snapshot::Purpose;
use ledge_proto::{limits, v1};
use prost::Message as _;

/// Name, what is done with an input, inputs that get somewhere.
type Target = (&'static str, fn(&[u8]), fn() -> Vec<(String, Vec<u8>)>);

const TARGETS: [Target; 10] = [
    ("frame", check_frame, seeds::frames),
    (
        "frame_of_arbitrary_payload",
        check_frame_of_payload,
        seeds::frame_payloads,
    ),
    (
        "frame_of_arbitrary_compressed_bytes",
        check_compressed,
        seeds::compressed,
    ),
    ("lane_items", check_lane_items, seeds::lane_items),
    ("control_message", check_control_message, seeds::control_messages),
    ("record_payload", check_record_payload, seeds::record_payloads),
    (
        "session_of_arbitrary_messages",
        check_session,
        seeds::conversations,
    ),
    ("snapshot_parts", check_snapshot_parts, seeds::snapshot_parts),
    (
        "snapshot_entries",
        check_snapshot_entries,
        seeds::snapshot_entries,
    ),
    ("store_key", check_store_key, seeds::store_keys),
];

/// Runs a target on random input, after the corpus.
macro_rules! fuzz {
    ($($(#[$doc:meta])* $name:ident: $check:ident,)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                bolero::check!().for_each($check);
            }
        )*
    };
}

fuzz! {
    frame: check_frame,
    frame_of_arbitrary_payload: check_frame_of_payload,
    frame_of_arbitrary_compressed_bytes: check_compressed,
    lane_items: check_lane_items,
    control_message: check_control_message,
    record_payload: check_record_payload,
    session_of_arbitrary_messages: check_session,
    snapshot_parts: check_snapshot_parts,
    snapshot_entries: check_snapshot_entries,
    store_key: check_store_key,
}

/// Every target's corpus holds what `seeds` makes of today's formats; all of it, and what else was put there, is tried
/// here, however short a time the targets themselves are given.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a corpus is files, and is written on demand"
)]
fn corpus() {
    let write = std::env::var_os("LEDGE_WRITE_CORPUS").is_some();
    for (name, check, seeds) in TARGETS {
        let folder = format!("{}/tests/__fuzz__/{name}/corpus", env!("CARGO_MANIFEST_DIR"));
        if write {
            std::fs::create_dir_all(&folder).unwrap();
        }
        for (seed, bytes) in seeds() {
            let path = format!("{folder}/{seed}");
            if write {
                std::fs::write(&path, &bytes).unwrap();
            }
            assert!(
                std::fs::read(&path).is_ok_and(|there| there == bytes),
                "{path} is not what this version writes: run it with LEDGE_WRITE_CORPUS=1"
            );
        }
        for file in std::fs::read_dir(&folder).unwrap() {
            check(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}

/// Next to every seed: cut off at any length, and with any byte changed. Conversations are long, and not all of theirs.
#[test]
fn next_to_seeds() {
    for (name, check, seeds) in TARGETS {
        let step = if name == "session_of_arbitrary_messages" {
            61
        } else {
            1
        };
        for (_, bytes) in seeds() {
            for at in (0..bytes.len()).step_by(step) {
                check(&bytes[..at]);
                let mut changed = bytes.clone();
                changed[at] ^= [0x01, 0x80, 0xff][at % 3];
                check(&changed);
            }
        }
    }
}

/// What the seeds are there for: they reach the end of the decoders.
#[test]
fn seeds_get_somewhere() {
    let reach = |seeds: Vec<(String, Vec<u8>)>, reached: &dyn Fn(&[u8]) -> bool| {
        seeds.iter().filter(|(_, bytes)| reached(bytes)).count()
    };
    let folds = |bytes: &[u8]| {
        Frame::parse(Bytes::copy_from_slice(bytes))
            .is_ok_and(|frame| State::new().apply_frame(&frame).is_ok())
    };
    assert!(reach(seeds::frames(), &folds) >= 4);
    assert!(reach(seeds::control_messages(), &|bytes| wire::decode(bytes).is_ok()) >= 9);
    assert!(
        reach(seeds::snapshot_parts(), &|bytes| loaded(&parts_of(bytes))
            .is_some())
            >= 3
    );
    assert!(
        reach(seeds::snapshot_entries(), &|bytes| loaded(&[part_of(bytes)])
            .is_some())
            >= 3
    );
    assert!(
        reach(seeds::store_keys(), &|bytes| Table::parse_store_key(bytes)
            .is_some())
            >= 3
    );
}

/// Whatever parses as a frame stays within its limits, and folding it does not panic. The same with its checksum mended.
fn check_frame(bytes: &[u8]) {
    check_frame_as_it_is(bytes);
    if let Some(mended) = mended(bytes) {
        check_frame_as_it_is(&mended);
    }
}

fn check_frame_as_it_is(bytes: &[u8]) {
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

/// `bytes` with the checksum that a frame of them has.
fn mended(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes;
    let header = prost::encoding::decode_varint(&mut rest).ok()?;
    let payload_at = bytes.len() - rest.len() + usize::try_from(header).ok().filter(|n| *n <= rest.len())?;
    let crc_at = payload_at.checked_sub(4)?;
    let mut out = bytes.to_vec();
    *out.get_mut(crc_at.checked_sub(1)?)? = 15 << 3 | 5;
    let crc = crc32c_of(&[&out[..crc_at - 1], &out[payload_at..]]);
    out[crc_at..payload_at].copy_from_slice(&crc.to_le_bytes());
    Some(out)
}

/// As `frame`, past the checksum: a valid frame of any lane around arbitrary records. Two bytes say which lane, and how
/// many records.
fn check_frame_of_payload(bytes: &[u8]) {
    let Some((&[lane, count], payload)) = bytes.split_first_chunk() else {
        return;
    };
    let lane = Lane::ALL[usize::from(lane) % Lane::ALL.len()];
    let id = StreamId::new(seeds::scope_of(lane), lane);
    let mut writer = FrameWriter::new(StreamKey {
        id,
        incarnation: Incarnation([1; 16]),
    });
    if let Ok(frame) = writer.frame(u32::from(count), payload) {
        assert_eq!(&frame.payload().expect("what was compressed")[..], payload);
        check_frame_as_it_is(frame.bytes());
    }
}

/// As `frame`, with a header that is in order: whatever bytes are decompressed, with and without a dictionary. Three bytes
/// say how many records, and how long they are.
fn check_compressed(bytes: &[u8]) {
    let Some((&[count, high, low], stored)) = bytes.split_first_chunk() else {
        return;
    };
    for (codec, dict_id) in [(1, 0), (2, DictionaryId::V1.as_wire()), (2, 77)] {
        let header = v1::FrameHeader {
            lane: Lane::UpData.as_wire(),
            incarnation: Bytes::from_static(&[1; 16]),
            epoch: 1,
            first_seq: 1,
            count: 1 + u32::from(count),
            raw_len: u32::from(high) << 8 | u32::from(low),
            codec,
            dict_id,
            ..Default::default()
        };
        let frame = seeds::assemble(&header, stored);
        Frame::parse(Bytes::from(frame.clone())).expect("the header is in order");
        check_frame_as_it_is(&frame);
    }
}

/// Items come out the same, however they are cut into pieces, and written again they are the same bytes. The first byte
/// says how long the pieces are.
fn check_lane_items(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else {
        return;
    };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| -> (Vec<Item>, Result<(), ItemError>) {
        let (mut items, mut reader) = (Vec::new(), ItemReader::default());
        for piece in pieces {
            let mut piece = Bytes::copy_from_slice(piece);
            while !piece.is_empty() {
                match reader.take(&mut piece) {
                    Ok(item) => items.extend(item),
                    Err(err) => return (items, Err(err)),
                }
            }
        }
        (items, reader.end())
    };
    let (items, ended) = read(&mut bytes.chunks(usize::from(piece) + 1));
    assert_eq!((items.clone(), ended), read(&mut [bytes].into_iter()));
    let mut at = 0;
    for item in items {
        match item {
            Item::Frame(frame) => {
                assert_eq!(bytes[at..at + 4], frame_prefix(frame.len()).unwrap());
                at += 4 + frame.len();
                check_frame(&frame);
            }
            Item::Snapshot(part, len) => {
                assert_eq!(bytes[at..at + 4], part_prefix(len - 4).unwrap());
                at += len;
                snapshot::mark_of(&part).ok();
            }
        }
    }
}

fn check_control_message(bytes: &[u8]) {
    if let Ok(message) = wire::decode(bytes) {
        let again = wire::encode(message.clone()).expect("what was decoded is within the limit");
        assert_eq!(wire::decode(&again[4..]), Ok(message));
    }
}

fn check_record_payload(bytes: &[u8]) {
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
}

/// Control messages of any content, to a session in any phase: no panic, and whatever is answered can be sent. Each is
/// preceded by two bytes that say how long it is, at most 1023.
fn check_session(bytes: &[u8]) {
    let (mut edge, mut cloud) = (world::Edge::new(2), world::Log::default());
    edge.start(1);
    let mut link = world::Link::dial(&edge, &cloud, 1);
    link.begin(&mut edge, &mut cloud);
    // Steps of the real exchange, and messages of the input in between.
    for message in seeds::pieces(bytes).take(16) {
        if let Ok(message) = wire::decode(message) {
            link.inject(world::End::Cloud, message.clone());
            link.inject(world::End::Edge, message);
        }
        for step in link.steps(&edge, &cloud) {
            link.step(step, &mut edge, &mut cloud);
        }
    }
    for sent in link.sent {
        wire::encode(sent).expect("what is sent is within the limit");
    }
}

/// Parts of a snapshot, each preceded by two bytes that say how long it is.
fn parts_of(bytes: &[u8]) -> Vec<v1::Snapshot> {
    let parts = seeds::pieces(bytes).take(8);
    parts.filter_map(|part| v1::Snapshot::decode(part).ok()).collect()
}

/// A snapshot of one part with these entries; a byte before them says of which lane.
fn part_of(bytes: &[u8]) -> v1::Snapshot {
    let (lane, entries) = bytes.split_first().unwrap_or((&0, &[]));
    seeds::part(Lane::ALL[usize::from(*lane) % Lane::ALL.len()], entries)
}

fn loaded(parts: &[v1::Snapshot]) -> Option<State> {
    let mut state = State::new();
    match snapshot::load(&mut state, parts) {
        Ok(()) => Some(state),
        Err(err) => {
            let refused = matches!(err, FoldError::Snapshot(_));
            assert!(
                !refused || state.is_empty(),
                "one that was refused changes nothing"
            );
            None
        }
    }
}

/// A snapshot from anybody: refused, or loaded; then what is there can be looked at, folded on, and given on.
fn check_snapshot(parts: &[v1::Snapshot]) {
    let Some(mut state) = loaded(parts) else { return };
    let key = snapshot::key_of(&parts[0]).unwrap();
    let scope = &key.id.scope;
    view::devices(&state, scope).ok();
    view::node(&state, scope).ok();
    view::gaps(&state, scope).ok();
    view::given_up(&state, scope).ok();
    view::node_fence(&state, scope).ok();
    view::edge_fence(&state, scope).ok();
    state.hash(scope);
    state.scopes();
    if let Ok(Some(again)) = snapshot::extract(&state, &key, Purpose::Base) {
        assert_eq!(loaded(&again).as_ref(), Some(&state));
    }
    snapshot::changes(&state, &key, Position::ZERO).ok();
    if let Ok(Some(mark)) = snapshot::folded_mark(&state, &key) {
        let mut payload = Vec::new();
        ledge_proto::frame::push_record(&mut payload, &seeds::sample_record());
        if let Some(next) = mark.position.seq.0.checked_add(1)
            && next < u64::MAX
        {
            let frame = FrameWriter::resume(key, mark).frame(1, &payload).unwrap();
            state.apply_frame(&frame).ok();
        }
    }
}

fn check_snapshot_parts(bytes: &[u8]) {
    check_snapshot(&parts_of(bytes));
}

/// As `snapshot_parts`, past the compression: arbitrary entries.
fn check_snapshot_entries(bytes: &[u8]) {
    check_snapshot(&[part_of(bytes)]);
}

/// Whatever is taken for a key of a store is one, and is told the same again.
fn check_store_key(bytes: &[u8]) {
    let Some((scope, table, key)) = Table::parse_store_key(bytes) else {
        return;
    };
    let again = table.store_key(&scope, key.as_bytes());
    assert_eq!(Table::parse_store_key(&again), Some((scope, table, key.clone())));
    if !key.contains(char::REPLACEMENT_CHARACTER) {
        assert_eq!(again, bytes);
    }
    assert!(State::new().get(bytes).unwrap().is_none());
}
