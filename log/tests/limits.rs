//! A log at its limit, and on a disk that others have filled.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use common::oracle::LIMIT;
use common::*;
use ledge_log::{AppendError, Log, OpenError, Options, SimDisk};
use ledge_proto::ids::{Lane, Seq};

const SEGMENT: u64 = 16 * 1024;

fn limited(max_bytes: Option<u64>) -> Options {
    Options {
        max_bytes,
        reserve_bytes: 2048,
        segment_bytes: SEGMENT,
        ..options(1)
    }
}

fn open_limited(disk: &SimDisk, max_bytes: Option<u64>) -> Log {
    Log::open(storage(disk), &dir(), limited(max_bytes)).unwrap().0
}

fn used(disk: &SimDisk) -> u64 {
    let names = ledge_log::Storage::list(disk, &dir()).unwrap();
    names
        .iter()
        .map(|name| disk.read(&dir().join(name)).map_or(0, |bytes| bytes.len() as u64))
        .sum()
}

/// Appends to a lane until it is refused. Returns how many were not.
fn fill(log: &Log, lane: Lane) -> (u64, AppendError) {
    for n in 0.. {
        if let Err(err) = log.append_blocking(&stream(lane), vec![record(n)]) {
            return (n, err);
        }
    }
    unreachable!()
}

fn give_up_oldest(log: &Log) {
    let oldest = log.oldest_segment().unwrap().unwrap();
    retain_from(log, oldest.last_block.next()).unwrap();
}

/// Telemetry stops at the reserve, the rest goes on to the end, and once the oldest segment went all goes on, for ever.
fn works_on_in_the_space_it_has(disk: &SimDisk, log: &Log, most: u64) {
    let mut room = log.subscribe_room();
    room.mark_unchanged();
    let (data, err) = fill(log, Lane::UpData);
    assert!(matches!(err, AppendError::DiskFull { .. }), "{err}");
    assert!(data > 10 && err.to_string().contains("limit"), "{err}");
    assert!(room.has_changed().unwrap(), "whoever waits for it was told");
    assert!(room.borrow().blocked.is_some() && log.room().blocked.is_some());
    let (state, err) = fill(log, Lane::UpState);
    assert!(matches!(err, AppendError::DiskFull { .. }), "{err}");
    assert!(
        state >= 2,
        "one per 512 bytes of the reserve, but for what is kept for bases: {state}"
    );
    assert!(log.room().active_left >= 1024);
    assert_eq!(log.stats().poisoned, None);
    assert!(used(disk) <= most);
    // Even now the owner can act.
    give_up_oldest(log);
    log.append_blocking(&stream(Lane::UpData), vec![record(0)])
        .unwrap();
    assert!(used(disk) <= most);
}

#[test]
fn a_log_at_its_limit_keeps_to_it_and_goes_on() {
    let disk = SimDisk::new();
    let log = open_limited(&disk, Some(LIMIT));
    works_on_in_the_space_it_has(&disk, &log, LIMIT);
    drop(log);
    let disk = SimDisk::new();
    let log = open_limited(&disk, Some(LIMIT));
    let mut went = 0;
    for n in 0..1000 {
        if log.room().blocked.is_some() {
            give_up_oldest(&log);
            went += 1;
            assert!(log.room().next_ready, "its file is used again");
        }
        log.append_blocking(&stream(Lane::UpData), vec![record(n)])
            .unwrap();
        assert!(
            used(&disk) <= LIMIT && log.stats().used_bytes <= LIMIT,
            "{}",
            used(&disk)
        );
    }
    assert!(went > 20, "{went}");
    let stats = log.stats();
    assert_eq!(stats.limit_bytes, Some(LIMIT));
    assert!(
        stats.oldest_block > 1
            && stats
                .lane_bytes
                .iter()
                .any(|(lane, bytes)| *lane == Lane::UpData && *bytes > 0)
    );
    log.close().unwrap();
    assert_eq!(verify(&disk).findings, []);
    let log = open_limited(&disk, Some(LIMIT));
    assert_eq!(
        log.durable(&log.own_key(&stream(Lane::UpData)))
            .unwrap()
            .position
            .seq,
        Seq(1000)
    );
    assert_eq!(
        log.opened(&log.own_key(&stream(Lane::UpData))),
        log.durable(&log.own_key(&stream(Lane::UpData)))
    );
}

#[test]
fn a_disk_that_others_filled_is_the_same_and_recovers_by_itself() {
    let disk = SimDisk::new();
    let log = open_limited(&disk, None);
    disk.set_capacity(Some(LIMIT));
    works_on_in_the_space_it_has(&disk, &log, LIMIT);
    disk.set_capacity(None);
    assert_eq!(log.room().blocked, None);
    log.append_blocking(&stream(Lane::UpData), vec![record(1)])
        .unwrap();
    log.close().unwrap();
    assert_eq!(verify(&disk).findings, []);
}

