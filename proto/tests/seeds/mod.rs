//! Inputs of the fuzz targets that get somewhere: what is really written and said, and each field of it at its ends.

mod records;

use bytes::Bytes;
use ledge_proto::checksum::crc32c_of;
use ledge_proto::fold::{State, Table, snapshot};
use ledge_proto::frame::{DictionaryId, Frame, FrameWriter, push_record};
use ledge_proto::ids::{Incarnation, Lane, Scope, StreamId, StreamKey};
use ledge_proto::session::items::{frame_prefix, part_prefix};
use ledge_proto::session::wire;
use ledge_proto::v1;
use ledge_proto::v1::control_message::Message;
use ledge_proto::v1::snapshot::Purpose;
use prost::Message as _;

use crate::world;

pub(crate) use records::{record_payloads, sample_record};

type Seeds = Vec<(String, Vec<u8>)>;

fn named<const N: usize>(seeds: [(&str, Vec<u8>); N]) -> Seeds {
    seeds.map(|(name, bytes)| (name.to_owned(), bytes)).into()
}

fn node() -> Scope {
    Scope::node("edge-1").unwrap()
}

pub(crate) fn scope_of(lane: Lane) -> Scope {
    if lane == Lane::Api {
        Scope::cluster()
    } else {
        node()
    }
}

fn key(lane: Lane) -> StreamKey {
    StreamKey {
        id: StreamId::new(scope_of(lane), lane),
        incarnation: Incarnation([7; 16]),
    }
}

fn payload_of(records: &[v1::Record]) -> Vec<u8> {
    let mut payload = Vec::new();
    for record in records {
        push_record(&mut payload, record);
    }
    payload
}

fn frame(lane: Lane, records: &[v1::Record], dictionary: Option<DictionaryId>) -> Frame {
    let count = u32::try_from(records.len()).unwrap();
    FrameWriter::new(key(lane))
        .with_dictionary(dictionary)
        .frame(count, &payload_of(records))
        .unwrap()
}

/// A frame of any header around any payload, with the checksum it needs.
pub(crate) fn assemble(header: &v1::FrameHeader, stored: &[u8]) -> Vec<u8> {
    let mut rest = header.encode_to_vec();
    rest.extend_from_slice(&[14 << 3 | 2, 16]);
    rest.extend_from_slice(&[0; 16]);
    let mut frame = Vec::new();
    prost::encoding::encode_varint(rest.len() as u64 + 5, &mut frame);
    frame.extend_from_slice(&rest);
    let crc = crc32c_of(&[&frame, stored]);
    frame.push(15 << 3 | 5);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(stored);
    frame
}

