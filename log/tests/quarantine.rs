//! Damage in the middle of a log: the rest goes on, what is missing is listed, and comes back from a peer.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::collections::BTreeMap;

use common::*;
use ledge_log::storage::sim::CrashKeeps;
use ledge_log::{BlockNo, Log, OnDamage, OpenError, Options, ReadError, RefillError, SimDisk, StreamReader};
use ledge_proto::frame::{Frame, FrameWriter};
use ledge_proto::ids::{Lane, Seq, StreamKey};

fn tolerant(seed: u64) -> Options {
    Options {
        on_damage: OnDamage::Quarantine,
        segment_bytes: 16 * 1024,
        ..options(seed)
    }
}

fn open_tolerant(disk: &SimDisk, seed: u64) -> Result<(Log, ledge_log::Recovery), OpenError> {
    Log::open(storage(disk), &dir(), tolerant(seed))
}

/// Several segments, own and foreign streams. Closed in order.
fn sample() -> SimDisk {
    appended(22)
}

/// Own and foreign streams in a segment that was not finished, so that it has no index.
fn unfinished() -> SimDisk {
    let disk = appended(8);
    assert!(disk.read(&segment_path(1)).is_none());
    disk
}

fn appended(count: u64) -> SimDisk {
    let disk = SimDisk::new();
    let (log, _) = open_tolerant(&disk, 1).unwrap();
    let mut remotes = [FrameWriter::new(remote_key(1)), FrameWriter::new(remote_key(2))];
    for n in 0..count {
        let lane = if n % 3 == 0 { Lane::UpState } else { Lane::UpData };
        let mut big = record(n);
        big.payload = (0..(n % 5) * 150)
            .map(|m| (m * 31 % 251) as u8)
            .collect::<Vec<_>>()
            .into();
        log.append_blocking(&stream(lane), vec![big, record(n + 100)])
            .unwrap();
        log.append_frame_blocking(frame(&mut remotes[(n % 2) as usize], 3))
            .unwrap();
    }
    log.close().unwrap();
    disk
}

fn frames_of(reader: &mut StreamReader) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        frames.push(frame);
    }
    frames
}

fn bytes_of(frames: &[Frame]) -> Vec<&[u8]> {
    frames.iter().map(|frame| &frame.bytes()[..]).collect()
}

fn pristine(disk: &SimDisk) -> BTreeMap<StreamKey, Vec<Frame>> {
    let view = view(disk);
    let streams = view.streams();
    streams
        .into_iter()
        .map(|info| {
            (
                info.key.clone(),
                frames_of(&mut view.read_stream(&info.key, Seq::ZERO)),
            )
        })
        .collect()
}

/// Reads everything a log says it has. Whatever it cannot read has to be listed afterwards.
fn read_what_is_there(log: &Log, all: &BTreeMap<StreamKey, Vec<Frame>>, what: &str) {
    // Meets whatever opening did not.
    let mut blocks = log.read_blocks(BlockNo::ZERO);
    let mut at = BlockNo::ZERO;
    while at < log.durable_block() {
        at = at.next();
        match blocks.next_block() {
            Ok(Some(block)) => assert_eq!(block.no, at),
            Ok(None) => panic!("{what}: block {at}"),
            Err(err) => {
                assert!(matches!(err, ReadError::Damaged { .. }), "{what}: {err}");
                blocks = log.read_blocks(at);
            }
        }
    }
    let lost = log.quarantined();
    for (key, frames) in all {
        let end = log.durable(key).map_or(Seq::ZERO, |mark| mark.position.seq);
        for frame in frames {
            let listed = lost.iter().any(|lost| {
                lost.key == *key && lost.first <= frame.first_seq() && frame.last_seq() <= lost.last
            });
            let read = log.read_stream(key, Seq(frame.first_seq().0 - 1)).next();
            match read {
                Ok(Some(found)) => assert_eq!(found.bytes(), frame.bytes(), "{what}"),
                Ok(None) => assert!(
                    listed || frame.first_seq() > end,
                    "{what}: {key} {}",
                    frame.first_seq()
                ),
                Err(err) => {
                    assert!(listed, "{what}: {key} {} is not listed: {err}", frame.first_seq());
                    assert!(err.to_string().contains("seg-"), "{what}: {err}");
                }
            }
            assert!(
                frame.last_seq() <= end || listed || *key != remote_key(9),
                "{what}: {key} ends early"
            );
        }
    }
}

