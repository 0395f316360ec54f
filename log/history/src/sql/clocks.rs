//! When records happened that were written before the clock was set.
//!
//! A daemon that finds its clock set notes what the monotonic clock said then. Records of the same start that were written by
//! a clock nobody had set get their time from that note. Nodes whose clocks are in order cost nothing: the notes are looked
//! for with the first record that needs them.

use std::sync::Arc;

use ledge_proto::ids::{Lane, Seq, StreamId, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1;
use ledge_proto::v1::ClockQuality;

use crate::source::{FrameSource, SourceError};

/// The notes of one life of a node's disk.
pub(crate) struct Clocks<'a> {
    sources: &'a [Arc<dyn FrameSource>],
    /// The stream they are in.
    key: StreamKey,
    notes: Option<Vec<v1::ClockSync>>,
}

impl<'a> Clocks<'a> {
    /// For the records of `stream`.
    pub(crate) fn of(sources: &'a [Arc<dyn FrameSource>], stream: &StreamKey) -> Self {
        Clocks {
            sources,
            key: StreamKey {
                id: StreamId::new(stream.id.scope.clone(), Lane::UpData),
                incarnation: stream.incarnation,
            },
            notes: None,
        }
    }

    /// Gives `record` the time it would have had, when its own is not to be trusted and a better one is known. Says whether
    /// it did.
    pub(crate) fn retime(&mut self, record: &mut v1::Record) -> Result<bool, SourceError> {
        if !matches!(
            record.clock(),
            ClockQuality::ClockUnsynced | ClockQuality::ClockBeforeBuild
        ) {
            return Ok(false);
        }
        let notes = match &mut self.notes {
            Some(notes) => notes,
            None => {
                let found = self.read()?;
                self.notes.insert(found)
            }
        };
        let note = notes
            .iter()
            .filter(|note| note.boot == record.boot && note.mono_us >= record.mono_us)
            .min_by_key(|note| note.mono_us);
        let Some(note) = note else { return Ok(false) };
        let before = i64::try_from(note.mono_us - record.mono_us).unwrap_or(i64::MAX);
        record.wall_us = note.wall_us.saturating_sub(before);
        Ok(true)
    }

    /// Every note about a clock that was in order from then on.
    fn read(&self) -> Result<Vec<v1::ClockSync>, SourceError> {
        let mut notes = Vec::new();
        for source in self.sources {
            if !source.streams().iter().any(|span| span.key == self.key) {
                continue;
            }
            for frame in source.frames(&self.key, Seq::ZERO)? {
                let frame = frame?;
                let unreadable = |err| SourceError::reading(&self.key, err);
                for item in frame.records().map_err(unreadable)? {
                    let (_, record) = item.map_err(unreadable)?;
                    if record.kind != RecordKind::ClockSync.as_wire() {
                        continue;
                    }
                    let payload =
                        Payload::decode(&record).map_err(|err| SourceError::reading(&self.key, err))?;
                    if let Payload::ClockSync(note) = payload
                        && note.quality() == ClockQuality::ClockSynced
                    {
                        notes.push(note);
                    }
                }
            }
        }
        Ok(notes)
    }
}
