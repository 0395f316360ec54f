//! Folding some streams again from the log, in place, while everything else goes on: for when somebody who folded the same
//! records came to something else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ledge_log::Log;
use ledge_proto::fold::{Read, State, Store, Table};
use ledge_proto::ids::StreamId;
use ledge_retention::replay::{self, ReplayError};
use tokio::sync::{Notify, oneshot};

use crate::batch::Batch;
use crate::{Projection, ProjectionError, StoreError};

/// Why streams were not folded again. The projection is what it was.
#[derive(Debug, thiserror::Error)]
pub enum AgainError {
    /// The log could not be folded; when it gave up its oldest blocks meanwhile, it can be the next time.
    #[error(transparent)]
    Replay(#[from] ReplayError<std::convert::Infallible>),
    /// The projection could not be read.
    #[error("projection: {0}")]
    Read(#[from] StoreError),
    /// The projection could not be written.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    /// Nothing follows the log.
    #[error("the projection does not follow the log")]
    Stopped,
}

#[derive(Debug)]
struct Asked {
    streams: Vec<StreamId>,
    done: oneshot::Sender<Result<usize, AgainError>>,
}

/// What the follower was asked to fold again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Again(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whether somebody is there to do it.
    followed: bool,
    asked: VecDeque<Asked>,
}

impl Projection {
    /// Folds `streams` again from the log and puts what differs into place, as one change. Returns how many entries differed:
    /// 0 when the projection was right.
    ///
    /// # Errors
    /// See [`AgainError`].
    pub async fn fold_again(&self, streams: Vec<StreamId>) -> Result<usize, AgainError> {
        let (done, told) = oneshot::channel();
        {
            let mut queue = self.again.lock();
            if !queue.followed {
                return Err(AgainError::Stopped);
            }
            queue.asked.push_back(Asked { streams, done });
        }
        self.again.0.more.notify_one();
        told.await.map_err(|_| AgainError::Stopped)?
    }
}

impl Again {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something was asked for.
    pub(crate) async fn asked(&self) {
        self.0.more.notified().await;
    }

    /// The follower is there, or not any more: then whoever waits is told.
    pub(crate) fn follow(&self, followed: bool) {
        let mut queue = self.lock();
        queue.followed = followed;
        if !followed {
            queue.asked.clear();
        }
    }

    /// Does what was asked for.
    pub(crate) fn carry_out(&self, log: &Log, projection: &Projection) {
        loop {
            let Some(asked) = self.lock().asked.pop_front() else {
                return;
            };
            let differed = fold(log, projection, &asked.streams);
            // Whoever asked may have gone away.
            asked.done.send(differed).ok();
        }
    }
}

/// What is folded may be ahead of the projection's position: the blocks in between change nothing then.
fn fold(log: &Log, projection: &Projection, streams: &[StreamId]) -> Result<usize, AgainError> {
    let mut fresh = State::new();
    replay::fold_of(log, &mut fresh, &|stream| streams.contains(stream))?;
    let mut batch = Batch::new(projection, false);
    let mut differed = 0;
    for stream in streams {
        for table in Table::ALL.into_iter().filter(|table| table.lane() == stream.lane) {
            let prefix = table.store_key(&stream.scope, b"");
            let held = entries(&batch, &prefix)?;
            let Ok(mut right) = entries(&fresh, &prefix);
            let mut changed = 0;
            for (key, value) in held {
                match right.remove(&key) {
                    Some(same) if same == value => {}
                    Some(other) => {
                        batch.put(key, other.to_vec());
                        changed += 1;
                    }
                    None => {
                        batch.remove(key);
                        changed += 1;
                    }
                }
            }
            changed += right.len();
            for (key, value) in right {
                batch.put(key, value.to_vec());
            }
            if table != Table::stream_of(stream.lane) {
                differed += changed;
            }
        }
    }
    batch.commit(projection.applied())?;
    Ok(differed)
}

fn entries<R: Read>(store: &R, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, Bytes>, R::Error> {
    let mut found = BTreeMap::new();
    store.scan(prefix, &mut |key, value| {
        found.insert(key.to_vec(), Bytes::copy_from_slice(value));
    })?;
    Ok(found)
}
