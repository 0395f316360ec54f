//! B2c: opening a log whose writer was killed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ledge_log::storage::sim::Rng;
use ledge_log::{DiskStorage, Log, Options};
use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::ClusterId;

use super::Context;
use super::harness::{Comparison, Plan, Row, Slice, compare};
use super::workload::{frame_of, key};

const BLOCK_BYTES: usize = 65_536;
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

fn open_log(dir: &Path) -> anyhow::Result<(Log, ledge_log::Recovery)> {
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        mark_after_idle: None,
        prepare_ahead: false,
        ..Options::new(ClusterId([1; 16]), "cloud")
    };
    Ok(Log::open(Arc::new(DiskStorage), dir, options)?)
}

pub(super) fn fill_and_die(dir: &Path, mib: u64) -> anyhow::Result<()> {
    let (log, _) = open_log(dir)?;
    let mut noise = vec![0; BLOCK_BYTES];
    Rng::new(5).fill(&mut noise);
    let mut writer = FrameWriter::new(key(1));
    for _ in 0..mib * 1024 * 1024 / BLOCK_BYTES as u64 {
        log.append_frame_blocking(frame_of(&mut writer, &noise, BLOCK_BYTES - 92)?)?;
    }
    // As kill -9 does it: no destructor runs.
    std::process::abort();
}

pub(super) fn open(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let mib = if context.plan.quick { 160 } else { 1000 };
    let dir = context.dir.join("log");
    let program = std::env::current_exe()?;
    let status = Command::new(program)
        .arg("--fill-and-die")
        .arg(&dir)
        .arg(mib.to_string())
        .status()?;
    anyhow::ensure!(
        status.code().is_none(),
        "the writer was to be killed, but {status}"
    );
    // Every opening starts from what the killed process left.
    let supers: Vec<(PathBuf, Option<Vec<u8>>)> = ["super-a", "super-b"]
        .iter()
        .map(|name| dir.join(name))
        .map(|path| (path.clone(), std::fs::read(path).ok()))
        .collect();
    let segments = segments(&dir)?;
    let mut worst = Duration::ZERO;
    let row = compare(
        Comparison {
            id: "B2c".to_owned(),
            unit: "GiB/s",
            flush: "fdatasync",
            target: 0.8,
        },
        context.plan,
        &mut |plan| {
            timed(plan, mib, || {
                plan.begin()?;
                let start = Instant::now();
                let blocks = scan(&segments)?;
                let took = start.elapsed();
                plan.end()?;
                anyhow::ensure!(blocks > 0, "no blocks");
                Ok(took)
            })
        },
        &mut |plan| {
            timed(plan, mib, || {
                for (path, content) in &supers {
                    match content {
                        Some(content) => std::fs::write(path, content)?,
                        None => drop(std::fs::remove_file(path)),
                    }
                }
                plan.begin()?;
                let start = Instant::now();
                let (log, recovery) = open_log(&dir)?;
                let took = start.elapsed();
                plan.end()?;
                anyhow::ensure!(!recovery.clean && recovery.torn_at.is_none(), "{recovery:?}");
                worst = worst.max(took);
                drop(log);
                Ok(took)
            })
        },
    )?;
    let per_gib = 1000.0 / row.ours;
    let note = format!(
        "{per_gib:.1} ms per GiB in the median (target 200), {:.1} ms at worst for {mib} MiB",
        worst.as_secs_f64() * 1e3
    );
    Ok(vec![Row {
        met: row.met && per_gib <= 200.0,
        note,
        ..row
    }])
}

/// Repeats `once`, which returns the time it took, for the length of a slice.
fn timed(plan: &Plan, mib: u64, mut once: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<Slice> {
    let mut slice = Slice::default();
    while slice.busy < plan.slice {
        let took = once()?;
        slice.busy += took;
        slice.latencies_us.push(took.as_secs_f64() * 1e6);
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let gib = mib as f64 / 1024.0;
        slice.units += gib;
    }
    Ok(slice.of_bytes(f64::from(1 << 30)))
}

fn segments(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "ldg"));
    paths.sort();
    Ok(paths)
}

/// From header to header: 64 bytes each, nothing checked.
fn scan(segments: &[PathBuf]) -> anyhow::Result<u64> {
    let mut blocks = 0;
    for path in segments {
        let file = File::open(path)?;
        let mut at = 4096;
        let mut header = [0; 64];
        while file.read_at(&mut header, at)? == header.len() && header[..4] == *b"LBK1" {
            let body: [u8; 4] = header[8..12].try_into().context("four bytes")?;
            at += (64 + u64::from(u32::from_le_bytes(body))).next_multiple_of(4096);
            blocks += 1;
        }
    }
    Ok(blocks)
}
