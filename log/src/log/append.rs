//! Appending: encode, wait for room, queue, await the sync.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};

use ledge_proto::frame::{Frame, push_record};
use ledge_proto::ids::{Mark, Position, StreamId};
use ledge_proto::{limits, v1};
use prost::Message;
use tokio::sync::oneshot;

use super::{Appended, Log};
use crate::catalog::{Stream, start_of};
use crate::error::AppendError;
use crate::writer::queue::{Request, Work};

/// Records that were queued. Resolves when they are durable, with their positions.
#[must_use = "an append is acknowledged when its ticket resolves"]
pub struct Ticket {
    parts: Vec<oneshot::Receiver<Result<Appended, AppendError>>>,
    at: usize,
    first: Option<Position>,
}

/// A frame that was queued. Resolves when it is durable, with its mark.
#[must_use = "an append is acknowledged when its ticket resolves"]
pub struct FrameTicket(FrameState);

enum FrameState {
    Held(Mark),
    Queued(oneshot::Receiver<Result<Mark, AppendError>>),
}

/// What became of a frame.
enum Pushed {
    /// The ticket answers for it.
    Queued(FrameTicket),
    /// It may be one that is accepted and not durable yet: once the ticket resolves, it can be compared.
    Behind(FrameTicket),
}

impl Future for Ticket {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let at = self.at;
            let Some(part) = self.parts.get_mut(at) else {
                return Poll::Ready(Err(AppendError::Closed));
            };
            let appended = match Pin::new(part).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Ok(appended))) => appended,
                Poll::Ready(Ok(Err(err))) => return Poll::Ready(Err(err)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(AppendError::Closed)),
            };
            let first = *self.first.get_or_insert(appended.first);
            self.at += 1;
            if self.at == self.parts.len() {
                return Poll::Ready(Ok(Appended {
                    first,
                    last: appended.last,
                }));
            }
        }
    }
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

/// Part of an append that goes into one frame.
struct Part {
    payload: Vec<u8>,
    count: u32,
}

