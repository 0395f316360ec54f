//! A small log on a simulated disk that is always short of room, and what should be true of it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part; tests may unwrap"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use ledge_log::{AppendError, BlockNo, Log, OnDamage, OpenError, Options, ReadError, SimDisk};
use ledge_proto::fold::State;
use ledge_proto::frame::{Frame, FrameWriter, push_record};
use ledge_proto::ids::{ClusterId, Epoch, Incarnation, Lane, Scope, Seq, StreamId, StreamKey};
use ledge_proto::record::Payload;
use ledge_proto::stamp::Stamp;
use ledge_proto::v1;
use ledge_retention::replay::fold_all;
use ledge_retention::{Outcome, Policy, Retention, RetentionError};

pub(crate) const SEGMENT: u64 = 16 * 1024;
pub(crate) const LIMIT: u64 = 4 * SEGMENT + 12 * 1024;
const CLUSTER: ClusterId = ClusterId([7; 16]);

pub(crate) fn scope() -> Scope {
    Scope::node("edge-1").unwrap()
}

pub(crate) fn id(lane: Lane) -> StreamId {
    StreamId::new(scope(), lane)
}

pub(crate) fn value(n: u64) -> v1::Value {
    v1::Value {
        value: Some(v1::value::Value::Double(n as f64)),
    }
}

pub(crate) fn stamp(n: u64) -> Stamp {
    Stamp {
        wall_us: 1_800_000_000_000_000 + i64::try_from(n).unwrap() * 1_000_000,
        clock: v1::ClockQuality::ClockSynced,
        mono_us: n * 1_000_000,
    }
}

pub(crate) fn sample(n: u64) -> v1::Record {
    let payload = Payload::Sample(v1::Sample {
        value: Some(value(n)),
    });
    stamp(n).record(1, format!("default/pump-{}/t", n % 3), &payload)
}

pub(crate) fn reported(n: u64) -> v1::Record {
    let payload = Payload::TwinReported(v1::TwinReported {
        value: Some(value(n)),
    });
    stamp(n).record(1, format!("default/pump-{}/t", n % 17), &payload)
}

pub(crate) fn desired(n: u64) -> v1::Record {
    let payload = Payload::TwinDesired(v1::TwinDesired {
        value: Some(value(n)),
    });
    stamp(n).record(0, format!("default/pump-{}/t", n % 5), &payload)
}

/// Everything that was ever durable, and how to go on.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) disk: SimDisk,
    pub(crate) policy: Policy,
    pub(crate) archived: Seq,
    pub(crate) limit: Option<u64>,
    pub(crate) reserve: u64,
    /// Records that a test made unreadable: the state may miss them.
    pub(crate) damaged: bool,
    /// Every frame that was durable, in the order of its blocks.
    pub(crate) frames: Vec<Frame>,
    seen: BlockNo,
    n: u64,
    cloud: Incarnation,
}

pub(crate) enum Stop {
    Open(OpenError),
    Append(AppendError),
    Retention(RetentionError),
}

impl Site {
    pub(crate) fn new(policy: Policy) -> Site {
        Site {
            disk: SimDisk::new(),
            policy,
            archived: Seq(0),
            limit: Some(LIMIT),
            reserve: 1024,
            damaged: false,
            frames: Vec::new(),
            seen: BlockNo(0),
            n: 0,
            cloud: Incarnation([9; 16]),
        }
    }

    /// The same site on a disk of its own.
    pub(crate) fn on(&self, disk: SimDisk) -> Site {
        Site { disk, ..self.clone() }
    }

    pub(crate) fn open(&mut self, seed: u64) -> Result<Log, Stop> {
        let options = Options {
            segment_bytes: SEGMENT,
            max_bytes: self.limit,
            reserve_bytes: self.reserve,
            on_damage: match self.damaged {
                true => OnDamage::Quarantine,
                false => OnDamage::Refuse,
            },
            ..Options::deterministic(CLUSTER, "edge-1", seed)
        };
        let dir = PathBuf::from("/data/log");
        let (log, _) = Log::open(Arc::new(self.disk.clone()), &dir, options).map_err(Stop::Open)?;
        self.collect(&log);
        Ok(log)
    }

    /// Takes note of what became durable.
    pub(crate) fn collect(&mut self, log: &Log) {
        let mut reader = log.read_blocks(self.seen);
        while let Ok(Some(block)) = reader.next_block() {
            self.frames.extend(block.frames().map(Result::unwrap));
            self.seen = block.no;
        }
    }

    pub(crate) fn step(&mut self, log: &Log, retention: &mut Retention) -> Result<Outcome, Stop> {
        let archived = self.archived;
        let outcome = retention.step(log, &|_| archived, stamp(self.n));
        self.collect(log);
        outcome.map_err(Stop::Retention)
    }

    /// Gives up what has to go.
    pub(crate) fn make_room(&mut self, log: &Log, retention: &mut Retention) -> Result<u64, Stop> {
        let mut gone = 0;
        while let Outcome::GaveUp(_) = self.step(log, retention)? {
            gone += 1;
            self.check(log);
        }
        Ok(gone)
    }

    /// Appends to every lane, `rounds` times, making room in between. Returns how many segments went.
    pub(crate) fn run(&mut self, log: &Log, retention: &mut Retention, rounds: u64) -> Result<u64, Stop> {
        let mut gone = 0;
        for _ in 0..rounds {
            self.n += 1;
            let n = self.n;
            let samples = (0..4).map(|m| sample(n * 4 + m)).collect();
            log.append_blocking(&id(Lane::UpData), samples)
                .map_err(Stop::Append)?;
            self.collect(log);
            if n.is_multiple_of(3) {
                log.append_blocking(&id(Lane::UpState), vec![reported(n)])
                    .map_err(Stop::Append)?;
                log.append_frame_blocking(self.down(log, n))
                    .map_err(Stop::Append)?;
                self.collect(log);
            }
            gone += self.make_room(log, retention)?;
        }
        Ok(gone)
    }

