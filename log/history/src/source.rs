//! Where history comes from: a set of streams whose frames can be read in order.

use std::fmt;
use std::sync::Arc;

use ledge_log::{LogView, ReadError};
use ledge_proto::fold::State;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Seq, StreamId, StreamKey};
use ledge_retention::replay;

/// A stream of a source, as far as it is known when the source was opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamSpan {
    /// The stream and its incarnation.
    pub key: StreamKey,
    /// First record that is still there.
    pub first: Seq,
    /// Last record.
    pub last: Seq,
}

/// The frames of a stream, in order.
pub type Frames = Box<dyn Iterator<Item = Result<Frame, SourceError>> + Send>;

/// Something that holds streams: an open log, or frames in memory.
///
/// What it returns does not change while it is open: two readers of one stream get the same frames up to the
/// stream's `last`.
pub trait FrameSource: fmt::Debug + Send + Sync + 'static {
    /// Its streams, in any order.
    fn streams(&self) -> Vec<StreamSpan>;

    /// The frames of `stream` that hold records after `after`. The first one may begin at or before `after`.
    ///
    /// # Errors
    /// When the stream is not there or cannot be read.
    fn frames(&self, stream: &StreamKey, after: Seq) -> Result<Frames, SourceError>;

    /// Folds what is held of the streams `wanted` into `state`, with what stands for records that are gone.
    ///
    /// # Errors
    /// When something cannot be read, or does not fold.
    fn fold(&self, state: &mut State, wanted: &dyn Fn(&StreamId) -> bool) -> Result<(), SourceError>;
}

/// A source failed.
#[derive(Debug, thiserror::Error)]
#[error("{context}: {reason}")]
pub struct SourceError {
    context: String,
    #[source]
    reason: Box<dyn std::error::Error + Send + Sync>,
}

impl SourceError {
    /// `reason` while reading `stream`.
    pub fn reading(stream: &StreamKey, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        SourceError {
            context: format!("cannot read {stream}"),
            reason: reason.into(),
        }
    }
}

/// A log's directory, opened read-only.
#[derive(Clone)]
pub struct LogSource {
    view: Arc<LogView>,
}

impl LogSource {
    /// The streams of `view`, as far as it sees them now.
    pub fn new(view: Arc<LogView>) -> Self {
        LogSource { view }
    }
}

impl fmt::Debug for LogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogSource").field(self.view.identity()).finish()
    }
}

impl FrameSource for LogSource {
    fn streams(&self) -> Vec<StreamSpan> {
        let span = |info: ledge_log::StreamInfo| StreamSpan {
            key: info.key,
            first: info.first_seq,
            last: info.durable.position.seq,
        };
        self.view.streams().into_iter().map(span).collect()
    }

    fn frames(&self, stream: &StreamKey, after: Seq) -> Result<Frames, SourceError> {
        let Some(span) = self.streams().into_iter().find(|span| span.key == *stream) else {
            return Err(SourceError::reading(stream, "there is no such stream"));
        };
        if let Some(damage) = self.view.unreadable(stream, after) {
            return Err(SourceError::reading(stream, damage));
        }
        // What is no longer held cannot be asked for.
        let begin = after.max(Seq(span.first.0.saturating_sub(1)));
        let mut reader = self.view.read_stream(stream, begin);
        let stream = stream.clone();
        let mut failed = false;
        Ok(Box::new(std::iter::from_fn(move || {
            if failed || reader.position() >= span.last {
                return None;
            }
            loop {
                let next = reader.next();
                if let Err(ReadError::Jump { .. }) = next {
                    // What lies between is gone; the table of gaps tells.
                    reader.skip_jump();
                    continue;
                }
                let next = next.map_err(|err| SourceError::reading(&stream, err)).transpose();
                failed = matches!(next, Some(Err(_)));
                return next;
            }
        })))
    }

    fn fold(&self, state: &mut State, wanted: &dyn Fn(&StreamId) -> bool) -> Result<(), SourceError> {
        replay::fold_of(&*self.view, state, wanted).map_err(|reason| SourceError {
            context: "the log cannot be folded".to_owned(),
            reason: Box::new(reason),
        })
    }
}

/// Streams held in memory: for tests, and for a tail that is not on disk.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    streams: Vec<(StreamKey, Vec<Frame>)>,
    in_order: Vec<Frame>,
}

impl MemorySource {
    /// Adds the next frame of its stream.
    pub fn push(&mut self, frame: Frame) {
        self.in_order.push(frame.clone());
        match self.streams.iter_mut().find(|(key, _)| key == frame.key()) {
            Some((_, frames)) => frames.push(frame),
            None => self.streams.push((frame.key().clone(), vec![frame])),
        }
    }
}

impl FrameSource for MemorySource {
    fn streams(&self) -> Vec<StreamSpan> {
        let span = |(key, frames): &(StreamKey, Vec<Frame>)| {
            let (first, last) = (frames.first()?.first_seq(), frames.last()?.last_seq());
            Some(StreamSpan {
                key: key.clone(),
                first,
                last,
            })
        };
        self.streams.iter().filter_map(span).collect()
    }

    fn frames(&self, stream: &StreamKey, after: Seq) -> Result<Frames, SourceError> {
        let Some((_, frames)) = self.streams.iter().find(|(key, _)| key == stream) else {
            return Err(SourceError::reading(stream, "there is no such stream"));
        };
        let begin = frames.partition_point(|frame| frame.last_seq() <= after);
        let rest: Vec<Frame> = frames[begin..].to_vec();
        Ok(Box::new(rest.into_iter().map(Ok)))
    }

    fn fold(&self, state: &mut State, wanted: &dyn Fn(&StreamId) -> bool) -> Result<(), SourceError> {
        for frame in self.in_order.iter().filter(|frame| wanted(&frame.key().id)) {
            state
                .apply_frame(frame)
                .map_err(|err| SourceError::reading(frame.key(), err))?;
        }
        Ok(())
    }
}