/// A frame of every codec and lane, and headers with one field that is at its end, or wrong.
pub(crate) fn frames() -> Seeds {
    let samples = vec![sample_record(); 80];
    let mut seeds = named([
        ("raw", frame(Lane::UpData, &samples[..2], None).bytes().to_vec()),
        ("zstd", frame(Lane::UpData, &samples, None).bytes().to_vec()),
        (
            "dictionary",
            frame(Lane::UpData, &samples[..3], Some(DictionaryId::V1))
                .bytes()
                .to_vec(),
        ),
    ]);
    for lane in Lane::ALL {
        let frame = frame(lane, &records::of_lane(lane), Some(DictionaryId::V1));
        seeds.push((format!("lane-{lane}"), frame.bytes().to_vec()));
    }
    let payload = payload_of(&samples[..1]);
    let header = v1::FrameHeader {
        scope: "edge-1".to_owned(),
        lane: Lane::UpData.as_wire(),
        incarnation: Bytes::from_static(&[7; 16]),
        epoch: 1,
        first_seq: 1,
        count: 1,
        raw_len: u32::try_from(payload.len()).unwrap(),
        ..Default::default()
    };
    type Odd = (&'static str, fn(&mut v1::FrameHeader));
    let odd: [Odd; 15] = [
        ("scope-cluster", |header| header.scope.clear()),
        ("scope-long", |header| header.scope = "a".repeat(254)),
        ("scope-path", |header| header.scope = "../x".to_owned()),
        ("lane", |header| header.lane = 99),
        ("incarnation", |header| header.incarnation.truncate(15)),
        ("epoch-none", |header| header.epoch = 0),
        ("epoch-last", |header| header.epoch = u32::MAX),
        ("seq-none", |header| header.first_seq = 0),
        ("seq-last", |header| header.first_seq = u64::MAX),
        ("count-none", |header| header.count = 0),
        ("count-more", |header| header.count = 2),
        ("count-most", |header| header.count = u32::MAX),
        ("length-less", |header| header.raw_len -= 1),
        ("length-most", |header| header.raw_len = u32::MAX),
        ("codec", |header| header.codec = 3),
    ];
    for (name, change) in odd {
        let mut header = header.clone();
        change(&mut header);
        seeds.push((format!("odd-{name}"), assemble(&header, &payload)));
    }
    seeds
}

/// Records of every kind of a lane; and records cut off, too many, of no kind.
pub(crate) fn frame_payloads() -> Seeds {
    let mut seeds = Seeds::new();
    for (lane, number) in Lane::ALL.into_iter().zip(0..) {
        let records = records::of_lane(lane);
        let count = u8::try_from(records.len()).unwrap();
        let payload = payload_of(&records);
        let of = |count: u8, payload: &[u8]| [&[number, count], payload].concat();
        seeds.push((format!("{lane}"), of(count, &payload)));
        seeds.push((
            format!("{lane}-cut-off"),
            of(count, &payload[..payload.len() - 1]),
        ));
        seeds.push((format!("{lane}-more"), of(count + 1, &payload)));
    }
    seeds
}

/// Two bytes of length and what zstd made, with and without the dictionary.
pub(crate) fn compressed() -> Seeds {
    let records = records::of_lane(Lane::UpData);
    let raw = payload_of(&records);
    let dictionary = frame(Lane::UpData, &records, Some(DictionaryId::V1));
    let mut stored = &dictionary.bytes()[..];
    let header = prost::encoding::decode_varint(&mut stored).unwrap();
    let stored = &stored[usize::try_from(header).unwrap()..];
    let of = |raw_len: usize, stored: &[u8]| {
        let count = u8::try_from(records.len() - 1).unwrap();
        let [high, low] = u16::try_from(raw_len).unwrap().to_be_bytes();
        [&[count, high, low], stored].concat()
    };
    let zstd = zstd::bulk::compress(&raw, 1).unwrap();
    named([
        ("zstd", of(raw.len(), &zstd)),
        ("zstd-longer", of(raw.len() + 1, &zstd)),
        ("zstd-shorter", of(raw.len() - 1, &zstd)),
        ("zstd-cut-off", of(raw.len(), &zstd[..zstd.len() - 1])),
        (
            "zstd-bomb",
            of(9, &zstd::bulk::compress(&[0; 1 << 20], 1).unwrap()),
        ),
        ("dictionary", of(raw.len(), stored)),
    ])
}

/// The part of a snapshot that holds these entries.
pub(crate) fn part(lane: Lane, entries: &[u8]) -> v1::Snapshot {
    let key = key(lane);
    v1::Snapshot {
        scope: key.id.scope.as_wire().to_owned(),
        lane: lane.as_wire(),
        incarnation: key.incarnation.0.to_vec(),
        epoch: 1,
        seq: 9,
        chain: vec![3; 16],
        parts: 1,
        purpose: Purpose::Base.into(),
        raw_len: u32::try_from(entries.len()).unwrap(),
        entries: zstd::bulk::compress(entries, 1).unwrap().into(),
        ..Default::default()
    }
}

/// Folded records of a lane, as parts.
fn folded(lane: Lane) -> Vec<v1::Snapshot> {
    let mut state = State::new();
    state
        .apply_frame(&frame(lane, &records::of_lane(lane), None))
        .unwrap();
    snapshot::extract(&state, &key(lane), Purpose::Base)
        .unwrap()
        .unwrap()
}

/// The entries of a lane's snapshot, as they are before compression.
fn entries(lane: Lane) -> Vec<u8> {
    let part = &folded(lane)[0];
    zstd::bulk::decompress(&part.entries, part.raw_len as usize).unwrap()
}

pub(crate) fn snapshot_parts() -> Seeds {
    let mut seeds: Seeds = Lane::ALL
        .into_iter()
        .map(|lane| (format!("{lane}"), joined(&encoded(&folded(lane)))))
        .collect();
    let one = folded(Lane::UpData).remove(0);
    let two = |change: fn(&mut v1::Snapshot)| {
        let mut second = v1::Snapshot {
            part: 1,
            parts: 2,
            ..one.clone()
        };
        change(&mut second);
        joined(&encoded(&[
            v1::Snapshot {
                parts: 2,
                ..one.clone()
            },
            second,
        ]))
    };
    let odd = |change: fn(&mut v1::Snapshot)| {
        let mut one = one.clone();
        change(&mut one);
        joined(&encoded(&[one]))
    };
    seeds.extend(named([
        ("two", two(|_| {})),
        ("two-of-two-lanes", two(|part| part.lane = Lane::Down.as_wire())),
        ("two-marks", two(|part| part.seq += 1)),
        ("twice", two(|part| part.part = 0)),
        ("seq-none", odd(|part| part.seq = 0)),
        ("seq-last", odd(|part| part.seq = u64::MAX)),
        ("epoch-last", odd(|part| part.epoch = u32::MAX)),
        ("chain-short", odd(|part| part.chain.truncate(3))),
        ("parts-most", odd(|part| part.parts = u32::MAX)),
        ("length-most", odd(|part| part.raw_len = u32::MAX)),
        ("length-more", odd(|part| part.raw_len += 1)),
        ("nothing", odd(|part| part.entries.clear())),
    ]));
    seeds
}

pub(crate) fn snapshot_entries() -> Seeds {
    let mut seeds = Seeds::new();
    for (lane, number) in Lane::ALL.into_iter().zip(0u8..) {
        let entries = entries(lane);
        seeds.push((format!("{lane}"), [&[number], entries.as_slice()].concat()));
    }
    let one = |table: u32, key: &[u8], value: Vec<u8>| {
        let entry = v1::SnapshotEntry {
            table,
            key: key.to_vec(),
            value,
        };
        let mut out = vec![2]; // up.data
        out.extend_from_slice(&entry.encode_length_delimited_to_vec());
        out
    };
    let folded = v1::FoldedStream {
        seq: u64::MAX,
        records: u64::MAX,
        ..Default::default()
    };
    let stream = Table::stream_of(Lane::UpData) as u32;
    seeds.extend(named([
        ("stream-at-its-end", one(stream, b"", folded.encode_to_vec())),
        ("stream-damaged", one(stream, b"", vec![0xff; 9])),
        ("entry-damaged", one(Table::Gaps as u32, b"x", vec![0xff; 9])),
        (
            "entry-of-another-lane",
            one(Table::Devices as u32, b"x", Vec::new()),
        ),
        ("entry-of-no-table", one(0xff, b"x", Vec::new())),
        ("table-too-large", one(u32::MAX, b"x", Vec::new())),
        (
            "length-most",
            vec![2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ),
    ]));
    seeds
}

pub(crate) fn store_keys() -> Seeds {
    named([
        (
            "node",
            Table::Reported.store_key(&node(), b"default/pump/temperature"),
        ),
        (
            "cluster",
            Table::ApiObjects.store_key(&Scope::cluster(), b"apps/deployments/default/web"),
        ),
        ("table", Table::Gaps.store_key(&node(), b"")),
        ("no-table", b"edge-1\0".to_vec()),
        ("unknown-table", b"edge-1\0\xff".to_vec()),
        ("no-scope", b"../x\0\x10key".to_vec()),
        ("not-text", b"edge-1\0\x21\xff\xfe".to_vec()),
    ])
}

/// The first byte says how long the pieces are that the rest arrives in.
pub(crate) fn lane_items() -> Seeds {
    let frame = frame(Lane::UpData, &records::of_lane(Lane::UpData), None);
    let frame = [&frame_prefix(frame.bytes().len()).unwrap(), &frame.bytes()[..]].concat();
    let part = folded(Lane::UpState).remove(0).encode_to_vec();
    let part = [&part_prefix(part.len()).unwrap(), part.as_slice()].concat();
    named([
        ("frames", [&[31], frame.as_slice(), &frame].concat()),
        ("part", [&[0], part.as_slice()].concat()),
        ("both", [&[255], frame.as_slice(), &part, &frame].concat()),
        ("cut-off", [&[2], &part[..part.len() - 1]].concat()),
        ("cut-off-in-prefix", [&[7], frame.as_slice(), &[0, 0]].concat()),
        ("empty-items", vec![1, 0, 0, 0, 0, 0x80, 0, 0, 0]),
        ("frame-too-large", vec![1, 0x00, 0x20, 0x00, 0x01]),
        ("part-too-large", vec![1, 0xff, 0xff, 0xff, 0xff]),
    ])
}

fn encoded(parts: &[v1::Snapshot]) -> Vec<Vec<u8>> {
    parts.iter().map(v1::Snapshot::encode_to_vec).collect()
}

/// Pieces, each preceded by two bytes that say how long it is.
fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    let pieces = pieces.iter().flat_map(|piece| {
        let len = u16::try_from(piece.len()).unwrap();
        assert!(len < 1024);
        [&len.to_be_bytes(), piece.as_slice()].concat()
    });
    pieces.collect()
}

/// What [`joined`] joined, of any bytes.
pub(crate) fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let len = usize::from(u16::from_be_bytes(*len) % 1024).min(rest.len());
        let (piece, rest) = rest.split_at(len);
        bytes = rest;
        Some(piece)
    })
}

