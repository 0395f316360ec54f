//! The log as its users see it, over a simulated and a real disk.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::sync::Arc;

use common::*;
use ledge_log::{
    AppendError, BlockKind, BlockNo, DiskStorage, Log, LogView, OpenError, Options, ReadError, RecycleError,
    SimDisk,
};
use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::{ClusterId, Lane, Mark, Position, Seq};

#[test]
fn records_come_back_in_order_after_reopening() {
    let disk = SimDisk::new();
    let (log, recovery) = open(&disk, 1);
    assert!(recovery.created);
    assert_eq!(log.identity().boot, 1);
    let id = stream(Lane::UpData);
    for n in 0..50 {
        let appended = log
            .append_blocking(&id, vec![record(2 * n), record(2 * n + 1)])
            .unwrap();
        assert_eq!(appended.first.seq, Seq(2 * n + 1));
        assert_eq!(appended.last.seq, Seq(2 * n + 2));
    }
    let key = log.own_key(&id);
    let durable = log.durable(&key).unwrap();
    let all = read_all(&mut log.read_stream(&key, Seq(0)));
    assert_eq!(all.len(), 100);
    assert!(
        all.iter()
            .enumerate()
            .all(|(n, (seq, k))| seq.0 == n as u64 + 1 && *k == record(n as u64).key)
    );
    log.close().unwrap();

    let (log, recovery) = open(&disk, 2);
    assert!(
        recovery.clean && !recovery.created && recovery.torn_at.is_none(),
        "{recovery:?}"
    );
    assert_eq!(log.identity().boot, 2);
    assert_eq!(log.durable(&key), Some(durable));
    assert_eq!(read_all(&mut log.read_stream(&key, Seq(0))), all);
    let appended = log.append_blocking(&id, vec![record(100)]).unwrap();
    assert_eq!(appended.first.seq, Seq(101));
    drop(log);
    assert!(verify(&disk).is_sound());
    assert_eq!(verify(&disk).records, 101);
}

#[test]
fn segments_follow_each_other_and_are_indexed() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let id = stream(Lane::UpData);
    for n in 0..400 {
        log.append_blocking(&id, vec![record(n)]).unwrap();
    }
    assert!(log.stats().segments > 2, "{:?}", log.stats());
    let head = log.durable_block();
    let mut reader = log.read_blocks(BlockNo::ZERO);
    let mut chain = None;
    let mut seals = 0;
    let mut records = 0;
    while let Some(block) = reader.next_block().unwrap() {
        if let Some(chain) = chain {
            assert_eq!(block.prev_chain, chain);
        }
        chain = Some(block.chain().unwrap());
        assert_eq!(log.chain_of_block(block.no), chain);
        seals += usize::from(block.kind == BlockKind::Seal);
        records += block.record_count();
        assert_eq!(block.frames().len(), block.frame_count());
    }
    assert_eq!(reader.position(), head);
    assert_eq!(records, 400);
    assert_eq!(seals, log.stats().segments - 1);
    log.close().unwrap();
    let (log, recovery) = open(&disk, 2);
    assert!(
        recovery.scanned_blocks < head.0 / 2,
        "sealed segments are not scanned: {recovery:?}"
    );
    assert_eq!(
        read_all(&mut log.read_stream(&log.own_key(&id), Seq(0))).len(),
        400
    );
    assert!(verify(&disk).is_sound(), "{:?}", verify(&disk).findings);
}

#[test]
fn frames_from_elsewhere_are_stored_verbatim() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let key = remote_key(1);
    let mut writer = FrameWriter::new(key.clone());
    let frames: Vec<_> = (1..20).map(|n| frame(&mut writer, n)).collect();
    for frame in &frames {
        assert_eq!(log.append_frame_blocking(frame.clone()).unwrap(), frame.mark());
    }
    let mut reader = log.read_stream(&key, Seq(0));
    for frame in &frames {
        assert_eq!(reader.next().unwrap().unwrap().bytes(), frame.bytes());
        assert_eq!(log.mark_at(&key, frame.last_seq()).unwrap(), Some(frame.mark()));
    }
    assert!(reader.next().unwrap().is_none());
    assert_eq!(log.mark_at(&key, Seq(2)).unwrap(), None, "no frame ends there");
    assert_eq!(
        log.mark_at(&key, Seq::ZERO).unwrap(),
        Some(Mark {
            position: Position::ZERO,
            chain: key.genesis_chain()
        })
    );
    // In the middle of a frame: the frame that contains it.
    let got = log.read_stream(&key, Seq(5)).next().unwrap().unwrap();
    assert_eq!((got.first_seq(), got.last_seq()), (Seq(4), Seq(6)));
    // One more arrives while the reader is at the end.
    let next = frame(&mut writer, 3);
    log.append_frame_blocking(next.clone()).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().bytes(), next.bytes());
    let info = log.streams();
    assert_eq!(info.len(), 1);
    assert_eq!(
        (info[0].first_seq, info[0].durable, info[0].records),
        (Seq(1), next.mark(), next.last_seq().0)
    );
}

