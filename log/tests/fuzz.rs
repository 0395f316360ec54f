//! Fuzz targets of what is read from disk. An input is a list of changes to the files of a small log; a change may be
//! followed by mending the checksums around it, so that what lies behind the checksums is reached too.
//!
//! `cargo test` replays the corpus in `__fuzz__/` and adds random inputs; `cargo bolero test -p ledge-log --test fuzz
//! NAME` (cargo-bolero) runs one with coverage for as long as wanted. `LEDGE_WRITE_CORPUS=1 cargo test -p ledge-log
//! --test fuzz corpus` writes the corpus again.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use common::{dir, frame, options, record, remote_key, segment_path, storage, stream};
use ledge_log::{BlockNo, Log, LogView, OnDamage, Options, SimDisk};
use ledge_proto::checksum::{crc32c, crc32c_of};
use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::{Lane, Seq};

/// Bytes of one change: file, offset (3), value, what to mend.
const CHANGE: usize = 6;
const MOST_CHANGES: usize = 32;
const SEGMENT_HEADER: usize = 4096;
const BLOCK_HEADER: usize = 64;
const DIR_ENTRY: usize = 28;

/// A closed log of three segments: own streams, a foreign one, SEAL and STREAMS blocks.
fn log() -> &'static SimDisk {
    static LOG: OnceLock<SimDisk> = OnceLock::new();
    LOG.get_or_init(|| {
        let disk = SimDisk::new();
        let (log, _) = Log::open(storage(&disk), &dir(), small()).unwrap();
        let mut foreign = FrameWriter::new(remote_key(3));
        for (n, lane) in (0..60).zip(Lane::REPLICATED.into_iter().cycle()) {
            log.append_blocking(&stream(lane), vec![record(n); 4]).unwrap();
            log.append_frame_blocking(frame(&mut foreign, 3)).unwrap();
        }
        log.close().unwrap();
        disk
    })
}

fn small() -> Options {
    Options {
        segment_bytes: 32 * 1024,
        ..options(1)
    }
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = (0..4).map(segment_path).collect();
    files.extend([dir().join("super-a"), dir().join("super-b")]);
    files.retain(|path| disk.read(path).is_some());
    files
}

/// Carries out the changes of `input` on a copy of the log.
fn changed(input: &[u8]) -> SimDisk {
    let disk = log().after_kill();
    let files = files(&disk);
    for change in input.chunks_exact(CHANGE).take(MOST_CHANGES) {
        let path = &files[usize::from(change[0]) % files.len()];
        let at = usize::from(change[1]) << 16 | usize::from(change[2]) << 8 | usize::from(change[3]);
        disk.corrupt(path, |bytes| {
            let at = at % bytes.len();
            bytes[at] = change[4];
            if change[5] & 1 == 1 {
                mend(path, bytes, at);
            }
        });
    }
    disk
}

