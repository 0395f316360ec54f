//! What waits to be committed, and who commits it.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use ledge_proto::frame::Frame;
use ledge_proto::ids::Mark;
use ledge_proto::v1::snapshot::Purpose;
use tokio::sync::{Semaphore, oneshot};

use super::group;
use super::{Committed, Writer};
use crate::catalog::{Catalog, Stream, lock};
use crate::error::AppendError;
use crate::format::block::{BLOCK_MAX_FRAMES, DIR_ENTRY_BYTES};
use crate::log::Appended;
use crate::options::{Committer, Options};
use crate::snapshot::NewSnapshot;
use crate::stats::Counters;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Room a frame's header may need beyond its payload, bytes.
const FRAME_OVERHEAD: usize = ledge_proto::limits::FRAME_HEADER_MAX_BYTES + 16;
/// With this much waiting, lingering is over.
const LINGER_MAX_BYTES: usize = 256 * 1024;

/// One append, waiting.
pub(crate) struct Request {
    pub(crate) stream: Arc<Stream>,
    pub(crate) work: Work,
    /// Its share of the queue, bytes.
    pub(crate) bytes: usize,
}

pub(crate) enum Work {
    /// Records of a stream this log writes, encoded.
    Records {
        payload: Vec<u8>,
        count: u32,
        /// May use what is kept back for retention.
        reserved: bool,
        done: oneshot::Sender<Result<Appended, AppendError>>,
    },
    /// A frame written elsewhere.
    Frame {
        frame: Frame,
        done: oneshot::Sender<Result<Mark, AppendError>>,
    },
    /// A frame accepted before: answered once everything before is durable.
    Held {
        mark: Mark,
        done: oneshot::Sender<Result<Mark, AppendError>>,
    },
    /// A whole snapshot. Commits alone, or a base together with other bases.
    Snapshot {
        snapshot: NewSnapshot,
        done: oneshot::Sender<Result<(), AppendError>>,
    },
}

/// What may be committed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    Frames,
    Bases,
    Nothing,
}

impl Work {
    /// Answers with an error.
    pub(crate) fn refuse(self, err: &AppendError) {
        match self {
            Work::Records { done, .. } => drop(done.send(Err(err.clone()))),
            Work::Frame { done, .. } | Work::Held { done, .. } => drop(done.send(Err(err.clone()))),
            Work::Snapshot { done, .. } => drop(done.send(Err(err.clone()))),
        }
    }
}

impl Request {
    /// Most it can take of a block.
    pub(super) fn block_bytes(&self) -> usize {
        match &self.work {
            Work::Records { payload, .. } => payload.len() + FRAME_OVERHEAD + DIR_ENTRY_BYTES,
            Work::Frame { frame, .. } => frame.bytes().len() + DIR_ENTRY_BYTES,
            Work::Snapshot { snapshot, .. } => snapshot.bytes(),
            Work::Held { .. } => 0,
        }
    }

    /// What may be committed together with it.
    fn company(&self) -> Company {
        match &self.work {
            Work::Snapshot { snapshot, .. } if snapshot.head.purpose == Purpose::Base => Company::Bases,
            Work::Snapshot { .. } => Company::Nothing,
            _ => Company::Frames,
        }
    }
}

/// Shared by all handles and the committing thread.
pub(crate) struct Shared {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) options: Options,
    pub(crate) counters: Arc<Counters>,
    /// Bytes free in the queue. Waiters get their turn in order.
    pub(crate) room: Semaphore,
    queue: Mutex<Queue>,
    work: Condvar,
    writer: Mutex<Writer>,
    block_limit: usize,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    bytes: usize,
    /// Until when what waits may go on waiting; `None`: commit now.
    linger_until: Option<Instant>,
    closing: bool,
    /// Committing threads that wait to be woken.
    sleepers: usize,
}

/// What the committing thread is to do next.
pub(crate) enum Next {
    Commit,
    /// Nothing came for a while.
    Idle,
    Close,
}

impl Shared {
    pub(crate) fn new(writer: Writer) -> Shared {
        Shared {
            catalog: writer.catalog.clone(),
            room: Semaphore::new(queue_permits(&writer.options)),
            counters: writer.counters.clone(),
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            block_limit: writer.block_limit(),
            options: writer.options.clone(),
            writer: Mutex::new(writer),
        }
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }

