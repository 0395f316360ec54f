//! Appending: encode, wait for room, queue, await the sync.

use std::pin::Pin;
use std::task::{Context, Poll};

use ledge_proto::frame::push_record;
use ledge_proto::ids::{Position, StreamId};
use ledge_proto::{limits, v1};
use prost::Message;
use tokio::sync::oneshot;

use super::{Appended, Log};
use crate::error::AppendError;
use crate::sync::block_on;
use crate::writer::queue::{Request, Work};

/// Records that were queued. Resolves when they are durable, with their positions.
#[must_use = "an append is acknowledged when its ticket resolves"]
pub struct Ticket {
    parts: Vec<oneshot::Receiver<Result<Appended, AppendError>>>,
    at: usize,
    first: Option<Position>,
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
        let ticket = self.push_records(stream, parts, false, true);
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
        self.append_now(stream, &records, false)
    }

    /// As [`Log::append_blocking`], for the records in which retention writes down what is about to go: they may use
    /// what is kept back at the end of the last segment (see [`crate::Options::reserve_bytes`]), as the bases may that
    /// follow them. A log that was opened with no more room than that could give up nothing otherwise. A few short
    /// records at a time, and nothing else.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_reserved_blocking(
        &self,
        stream: &StreamId,
        records: Vec<v1::Record>,
    ) -> Result<Appended, AppendError> {
        self.append_now(stream, &records, true)
    }

    fn append_now(
        &self,
        stream: &StreamId,
        records: &[v1::Record],
        reserved: bool,
    ) -> Result<Appended, AppendError> {
        let parts = self.encode(records)?;
        for part in &parts {
            block_on(self.wait_for_room(part.payload.len()))?;
        }
        let ticket = self.push_records(stream, parts, reserved, false);
        self.help_until(ticket)
    }

    pub(super) async fn wait_for_room(&self, bytes: usize) -> Result<(), AppendError> {
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

    fn push_records(&self, stream: &StreamId, parts: Vec<Part>, reserved: bool, wake: bool) -> Ticket {
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
                work: Work::Records {
                    payload,
                    count,
                    reserved,
                    done,
                },
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
}
