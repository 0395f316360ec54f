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
use std::time::Duration;

use common::{dir, frame, options, record, remote_key, segment_path, snapshot, storage, stream};
use ledge_log::{BlockKind, BlockNo, Log, LogView, OnDamage, Options, SimDisk};
use ledge_proto::checksum::{crc32c, crc32c_of};
use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::{Chain, Epoch, Lane, Mark, Position, Seq, StreamKey};
use ledge_proto::v1;
use ledge_proto::v1::snapshot::Purpose;
use prost::Message as _;

/// Bytes of one change: file, offset (3), value, what to mend.
const CHANGE: usize = 6;
const MOST_CHANGES: usize = 32;
const SEGMENT_HEADER: usize = 4096;
const BLOCK_HEADER: usize = 64;
const DIR_ENTRY: usize = 28;

/// A closed log of three segments: own streams and a foreign one, bases and a new beginning of several parts each, SEAL and
/// STREAMS blocks.
fn log() -> &'static SimDisk {
    static LOG: OnceLock<SimDisk> = OnceLock::new();
    LOG.get_or_init(|| {
        let disk = SimDisk::new();
        let (log, _) = Log::open(storage(&disk), &dir(), small()).unwrap();
        let mut foreign = FrameWriter::new(remote_key(3));
        for (n, lane) in (0..60).zip(Lane::REPLICATED.into_iter().cycle()) {
            log.append_blocking(&stream(lane), vec![record(n); 4]).unwrap();
            log.append_frame_blocking(frame(&mut foreign, 3)).unwrap();
            if n == 10 {
                let key = log.own_key(&stream(lane));
                let base = log.durable(&key).unwrap();
                log.append_snapshot_blocking(snapshot(&key, base, Purpose::Base, 3, 0))
                    .unwrap();
                let begun = snapshot(&key, new_mark(), Purpose::Rebase, 2, 4);
                log.append_snapshot_blocking(begun).unwrap();
            }
        }
        log.close().unwrap();
        disk
    })
}

fn new_mark() -> Mark {
    Mark {
        position: Position {
            epoch: Epoch(2),
            seq: Seq(1000),
        },
        chain: Chain([5; 16]),
    }
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

/// Whatever the log takes for a snapshot, it finds again, and opens with.
fn store_snapshot(input: &[u8]) {
    let Ok(part) = v1::Snapshot::decode(input) else {
        return;
    };
    let disk = SimDisk::new();
    let (log, _) = Log::open(storage(&disk), &dir(), small()).unwrap();
    log.append_blocking(&stream(Lane::UpData), vec![record(1)])
        .unwrap();
    if log.append_snapshot_blocking(vec![part.clone()]).is_err() {
        return log.close().unwrap();
    }
    let key = ledge_proto::fold::snapshot::key_of(&part).unwrap();
    let at = log.snapshot_of(&key).unwrap();
    assert_eq!(log.read_snapshot(&at).unwrap(), std::slice::from_ref(&part));
    log.close().unwrap();
    let (log, _) = Log::open(storage(&disk), &dir(), small()).unwrap();
    assert_eq!(log.snapshot_of(&key), Some(at.clone()));
    assert_eq!(log.read_snapshot(&at).unwrap(), [part]);
    assert_eq!(common::verify(&disk).findings, []);
}

/// Long enough for the whole corpus on any machine; the number of random inputs is what limits a run.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn damaged_files() {
    bolero::check!()
        .with_iterations(200)
        .with_test_time(PATIENCE)
        .for_each(open_and_read);
}

#[test]
fn stored_snapshot() {
    bolero::check!()
        .with_iterations(500)
        .with_test_time(PATIENCE)
        .for_each(store_snapshot);
}

/// Every corpus holds what this version makes of its formats, and what else was put there.
#[test]
fn corpus() {
    for (target, seeds) in [("damaged_files", changes()), ("stored_snapshot", snapshots())] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/__fuzz__/{target}/corpus"));
        for (name, bytes) in seeds {
            let path = folder.join(name);
            if std::env::var_os("LEDGE_WRITE_CORPUS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &bytes).unwrap();
            }
            assert!(
                std::fs::read(&path).is_ok_and(|there| there == bytes),
                "{} is not what this version writes: run it with LEDGE_WRITE_CORPUS=1",
                path.display()
            );
        }
    }
}