    /// Bytes a request may take of the queue at most: one larger than the queue takes all of it.
    pub(crate) fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.max(1).min(queue_permits(&self.options))).unwrap_or(u32::MAX)
    }

    pub(crate) fn queue_bytes(&self) -> usize {
        lock(&self.queue).bytes
    }

    /// Largest payload of records that fits a block of this log.
    pub(crate) fn payload_limit(&self) -> usize {
        self.frame_limit() - FRAME_OVERHEAD
    }

    /// Largest part of a snapshot that fits a block of this log.
    pub(crate) fn snapshot_limit(&self) -> usize {
        self.block_limit - crate::format::block::BLOCK_HEADER_BYTES
    }

    /// Largest frame that fits a block of this log.
    pub(crate) fn frame_limit(&self) -> usize {
        self.block_limit - crate::format::block::BLOCK_HEADER_BYTES - DIR_ENTRY_BYTES
    }

    /// Puts requests at the end of the queue, one after the other. On failure they are answered.
    pub(crate) fn push(&self, requests: impl IntoIterator<Item = Request>, wake: bool) {
        let mut queue = lock(&self.queue);
        for request in requests {
            if queue.closing {
                self.room.add_permits(request.bytes);
                request.work.refuse(&AppendError::Closed);
                continue;
            }
            let linger = self.options.linger.of(request.stream.key.id.lane);
            let until = (linger > Duration::ZERO).then(|| Instant::now() + linger);
            queue.linger_until = if queue.requests.is_empty() {
                until
            } else {
                queue.linger_until.zip(until).map(|(a, b)| a.min(b))
            };
            queue.bytes += request.bytes;
            queue.requests.push_back(request);
        }
        // Waking costs a system call, whether or not anybody sleeps.
        let wake = wake && queue.sleepers > 0;
        drop(queue);
        if wake {
            self.work.notify_one();
        }
    }

    /// Waits for something to do. For the committing thread.
    pub(crate) fn wait(&self, idle: Option<Duration>) -> Next {
        let mut queue = lock(&self.queue);
        if !queue.requests.is_empty() && queue.linger_until.is_none() {
            return Next::Commit;
        }
        let asleep_since = Instant::now();
        loop {
            if !queue.requests.is_empty() {
                let now = Instant::now();
                match queue.linger_until {
                    Some(until) if until > now && queue.bytes < LINGER_MAX_BYTES && !queue.closing => {
                        queue = self.sleep(queue, Some(until - now));
                        continue;
                    }
                    _ => return Next::Commit,
                }
            }
            if queue.closing {
                return Next::Close;
            }
            let left = idle.map(|idle| idle.saturating_sub(asleep_since.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Next::Idle;
            }
            queue = self.sleep(queue, left);
        }
    }

    fn sleep<'a>(&self, mut queue: MutexGuard<'a, Queue>, most: Option<Duration>) -> MutexGuard<'a, Queue> {
        queue.sleepers += 1;
        let mut queue = match most {
            None => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(most) => {
                self.work
                    .wait_timeout(queue, most)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        queue.sleepers -= 1;
        queue
    }

    /// Commits one group, if anything waits. Returns whether something did.
    ///
    /// Those who wait are answered after the writer is unlocked, so that another thread's write and sync overlap
    /// with waking them.
    pub(crate) fn commit_next(&self) -> bool {
        self.commit_with(self.writer())
    }

    fn commit_with(&self, mut writer: MutexGuard<'_, Writer>) -> bool {
        let requests = self.take();
        if requests.is_empty() {
            return false;
        }
        let bytes = requests.iter().map(|request| request.bytes).sum();
        let committed = writer.commit(requests);
        let failed = match committed {
            Committed::Group(group, Ok(())) => {
                drop(writer);
                group.done();
                None
            }
            // The writer stays locked until what waits behind is refused too: it may follow what just failed.
            Committed::Group(group, Err(err)) => {
                group.failed(&err);
                Some(err)
            }
            Committed::Refused(requests, err) => {
                group::refuse(requests, &err);
                Some(err)
            }
        };
        if let Some(err) = failed {
            self.refuse_all(&err);
        }
        self.room.add_permits(bytes);
        true
    }

    /// Commits on the caller's thread until `done`, unless somebody else is committing right now.
    pub(crate) fn help(&self, mut done: impl FnMut() -> bool) {
        loop {
            let writer = match self.writer.try_lock() {
                Ok(writer) => writer,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => break,
            };
            if !self.commit_with(writer) || done() {
                break;
            }
        }
        // What came meanwhile did not wake anybody.
        let queue = lock(&self.queue);
        let wake = queue.sleepers > 0 && !queue.requests.is_empty();
        drop(queue);
        if wake {
            self.work.notify_one();
        }
    }

    /// Commits everything that waits, on the caller's thread.
    pub(crate) fn commit_all(&self) {
        while self.commit_next() {}
    }

    /// Nothing more is accepted.
    pub(crate) fn begin_close(&self) {
        lock(&self.queue).closing = true;
        self.room.close();
        self.work.notify_all();
    }

    pub(crate) fn commits_inline(&self) -> bool {
        self.options.committer == Committer::Caller
    }

    /// From the front of the queue, as much as fits one block.
    fn take(&self) -> Vec<Request> {
        let mut queue = lock(&self.queue);
        let limit = self.block_limit - crate::format::block::BLOCK_HEADER_BYTES;
        let mut count = 0;
        let mut bytes = 0;
        let mut company = None;
        for request in &queue.requests {
            bytes += request.block_bytes();
            let own = request.company();
            let apart = own != company.unwrap_or(own) || own == Company::Nothing;
            if count > 0 && (apart || bytes > limit || count == BLOCK_MAX_FRAMES) {
                break;
            }
            company = Some(own);
            count += 1;
        }
        let taken: Vec<Request> = if count == queue.requests.len() {
            std::mem::take(&mut queue.requests).into()
        } else {
            queue.requests.drain(..count).collect()
        };
        queue.bytes -= taken.iter().map(|request| request.bytes).sum::<usize>();
        if queue.requests.is_empty() {
            queue.linger_until = None;
        }
        taken
    }

    fn refuse_all(&self, err: &AppendError) {
        let mut queue = lock(&self.queue);
        let rest: Vec<Request> = std::mem::take(&mut queue.requests).into();
        queue.linger_until = None;
        self.room.add_permits(std::mem::take(&mut queue.bytes));
        drop(queue);
        group::refuse(rest, err);
    }
}

fn queue_permits(options: &Options) -> usize {
    options
        .max_queue_bytes
        .min(Semaphore::MAX_PERMITS)
        .min(u32::MAX as usize)
}
