//! Breaking a log by hand: what each kind of damage looks like to whoever opens, reads or verifies it.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use common::*;
use ledge_log::storage::sim::CrashKeeps;
use ledge_log::{BlockNo, DiskStorage, FindingKind, Log, LogView, OpenError, Options, ReadError, SimDisk};
use ledge_proto::ids::{Lane, Seq};

const BLOCK: usize = 512;

/// A closed log of `blocks` blocks of one sector each, one record per block.
fn log_of(blocks: u64) -> SimDisk {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    for n in 0..blocks {
        log.append_blocking(&stream(Lane::UpData), vec![record(n)])
            .unwrap();
    }
    log.close().unwrap();
    disk
}

fn block_at(no: usize) -> std::ops::Range<usize> {
    let start = 4096 + (no - 1) * BLOCK;
    start..start + BLOCK
}

fn kinds(disk: &SimDisk) -> Vec<FindingKind> {
    let mut kinds: Vec<_> = verify(disk).findings.iter().map(|finding| finding.kind).collect();
    kinds.dedup();
    kinds
}

fn reopen(disk: &SimDisk) -> Result<Log, OpenError> {
    Log::open(storage(disk), &dir(), options(2)).map(|(log, _)| log)
}

#[test]
fn a_later_version_asks_for_an_upgrade() {
    let disk = log_of(3);
    disk.corrupt(&segment_path(0), |bytes| bytes[8] = 2);
    for err in [
        reopen(&disk).unwrap_err(),
        LogView::open(storage(&disk), &dir()).err().unwrap(),
    ] {
        assert!(matches!(err, OpenError::Version { .. }), "{err}");
        assert!(
            err.to_string().contains("upgrade") && err.to_string().contains("seg-"),
            "{err}"
        );
    }
    let disk = log_of(3);
    for name in ["super-a", "super-b"] {
        if disk.read(&dir().join(name)).is_some() {
            disk.corrupt(&dir().join(name), |bytes| bytes[8] = 2);
        }
    }
    assert!(matches!(reopen(&disk), Err(OpenError::Version { .. })));
}

#[test]
fn a_file_that_was_cut_off_is_damage() {
    let temp = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1 << 20,
        ..Options::new(CLUSTER, "edge-1")
    };
    let open = || Log::open(Arc::new(DiskStorage), temp.path(), options.clone());
    let (log, _) = open().unwrap();
    log.append_blocking(&stream(Lane::UpData), vec![record(1)])
        .unwrap();
    log.close().unwrap();
    let path = temp.path().join(ledge_log::SegmentNo(0).file_name());
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(6000)
        .unwrap();
    let err = open().unwrap_err();
    assert!(
        matches!(err, OpenError::Damaged { .. }) && err.to_string().contains("cut off"),
        "{err}"
    );
    assert!(!ledge_log::verify(&DiskStorage, temp.path()).unwrap().is_sound());
}

#[test]
fn i4_a_zeroed_sector_in_the_middle_is_corruption() {
    let disk = log_of(8);
    disk.corrupt(&segment_path(0), |bytes| bytes[block_at(4)].fill(0));
    let report = verify(&disk);
    assert_eq!(kinds(&disk), [FindingKind::Corruption, FindingKind::Gap]);
    assert_eq!(report.findings[0].blocks, Some((BlockNo(4), BlockNo(4))));
    let gap = &report.findings[1];
    assert_eq!(gap.seqs, Some((Seq(4), Seq(4))), "{gap}");
    assert_eq!(gap.stream.as_ref().unwrap().id, stream(Lane::UpData));
    let err = reopen(&disk).unwrap_err();
    assert!(
        matches!(err, OpenError::Damaged { .. }) && err.to_string().contains("block 4"),
        "{err}"
    );
}

