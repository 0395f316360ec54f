//! Giving up the oldest segment.

use std::collections::BTreeMap;
use std::time::Duration;

use ledge_log::{BlockNo, Log, OldestSegment, ReadError, Room, Skipped, SnapshotRef};
use ledge_proto::ids::{Lane, Mark, Seq, StreamKey};
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::ClockQuality;
use ledge_proto::{mutants, v1};

use crate::error::RetentionError;
use crate::gaps::{GapWriter, Recorded};
use crate::policy::{Keeper, Policy, Reason};
use crate::state::base_at;

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is room, and nothing is too old.
    Nothing,
    /// Something should go, but the segment being written is the only one.
    OnlyOne(Reason),
    /// Something should go, but what another node wrote is in the oldest segment and not archived yet.
    NotArchived {
        /// The other's stream.
        stream: StreamKey,
        /// The last of it in that segment.
        last: Seq,
        /// How far it is archived.
        archived: Seq,
    },
    /// The oldest segment went.
    GaveUp(GivenUp),
}

/// What went, and what was written down before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Why.
    pub reason: Reason,
    /// First and last block.
    pub blocks: (BlockNo, BlockNo),
    /// Records of telemetry that went before they were archived, and that this step recorded as a gap.
    pub dropped: u64,
    /// Gap records written for them.
    pub gaps: u64,
    /// Summaries kept of them.
    pub summaries: u64,
    /// Bases written, so that no state went with it.
    pub bases: u64,
    /// Records in it that could not be read, and that this step recorded as a gap of that reason: telemetry that was not
    /// archived, and state. The latest values of state may be older than they were.
    pub unreadable: u64,
}

/// Gives up the oldest segment when the log needs its room, in the order that loses nothing silently: what goes
/// unarchived is recorded, the state at the segment's end is written as a base, both are durable, and only then it goes.
///
/// Synchronous and deterministic: the same log, policy and time give the same records. A crash at any point is taken up by
/// the next step.
#[derive(Debug)]
pub struct Retention {
    policy: Policy,
    /// What gap records say about each stream this log writes, once it was read.
    recorded: BTreeMap<StreamKey, Recorded>,
}

impl Retention {
    /// For one opening of a log: make another when it is opened again.
    pub fn new(policy: Policy) -> Self {
        Retention {
            policy,
            recorded: BTreeMap::new(),
        }
    }

    /// Changes what the operator decided.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Gives up the oldest segment if it has to go; call again while it says [`Outcome::GaveUp`].
    ///
    /// `archived` says how far telemetry is archived: for streams this log writes, what lies beyond is recorded as a gap;
    /// for streams of others it does not go at all. `now` is when the gap is recorded.
    ///
    /// # Errors
    /// See [`RetentionError`]. The next step takes up where this one stopped.
    pub fn step(
        &mut self,
        log: &Log,
        archived: &dyn Fn(&StreamKey) -> Seq,
        now: Stamp,
    ) -> Result<Outcome, RetentionError> {
        let full = log.room();
        let mut reason = full.blocked.is_some().then(|| reason_of(&full));
        if reason.is_none() && self.policy.max_age.is_none() {
            return Ok(Outcome::Nothing);
        }
        let Some(oldest) = log.oldest_segment()? else {
            return Ok(reason.map_or(Outcome::Nothing, Outcome::OnlyOne));
        };
        if let Some(age) = self.policy.max_age
            && reason.is_none()
            && is_older(log, &oldest, age, now)?
        {
            reason = Some(Reason::MaxAge);
        }
        let Some(reason) = reason else {
            return Ok(Outcome::Nothing);
        };
        let own = log.identity().incarnation;
        for (key, _, end) in &oldest.streams {
            let archived = archived(key);
            if key.id.lane == Lane::UpData && key.incarnation != own && archived < end.position.seq {
                return Ok(Outcome::NotArchived {
                    stream: key.clone(),
                    last: end.position.seq,
                    archived,
                });
            }
        }
        let mut given_up = GivenUp {
            reason,
            blocks: (oldest.first_block, oldest.last_block),
            dropped: 0,
            gaps: 0,
            summaries: 0,
            bases: 0,
            unreadable: 0,
        };
        let early = mutants::on("base-before-gap");
        if early {
            self.write_bases(log, &oldest, now, &mut given_up)?;
            log.recycle_before(oldest.last_block.next())?;
        }
        for (key, first, end) in &oldest.streams {
            let declares = key.incarnation == own || self.policy.keeper == Keeper::Cloud;
            if key.id.lane == Lane::UpData && declares {
                let archived = archived(key);
                self.write_gaps(log, (key, *first, *end), archived, now, &mut given_up)?;
            }
        }
        if !early {
            self.write_bases(log, &oldest, now, &mut given_up)?;
            log.recycle_before(oldest.last_block.next())?;
        }
        Ok(Outcome::GaveUp(given_up))
    }

