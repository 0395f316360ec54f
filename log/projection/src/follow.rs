//! Folding a log as it grows.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ledge_log::{BlockNo, BlockReader, DiskStorage, Log, ReadError as LogReadError, Storage as _};
use ledge_proto::frame::FrameError;
use ledge_proto::ids::Chain;
use ledge_retention::replay::{self, Replay, ReplayError};
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
    /// A block could not be folded.
    #[error(transparent)]
    Fold(#[from] ReplayError<StoreError>),
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
        let mut replay = Replay::default();
        fold_available(
            log,
            (&mut reader, &mut replay),
            projection,
            log.durable_block(),
            stop,
        )
    }

    /// Starts the thread. It ends when told to, when the log closes, or at the first error.
    pub fn start(log: Log, projection: Projection) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let watched = projection.clone();
        projection.again.follow(true);
        let again = projection.again.clone();
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
            let mut replay = Replay::default();
            loop {
                if !runtime.block_on(room(&projection, &mut stopped)) {
                    return Ok(());
                }
                let end = *durable.borrow_and_update();
                fold_available(&log, (&mut reader, &mut replay), &projection, end, || {
                    *stopped.borrow()
                })?;
                projection.again.carry_out(&log, &projection);
                let go_on = runtime.block_on(async {
                    tokio::select! {
                        changed = durable.changed() => changed.is_ok(),
                        () = projection.again.asked() => true,
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
                watched.again.follow(false);
                if let Err(err) = &result {
                    tracing::error!(%err, "the projection stopped; it is folded again at the next start");
                    watched.mark_distrusted();
                }
                result
            })
            .ok();
        if thread.is_none() {
            again.follow(false);
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
    log: &Log,
    (reader, replay): (&mut BlockReader, &mut Replay),
    projection: &Projection,
    end: BlockNo,
    stop: impl Fn() -> bool,
) -> Result<(), FollowError> {
    let mut applied = projection.applied();
    let began = Instant::now();
    let mut reported = began;
    let first = applied.block;
    // From nothing: everything is new, and nobody may read before the end is reached.
    let rebuilding = first == BlockNo(0);
    let mut batch = Batch::new(projection, rebuilding);
    let batch_bytes = if rebuilding {
        projection.rebuild_bytes
    } else {
        BATCH_BYTES
    };
    if first == BlockNo(0) {
        load_bases(log, &mut batch)?;
    }
    while !stop() {
        let block = match reader.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(err) => {
                // The log gave up what was not folded yet. Its bases stand for it.
                *reader = later(log, reader, err)?;
                tracing::info!(from = %reader.position(), "the log gave up what was not folded yet: its bases stand for it");
                load_bases(log, &mut batch)?;
                continue;
            }
        };
        replay.block(log, &mut batch, &block)?;
        if replay.is_between_parts() {
            continue;
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
            batch = Batch::new(projection, rebuilding);
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

/// Loads the bases that are ahead of what is folded, once more when the log gives one up meanwhile.
fn load_bases(log: &Log, batch: &mut Batch<'_>) -> Result<(), FollowError> {
    loop {
        match replay::load_bases(log, batch) {
            Err(ReplayError::Read(LogReadError::Recycled { .. })) => {}
            loaded => return Ok(loaded?),
        }
    }
}

/// A reader of what is held, after `err` said that `reader` comes too late.
fn later(log: &Log, reader: &BlockReader, err: LogReadError) -> Result<BlockReader, LogReadError> {
    match replay::first_held(log, &err) {
        Some(later) if later.position() > reader.position() => Ok(later),
        _ => Err(err),
    }
}
