//! Folding a log as it grows.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ledge_log::{BlockNo, BlockReader, DiskStorage, Log, ReadError as LogReadError, Storage as _};
use ledge_proto::fold;
use ledge_proto::frame::FrameError;
use ledge_proto::ids::Chain;
use tokio::sync::watch;

use crate::batch::Batch;
use crate::{Applied, Projection, ProjectionError, StoreError};

/// A batch is committed when this much was collected, or when the log's end is reached.
const BATCH_BYTES: usize = 4 << 20;
/// A rebuild that comes to less than this is committed as any batch: a table of its own is not worth a sync.
const LOAD_FROM_BYTES: usize = 256 << 10;
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_millis(500);
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Why folding stopped.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The projection failed.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    /// The log could not be read.
    #[error("log: {0}")]
    Log(#[from] LogReadError),
    /// A frame could not be read.
    #[error("block {block}: {source}")]
    Frame {
        /// The block it is in.
        block: BlockNo,
        /// Why.
        source: FrameError,
    },
    /// A frame could not be folded.
    #[error("block {block}: {source}")]
    Fold {
        /// The block it is in.
        block: BlockNo,
        /// Why.
        source: fold::FoldError<StoreError>,
    },
}

/// A thread that folds a log into a projection, block by block, only what is durable.
#[derive(Debug)]
pub struct Follower {
    thread: Option<JoinHandle<Result<(), FollowError>>>,
    stop: watch::Sender<bool>,
}

impl Follower {
    /// Folds up to the log's present end, then returns: use it before serving from the projection. Ends early once
    /// `stop` says so, after which nothing may be served.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub fn catch_up(log: &Log, projection: &Projection, stop: impl Fn() -> bool) -> Result<(), FollowError> {
        let mut reader = log.read_blocks(projection.applied().block);
        fold_available(&mut reader, projection, log.durable_block(), stop)
    }

    /// Starts the thread. It ends when told to, when the log closes, or at the first error.
    pub fn start(log: Log, projection: Projection) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let watched = projection.clone();
        let mut run = move || -> Result<(), FollowError> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .map_err(|source| ProjectionError::Io {
                    dir: projection.dir.clone(),
                    source,
                })?;
            let mut durable = log.subscribe();
            let mut reader = log.read_blocks(projection.applied().block);
            loop {
                if !runtime.block_on(room(&projection, &mut stopped)) {
                    return Ok(());
                }
                let end = *durable.borrow_and_update();
                fold_available(&mut reader, &projection, end, || *stopped.borrow())?;
                let go_on = runtime.block_on(async {
                    tokio::select! {
                        changed = durable.changed() => changed.is_ok(),
                        _ = stopped.changed() => false,
                    }
                });
                if !go_on {
                    return Ok(());
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("projection".to_owned())
            .spawn(move || {
                let result = run();
                if let Err(err) = &result {
                    tracing::error!(%err, "the projection stopped; it is folded again at the next start");
                    watched.mark_distrusted();
                }
                result
            })
            .ok();
        if thread.is_none() {
            tracing::error!("cannot start the projection thread: the machine is out of threads or memory");
        }
        Follower { thread, stop }
    }

    /// Whether the thread still runs. It should: if not, [`Follower::stop`] tells why.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the thread and waits for it.
    ///
    /// # Errors
    /// Why it had stopped before, if it had.
    pub fn stop(mut self) -> Result<(), FollowError> {
        self.stop.send_replace(true);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

/// Waits until the disk has room for what fjall may write. The log goes on meanwhile: it takes its space ahead. Returns
/// false when told to stop.
///
/// fjall does not survive a write that fails, so it must not come to that.
async fn room(projection: &Projection, stopped: &mut watch::Receiver<bool>) -> bool {
    let mut told = false;
    loop {
        let free = DiskStorage.free_bytes(&projection.dir).unwrap_or(u64::MAX);
        if free >= projection.room_bytes {
            if told {
                tracing::info!(free, "the disk has room again: the projection goes on");
            }
            return !*stopped.borrow();
        }
        if !told {
            told = true;
            tracing::error!(
                dir = %projection.dir.display(), free, needed = projection.room_bytes,
                "the disk is full: what the log takes in has no effect until there is room again; free some space"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_FOR_ROOM_EVERY) => {}
            _ = stopped.changed() => return false,
        }
    }
}

fn fold_available(
    reader: &mut BlockReader,
    projection: &Projection,
    end: BlockNo,
    stop: impl Fn() -> bool,
) -> Result<(), FollowError> {
    let mut batch = Batch::new(projection);
    let mut applied = projection.applied();
    let began = Instant::now();
    let mut reported = began;
    let first = applied.block;
    // From nothing: everything is new, and nobody may read before the end is reached.
    let rebuilding = first == BlockNo(0);
    let batch_bytes = if rebuilding {
        projection.rebuild_bytes
    } else {
        BATCH_BYTES
    };
    while !stop()
        && let Some(block) = reader.next_block()?
    {
        for frame in block.frames() {
            let frame = frame.map_err(|source| FollowError::Frame {
                block: block.no,
                source,
            })?;
            fold::apply_frame(&mut batch, &frame).map_err(|source| FollowError::Fold {
                block: block.no,
                source,
            })?;
        }
        let chain = block.chain().map_err(|source| FollowError::Frame {
            block: block.no,
            source,
        })?;
        applied = Applied {
            block: block.no,
            chain: Chain(chain),
            ..applied
        };
        if batch.bytes() >= batch_bytes {
            if rebuilding {
                batch.load(applied)?;
            } else {
                batch.commit(applied)?;
            }
            batch = Batch::new(projection);
            if reported.elapsed() >= PROGRESS_EVERY {
                reported = Instant::now();
                tracing::info!(block = %applied.block, from = %first, to = %end, "folding the log");
            }
        }
    }
    if applied != projection.applied() {
        if rebuilding && batch.bytes() >= LOAD_FROM_BYTES {
            batch.load(applied)?;
        } else {
            batch.commit(applied)?;
        }
    }
    Ok(())
}