/// Damages a copy of `disk`, checks what is left, has a peer give back what is missing, and checks that all is as
/// before. Returns whether it was.
fn round(
    disk: &SimDisk,
    all: &BTreeMap<StreamKey, Vec<Frame>>,
    what: &str,
    damage: impl Fn(&SimDisk),
) -> bool {
    let copy = disk.after_kill();
    damage(&copy);
    let (log, recovery) = match open_tolerant(&copy, 2) {
        Ok(opened) => opened,
        // The end is gone rather than damaged, or the header of a segment: not what this is about.
        Err(OpenError::LostDurable { .. }) => return false,
        Err(err) => panic!("{what}: {err}"),
    };
    assert_eq!(recovery.torn_at, None, "{what}: damage is not a torn tail");
    for lost in &recovery.quarantined {
        assert!(
            all[&lost.key].iter().any(|frame| frame.first_seq() == lost.first),
            "{what}: {lost:?}"
        );
    }
    read_what_is_there(&log, all, what);
    // Another history is not taken for what was there.
    for lost in log.quarantined() {
        let mut forged = FrameWriter::new(lost.key.clone());
        let mut other = frame(&mut forged, 1);
        while other.first_seq() < lost.first {
            other = frame(&mut forged, 1);
        }
        if !all[&lost.key].iter().any(|frame| frame.bytes() == other.bytes()) {
            assert!(!matches!(log.refill(other), Ok(true)), "{what}: a forged frame");
        }
    }
    let mut beyond = false;
    for lost in log.quarantined() {
        for frame in &all[&lost.key] {
            if lost.first <= frame.first_seq() && frame.last_seq() <= lost.last {
                match log.refill(frame.clone()) {
                    Ok(_) | Err(RefillError::NotQuarantined { .. }) => {}
                    Err(RefillError::Beyond { .. }) => beyond = true,
                    Err(err) => panic!("{what}: {err}"),
                }
            }
        }
    }
    if beyond {
        return false;
    }
    assert_eq!(log.quarantined(), [], "{what}");
    let whole = all.iter().all(|(key, frames)| {
        bytes_of(&frames_of(&mut log.read_stream(key, Seq::ZERO))) == bytes_of(frames)
            && log.durable(key) == frames.last().map(Frame::mark)
    });
    let epoch = log
        .append_blocking(&stream(Lane::UpData), vec![record(7)])
        .unwrap()
        .first
        .epoch;
    // The commit mended what needs no peer.
    let whole = whole && log.stats().damaged == 0;
    if whole {
        assert_eq!(epoch.0, 1, "{what}: nothing was lost");
    }
    log.close().unwrap();
    let report = verify(&copy);
    if whole {
        assert_eq!(report.findings, [], "{what}");
        let (log, recovery) = open_tolerant(&copy, 3).unwrap();
        assert!(recovery.clean && recovery.quarantined.is_empty(), "{what}");
        drop(log);
    }
    whole
}

#[test]
fn any_damaged_sector_is_listed_and_comes_back_from_a_peer() {
    let disk = sample();
    let all = pristine(&disk);
    let (mut rounds, mut restored) = (0, 0);
    for no in 0.. {
        let path = segment_path(no);
        let Some(bytes) = disk.read(&path) else { break };
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for start in (4096..used).step_by(512) {
            let end = used.min(start + 512);
            type Harm = Box<dyn Fn(&mut [u8])>;
            let kinds: [(&str, Harm); 4] = [
                ("zeroed", Box::new(move |b: &mut [u8]| b[start..end].fill(0))),
                (
                    "overwritten",
                    Box::new(move |b: &mut [u8]| b[start..end].fill(0x5A)),
                ),
                (
                    "a bit in the head",
                    Box::new(move |b: &mut [u8]| b[start + 20] ^= 4),
                ),
                (
                    "a bit further on",
                    Box::new(move |b: &mut [u8]| b[start + 150] ^= 1),
                ),
            ];
            for (kind, change) in kinds {
                let what = format!("segment {no}, byte {start}: {kind}");
                let mut same = false;
                let copy = |disk: &SimDisk| disk.corrupt(&path, |bytes| change(bytes));
                let probe = disk.after_kill();
                copy(&probe);
                same |= probe.read(&path) == disk.read(&path);
                if same {
                    continue;
                }
                rounds += 1;
                restored += u32::from(round(&disk, &all, &what, copy));
            }
        }
    }
    println!("{restored} of {rounds} restored");
    assert!(
        rounds > 150 && restored * 10 > rounds * 8,
        "{restored} of {rounds}"
    );
}

