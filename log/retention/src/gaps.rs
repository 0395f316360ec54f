//! What is already written down as given up, and writing it down.
//!
//! A crash may come between the gap record and the segment going. The log remembers the record, so it is looked for before
//! another is written: in the stream itself, once after the log was opened.

use std::collections::BTreeMap;

use ledge_log::{AppendError, Log, ReadError, Skipped};
use ledge_proto::fold::{State, snapshot, view};
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Epoch, Lane, Mark, Scope, Seq, StreamId, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::stamp::Stamp;
use ledge_proto::{mutants, v1};

use crate::degrade::Summaries;
use crate::engine::GivenUp;
use crate::error::RetentionError;
use crate::policy::{Degrade, Keeper, Policy, Reason};

/// The stream in which this log writes down what of `about` it gives up.
pub(crate) fn told_in(log: &Log, keeper: Keeper, about: &StreamKey) -> StreamId {
    let scope = about.id.scope.clone();
    match keeper {
        Keeper::Cloud => StreamId::new(scope, Lane::Local),
        Keeper::Node => {
            let own = Scope::node(&log.identity().node).unwrap_or(scope);
            StreamId::new(own, Lane::UpData)
        }
    }
}

/// How keys of gap records about a stream begin. A node writes about its own streams; the cloud about those of every
/// life of a node's disk.
fn key_prefix(keeper: Keeper, about: &StreamKey) -> String {
    match keeper {
        Keeper::Node => format!("{}/", about.id.lane),
        Keeper::Cloud => format!("{}/{}/", about.id.lane, about.incarnation),
    }
}

/// A stretch of a stream that is recorded as given up.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    last: Seq,
    /// Key of the gap record, shared by records about stretches that follow each other.
    key: String,
    reason: String,
    replaced_by: i32,
}

/// What gap records say about one stream.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    keeper: Keeper,
    about: StreamKey,
    prefix: String,
    /// By epoch and first record.
    stretches: BTreeMap<(Epoch, Seq), Stretch>,
    /// How far the stream was read for them.
    read: Option<Seq>,
}

impl Recorded {
    /// Nothing is read yet.
    fn new(keeper: Keeper, about: &StreamKey) -> Recorded {
        Recorded {
            keeper,
            about: about.clone(),
            prefix: key_prefix(keeper, about),
            stretches: BTreeMap::new(),
            read: None,
        }
    }

    /// Reads what the log holds: the gap records folded into the base, and those in the records held. One that cannot be
    /// read is written again.
    pub(crate) fn read(log: &Log, keeper: Keeper, about: &StreamKey) -> Result<Recorded, RetentionError> {
        let mut recorded = Recorded::new(keeper, about);
        recorded.read_on(log)?;
        Ok(recorded)
    }

