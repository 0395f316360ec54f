//! B2a and B2b: reading what is there, from the page cache.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::{Buf, Bytes, BytesMut};
use ledge_log::storage::sim::Rng;
use ledge_log::{BlockNo, Log};
use ledge_proto::checksum::crc32c;
use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::Seq;
use ledge_proto::v1;
use prost::Message;
use prost::encoding::decode_varint;

use super::Context;
use super::harness::{Comparison, Row, compare, repeat};
use super::workload::{key, open, payload};

const WINDOW: usize = 1 << 20;
/// Records per frame and bytes per value: frames of about 64 KiB.
const RECORDS: u32 = 256;
const VALUE_BYTES: usize = 208;

/// A log of one stream, and its payloads one after the other in a plain file.
struct Data {
    log: Log,
    raw: PathBuf,
    raw_len: u64,
    records: u64,
}

fn prepare(dir: &Path, quick: bool) -> anyhow::Result<Data> {
    let log = open(&dir.join("log"))?;
    let raw = dir.join("raw");
    let mut writer = FrameWriter::new(key(1));
    let mut rng = Rng::new(4);
    let frames = if quick { 512 } else { 3072 };
    let mut flat = Vec::new();
    for _ in 0..frames {
        let payload = payload(&mut rng, RECORDS, VALUE_BYTES);
        log.append_frame_blocking(writer.frame(RECORDS, &payload)?)?;
        flat.extend_from_slice(&payload);
    }
    std::fs::write(&raw, &flat)?;
    Ok(Data {
        log,
        raw,
        raw_len: flat.len() as u64,
        records: u64::from(RECORDS) * frames,
    })
}

#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

pub(super) fn blocks(context: &Context) -> anyhow::Result<Vec<Row>> {
    let data = prepare(&context.dir, context.plan.quick)?;
    let file = File::open(&data.raw)?;
    let mut rows = Vec::new();
    for (id, chains, target) in [("B2a", false, 0.90), ("B2a-chain", true, 0.50)] {
        let mut buf = vec![0; WINDOW];
        let row = compare(
            Comparison {
                id: id.to_owned(),
                unit: "GB/s",
                flush: "none",
                target,
            },
            context.plan,
            &mut |length| {
                repeat(length, || {
                    let mut at = 0;
                    while at < data.raw_len {
                        let read = file.read_at(&mut buf, at)?;
                        std::hint::black_box(crc32c(&buf[..read]));
                        at += read as u64;
                    }
                    Ok(giga(data.raw_len))
                })
            },
            &mut |length| repeat(length, || read_blocks(&data, chains)),
        )?;
        rows.push(Row {
            raw_p99_us: None,
            ours_p99_us: None,
            ..row
        });
    }
    Ok(rows)
}

fn read_blocks(data: &Data, chains: bool) -> anyhow::Result<f64> {
    let mut reader = data.log.read_blocks(BlockNo::ZERO);
    let mut bytes = 0;
    let mut chain = key(1).genesis_chain();
    while let Some(block) = reader.next_block()? {
        bytes += block.len_bytes() as u64;
        if chains {
            for frame in block.frames() {
                let frame = frame?;
                frame.follows(chain)?;
                chain = frame.chain();
            }
        }
    }
    Ok(giga(bytes))
}

pub(super) fn records(context: &Context) -> anyhow::Result<Vec<Row>> {
    let data = prepare(&context.dir, context.plan.quick)?;
    let file = File::open(&data.raw)?;
    let row = compare(
        Comparison {
            id: "B2b".to_owned(),
            unit: "M records/s",
            flush: "none",
            target: 0.95,
        },
        context.plan,
        &mut |length| repeat(length, || decode_raw(&file, data.raw_len)),
        &mut |length| {
            repeat(length, || {
                let mut reader = data.log.read_stream(&key(1), Seq::ZERO);
                let mut count = 0;
                while let Some(frame) = reader.next()? {
                    for record in frame.records()? {
                        std::hint::black_box(record?);
                        count += 1;
                    }
                }
                anyhow::ensure!(count == data.records, "{count} records of {}", data.records);
                Ok(mega(count))
            })
        },
    )?;
    Ok(vec![Row {
        raw_p99_us: None,
        ours_p99_us: None,
        ..row
    }])
}

#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn mega(records: u64) -> f64 {
    records as f64 / 1e6
}

/// pread 1 MiB, checksum it, decode the records in it.
fn decode_raw(file: &File, len: u64) -> anyhow::Result<f64> {
    let mut at = 0;
    let mut count = 0;
    let mut spare = BytesMut::zeroed(WINDOW);
    while at < len {
        let mut buf = std::mem::take(&mut spare);
        if buf.len() < WINDOW {
            buf = BytesMut::zeroed(WINDOW);
        }
        let read = file.read_at(&mut buf, at)?;
        std::hint::black_box(crc32c(&buf[..read]));
        let whole: Bytes = buf.freeze();
        let mut left = whole.slice(..read);
        let mut used = 0;
        while left.has_remaining() {
            let mut head = &left[..];
            let Ok(record_len) = decode_varint(&mut head) else {
                break;
            };
            let record_len = usize::try_from(record_len)?;
            let skip = left.len() - head.len();
            if head.len() < record_len {
                break;
            }
            left.advance(skip);
            std::hint::black_box(v1::Record::decode(left.split_to(record_len))?);
            used += skip + record_len;
            count += 1;
        }
        anyhow::ensure!(used > 0, "no record in a window");
        at += used as u64;
        drop(left);
        spare = whole
            .try_into_mut()
            .ok()
            .context("nobody holds the window")
            .unwrap_or_default();
    }
    Ok(mega(count))
}
