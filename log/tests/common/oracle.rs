//! What a log must and may hold: a workload that notes what it attempted and what was acknowledged.

use std::collections::BTreeMap;

use ledge_log::storage::sim::Rng;
use ledge_log::{AppendError, BlockNo, Log, LogView, OpenError, Options, ReadError, RecycleError, SimDisk};
use ledge_proto::frame::{Frame, FrameWriter};
use ledge_proto::ids::{Chain, Epoch, Incarnation, Lane, Mark, Position, Seq, StreamKey};
use ledge_proto::v1::snapshot::Purpose;

use super::*;

/// One stream as the oracle knows it. Positions are (epoch, seq).
#[derive(Clone)]
pub(crate) struct Expected {
    /// Keys of records: whatever may be in the log.
    attempted: BTreeMap<(u32, u64), String>,
    /// Up to here the log said "durable".
    acked: (u32, u64),
    /// Ends of acknowledged frames that still stand.
    ends: Vec<u64>,
    /// Where the stream may have been moved: to which mark, and how far what came before still stands.
    moves: Vec<(Mark, u64)>,
}

impl Default for Expected {
    fn default() -> Expected {
        Expected {
            attempted: BTreeMap::new(),
            acked: (1, 0),
            ends: Vec::new(),
            moves: Vec::new(),
        }
    }
}

impl Expected {
    /// What a rebase that counts does.
    fn moved(&mut self, mark: Mark, kept: u64) {
        self.acked = (mark.position.epoch.0, mark.position.seq.0);
        self.ends.retain(|end| *end <= kept);
    }
}

#[derive(Clone)]
pub(crate) struct Oracle {
    streams: BTreeMap<StreamKey, Expected>,
    remote: FrameWriter,
    /// Frames of the remote stream, whether or not they were acknowledged.
    frames: Vec<Frame>,
    /// A move of the remote stream that was not acknowledged.
    moving: Option<Mark>,
    /// Blocks before this one may be gone.
    recycled: BlockNo,
    identity: Option<(Incarnation, u32)>,
    rng: Rng,
    n: u64,
    steps: u64,
    /// The log may have three segments, and whoever owns it gives up the oldest in time.
    limited: bool,
}

/// What a step came to, when not success.
#[derive(Debug)]
pub(crate) enum Stop {
    Append(AppendError),
    Open(OpenError),
    Recycle(RecycleError),
}

impl From<AppendError> for Stop {
    fn from(err: AppendError) -> Stop {
        Stop::Append(err)
    }
}

