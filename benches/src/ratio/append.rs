//! B1a and B1d: one thread, one group outstanding.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use ledge_log::storage::sim::Rng;
use ledge_log::{CheckedFrame, Log};
use ledge_proto::frame::{Frame, FrameWriter};
use ledge_proto::ids::{Chain, Mark};

use super::Context;
use super::harness::{Comparison, Plan, Row, Slice, compare, median, repeat, round};
use super::usage::Usage;
use super::workload::{PageBuffer, RawFile, frame_of, give_up, key, open};

/// Header of a block and one directory entry.
const BLOCK_OVERHEAD: usize = 64 + 28;
const RAW_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// Frames of one stream made ahead of time, so that making them is not measured.
struct Source {
    writer: FrameWriter,
    noise: Vec<u8>,
    block_bytes: usize,
    ready: VecDeque<CheckedFrame>,
}

impl Source {
    fn new(n: usize, block_bytes: usize) -> Source {
        let mut noise = vec![0; block_bytes];
        Rng::new(1).fill(&mut noise);
        Source {
            writer: FrameWriter::new(key(n)),
            noise,
            block_bytes,
            ready: VecDeque::new(),
        }
    }

    fn make(&mut self, count: usize) -> anyhow::Result<()> {
        while self.ready.len() < count {
            let after: Chain = self.writer.chain();
            let frame = frame_of(&mut self.writer, &self.noise, self.block_bytes - BLOCK_OVERHEAD)?;
            self.ready.push_back(CheckedFrame::check(frame, after)?);
        }
        Ok(())
    }

    /// Appends for the length of a slice; every frame goes through `append`.
    fn slice(
        &mut self,
        plan: &Plan,
        ahead: usize,
        append: &mut dyn FnMut(CheckedFrame) -> anyhow::Result<Mark>,
    ) -> anyhow::Result<Slice> {
        let mut slice = Slice::default();
        while slice.busy < plan.slice {
            self.make(ahead)?;
            // Neither making frames nor giving back their memory is measured: the raw side keeps its buffers too.
            let _kept: Vec<Frame> = self.ready.iter().map(|ready| ready.frame().clone()).collect();
            plan.begin()?;
            let before = Usage::now();
            let start = Instant::now();
            let mut last = start;
            while let Some(frame) = self.ready.pop_front() {
                append(frame)?;
                let now = Instant::now();
                slice.latencies_us.push((now - last).as_secs_f64() * 1e6);
                slice.units += 1.0;
                last = now;
                if slice.busy + (last - start) >= plan.slice {
                    break;
                }
            }
            slice.busy += last - start;
            slice.usage = Some(slice.usage.unwrap_or_default() + (Usage::now() - before));
            plan.end()?;
        }
        Ok(slice)
    }
}

