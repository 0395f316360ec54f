//! What a log must and may hold: a workload that notes what it attempted and what was acknowledged.

use std::collections::BTreeMap;

use ledge_log::storage::sim::Rng;
use ledge_log::{AppendError, BlockNo, Log, LogView, OpenError, Options, ReadError, SimDisk};
use ledge_proto::frame::{Frame, FrameWriter};
use ledge_proto::ids::{Incarnation, Lane, Mark, Seq, StreamKey};

use super::*;

/// One stream as the oracle knows it.
#[derive(Default, Clone)]
pub(crate) struct Expected {
    /// Keys of records by sequence number: whatever may be in the log.
    attempted: BTreeMap<u64, String>,
    /// Up to here the log said "durable".
    acked: u64,
}

#[derive(Clone)]
pub(crate) struct Oracle {
    streams: BTreeMap<StreamKey, Expected>,
    remote: FrameWriter,
    /// Frames of the remote stream, whether or not they were acknowledged.
    frames: Vec<Frame>,
    /// Blocks before this one may be gone.
    recycled: BlockNo,
    identity: Option<(Incarnation, u32)>,
    rng: Rng,
    n: u64,
    steps: u64,
}

/// What a step came to, when not success.
pub(crate) enum Stop {
    Append(AppendError),
    Open(OpenError),
}

impl From<AppendError> for Stop {
    fn from(err: AppendError) -> Stop {
        Stop::Append(err)
    }
}

impl From<OpenError> for Stop {
    fn from(err: OpenError) -> Stop {
        Stop::Open(err)
    }
}

pub(crate) fn small(seed: u64) -> Options {
    Options {
        segment_bytes: 16 * 1024,
        ..options(seed)
    }
}