#[test]
fn i1_duplicates_are_acknowledged_and_gaps_and_forks_are_not() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let key = remote_key(1);
    let mut writer = FrameWriter::new(key.clone());
    let frames: Vec<_> = (0..4).map(|_| frame(&mut writer, 3)).collect();
    log.append_frame_blocking(frames[0].clone()).unwrap();
    log.append_frame_blocking(frames[1].clone()).unwrap();
    let blocks = log.durable_block();
    assert_eq!(
        log.append_frame_blocking(frames[0].clone()).unwrap(),
        frames[0].mark()
    );
    assert_eq!(
        log.append_frame_blocking(frames[1].clone()).unwrap(),
        frames[1].mark()
    );
    assert_eq!(log.durable_block(), blocks, "no second copy");
    assert_eq!(log.stats().duplicates, 2);
    let err = log.append_frame_blocking(frames[3].clone()).unwrap_err();
    assert!(
        matches!(&err, AppendError::Gap { have, got, .. } if have.seq == Seq(6) && got.seq == Seq(10)),
        "{err}"
    );
    // Another history: same positions, other content.
    let mut other = FrameWriter::new(key.clone());
    let first = frame(&mut other, 4);
    let err = log.append_frame_blocking(first).unwrap_err();
    assert!(matches!(err, AppendError::Fork { .. }), "{err}");
    let mut other = FrameWriter::resume(
        key.clone(),
        Mark {
            chain: key.genesis_chain(),
            ..frames[1].mark()
        },
    );
    let err = log.append_frame_blocking(frame(&mut other, 1)).unwrap_err();
    assert!(matches!(err, AppendError::Fork { .. }), "{err}");
    // A stream only this log writes.
    let own = log.own_key(&stream(Lane::UpData));
    let err = log
        .append_frame_blocking(frame(&mut FrameWriter::new(own), 1))
        .unwrap_err();
    assert!(matches!(err, AppendError::OwnStream { .. }), "{err}");
    log.append_frame_blocking(frames[2].clone()).unwrap();
}

#[test]
fn recycling_keeps_positions_and_tells_late_readers() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let id = stream(Lane::UpData);
    let quiet = stream(Lane::UpState);
    log.append_blocking(&quiet, vec![record(0)]).unwrap();
    let quiet_mark = log.durable(&log.own_key(&quiet)).unwrap();
    for n in 0..400 {
        log.append_blocking(&id, vec![record(n)]).unwrap();
    }
    let mut late = log.read_blocks(BlockNo::ZERO);
    late.next_block().unwrap();
    let files = |suffix: &str| {
        let names = ledge_log::Storage::list(&disk, &dir()).unwrap();
        names.into_iter().filter(|name| name.contains(suffix)).count()
    };
    let before = files("seg-");
    let err = log.recycle_before(log.durable_block()).unwrap_err();
    assert!(matches!(err, RecycleError::NeedsBase { .. }), "{err}");
    let head = log.durable_block();
    let pin = log.pin(BlockNo(1));
    assert!(retain_from(&log, head).is_err());
    drop(pin);
    assert!(retain_from(&log, head).is_ok());
    assert!(before > 3);
    assert_eq!((files("seg-"), files("spare-")), (1, 1));
    assert!(matches!(late.next_block(), Err(ReadError::Recycled { .. })));
    let key = log.own_key(&id);
    assert!(matches!(
        log.read_stream(&key, Seq(0)).next(),
        Err(ReadError::Jump {
            snapshot: Some(_),
            ..
        })
    ));
    assert_eq!(log.durable(&log.own_key(&quiet)), Some(quiet_mark));
    let first = log
        .streams()
        .into_iter()
        .find(|info| info.key == key)
        .unwrap()
        .first_seq;
    assert!(first > Seq(1));
    // The used file becomes a segment again, and nothing of its earlier life comes back.
    for n in 400..800 {
        log.append_blocking(&id, vec![record(n)]).unwrap();
    }
    log.close().unwrap();
    assert!(verify(&disk).is_sound(), "{:?}", verify(&disk).findings);
    let (log, _) = open(&disk, 2);
    assert_eq!(log.durable(&log.own_key(&quiet)), Some(quiet_mark));
    assert_eq!(
        log.append_blocking(&quiet, vec![record(1)]).unwrap().first.seq,
        Seq(2)
    );
    assert_eq!(
        read_all(&mut log.read_stream(&key, Seq(first.0 - 1))).len() as u64,
        800 - first.0 + 1
    );
}