type Seeds = Vec<(String, Vec<u8>)>;

/// One change each, mended: of the fields of each header, and of the bodies of the first block of each kind.
fn changes() -> Seeds {
    let files = files(log());
    let mut seeds = Seeds::new();
    let mut change = |what: &str, file: usize, at: usize, values: &[u8]| {
        let [_, high, middle, low] = u32::try_from(at).unwrap().to_be_bytes();
        for value in values {
            let bytes = vec![u8::try_from(file).unwrap(), high, middle, low, *value, 1];
            seeds.push((format!("{what}-{at:06x}-{value:02x}"), bytes));
        }
    };
    let segment = [0, 8, 10, 12, 16, 32, 48, 56, 64, 80, 88, 96, 100, 104, 4092];
    for at in segment {
        change("segment", 0, at, &[0x00, 0xff]);
        change("later-segment", 1, at, &[0xff]);
        change("superblock", files.len() - 1, at, &[0x00, 0xff]);
    }
    for kind in [
        BlockKind::Data,
        BlockKind::Snapshot,
        BlockKind::Seal,
        BlockKind::Streams,
    ] {
        let (file, block) = last_block_of(kind);
        for field in [0, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 52, 56] {
            let values: &[u8] = if kind == BlockKind::Data {
                &[0x00, 0xff]
            } else {
                &[0xff]
            };
            change(kind.name(), file, block + field, values);
        }
        for field in (0..60).step_by(4).chain([66, 200]) {
            change(kind.name(), file, block + BLOCK_HEADER + field, &[0xff]);
        }
    }
    // Every byte of a part's head: its fields are not at fixed places.
    let (file, block) = last_block_of(BlockKind::Snapshot);
    for field in 0..70 {
        change("part", file, block + BLOCK_HEADER + field, &[0x7f]);
    }
    seeds
}

/// The last block of a kind: file and offset.
fn last_block_of(kind: BlockKind) -> (usize, usize) {
    let files = files(log()).into_iter().enumerate();
    let blocks = files.flat_map(|(file, path)| {
        let bytes = log().read(&path).unwrap();
        let starts = (SEGMENT_HEADER..bytes.len()).step_by(512);
        let of_kind = starts.filter(|at| bytes[*at..].starts_with(b"LBK1") && bytes[at + 4] == kind as u8);
        of_kind.map(|at| (file, at)).collect::<Vec<_>>()
    });
    blocks
        .last()
        .unwrap_or_else(|| panic!("there is no {} block", kind.name()))
}

/// Snapshots that are taken, and some that must not be.
fn snapshots() -> Seeds {
    let own = {
        let (log, _) = Log::open(storage(&SimDisk::new()), &dir(), small()).unwrap();
        log.own_key(&stream(Lane::UpData))
    };
    let part = |key: &StreamKey, purpose, after| snapshot(key, new_mark(), purpose, 1, after).remove(0);
    let odd = |change: fn(&mut v1::Snapshot)| {
        let mut part = part(&remote_key(2), Purpose::Rebase, 0);
        change(&mut part);
        part
    };
    let seeds = [
        ("own", part(&own, Purpose::Rebase, 1)),
        ("foreign", part(&remote_key(2), Purpose::Rebase, 0)),
        ("base", part(&own, Purpose::Base, 0)),
        ("hint", part(&own, Purpose::Hint, 0)),
        ("no-purpose", odd(|part| part.purpose = 99)),
        ("seq-most", odd(|part| part.seq = u64::MAX / 2 - 1)),
        ("seq-too-high", odd(|part| part.seq = u64::MAX)),
        ("seq-none", odd(|part| part.seq = 0)),
        ("epoch-none", odd(|part| part.epoch = 0)),
        ("epoch-last", odd(|part| part.epoch = u32::MAX)),
        (
            "superseded-most",
            odd(|part| part.superseded_after = Some(u64::MAX)),
        ),
        ("raw-most", odd(|part| part.raw_len = u32::MAX)),
        ("no-entries", odd(|part| part.entries.clear())),
        ("long-scope", odd(|part| part.scope = "a".repeat(253))),
        ("long-chain", odd(|part| part.chain = vec![1; 4000])),
        ("long-entries", odd(|part| part.entries = vec![1; 9000].into())),
    ];
    seeds
        .map(|(name, part)| (name.to_owned(), part.encode_to_vec()))
        .into()
}