pub(super) fn groups(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (id, block_bytes, target) in [
        ("B1a-4K", 4096, 0.90),
        ("B1a-64K", 65_536, 0.93),
        ("B1a-1M", 1 << 20, 0.95),
    ] {
        if !context.wants(id) {
            continue;
        }
        let dir = context.dir.join(id);
        let log = open(&dir)?;
        let mut raw = RawFile::create(&context.dir.join("raw"), RAW_FILE_BYTES)?;
        // As many different buffers as ours has frames, so that both read them from memory, not from the cache.
        let ahead = ((16 << 20) / block_bytes).min(2048);
        let mut noise = PageBuffer::zeroed(block_bytes * ahead);
        Rng::new(2).fill(&mut noise);
        let mut buffers = noise.chunks(block_bytes).cycle();
        let mut source = Source::new(1, block_bytes);
        #[allow(clippy::cast_precision_loss, reason = "a size")]
        let bytes = block_bytes as f64;
        let mut row = compare(
            Comparison {
                id: id.to_owned(),
                unit: "appends/s",
                flush: "fdatasync",
                target,
            },
            context.plan,
            &mut |plan| {
                let slice = repeat(plan, || {
                    raw.append(buffers.next().context("at least one buffer")?)?;
                    Ok(1.0)
                })?;
                Ok(slice.of_bytes(bytes).with_syncs(raw.take_syncs()))
            },
            &mut |plan| {
                recycle(&log)?;
                let before = log.stats().syncs;
                let slice =
                    source.slice(plan, ahead, &mut |frame| Ok(log.append_checked_blocking(frame)?))?;
                Ok(slice.of_bytes(bytes).with_syncs(log.stats().syncs - before))
            },
        )?;
        let stats = log.stats();
        row.note = format!(
            "{} appends in {} commits, all of them chained and checksummed",
            stats.frames, stats.commits
        );
        let tail = tail(&row);
        rows.push(row);
        rows.extend(tail);
        log.close()?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(rows)
}

/// The slowest appends of both sides, where both ran.
fn tail(row: &Row) -> Option<Row> {
    let (raw, ours) = (row.raw_p99_us?, row.ours_p99_us?);
    let ratio = ours / raw;
    Some(Row {
        raw,
        ours,
        ratio: round(ratio),
        met: ratio <= 1.2,
        slices: row.slices,
        ..Row::empty(Comparison {
            id: format!("{}-p99", row.id),
            unit: "us, 99th percentile of all slices (lower is better)",
            flush: row.flush,
            target: 1.2,
        })
    })
}

/// Keeps one used segment ready, as retention does in the long run.
fn recycle(log: &Log) -> anyhow::Result<()> {
    give_up(log)
}

pub(super) fn amplification(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    if !context.wants("B1d-log") {
        return Ok(Vec::new());
    }
    let block_bytes = 65_536;
    let log = open(&context.dir.join("log"))?;
    let mut source = Source::new(1, block_bytes);
    // Enough to have used segments to write over: a new one is written twice, once with zeros.
    let segment_blocks = 256 * 1024 * 1024 / block_bytes;
    let mut append = |log: &Log, blocks: usize| -> anyhow::Result<()> {
        for _ in 0..blocks {
            source.make(1)?;
            let frame = source.ready.pop_front().context("a frame was made")?;
            log.append_checked_blocking(frame)?;
        }
        Ok(())
    };
    append(&log, segment_blocks * 5 / 2)?;
    let rounds = if context.plan.quick { 2 } else { 6 };
    let mut amplifications = Vec::new();
    let mut payload_bytes = Vec::new();
    let (started, syncs_before) = (Usage::now(), log.stats().syncs);
    for _ in 0..rounds {
        recycle(&log)?;
        forget_cached(&context.dir.join("log"))?;
        let (before, stats) = (Usage::now(), log.stats());
        append(&log, segment_blocks / 2)?;
        let payload = log.stats().payload_bytes - stats.payload_bytes;
        let written = (Usage::now() - before).device_write_bytes;
        #[allow(clippy::cast_precision_loss, reason = "a ratio of byte counts")]
        amplifications.push(written as f64 / payload as f64);
        payload_bytes.push(payload);
    }
    let used = Usage::now() - started;
    let stats = log.stats();
    #[allow(clippy::cast_precision_loss, reason = "a ratio of byte counts")]
    let by_format = stats.written_bytes as f64 / stats.payload_bytes as f64;
    log.close()?;
    let what = Comparison {
        id: "B1d-log".to_owned(),
        unit: "device bytes per payload byte (lower is better)",
        flush: "fdatasync",
        target: 1.03,
    };
    let row = amplified(what, amplifications, payload_bytes.iter().sum(), used);
    Ok(vec![Row {
        ours_syncs: Some(stats.syncs - syncs_before),
        note: format!("by the log's own count {by_format:.4}; ratio_min is the worst round"),
        ..row
    }])
}

/// What `amplifications`, one of each round, come to: of `payload` bytes in all, with what was used for them.
pub(super) fn amplified(what: Comparison, mut amplifications: Vec<f64>, payload: u64, used: Usage) -> Row {
    let amplification = median(&mut amplifications);
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let gb = payload as f64 / 1e9;
    Row {
        raw: 1.0,
        ours: round(amplification),
        ratio: round(amplification),
        ratio_min: round(amplifications.last().copied().unwrap_or(f64::NAN)),
        met: amplification <= what.target,
        slices: amplifications.len(),
        ours_cpu_s_per_gb: Some(round(used.cpu.as_secs_f64() / gb)),
        raw_device_write_bytes: payload,
        ours_device_write_bytes: used.device_write_bytes,
        ..Row::empty(what)
    }
}

/// Drops clean pages of all files in `dir` from the cache. The kernel counts whole folios as written when a part of
/// one is made dirty: files just filled with zeros are in the cache as large ones, after this writing makes small
/// ones.
pub(super) fn forget_cached(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let file = std::fs::File::open(entry?.path())?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}