fn bytes_of(message: Message) -> Vec<u8> {
    wire::encode(message).unwrap()[4..].to_vec()
}

/// What is said in sessions that go on, begin anew, and are refused.
fn said() -> Vec<(&'static str, Vec<Message>)> {
    let mut out = Vec::new();
    let (mut edge, mut cloud) = (world::Edge::new(2), world::Log::default());
    edge.start(1);
    let mut talk = |name, edge: &mut world::Edge, cloud: &mut world::Log, nonce| {
        let mut link = world::Link::dial(edge, cloud, nonce);
        link.run(edge, cloud);
        out.push((name, link.sent));
    };
    talk("first", &mut edge, &mut cloud, 1);
    let image = edge.clone();
    edge.write(Lane::UpData, 2);
    edge.write(Lane::UpData, 3);
    talk("again", &mut edge, &mut cloud, 2);
    let mut older = image.clone();
    older.start(4);
    older.write(Lane::UpData, 5);
    talk("rolled-back", &mut older, &mut cloud, 3);
    let mut empty = world::Edge::new(3);
    empty.start(6);
    talk("replaced", &mut empty, &mut cloud, 4);
    talk("quarantined", &mut older, &mut cloud, 5);
    talk("refused", &mut older, &mut cloud, 6);
    out
}