#[test]
fn a_lower_limit_is_reached_by_giving_up_segments() {
    let disk = SimDisk::new();
    let log = open_limited(&disk, None);
    for n in 0..300 {
        log.append_blocking(&stream(Lane::UpData), vec![record(n)])
            .unwrap();
    }
    log.close().unwrap();
    assert!(used(&disk) > 2 * LIMIT);
    let log = open_limited(&disk, Some(LIMIT));
    while let Some(reason) = log.room().blocked {
        assert!(reason.contains("limit"), "{reason}");
        give_up_oldest(&log);
    }
    assert!(used(&disk) <= LIMIT);
}

#[test]
fn a_limit_of_less_than_three_segments_is_refused() {
    let err = Log::open(storage(&SimDisk::new()), &dir(), limited(Some(LIMIT - 4097))).unwrap_err();
    assert!(
        matches!(err, OpenError::Options(_)) && err.to_string().contains("three segments"),
        "{err}"
    );
}

/// Appends until the log is about to be full, giving up nothing.
fn fill_up(log: &Log) {
    for n in 0.. {
        if log
            .append_blocking(&stream(Lane::UpData), vec![record(n)])
            .is_err()
        {
            return;
        }
    }
}

#[test]
fn a_limit_is_raised_while_the_log_is_open() {
    let disk = SimDisk::new();
    let log = open_limited(&disk, Some(LIMIT));
    fill_up(&log);
    let mut room = log.subscribe_room();
    room.mark_unchanged();
    let after = log.set_limit(Some(LIMIT + 3 * SEGMENT), SEGMENT).unwrap();
    assert_eq!((after.blocked, after.limit), (None, Some(LIMIT + 3 * SEGMENT)));
    assert!(room.has_changed().unwrap(), "whoever waits for it is told");
    log.append_blocking(&stream(Lane::UpData), vec![record(1)])
        .unwrap();
    let (more, _) = fill(&log, Lane::UpData);
    assert!(more > 10 && used(&disk) > LIMIT && used(&disk) <= LIMIT + 3 * SEGMENT);
    log.set_limit(None, SEGMENT).unwrap();
    log.append_blocking(&stream(Lane::UpData), vec![record(1)])
        .unwrap();
}

#[test]
fn a_limit_is_lowered_while_the_log_is_open() {
    let disk = SimDisk::new();
    let log = open_limited(&disk, Some(LIMIT + 6 * SEGMENT));
    fill_up(&log);
    let low = 4 * SEGMENT;
    assert!(
        log.set_limit(Some(2 * SEGMENT), SEGMENT).is_err(),
        "three segments must fit"
    );
    let room = log.set_limit(Some(low), SEGMENT).unwrap();
    assert!(room.blocked.is_some_and(|reason| reason.contains("limit")));
    while log.room().blocked.is_some() {
        give_up_oldest(&log);
    }
    assert!(used(&disk) <= low);
    for n in 0..200 {
        while log.room().blocked.is_some() {
            give_up_oldest(&log);
        }
        log.append_blocking(&stream(Lane::UpData), vec![record(n)])
            .unwrap();
        assert!(used(&disk) <= low);
    }
}

/// A segment that is longer than the new limit by itself goes too.
#[test]
fn a_limit_is_lowered_below_the_length_of_the_segment_being_written() {
    let disk = SimDisk::new();
    let (long, short) = (64 << 20, 8 << 20);
    let options = Options {
        max_bytes: Some(4 * long),
        reserve_bytes: 2048,
        segment_bytes: long,
        ..options(1)
    };
    let (log, _) = Log::open(storage(&disk), &dir(), options).unwrap();
    log.append_blocking(&stream(Lane::UpData), vec![record(1)])
        .unwrap();
    let limit = 3 * short + (1 << 16);
    let room = log.set_limit(Some(limit), short).unwrap();
    assert!(room.blocked.is_some());
    give_up_oldest(&log);
    assert_eq!(log.room().blocked, None);
    assert!(used(&disk) <= limit, "{}", used(&disk));
    log.append_blocking(&stream(Lane::UpData), vec![record(2)])
        .unwrap();
    log.close().unwrap();
    let options = Options {
        segment_bytes: short,
        max_bytes: Some(limit),
        ..self::options(2)
    };
    let (log, _) = Log::open(storage(&disk), &dir(), options).unwrap();
    assert_eq!(
        log.durable(&log.own_key(&stream(Lane::UpData)))
            .unwrap()
            .position
            .seq,
        Seq(2)
    );
}
