//! L1: a crash before every operation of a workload, with every kind of survival; and every kind of fault at
//! every operation. Deterministic: a failure names the seed, the operation and what survived.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use common::oracle::{LIMIT, Oracle, Stop, small};
use common::*;
use ledge_log::storage::sim::{CrashKeeps, Fault};
use ledge_log::{AppendError, FindingKind, Log, LogView, OpenError, SimDisk};

const SEED: u64 = 0x1ed9e;
/// With at most this many unsynced changes, all subsets are tried.
const EXHAUSTIVE: usize = 8;
const RANDOM: u64 = 48;

/// The workload: three lives of the log. Stops at the first error.
fn workload(disk: &SimDisk, oracle: &mut Oracle) -> Result<(), Stop> {
    for life in 0..3 {
        let log = oracle.open(disk, SEED + life)?;
        oracle.run(&log, 24)?;
        // Closing after a crash fails, and is not what is tested here.
        let _ = log.close();
        if disk.has_crashed() {
            break;
        }
    }
    Ok(())
}

fn choices(disk: &SimDisk) -> Vec<CrashKeeps> {
    let pending = disk.pending().total();
    if pending <= EXHAUSTIVE {
        return (0..1u64 << pending).map(CrashKeeps::Chosen).collect();
    }
    let mut all = vec![CrashKeeps::Nothing, CrashKeeps::Everything];
    all.extend((0..pending.min(24)).flat_map(|n| [CrashKeeps::AllBut(n), CrashKeeps::Only(n)]));
    all.extend((0..RANDOM).map(|n| CrashKeeps::Random(SEED ^ n)));
    all
}

/// Reopens what is on `disk`, checks it, and goes on.
fn check_survivor(disk: &SimDisk, oracle: &Oracle, what: &str) {
    let mut oracle = oracle.clone();
    let _context = Context(what);
    match LogView::open(storage(disk), &dir()) {
        Ok(view) => oracle.check_view(&view),
        Err(OpenError::NotALog { .. } | OpenError::Io { .. }) => {
            assert_eq!(oracle.steps(), 0, "never opened")
        }
        Err(err) => panic!("{err}"),
    }
    let log = match oracle.open(disk, 99) {
        Ok(log) => log,
        Err(Stop::Open(err)) => panic!("{err}"),
        Err(_) => panic!("only opened"),
    };
    oracle.observe(&log);
    let report = verify(disk);
    assert!(
        report.findings.is_empty(),
        "clean after recovery: {:?}",
        report.findings
    );
    oracle.run(&log, 4).expect("appending goes on");
    log.close().unwrap();
    let log = oracle.open(disk, 100).expect("opens again");
    oracle.observe(&log);
    drop(log);
    assert_eq!(verify(disk).findings, []);
}

/// Prints which case was running when a check failed.
struct Context<'a>(&'a str);

impl Drop for Context<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed at: {}", self.0);
        }
    }
}

fn total_ops() -> u64 {
    let disk = SimDisk::new();
    workload(&disk, &mut Oracle::new(SEED)).unwrap();
    disk.ops()
}

#[test]
fn i1_to_i8_hold_after_a_crash_at_every_operation() {
    let ops = total_ops();
    assert!(ops > 200, "{ops}");
    let mut cases = 0;
    for op in 0..ops {
        let disk = SimDisk::new();
        disk.crash_at(op);
        let mut oracle = Oracle::new(SEED);
        let _ = workload(&disk, &mut oracle);
        for keeps in choices(&disk) {
            let what = format!(
                "seed {SEED:#x}, crash before operation {op}, {keeps:?} of {:?}",
                disk.pending()
            );
            check_survivor(&disk.after_crash(&keeps), &oracle, &what);
            cases += 1;
        }
        check_survivor(
            &disk.after_kill(),
            &oracle,
            &format!("seed {SEED:#x}, killed before operation {op}"),
        );
    }
    println!("{ops} operations, {cases} crashes, seed {SEED:#x}");
}

/// As above where the log has three segments' room, in which the oldest is written over again and again.
#[test]
fn i1_to_i8_hold_after_a_crash_in_a_log_at_its_limit() {
    let run = |disk: &SimDisk, oracle: &mut Oracle| -> Result<(), Stop> {
        for life in 0..2 {
            let log = oracle.open(disk, SEED + life)?;
            oracle.run(&log, 90)?;
            let names = ledge_log::Storage::list(disk, &dir()).unwrap_or_default();
            let len = |name: &String| disk.read(&dir().join(name)).map_or(0, |bytes| bytes.len() as u64);
            assert!(names.iter().map(len).sum::<u64>() <= LIMIT, "{names:?}");
            let _ = log.close();
            if disk.has_crashed() {
                break;
            }
        }
        Ok(())
    };
    let disk = SimDisk::new();
    let mut oracle = Oracle::limited(SEED);
    run(&disk, &mut oracle).unwrap();
    assert!(disk.read(&segment_path(0)).is_none(), "segments went");
    for op in (0..disk.ops()).step_by(2) {
        let disk = SimDisk::new();
        disk.crash_at(op);
        let mut oracle = Oracle::limited(SEED);
        let _ = run(&disk, &mut oracle);
        let mut choices = vec![CrashKeeps::Nothing, CrashKeeps::Everything];
        choices.extend((0..3).map(|n| CrashKeeps::Random(op ^ n)));
        for keeps in choices {
            let what = format!("at its limit, seed {SEED:#x}, crash before operation {op}, {keeps:?}");
            check_survivor(&disk.after_crash(&keeps), &oracle, &what);
        }
    }
}

