//! Reading one stream.

use std::collections::VecDeque;
use std::sync::Arc;

use ledge_proto::frame::Frame;
use ledge_proto::ids::{Epoch, Mark, Seq, StreamKey};

use super::damaged;
use super::window::{WINDOW_BYTES, Window};
use crate::catalog::{Catalog, Following, FrameRef, Stream};
use crate::error::ReadError;

/// Most index entries copied at once.
const BATCH: usize = 256;

/// Reads the durable frames of one stream in order.
pub struct StreamReader {
    catalog: Arc<Catalog>,
    key: StreamKey,
    stream: Option<Arc<Stream>>,
    next: Seq,
    /// End of the frame read last, or of the snapshot a jump went to.
    last: Option<Mark>,
    /// What comes next, as far as it was looked up.
    ahead: VecDeque<FrameRef>,
    window: Window,
}

/// Records that are held and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Their epoch; where the log no longer says, that of what follows them.
    pub epoch: Epoch,
    /// The first.
    pub first: Seq,
    /// The last.
    pub last: Seq,
}

impl StreamReader {
    pub(crate) fn new(catalog: Arc<Catalog>, key: StreamKey, after: Seq) -> StreamReader {
        StreamReader {
            catalog,
            key,
            stream: None,
            next: after.next(),
            last: None,
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
    /// [`ReadError::Jump`] when what is held next does not follow the position, [`ReadError::Damaged`] when it is
    /// not what was written. The position stays before it.
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
                self.last = Some(frame.mark());
                Ok(Some(frame))
            }
            Err(err) => {
                self.ahead.clear();
                if matches!(err, ReadError::Damaged { .. }) {
                    crate::quarantine::met(&self.catalog, frame.segment, frame.off);
                }
                // Written over while it was read?
                self.look_up()?;
                Err(err)
            }
        }
    }

    /// Looks up what comes next and nothing behind it: then nothing behind it is read either.
    pub(crate) fn look_at_one(&mut self) -> Result<(), ReadError> {
        self.look_up()?;
        self.ahead.truncate(1);
        Ok(())
    }

    /// Goes on behind a jump: after the mark of the snapshot when `next` named one, or else where it said that what
    /// is held goes on. Does nothing when there is no jump here.
    pub fn skip_jump(&mut self) {
        let Err(ReadError::Jump {
            snapshot,
            resume_after,
            ..
        }) = self.look_up()
        else {
            return;
        };
        let mark = snapshot
            .map(|at| at.mark)
            .filter(|mark| mark.position.seq == resume_after);
        self.last = mark;
        self.next = resume_after.next();
    }

    /// Goes on behind records that cannot be read, when they are what comes next, and says which. They stay in the log;
    /// `None` when what comes next can be read, or nothing does.
    pub fn skip_damage(&mut self) -> Option<Skipped> {
        self.ahead.clear();
        let first = self.next;
        match self.look_up() {
            Ok(()) => {
                let frame = self.ahead.front().copied()?;
                match self.read(frame) {
                    Err(ReadError::Damaged { .. }) => {}
                    _ => return None,
                }
                self.go_behind(frame.last_seq());
                Some(Skipped {
                    epoch: frame.epoch,
                    first: first.max(frame.first_seq),
                    last: frame.last_seq(),
                })
            }
            Err(ReadError::Damaged { .. }) => {
                // The index does not have them: they end before the next frame it has, or where the stream ends.
                let (epoch, last) = {
                    let state = self.stream.as_ref()?.state();
                    let end = state.durable.position;
                    let next = state.frames.iter().find(|frame| frame.first_seq > first);
                    next.map_or((end.epoch, end.seq), |next| {
                        (next.epoch, Seq(next.first_seq.0 - 1))
                    })
                };
                self.go_behind(last);
                (first <= last).then_some(Skipped { epoch, first, last })
            }
            Err(_) => None,
        }
    }

    fn go_behind(&mut self, last: Seq) {
        self.ahead.clear();
        self.last = None;
        self.next = self.next.max(last.next());
    }

    fn look_up(&mut self) -> Result<(), ReadError> {
        // Looked up every time: a view that is refreshed has new ones.
        self.stream = self.catalog.stream(&self.key);
        let Some(stream) = &self.stream else { return Ok(()) };
        let state = stream.state();
        let following = match self.last {
            Some(last) => state.after_mark(last),
            None => state.after_seq(self.position()),
        };
        match following {
            Following::Frame(at) => self.ahead.extend(state.run(at, BATCH)),
            Following::Nothing => {}
            Following::Jump {
                snapshot,
                resume_after,
            } => {
                drop(state);
                if let Some(lost) = self.catalog.damages().holding(&self.key, self.next) {
                    return Err(crate::quarantine::error(&self.catalog, lost));
                }
                return Err(ReadError::Jump {
                    key: self.key.clone(),
                    after: self.position(),
                    snapshot,
                    resume_after,
                });
            }
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
        let place = (frame.first_seq(), frame.mark().position);
        if *frame.key() != self.key || place != (at.first_seq, at.last()) {
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
            // One put together again, or a damaged index, may lie before.
            let after = frame.off.checked_sub(first.off);
            let Some(until) = after.and_then(|after| after.checked_add(frame.len)) else {
                break;
            };
            mine += frame.len;
            if until > WINDOW_BYTES || mine < until / 2 {
                break;
            }
            span = until;
        }
        span
    }
}
