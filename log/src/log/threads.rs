//! L4: the queue under a scheduler that tries orders of threads. A lost wakeup shows as a deadlock, which the
//! scheduler reports.

use std::path::Path;
use std::sync::Arc;

use ledge_proto::frame::{FrameWriter, push_record};
use ledge_proto::ids::{
    Chain, ClusterId, Epoch, Incarnation, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey,
};
use ledge_proto::v1;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;

use super::*;
use crate::storage::sim::CrashKeeps;
use crate::{LogView, SimDisk};

const QUEUE_BYTES: usize = 600;

fn dir() -> &'static Path {
    Path::new("/log")
}

fn options() -> Options {
    Options {
        committer: Committer::Thread,
        segment_bytes: 16 * 1024,
        max_queue_bytes: QUEUE_BYTES,
        ..Options::deterministic(ClusterId([1; 16]), "edge-1", 1)
    }
}

/// A log whose committing threads belong to the scheduler.
fn open(disk: &SimDisk) -> (Log, Vec<thread::JoinHandle<()>>) {
    let (writer, _, durable) = recovery::open(Arc::new(disk.clone()), dir(), options()).unwrap();
    let handle = Handle {
        identity: writer.identity.clone(),
        room: writer.room.subscribe(),
        opened: retention::ends(&writer.catalog),
        shared: Arc::new(Shared::new(writer)),
        durable,
        threads: Mutex::new(Vec::new()),
    };
    let committing = (0..COMMITTING_THREADS).map(|_| {
        let shared = handle.shared.clone();
        thread::spawn(move || run(&shared))
    });
    let committing = committing.collect();
    let log = Log {
        handle: Arc::new(handle),
    };
    (log, committing)
}

fn stream(lane: Lane) -> StreamId {
    StreamId::new(Scope::node("edge-1").unwrap(), lane)
}

fn record(len: usize) -> v1::Record {
    v1::Record {
        kind: 1,
        payload: vec![7; len].into(),
        ..Default::default()
    }
}

/// What was acknowledged is published, and on the disk whatever happens now.
fn check_acked(disk: &SimDisk, log: &Log, key: &StreamKey, acked: Position) {
    let published = log.durable(key).unwrap().position;
    assert!(published >= acked, "published {published}, acknowledged {acked}");
    assert!(log.chain_of_block(log.durable_block()).is_some());
    let survivor = disk.after_crash(&CrashKeeps::Nothing);
    let view = LogView::open(Arc::new(survivor), dir()).unwrap();
    let kept = view.durable(key).unwrap().position;
    assert!(kept >= acked, "a crash keeps {kept}, acknowledged {acked}");
}

fn workload() {
    let disk = SimDisk::new();
    let (log, committing) = open(&disk);
    let mut producers = Vec::new();
    for lane in [Lane::UpData, Lane::UpState] {
        let (log, disk) = (log.clone(), disk.clone());
        producers.push(thread::spawn(move || {
            let key = log.own_key(&stream(lane));
            for n in 0..3 {
                let acked = log
                    .append_blocking(&stream(lane), vec![record(100 + 150 * n)])
                    .unwrap();
                check_acked(&disk, &log, &key, acked.last);
            }
        }));
    }
    {
        let (log, disk) = (log.clone(), disk.clone());
        producers.push(thread::spawn(move || {
            let id = stream(Lane::Local);
            let acked = shuttle::future::block_on(async {
                // Queued one after the other, awaited together; the second waits for room.
                let first = log.enqueue(&id, vec![record(200)]).await.unwrap();
                let second = log.enqueue(&id, vec![record(390)]).await.unwrap();
                drop(first);
                second.await.unwrap()
            });
            assert_eq!(acked.last.seq, Seq(2));
            check_acked(&disk, &log, &log.own_key(&id), acked.last);
        }));
    }
    {
        let (log, disk) = (log.clone(), disk.clone());
        producers.push(thread::spawn(move || remote(&log, &disk)));
    }
    for producer in producers {
        producer.join().unwrap();
    }
    assert_eq!(log.shared().queue_bytes(), 0);
    assert_eq!(
        log.shared().room.available_permits(),
        QUEUE_BYTES,
        "all room was given back"
    );
    log.shared().begin_close();
    for thread in committing {
        thread.join().unwrap();
    }
    log.close().unwrap();
}

/// Frames from elsewhere, twice, and a move of their stream between.
fn remote(log: &Log, disk: &SimDisk) {
    let key = StreamKey {
        id: StreamId::new(Scope::node("peer").unwrap(), Lane::UpData),
        incarnation: Incarnation([5; 16]),
    };
    let mut payload = Vec::new();
    push_record(&mut payload, &record(60));
    let frame = FrameWriter::new(key.clone()).frame(1, &payload).unwrap();
    let acked = log.append_frame_blocking(frame.clone()).unwrap();
    assert_eq!(log.append_frame_blocking(frame).unwrap(), acked);
    check_acked(disk, log, &key, acked.position);
    let mark = Mark {
        position: Position {
            epoch: Epoch(2),
            seq: Seq(9),
        },
        chain: Chain([4; 16]),
    };
    let part = v1::Snapshot {
        scope: "peer".to_owned(),
        lane: Lane::UpData.as_wire(),
        incarnation: key.incarnation.0.to_vec(),
        epoch: 2,
        seq: 9,
        chain: mark.chain.0.to_vec(),
        parts: 1,
        purpose: v1::snapshot::Purpose::Rebase.into(),
        ..Default::default()
    };
    log.append_snapshot_blocking(vec![part]).unwrap();
    check_acked(disk, log, &key, mark.position);
    let next = FrameWriter::resume(key.clone(), mark).frame(1, &payload).unwrap();
    let acked = shuttle::future::block_on(log.append_frame(next)).unwrap();
    assert_eq!(acked.position.seq, Seq(10));
    check_acked(disk, log, &key, acked.position);
}

#[test]
fn orders_of_threads_lose_no_wakeup_and_acknowledge_nothing_early() {
    let mut config = shuttle::Config::default();
    config.stack_size = 1 << 20; // What runs here was written for threads, not for coroutines.
    shuttle::Runner::new(RandomScheduler::new_from_seed(1, 400), config.clone()).run(workload);
    shuttle::Runner::new(PctScheduler::new_from_seed(2, 3, 200), config).run(workload);
}
