//! Snapshots as their users see them: bases, moves of streams, and what readers are told.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use common::*;
use ledge_log::{AppendError, BlockKind, BlockNo, LogView, ReadError, SimDisk};
use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::{Chain, Epoch, Lane, Mark, Position, Seq};
use ledge_proto::v1::snapshot::Purpose;

fn mark(epoch: u32, seq: u64) -> Mark {
    Mark {
        position: Position {
            epoch: Epoch(epoch),
            seq: Seq(seq),
        },
        chain: Chain([u8::try_from(seq % 250).unwrap(); 16]),
    }
}

#[test]
fn an_own_stream_goes_on_from_its_new_mark_and_what_was_superseded_is_left_out() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let id = stream(Lane::UpState);
    let key = log.own_key(&id);
    for n in 1..=6 {
        log.append_blocking(&id, vec![record(n)]).unwrap();
    }
    let mut follows = log.read_stream(&key, Seq(3));
    for _ in 0..3 {
        follows.next().unwrap().unwrap();
    }
    // The cloud ends at 8; what stands of ours ends at 4.
    let to = mark(2, 8);
    log.append_snapshot_blocking(snapshot(&key, to, Purpose::Rebase, 3, 4))
        .unwrap();
    assert_eq!(log.durable(&key), Some(to));
    let appended = log.append_blocking(&id, vec![record(7)]).unwrap();
    assert_eq!((appended.first.epoch, appended.first.seq), (Epoch(2), Seq(9)));
    // A reader that was at 6 is told, and so is one that comes anew.
    let err = follows.next().unwrap_err();
    assert!(
        matches!(&err, ReadError::Jump { after: Seq(6), resume_after: Seq(8), snapshot: Some(at), .. } if at.mark == to),
        "{err}"
    );
    follows.skip_jump();
    assert_eq!(follows.next().unwrap().unwrap().first_seq(), Seq(9));
    let check = |log: &dyn Fn() -> ledge_log::StreamReader, blocks: &mut ledge_log::BlockReader| {
        let mut reader = log();
        for seq in 1..=4 {
            assert_eq!(reader.next().unwrap().unwrap().first_seq(), Seq(seq));
        }
        assert!(matches!(
            reader.next(),
            Err(ReadError::Jump {
                after: Seq(4),
                resume_after: Seq(8),
                ..
            })
        ));
        reader.skip_jump();
        let next = reader.next().unwrap().unwrap();
        assert!(next.follows(to.chain).is_ok() && reader.next().unwrap().is_none());
        let (mut stand, mut all, mut parts) = (Vec::new(), 0, 0);
        while let Some(block) = blocks.next_block().unwrap() {
            stand.extend(block.frames().map(|frame| frame.unwrap().first_seq().0));
            all += block.all_frames().filter(|(_, superseded)| *superseded).count();
            if let Some(part) = block.snapshot().unwrap() {
                assert_eq!((block.kind, part.part), (BlockKind::Snapshot, parts));
                parts += 1;
            }
        }
        assert_eq!((stand, all, parts), (vec![1, 2, 3, 4, 9], 2, 3));
    };
    check(
        &|| log.read_stream(&key, Seq(0)),
        &mut log.read_blocks(BlockNo::ZERO),
    );
    assert_eq!(log.mark_at(&key, Seq(8)).unwrap(), Some(to));
    assert_eq!(log.mark_at(&key, Seq(6)).unwrap(), None);
    let at = log.snapshot_of(&key).unwrap();
    assert_eq!(
        log.read_snapshot(&at).unwrap(),
        snapshot(&key, to, Purpose::Rebase, 3, 4)
    );
    log.close().unwrap();
    let view = LogView::open(storage(&disk), &dir()).unwrap();
    check(
        &|| view.read_stream(&key, Seq(0)),
        &mut view.read_blocks(BlockNo::ZERO),
    );
    assert_eq!(view.read_snapshot(&at).unwrap().len(), 3);
    let (log, _) = open(&disk, 2);
    check(
        &|| log.read_stream(&key, Seq(0)),
        &mut log.read_blocks(BlockNo::ZERO),
    );
    assert_eq!(log.opened(&key), log.durable(&key));
    assert_eq!(
        log.append_blocking(&id, vec![record(8)]).unwrap().first.seq,
        Seq(10)
    );
    drop(log);
    assert_eq!(verify(&disk).findings, []);
}

