//! Tables with one row per record of the log.

use std::sync::Arc;

use ledge_proto::ids::{Lane, Position, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1;

use crate::payload;
use crate::sql::columns::{Cell, Column, Type};

/// What all records of a stream have in common, as text.
#[derive(Debug)]
pub(crate) struct Labels {
    node: Option<String>,
    stream: String,
    lane: &'static str,
    incarnation: String,
}

impl Labels {
    pub(crate) fn of(key: &StreamKey) -> Self {
        Labels {
            node: key.id.scope.node_name().map(str::to_owned),
            stream: key.id.to_string(),
            lane: key.id.lane.name(),
            incarnation: key.incarnation.to_string(),
        }
    }

    /// The text of one of the columns that are the same for a whole stream; `None` for other columns.
    pub(crate) fn column(&self, name: &str) -> Option<Option<&str>> {
        match name {
            "node" => Some(self.node.as_deref()),
            "stream" => Some(Some(&self.stream)),
            "lane" => Some(Some(self.lane)),
            "incarnation" => Some(Some(&self.incarnation)),
            _ => None,
        }
    }
}

/// One record and where it stands.
#[derive(Debug)]
pub(crate) struct RecordRow {
    pub(crate) labels: Arc<Labels>,
    pub(crate) position: Position,
    pub(crate) record: v1::Record,
    /// Its time was corrected by what became known of the clock later.
    pub(crate) retimed: bool,
    pub(crate) payload: Payload,
}

/// The device (`namespace/name`) and property a record's key names, by its kind.
fn subject(record: &v1::Record) -> (Option<&str>, Option<&str>) {
    use RecordKind as K;
    let key = record.key.as_str();
    match RecordKind::from_wire(record.kind) {
        Some(
            K::Sample
            | K::SampleRun
            | K::SampleSummary
            | K::WriteIntent
            | K::WriteResult
            | K::TwinReported
            | K::TwinDesired,
        ) => match key.rsplit_once('/') {
            Some((device, property)) => (Some(device), Some(property)),
            None => (None, None),
        },
        Some(K::DeviceEvent | K::DeviceState | K::DeviceSpec | K::DeviceRemoved) => (Some(key), None),
        Some(
            K::DaemonEvent
            | K::Gap
            | K::ClockSync
            | K::NodeState
            | K::NodeFence
            | K::EdgeFence
            | K::CloudFence
            | K::ApiObject
            | K::ApiObjectDeleted
            | K::KubeEvent
            | K::KubeStatus
            | K::KubeStatusRemoved
            | K::Interest
            | K::InterestRemoved
            | K::KubeWrite
            | K::KubeWriteRemoved
            | K::DownApplied
            | K::KubeObject
            | K::KubeObjectRemoved
            | K::InterestState
            | K::InterestStateRemoved
            | K::KubeWriteResult
            | K::KubeWriteResultRemoved
            | K::Repair
            | K::EventCursor,
        )
        | None => (None, None),
    }
}

/// The text of a column that needs no payload; `None` for other columns.
pub(crate) fn key_column<'a>(record: &'a v1::Record, name: &str) -> Option<Option<&'a str>> {
    let device = || subject(record).0;
    match name {
        "device" => Some(device()),
        "namespace" => Some(
            device()
                .and_then(|device| device.split_once('/'))
                .map(|(namespace, _)| namespace),
        ),
        "name" => Some(
            device()
                .and_then(|device| device.split_once('/'))
                .map(|(_, name)| name),
        ),
        "property" => Some(subject(record).1),
        "key" => Some(Some(&record.key)),
        "kind" => RecordKind::from_wire(record.kind).map(|kind| Some(kind.name())),
        _ => None,
    }
}