    /// The next frame of the stream the cloud writes.
    fn down(&self, log: &Log, n: u64) -> Frame {
        let key = StreamKey {
            id: id(Lane::Down),
            incarnation: self.cloud,
        };
        let mut writer = match log.durable(&key) {
            Some(mark) => FrameWriter::resume(key, mark),
            None => FrameWriter::new(key),
        };
        let mut payload = Vec::new();
        push_record(&mut payload, &desired(n));
        writer.frame(1, &payload).unwrap()
    }

    /// The cloud was made anew: another life writes `down`.
    pub(crate) fn new_cloud(&mut self, life: u8) {
        self.cloud = Incarnation([life; 16]);
    }

    /// The state by another way: every frame ever durable, folded.
    pub(crate) fn expected(&self) -> State {
        let mut state = State::new();
        for frame in &self.frames {
            state.apply_frame(frame).unwrap();
        }
        state
    }

    /// Every gap record ever written.
    pub(crate) fn gaps(&self) -> Vec<v1::Gap> {
        let told = |frame: &&Frame| matches!(frame.key().id.lane, Lane::UpData | Lane::Local);
        let told = self.frames.iter().filter(told);
        told.flat_map(|frame| frame.records().unwrap())
            .filter_map(|item| match Payload::decode(&item.unwrap().1).unwrap() {
                Payload::Gap(gap) => Some(gap),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn own_data(&self) -> impl Iterator<Item = &Frame> {
        self.frames
            .iter()
            .filter(|frame| frame.key().id == id(Lane::UpData))
    }

    /// What was kept of dropped samples: every summary ends with the last sample of its stretch.
    pub(crate) fn check_kept(&self) {
        let mut before: Vec<(u64, v1::Record)> = Vec::new();
        let mut summaries: Vec<(String, v1::SampleSummary)> = Vec::new();
        for item in self.own_data().flat_map(|frame| frame.records().unwrap()) {
            let (position, record) = item.unwrap();
            match Payload::decode(&record).unwrap() {
                Payload::Sample(_) => before.push((position.seq.0, record)),
                Payload::SampleSummary(summary) => summaries.push((record.key, summary)),
                Payload::Gap(gap) => {
                    for (key, summary) in std::mem::take(&mut summaries) {
                        let samples = before.iter().filter(|(seq, sample)| {
                            (gap.first_seq..=gap.last_seq).contains(seq) && sample.key == key
                        });
                        let last = samples.last().map(|(_, sample)| Payload::decode(sample).unwrap());
                        let Some(Payload::Sample(last)) = last else {
                            continue;
                        };
                        assert_eq!(summary.last, last.value, "{key}");
                    }
                }
                _ => {}
            }
        }
    }

    /// What must be true at any time.
    pub(crate) fn check(&self, log: &Log) {
        // Nothing of the state is lost: what is held folds to what everything ever written folds to.
        let mut folded = State::new();
        fold_all(log, &mut folded).unwrap();
        if !self.damaged {
            assert_eq!(folded.hash(&scope()), self.expected().hash(&scope()));
            assert_eq!(folded, self.expected());
        }
        // Every record is held, archived, or recorded as given up, and none is recorded twice.
        let key = log.own_key(&id(Lane::UpData));
        let mut held = BTreeSet::new();
        let first = log
            .streams()
            .into_iter()
            .find(|info| info.key == key)
            .map_or(Seq(1), |info| info.first_seq);
        let mut reader = log.read_stream(&key, Seq(first.0 - 1));
        loop {
            match reader.next() {
                Ok(Some(frame)) => held.extend(frame.first_seq().0..=frame.last_seq().0),
                Ok(None) => break,
                // Not to be read, and nothing has gone yet.
                Err(ReadError::Damaged { .. }) if self.damaged => {
                    let skipped = reader.skip_damage().unwrap();
                    held.extend(skipped.first.0..=skipped.last.0);
                }
                Err(err) => panic!("{err}"),
            }
        }
        let mut missing = BTreeSet::new();
        let about_it = |gap: &v1::Gap| gap.lane == key.id.lane.as_wire();
        for gap in self.gaps().into_iter().filter(about_it) {
            assert_eq!((gap.scope.as_str(), gap.lane), ("edge-1", key.id.lane.as_wire()));
            assert_eq!(Epoch(gap.epoch), Epoch(1));
            assert_eq!(gap.count, gap.last_seq + 1 - gap.first_seq);
            for seq in gap.first_seq..=gap.last_seq {
                assert!(missing.insert(seq), "record {seq} is recorded as a gap twice");
                assert!(seq > self.archived.0, "record {seq} was archived");
            }
        }
        let oldest = log.oldest_segment().unwrap();
        let going = oldest
            .iter()
            .flat_map(|oldest| &oldest.streams)
            .find(|(of, ..)| *of == key)
            .map_or(0, |(_, _, end)| end.position.seq.0);
        let end = log.durable(&key).map_or(0, |mark| mark.position.seq.0);
        for seq in self.archived.0 + 1..=end {
            let (held, missing) = (held.contains(&seq), missing.contains(&seq));
            assert!(held || missing, "record {seq} is gone without a record of it");
            // Between the gap record and the segment going a crash may come; the next step takes it up.
            assert!(
                !(held && missing) || seq <= going,
                "record {seq} is held, and recorded as a gap"
            );
        }
        let room = log.room();
        assert!(room.limit.is_none_or(|limit| room.used <= limit), "{room:?}");
    }
}