impl Log {
    /// Appends records to a stream this log writes, and waits until they are durable. Records of one call follow
    /// each other; up to [`limits::FRAME_TARGET_BYTES`] of them become durable together or not at all.
    ///
    /// Waits for room in the queue, in the order of the calls. Dropping the future after it has waited for room
    /// does not take the records back.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(&self, stream: &StreamId, records: Vec<v1::Record>) -> Result<Appended, AppendError> {
        self.enqueue(stream, records).await?.await
    }

    /// As [`Log::append`], but returns once the records have their place in the queue. Appends queued one after
    /// the other are stored in that order.
    ///
    /// # Errors
    /// See [`AppendError`]; errors of writing come from the ticket.
    pub async fn enqueue(&self, stream: &StreamId, records: Vec<v1::Record>) -> Result<Ticket, AppendError> {
        let parts = self.encode(&records)?;
        for part in &parts {
            self.wait_for_room(part.payload.len()).await?;
        }
        let ticket = self.push_records(stream, parts, true);
        if self.shared().commits_inline() {
            self.shared().commit_all();
        }
        Ok(ticket)
    }

    /// As [`Log::append`], for threads that may block. Commits by itself when nobody else is committing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_blocking(
        &self,
        stream: &StreamId,
        records: Vec<v1::Record>,
    ) -> Result<Appended, AppendError> {
        let parts = self.encode(&records)?;
        for part in &parts {
            block_on(self.wait_for_room(part.payload.len()))?;
        }
        let ticket = self.push_records(stream, parts, false);
        self.help_until(ticket)
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
        loop {
            self.wait_for_room(frame.bytes().len()).await?;
            let pushed = self.push_frame(&frame, true)?;
            if self.shared().commits_inline() {
                self.shared().commit_all();
            }
            match pushed {
                Pushed::Queued(ticket) => return Ok(ticket),
                Pushed::Behind(ticket) => drop(ticket.await?),
            }
        }
    }

    /// As [`Log::append_frame`], for threads that may block. Commits by itself when nobody else is committing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_frame_blocking(&self, frame: Frame) -> Result<Mark, AppendError> {
        loop {
            block_on(self.wait_for_room(frame.bytes().len()))?;
            match self.push_frame(&frame, false)? {
                Pushed::Queued(ticket) => return self.help_until(ticket),
                Pushed::Behind(ticket) => drop(self.help_until(ticket)?),
            }
        }
    }

    fn help_until<T>(&self, ticket: T) -> T::Output
    where
        T: Future + Unpin,
    {
        let mut ticket = ticket;
        let mut output = None;
        let mut nobody = Context::from_waker(Waker::noop());
        self.shared().help(|| {
            if let Poll::Ready(answer) = Pin::new(&mut ticket).poll(&mut nobody) {
                output = Some(answer);
            }
            output.is_some()
        });
        match output {
            Some(answer) => answer,
            None => block_on(ticket),
        }
    }

    async fn wait_for_room(&self, bytes: usize) -> Result<(), AppendError> {
        let permits = self.shared().permits(bytes);
        match self.shared().room.acquire_many(permits).await {
            Ok(permit) => permit.forget(), // Given back when the request leaves the queue.
            Err(_) => return Err(AppendError::Closed),
        }
        Ok(())
    }

    /// Encodes records and cuts them where a frame would get too long.
    fn encode(&self, records: &[v1::Record]) -> Result<Vec<Part>, AppendError> {
        let limit = limits::RECORD_MAX_BYTES.min(self.shared().payload_limit());
        let target = limits::FRAME_TARGET_BYTES.min(limit);
        let mut parts: Vec<Part> = Vec::with_capacity(1);
        for record in records {
            if record.key.len() > limits::RECORD_KEY_MAX_BYTES {
                return Err(AppendError::KeyTooLong(record.key.len()));
            }
            let len = record.encoded_len();
            if len + 5 > limit {
                return Err(AppendError::RecordTooLarge {
                    len,
                    limit: limit - 5,
                });
            }
            let part = match parts.last_mut() {
                Some(open)
                    if open.payload.len() + len + 5 <= target && open.count < limits::FRAME_MAX_RECORDS =>
                {
                    open
                }
                _ => {
                    parts.push(Part {
                        payload: Vec::with_capacity(len + 5),
                        count: 0,
                    });
                    let last = parts.len() - 1;
                    &mut parts[last]
                }
            };
            push_record(&mut part.payload, record);
            part.count += 1;
        }
        if parts.is_empty() {
            Err(AppendError::Empty)
        } else {
            Ok(parts)
        }
    }

    fn push_records(&self, stream: &StreamId, parts: Vec<Part>, wake: bool) -> Ticket {
        let key = self.own_key(stream);
        let known = self.catalog().stream(&key);
        let stream = known.unwrap_or_else(|| self.catalog().streams_mut().get_or_create(&key));
        let mut waiting = Vec::with_capacity(parts.len());
        let mut requests = Vec::with_capacity(parts.len());
        for Part { payload, count } in parts {
            let (done, answer) = oneshot::channel();
            waiting.push(answer);
            let bytes = self.shared().permits(payload.len()) as usize;
            requests.push(Request {
                stream: stream.clone(),
                work: Work::Records { payload, count, done },
                bytes,
            });
        }
        self.shared().push(requests, wake);
        Ticket {
            parts: waiting,
            at: 0,
            first: None,
        }
    }

    /// Checks a frame against what was accepted before, and queues it. Room was taken before.
    fn push_frame(&self, frame: &Frame, wake: bool) -> Result<Pushed, AppendError> {
        let bytes = self.shared().permits(frame.bytes().len()) as usize;
        let pushed = self.check_and_push(frame, bytes, wake);
        let queued = match &pushed {
            Ok(Pushed::Queued(ticket) | Pushed::Behind(ticket)) => matches!(ticket.0, FrameState::Queued(_)),
            Err(_) => false,
        };
        if !queued {
            self.shared().room.add_permits(bytes);
        }
        pushed
    }

    fn check_and_push(&self, frame: &Frame, bytes: usize, wake: bool) -> Result<Pushed, AppendError> {
        let key = frame.key();
        if key.incarnation == self.identity().incarnation {
            return Err(AppendError::OwnStream { stream: key.clone() });
        }
        if frame.bytes().len() > self.shared().frame_limit() {
            let len = frame.bytes().len();
            return Err(AppendError::FrameTooLarge {
                len,
                need: 2 * len as u64 + 16 * 1024,
            });
        }
        let known = self.catalog().stream(key);
        loop {
            let accepted = known
                .as_ref()
                .map_or_else(|| start_of(key), |stream| stream.state().accepted);
            let got = Position {
                epoch: frame.epoch(),
                seq: frame.first_seq(),
            };
            let have = accepted.position;
            if frame.last_seq() <= have.seq {
                return self.held(frame, known.as_deref(), bytes, wake);
            }
            if got.seq > have.seq.next() {
                return Err(AppendError::Gap {
                    stream: key.clone(),
                    have,
                    got,
                });
            }
            if got.seq < have.seq.next() {
                return Err(AppendError::Fork {
                    stream: key.clone(),
                    have,
                    got,
                });
            }
            if got.epoch < have.epoch {
                return Err(AppendError::OldEpoch {
                    stream: key.clone(),
                    have: have.epoch,
                    got,
                });
            }
            // Outside the lock: this hashes the whole frame.
            if frame.follows(accepted.chain).is_err() {
                return Err(AppendError::Fork {
                    stream: key.clone(),
                    have,
                    got,
                });
            }
            let stream = match &known {
                Some(stream) => stream.clone(),
                None => self.catalog().streams_mut().get_or_create(key),
            };
            let mut state = stream.state();
            if state.accepted != accepted {
                drop(state);
                continue; // Somebody else appended meanwhile.
            }
            state.accepted = frame.mark();
            let (done, answer) = oneshot::channel();
            let work = Work::Frame {
                frame: frame.clone(),
                done,
            };
            let request = Request {
                stream: stream.clone(),
                work,
                bytes,
            };
            // Under the stream's lock, so that frames are queued in the order in which they were accepted.
            self.shared().push([request], wake);
            return Ok(Pushed::Queued(FrameTicket(FrameState::Queued(answer))));
        }
    }

    /// A frame that ends before what was accepted: the same as what is held there, or another history.
    fn held(
        &self,
        frame: &Frame,
        stream: Option<&Stream>,
        bytes: usize,
        wake: bool,
    ) -> Result<Pushed, AppendError> {
        let key = frame.key();
        let got = Position {
            epoch: frame.epoch(),
            seq: frame.first_seq(),
        };
        let Some(stream) = stream else {
            return Err(AppendError::Fork {
                stream: key.clone(),
                have: Position::ZERO,
                got,
            });
        };
        let (durable, accepted, first_held) = {
            let state = stream.state();
            (state.durable, state.accepted, state.first_seq())
        };
        if frame.last_seq() > durable.position.seq {
            // Accepted, not durable: what is accepted last answers for itself; anything before is compared
            // once it can be read.
            let stream = self.catalog().streams_mut().get_or_create(key);
            let (done, answer) = oneshot::channel();
            let request = Request {
                stream,
                work: Work::Held { mark: accepted, done },
                bytes,
            };
            self.shared().push([request], wake);
            let ticket = FrameTicket(FrameState::Queued(answer));
            return Ok(if frame.mark() == accepted {
                Pushed::Queued(ticket)
            } else {
                Pushed::Behind(ticket)
            });
        }
        if frame.first_seq() < first_held && durable != frame.mark() {
            let got = frame.mark().position;
            return Err(AppendError::Recycled {
                stream: key.clone(),
                first_held,
                got,
            });
        }
        match self.mark_at(key, frame.last_seq())? {
            Some(mark) if mark == frame.mark() => {
                self.shared().counters.duplicates.fetch_add(1, Relaxed);
                Ok(Pushed::Queued(FrameTicket(FrameState::Held(mark))))
            }
            _ => Err(AppendError::Fork {
                stream: key.clone(),
                have: durable.position,
                got,
            }),
        }
    }
}

/// Waits on this thread, inside an async runtime or outside.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