/// Putting a block back is a write like any other: a crash leaves it as damaged as before, or whole.
#[test]
fn a_crash_while_a_block_is_put_back_loses_nothing() {
    let disk = sample();
    let all = pristine(&disk);
    let path = segment_path(0);
    // A frame of a block that is long enough to be torn.
    let key = all
        .keys()
        .find(|key| key.id.lane == Lane::UpData && key.incarnation != remote_key(1).incarnation);
    let frames = &all[key.unwrap()];
    let at = |bytes: &[u8], frame: &Frame| {
        bytes
            .windows(frame.bytes().len())
            .position(|w| w == &frame.bytes()[..])
    };
    let bytes = disk.read(&path).unwrap();
    let lost = frames
        .iter()
        .find(|frame| frame.bytes().len() > 250 && at(&bytes, frame).is_some())
        .unwrap();
    let hit = at(&bytes, lost).unwrap() + lost.bytes().len() / 2;
    let damaged = || {
        let copy = disk.after_kill();
        copy.corrupt(&path, |bytes| bytes[hit] ^= 0x20);
        copy
    };
    let give_back = |disk: &SimDisk| -> bool {
        let Ok((log, _)) = open_tolerant(disk, 2) else {
            return false;
        };
        let _ = log.read_stream(lost.key(), Seq(lost.first_seq().0 - 1)).next();
        let back = matches!(log.refill(lost.clone()), Ok(true));
        drop(log);
        back
    };
    let ops = {
        let disk = damaged();
        assert!(give_back(&disk));
        disk.ops()
    };
    for op in 0..ops {
        let disk = damaged();
        disk.crash_at(op);
        let back = give_back(&disk);
        for keeps in [
            CrashKeeps::Nothing,
            CrashKeeps::Everything,
            CrashKeeps::Random(op),
            CrashKeeps::Only(0),
        ] {
            let after = disk.after_crash(&keeps);
            let (log, _) = open_tolerant(&after, 3).unwrap();
            read_what_is_there(&log, &all, &format!("operation {op}, {keeps:?}"));
            if !log.quarantined().is_empty() {
                assert!(!back, "operation {op}, {keeps:?}: it was acknowledged");
                assert!(log.refill(lost.clone()).unwrap());
            }
            log.close().unwrap();
            assert_eq!(verify(&after).findings, [], "operation {op}, {keeps:?}");
        }
    }
}

/// The end of a stream was lost, and the peer sent it again before it was asked for what was lost: it is not put back
/// beside that.
#[test]
fn an_end_that_was_written_again_is_not_put_back() {
    let disk = SimDisk::new();
    let (log, _) = open_tolerant(&disk, 1).unwrap();
    let mut remote = FrameWriter::new(remote_key(1));
    let frames: Vec<Frame> = (0..4).map(|_| frame(&mut remote, 3)).collect();
    for frame in &frames {
        log.append_frame_blocking(frame.clone()).unwrap();
    }
    for n in 0..3 {
        log.append_blocking(&stream(Lane::UpData), vec![record(n)])
            .unwrap();
    }
    log.close().unwrap();
    let bytes = disk.read(&segment_path(0)).unwrap();
    let last = &frames[3].bytes()[..];
    let at = bytes.windows(last.len()).position(|found| found == last).unwrap();
    disk.corrupt(&segment_path(0), |bytes| bytes[at + last.len() / 2] ^= 1);

    let sent_again = disk.after_kill();
    let (log, recovery) = open_tolerant(&sent_again, 2).unwrap();
    assert_eq!(recovery.quarantined.len(), 1);
    assert!(log.is_quarantined(&remote_key(1), Seq(10)) && !log.is_quarantined(&remote_key(1), Seq(9)));
    log.append_frame_blocking(frames[3].clone()).unwrap();
    assert_eq!(log.quarantined(), []);
    assert!(matches!(
        log.refill(frames[3].clone()),
        Err(RefillError::NotQuarantined { .. })
    ));
    log.close().unwrap();
    let (log, _) = open_tolerant(&sent_again, 3).unwrap();
    let read = frames_of(&mut log.read_stream(&remote_key(1), Seq::ZERO));
    assert_eq!(bytes_of(&read), bytes_of(&frames), "once each");

    // Asked for first, it is as if nothing had been.
    let (log, _) = open_tolerant(&disk, 2).unwrap();
    assert!(log.refill(frames[3].clone()).unwrap());
    assert_eq!(
        log.append_frame_blocking(frames[3].clone()).unwrap(),
        frames[3].mark()
    );
    log.close().unwrap();
    assert_eq!(verify(&disk).findings, []);
}

/// The blocks of a segment file: where each starts, and whether it holds frames.
fn blocks(segment: &[u8]) -> Vec<(usize, bool)> {
    (4096..segment.len())
        .step_by(512)
        .filter(|at| segment[*at..].starts_with(b"LBK1"))
        .map(|at| (at, segment[at + 4] == ledge_log::BlockKind::Data as u8))
        .collect()
}

