//! Appending frames written elsewhere: verbatim, and only the next one of each stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use ledge_proto::frame::{Frame, FrameError};
use ledge_proto::ids::{Chain, Mark, Position};
use tokio::sync::oneshot;

use super::Log;
use crate::catalog::{Stream, start_of};
use crate::error::AppendError;
use crate::sync::block_on;
use crate::writer::queue::{Request, Work};

/// A frame whose bytes are known to continue a chain. Checking hashes the whole frame; whoever receives frames
/// can do it where they arrive, on any thread, so that the log only has to compare chains.
#[derive(Debug, Clone)]
pub struct CheckedFrame {
    frame: Frame,
    after: Chain,
}

impl CheckedFrame {
    /// Checks that `frame` continues the chain `after`.
    ///
    /// # Errors
    /// [`FrameError::ChainBroken`] when it does not.
    pub fn check(frame: Frame, after: Chain) -> Result<CheckedFrame, FrameError> {
        frame.follows(after)?;
        Ok(CheckedFrame { frame, after })
    }

    /// The frame.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }
}

/// A frame on offer, with the chain it is known to continue, if one is.
struct Offer {
    frame: Frame,
    after: Option<Chain>,
}

impl From<CheckedFrame> for Offer {
    fn from(CheckedFrame { frame, after }: CheckedFrame) -> Offer {
        let after = Some(after);
        Offer { frame, after }
    }
}

impl Offer {
    fn continues(&self, chain: Chain) -> bool {
        match self.after {
            Some(after) => after == chain,
            None => self.frame.follows(chain).is_ok(),
        }
    }

    fn bytes(&self) -> usize {
        self.frame.bytes().len()
    }

    fn first(&self) -> Position {
        Position {
            epoch: self.frame.epoch(),
            seq: self.frame.first_seq(),
        }
    }

    fn fork(&self, have: Position) -> AppendError {
        AppendError::Fork {
            stream: self.frame.key().clone(),
            have,
            got: self.first(),
        }
    }
}

/// A frame that was queued. Resolves when it is durable, with its mark.
#[must_use = "an append is acknowledged when its ticket resolves"]
pub struct FrameTicket(FrameState);

enum FrameState {
    Held(Mark),
    Queued(oneshot::Receiver<Result<Mark, AppendError>>),
}

/// Appends frames, one stream's after each other, and finds the stream once: with very many of them each look-up waits
/// for memory.
#[derive(Clone)]
pub struct FrameAppender {
    log: Log,
    /// Of the last frame.
    known: Option<Arc<Stream>>,
}

impl FrameAppender {
    /// As [`Log::append_frame`].
    ///
    /// # Errors
    /// See [`Log::append_frame`].
    pub async fn append(&mut self, frame: Frame) -> Result<Mark, AppendError> {
        self.enqueue(frame).await?.await
    }

    /// As [`Log::enqueue_frame`].
    ///
    /// # Errors
    /// See [`Log::enqueue_frame`].
    pub async fn enqueue(&mut self, frame: Frame) -> Result<FrameTicket, AppendError> {
        let offer = Offer { frame, after: None };
        self.log.offer(offer, &mut self.known).await
    }

    /// As [`Log::enqueue_checked`].
    ///
    /// # Errors
    /// See [`Log::enqueue_checked`].
    pub async fn enqueue_checked(&mut self, frame: CheckedFrame) -> Result<FrameTicket, AppendError> {
        self.log.offer(frame.into(), &mut self.known).await
    }
}

/// What became of a frame.
enum Pushed {
    /// The ticket answers for it.
    Queued(FrameTicket),
    /// It may be one that is accepted and not durable yet: once the ticket resolves, it can be compared.
    Behind(Offer, FrameTicket),
}

impl Future for FrameTicket {
    type Output = Result<Mark, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            FrameState::Held(mark) => Poll::Ready(Ok(*mark)),
            FrameState::Queued(done) => Pin::new(done)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Err(AppendError::Closed))),
        }
    }
}

impl Log {
    /// For somebody who appends many frames of one stream.
    pub fn frame_appender(&self) -> FrameAppender {
        FrameAppender {
            log: self.clone(),
            known: None,
        }
    }

    /// Appends a frame written elsewhere, byte for byte, and waits until it is durable. It must be the next one
    /// of its stream: dense, of no older epoch, and continuing the chain. One that is held already is
    /// acknowledged without a second copy.
    ///
    /// # Errors
    /// See [`AppendError`]; a gap or fork names the stream and both positions.
    pub async fn append_frame(&self, frame: Frame) -> Result<Mark, AppendError> {
        self.enqueue_frame(frame).await?.await
    }

    /// As [`Log::append_frame`], but returns once the frame has its place in the queue.
    ///
    /// # Errors
    /// See [`AppendError`]; errors of writing come from the ticket.
    pub async fn enqueue_frame(&self, frame: Frame) -> Result<FrameTicket, AppendError> {
        self.offer(Offer { frame, after: None }, &mut None).await
    }

    /// As [`Log::enqueue_frame`], without hashing the frame again.
    ///
    /// # Errors
    /// See [`AppendError`]; errors of writing come from the ticket.
    pub async fn enqueue_checked(&self, frame: CheckedFrame) -> Result<FrameTicket, AppendError> {
        self.offer(frame.into(), &mut None).await
    }

