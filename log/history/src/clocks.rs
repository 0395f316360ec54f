//! The notes a node wrote of its clock, looked for when a record needs them: nodes whose clocks are in order cost nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use ledge_proto::ids::{Incarnation, Lane, Scope, Seq, StreamId, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::retime::{ClockNotes, is_doubtful};
use ledge_proto::v1;

use crate::source::{FrameSource, SourceError};

/// The notes that tell about one stream.
#[derive(Debug)]
pub struct Clocks<'a> {
    sources: &'a [Arc<dyn FrameSource>],
    /// The stream they are in.
    key: StreamKey,
    notes: Option<ClockNotes>,
}

impl<'a> Clocks<'a> {
    /// For the records of `stream`.
    pub fn of(sources: &'a [Arc<dyn FrameSource>], stream: &StreamKey) -> Self {
        Clocks {
            sources,
            key: in_stream(&stream.id.scope, stream.incarnation),
            notes: None,
        }
    }

    /// The time of `record`, microseconds since 1970, when its own is not to be trusted and a better one is known.
    ///
    /// # Errors
    /// When the notes cannot be read.
    pub fn time_of(&mut self, record: &v1::Record) -> Result<Option<i64>, SourceError> {
        if !is_doubtful(record.clock()) {
            return Ok(None);
        }
        let notes = match &mut self.notes {
            Some(notes) => notes,
            None => {
                let found = read(self.sources, &self.key)?;
                self.notes.insert(found)
            }
        };
        Ok(notes.time_of(record.clock(), record.boot, record.mono_us))
    }
}

/// The notes of a node, for what its streams add up to. Of a node that had several disks nothing is known: what they wrote
/// cannot be told apart in state.
///
/// # Errors
/// When the notes cannot be read.
pub fn notes_of_node(sources: &[Arc<dyn FrameSource>], node: &Scope) -> Result<ClockNotes, SourceError> {
    let streams = sources.iter().flat_map(|source| source.streams());
    let lives: BTreeSet<Incarnation> = streams
        .filter(|span| span.key.id.scope == *node)
        .filter(|span| matches!(span.key.id.lane, Lane::UpState | Lane::UpData))
        .map(|span| span.key.incarnation)
        .collect();
    match lives.first() {
        Some(only) if lives.len() == 1 => read(sources, &in_stream(node, *only)),
        _ => Ok(ClockNotes::default()),
    }
}

/// Where a node writes its notes.
fn in_stream(node: &Scope, incarnation: Incarnation) -> StreamKey {
    StreamKey {
        id: StreamId::new(node.clone(), Lane::UpData),
        incarnation,
    }
}

fn read(sources: &[Arc<dyn FrameSource>], key: &StreamKey) -> Result<ClockNotes, SourceError> {
    let mut notes = ClockNotes::default();
    for source in sources {
        if !source.streams().iter().any(|span| span.key == *key) {
            continue;
        }
        for frame in source.frames(key, Seq::ZERO)? {
            let frame = frame?;
            let unreadable = |err| SourceError::reading(key, err);
            for item in frame.records().map_err(unreadable)? {
                let (_, record) = item.map_err(unreadable)?;
                if record.kind != RecordKind::ClockSync.as_wire() {
                    continue;
                }
                let payload = Payload::decode(&record).map_err(|err| SourceError::reading(key, err))?;
                if let Payload::ClockSync(note) = payload {
                    notes.add(note);
                }
            }
        }
    }
    Ok(notes)
}