#[test]
fn a_foreign_stream_moves_upwards_only_and_the_next_frame_follows() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let key = remote_key(1);
    let mut before = FrameWriter::new(key.clone());
    log.append_frame_blocking(frame(&mut before, 10)).unwrap();
    let to = mark(1, 100);
    log.append_snapshot_blocking(snapshot(&key, to, Purpose::Rebase, 1, 0))
        .unwrap();
    for (backwards, what) in [(mark(1, 50), "lower seq"), (mark(0, 500), "lower epoch")] {
        let err = log.append_snapshot_blocking(snapshot(&key, backwards, Purpose::Rebase, 1, 0));
        assert!(err.is_err(), "{what}");
    }
    let other = Mark {
        chain: Chain([9; 16]),
        ..to
    };
    let err = log
        .append_snapshot_blocking(snapshot(&key, other, Purpose::Rebase, 1, 0))
        .unwrap_err();
    assert!(matches!(err, AppendError::Fork { .. }), "{err}");
    // The same once more is no harm: its acknowledgement may have been lost.
    log.append_snapshot_blocking(snapshot(&key, to, Purpose::Rebase, 1, 0))
        .unwrap();
    assert!(log.append_frame_blocking(frame(&mut before, 1)).is_err());
    let mut after = FrameWriter::resume(key.clone(), to);
    log.append_frame_blocking(frame(&mut after, 2)).unwrap();
    let err = log
        .append_snapshot_blocking(snapshot(&key, mark(1, 101), Purpose::Rebase, 1, 0))
        .unwrap_err();
    assert!(matches!(err, AppendError::RebaseBackwards { .. }), "{err}");
    assert_eq!(log.durable(&key).unwrap().position.seq, Seq(102));
    log.close().unwrap();
    let (log, _) = open(&disk, 2);
    assert_eq!(log.durable(&key).unwrap().position.seq, Seq(102));
    // A stream this log never heard of begins where a snapshot says.
    log.append_snapshot_blocking(snapshot(&remote_key(2), mark(3, 7), Purpose::Rebase, 2, 0))
        .unwrap();
    let mut new = FrameWriter::resume(remote_key(2), mark(3, 7));
    log.append_frame_blocking(frame(&mut new, 1)).unwrap();
    drop(log);
    let (log, _) = open(&disk, 3);
    assert_eq!(log.durable(&remote_key(2)).unwrap().position.seq, Seq(8));
    drop(log);
    assert_eq!(verify(&disk).findings, []);
}

#[test]
fn bases_are_checked_against_what_is_held() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk, 1);
    let id = stream(Lane::UpData);
    let key = log.own_key(&id);
    let refused = |mark: Mark| {
        let err = log
            .append_snapshot_blocking(snapshot(&key, mark, Purpose::Base, 1, 0))
            .unwrap_err();
        assert!(matches!(err, AppendError::Snapshot { .. }), "{err}");
    };
    refused(mark(1, 1));
    log.append_blocking(&id, vec![record(1), record(2)]).unwrap();
    let held = log.durable(&key).unwrap();
    log.append_blocking(&id, vec![record(3)]).unwrap();
    refused(mark(1, 2));
    refused(mark(1, 1));
    refused(mark(1, 9));
    log.append_snapshot_blocking(snapshot(&key, held, Purpose::Base, 2, 0))
        .unwrap();
    assert_eq!(
        log.bases().iter().map(|base| base.mark).collect::<Vec<_>>(),
        [held]
    );
    let hint = snapshot(&key, held, Purpose::Hint, 1, 0);
    assert!(matches!(
        log.append_snapshot_blocking(hint),
        Err(AppendError::Snapshot { .. })
    ));
    // A base says nothing about where the stream goes on.
    assert_eq!(read_all(&mut log.read_stream(&key, Seq(0))).len(), 3);
    log.close().unwrap();
    let (log, _) = open(&disk, 2);
    assert_eq!(log.bases().len(), 1);
    assert_eq!(verify(&disk).snapshots, 1);
}
