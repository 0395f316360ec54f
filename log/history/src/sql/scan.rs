//! Reading: frames in, batches out, one stream after another in a fixed order, so that the same query gives the
//! same rows in the same order everywhere.

use std::convert::Infallible;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use ledge_proto::fold::{FoldError, State};
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Seq, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1;

use super::bounds::Bounds;
use super::columns::Collector;
use super::tables::{Labels, RecordRow, RecordTable, StateRow, StateTable, needs_payload};
use crate::clocks::{Clocks, notes_of_node};
use crate::source::{FrameSource, SourceError, StreamSpan};

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// A source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The log cannot be folded.
    #[error("the log cannot be folded: {0}")]
    Fold(#[from] FoldError<Infallible>),
    /// A batch could not be built.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// What is read and what is wanted of it.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) sources: Vec<Arc<dyn FrameSource>>,
    pub(crate) projection: Vec<usize>,
    /// Of the projected columns.
    pub(crate) schema: SchemaRef,
    pub(crate) bounds: Bounds,
    pub(crate) batch_rows: usize,
}

/// Takes a batch; false when no more are wanted.
pub(crate) type Emit<'a> = &'a mut dyn FnMut(RecordBatch) -> bool;

impl Scan {
    /// Reads a table of records.
    pub(crate) fn records(&self, table: &RecordTable, emit: Emit<'_>) -> Result<(), ScanError> {
        let mut rows = Collector::new(
            table.columns,
            &self.projection,
            self.schema.clone(),
            self.batch_rows,
        );
        let decode = self
            .projection
            .iter()
            .any(|place| needs_payload(table.columns[*place].name));
        let whole =
            self.projection.is_empty() && table.kinds.is_empty() && self.bounds.is_about_streams_only();
        let (first, last) = self.bounds.seqs();
        // Sources may hold parts of the same stream, an edge and its cloud for example: read on where one ended.
        let mut read: Option<(StreamKey, Seq)> = None;
        for (source, span) in self.streams() {
            let labels = Arc::new(Labels::of(&span.key));
            if !table.lanes.contains(&span.key.id.lane) || !self.bounds.admits_stream(&labels) {
                continue;
            }
            let mut done = Seq(first.0.saturating_sub(1));
            if let Some((key, last_read)) = &read
                && *key == span.key
            {
                done = done.max(*last_read);
            }
            if span.last > done && span.first <= last {
                let mut stream = Stream {
                    table,
                    labels,
                    last,
                    decode,
                    whole,
                    bounds: &self.bounds,
                    clocks: Clocks::of(&self.sources, &span.key),
                };
                for frame in source.frames(&span.key, done)? {
                    let frame = frame?;
                    if frame.first_seq() > last {
                        break;
                    }
                    if !stream.read(&frame, done, &mut rows, emit)? {
                        return Ok(());
                    }
                    done = done.max(frame.last_seq());
                }
            }
            read = Some((span.key, done));
        }
        if let Some(batch) = rows.finish()? {
            emit(batch);
        }
        Ok(())
    }

    /// Every stream of every source, in the order of their names: the order of rows.
    fn streams(&self) -> Vec<(&dyn FrameSource, StreamSpan)> {
        let mut streams: Vec<(&dyn FrameSource, StreamSpan)> = Vec::new();
        for source in &self.sources {
            streams.extend(source.streams().into_iter().map(|span| (source.as_ref(), span)));
        }
        streams.sort_by(|(_, a), (_, b)| a.cmp(b));
        streams
    }

    /// Reads a table of state: folds every node it may be about.
    pub(crate) fn state(&self, table: &StateTable, emit: Emit<'_>) -> Result<(), ScanError> {
        let mut rows = Collector::new(
            table.columns,
            &self.projection,
            self.schema.clone(),
            self.batch_rows,
        );
        let mut state = State::new();
        for source in &self.sources {
            source.fold(&mut state, &|id| self.bounds.admits_node(id.scope.node_name()))?;
        }
        for scope in state.scopes() {
            let mut of_scope = (table.rows)(&state, &scope)?;
            if of_scope.iter().any(StateRow::is_doubtful) {
                let notes = notes_of_node(&self.sources, &scope)?;
                of_scope.iter_mut().for_each(|row| row.retime(&notes));
            }
            for row in of_scope {
                if let Some(batch) = rows.push(&row)?
                    && !emit(batch)
                {
                    return Ok(());
                }
            }
        }
        if let Some(batch) = rows.finish()? {
            emit(batch);
        }
        Ok(())
    }
}

/// One stream while it is read for a table.
struct Stream<'a> {
    table: &'a RecordTable,
    labels: Arc<Labels>,
    last: Seq,
    /// A column of the payload is wanted.
    decode: bool,
    /// Only the number of records is wanted, of all records.
    whole: bool,
    bounds: &'a Bounds,
    clocks: Clocks<'a>,
}

impl Stream<'_> {
    /// Adds the records of `frame` after `done`; false when no more rows are wanted.
    fn read(
        &mut self,
        frame: &Frame,
        done: Seq,
        rows: &mut Collector<RecordRow>,
        emit: Emit<'_>,
    ) -> Result<bool, ScanError> {
        if self.whole && frame.first_seq() > done {
            return Ok(match rows.count(frame.count() as usize)? {
                Some(batch) => emit(batch),
                None => true,
            });
        }
        let unreadable = |err| SourceError::reading(frame.key(), err);
        for item in frame.records().map_err(unreadable)? {
            let (position, mut record) = item.map_err(unreadable)?;
            if position.seq <= done || position.seq > self.last {
                continue;
            }
            let corrected = self.clocks.time_of(&record)?;
            record.wall_us = corrected.unwrap_or(record.wall_us);
            if !self.admits(position.seq, &record) {
                continue;
            }
            let payload = if self.decode {
                decode(frame, position.seq, &record)?
            } else {
                Payload::DeviceRemoved
            };
            let row = RecordRow {
                labels: self.labels.clone(),
                position,
                record,
                retimed: corrected.is_some(),
                payload,
            };
            if let Some(batch) = rows.push(&row)?
                && !emit(batch)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn admits(&self, seq: Seq, record: &v1::Record) -> bool {
        let of_table = |kind| self.table.kinds.contains(&kind);
        (self.table.kinds.is_empty() || RecordKind::from_wire(record.kind).is_some_and(of_table))
            && self.bounds.admits_record(seq, record)
    }
}

fn decode(frame: &Frame, seq: Seq, record: &v1::Record) -> Result<Payload, SourceError> {
    Payload::decode(record)
        .map_err(|err| SourceError::reading(frame.key(), format!("payload of record {seq}: {err}")))
}