#[test]
fn swapped_blocks_are_noticed() {
    let disk = log_of(8);
    disk.corrupt(&segment_path(0), |bytes| {
        let (third, fifth) = (bytes[block_at(3)].to_vec(), bytes[block_at(5)].to_vec());
        bytes[block_at(3)].copy_from_slice(&fifth);
        bytes[block_at(5)].copy_from_slice(&third);
    });
    assert!(!verify(&disk).is_sound());
    assert!(matches!(reopen(&disk), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_block_of_another_log_is_noticed() {
    let disk = log_of(8);
    let other = SimDisk::new();
    let (log, _) = open(&other, 77);
    for n in 0..8 {
        log.append_blocking(&stream(Lane::UpData), vec![record(100 + n)])
            .unwrap();
    }
    log.close().unwrap();
    let foreign = other.read(&segment_path(0)).unwrap()[block_at(5)].to_vec();
    disk.corrupt(&segment_path(0), |bytes| {
        bytes[block_at(5)].copy_from_slice(&foreign)
    });
    assert!(!verify(&disk).is_sound());
    assert!(matches!(reopen(&disk), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_flipped_bit_in_a_body_is_found_by_readers_and_names_what_is_affected() {
    let disk = log_of(8);
    disk.corrupt(&segment_path(0), |bytes| {
        bytes[block_at(4).start + 64 + 28 + 5] ^= 1
    });
    let report = verify(&disk);
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.seqs == Some((Seq(4), Seq(4)))),
        "{:?}",
        report.findings
    );
    assert_eq!(report.findings[0].offset, block_at(4).start as u64);
    let log = reopen(&disk).unwrap();
    let mut blocks = log.read_blocks(BlockNo::ZERO);
    for _ in 0..3 {
        blocks.next_block().unwrap();
    }
    for _ in 0..2 {
        let err = blocks.next_block().unwrap_err();
        assert!(matches!(err, ReadError::Damaged { .. }), "{err}");
        assert_eq!(blocks.position(), BlockNo(3), "the position stays");
    }
    let mut records = log.read_stream(&log.own_key(&stream(Lane::UpData)), Seq(2));
    assert!(records.next().is_ok());
    assert!(matches!(records.next(), Err(ReadError::Damaged { .. })));
    // Behind the damage everything is there.
    let mut records = log.read_stream(&log.own_key(&stream(Lane::UpData)), Seq(4));
    assert_eq!(read_all(&mut records).len(), 4);
}

/// Opening trusts directories for what is in bodies, and the first frame of a stream for whose it is.
#[test]
fn a_flipped_bit_in_a_directory_or_in_a_streams_first_frame_is_found_at_open() {
    let disk = log_of(8);
    for at in 0..28 {
        for bit in 0..8 {
            let copy = disk.after_kill();
            copy.corrupt(&segment_path(0), |bytes| {
                bytes[block_at(4).start + 64 + at] ^= 1 << bit
            });
            let err = reopen(&copy).unwrap_err();
            assert!(matches!(err, OpenError::Damaged { .. }), "byte {at}: {err}");
            assert!(err.to_string().contains("block 4"), "byte {at}: {err}");
        }
    }
    let used = disk.read(&segment_path(0)).unwrap()[block_at(1)]
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap();
    for at in 64 + 28..=used {
        let copy = disk.after_kill();
        copy.corrupt(&segment_path(0), |bytes| bytes[block_at(1).start + at] ^= 1);
        let err = reopen(&copy).unwrap_err();
        assert!(matches!(err, OpenError::Damaged { .. }), "byte {at}: {err}");
    }
}

/// Where streams stand at the start of a segment is known from nowhere else once the segments before are gone.
#[test]
fn a_flipped_bit_in_streams_is_found_at_open() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    for n in 0..400 {
        log.append_blocking(&stream(Lane::UpData), vec![record(n)])
            .unwrap();
    }
    log.close().unwrap();
    let last = (1..)
        .take_while(|no| disk.read(&segment_path(*no)).is_some())
        .last()
        .unwrap();
    for at in 64..114 {
        let copy = disk.after_kill();
        copy.corrupt(&segment_path(last), |bytes| bytes[4096 + at] ^= 1);
        let err = reopen(&copy).unwrap_err();
        assert!(matches!(err, OpenError::Damaged { .. }), "byte {at}: {err}");
    }
}

#[test]
fn i6_a_log_that_lost_durable_blocks_is_refused_or_gets_a_new_epoch() {
    let disk = log_of(8);
    disk.corrupt(&segment_path(0), |bytes| {
        bytes[block_at(7).start..block_at(8).end].fill(0)
    });
    assert!(kinds(&disk).contains(&FindingKind::LostDurable));
    let err = reopen(&disk).unwrap_err();
    assert!(
        matches!(
            err,
            OpenError::LostDurable {
                found: BlockNo(6),
                witness: BlockNo(8),
                ..
            }
        ),
        "{err}"
    );
    let options = Options {
        on_lost_data: ledge_log::OnLostData::NewEpoch,
        ..options(2)
    };
    let (log, recovery) = Log::open(storage(&disk), &dir(), options).unwrap();
    assert_eq!(recovery.lost_until, Some(BlockNo(8)));
    let appended = log
        .append_blocking(&stream(Lane::UpData), vec![record(100)])
        .unwrap();
    assert_eq!(
        (appended.first.epoch.0, appended.first.seq),
        (2, Seq(7)),
        "not mistaken for what was lost"
    );
}

/// The witness is gone with the first opening; that streams go on in a new epoch is not.
#[test]
fn i6_a_new_epoch_outlives_restarts_and_crashes_before_the_first_append() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    // The third stream has all it has in what is lost.
    for lane in [
        Lane::UpData,
        Lane::UpState,
        Lane::UpState,
        Lane::UpData,
        Lane::Local,
    ] {
        log.append_blocking(&stream(lane), vec![record(1)]).unwrap();
    }
    log.close().unwrap();
    let bytes = disk.read(&segment_path(0)).unwrap();
    let starts: Vec<usize> = (4096..bytes.len())
        .step_by(512)
        .filter(|at| bytes[*at..].starts_with(b"LBK1"))
        .collect();
    let from = starts[starts.len() - 2];
    disk.corrupt(&segment_path(0), |bytes| bytes[from..].fill(0));
    let tolerant = || Options {
        on_lost_data: ledge_log::OnLostData::NewEpoch,
        ..options(2)
    };
    let ops = {
        let whole = disk.after_kill();
        drop(Log::open(storage(&whole), &dir(), tolerant()).unwrap());
        whole.ops()
    };
    for op in 0..=ops {
        let crashing = disk.after_kill();
        crashing.crash_at(op);
        drop(Log::open(storage(&crashing), &dir(), tolerant()));
        for keeps in [
            CrashKeeps::Nothing,
            CrashKeeps::Everything,
            CrashKeeps::Random(op),
        ] {
            let what = format!("operation {op}, {keeps:?}");
            let after = crashing.after_crash(&keeps);
            let mut appended = Vec::new();
            // One stream after each opening.
            for lane in [Lane::UpData, Lane::UpState, Lane::Local] {
                let (log, _) = Log::open(storage(&after), &dir(), tolerant()).unwrap();
                for n in 0..2 {
                    let at = log.append_blocking(&stream(lane), vec![record(n)]).unwrap();
                    appended.push((at.first.epoch.0, at.first.seq.0));
                }
                log.close().unwrap();
            }
            let expected = [(2, 2), (2, 3), (2, 3), (2, 4), (2, 1), (2, 2)];
            assert_eq!(appended, expected, "{what}");
            // Once it has begun, it is not begun again.
            let (log, recovery) = Log::open(storage(&after), &dir(), options(3)).unwrap();
            assert_eq!(recovery.lost_until, None, "{what}");
            for lane in [Lane::UpData, Lane::UpState, Lane::Local] {
                let at = log.append_blocking(&stream(lane), vec![record(9)]).unwrap();
                assert_eq!(at.first.epoch.0, 2, "{what}");
            }
            log.close().unwrap();
            assert_eq!(verify(&after).findings, [], "{what}");
        }
    }
}

#[test]
fn a_missing_segment_is_named() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    for n in 0..400 {
        log.append_blocking(&stream(Lane::UpData), vec![record(n)])
            .unwrap();
    }
    log.close().unwrap();
    ledge_log::Storage::remove(&disk, &segment_path(1)).unwrap();
    let err = reopen(&disk).unwrap_err();
    assert!(
        matches!(err, OpenError::MissingSegment { .. }) && err.to_string().contains("segment 1"),
        "{err}"
    );
    let report = verify(&disk);
    let missing = report
        .findings
        .iter()
        .find(|f| f.kind == FindingKind::MissingSegment);
    assert!(missing.unwrap().detail.contains("segments 1 to 1"));
    assert!(
        !kinds(&disk).contains(&FindingKind::BrokenChain),
        "{:?}",
        report.findings
    );
    assert!(ledge_log::repair(storage(&disk), &dir()).is_err());
}

#[test]
fn repair_touches_nothing_that_is_sound() {
    let disk = log_of(4);
    let ops = disk.ops();
    let report = ledge_log::repair(storage(&disk), &dir()).unwrap();
    assert!(report.recovery.is_none() && report.after.is_sound());
    assert_eq!(disk.ops(), ops);
}

#[test]
fn repair_quarantines_what_it_cannot_put_together() {
    let disk = log_of(8);
    disk.corrupt(&segment_path(0), |bytes| bytes[block_at(4)].fill(0));
    let report = ledge_log::repair(storage(&disk), &dir()).unwrap();
    assert_eq!(report.before.findings[0].kind, FindingKind::Corruption);
    let lost: Vec<_> = report
        .quarantined
        .iter()
        .map(|lost| (lost.first, lost.last))
        .collect();
    assert_eq!(lost, [(Seq(4), Seq(4))]);
    let names = ledge_log::Storage::list(&disk, &dir().join("quarantine")).unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    // Nothing but what was damaged is gone.
    let view = LogView::open(storage(&disk), &dir()).unwrap();
    assert_eq!(view.last_block(), BlockNo(8));
}

#[test]
fn repair_mends_a_header_from_what_is_behind_it() {
    let disk = log_of(8);
    let before = disk.read(&segment_path(0));
    disk.corrupt(&segment_path(0), |bytes| bytes[block_at(4).start + 20] ^= 1);
    assert!(!verify(&disk).is_sound());
    let report = ledge_log::repair(storage(&disk), &dir()).unwrap();
    assert_eq!((report.after.findings.len(), report.damaged), (0, 0));
    assert_eq!(disk.read(&segment_path(0)), before, "byte for byte");
}

#[test]
fn lost_superblocks_are_replaced_and_reported() {
    let disk = log_of(3);
    for name in ["super-a", "super-b"] {
        if disk.read(&dir().join(name)).is_some() {
            ledge_log::Storage::remove(&disk, &dir().join(name)).unwrap();
        }
    }
    let (log, recovery) = Log::open(storage(&disk), &dir(), options(2)).unwrap();
    assert!(recovery.superblock_lost && !recovery.clean);
    assert_eq!(log.identity().boot, 2);
    assert_eq!(
        read_all(&mut log.read_stream(&log.own_key(&stream(Lane::UpData)), Seq(0))).len(),
        3
    );
}

#[test]
fn a_damaged_superblock_leaves_the_other_one() {
    let disk = SimDisk::new();
    for life in 1..4 {
        open(&disk, life).0.close().unwrap();
    }
    for name in ["super-a", "super-b"] {
        let copy = disk.after_kill();
        copy.corrupt(&dir().join(name), |bytes| bytes[20] ^= 1);
        let (log, recovery) = Log::open(storage(&copy), &dir(), options(9)).unwrap();
        assert!(!recovery.superblock_lost);
        assert_eq!(log.identity().boot, 4);
    }
}

#[test]
fn an_unwritable_directory_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let err = Log::open(Arc::new(DiskStorage), &file.join("log"), options(1)).unwrap_err();
    assert!(
        matches!(err, OpenError::Io { .. }) && err.to_string().contains("file/log"),
        "{err}"
    );
    let dir = temp.path().join("ro");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o555)).unwrap();
    // The superuser may write anywhere.
    if std::fs::write(dir.join("probe"), b"").is_err() {
        let err = Log::open(Arc::new(DiskStorage), &dir, options(1)).unwrap_err();
        assert!(err.to_string().contains("must be able to write"), "{err}");
    }
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A log written by the first version of the format. It must stay readable for ever.
#[test]
fn the_frozen_log_of_version_1_is_readable() {
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    if std::env::var_os("LEDGE_WRITE_FIXTURE").is_some() {
        write_fixture(&fixture);
    }
    let view = LogView::open(Arc::new(DiskStorage), &fixture).unwrap();
    assert_eq!(
        (view.identity().cluster, view.identity().node.as_str()),
        (CLUSTER, "edge-1")
    );
    let streams = view.streams();
    assert_eq!(streams.len(), 3);
    for info in &streams {
        let records = read_all(&mut view.read_stream(&info.key, Seq::ZERO));
        assert_eq!(records.len() as u64, info.records);
        assert_eq!(
            records[0].1,
            if info.key == remote_key(1) {
                record(1).key
            } else {
                record(0).key
            }
        );
    }
    assert_eq!(
        hex(&view.chain_of_block(view.last_block()).unwrap()),
        FIXTURE_CHAIN
    );
    let report = ledge_log::verify(&DiskStorage, &fixture).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

const FIXTURE_CHAIN: &str = "a8fc3a972a13beb30ef0a85b4bdbb1ce";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Small: two segments of 16 KiB, the second cut down to what a log of this size needs.
fn write_fixture(dir: &std::path::Path) {
    let _ = std::fs::remove_dir_all(dir);
    let options = Options {
        segment_bytes: 16 * 1024,
        ..options(1)
    };
    let (log, _) = Log::open(Arc::new(DiskStorage), dir, options).unwrap();
    let mut writer = ledge_proto::frame::FrameWriter::new(remote_key(1));
    for n in 0..12 {
        log.append_blocking(
            &stream(Lane::UpData),
            (0..n % 3 + 1).map(|m| record(n * 10 + m)).collect(),
        )
        .unwrap();
        log.append_frame_blocking(frame(&mut writer, 9)).unwrap();
    }
    log.append_blocking(&stream(Lane::UpState), vec![record(0)])
        .unwrap();
    log.close().unwrap();
    std::fs::remove_file(dir.join("LOCK")).unwrap();
}
