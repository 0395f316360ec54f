//! B4a: a projection folded again from the log, against fjall's bulk load of the same final entries. B4b: the projection
//! of a log that grows, against fjall batches of the same entries. B1d-projection: what both write for what is reported.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use ledge_log::Log;
use ledge_log::storage::sim::Rng;
use ledge_projection::{Follower, Options, Projection};
use ledge_proto::fold::{Read as _, State};
use ledge_proto::frame::{FrameWriter, push_record};
use ledge_proto::ids::{Lane, StreamId, StreamKey};
use ledge_proto::record::{Payload, property_key};
use ledge_proto::v1;

use super::Context;
use super::append::{amplified, forget_cached};
use super::harness::{Comparison, Plan, Row, Slice, compare};
use super::usage::Usage;
use super::workload::{give_up, key, open, payload};

const DEVICES: usize = 40;
const PROPERTIES: [&str; 10] = [
    "temperature",
    "humidity",
    "pressure",
    "flow",
    "level",
    "voltage",
    "current",
    "power",
    "speed",
    "state",
];
/// How often every property is reported in the log that is replayed.
const ROUNDS: usize = 4;
/// Nodes whose reports make one batch of B4b: 20,000 entries.
const NODES_PER_BATCH: usize = 50;

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Nodes that report, each in a stream of its own.
struct Fleet {
    log: Log,
    writers: Vec<FrameWriter>,
    n: u32,
    /// Of all records so far, encoded, before compression.
    record_bytes: u64,
}

impl Fleet {
    fn new(dir: &Path, nodes: usize) -> anyhow::Result<Fleet> {
        let writer = |n| {
            let StreamKey { id, incarnation } = key(n);
            FrameWriter::new(StreamKey {
                id: StreamId::new(id.scope, Lane::UpState),
                incarnation,
            })
        };
        Ok(Fleet {
            log: open(dir)?,
            writers: (0..nodes).map(writer).collect(),
            n: 0,
            record_bytes: 0,
        })
    }

    /// Every property of some nodes, once: one frame per node.
    fn report(&mut self, nodes: std::ops::Range<usize>) -> anyhow::Result<usize> {
        let mut records = 0;
        for writer in &mut self.writers[nodes] {
            let mut payload = Vec::new();
            for device in 0..DEVICES {
                for property in PROPERTIES {
                    self.n += 1;
                    push_record(&mut payload, &reported(device, property, self.n));
                }
            }
            let count = DEVICES * PROPERTIES.len();
            self.record_bytes += payload.len() as u64;
            self.log
                .append_frame_blocking(writer.frame(u32::try_from(count)?, &payload)?)?;
            records += count;
        }
        Ok(records)
    }

    /// What the log folds to, in the order of the keys.
    fn entries(&self) -> anyhow::Result<Entries> {
        let mut state = State::new();
        let mut blocks = self.log.read_blocks(ledge_log::BlockNo(0));
        while let Some(block) = blocks.next_block()? {
            for frame in block.frames() {
                state.apply_frame(&frame?)?;
            }
        }
        let mut entries = Vec::with_capacity(state.len());
        state.scan(b"", &mut |key, value| {
            entries.push((key.to_vec(), value.to_vec()))
        })?;
        Ok(entries)
    }
}

fn reported(device: usize, property: &str, n: u32) -> v1::Record {
    let value = v1::value::Value::Double(f64::from(n) / 10.0);
    let report = v1::TwinReported {
        value: Some(v1::Value { value: Some(value) }),
    };
    let (kind, payload) = Payload::TwinReported(report).encode();
    v1::Record {
        kind,
        key: property_key("default", &format!("pump-{device}"), property),
        wall_us: 1_767_225_600_000_000 + i64::from(n) * 1000,
        clock: 1,
        mono_us: 5_000_000 + u64::from(n) * 1000,
        boot: 2,
        payload: payload.into(),
        ..Default::default()
    }
}