    /// Reads what came since it was read last.
    fn read_on(&mut self, log: &Log) -> Result<(), RetentionError> {
        let key = log.own_key(&told_in(log, self.keeper, &self.about));
        let mut at = self.read.unwrap_or(Seq::ZERO);
        if self.read.is_none()
            && let Some(base) = log.bases().into_iter().find(|base| base.key == key)
        {
            let mut state = State::new();
            let fold = |source| RetentionError::fold(&key, source);
            match log.read_snapshot(&base) {
                Ok(parts) => snapshot::load(&mut state, &parts).map_err(fold)?,
                Err(ReadError::Damaged { .. }) => {}
                Err(err) => return Err(err.into()),
            }
            let gaps = match self.keeper {
                Keeper::Node => view::gaps(&state, &key.id.scope),
                Keeper::Cloud => view::given_up(&state, &key.id.scope),
            };
            for (name, gap) in gaps.map_err(fold)? {
                self.take(&name, &gap.content);
            }
            at = base.mark.position.seq;
        }
        let mut reader = log.read_stream(&key, at);
        loop {
            match reader.next() {
                Ok(None) => {
                    self.read = Some(reader.position());
                    return Ok(());
                }
                Ok(Some(frame)) => self.take_frame(&frame),
                Err(ReadError::Jump { .. }) => reader.skip_jump(),
                Err(err @ ReadError::Damaged { .. }) => {
                    if reader.skip_damage().is_none() {
                        return Err(err.into());
                    }
                }
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn take_frame(&mut self, frame: &Frame) {
        let records = frame.records().into_iter().flatten();
        for (_, record) in records.map_while(Result::ok) {
            if record.kind == RecordKind::Gap.as_wire()
                && let Ok(Payload::Gap(gap)) = Payload::decode(&record)
            {
                self.take(&record.key, &gap);
            }
        }
    }

    /// Takes in a gap record, when it is about this stream.
    fn take(&mut self, name: &str, gap: &v1::Gap) {
        let id = &self.about.id;
        if gap.scope != id.scope.as_wire() || gap.lane != id.lane.as_wire() || !name.starts_with(&self.prefix)
        {
            return;
        }
        self.stretches.insert(
            (Epoch(gap.epoch), Seq(gap.first_seq)),
            Stretch {
                last: Seq(gap.last_seq),
                key: name.to_owned(),
                reason: gap.reason.clone(),
                replaced_by: gap.replaced_by,
            },
        );
    }

    /// Whether the record is recorded as given up.
    pub(crate) fn covers(&self, epoch: Epoch, seq: Seq) -> bool {
        self.covered_until(epoch, seq).is_some()
    }

    /// The last record of the stretch that `seq` is recorded in.
    fn covered_until(&self, epoch: Epoch, seq: Seq) -> Option<Seq> {
        let before = self.stretches.range(..=(epoch, seq)).next_back();
        before
            .filter(|((of, _), stretch)| *of == epoch && stretch.last >= seq)
            .map(|(_, stretch)| stretch.last)
    }

    /// The first stretch of `first` to `last` that no gap record is about, under whatever epoch.
    fn first_missing(&self, mut first: Seq, last: Seq) -> Option<(Seq, Seq)> {
        // Epochs may use numbers again, so stretches may overlap: until none moves the beginning any more.
        while let Some(until) = self
            .stretches
            .iter()
            .filter(|((_, from), stretch)| *from <= first && stretch.last >= first)
            .map(|(_, stretch)| stretch.last)
            .max()
        {
            first = until.next();
        }
        if first > last {
            return None;
        }
        let next = self.stretches.keys().map(|(_, from)| *from);
        let next = next.filter(|from| *from > first).min();
        let until = next.map_or(last, |next| Seq(next.0 - 1).min(last));
        Some((first, until))
    }

    /// The record for a stretch that is about to go, and its key: that of the stretch before, where this one continues it,
    /// so that a long outage is one entry of the state.
    fn describe(
        &self,
        epoch: Epoch,
        (first, last): (Seq, Seq),
        reason: Reason,
        replaced_by: v1::Replacement,
    ) -> (String, v1::Gap) {
        let mut gap = v1::Gap {
            scope: self.about.id.scope.as_wire().to_owned(),
            lane: self.about.id.lane.as_wire(),
            epoch: epoch.0,
            first_seq: first.0,
            last_seq: last.0,
            reason: reason.name().to_owned(),
            count: last.0 + 1 - first.0,
            ..Default::default()
        };
        gap.set_replaced_by(replaced_by);
        let before = self.stretches.range(..(epoch, first)).next_back();
        let key = match before {
            Some(((of, _), before))
                if *of == epoch
                    && before.last.next() == first
                    && before.reason == gap.reason
                    && before.replaced_by == gap.replaced_by =>
            {
                before.key.clone()
            }
            _ => format!("{}{}-{first}", self.prefix, epoch.0),
        };
        (key, gap)
    }
}

/// Collects stretches of records that go, and writes down that they do.
pub(crate) struct GapWriter<'a> {
    pub(crate) log: &'a Log,
    pub(crate) told_in: StreamId,
    pub(crate) recorded: &'a mut Recorded,
    pub(crate) reason: Reason,
    pub(crate) now: Stamp,
    pub(crate) given_up: &'a mut GivenUp,
    degrade: Degrade,
    chunk_bytes: usize,
    /// Epoch, first and last record collected.
    stretch: Option<(Epoch, Seq, Seq)>,
    summaries: Summaries,
}

impl<'a> GapWriter<'a> {
    pub(crate) fn new(
        log: &'a Log,
        recorded: &'a mut Recorded,
        policy: &Policy,
        now: Stamp,
        given_up: &'a mut GivenUp,
    ) -> GapWriter<'a> {
        let degrade = match policy.keeper {
            Keeper::Node => policy.degrade,
            Keeper::Cloud => Degrade::None,
        };
        GapWriter {
            log,
            told_in: told_in(log, policy.keeper, &recorded.about),
            reason: given_up.reason,
            recorded,
            now,
            given_up,
            degrade,
            chunk_bytes: policy.chunk_bytes,
            stretch: None,
            summaries: Summaries::new(degrade),
        }
    }

    /// Takes in a frame that goes: its records after `archived`.
    pub(crate) fn take(&mut self, frame: &Frame, archived: Seq) -> Result<(), RetentionError> {
        let (epoch, last) = (frame.epoch(), frame.last_seq());
        if last <= archived {
            return Ok(());
        }
        if self.degrade == Degrade::None
            && frame.first_seq() > archived
            && !self.recorded.covers(epoch, frame.first_seq())
            && !self.recorded.covers(epoch, last)
        {
            // Nothing is kept of it: it need not be decoded.
            return self.extend(epoch, frame.first_seq(), last);
        }
        let mut next = frame.first_seq();
        for item in frame.records().into_iter().flatten() {
            let Ok((position, record)) = item else { break };
            next = position.seq.next();
            if position.seq <= archived || self.recorded.covers(epoch, position.seq) {
                self.flush()?;
                continue;
            }
            self.extend(epoch, position.seq, position.seq)?;
            self.summaries.take(&record);
            if self.summaries.bytes() >= self.chunk_bytes {
                self.flush()?;
            }
        }
        if next > last {
            return Ok(());
        }
        // Whole by its checksum, and nobody can tell what it says.
        let rest = Skipped {
            epoch,
            first: next,
            last,
        };
        self.lost(rest, archived)
    }

    /// Writes down records that cannot be read: those after `archived`.
    pub(crate) fn lost(&mut self, lost: Skipped, archived: Seq) -> Result<(), RetentionError> {
        self.flush()?;
        let mut first = lost.first.max(archived.next());
        while let Some(until) = self.recorded.covered_until(lost.epoch, first) {
            first = until.next();
        }
        if first > lost.last {
            return Ok(());
        }
        self.given_up.unreadable += lost.last.0 + 1 - first.0;
        let (name, gap) = self.recorded.describe(
            lost.epoch,
            (first, lost.last),
            Reason::Corrupt,
            v1::Replacement::None,
        );
        self.write(name, gap, Vec::new())
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
    pub(crate) fn flush(&mut self) -> Result<(), RetentionError> {
        let summaries = std::mem::replace(&mut self.summaries, Summaries::new(self.degrade));
        let Some((epoch, first, last)) = self.stretch.take() else {
            return Ok(());
        };
        let (method, kept) = summaries.finish();
        let (name, gap) = self.recorded.describe(epoch, (first, last), self.reason, method);
        match self.write(name, gap, kept) {
            Err(RetentionError::Append(AppendError::DiskFull { .. })) if method != v1::Replacement::None => {
                // No room to keep anything of it: what there is is for the record that it went.
                self.degrade = Degrade::None;
                self.summaries = Summaries::new(Degrade::None);
                let nothing = v1::Replacement::None;
                let (name, gap) = self.recorded.describe(epoch, (first, last), self.reason, nothing);
                self.write(name, gap, Vec::new())
            }
            written => written,
        }?;
        self.given_up.dropped += last.0 + 1 - first.0;
        Ok(())
    }

    fn write(&mut self, name: String, gap: v1::Gap, mut kept: Vec<v1::Record>) -> Result<(), RetentionError> {
        let summaries = kept.len() as u64;
        if !mutants::on("gap-without-record") {
            let boot = self.log.identity().boot;
            kept.push(self.now.record(boot, name.clone(), &Payload::Gap(gap.clone())));
            if summaries == 0 {
                self.log.append_reserved_blocking(&self.told_in, kept)?;
            } else {
                self.log.append_blocking(&self.told_in, kept)?;
            }
        }
        self.given_up.gaps += 1;
        self.given_up.summaries += summaries;
        self.recorded.take(&name, &gap);
        Ok(())
    }
}

/// Declares what a peer will never get of a stream of telemetry this log writes, before a snapshot goes there in the
/// place of records.
///
/// What was given up unarchived is recorded already. What a cloud had acknowledged was given up without a word; where
/// the cloud there is now is an older copy, or another one, it does not hold that.
#[derive(Debug)]
pub struct PeerGaps {
    key: StreamKey,
    recorded: Recorded,
}

impl PeerGaps {
    /// For one stream of one opening of a log.
    pub fn new(key: StreamKey) -> PeerGaps {
        PeerGaps {
            recorded: Recorded::new(Keeper::Node, &key),
            key,
        }
    }

    /// Appends a gap record for what is in none yet of the records after `after`, the last one the peer has, up to
    /// `at`, where the snapshot stands; they are durable when this returns. Returns how many records that is: 0 for
    /// streams of state, which the snapshot says all of, and for streams of others.
    ///
    /// # Errors
    /// When the log cannot be read or takes nothing.
    pub fn declare(&mut self, log: &Log, after: Seq, at: Mark, now: Stamp) -> Result<u64, RetentionError> {
        self.write(
            log,
            (after.next(), at.position.seq),
            at.position.epoch,
            Reason::CloudLost,
            now,
        )
    }

    /// As [`PeerGaps::declare`], of records that cannot be read and that the peer does not have either.
    ///
    /// # Errors
    /// As there.
    pub fn declare_corrupt(&mut self, log: &Log, lost: Skipped, now: Stamp) -> Result<u64, RetentionError> {
        self.write(log, (lost.first, lost.last), lost.epoch, Reason::Corrupt, now)
    }

    fn write(
        &mut self,
        log: &Log,
        (first, last): (Seq, Seq),
        epoch: Epoch,
        reason: Reason,
        now: Stamp,
    ) -> Result<u64, RetentionError> {
        let key = &self.key;
        let own = key.incarnation == log.identity().incarnation;
        if key.id.lane != Lane::UpData || !own || last < first {
            return Ok(0);
        }
        self.recorded.read_on(log)?;
        let (boot, mut count) = (log.identity().boot, 0);
        while let Some(stretch) = self.recorded.first_missing(first, last) {
            let nothing = v1::Replacement::None;
            let (name, gap) = self.recorded.describe(epoch, stretch, reason, nothing);
            let record = now.record(boot, name.clone(), &Payload::Gap(gap.clone()));
            log.append_blocking(&key.id, vec![record])?;
            count += gap.count;
            self.recorded.take(&name, &gap);
        }
        Ok(count)
    }
}
