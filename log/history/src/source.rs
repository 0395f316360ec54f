//! Where history comes from: a set of streams whose frames can be read in order.

use std::fmt;

use ledge_proto::frame::Frame;
use ledge_proto::ids::{Seq, StreamKey};

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

    /// The frames of every stream in the order they were committed here, which is the order to fold them in.
    ///
    /// # Errors
    /// When they cannot be read.
    fn in_order(&self) -> Result<Frames, SourceError>;
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
        Ok(Box::new(frames[begin..].to_vec().into_iter().map(Ok)))
    }

    fn in_order(&self) -> Result<Frames, SourceError> {
        Ok(Box::new(self.in_order.clone().into_iter().map(Ok)))
    }
}