#[test]
fn the_same_seed_writes_the_same_bytes() {
    let run = || {
        let disk = SimDisk::new();
        workload(&disk, &mut Oracle::new(SEED)).unwrap();
        let names = ledge_log::Storage::list(&disk, &dir()).unwrap();
        names
            .into_iter()
            .map(|name| (name.clone(), disk.read(&dir().join(name))))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn i5_after_a_failed_write_or_sync_nothing_is_acknowledged() {
    let ops = total_ops();
    for op in 0..ops {
        for fault in [
            Fault::SyncError,
            Fault::WriteError { written: 0 },
            Fault::WriteError { written: 700 },
            Fault::NoSpace { written: 0 },
            Fault::NoSpace { written: 600 },
        ] {
            let disk = SimDisk::new();
            disk.fail_at(op, fault);
            let mut oracle = Oracle::new(SEED);
            let what = format!("seed {SEED:#x}, {fault:?} at operation {op}");
            let _context = Context(&what);
            let stopped = workload(&disk, &mut oracle);
            if let Err(Stop::Append(err)) = &stopped {
                assert!(
                    matches!(err, AppendError::Poisoned { .. } | AppendError::DiskFull { .. }),
                    "{err}"
                );
            }
            // A failed sync may have written some of it, or nothing; the cache shows it all the same.
            check_survivor(&disk.after_kill(), &oracle, &what);
            check_survivor(&disk.after_crash(&CrashKeeps::Nothing), &oracle, &what);
            check_survivor(&disk.after_crash(&CrashKeeps::Random(op)), &oracle, &what);
        }
    }
}

/// Fsyncgate across a restart: the pages of a failed sync are clean, so a later sync says nothing about them.
#[test]
fn i5_what_a_failed_sync_left_in_the_cache_is_written_again() {
    let disk = SimDisk::new();
    let mut oracle = Oracle::new(SEED);
    let log = oracle.open(&disk, 1).unwrap_or_else(|_| panic!("opens"));
    assert!(oracle.run(&log, 3).is_ok());
    disk.fail_at(disk.ops() + 1, Fault::SyncError);
    assert!(oracle.run(&log, 1).is_err());
    drop(log);
    // The process restarts on a machine that did not: it finds the block in the cache, and keeps it.
    let disk = disk.after_kill();
    let log = oracle.open(&disk, 2).unwrap_or_else(|_| panic!("opens"));
    oracle.observe(&log);
    assert!(oracle.run(&log, 2).is_ok());
    drop(log);
    // Then the power fails: what the log built on must be there.
    check_survivor(
        &disk.after_crash(&CrashKeeps::Nothing),
        &oracle,
        "after the restart",
    );
}

#[test]
fn a_full_disk_refuses_appends_and_recovers_when_there_is_space() {
    let disk = SimDisk::new();
    let (log, _) = Log::open(storage(&disk), &dir(), small(1)).unwrap();
    let id = stream(ledge_proto::ids::Lane::UpData);
    let mut acked = 0;
    // Room for the superblock, but for no second segment.
    disk.set_capacity(Some(16 * 1024 + 4096));
    let err = loop {
        match log.append_blocking(&id, vec![record(acked)]) {
            Ok(_) => acked += 1,
            Err(err) => break err,
        }
    };
    assert!(matches!(err, AppendError::DiskFull { .. }), "{err}");
    assert!(
        err.to_string().contains("/data/log") && err.to_string().contains("free"),
        "{err}"
    );
    assert!(acked > 3, "a segment that has begun does not run out of space");
    assert!(log.append_blocking(&id, vec![record(acked)]).is_err());
    assert_eq!(log.stats().poisoned, None);
    assert_eq!(
        read_all(&mut log.read_stream(&log.own_key(&id), ledge_proto::ids::Seq(0))).len() as u64,
        acked
    );
    disk.set_capacity(None);
    assert_eq!(
        log.append_blocking(&id, vec![record(acked)]).unwrap().first.seq.0,
        acked + 1
    );
    log.close().unwrap();
    assert!(verify(&disk).findings.is_empty());
}

#[test]
fn frames_refused_for_want_of_space_are_accepted_later() {
    let disk = SimDisk::new();
    let (log, _) = Log::open(storage(&disk), &dir(), small(1)).unwrap();
    disk.set_capacity(Some(16 * 1024 + 4096));
    let mut writer = ledge_proto::frame::FrameWriter::new(remote_key(1));
    let mut frames = Vec::new();
    let refused = loop {
        let next = frame(&mut writer, 3);
        frames.push(next.clone());
        if log.append_frame_blocking(next).is_err() {
            break frames.len() - 1;
        }
    };
    disk.set_capacity(None);
    for frame in &frames[refused..] {
        log.append_frame_blocking(frame.clone()).unwrap();
    }
    assert_eq!(
        log.durable(&remote_key(1)),
        frames.last().map(ledge_proto::frame::Frame::mark)
    );
}

/// I4: the last block of a log that was closed has the superblock for a witness.
#[test]
fn i4_damage_is_never_truncated() {
    let disk = SimDisk::new();
    let mut oracle = Oracle::new(SEED);
    let log = oracle.open(&disk, 1).unwrap_or_else(|_| panic!("opens"));
    let id = stream(ledge_proto::ids::Lane::UpData);
    let mut ends = Vec::new();
    for n in 0..8 {
        log.append_blocking(&id, vec![record(n)]).unwrap();
        ends.push(log.durable_block());
    }
    log.close().unwrap();
    let path = segment_path(0);
    let len = disk.read(&path).unwrap().len();
    let used = 4096 + 8 * 512;
    for at in (4096..used).step_by(37) {
        let copy = disk.after_kill();
        let mut changed = false;
        copy.corrupt(&path, |bytes| {
            assert_eq!(bytes.len(), len);
            // Padding is not covered by anything, and nothing is in it.
            changed = bytes[at] != 0;
            bytes[at] ^= 0x10;
        });
        if !changed {
            continue;
        }
        let before = copy.read(&path);
        let report = verify(&copy);
        assert!(!report.is_sound(), "byte {at}: {report:?}");
        match Log::open(storage(&copy), &dir(), small(2)) {
            // A body that only reading looks at: opening keeps it, reading and verifying tell.
            Ok((log, recovery)) => {
                assert_eq!(recovery.torn_at, None, "byte {at}");
                let mut reader = log.read_blocks(ledge_log::BlockNo::ZERO);
                let err = loop {
                    match reader.next_block() {
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("byte {at}: damage was not noticed"),
                        Err(err) => break err,
                    }
                };
                assert!(err.to_string().contains("ledge log verify"), "{err}");
            }
            Err(err) => {
                assert!(
                    err.to_string().contains("ledge log verify")
                        || matches!(err, OpenError::LostDurable { .. }),
                    "{err}"
                );
                assert_eq!(copy.read(&path), before, "nothing was changed");
            }
        }
    }
}

#[test]
fn i4_a_torn_tail_is_truncated_and_reported() {
    let disk = SimDisk::new();
    let (log, _) = Log::open(storage(&disk), &dir(), small(1)).unwrap();
    let id = stream(ledge_proto::ids::Lane::UpData);
    for n in 0..3 {
        log.append_blocking(&id, vec![record(n)]).unwrap();
    }
    // A block of several sectors, also once it is compressed, of which the first survives and the last does not.
    let mut big = record(3);
    big.payload = (0..2000u32)
        .map(|n| n.wrapping_mul(n).wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .collect::<Vec<_>>()
        .into();
    disk.crash_at(disk.ops() + 1);
    assert!(log.append_blocking(&id, vec![big]).is_err());
    drop(log);
    let pending = disk.pending();
    assert!(pending.sectors > 3 && pending.names == 0, "{pending:?}");
    let torn = disk.after_crash(&CrashKeeps::AllBut(pending.sectors - 1));
    let report = verify(&torn);
    assert!(report.is_sound(), "a torn tail is not corruption");
    assert_eq!(
        report.findings.iter().map(|f| f.kind).collect::<Vec<_>>(),
        [FindingKind::TornTail]
    );
    let (log, recovery) = Log::open(storage(&torn), &dir(), small(2)).unwrap();
    assert_eq!(recovery.torn_at, Some(log.durable_block().next()));
    assert_eq!(log.durable(&log.own_key(&id)).unwrap().position.seq.0, 3);
    assert_eq!(log.append_blocking(&id, vec![record(3)]).unwrap().first.seq.0, 4);
    drop(log);
    assert!(verify(&torn).findings.is_empty());
}

/// What the simulation counts on: syncs of a disk that lies succeed, and nothing of it is there once the power is gone.
#[test]
fn a_disk_that_lies_keeps_what_it_had_before() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let id = stream(ledge_proto::ids::Lane::UpData);
    let key = log.own_key(&id);
    let honest = log.append_blocking(&id, vec![record(1)]).unwrap().last;
    disk.lie();
    let lied = log.append_blocking(&id, vec![record(2)]).unwrap().last;
    drop(log);
    let end = |disk: &SimDisk| open(disk, 2).0.durable(&key).unwrap().position;
    assert_eq!(end(&disk.after_kill()), lied);
    assert_eq!(end(&disk.after_crash(&CrashKeeps::Nothing)), honest);
}
