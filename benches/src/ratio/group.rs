//! B1b: 10,000 tasks, each with one small frame outstanding. The same with fewer is a side of B1c.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ledge_log::storage::sim::Rng;
use ledge_log::{Log, LogStats};
use ledge_proto::frame::{Frame, FrameWriter};

use super::Context;
use super::harness::{Comparison, Plan, Row, Slice, compare, repeat};
use super::usage::Usage;
use super::workload::{PageBuffer, RawFile, give_up, key, open, payload};

pub(super) const VALUE_BYTES: usize = 256;

/// Who writes, and what is ready to be written when a slice begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Tasks, each with one frame outstanding, of a stream of its own.
    pub(super) tasks: usize,
    /// Records in a frame.
    pub(super) records: u32,
    /// Frames each task has ready per slice.
    pub(super) ready: usize,
}

/// 10,000 nodes.
pub(super) const MANY: Load = Load {
    tasks: 10_000,
    records: 8,
    ready: 28,
};

/// A log, and tasks that write to it.
pub(super) struct Group {
    runtime: tokio::runtime::Runtime,
    pub(super) log: Log,
    load: Load,
    payload: Vec<u8>,
    sources: Vec<Source>,
}

impl Group {
    pub(super) fn new(dir: &Path, load: Load) -> anyhow::Result<Group> {
        let source = |n| Source {
            writer: FrameWriter::new(key(n)),
            ready: VecDeque::new(),
        };
        Ok(Group {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?,
            log: open(dir)?,
            load,
            payload: payload(&mut Rng::new(3), load.records, VALUE_BYTES),
            sources: (0..load.tasks).map(source).collect(),
        })
    }

    /// All tasks write for the length of a slice. Units are left to the caller.
    pub(super) fn slice(&mut self, plan: &Plan) -> anyhow::Result<Run> {
        give_up(&self.log)?;
        for source in &mut self.sources {
            source.fill(&self.load, &self.payload)?;
        }
        let sources = std::mem::take(&mut self.sources);
        let (run, rest) = self.runtime.block_on(run(&self.log, sources, plan))?;
        self.sources = rest;
        Ok(run)
    }
}

pub(super) fn commit(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let mut group = Group::new(&context.dir.join("log"), MANY)?;
    let mut block_bytes = 1 << 20;
    let mut records_per_s = Vec::new();
    let mut raw_file = RawFile::create(&context.dir.join("raw"), 256 * 1024 * 1024)?;
    let mut noise = PageBuffer::zeroed(4 << 20);
    noise.fill(0xA5);
    let block = std::cell::Cell::new(block_bytes);
    let mut row = compare(
        Comparison {
            id: "B1b".to_owned(),
            unit: "MB/s",
            flush: "fdatasync",
            target: 0.6,
        },
        context.plan,
        &mut |plan| {
            let bytes = &noise[..block.get()];
            let slice = repeat(plan, || {
                raw_file.append(bytes)?;
                Ok(mega(bytes.len() as u64))
            })?;
            Ok(slice.of_bytes(1e6).with_syncs(raw_file.take_syncs()))
        },
        &mut |plan| {
            let Run { slice, before, after } = group.slice(plan)?;
            let blocks = (after.commits - before.commits).max(1);
            block_bytes = usize::try_from((after.written_bytes - before.written_bytes) / blocks)?;
            block.set(block_bytes.clamp(4096, noise.len()) / 4096 * 4096);
            #[allow(clippy::cast_precision_loss, reason = "a rate")]
            records_per_s.push((after.records - before.records) as f64 / slice.busy.as_secs_f64());
            let units = mega(after.payload_bytes - before.payload_bytes);
            Ok(Slice { units, ..slice }.of_bytes(1e6))
        },
    )?;
    let stats = group.log.stats();
    let rate = super::harness::median(&mut records_per_s);
    row.note = format!(
        "{:.2} M durable records/s (target 3), {} KiB per block, {} commits of {} us on average, {} us of it in \
         fdatasync; {} fdatasync ({} beginning segments)",
        rate / 1e6,
        block_bytes / 1024,
        stats.commits,
        stats.commit_time.sum_us / stats.commits.max(1),
        stats.sync_time.sum_us / stats.syncs.max(1),
        stats.syncs,
        stats.syncs - stats.commits,
    );
    row.met &= rate >= 3e6;
    group.log.close()?;
    Ok(vec![row])
}

#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// One node: its writer, and the frames it has ready.
struct Source {
    writer: FrameWriter,
    ready: VecDeque<Frame>,
}

impl Source {
    fn fill(&mut self, load: &Load, payload: &[u8]) -> anyhow::Result<()> {
        while self.ready.len() < load.ready {
            self.ready.push_back(self.writer.frame(load.records, payload)?);
        }
        Ok(())
    }
}

pub(super) struct Run {
    pub(super) slice: Slice,
    pub(super) before: LogStats,
    pub(super) after: LogStats,
}

/// Runs all tasks and watches them for the length of a slice, once all of them are running. Returns what is left.
async fn run(log: &Log, sources: Vec<Source>, plan: &Plan) -> anyhow::Result<(Run, Vec<Source>)> {
    let over = Arc::new(AtomicBool::new(false));
    let latency = Arc::new(LatencySample::default());
    let mut tasks = Vec::with_capacity(sources.len());
    for (n, mut source) in sources.into_iter().enumerate() {
        let (mut log, over, latency) = (log.frame_appender(), over.clone(), latency.clone());
        tasks.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let Some(frame) = source.ready.pop_front() else {
                    break;
                };
                let sent = Instant::now();
                log.append(frame).await?;
                if n % 64 == 0 {
                    latency.add(sent.elapsed());
                }
            }
            anyhow::Ok(source)
        }));
    }
    tokio::time::sleep(plan.slice / 5).await;
    plan.begin()?;
    let (before, used, start) = (log.stats(), Usage::now(), Instant::now());
    latency.take();
    tokio::time::sleep(plan.slice).await;
    let (after, used, busy) = (log.stats(), Usage::now() - used, start.elapsed());
    plan.end()?;
    over.store(true, Ordering::Relaxed);
    let latencies_us = latency.take();
    let mut rest = Vec::with_capacity(tasks.len());
    let mut dry = 0;
    for task in tasks {
        let source = task.await??;
        dry += usize::from(source.ready.is_empty());
        rest.push(source);
    }
    anyhow::ensure!(
        dry < rest.len().div_ceil(2),
        "the tasks ran out of frames: more must be ready"
    );
    let slice = Slice {
        units: 0.0,
        busy,
        latencies_us,
        usage: Some(used),
        ..Slice::default()
    }
    .with_syncs(after.syncs - before.syncs);
    Ok((Run { slice, before, after }, rest))
}

/// Some of the latencies: a lock per frame would be measured too.
#[derive(Default)]
struct LatencySample {
    sample: std::sync::Mutex<Vec<f64>>,
    dropped: AtomicU64,
}

impl LatencySample {
    fn add(&self, latency: Duration) {
        match self.sample.try_lock() {
            Ok(mut sample) => sample.push(latency.as_secs_f64() * 1e6),
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn take(&self) -> Vec<f64> {
        self.sample
            .lock()
            .map(|mut sample| std::mem::take(&mut *sample))
            .unwrap_or_default()
    }
}