/// What daemons say later, and what nobody says.
fn others() -> Vec<(&'static str, Message)> {
    let key = world::key(Lane::UpData, Incarnation([2; 16]));
    let (scope, lane) = (key.id.scope.as_wire().to_owned(), key.id.lane.as_wire());
    let incarnation = key.incarnation.0.to_vec();
    let fetch = v1::Fetch {
        id: 1,
        scope: scope.clone(),
        lane,
        incarnation: incarnation.clone(),
        first_seq: 1,
        last_seq: 2,
    };
    let ack = v1::Ack {
        scope: scope.clone(),
        lane,
        incarnation: incarnation.clone(),
        epoch: u32::MAX,
        durable_seq: u64::MAX,
        durable_chain: vec![0; 16],
        archived_seq: u64::MAX,
        ..Default::default()
    };
    let nack = v1::Nack {
        scope: scope.clone(),
        lane,
        incarnation,
        seq: 1,
        reason: "UnknownDictionary".to_owned(),
    };
    let head = v1::LaneHead {
        scope,
        lane,
        seq: u64::MAX,
        oldest_unacked_ms: u64::MAX,
        unreadable: u64::MAX,
    };
    let ping = |heartbeat_ms| v1::Ping {
        heads: vec![head.clone()],
        heartbeat_ms,
    };
    vec![
        ("fetch", Message::Fetch(fetch.clone())),
        (
            "fetch-backwards",
            Message::Fetch(v1::Fetch {
                first_seq: u64::MAX,
                last_seq: 0,
                ..fetch
            }),
        ),
        ("not-held", Message::NotHeld(v1::NotHeld { id: 1 })),
        ("nack", Message::Nack(nack)),
        ("ack-of-everything", Message::Ack(ack)),
        ("ping", Message::Ping(ping(5_000))),
        ("ping-never-again", Message::Ping(ping(u64::MAX))),
        (
            "refuse",
            Message::Refuse(v1::Refuse {
                reason: "ForeignCluster".to_owned(),
                message: "another cluster".to_owned(),
            }),
        ),
    ]
}

pub(crate) fn control_messages() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, messages) in said() {
        for (message, n) in messages.into_iter().zip(0..) {
            // The first of each kind says it all.
            if n < 4 {
                seeds.push((format!("{name}-{n}"), bytes_of(message)));
            }
        }
    }
    seeds.extend(
        others()
            .into_iter()
            .map(|(name, message)| (name.to_owned(), bytes_of(message))),
    );
    seeds
}

/// Whole conversations, and each of the other messages after a HELLO, and after a session has begun.
pub(crate) fn conversations() -> Seeds {
    let said = said();
    let first = &said[0].1;
    let join = |messages: &[Message]| {
        let messages: Vec<_> = messages.iter().cloned().map(bytes_of).collect();
        joined(&messages)
    };
    let mut seeds: Seeds = said
        .iter()
        .map(|(name, messages)| ((*name).to_owned(), join(messages)))
        .collect();
    for (name, message) in others() {
        seeds.push((
            format!("early-{name}"),
            join(&[first[0].clone(), message.clone()]),
        ));
        // An empty piece is no message: a step of the real exchange instead.
        let begun = vec![Vec::new(); 12];
        seeds.push((
            format!("late-{name}"),
            joined(&[begun, vec![bytes_of(message)]].concat()),
        ));
    }
    seeds
}