impl RecordRow {
    fn key_part(&self, column: &str) -> Cell<'_> {
        Cell::opt(key_column(&self.record, column).flatten(), Cell::text)
    }

    fn value(&self) -> Option<&v1::value::Value> {
        match &self.payload {
            Payload::Sample(sample) => payload::inner(sample.value.as_ref()),
            Payload::SampleRun(run) => payload::inner(run.value.as_ref()),
            Payload::SampleSummary(summary) => payload::inner(summary.last.as_ref()),
            _ => None,
        }
    }

    /// The value as a number: of averages, the mean.
    fn number(&self) -> Option<f64> {
        match &self.payload {
            Payload::SampleSummary(summary) if summary.mean.is_some() => summary.mean,
            _ => self.value().and_then(payload::number),
        }
    }

    fn summary(&self) -> Option<&v1::SampleSummary> {
        match &self.payload {
            Payload::SampleSummary(summary) => Some(summary),
            _ => None,
        }
    }

    /// How many samples the row stands for.
    fn samples(&self) -> u64 {
        match &self.payload {
            Payload::SampleRun(run) => run.count,
            Payload::SampleSummary(summary) => summary.count,
            _ => 1,
        }
    }

    /// When the first of them was taken, microseconds since 1970.
    fn since_us(&self) -> i64 {
        let span_us = match &self.payload {
            Payload::SampleRun(run) => i64::try_from(run.span_us).unwrap_or(i64::MAX),
            // By the distance between the two: the row's own time may have been corrected.
            Payload::SampleSummary(summary) => summary.to_us.saturating_sub(summary.from_us),
            _ => 0,
        };
        self.record.wall_us.saturating_sub(span_us)
    }

    fn method(&self) -> &'static str {
        match self.summary().map(v1::SampleSummary::method) {
            None if matches!(self.payload, Payload::SampleRun(_)) => "run",
            None => "raw",
            Some(v1::Replacement::MinuteAverages) => "minute average",
            Some(v1::Replacement::LastValue | v1::Replacement::None) => "last value",
        }
    }

    fn event(&self) -> Option<&v1::Event> {
        match &self.payload {
            Payload::DeviceEvent(event) | Payload::DaemonEvent(event) => Some(event),
            _ => None,
        }
    }

    fn kind_name(&self) -> Cell<'_> {
        match RecordKind::from_wire(self.record.kind) {
            Some(kind) => Cell::text(kind.name()),
            None => Cell::owned(self.record.kind.to_string()),
        }
    }
}

/// A table whose rows are records.
pub(crate) struct RecordTable {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Lanes its records are in.
    pub(crate) lanes: &'static [Lane],
    /// Kinds of its records; empty for every kind.
    pub(crate) kinds: &'static [RecordKind],
    pub(crate) columns: &'static [Column<RecordRow>],
}

const fn column(
    name: &'static str,
    of: Type,
    about: &'static str,
    cell: fn(&RecordRow) -> Cell<'_>,
) -> Column<RecordRow> {
    Column {
        name,
        of,
        about,
        cell,
    }
}

const NODE: Column<RecordRow> = column(
    "node",
    Type::Text,
    "node the stream belongs to; null for the cluster's",
    |row| Cell::opt(row.labels.node.as_deref(), Cell::text),
);
const DEVICE: Column<RecordRow> = column("device", Type::Text, "namespace/name of the device", |row| {
    row.key_part("device")
});
const NAMESPACE: Column<RecordRow> = column("namespace", Type::Text, "the device's namespace", |row| {
    row.key_part("namespace")
});
const NAME: Column<RecordRow> = column("name", Type::Text, "the device's name", |row| {
    row.key_part("name")
});
const PROPERTY: Column<RecordRow> = column("property", Type::Text, "property of the device", |row| {
    row.key_part("property")
});
const KEY: Column<RecordRow> = column(
    "key",
    Type::Text,
    "what the record is about, as it was written",
    |row| Cell::text(&row.record.key),
);
const KIND: Column<RecordRow> = column(
    "kind",
    Type::Text,
    "kind of record, for example Sample",
    RecordRow::kind_name,
);
const TIME: Column<RecordRow> = column("time", Type::Time, "wall clock at the event; see clock", |row| {
    Cell::Time(row.record.wall_us)
});
const CLOCK: Column<RecordRow> = column(
    "clock",
    Type::Text,
    "trust in that clock: synced, unsynced, before-build, unknown, or retimed (set later, and the time corrected)",
    |row| match row.retimed {
        true => Cell::text("retimed"),
        false => Cell::text(payload::clock_name(row.record.clock())),
    },
);
const STREAM: Column<RecordRow> = column(
    "stream",
    Type::Text,
    "stream the record is in, for example edge-1/up.data",
    |row| Cell::text(&row.labels.stream),
);
const LANE: Column<RecordRow> = column("lane", Type::Text, "down, up.state or up.data", |row| {
    Cell::text(row.labels.lane)
});
const INCARNATION: Column<RecordRow> = column(
    "incarnation",
    Type::Text,
    "which life of the writer's disk, hexadecimal",
    |row| Cell::text(&row.labels.incarnation),
);
const EPOCH: Column<RecordRow> = column(
    "epoch",
    Type::Int,
    "leadership under which it was written",
    |row| Cell::Int(i64::from(row.position.epoch.0)),
);
const SEQ: Column<RecordRow> = column(
    "seq",
    Type::Int,
    "sequence number in the stream, dense from 1",
    |row| Cell::count(row.position.seq.0),
);
const BOOT: Column<RecordRow> = column("boot", Type::Int, "which start of the daemon", |row| {
    Cell::Int(i64::from(row.record.boot))
});
const MONO: Column<RecordRow> = column(
    "mono_us",
    Type::Int,
    "monotonic clock at the event, microseconds since boot",
    |row| Cell::count(row.record.mono_us),
);