/// A keyspace with the projection's own settings.
fn keyspace(dir: &Path) -> anyhow::Result<(Database, Keyspace)> {
    let options = Options::cloud();
    let db = Database::builder(dir)
        .cache_size(options.cache_bytes)
        .max_journaling_size(options.journal_bytes)
        .worker_threads(1)
        .open()?;
    let state = db.keyspace("state", || {
        KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes)
    })?;
    Ok((db, state))
}

fn wipe(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}

/// Does `work` on `units` units as a part of the time that counts, and adds it to `total`.
#[allow(clippy::cast_precision_loss, reason = "counts")]
fn counted(
    plan: &Plan,
    total: &mut Slice,
    units: usize,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    plan.begin()?;
    let (used, began) = (Usage::now(), Instant::now());
    work()?;
    total.busy += began.elapsed();
    total.usage = Some(total.usage.unwrap_or_default() + (Usage::now() - used));
    plan.end()?;
    total.units += units as f64;
    Ok(())
}

/// Bytes of an entry on average.
#[allow(clippy::cast_precision_loss, reason = "sizes")]
fn entry_bytes(entries: &Entries) -> f64 {
    let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
    bytes as f64 / entries.len() as f64
}

pub(super) fn rebuild(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let nodes = if context.plan.quick { 64 } else { 256 };
    let mut fleet = Fleet::new(&context.dir.join("log"), nodes)?;
    let mut records = 0;
    for _ in 0..ROUNDS {
        records += fleet.report(0..nodes)?;
    }
    let entries = fleet.entries()?;
    let each = entry_bytes(&entries);
    let (raw_dir, our_dir) = (context.dir.join("raw"), context.dir.join("ours"));
    let row = compare(
        Comparison {
            id: "B4a".to_owned(),
            unit: "records/s (raw: entries/s)",
            flush: "both: fjall's bulk load syncs its tables",
            target: 0.8,
        },
        context.plan,
        &mut |plan| {
            wipe(&raw_dir)?;
            let (db, state) = keyspace(&raw_dir)?;
            let mut total = Slice::default();
            counted(plan, &mut total, entries.len(), || {
                let mut load = state.start_ingestion()?;
                for (key, value) in &entries {
                    load.write(&key[..], &value[..])?;
                }
                Ok(load.finish()?)
            })?;
            drop((state, db));
            Ok(total.of_bytes(each))
        },
        &mut |plan| {
            wipe(&our_dir)?;
            let (projection, _) = Projection::open(&our_dir, &fleet.log, &Options::cloud())?;
            let mut total = Slice::default();
            counted(plan, &mut total, records, || {
                Ok(Follower::catch_up(&fleet.log, &projection, || false)?)
            })?;
            anyhow::ensure!(projection.applied().block == fleet.log.durable_block());
            Ok(total.of_bytes(each))
        },
    )?;
    let note = format!(
        "{records} records, {} entries; wiping and opening an empty database is not counted on either side",
        entries.len()
    );
    Ok(vec![Row { note, ..row }])
}

