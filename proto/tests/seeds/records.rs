//! Records of every kind.

use ledge_proto::ids::Lane;
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1;

use super::Seeds;

fn value(value: v1::value::Value) -> Option<v1::Value> {
    Some(v1::Value { value: Some(value) })
}

fn record(payload: &Payload) -> v1::Record {
    let (kind, payload) = payload.encode();
    v1::Record {
        kind,
        key: "default/pump/temperature".to_owned(),
        wall_us: 1_767_225_600_000_000,
        clock: 1,
        mono_us: 5_000_000,
        boot: 2,
        payload: payload.into(),
        ..Default::default()
    }
}

pub(crate) fn sample_record() -> v1::Record {
    record(&Payload::Sample(v1::Sample {
        value: value(v1::value::Value::Double(20.25)),
    }))
}

/// Payloads with something in them, of the kinds that are more than a note.
fn full() -> Vec<Payload> {
    let mark = v1::Mark {
        epoch: 1,
        seq: 9,
        chain: vec![3; 16],
    };
    let token = v1::SessionToken {
        counter: 4,
        nonce: vec![5; 16],
    };
    vec![
        Payload::Sample(v1::Sample {
            value: value(v1::value::Value::Int(i64::MIN)),
        }),
        Payload::SampleRun(v1::SampleRun {
            value: value(v1::value::Value::Double(f64::NAN)),
            count: u64::MAX,
            span_us: u64::MAX,
            longest_us: u64::MAX,
        }),
        Payload::SampleSummary(v1::SampleSummary {
            from_us: i64::MIN,
            to_us: i64::MAX,
            count: u64::MAX,
            min: Some(f64::NEG_INFINITY),
            max: Some(f64::INFINITY),
            mean: Some(f64::NAN),
            last: None,
            method: 2,
        }),
        Payload::Gap(v1::Gap {
            scope: "edge-1".to_owned(),
            lane: Lane::UpData.as_wire(),
            epoch: u32::MAX,
            first_seq: u64::MAX,
            last_seq: 0,
            reason: "DiskFull".to_owned(),
            count: u64::MAX,
            replaced_by: 99,
        }),
        Payload::ClockSync(v1::ClockSync {
            boot: u32::MAX,
            mono_us: u64::MAX,
            wall_us: i64::MIN,
            before_us: i64::MAX,
            quality: -1,
        }),
        Payload::NodeFence(Box::new(v1::NodeFence {
            incarnation: vec![7; 16],
            closed: vec![vec![6; 16], Vec::new()],
            current: Some(token.clone()),
            outstanding: vec![token],
            confirmed: true,
            epoch: u32::MAX,
            quarantine: Some(v1::Quarantine::default()),
            accepted: Some(v1::Accepted::default()),
            ..Default::default()
        })),
        Payload::EdgeFence(v1::EdgeFence {
            acknowledged: vec![v1::Acknowledged {
                scope: "edge-1".to_owned(),
                lane: Lane::UpData.as_wire(),
                incarnation: vec![7; 16],
                durable: Some(mark),
                archived_seq: u64::MAX,
                receipt: vec![1; 16],
            }],
            ..Default::default()
        }),
    ]
}

fn kind_of(record: &v1::Record) -> RecordKind {
    RecordKind::from_wire(record.kind).unwrap()
}

/// A record of every kind of a lane.
pub(super) fn of_lane(lane: Lane) -> Vec<v1::Record> {
    let full = full();
    let empty = RecordKind::ALL.into_iter().map(|kind| {
        let record = v1::Record {
            kind: kind.as_wire(),
            ..Default::default()
        };
        self::record(&Payload::decode(&record).unwrap())
    });
    let all = empty.chain(full.iter().map(record));
    all.filter(|record| of_kind(kind_of(record)) == lane).collect()
}

/// The lane on which records of a kind travel, as their numbers are dealt out.
fn of_kind(kind: RecordKind) -> Lane {
    match kind.as_wire() {
        0..16 => Lane::UpData,
        16..32 => Lane::UpState,
        32..48 => Lane::Down,
        48..64 => Lane::Local,
        _ => Lane::Api,
    }
}

/// Payloads of real records, and fields of every number and type.
pub(crate) fn record_payloads() -> Seeds {
    let mut seeds: Seeds = full()
        .iter()
        .zip(0..)
        .map(|(payload, n)| {
            let (kind, bytes) = payload.encode();
            (
                format!("{n}-{}", RecordKind::from_wire(kind).unwrap().name()),
                bytes,
            )
        })
        .collect();
    let fields = |of: &dyn Fn(u8) -> Vec<u8>| (1..16).flat_map(of).collect::<Vec<u8>>();
    let text = b"default/pump";
    seeds.extend([
        ("numbers".to_owned(), fields(&|field| vec![field << 3, 1])),
        (
            "texts".to_owned(),
            fields(&|field| [&[field << 3 | 2, 12], &text[..]].concat()),
        ),
        (
            "empty-messages".to_owned(),
            fields(&|field| vec![field << 3 | 2, 0]),
        ),
        (
            "nested".to_owned(),
            fields(&|field| vec![field << 3 | 2, 4, 10, 2, 8, 1]),
        ),
        (
            "doubles".to_owned(),
            fields(&|field| [&[field << 3 | 1], &f64::NAN.to_le_bytes()[..]].concat()),
        ),
        ("cut-off".to_owned(), vec![1 << 3 | 2, 0x7f, 1]),
    ]);
    seeds
}