#[test]
fn a_view_follows_a_running_log() {
    let disk = SimDisk::new();
    assert!(matches!(
        LogView::open(storage(&disk), &dir()),
        Err(OpenError::Io { .. } | OpenError::NotALog { .. })
    ));
    let (log, _) = open(&disk, 1);
    let id = stream(Lane::UpData);
    log.append_blocking(&id, vec![record(0)]).unwrap();
    let mut view = view(&disk);
    assert_eq!(view.identity(), log.identity());
    let key = log.own_key(&id);
    let mut reader = view.read_stream(&key, Seq(0));
    assert_eq!(read_all(&mut reader).len(), 1);
    for n in 1..300 {
        log.append_blocking(&id, vec![record(n)]).unwrap();
    }
    assert!(reader.next().unwrap().is_none());
    view.refresh().unwrap();
    assert_eq!(read_all(&mut reader).len(), 299);
    assert_eq!(view.last_block(), log.durable_block());
    assert_eq!(view.streams(), log.streams());
}

#[test]
fn foreign_logs_are_refused() {
    let disk = SimDisk::new();
    open(&disk, 1).0.close().unwrap();
    let open = |options: Options| Log::open(storage(&disk), &dir(), options).map(drop);
    let err = open(Options {
        cluster: ClusterId([8; 16]),
        ..options(1)
    })
    .unwrap_err();
    assert!(matches!(err, OpenError::ForeignCluster { .. }), "{err}");
    let err = open(Options {
        node: "edge-2".to_owned(),
        ..options(1)
    })
    .unwrap_err();
    assert!(matches!(err, OpenError::ForeignNode { .. }), "{err}");
    assert!(err.to_string().contains("edge-1") && err.to_string().contains("edge-2"));
    for bad in [
        Options {
            align: 100,
            ..options(1)
        },
        Options {
            segment_bytes: 1,
            ..options(1)
        },
        Options {
            node: String::new(),
            ..options(1)
        },
    ] {
        assert!(matches!(open(bad), Err(OpenError::Options(_))));
    }
}

#[test]
fn a_second_writer_is_told_who_has_the_log() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let err = Log::open(storage(&disk), &dir(), options(1)).unwrap_err();
    assert!(matches!(err, OpenError::Locked { .. }), "{err}");
    log.close().unwrap();
    open(&disk, 1);

    let temp = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1 << 20,
        ..Options::new(CLUSTER, "edge-1")
    };
    let (log, _) = Log::open(Arc::new(DiskStorage), temp.path(), options.clone()).unwrap();
    let err = Log::open(Arc::new(DiskStorage), temp.path(), options).unwrap_err();
    assert!(
        err.to_string()
            .contains(&format!("process {}", std::process::id())),
        "{err}"
    );
    LogView::open(Arc::new(DiskStorage), temp.path()).unwrap();
    drop(log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_syncs_on_a_real_disk() {
    let temp = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1 << 20,
        max_queue_bytes: 64 * 1024,
        ..Options::new(CLUSTER, "edge-1")
    };
    let (log, _) = Log::open(Arc::new(DiskStorage), temp.path(), options.clone()).unwrap();
    let mut tasks = Vec::new();
    for task in 0..64u64 {
        let log = log.clone();
        tasks.push(tokio::spawn(async move {
            let id = stream(if task % 2 == 0 {
                Lane::UpData
            } else {
                Lane::UpState
            });
            let mut last = Seq::ZERO;
            for n in 0..50 {
                let appended = log
                    .append(&id, vec![record(task * 1000 + n), record(n)])
                    .await
                    .unwrap();
                assert!(appended.first.seq > last && appended.last.seq.0 == appended.first.seq.0 + 1);
                assert!(log.durable(&log.own_key(&id)).unwrap().position >= appended.last);
                last = appended.last.seq;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let stats = log.stats();
    assert_eq!(stats.records, 6400);
    assert!(
        stats.commits < 3200 / 2,
        "appends that wait together share a sync: {stats:?}"
    );
    assert_eq!(*log.subscribe().borrow(), log.durable_block());
    log.close().unwrap();
    let report = ledge_log::verify(&DiskStorage, temp.path()).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    let (log, recovery) = Log::open(Arc::new(DiskStorage), temp.path(), options).unwrap();
    assert!(recovery.clean);
    for lane in [Lane::UpData, Lane::UpState] {
        assert_eq!(
            read_all(&mut log.read_stream(&log.own_key(&stream(lane)), Seq(0))).len(),
            3200
        );
    }
}

#[test]
fn the_first_frame_after_a_record_is_found_alone() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let id = stream(Lane::UpData);
    let key = log.own_key(&id);
    assert!(log.first_after(&key, Seq(0)).unwrap().is_none());
    for n in 0..3 {
        log.append_blocking(&id, vec![record(2 * n), record(2 * n + 1)])
            .unwrap();
    }
    let first_of = |after| {
        let frame = log.first_after(&key, Seq(after)).unwrap();
        frame.map(|frame| (frame.first_seq().0, frame.last_seq().0))
    };
    assert_eq!(first_of(0), Some((1, 2)));
    assert_eq!(first_of(2), Some((3, 4)));
    assert_eq!(first_of(3), Some((3, 4)), "it holds record 4");
    assert_eq!(first_of(6), None);
}
