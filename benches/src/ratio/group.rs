//! B1b: 10,000 tasks, each with one small frame outstanding.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ledge_log::storage::sim::Rng;
use ledge_proto::frame::{Frame, FrameWriter};

use super::Context;
use super::harness::{Comparison, Row, Slice, compare, repeat};
use super::workload::{RawFile, key, open, payload};

const TASKS: usize = 10_000;
const RECORDS: u32 = 8;
const VALUE_BYTES: usize = 256;
/// Frames each task has ready per slice.
const READY: usize = 24;

pub(super) fn commit(context: &Context) -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let log = open(&context.dir.join("log"))?;
    let payload = Arc::new(payload(&mut Rng::new(3), RECORDS, VALUE_BYTES));
    let mut writers: Vec<FrameWriter> = (0..TASKS).map(|n| FrameWriter::new(key(n))).collect();
    let mut block_bytes = 1 << 20;
    let mut records_per_s = Vec::new();
    let mut raw_file = RawFile::create(&context.dir.join("raw"), 256 * 1024 * 1024)?;
    let noise = vec![0xA5; 4 << 20];
    let block = std::cell::Cell::new(block_bytes);
    let mut row = compare(
        Comparison {
            id: "B1b".to_owned(),
            unit: "MB/s",
            flush: "fdatasync",
            target: 0.6,
        },
        context.plan,
        &mut |length| {
            let bytes = &noise[..block.get()];
            repeat(length, || {
                raw_file.append(bytes)?;
                Ok(mega(bytes.len() as u64))
            })
        },
        &mut |length| {
            log.recycle_before(log.durable_block())?;
            let before = log.stats();
            let frames = make(&mut writers, &payload)?;
            let (slice, rest) = runtime.block_on(run(&log, frames, length))?;
            // What was made and not sent has to be made again, with the same numbers.
            for (writer, first) in writers.iter_mut().zip(rest) {
                if let Some(first) = first {
                    *writer = first;
                }
            }
            let after = log.stats();
            let records = after.records - before.records;
            let blocks = (after.commits - before.commits).max(1);
            block_bytes = usize::try_from((after.written_bytes - before.written_bytes) / blocks)?;
            block.set(block_bytes.clamp(4096, noise.len()) / 4096 * 4096);
            #[allow(clippy::cast_precision_loss, reason = "a rate")]
            records_per_s.push(records as f64 / slice.busy.as_secs_f64());
            let units = mega(after.payload_bytes - before.payload_bytes);
            Ok(Slice { units, ..slice })
        },
    )?;
    let stats = log.stats();
    let rate = super::harness::median(&mut records_per_s);
    row.ours_syncs = stats.syncs;
    row.note = format!(
        "{:.2} M durable records/s (target 3), {} KiB per block, {} commits, {} fdatasync ({} beginning segments)",
        rate / 1e6,
        block_bytes / 1024,
        stats.commits,
        stats.syncs,
        stats.syncs - stats.commits,
    );
    row.met &= rate >= 3e6;
    log.close()?;
    Ok(vec![row])
}

#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Each task's next frames, with the writer as it was before each.
type Ready = Vec<(FrameWriter, Frame)>;

fn make(writers: &mut [FrameWriter], payload: &[u8]) -> anyhow::Result<Vec<Ready>> {
    let make_one = |writer: &mut FrameWriter| -> anyhow::Result<Ready> {
        (0..READY)
            .map(|_| Ok((writer.clone(), writer.frame(RECORDS, payload)?)))
            .collect()
    };
    writers.iter_mut().map(make_one).collect()
}

/// Runs all tasks for about `length`. Returns, per task, the writer before its first frame that was not sent.
async fn run(
    log: &ledge_log::Log,
    ready: Vec<Ready>,
    length: Duration,
) -> anyhow::Result<(Slice, Vec<Option<FrameWriter>>)> {
    let over = Arc::new(AtomicBool::new(false));
    let latency = Arc::new(LatencySample::default());
    let start = Instant::now();
    let mut tasks = Vec::with_capacity(ready.len());
    for (n, frames) in ready.into_iter().enumerate() {
        let (log, over, latency) = (log.clone(), over.clone(), latency.clone());
        tasks.push(tokio::spawn(async move {
            for (writer, frame) in frames {
                if over.load(Ordering::Relaxed) {
                    return Ok(Some(writer));
                }
                let sent = Instant::now();
                log.append_frame(frame).await?;
                if n % 64 == 0 {
                    latency.add(sent.elapsed());
                }
            }
            anyhow::Ok(None)
        }));
    }
    tokio::time::sleep(length).await;
    over.store(true, Ordering::Relaxed);
    let mut rest = Vec::with_capacity(tasks.len());
    for task in tasks {
        rest.push(task.await??);
    }
    let slice = Slice {
        units: 0.0,
        busy: start.elapsed(),
        latencies_us: latency.take(),
    };
    Ok((slice, rest))
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