/// As [`sample`], with several frames in some blocks.
fn grouped() -> SimDisk {
    let disk = SimDisk::new();
    let options = Options {
        linger: ledge_log::Linger {
            up_data: std::time::Duration::from_millis(2),
            up_state: std::time::Duration::from_millis(2),
            ..Default::default()
        },
        committer: ledge_log::Committer::Thread,
        ..tolerant(1)
    };
    let (log, _) = Log::open(storage(&disk), &dir(), options).unwrap();
    std::thread::scope(|threads| {
        for (lane, at) in [(Lane::UpState, 0), (Lane::UpData, 100)] {
            let log = log.clone();
            threads.spawn(move || {
                for n in 0..40 {
                    log.append_blocking(&stream(lane), vec![record(at + n)]).unwrap();
                }
            });
        }
    });
    log.close().unwrap();
    disk
}

/// Several blocks in a row, of which not even the headers are left: they come back as long as a block behind them says
/// what they came to.
#[test]
fn blocks_in_a_row_come_back_from_a_peer() {
    type Harm = fn(&mut [u8]);
    let kinds: [(&str, Harm); 3] = [
        ("zeroed", |block| block.fill(0)),
        ("a bit of the header", |block| block[20] ^= 4),
        ("a bit of the directory", |block| block[70] ^= 4),
    ];
    for (name, disk, lengths) in [
        ("finished", sample(), 2..=4),
        ("unfinished", unfinished(), 2..=4),
        ("grouped", grouped(), 2..=2),
    ] {
        let all = pristine(&disk);
        let last = (0..).find(|no| disk.read(&segment_path(*no)).is_none()).unwrap() - 1;
        let (mut rounds, mut restored) = (0, 0);
        for no in 0..=last {
            let path = segment_path(no);
            let found = blocks(&disk.read(&path).unwrap());
            for len in lengths.clone() {
                for run in found.windows(len + 1) {
                    if !run[..len].iter().all(|(_, data)| *data) {
                        continue;
                    }
                    for (kind, harm) in &kinds {
                        let what = format!("{name}, segment {no}, {len} blocks at {}: {kind}", run[0].0);
                        let back = round(&disk, &all, &what, |disk| {
                            disk.corrupt(&path, |bytes| {
                                for pair in run.windows(2) {
                                    harm(&mut bytes[pair[0].0..pair[1].0]);
                                }
                            });
                        });
                        rounds += 1;
                        restored += u32::from(back);
                        // Of streams that end in the last segment nothing may say that there was more.
                        assert!(back || no == last, "{what}");
                    }
                }
            }
        }
        println!("{name}: {restored} of {rounds} restored");
        assert!(
            rounds > 40 && restored * 10 >= rounds * 8,
            "{name}: {restored} of {rounds}"
        );
    }
}

/// As [`a_crash_while_a_block_is_put_back_loses_nothing`], of three in a row.
#[test]
fn a_crash_while_blocks_in_a_row_are_put_back_loses_nothing() {
    for disk in [sample(), unfinished()] {
        let all = pristine(&disk);
        let path = segment_path(0);
        let found = blocks(&disk.read(&path).unwrap());
        let run = found
            .windows(4)
            .find(|run| run[..3].iter().all(|(_, data)| *data))
            .unwrap();
        let damaged = || {
            let copy = disk.after_kill();
            copy.corrupt(&path, |bytes| bytes[run[0].0..run[3].0].fill(0));
            copy
        };
        let give_back = |log: &Log| -> Option<()> {
            let mut blocks = log.read_blocks(BlockNo::ZERO);
            while blocks.position() < log.durable_block() {
                if blocks.next_block().is_err() {
                    blocks = log.read_blocks(blocks.position().next());
                }
            }
            for lost in log.quarantined() {
                for frame in &all[&lost.key] {
                    if lost.first <= frame.first_seq() && frame.last_seq() <= lost.last {
                        match log.refill(frame.clone()) {
                            Ok(_) | Err(RefillError::NotQuarantined { .. }) => {}
                            Err(_) => return None,
                        }
                    }
                }
            }
            log.quarantined().is_empty().then_some(())
        };
        let ops = {
            let disk = damaged();
            let (log, _) = open_tolerant(&disk, 2).unwrap();
            give_back(&log).unwrap();
            drop(log);
            disk.ops()
        };
        for op in 0..ops {
            let disk = damaged();
            disk.crash_at(op);
            let back = open_tolerant(&disk, 2).ok().and_then(|(log, _)| give_back(&log));
            for keeps in [
                CrashKeeps::Nothing,
                CrashKeeps::Everything,
                CrashKeeps::Random(op),
                CrashKeeps::Only(0),
            ] {
                let what = format!("operation {op}, {keeps:?}");
                let after = disk.after_crash(&keeps);
                let (log, _) = open_tolerant(&after, 3).unwrap();
                read_what_is_there(&log, &all, &what);
                if back.is_some() {
                    assert_eq!(log.quarantined(), [], "{what}: it was acknowledged");
                }
                give_back(&log).unwrap_or_else(|| panic!("{what}"));
                log.close().unwrap();
                assert_eq!(verify(&after).findings, [], "{what}");
            }
        }
    }
}