impl Oracle {
    pub(crate) fn new(seed: u64) -> Oracle {
        Oracle {
            streams: BTreeMap::new(),
            remote: FrameWriter::new(remote_key(1)),
            frames: Vec::new(),
            recycled: BlockNo::ZERO,
            identity: None,
            rng: Rng::new(seed),
            n: 0,
            steps: 0,
        }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    pub(crate) fn open(&mut self, disk: &SimDisk, seed: u64) -> Result<Log, Stop> {
        let (log, recovery) = Log::open(storage(disk), &dir(), small(seed))?;
        if let Some((incarnation, boot)) = self.identity {
            assert_eq!(
                log.identity().incarnation,
                incarnation,
                "the identity is durable once the log was opened"
            );
            assert!(log.identity().boot > boot, "boots are counted");
            assert!(!recovery.superblock_lost);
        }
        self.identity = Some((log.identity().incarnation, log.identity().boot));
        Ok(log)
    }

    /// Runs `steps` random steps on `log`.
    pub(crate) fn run(&mut self, log: &Log, steps: usize) -> Result<(), Stop> {
        for _ in 0..steps {
            self.steps += 1;
            match self.rng.below(20) {
                0 => self.recycle(log)?,
                1..=5 => self.append_frame(log)?,
                6 | 7 => self.append(log, Lane::UpState)?,
                _ => self.append(log, Lane::UpData)?,
            }
        }
        Ok(())
    }

    fn append(&mut self, log: &Log, lane: Lane) -> Result<(), Stop> {
        let id = stream(lane);
        let key = log.own_key(&id);
        let expected = self.streams.entry(key).or_default();
        let first = expected.acked + 1;
        let count = 1 + self.rng.below(4);
        let mut records = Vec::new();
        for seq in first..first + count {
            self.n += 1;
            let mut record = record(self.n);
            record.payload = vec![0xAB; self.rng.index(300)].into();
            // An attempt that was not acknowledged may be overwritten by this one, or may have survived: the
            // log was reopened in between, and `observe` then settled which.
            expected.attempted.insert(seq, record.key.clone());
            records.push(record);
        }
        let appended = log.append_blocking(&id, records)?;
        assert_eq!(
            (appended.first.seq.0, appended.last.seq.0),
            (first, first + count - 1)
        );
        expected.acked = first + count - 1;
        Ok(())
    }

    fn append_frame(&mut self, log: &Log) -> Result<(), Stop> {
        let key = self.remote.key().clone();
        let acked = self.streams.get(&key).map_or(0, |expected| expected.acked);
        // What was not acknowledged is offered again, as a peer would.
        let again = self
            .frames
            .iter()
            .find(|frame| frame.last_seq().0 > acked)
            .cloned();
        let next = match again {
            Some(frame) => frame,
            None => {
                let next = frame(&mut self.remote, 1 + u32::try_from(self.rng.below(5)).unwrap());
                self.frames.push(next.clone());
                next
            }
        };
        let expected = self.streams.entry(key).or_default();
        for record in next.records().unwrap() {
            let (position, record) = record.unwrap();
            expected.attempted.insert(position.seq.0, record.key);
        }
        assert_eq!(log.append_frame_blocking(next.clone())?, next.mark());
        expected.acked = next.last_seq().0;
        Ok(())
    }

    fn recycle(&mut self, log: &Log) -> Result<(), Stop> {
        let head = log.durable_block();
        self.recycled = self
            .recycled
            .max(BlockNo(head.0 - self.rng.below(head.0.min(30) + 1)));
        log.recycle_before(self.recycled)?;
        Ok(())
    }

    /// Checks an opened log, and takes over what survived without having been acknowledged.
    pub(crate) fn observe(&mut self, log: &Log) {
        let incarnation = log.identity().incarnation;
        for (key, expected) in &mut self.streams {
            assert!(*key == remote_key(1) || key.incarnation == incarnation);
            let durable = log.durable(key);
            let last = check_stream(key, expected, durable, |after| log.read_stream(key, after));
            expected.acked = last;
            expected.attempted.split_off(&(last + 1));
            if *key == remote_key(1) && last > 0 {
                let frame = self.frames.iter().find(|frame| frame.last_seq().0 == last);
                assert_eq!(frame.map(Frame::mark), durable, "whole frames survive or none");
            }
        }
        self.check_blocks(log);
    }

    /// As [`Oracle::observe`] for a read-only view, changing nothing.
    pub(crate) fn check_view(&self, view: &LogView) {
        for (key, expected) in &self.streams {
            check_stream(key, expected, view.durable(key), |after| {
                view.read_stream(key, after)
            });
        }
    }

    fn check_blocks(&self, log: &Log) {
        let mut reader = log.read_blocks(BlockNo::ZERO);
        if let Err(ReadError::Recycled { first_held, .. }) = reader.next_block() {
            assert!(
                first_held <= self.recycled.0 + 1,
                "I3: only what was given up is gone"
            );
            reader = log.read_blocks(BlockNo(first_held - 1));
        } else {
            reader = log.read_blocks(BlockNo::ZERO);
        }
        let mut chain = log.chain_of_block(reader.position());
        while let Some(block) = reader.next_block().unwrap() {
            assert_eq!(Some(block.prev_chain), chain, "the chain of blocks is whole");
            chain = Some(block.chain().unwrap());
            assert_eq!(log.chain_of_block(block.no), chain);
        }
        assert_eq!(reader.position(), log.durable_block());
    }
}

/// Every acknowledged record exactly once and in order, nothing that was never attempted. Returns the last seq.
fn check_stream(
    key: &StreamKey,
    expected: &Expected,
    durable: Option<Mark>,
    open: impl Fn(Seq) -> ledge_log::StreamReader,
) -> u64 {
    let last = durable.map_or(0, |mark| mark.position.seq.0);
    assert!(
        last >= expected.acked,
        "I2: {key} was acknowledged to {}, {last} is there",
        expected.acked
    );
    let mut reader = open(Seq::ZERO);
    let first = match reader.next() {
        Err(ReadError::Recycled { first_held, .. }) => first_held,
        other => {
            other.unwrap();
            1
        }
    };
    let mut next = first;
    for (seq, record_key) in read_all(&mut open(Seq(first - 1))) {
        assert_eq!(seq.0, next, "I1: {key} is dense");
        assert_eq!(
            Some(&record_key),
            expected.attempted.get(&seq.0),
            "{key} seq {seq} was never written so"
        );
        next += 1;
    }
    assert_eq!(next, last + 1, "{key} is readable to its end");
    last
}
