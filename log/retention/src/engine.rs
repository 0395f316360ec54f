//! Giving up the oldest segment.

use std::collections::BTreeMap;
use std::time::Duration;

use ledge_log::{BlockNo, Log, OldestSegment, ReadError, Room, SnapshotRef};
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Epoch, Lane, Mark, Seq, StreamKey};
use ledge_proto::mutants;
use ledge_proto::record::Payload;
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::ClockQuality;

use crate::degrade::Summaries;
use crate::error::RetentionError;
use crate::gaps::Recorded;
use crate::policy::{Policy, Reason};
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
        };
        let early = mutants::on("base-before-gap");
        if early {
            self.write_bases(log, &oldest, &mut given_up)?;
            log.recycle_before(oldest.last_block.next())?;
        }
        for (key, first, end) in &oldest.streams {
            if key.id.lane == Lane::UpData && key.incarnation == own {
                let archived = archived(key);
                self.write_gaps(log, (key, *first, *end), archived, now, &mut given_up)?;
            }
        }
        if !early {
            self.write_bases(log, &oldest, &mut given_up)?;
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
        if first > end.position.seq
            || end.position.seq <= archived
            || mutants::on("recycle-unarchived-silently")
        {
            return Ok(());
        }
        let recorded = match self.recorded.entry(key.clone()) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(unknown) => unknown.insert(Recorded::read(log, key)?),
        };
        let mut writer = GapWriter {
            log,
            key,
            recorded,
            policy: &self.policy,
            now,
            stretch: None,
            summaries: Summaries::new(self.policy.degrade),
            given_up,
        };
        let mut reader = log.read_stream(key, Seq(first.0.saturating_sub(1)));
        loop {
            match reader.next() {
                Ok(Some(frame)) if frame.mark().position <= end.position => writer.take(&frame, archived)?,
                Err(ReadError::Jump { .. }) if reader.position() < end.position.seq => {
                    writer.flush()?;
                    reader.skip_jump();
                }
                Ok(_) | Err(ReadError::Jump { .. }) => break,
                Err(err) => return Err(err.into()),
            }
        }
        writer.flush()
    }

    /// Writes the base of every stream whose state would go with the segment.
    fn write_bases(
        &self,
        log: &Log,
        oldest: &OldestSegment,
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
            log.append_snapshot_blocking(base_at(log, bases.get(key), (key, end), oldest)?)?;
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
        && let Some(block) = reader.next_block()?
    {
        for frame in block.frames().flatten() {
            last.insert(frame.key().clone(), block.no);
        }
    }
    Ok(last)
}

/// Collects a stretch of records that go, and writes down that they do.
struct GapWriter<'a> {
    log: &'a Log,
    key: &'a StreamKey,
    recorded: &'a mut Recorded,
    policy: &'a Policy,
    now: Stamp,
    /// Epoch, first and last record collected.
    stretch: Option<(Epoch, Seq, Seq)>,
    summaries: Summaries,
    given_up: &'a mut GivenUp,
}

impl GapWriter<'_> {
    fn take(&mut self, frame: &Frame, archived: Seq) -> Result<(), RetentionError> {
        let (epoch, last) = (frame.epoch(), frame.last_seq());
        if last <= archived {
            return Ok(());
        }
        if self.policy.degrade == crate::Degrade::None
            && frame.first_seq() > archived
            && !self.recorded.covers(epoch, frame.first_seq())
            && !self.recorded.covers(epoch, last)
        {
            // Nothing is kept of it: it need not be decoded.
            return self.extend(epoch, frame.first_seq(), last);
        }
        let unreadable = |source| RetentionError::frame(self.key, source);
        let records = frame.records().map_err(unreadable)?;
        for item in records {
            let (position, record) = item.map_err(unreadable)?;
            if position.seq <= archived || self.recorded.covers(epoch, position.seq) {
                self.flush()?;
                continue;
            }
            self.extend(epoch, position.seq, position.seq)?;
            self.summaries.take(&record);
            if self.summaries.bytes() >= self.policy.chunk_bytes {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn extend(&mut self, epoch: Epoch, first: Seq, last: Seq) -> Result<(), RetentionError> {
        match &mut self.stretch {
            Some((of, _, until)) if *of == epoch && until.next() == first => *until = last,
            _ => {
                self.flush()?;
                self.stretch = Some((epoch, first, last));
            }
        }
        Ok(())
    }

    /// Appends what is kept of the stretch and the gap record, as one: either both are durable or neither.
    fn flush(&mut self) -> Result<(), RetentionError> {
        let summaries = std::mem::replace(&mut self.summaries, Summaries::new(self.policy.degrade));
        let Some((epoch, first, last)) = self.stretch.take() else {
            return Ok(());
        };
        let (method, mut records) = summaries.finish();
        let reason = self.given_up.reason.name();
        let (name, gap) = self
            .recorded
            .describe(self.key, epoch, (first, last), reason, method);
        self.given_up.dropped += gap.count;
        self.given_up.gaps += 1;
        self.given_up.summaries += records.len() as u64;
        if !mutants::on("gap-without-record") {
            let boot = self.log.identity().boot;
            records.push(self.now.record(boot, name.clone(), &Payload::Gap(gap.clone())));
            self.log.append_blocking(&self.key.id, records)?;
        }
        self.recorded.wrote(self.key, &name, &gap);
        Ok(())
    }
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
        let Some(frame) = log.read_stream(key, before_last).next()? else {
            return Ok(false);
        };
        let unreadable = |source| RetentionError::frame(key, source);
        for item in frame.records().map_err(unreadable)? {
            let (position, record) = item.map_err(unreadable)?;
            let set = !matches!(
                record.clock(),
                ClockQuality::ClockUnsynced | ClockQuality::ClockBeforeBuild
            );
            if position.seq == end.position.seq && (!set || record.wall_us >= before_us) {
                return Ok(false);
            }
        }
    }
    Ok(any)
}
