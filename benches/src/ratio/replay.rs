//! B2a and B2b: reading what is there, from the page cache.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use ledge_log::storage::sim::Rng;
use ledge_log::{BlockNo, Log};
use ledge_proto::checksum::crc32c;
use ledge_proto::frame::{Codec, FrameWriter};
use ledge_proto::ids::Seq;
use ledge_proto::v1;
use prost::Message;
use prost::encoding::decode_varint;

use super::Context;
use super::harness::{Comparison, Row, compare, repeat};
use super::workload::{PageBuffer, key, open, payload};

const WINDOW: usize = 1 << 20;
/// Records per frame and bytes per value: frames of about 64 KiB.
const RECORDS: u32 = 256;
const VALUE_BYTES: usize = 208;

/// A log of one stream, and its frames' payloads one after the other in a plain file.
struct Data {
    log: Log,
    raw: PathBuf,
    raw_len: u64,
    /// Compressed and uncompressed length of each payload.
    payloads: Vec<(usize, usize)>,
    records: u64,
}

fn prepare(dir: &Path, quick: bool) -> anyhow::Result<Data> {
    let log = open(&dir.join("log"))?;
    let raw = dir.join("raw");
    let mut writer = FrameWriter::new(key(1));
    let mut rng = Rng::new(4);
    let frames = if quick { 512 } else { 3072 };
    let mut flat = Vec::new();
    let mut payloads = Vec::new();
    for _ in 0..frames {
        let payload = payload(&mut rng, RECORDS, VALUE_BYTES);
        let frame = writer.frame(RECORDS, &payload)?;
        anyhow::ensure!(frame.codec() == Codec::Zstd, "records like these compress");
        let stored = zstd::bulk::compress(&payload, 1)?;
        flat.extend_from_slice(&stored);
        payloads.push((stored.len(), payload.len()));
        log.append_frame_blocking(frame)?;
    }
    std::fs::write(&raw, &flat)?;
    Ok(Data {
        log,
        raw,
        raw_len: flat.len() as u64,
        payloads,
        records: u64::from(RECORDS) * frames,
    })
}

#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// What is checked beyond the checksum of each block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    /// The chain of blocks.
    Blocks,
    /// The chain of frames, which hashes all content.
    Content,
}

pub(super) fn blocks(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let data = prepare(&context.dir, context.plan.quick)?;
    let file = File::open(&data.raw)?;
    let mut rows = Vec::new();
    let variants = [
        ("B2a-crc", Check::Nothing, 0.90),
        ("B2a-chain", Check::Blocks, 0.50),
        ("B2a-content", Check::Content, 0.90),
    ];
    for (id, check, target) in variants {
        if !context.wants(id) {
            continue;
        }
        let mut buf = PageBuffer::zeroed(WINDOW);
        let row = compare(
            Comparison {
                id: id.to_owned(),
                unit: "GB/s",
                flush: "none",
                target,
            },
            context.plan,
            &mut |plan| {
                repeat(plan, || {
                    let mut at = 0;
                    while at < data.raw_len {
                        let read = file.read_at(&mut buf, at)?;
                        std::hint::black_box(crc32c(&buf[..read]));
                        if check == Check::Content {
                            // In pieces of the size of a frame, as anybody would have to.
                            for piece in buf[..read].chunks(56 * 1024) {
                                std::hint::black_box(blake3::hash(piece));
                            }
                        }
                        at += read as u64;
                    }
                    Ok(giga(data.raw_len))
                })
                .map(|slice| slice.of_bytes(1e9))
            },
            &mut |plan| Ok(repeat(plan, || read_blocks(&data, check))?.of_bytes(1e9)),
        )?;
        rows.push(Row {
            raw_p99_us: None,
            ours_p99_us: None,
            ..row
        });
    }
    Ok(rows)
}

fn read_blocks(data: &Data, check: Check) -> anyhow::Result<f64> {
    let mut reader = data.log.read_blocks(BlockNo::ZERO);
    let mut bytes = 0;
    let mut chain = key(1).genesis_chain();
    let mut block_chain = None;
    while let Some(block) = reader.next_block()? {
        bytes += block.len_bytes() as u64;
        match check {
            Check::Nothing => {}
            Check::Blocks => {
                anyhow::ensure!(
                    block_chain.is_none_or(|before| before == block.prev_chain),
                    "chain broken"
                );
                block_chain = Some(block.chain()?);
            }
            Check::Content => {
                for frame in block.frames() {
                    let frame = frame?;
                    frame.follows(chain)?;
                    chain = frame.chain();
                }
            }
        }
    }
    Ok(giga(bytes))
}

pub(super) fn records(context: &Context<'_>) -> anyhow::Result<Vec<Row>> {
    let data = prepare(&context.dir, context.plan.quick)?;
    let file = File::open(&data.raw)?;
    // As they are stored, for a million records.
    let bytes = giga(data.raw_len) * 1e9 / mega(data.records);
    let row = compare(
        Comparison {
            id: "B2b".to_owned(),
            unit: "M records/s",
            flush: "none",
            target: 0.95,
        },
        context.plan,
        &mut |plan| Ok(repeat(plan, || decode_raw(&file, &data))?.of_bytes(bytes)),
        &mut |plan| {
            let slice = repeat(plan, || {
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
            })?;
            Ok(slice.of_bytes(bytes))
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

/// pread 1 MiB, checksum it, decompress and decode what is in it.
fn decode_raw(file: &File, data: &Data) -> anyhow::Result<f64> {
    let mut at = 0;
    let mut count = 0;
    let mut buf = PageBuffer::zeroed(WINDOW);
    let mut payloads = data.payloads.iter().peekable();
    while payloads.peek().is_some() {
        let read = file.read_at(&mut buf, at)?;
        std::hint::black_box(crc32c(&buf[..read]));
        let mut used = 0;
        while let Some((stored, raw)) = payloads.next_if(|(stored, _)| used + stored <= read) {
            let mut left = Bytes::from(zstd::bulk::decompress(&buf[used..used + stored], *raw)?);
            while left.has_remaining() {
                let len = usize::try_from(decode_varint(&mut left)?)?;
                std::hint::black_box(v1::Record::decode(left.split_to(len))?);
                count += 1;
            }
            used += stored;
        }
        anyhow::ensure!(used > 0, "a window holds at least one payload");
        at += used as u64;
    }
    Ok(mega(count))
}