/// The tables of records.
pub(crate) const RECORD_TABLES: &[RecordTable] = &[
    RecordTable {
        name: "samples",
        about: "every value a device produced, or what was kept of those that were dropped",
        lanes: &[Lane::UpData],
        kinds: &[
            RecordKind::Sample,
            RecordKind::SampleRun,
            RecordKind::SampleSummary,
        ],
        columns: &[
            NODE,
            DEVICE,
            NAMESPACE,
            NAME,
            PROPERTY,
            TIME,
            column(
                "value",
                Type::Double,
                "the value, null when it is no number; of a minute average, the mean",
                |row| Cell::opt(row.number(), Cell::Double),
            ),
            column("text", Type::Text, "the value in its exact text form", |row| {
                Cell::opt(row.value().map(payload::text), Cell::owned)
            }),
            column("type", Type::Text, "double, int, string, bool or bytes", |row| {
                Cell::opt(row.value().map(payload::type_name), Cell::text)
            }),
            column(
                "method",
                Type::Text,
                "raw; run: readings in a row that all gave this value; minute average or last value: what was kept of samples that were dropped",
                |row| Cell::text(row.method()),
            ),
            column("samples", Type::Int, "how many samples it stands for", |row| {
                Cell::count(row.samples())
            }),
            column(
                "since",
                Type::Time,
                "the first of them; time is the last",
                |row| Cell::Time(row.since_us()),
            ),
            column("min", Type::Double, "of a minute average, the least", |row| {
                Cell::opt(row.summary().and_then(|summary| summary.min), Cell::Double)
            }),
            column("max", Type::Double, "of a minute average, the greatest", |row| {
                Cell::opt(row.summary().and_then(|summary| summary.max), Cell::Double)
            }),
            CLOCK,
            STREAM,
            INCARNATION,
            EPOCH,
            SEQ,
            BOOT,
            MONO,
        ],
    },
    RecordTable {
        name: "events",
        about: "what happened to devices and daemons",
        lanes: &[Lane::UpData],
        kinds: &[RecordKind::DeviceEvent, RecordKind::DaemonEvent],
        columns: &[
            NODE,
            column("source", Type::Text, "device or daemon", |row| {
                Cell::text(if matches!(row.payload, Payload::DeviceEvent(_)) {
                    "device"
                } else {
                    "daemon"
                })
            }),
            DEVICE,
            KEY,
            TIME,
            column(
                "reason",
                Type::Text,
                "machine-readable, for example DeviceUnreachable",
                |row| Cell::opt(row.event(), |event| Cell::text(&event.reason)),
            ),
            column("message", Type::Text, "in words", |row| {
                Cell::opt(row.event(), |event| Cell::text(&event.message))
            }),
            CLOCK,
            STREAM,
            INCARNATION,
            EPOCH,
            SEQ,
        ],
    },
    RecordTable {
        name: "records",
        about: "everything in the log, in every lane",
        lanes: &Lane::ALL,
        kinds: &[],
        columns: &[
            NODE,
            STREAM,
            LANE,
            INCARNATION,
            EPOCH,
            SEQ,
            TIME,
            CLOCK,
            KIND,
            KEY,
            DEVICE,
            PROPERTY,
            column(
                "cause",
                Type::Text,
                "the record that made it happen, as stream:epoch:seq",
                |row| {
                    Cell::opt(row.record.cause.as_ref(), |cause| {
                        Cell::owned(payload::cause_text(cause))
                    })
                },
            ),
            column("size", Type::Int, "encoded payload, bytes", |row| {
                Cell::count(row.record.payload.len() as u64)
            }),
            column("payload", Type::Text, "decoded payload as JSON", |row| {
                Cell::owned(payload::json(&row.payload).to_string())
            }),
            BOOT,
            MONO,
        ],
    },
];

/// Whether a column of a table of records needs the payload decoded.
pub(crate) fn needs_payload(name: &str) -> bool {
    !matches!(
        name,
        "node"
            | "stream"
            | "lane"
            | "incarnation"
            | "epoch"
            | "seq"
            | "time"
            | "clock"
            | "kind"
            | "key"
            | "device"
            | "namespace"
            | "name"
            | "property"
            | "cause"
            | "size"
            | "boot"
            | "mono_us"
    )
}