/// Makes the checksum over `at` match again.
fn mend(path: &Path, bytes: &mut [u8], at: usize) {
    let segment = path.extension().is_some();
    if !segment || at < SEGMENT_HEADER {
        let end = bytes.len().min(SEGMENT_HEADER) - 4;
        let crc = crc32c(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        return;
    }
    let salt = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
    let no = u32::from_le_bytes(bytes[48..52].try_into().unwrap());
    let seed = (salt ^ no).to_le_bytes();
    // The block it is in: the nearest magic number before, at a multiple of 512.
    let mut starts = (SEGMENT_HEADER / 512..=at / 512).rev().map(|unit| unit * 512);
    let Some(block) = starts.find(|start| bytes[*start..].starts_with(b"LBK1")) else {
        return;
    };
    let body_len = u32::from_le_bytes(bytes[block + 8..block + 12].try_into().unwrap()) as usize;
    if let Some(body) = bytes
        .get(block + BLOCK_HEADER..)
        .and_then(|rest| rest.get(..body_len))
    {
        let dir_len = usize::from(u16::from_le_bytes([bytes[block + 6], bytes[block + 7]])) * DIR_ENTRY;
        let dir = &body[..dir_len.min(body.len())];
        let (body, dir) = (crc32c_of(&[&seed, body]), crc32c_of(&[&seed, dir]));
        bytes[block + 48..block + 52].copy_from_slice(&body.to_le_bytes());
        bytes[block + 56..block + 60].copy_from_slice(&dir.to_le_bytes());
    }
    let (head, tail) = (block..block + 12, block + 16..block + BLOCK_HEADER);
    let crc = crc32c_of(&[&seed, &bytes[head], &bytes[tail]]);
    bytes[block + 12..block + 16].copy_from_slice(&crc.to_le_bytes());
}

/// Whatever is on the disk, nothing panics, and what opens goes on working.
fn open_and_read(input: &[u8]) {
    let disk = changed(input);
    if let Ok(view) = LogView::open(Arc::new(disk.clone()), &dir()) {
        for info in view.streams() {
            let mut reader = view.read_stream(&info.key, Seq::ZERO);
            while let Ok(Some(frame)) = reader.next() {
                frame.records().map(Iterator::count).ok();
            }
        }
        let mut reader = view.read_blocks(BlockNo::ZERO);
        while let Ok(Some(block)) = reader.next_block() {
            block.frames().count();
        }
    }
    ledge_log::verify(&disk, &dir()).ok();
    let tolerant = Options {
        on_damage: OnDamage::Quarantine,
        ..small()
    };
    if let Ok((log, _)) = Log::open(storage(&disk.after_kill()), &dir(), tolerant) {
        for info in log.streams() {
            let mut reader = log.read_stream(&info.key, Seq::ZERO);
            while let Ok(Some(_)) = reader.next() {}
        }
        log.append_blocking(&stream(Lane::UpData), vec![record(1)]).ok();
    }
    let Ok((log, _)) = Log::open(storage(&disk), &dir(), small()) else {
        return;
    };
    let appended = log.append_blocking(&stream(Lane::UpData), vec![record(1)]);
    log.close().ok();
    if let Ok(appended) = appended {
        // What was acknowledged is there after the next opening.
        let (log, _) = Log::open(storage(&disk), &dir(), small()).expect("it was open before");
        let durable = log.durable(&log.own_key(&stream(Lane::UpData))).unwrap();
        assert_eq!(durable.position, appended.last);
    }
}

#[test]
fn damaged_files() {
    bolero::check!().with_iterations(200).for_each(open_and_read);
}

/// Inputs that get somewhere: one change of each field of each header, with and without mending.
#[test]
fn corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/__fuzz__/damaged_files/corpus");
    if std::env::var_os("LEDGE_WRITE_CORPUS").is_none() {
        assert!(corpus.read_dir().unwrap().count() > 0, "the corpus is gone");
        return;
    }
    std::fs::create_dir_all(&corpus).unwrap();
    let segment_fields = [0, 8, 10, 12, 16, 32, 48, 56, 64, 80, 88, 96, 100, 104, 4092];
    let block_fields = [
        0, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 52, 56, 64, 68, 72, 80, 84, 88, 92, 200,
    ];
    let offsets = segment_fields
        .into_iter()
        .chain(block_fields.map(|field| SEGMENT_HEADER + field));
    for (n, at) in offsets.enumerate() {
        let [_, high, middle, low] = u32::try_from(at).unwrap().to_be_bytes();
        let mut input = Vec::new();
        for file in [0, 4] {
            for (value, mend) in [(0xff, 1), (0x00, 1)] {
                input.extend_from_slice(&[file, high, middle, low, value, mend]);
                std::fs::write(
                    corpus.join(format!("{n:02}-{file}-{value:02x}-{mend}")),
                    &input[input.len() - CHANGE..],
                )
                .unwrap();
            }
        }
    }
}
