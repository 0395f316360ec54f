//! B1c: durable records per second of the log beside those of an embedded store, a message server and a log engine, each
//! making every record durable before it is acknowledged.
//!
//! Of each there are two rows. In the first, our side has the load the log is made for: 10,000 nodes, each with a frame
//! of eight records outstanding; the other side is used the way it offers. In the second, `-alike`, both sides have the
//! same number of writers, each with one record outstanding.

mod engine;
mod nats;

use std::path::{Path, PathBuf};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::Context;
use super::group::{Group, Load, MANY, VALUE_BYTES};
use super::harness::{Comparison, Plan, Row, Slice, compare, repeat};
use super::usage::Usage;

/// Writers of raft-engine, each a thread.
const THREADS: usize = 64;
/// Publications JetStream is given ahead. It refuses more than 10,000.
const WINDOW: usize = 4000;
/// What we expect of the log with the same writers: not to be slower.
const NOT_SLOWER: f64 = 1.0;

/// A row: our load, and how the other side is used.
struct Variant {
    id: &'static str,
    load: Load,
    /// Writers, or publications outstanding, on the other side.
    raw_writers: usize,
    target: f64,
}

const fn alike(tasks: usize, ready: usize) -> Load {
    Load {
        tasks,
        records: 1,
        ready,
    }
}

type RawSide<'a> = Box<dyn FnMut(&Plan) -> anyhow::Result<Slice> + 'a>;

pub(super) fn others(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let variant = |id, load, raw_writers, target| Variant {
        id,
        load,
        raw_writers,
        target,
    };
    let few = alike(THREADS, 6000);
    for variant in [
        variant("B1c-fjall", MANY, 1, 100.0),
        variant("B1c-fjall-alike", alike(1, 20_000), 1, NOT_SLOWER),
        variant("B1c-jetstream", MANY, WINDOW, 500.0),
        variant("B1c-jetstream-alike", few, THREADS, NOT_SLOWER),
        variant("B1c-raft-engine", MANY, THREADS, 30.0),
        variant("B1c-raft-engine-alike", few, THREADS, NOT_SLOWER),
    ] {
        if !context.wants(variant.id) {
            continue;
        }
        let dir = context.dir.join(variant.id);
        std::fs::create_dir_all(&dir)?;
        rows.push(row(context, &variant, &dir)?);
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(rows)
}

fn row(context: &Context<'_>, variant: &Variant, dir: &Path) -> anyhow::Result<Row> {
    let raw_dir = dir.join("raw");
    let of = |name| variant.id.contains(name);
    let what = |flush| Comparison {
        id: variant.id.to_owned(),
        unit: "durable records/s",
        flush,
        target: variant.target,
    };
    let skipped = |what, name: &str| Ok(Row::skipped(what, format!("{name} names no program")));
    let (what, mut raw, how): (Comparison, RawSide<'_>, String) = if of("fjall") {
        let what = what(
            "both: fdatasync before a record is acknowledged; fjall: one commit per record, PersistMode::SyncData",
        );
        (
            what,
            fjall(&raw_dir)?,
            "one thread, one record a commit".to_owned(),
        )
    } else if of("jetstream") {
        let what =
            what("both: fdatasync or fsync before a record is acknowledged; JetStream: sync_interval always");
        let Some(program) = program(nats::PROGRAM) else {
            return skipped(what, nats::PROGRAM);
        };
        let how = format!("one connection, {} publications outstanding", variant.raw_writers);
        (what, jetstream(&program, &raw_dir, variant.raw_writers)?, how)
    } else {
        let what = what("both: fdatasync before a record is acknowledged; raft-engine: write with sync");
        let Some(program) = program(engine::PROGRAM) else {
            return skipped(what, engine::PROGRAM);
        };
        let how = format!("{} threads, one record outstanding each", variant.raw_writers);
        (what, raft_engine(&program, &raw_dir, variant.raw_writers)?, how)
    };
    let mut group = Group::new(&dir.join("log"), variant.load)?;
    let row = compare(what, context.plan, &mut *raw, &mut |plan| {
        let run = group.slice(plan)?;
        #[allow(clippy::cast_precision_loss, reason = "a count")]
        let units = (run.after.records - run.before.records) as f64;
        Ok(Slice { units, ..run.slice }.of_bytes(RECORD_BYTES))
    })?;
    group.log.close()?;
    let Load { tasks, records, .. } = variant.load;
    let note = format!(
        "records of {VALUE_BYTES} bytes; ours: {tasks} writers, one frame of {records} outstanding each; the other: {how}"
    );
    Ok(Row { note, ..row })
}

/// The values only: what else is stored with them differs.
const RECORD_BYTES: f64 = VALUE_BYTES as f64;

fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
}

/// One commit per record, as many as there are records: fjall has one writer at a time.
fn fjall<'a>(dir: &Path) -> anyhow::Result<RawSide<'a>> {
    let db = Database::builder(dir).worker_threads(1).open()?;
    let records = db.keyspace("records", KeyspaceCreateOptions::default)?;
    let (mut n, value) = (0_u64, [0xa5; VALUE_BYTES]);
    Ok(Box::new(move |plan| {
        let before = n;
        let slice = repeat(plan, || {
            n += 1;
            let mut batch = db.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&records, n.to_be_bytes(), value);
            batch.commit()?;
            Ok(1.0)
        })?;
        Ok(slice.of_bytes(RECORD_BYTES).with_syncs(n - before))
    }))
}

fn jetstream<'a>(program: &Path, dir: &Path, window: usize) -> anyhow::Result<RawSide<'a>> {
    let (server, mut client) = nats::Server::start(program, dir)?;
    let value = [0xa5; VALUE_BYTES];
    Ok(Box::new(move |plan| {
        plan.begin()?;
        let before = Usage::of(server.pid()) + Usage::now();
        let (records, busy) = client.publish(&value, window, plan.slice)?;
        let usage = Usage::of(server.pid()) + Usage::now() - before;
        plan.end()?;
        Ok(durable(records, busy, usage))
    }))
}

fn raft_engine<'a>(program: &Path, dir: &Path, threads: usize) -> anyhow::Result<RawSide<'a>> {
    let mut engine = engine::Engine::start(program, dir, threads, VALUE_BYTES)?;
    Ok(Box::new(move |plan| {
        plan.begin()?;
        let before = Usage::of(engine.pid());
        let (records, busy) = engine.write(plan.slice)?;
        let usage = Usage::of(engine.pid()) - before;
        plan.end()?;
        Ok(durable(records, busy, usage))
    }))
}

fn durable(records: u64, busy: std::time::Duration, usage: Usage) -> Slice {
    #[allow(clippy::cast_precision_loss, reason = "a count")]
    let units = records as f64;
    Slice {
        units,
        busy,
        usage: Some(usage),
        ..Slice::default()
    }
    .of_bytes(RECORD_BYTES)
}