    /// Records what of a stream in the oldest segment goes unarchived, and what is kept of it.
    fn write_gaps(
        &mut self,
        log: &Log,
        (key, first, end): (&StreamKey, Seq, Mark),
        archived: Seq,
        now: Stamp,
        given_up: &mut GivenUp,
    ) -> Result<(), RetentionError> {
        let nothing =
            first > end.position.seq || (self.policy.keeper == Keeper::Node && end.position.seq <= archived);
        if nothing || mutants::on("recycle-unarchived-silently") {
            return Ok(());
        }
        let archived = match self.policy.keeper {
            Keeper::Node => archived,
            Keeper::Cloud => Seq::ZERO, // In this log: it is nowhere once it goes.
        };
        let recorded = recorded_of(&mut self.recorded, log, &self.policy, key)?;
        let mut writer = GapWriter::new(log, recorded, &self.policy, now, given_up);
        let mut reader = log.read_stream(key, Seq(first.0.saturating_sub(1)));
        loop {
            match reader.next() {
                Ok(Some(frame)) if frame.mark().position <= end.position => writer.take(&frame, archived)?,
                Err(ReadError::Jump { .. }) if reader.position() < end.position.seq => {
                    writer.flush()?;
                    reader.skip_jump();
                }
                Err(err @ ReadError::Damaged { .. }) if reader.position() < end.position.seq => {
                    let Some(skipped) = reader.skip_damage() else {
                        return Err(err.into());
                    };
                    let last = skipped.last.min(end.position.seq);
                    writer.lost(Skipped { last, ..skipped }, archived)?;
                }
                Ok(_) | Err(ReadError::Jump { .. } | ReadError::Damaged { .. }) => break,
                Err(err) => return Err(err.into()),
            }
        }
        writer.flush()
    }

    /// Writes the base of every stream whose state would go with the segment.
    fn write_bases(
        &mut self,
        log: &Log,
        oldest: &OldestSegment,
        now: Stamp,
        given_up: &mut GivenUp,
    ) -> Result<(), RetentionError> {
        let bases: BTreeMap<StreamKey, SnapshotRef> = log
            .bases()
            .into_iter()
            .map(|base| (base.key.clone(), base))
            .collect();
        // Of one stream written by one life of a disk after another, the later life's base comes later: replay puts them
        // in place in the order of their blocks, and the last one stands.
        let mut needed: Vec<(BlockNo, &StreamKey, Mark, bool)> = Vec::new();
        for (key, first, end) in &oldest.streams {
            let base = bases.get(key);
            let covered =
                base.is_some_and(|base| base.block > oldest.last_block && base.mark.position >= end.position);
            if covered {
                continue;
            }
            match base {
                Some(base) if *first > end.position.seq => needed.push((base.block, key, *end, false)),
                _ => needed.push((oldest.last_block.next(), key, *end, true)),
            }
        }
        if lives_overlap(&needed) {
            let last = last_blocks(log, oldest)?;
            for (since, key, _, _) in needed.iter_mut().filter(|(.., has_frames)| *has_frames) {
                *since = last.get(*key).copied().unwrap_or(*since);
            }
        }
        needed.sort_unstable_by_key(|(since, key, ..)| (*since, *key));
        for (_, key, end, has_frames) in needed {
            let base = base_at(log, bases.get(key), (key, end), oldest)?;
            // Of telemetry, what is gone was told already.
            if key.id.lane != Lane::UpData && !base.lost.is_empty() {
                let recorded = recorded_of(&mut self.recorded, log, &self.policy, key)?;
                let mut writer = GapWriter::new(log, recorded, &self.policy, now, given_up);
                for lost in base.lost {
                    writer.lost(lost, Seq::ZERO)?;
                }
            }
            log.append_snapshot_blocking(base.parts)?;
            given_up.bases += 1;
            // A base without frames belongs to a life that is over: those that came after it have to stay after it.
            let later = bases
                .values()
                .filter(|other| !has_frames && other.key.id == key.id && other.key != *key)
                .filter(|other| other.block > oldest.last_block);
            for other in later {
                log.append_snapshot_blocking(log.read_snapshot(other)?)?;
                given_up.bases += 1;
            }
        }
        Ok(())
    }
}