impl From<RecycleError> for Stop {
    fn from(err: RecycleError) -> Stop {
        Stop::Recycle(err)
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

/// Three segments and the superblocks.
pub(crate) const LIMIT: u64 = 3 * 16 * 1024 + 4096;

impl Oracle {
    pub(crate) fn new(seed: u64) -> Oracle {
        Oracle {
            streams: BTreeMap::new(),
            remote: FrameWriter::new(remote_key(1)),
            frames: Vec::new(),
            moving: None,
            recycled: BlockNo::ZERO,
            identity: None,
            rng: Rng::new(seed),
            n: 0,
            steps: 0,
            limited: false,
        }
    }

    pub(crate) fn limited(seed: u64) -> Oracle {
        Oracle {
            limited: true,
            ..Oracle::new(seed)
        }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    pub(crate) fn open(&mut self, disk: &SimDisk, seed: u64) -> Result<Log, Stop> {
        let (log, recovery) = Log::open(storage(disk), &dir(), self.options(seed))?;
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

    fn options(&self, seed: u64) -> Options {
        Options {
            max_bytes: self.limited.then_some(LIMIT),
            reserve_bytes: if self.limited { 2048 } else { 0 },
            ..small(seed)
        }
    }

    /// Runs `steps` random steps on `log`.
    pub(crate) fn run(&mut self, log: &Log, steps: usize) -> Result<(), Stop> {
        for _ in 0..steps {
            self.steps += 1;
            if self.limited && log.room().blocked.is_some() {
                self.give_up_oldest(log)?;
            }
            match self.rng.below(20) {
                0 => self.recycle(log)?,
                1 => self.rebase_remote(log)?,
                2 => self.rebase_own(log)?,
                3 => self.base(log)?,
                4..=6 => self.append_frame(log)?,
                7..=9 => self.append(log, Lane::UpState)?,
                _ => self.append(log, Lane::UpData)?,
            }
        }
        Ok(())
    }

    fn append(&mut self, log: &Log, lane: Lane) -> Result<(), Stop> {
        let id = stream(lane);
        let key = log.own_key(&id);
        let expected = self.streams.entry(key).or_default();
        let (epoch, acked) = expected.acked;
        let first = acked + 1;
        let count = 1 + self.rng.below(4);
        let mut records = Vec::new();
        for seq in first..first + count {
            self.n += 1;
            let mut record = record(self.n);
            record.payload = vec![0xAB; self.rng.index(300)].into();
            // An attempt that was not acknowledged may be overwritten by this one, or may have survived: the
            // log was reopened in between, and `observe` then settled which.
            expected.attempted.insert((epoch, seq), record.key.clone());
            records.push(record);
        }
        let appended = log.append_blocking(&id, records)?;
        assert_eq!(
            (appended.first.seq.0, appended.last.seq.0, appended.last.epoch.0),
            (first, first + count - 1, epoch)
        );
        expected.acked = (epoch, first + count - 1);
        expected.ends.push(first + count - 1);
        Ok(())
    }

    fn append_frame(&mut self, log: &Log) -> Result<(), Stop> {
        let key = self.remote.key().clone();
        let acked = self.streams.get(&key).map_or(0, |expected| expected.acked.1);
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
            let at = (position.epoch.0, position.seq.0);
            expected.attempted.insert(at, record.key);
        }
        assert_eq!(log.append_frame_blocking(next.clone())?, next.mark());
        expected.acked = (next.epoch().0, next.last_seq().0);
        expected.ends.push(next.last_seq().0);
        Ok(())
    }

    fn chain(&mut self) -> Chain {
        let mut chain = [0; 16];
        self.rng.fill(&mut chain);
        Chain(chain)
    }

    /// The remote stream goes on elsewhere: a later place, perhaps of a new epoch.
    fn rebase_remote(&mut self, log: &Log) -> Result<(), Stop> {
        let key = self.remote.key().clone();
        let chain = self.chain();
        let expected = self.streams.entry(key.clone()).or_default();
        let (epoch, acked) = expected.acked;
        let position = if self.rng.below(2) == 0 {
            Position {
                epoch: Epoch(epoch),
                seq: Seq(acked + 1 + self.rng.below(20)),
            }
        } else {
            // A new epoch that begins anywhere, at an end of a frame or beyond the end.
            let at = self.rng.index(expected.ends.len() + 1);
            let seq = expected
                .ends
                .get(at)
                .copied()
                .unwrap_or(acked + self.rng.below(9));
            Position {
                epoch: Epoch(epoch + 1),
                seq: Seq(seq),
            }
        };
        let mark = Mark { position, chain };
        let kept = acked.min(position.seq.0);
        expected.moves.push((mark, kept));
        self.moving = Some(mark);
        let parts = snapshot(&key, mark, Purpose::Rebase, 1 + self.rng.index(3), 0);
        log.append_snapshot_blocking(parts)?;
        expected.moved(mark, kept);
        self.take_move(&key);
        Ok(())
    }

    fn take_move(&mut self, key: &StreamKey) {
        if let Some(mark) = self.moving.take() {
            self.remote = FrameWriter::resume(key.clone(), mark);
            self.frames.clear();
        }
    }

    /// An own stream begins a new epoch after having lost history.
    fn rebase_own(&mut self, log: &Log) -> Result<(), Stop> {
        let key = log.own_key(&stream(Lane::UpState));
        let chain = self.chain();
        let expected = self.streams.entry(key.clone()).or_default();
        let (epoch, acked) = expected.acked;
        let after = self.rng.index(expected.ends.len() + 1);
        let after = expected.ends.get(after).copied().unwrap_or(0);
        let position = Position {
            epoch: Epoch(epoch + 1),
            seq: Seq(acked + self.rng.below(5)),
        };
        let mark = Mark { position, chain };
        if position.seq == Seq::ZERO {
            return Ok(());
        }
        let kept = if after == 0 { acked } else { after };
        expected.moves.push((mark, kept));
        let parts = snapshot(&key, mark, Purpose::Rebase, 1 + self.rng.index(2), after);
        log.append_snapshot_blocking(parts)?;
        expected.moved(mark, kept);
        Ok(())
    }

    fn give_up_oldest(&mut self, log: &Log) -> Result<(), Stop> {
        if let Some(oldest) = log.oldest_segment().unwrap() {
            self.recycled = self.recycled.max(oldest.last_block.next());
            retain_from(log, oldest.last_block.next())?;
        }
        Ok(())
    }

    fn base(&mut self, log: &Log) -> Result<(), Stop> {
        let infos = log.streams();
        if let Some(info) = infos.get(self.rng.index(infos.len())) {
            let parts = snapshot(&info.key, info.durable, Purpose::Base, 1 + self.rng.index(3), 0);
            log.append_snapshot_blocking(parts)?;
            assert!(log.bases().iter().any(|base| base.mark == info.durable));
        }
        Ok(())
    }

    fn recycle(&mut self, log: &Log) -> Result<(), Stop> {
        let head = log.durable_block();
        let until = BlockNo(head.0 - self.rng.below(head.0.min(30) + 1));
        self.recycled = self.recycled.max(until);
        retain_from(log, until)
    }

    /// Checks an opened log, and takes over what survived without having been acknowledged.
    pub(crate) fn observe(&mut self, log: &Log) {
        let incarnation = log.identity().incarnation;
        for (key, expected) in &mut self.streams {
            assert!(*key == remote_key(1) || key.incarnation == incarnation);
            let durable = log.durable(key);
            let (last, moved) = check_stream(key, expected, durable, |after| log.read_stream(key, after));
            if let Some((mark, kept)) = moved {
                expected.moved(mark, kept);
                if self.moving == Some(mark) {
                    self.remote = FrameWriter::resume(key.clone(), mark);
                    self.frames.clear();
                }
            }
            if *key == remote_key(1) {
                self.moving = None;
            }
            // Without acknowledgement: a frame of the epoch, or nothing.
            if last > expected.acked {
                expected.ends.push(last.1);
            }
            expected.acked = last;
            expected.attempted.retain(|at, _| *at <= last);
            expected
                .moves
                .retain(|(mark, _)| (mark.position.epoch.0, mark.position.seq.0) <= last);
            if *key == remote_key(1) && last.1 > 0 {
                let frame = self.frames.iter().find(|frame| frame.last_seq().0 == last.1);
                let moved = expected.moves.iter().any(|(mark, _)| Some(*mark) == durable);
                let whole = moved || frame.map(Frame::mark) == durable;
                assert!(whole, "whole frames survive or none");
            }
            if let Some(at) = log.snapshot_of(key) {
                assert_eq!(log.read_snapshot(&at).unwrap().len(), at.parts as usize);
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

/// Every acknowledged record exactly once and in order, nothing that was never attempted. Returns the last position,
/// and the move that counts though it was not acknowledged.
fn check_stream(
    key: &StreamKey,
    expected: &Expected,
    durable: Option<Mark>,
    open: impl Fn(Seq) -> ledge_log::StreamReader,
) -> ((u32, u64), Option<(Mark, u64)>) {
    let last = durable.map_or((1, 0), |mark| (mark.position.epoch.0, mark.position.seq.0));
    assert!(
        last >= expected.acked,
        "I2: {key} was acknowledged to {:?}, {last:?} is there",
        expected.acked
    );
    let at = |mark: &Mark| (mark.position.epoch.0, mark.position.seq.0);
    let moved = expected
        .moves
        .iter()
        .rfind(|(mark, _)| at(mark) > expected.acked && at(mark) <= last)
        .copied();
    let mut reader = open(Seq::ZERO);
    let mut next = 1;
    let mut epoch = 0;
    loop {
        match reader.next() {
            Ok(None) => break,
            Ok(Some(frame)) => {
                for found in frame.records().unwrap() {
                    let (position, record) = found.unwrap();
                    assert_eq!(position.seq.0, next, "I1: {key} is dense");
                    assert!(position.epoch.0 >= epoch, "{key}: epochs go up");
                    epoch = position.epoch.0;
                    assert_eq!(
                        Some(&record.key),
                        expected.attempted.get(&(epoch, next)),
                        "{key} {position} was never written so"
                    );
                    next += 1;
                }
            }
            Err(ReadError::Jump {
                after,
                snapshot,
                resume_after,
                ..
            }) => {
                assert_eq!(after.0 + 1, next, "{key}: a jump from where it was read to");
                let to = |(mark, _): &&(Mark, u64)| mark.position.seq == resume_after;
                let explained = expected.moves.iter().any(|(_, kept)| *kept == after.0)
                    && expected.moves.iter().find(to).is_some();
                assert!(
                    after == Seq::ZERO || explained,
                    "{key}: nothing explains the jump from {after} to {resume_after}"
                );
                assert!(snapshot.is_some(), "{key}: something stands for what is gone");
                next = resume_after.0 + 1;
                reader.skip_jump();
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(next, last.1 + 1, "{key} is readable to its end");
    (last, moved)
}