    /// As [`Log::append_frame`], for threads that may block. Commits by itself when nobody else is committing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_frame_blocking(&self, frame: Frame) -> Result<Mark, AppendError> {
        self.offer_blocking(Offer { frame, after: None })
    }

    /// As [`Log::append_frame_blocking`], without hashing the frame again.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_checked_blocking(&self, frame: CheckedFrame) -> Result<Mark, AppendError> {
        self.offer_blocking(frame.into())
    }

    async fn offer(&self, offer: Offer, known: &mut Option<Arc<Stream>>) -> Result<FrameTicket, AppendError> {
        let mut offer = offer;
        loop {
            self.wait_for_room(offer.bytes()).await?;
            let pushed = self.push_frame(offer, known, true)?;
            if self.shared().commits_inline() {
                self.shared().commit_all();
            }
            match pushed {
                Pushed::Queued(ticket) => return Ok(ticket),
                Pushed::Behind(again, ticket) => {
                    ticket.await?;
                    offer = again;
                }
            }
        }
    }

    fn offer_blocking(&self, offer: Offer) -> Result<Mark, AppendError> {
        let mut offer = offer;
        let mut known = None;
        loop {
            block_on(self.wait_for_room(offer.bytes()))?;
            match self.push_frame(offer, &mut known, false)? {
                Pushed::Queued(ticket) => return self.help_until(ticket),
                Pushed::Behind(again, ticket) => {
                    self.help_until(ticket)?;
                    offer = again;
                }
            }
        }
    }

    /// Checks a frame against what was accepted before, and queues it. Room was taken before, and is given back
    /// when nothing is queued. `known` is the stream of an earlier frame, and becomes this one's.
    fn push_frame(
        &self,
        offer: Offer,
        known: &mut Option<Arc<Stream>>,
        wake: bool,
    ) -> Result<Pushed, AppendError> {
        let bytes = self.shared().permits(offer.bytes()) as usize;
        let pushed = self.check_and_push(offer, known, bytes, wake);
        let queued = match &pushed {
            Ok(Pushed::Queued(ticket) | Pushed::Behind(_, ticket)) => {
                matches!(ticket.0, FrameState::Queued(_))
            }
            Err(_) => false,
        };
        if !queued {
            self.shared().room.add_permits(bytes);
        }
        pushed
    }

    fn check_and_push(
        &self,
        offer: Offer,
        known: &mut Option<Arc<Stream>>,
        bytes: usize,
        wake: bool,
    ) -> Result<Pushed, AppendError> {
        let frame = &offer.frame;
        let key = frame.key();
        if key.incarnation == self.identity().incarnation {
            return Err(AppendError::OwnStream { stream: key.clone() });
        }
        let len = offer.bytes();
        if len > self.shared().frame_limit() {
            return Err(AppendError::FrameTooLarge {
                len,
                need: 2 * len as u64 + 16 * 1024,
            });
        }
        if known.as_ref().is_none_or(|stream| stream.key != *key) {
            *known = self.catalog().stream(key);
        }
        loop {
            let accepted = known
                .as_ref()
                .map_or_else(|| start_of(key), |stream| stream.state().accepted);
            let (have, got) = (accepted.position, offer.first());
            if let Some(stream) = known
                && frame.last_seq() <= have.seq
            {
                return self.held(offer, stream, bytes, wake);
            }
            if got.seq > have.seq.next() {
                return Err(AppendError::Gap {
                    stream: key.clone(),
                    have,
                    got,
                });
            }
            if got.seq < have.seq.next() {
                return Err(offer.fork(have));
            }
            if got.epoch < have.epoch {
                return Err(AppendError::OldEpoch {
                    stream: key.clone(),
                    have: have.epoch,
                    got,
                });
            }
            // Outside the lock: this may hash the whole frame.
            if !offer.continues(accepted.chain) {
                return Err(offer.fork(have));
            }
            let stream = known.get_or_insert_with(|| self.catalog().streams_mut().get_or_create(key));
            let mut state = stream.state();
            if state.accepted != accepted {
                continue; // Somebody else appended meanwhile.
            }
            state.accepted = frame.mark();
            let (done, answer) = oneshot::channel();
            // Under the stream's lock, so that frames are queued in the order in which they were accepted.
            self.shared().push(
                [Request {
                    stream: stream.clone(),
                    work: Work::Frame {
                        frame: offer.frame,
                        done,
                    },
                    bytes,
                }],
                wake,
            );
            return Ok(Pushed::Queued(FrameTicket(FrameState::Queued(answer))));
        }
    }

    /// A frame that ends before what was accepted: the same as what is held there, or another history.
    fn held(
        &self,
        offer: Offer,
        stream: &Arc<Stream>,
        bytes: usize,
        wake: bool,
    ) -> Result<Pushed, AppendError> {
        let frame = &offer.frame;
        let (durable, accepted, first_held) = {
            let state = stream.state();
            (state.durable, state.accepted, state.first_seq())
        };
        if frame.last_seq() > durable.position.seq {
            // Accepted, not durable: what is accepted last answers for itself; anything before is compared once
            // it can be read.
            let (done, answer) = oneshot::channel();
            let work = Work::Held { mark: accepted, done };
            self.shared().push(
                [Request {
                    stream: stream.clone(),
                    work,
                    bytes,
                }],
                wake,
            );
            let ticket = FrameTicket(FrameState::Queued(answer));
            let last = frame.mark() == accepted;
            return Ok(if last {
                Pushed::Queued(ticket)
            } else {
                Pushed::Behind(offer, ticket)
            });
        }
        if frame.first_seq() < first_held && durable != frame.mark() {
            let got = frame.mark().position;
            return Err(AppendError::Recycled {
                stream: frame.key().clone(),
                first_held,
                got,
            });
        }
        match self.mark_at(frame.key(), frame.last_seq())? {
            Some(mark) if mark == frame.mark() => {
                self.shared().counters.duplicates.fetch_add(1, Relaxed);
                Ok(Pushed::Queued(FrameTicket(FrameState::Held(mark))))
            }
            _ => Err(offer.fork(durable.position)),
        }
    }
}
