//! Logs, frames and raw files to measure with.

use std::fs::{File, OpenOptions};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use ledge_log::storage::sim::Rng;
use ledge_log::{DiskStorage, Log, Options};
use ledge_proto::frame::{Frame, FrameWriter, push_record};
use ledge_proto::ids::{ClusterId, Incarnation, Lane, Scope, StreamId, StreamKey};
use ledge_proto::v1;

const PAGE: usize = 4096;

/// A log in `dir`, with segments of the cloud's size.
pub(super) fn open(dir: &Path) -> anyhow::Result<Log> {
    open_keeping(dir, 2)
}

/// As [`open`], keeping `spare_segments` used segments to be written over.
pub(super) fn open_keeping(dir: &Path, spare_segments: usize) -> anyhow::Result<Log> {
    let options = Options {
        segment_bytes: 256 * 1024 * 1024,
        max_queue_bytes: 64 * 1024 * 1024,
        spare_segments,
        ..Options::new(ClusterId([1; 16]), "cloud")
    };
    Ok(Log::open(Arc::new(DiskStorage), dir, options)?.0)
}

/// Gives up every segment but the one being written, as retention does: empty bases first.
pub(super) fn give_up(log: &Log) -> anyhow::Result<()> {
    while let Some(oldest) = log.oldest_segment()? {
        for (key, _, mark) in oldest.streams {
            let base = v1::Snapshot {
                scope: key.id.scope.as_wire().to_owned(),
                lane: key.id.lane.as_wire(),
                incarnation: key.incarnation.0.to_vec(),
                epoch: mark.position.epoch.0,
                seq: mark.position.seq.0,
                chain: mark.chain.0.to_vec(),
                parts: 1,
                purpose: v1::snapshot::Purpose::Base.into(),
                ..Default::default()
            };
            log.append_snapshot_blocking(vec![base])?;
        }
        log.recycle_before(oldest.last_block.next())?;
    }
    Ok(())
}

/// The `n`-th node's telemetry stream.
pub(super) fn key(n: usize) -> StreamKey {
    let scope = Scope::node(&format!("edge-{n}")).unwrap_or_else(|_| Scope::cluster());
    StreamKey {
        id: StreamId::new(scope, Lane::UpData),
        incarnation: Incarnation([9; 16]),
    }
}

/// `count` records of `value_bytes` incompressible bytes each, encoded.
pub(super) fn payload(rng: &mut Rng, count: u32, value_bytes: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(count as usize * (value_bytes + 64));
    for n in 0..count {
        let mut value = vec![0; value_bytes];
        rng.fill(&mut value);
        let record = v1::Record {
            kind: 1,
            key: format!("default/pump-{n}/t"),
            wall_us: 1_700_000_000_000_000,
            mono_us: 1_000_000,
            boot: 1,
            payload: value.into(),
            ..Default::default()
        };
        push_record(&mut payload, &record);
    }
    payload
}

/// The next frame of a stream, of `bytes` bytes or a little less.
pub(super) fn frame_of(writer: &mut FrameWriter, noise: &[u8], bytes: usize) -> anyhow::Result<Frame> {
    // Header and record fields take less than 160 bytes for the names used here.
    let value = noise.get(..bytes - 160).context("more noise is needed")?;
    let record = v1::Record {
        kind: 1,
        key: "k".to_owned(),
        payload: value.to_vec().into(),
        ..Default::default()
    };
    let mut payload = Vec::with_capacity(bytes);
    push_record(&mut payload, &record);
    Ok(writer.frame(1, &payload)?)
}

/// A buffer that begins with a page. The kernel copies whole pages to or from one that begins 16 bytes later, as large
/// allocations do, at half the speed on some processors; the raw side is to have the best there is.
pub(super) struct PageBuffer {
    bytes: Vec<u8>,
    from: usize,
}

impl PageBuffer {
    pub(super) fn zeroed(len: usize) -> PageBuffer {
        let bytes = vec![0; len + PAGE];
        let from = bytes.as_ptr().align_offset(PAGE);
        PageBuffer { bytes, from }
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.from..self.bytes.len() - PAGE + self.from]
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let end = self.bytes.len() - PAGE + self.from;
        &mut self.bytes[self.from..end]
    }
}

/// A file written with zeros once, as the log's segments are, that is written over from its start again and again.
pub(super) struct RawFile {
    pub(super) file: File,
    len: u64,
    at: u64,
    syncs: u64,
}

impl RawFile {
    pub(super) fn create(path: &Path, len: u64) -> anyhow::Result<RawFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        let zeros = vec![0; 1 << 20];
        for at in (0..len).step_by(1 << 20) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(RawFile {
            file,
            len,
            at: 0,
            syncs: 0,
        })
    }

    /// How many flushes there were since this was asked last.
    pub(super) fn take_syncs(&mut self) -> u64 {
        std::mem::take(&mut self.syncs)
    }

    /// One pwrite, one fdatasync.
    pub(super) fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.at + bytes.len() as u64 > self.len {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.file.sync_data()?;
        self.syncs += 1;
        self.at += bytes.len() as u64;
        Ok(())
    }
}