/// What is recorded about `key`, read the first time.
fn recorded_of<'a>(
    known: &'a mut BTreeMap<StreamKey, Recorded>,
    log: &Log,
    policy: &Policy,
    key: &StreamKey,
) -> Result<&'a mut Recorded, RetentionError> {
    use std::collections::btree_map::Entry;
    Ok(match known.entry(key.clone()) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => unknown.insert(Recorded::read(log, policy.keeper, key)?),
    })
}

/// Whether frames of one stream by two lives of its writer's disk are among these.
fn lives_overlap(needed: &[(BlockNo, &StreamKey, Mark, bool)]) -> bool {
    let with_frames = needed.iter().filter(|(.., has_frames)| *has_frames);
    let ids: Vec<_> = with_frames.map(|(_, key, ..)| &key.id).collect();
    // Ordered by key, so lives of one stream are neighbours.
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

/// The block of the last frame of each stream in the oldest segment.
fn last_blocks(log: &Log, oldest: &OldestSegment) -> Result<BTreeMap<StreamKey, BlockNo>, RetentionError> {
    let mut last = BTreeMap::new();
    let mut reader = log.read_blocks(oldest.first_block.previous());
    while reader.position() < oldest.last_block
        && let Some(block) = crate::state::next_readable(log, &mut reader, oldest.last_block)?
    {
        for frame in block.frames().flatten() {
            last.insert(frame.key().clone(), block.no);
        }
    }
    Ok(last)
}

/// Why there is no room: whichever would bite first.
fn reason_of(room: &Room) -> Reason {
    match room.limit {
        Some(limit) if limit.saturating_sub(room.used) <= room.free_on_disk => Reason::DiskLimit,
        _ => Reason::DiskFull,
    }
}

/// Whether all telemetry in the oldest segment happened longer ago than `age`.
fn is_older(log: &Log, oldest: &OldestSegment, age: Duration, now: Stamp) -> Result<bool, RetentionError> {
    // A clock that may be wrong takes nothing away.
    if now.clock != ClockQuality::ClockSynced {
        return Ok(false);
    }
    let before_us = now
        .wall_us
        .saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    let mut any = false;
    for (key, first, end) in &oldest.streams {
        if key.id.lane != Lane::UpData || *first > end.position.seq {
            continue;
        }
        any = true;
        let before_last = Seq(end.position.seq.0.saturating_sub(1));
        let last = match last_record(log, key, before_last, *end) {
            // Not the last one then, but the last that can be read.
            Err(RetentionError::Read(ReadError::Damaged { .. })) => {
                last_record(log, key, Seq(first.0.saturating_sub(1)), *end)?
            }
            last => last?,
        };
        let Some(last) = last else { continue };
        let set = !matches!(
            last.clock(),
            ClockQuality::ClockUnsynced | ClockQuality::ClockBeforeBuild
        );
        if !set || last.wall_us >= before_us {
            return Ok(false);
        }
    }
    Ok(any)
}

/// The last record of `key` after `after` and up to `end` that can be read; damage before the first one is an error.
fn last_record(
    log: &Log,
    key: &StreamKey,
    after: Seq,
    end: Mark,
) -> Result<Option<v1::Record>, RetentionError> {
    let mut last = None;
    let mut reader = log.read_stream(key, after);
    while reader.position() < end.position.seq {
        match reader.next() {
            Ok(Some(frame)) => {
                let records = frame.records().into_iter().flatten().map_while(Result::ok);
                let upto = records.take_while(|(position, _)| *position <= end.position);
                last = upto.map(|(_, record)| record).last().or(last);
            }
            Ok(None) => break,
            Err(ReadError::Jump { .. }) => reader.skip_jump(),
            Err(err @ ReadError::Damaged { .. }) => {
                if after.next() == end.position.seq || reader.skip_damage().is_none() {
                    return Err(err.into());
                }
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(last)
}
