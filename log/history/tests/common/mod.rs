//! Small logs in memory, and their tables as text.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "each test uses its part, and stops where it cannot go on"
)]

use std::sync::Arc;

use ledge_history::source::{FrameSource, MemorySource};
use ledge_history::sql::arrow::util::display::{ArrayFormatter, FormatOptions};
use ledge_history::{HistoryContext, HistoryError, Options};
use ledge_proto::frame::{Frame, FrameWriter, push_record};
use ledge_proto::ids::{Incarnation, Lane, Scope, StreamId, StreamKey};
use ledge_proto::record::Payload;
use ledge_proto::v1;

pub const T0: i64 = 1_795_446_000_000_000; // 2026-11-23T15:00:00Z

pub fn writer(node: &str, lane: Lane, incarnation: u8) -> FrameWriter {
    let scope = if node.is_empty() {
        Scope::cluster()
    } else {
        Scope::node(node).unwrap()
    };
    FrameWriter::new(StreamKey {
        id: StreamId::new(scope, lane),
        incarnation: Incarnation([incarnation; 16]),
    })
}

pub fn frame(writer: &mut FrameWriter, records: &[v1::Record]) -> Frame {
    let mut payload = Vec::new();
    for record in records {
        push_record(&mut payload, record);
    }
    writer
        .frame(u32::try_from(records.len()).unwrap(), &payload)
        .unwrap()
}

pub fn record(key: &str, at_s: i64, payload: &Payload) -> v1::Record {
    let (kind, bytes) = payload.encode();
    v1::Record {
        kind,
        key: key.into(),
        wall_us: T0 + at_s * 1_000_000,
        mono_us: u64::try_from(at_s.max(0)).unwrap() * 1_000_000,
        clock: v1::ClockQuality::ClockSynced.into(),
        boot: 1,
        payload: bytes.into(),
        ..Default::default()
    }
}

pub fn double(value: f64) -> Option<v1::Value> {
    Some(v1::Value {
        value: Some(v1::value::Value::Double(value)),
    })
}

pub fn string(value: &str) -> Option<v1::Value> {
    Some(v1::Value {
        value: Some(v1::value::Value::String(value.into())),
    })
}

pub fn sample(key: &str, at_s: i64, value: Option<v1::Value>) -> v1::Record {
    record(key, at_s, &Payload::Sample(v1::Sample { value }))
}

/// The up and down streams of one node with a bit of everything.
pub fn node_frames(node: &str, incarnation: u8) -> Vec<Frame> {
    let mut data = writer(node, Lane::UpData, incarnation);
    let mut state = writer(node, Lane::UpState, incarnation);
    let mut down = writer(node, Lane::Down, 9);
    let spec = v1::DeviceSpec {
        namespace: "plant".into(),
        name: "pump-1".into(),
        protocol: "modbus".into(),
        properties: vec![v1::DeviceProperty {
            name: "speed".into(),
            unit: "rpm".into(),
            writable: true,
            ..Default::default()
        }],
        ..Default::default()
    };
    let gap = v1::Gap {
        scope: node.into(),
        lane: 3,
        epoch: 1,
        first_seq: 40,
        last_seq: 49,
        reason: "disk full".into(),
        count: 10,
        ..Default::default()
    };
    let unreachable = v1::Event {
        reason: "DeviceUnreachable".into(),
        message: "timed out".into(),
    };
    let online = v1::DeviceState {
        state: "online".into(),
        message: String::new(),
    };
    vec![
        frame(
            &mut down,
            &[
                record("plant/pump-1", -60, &Payload::DeviceSpec(Box::new(spec))),
                record(
                    "plant/pump-1/speed",
                    -50,
                    &Payload::TwinDesired(v1::TwinDesired {
                        value: double(1500.0),
                    }),
                ),
            ],
        ),
        frame(
            &mut data,
            &[
                sample("plant/pump-1/speed", 0, double(1480.5)),
                sample("plant/pump-1/mode", 1, string("auto")),
                record("plant/pump-1", 2, &Payload::DeviceEvent(unreachable)),
            ],
        ),
        frame(
            &mut state,
            &[record("plant/pump-1", 3, &Payload::DeviceState(online))],
        ),
        frame(
            &mut state,
            &[record(
                "plant/pump-1/speed",
                4,
                &Payload::TwinReported(v1::TwinReported {
                    value: double(1490.0),
                }),
            )],
        ),
        frame(
            &mut data,
            &[
                sample("plant/pump-1/speed", 5, double(1490.0)),
                record("gap", 6, &Payload::Gap(gap)),
                record(
                    node,
                    7,
                    &Payload::DaemonEvent(v1::Event {
                        reason: "Started".into(),
                        ..Default::default()
                    }),
                ),
            ],
        ),
    ]
}

pub fn source(frames: impl IntoIterator<Item = Frame>) -> Arc<dyn FrameSource> {
    let mut source = MemorySource::default();
    for frame in frames {
        source.push(frame);
    }
    Arc::new(source)
}

/// Runs `query` and returns its rows as lines of cells separated by `|`.
pub fn run(context: &HistoryContext, query: &str) -> Result<Vec<String>, HistoryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut rows = context.sql(query).await?;
        let mut lines = Vec::new();
        while let Some(batch) = rows.next().await? {
            let options = FormatOptions::default().with_null("NULL");
            let columns: Vec<ArrayFormatter<'_>> = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
                .collect();
            for row in 0..batch.num_rows() {
                let cells: Vec<String> = columns
                    .iter()
                    .map(|column| column.value(row).to_string())
                    .collect();
                lines.push(cells.join("|"));
            }
        }
        Ok(lines)
    })
}

pub fn context(sources: Vec<Arc<dyn FrameSource>>) -> HistoryContext {
    HistoryContext::new(sources, &Options::default()).unwrap()
}
