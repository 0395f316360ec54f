//! Why nothing could be given up.

use std::convert::Infallible;

use ledge_log::{AppendError, ReadError, RecycleError};
use ledge_proto::fold::FoldError;
use ledge_proto::ids::{Position, StreamKey};

use crate::replay::ReplayError;

/// Why a step failed. What it had written stays and is not written again; nothing was given up that should not have been.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The oldest segment cannot be read.
    #[error("the oldest segment cannot be given up: {0}")]
    Read(#[from] ReadError),
    /// A stream in it cannot be folded.
    #[error("the oldest segment cannot be given up: {stream}: {source}")]
    Fold {
        /// The stream.
        stream: StreamKey,
        /// Why.
        source: FoldError<Infallible>,
    },
    /// The records held do not lead to where the segment's part of a stream ends.
    #[error("the oldest segment cannot be given up: what is held of {stream} does not lead to {end}")]
    NotThere {
        /// The stream.
        stream: StreamKey,
        /// Where it should have led.
        end: Position,
    },
    /// A block of it cannot be decoded.
    #[error("the oldest segment cannot be given up: {0}")]
    Replay(ReplayError<Infallible>),
    /// A gap record or a base could not be written.
    #[error("what goes cannot be written down: {0}")]
    Append(#[from] AppendError),
    /// The log keeps the segment.
    #[error(transparent)]
    Recycle(#[from] RecycleError),
}

impl RetentionError {
    pub(crate) fn fold(stream: &StreamKey, source: FoldError<Infallible>) -> Self {
        RetentionError::Fold {
            stream: stream.clone(),
            source,
        }
    }
}
