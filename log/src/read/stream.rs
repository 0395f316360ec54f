//! Reading one stream.

use std::collections::VecDeque;
use std::sync::Arc;

use ledge_proto::frame::Frame;
use ledge_proto::ids::{Seq, StreamKey};

use super::damaged;
use super::window::{WINDOW_BYTES, Window};
use crate::catalog::{Catalog, FrameRef, Stream};
use crate::error::ReadError;

/// Most index entries copied at once.
const BATCH: usize = 256;

/// Reads the durable frames of one stream in order.
pub struct StreamReader {
    catalog: Arc<Catalog>,
    key: StreamKey,
    stream: Option<Arc<Stream>>,
    next: Seq,
    /// What comes next, as far as it was looked up.
    ahead: VecDeque<FrameRef>,
    window: Window,
}

impl StreamReader {
    pub(crate) fn new(catalog: Arc<Catalog>, key: StreamKey, after: Seq) -> StreamReader {
        StreamReader {
            catalog,
            key,
            stream: None,
            next: after.next(),
            ahead: VecDeque::new(),
            window: Window::default(),
        }
    }

    /// The stream.
    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// The last sequence number read, or the one to read after.
    pub fn position(&self) -> Seq {
        Seq(self.next.0 - 1)
    }

    /// The next frame, its checksum checked; the first one may begin before the position asked for. `None` when
    /// nothing more is durable yet. Calling again later goes on.
    ///
    /// # Errors
    /// [`ReadError::Recycled`] when it is no longer held, [`ReadError::Damaged`] when it is not what was
    /// written. The position stays before it.
    #[allow(
        clippy::should_implement_trait,
        reason = "ends and goes on, unlike an iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        if self.ahead.is_empty() {
            self.look_up()?;
        }
        let Some(frame) = self.ahead.front().copied() else {
            return Ok(None);
        };
        match self.read(frame) {
            Ok(frame) => {
                self.ahead.pop_front();
                self.next = frame.last_seq().next();
                Ok(Some(frame))
            }
            Err(err) => {
                self.ahead.clear();
                // Written over while it was read?
                self.look_up()?;
                Err(err)
            }
        }
    }

    fn look_up(&mut self) -> Result<(), ReadError> {
        // Looked up every time: a view that is refreshed has new ones.
        self.stream = self.catalog.stream(&self.key);
        let Some(stream) = &self.stream else { return Ok(()) };
        let state = stream.state();
        if self.next < state.first_seq() && self.next <= state.durable.position.seq {
            let what = format!("{} seq {}", self.key, self.next);
            return Err(ReadError::Recycled {
                what,
                first_held: state.first_seq().0,
            });
        }
        if let Some(at) = state.find(self.next) {
            self.ahead.extend(state.frames[at..].iter().take(BATCH));
        }
        Ok(())
    }

    fn read(&mut self, at: FrameRef) -> Result<Frame, ReadError> {
        let Some(segment) = self.catalog.segment(at.segment) else {
            let what = format!("{} seq {}", self.key, self.next);
            let first_held = self
                .stream
                .as_ref()
                .map_or(0, |stream| stream.state().first_seq().0);
            return Err(ReadError::Recycled { what, first_held });
        };
        let ahead = self.read_ahead();
        let bytes = self
            .window
            .get(&segment, at.off, at.len, ahead)
            .map_err(|err| ReadError::Io {
                path: segment.path.clone(),
                source: Arc::new(err),
            })?;
        let frame = Frame::parse(bytes).map_err(|err| damaged(&segment, at.off, err.to_string()))?;
        if *frame.key() != self.key || frame.first_seq() != at.first_seq {
            let reason = format!(
                "a frame of {} seq {} where {} seq {} belongs",
                frame.key(),
                frame.first_seq(),
                self.key,
                at.first_seq
            );
            return Err(damaged(&segment, at.off, reason));
        }
        Ok(frame)
    }

    /// How far to read on: up to where at least half of the bytes are this stream's.
    fn read_ahead(&self) -> u32 {
        let Some(first) = self.ahead.front() else { return 0 };
        let mut span = first.len;
        let mut mine = 0;
        for frame in &self.ahead {
            if frame.segment != first.segment {
                break;
            }
            let until = frame.off + frame.len - first.off;
            mine += frame.len;
            if until > WINDOW_BYTES || mine < until / 2 {
                break;
            }
            span = until;
        }
        span
    }
}