pub(super) fn apply(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let nodes = if context.plan.quick { 100 } else { 250 };
    let mut fleet = Fleet::new(&context.dir.join("log"), nodes)?;
    fleet.report(0..nodes)?;
    let entries = fleet.entries()?;
    let (projection, _) = Projection::open(&context.dir.join("ours"), &fleet.log, &Options::cloud())?;
    Follower::catch_up(&fleet.log, &projection, || false)?;
    let (db, state) = keyspace(&context.dir.join("raw"))?;
    let mut load = state.start_ingestion()?;
    for (key, value) in &entries {
        load.write(&key[..], &value[..])?;
    }
    load.finish()?;
    let each = entry_bytes(&entries);
    let per_batch = entries.len() / (nodes / NODES_PER_BATCH);
    let mut batches = entries.chunks(per_batch).cycle();
    let at = RefCell::new(0);
    let row = compare(
        Comparison {
            id: "B4b".to_owned(),
            unit: "entries/s",
            flush: "neither syncs: a projection is folded again",
            target: 0.9,
        },
        context.plan,
        &mut |plan| {
            let mut total = Slice::default();
            while total.busy < plan.slice {
                let entries = batches.next().unwrap_or_default();
                counted(plan, &mut total, entries.len(), || {
                    let mut batch = db.batch();
                    for (key, value) in entries {
                        batch.insert(&state, &key[..], &value[..]);
                    }
                    Ok(batch.commit()?)
                })?;
            }
            Ok(total.of_bytes(each))
        },
        &mut |plan| {
            let mut total = Slice::default();
            while total.busy < plan.slice {
                let from = *at.borrow();
                *at.borrow_mut() = (from + NODES_PER_BATCH) % nodes;
                let records = fleet.report(from..from + NODES_PER_BATCH)?;
                counted(plan, &mut total, records, || {
                    Ok(Follower::catch_up(&fleet.log, &projection, || false)?)
                })?;
            }
            Ok(total.of_bytes(each))
        },
    )?;
    let note = format!("{per_batch} entries a batch, {} in all", entries.len());
    Ok(vec![Row { note, ..row }])
}

/// Bytes written to the device by a log and the projection that follows it, for each byte of records.
pub(super) fn amplification(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    if !context.wants("B1d-projection") {
        return Ok(Vec::new());
    }
    let nodes = 250;
    let mut fleet = Fleet::new(&context.dir.join("log"), nodes)?;
    // Segments to write over, as a log has that has run for a while: a new one is written twice, once with zeros.
    let mut other = FrameWriter::new(key(nodes));
    let noise = payload(&mut Rng::new(7), 1024, 208);
    for _ in 0..(600 << 20) / noise.len() {
        fleet.log.append_frame_blocking(other.frame(1024, &noise)?)?;
    }
    give_up(&fleet.log)?;
    let (projection, _) = Projection::open(&context.dir.join("ours"), &fleet.log, &Options::cloud())?;
    let follow = |fleet: &mut Fleet| -> anyhow::Result<()> {
        for from in (0..nodes).step_by(NODES_PER_BATCH) {
            fleet.report(from..from + NODES_PER_BATCH)?;
            Follower::catch_up(&fleet.log, &projection, || false)?;
        }
        Ok(())
    };
    // Of 10 MB each: a round is long enough for tables to be written and merged.
    let (rounds, reports) = if context.plan.quick { (2, 2) } else { (6, 5) };
    follow(&mut fleet)?;
    let started = Usage::now();
    let (mut amplifications, mut record_bytes, before) = (Vec::new(), 0, fleet.log.stats());
    for _ in 0..rounds {
        forget_cached(&context.dir.join("log"))?;
        let (began, records) = (Usage::now(), fleet.record_bytes);
        for _ in 0..reports {
            follow(&mut fleet)?;
        }
        let records = fleet.record_bytes - records;
        let written = (Usage::now() - began).device_write_bytes;
        #[allow(clippy::cast_precision_loss, reason = "a ratio of byte counts")]
        amplifications.push(written as f64 / records as f64);
        record_bytes += records;
    }
    let used = Usage::now() - started;
    let what = Comparison {
        id: "B1d-projection".to_owned(),
        unit: "device bytes per byte of records, log and projection (lower is better)",
        flush: "fdatasync of the log; the projection is not synced",
        target: 2.2,
    };
    let log = fleet.log.stats();
    #[allow(clippy::cast_precision_loss, reason = "a ratio of byte counts")]
    let of_log = (log.written_bytes - before.written_bytes) as f64 / record_bytes as f64;
    Ok(vec![Row {
        ours_syncs: Some(log.syncs - before.syncs),
        note: format!(
            "records as they are before compression; {of_log:.2} of it is the log's; ratio_min is the worst round"
        ),
        ..amplified(what, amplifications, record_bytes, used)
    }])
}
