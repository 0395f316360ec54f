//! A projection: the state a log folds to, kept in fjall together with the position it stands for.
//!
//! It is disposable. The position is in the same fjall batch as the state, nothing is fsynced on the way, and a
//! projection that is missing, stale, of another log or damaged is thrown away and folded again from the log
//! ([`Opened::Rebuilding`]). Readers see whole batches only.
//!
//! Reading order: [`Projection`] (this file), `batch`, `changes`, `again`, `follow`.

mod again;
mod batch;
mod changes;
mod follow;
mod pending;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use ledge_log::{BlockNo, Log};
use ledge_proto::fold::snapshot::SnapshotSource;
use ledge_proto::fold::{self, FoldError};
use ledge_proto::ids::{Chain, Incarnation, Mark, Position, Scope, StreamKey};
use ledge_proto::v1;
use ledge_retention::budget::ProjectionShare;
use tokio::sync::watch;

pub use again::AgainError;
pub use changes::{ChangeFeed, Changed, Changes};
pub use follow::{FollowError, Follower};

/// Where the position is kept: in the same keyspace as the state, so that whatever damages the one damages the other.
/// No key of the state begins with this byte (scopes are ASCII).
const APPLIED_KEY: &[u8] = b"\xffapplied";

/// Its presence says that the projection failed in use.
const DISTRUSTED_FILE: &str = "DISTRUSTED";

/// How much memory and disk the projection may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// Block cache, bytes.
    pub cache_bytes: u64,
    /// Memtable, bytes; up to four of them may exist while they are flushed, and each takes about three times as much
    /// memory.
    pub memtable_bytes: u64,
    /// Journal, bytes; at least 64 MiB.
    pub journal_bytes: u64,
    /// Memory for what is folded before it is written while the projection is folded from nothing, bytes. It takes about
    /// twice as much.
    pub rebuild_bytes: usize,
    /// Free space on the disk below which folding waits, bytes: fjall does not survive a write that fails.
    pub room_bytes: u64,
}

impl Options {
    /// For a gateway with little memory.
    pub fn edge() -> Self {
        Options {
            cache_bytes: 1 << 20,
            memtable_bytes: 512 << 10,
            journal_bytes: 64 << 20,
            rebuild_bytes: 2 << 20,
            room_bytes: 8 << 20,
        }
    }

    /// For a server that projects many nodes.
    pub fn cloud() -> Self {
        Options {
            cache_bytes: 32 << 20,
            memtable_bytes: 16 << 20,
            journal_bytes: 128 << 20,
            rebuild_bytes: 64 << 20,
            room_bytes: 64 << 20,
        }
    }

    /// What a projection of little state takes on disk at most: its journal, and tables that are being merged.
    pub fn disk_share(&self) -> ProjectionShare {
        ProjectionShare {
            journal_bytes: self.journal_bytes,
            tables_bytes: 8 * self.memtable_bytes,
        }
    }
}

/// Why a projection failed. None of these lose anything: the log has it all.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// fjall failed.
    #[error("projection {dir}: {source}")]
    Store {
        /// Its directory.
        dir: PathBuf,
        /// What fjall says.
        source: fjall::Error,
    },
    /// The directory could not be made or removed.
    #[error("projection {dir}: {source}")]
    Io {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Where a projection stands: the last block folded, proven by its chain, of which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Last block folded; 0 before the first.
    pub block: BlockNo,
    /// That block's chain.
    pub chain: Chain,
    incarnation: Incarnation,
}

impl Applied {
    fn nothing_of(incarnation: Incarnation) -> Self {
        Applied {
            block: BlockNo(0),
            chain: Chain::default(),
            incarnation,
        }
    }

    /// As it is kept beside the state: fold version u32 | incarnation 16 | block u64 | chain 16, big-endian.
    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(44);
        out.extend_from_slice(&fold::FOLD_VERSION.to_be_bytes());
        out.extend_from_slice(&self.incarnation.0);
        out.extend_from_slice(&self.block.0.to_be_bytes());
        out.extend_from_slice(&self.chain.0);
        out
    }

    /// Reads what [`Applied::encode`] wrote; `None` for anything else, and for what another fold version wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 44 || bytes[..4] != fold::FOLD_VERSION.to_be_bytes() {
            return None;
        }
        Some(Applied {
            incarnation: Incarnation::from_slice(&bytes[4..20]).ok()?,
            block: BlockNo(u64::from_be_bytes(bytes[20..28].try_into().ok()?)),
            chain: Chain::from_slice(&bytes[28..]).ok()?,
        })
    }
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// It goes on from where it stood.
    Continuing,
    /// It was thrown away, for this reason, and is folded again from the log.
    Rebuilding(String),
}

/// A projection of a log. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Projection {
    dir: PathBuf,
    room_bytes: u64,
    rebuild_bytes: usize,
    db: Database,
    state: Keyspace,
    applied: Arc<watch::Sender<Applied>>,
    feeds: changes::Feeds,
    again: again::Again,
}

impl std::fmt::Debug for Projection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Projection")
            .field("dir", &self.dir)
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

impl Projection {
    /// Opens the projection of `log` in `dir`, or makes an empty one when what is there cannot be trusted.
    /// Nothing is folded yet; see [`Follower`].
    ///
    /// # Errors
    /// When an empty projection cannot be made either.
    pub fn open(dir: &Path, log: &Log, options: &Options) -> Result<(Projection, Opened), ProjectionError> {
        let incarnation = log.identity().incarnation;
        let existed = dir.exists();
        let reason = match open_existing(dir, options) {
            Ok((projection, Some(applied))) => {
                match distrust(&applied, log).or_else(|| projection.unreadable()) {
                    None => {
                        projection.applied.send_replace(applied);
                        return Ok((projection, Opened::Continuing));
                    }
                    Some(reason) => reason,
                }
            }
            Ok((_, None)) if existed => "it holds no position this version understands".to_owned(),
            Ok((_, None)) => "it was missing".to_owned(),
            Err(reason) => reason,
        };
        remove(dir)?;
        let (projection, _) = open_existing(dir, options).map_err(|reason| ProjectionError::Io {
            dir: dir.to_owned(),
            source: std::io::Error::other(reason),
        })?;
        projection.applied.send_replace(Applied::nothing_of(incarnation));
        Ok((projection, Opened::Rebuilding(reason)))
    }

    /// Reads everything once: fjall notices damage to a block when it reads it, which may be weeks later.
    fn unreadable(&self) -> Option<String> {
        if self.dir.join(DISTRUSTED_FILE).exists() {
            return Some("it failed when it was used last".to_owned());
        }
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fold::Read::scan(&self.view(), b"", &mut |_, _| ())
        }));
        match read {
            Ok(Ok(())) => None,
            Ok(Err(err)) => Some(format!("it cannot be read through: {err}")),
            Err(_) => Some("fjall panicked on reading it through".to_owned()),
        }
    }

    /// Leaves a note that makes the next start fold it again.
    fn mark_distrusted(&self) {
        if let Err(err) = std::fs::write(self.dir.join(DISTRUSTED_FILE), b"") {
            tracing::error!(dir = %self.dir.display(), %err, "remove the projection's directory before the next start");
        }
    }

    /// Where it stands.
    pub fn applied(&self) -> Applied {
        *self.applied.borrow()
    }

    /// Changes with every batch folded.
    pub fn subscribe(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// A consistent view; drop it soon, old versions are kept while it lives.
    pub fn view(&self) -> View {
        View {
            snapshot: self.db.snapshot(),
            state: self.state.clone(),
        }
    }

    /// Hash of what is known about `scope`.
    ///
    /// # Errors
    /// When fjall fails.
    pub fn state_hash(&self, scope: &Scope) -> Result<[u8; 32], ProjectionError> {
        fold::state_hash(&self.view(), scope).map_err(|source| self.error(source.0))
    }

    /// Makes everything folded so far survive a power cut. Not needed for safety: it saves replay.
    ///
    /// # Errors
    /// When fjall fails.
    pub fn persist(&self) -> Result<(), ProjectionError> {
        self.db
            .persist(PersistMode::SyncAll)
            .map_err(|source| self.error(source))
    }

    fn error(&self, source: fjall::Error) -> ProjectionError {
        ProjectionError::Store {
            dir: self.dir.clone(),
            source,
        }
    }
}

/// Why `applied` does not stand for a prefix of `log`, if so.
fn distrust(applied: &Applied, log: &Log) -> Option<String> {
    if applied.incarnation != log.identity().incarnation {
        return Some("it belongs to another log".to_owned());
    }
    if applied.block > log.durable_block() {
        return Some(format!(
            "it is ahead of the log ({} after {})",
            applied.block,
            log.durable_block()
        ));
    }
    if applied.block == BlockNo(0) {
        return None;
    }
    match log.chain_of_block(applied.block) {
        Some(chain) if chain == applied.chain.0 => None,
        Some(_) => Some(format!(
            "its history differs from the log's at block {}",
            applied.block
        )),
        None => Some(format!(
            "the log no longer holds what comes after block {}",
            applied.block
        )),
    }
}

/// Opens whatever is in `dir`; the error is a reason in words, for all of them lead to a rebuild.
fn open_existing(dir: &Path, options: &Options) -> Result<(Projection, Option<Applied>), String> {
    // fjall may panic on damaged files; to a projection that is one more way of being damaged.
    let opened = std::panic::catch_unwind(|| -> fjall::Result<_> {
        let db = Database::builder(dir)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes)
            .worker_threads(1)
            .open()?;
        let memtable = options.memtable_bytes;
        let state = db.keyspace("state", || {
            KeyspaceCreateOptions::default().max_memtable_size(memtable)
        })?;
        let applied = db.snapshot().get(&state, APPLIED_KEY)?;
        Ok((db, state, applied))
    });
    match opened {
        Ok(Ok((db, state, applied))) => {
            let applied = applied.and_then(|bytes| Applied::decode(&bytes));
            let (sender, _) = watch::channel(Applied::nothing_of(Incarnation::default()));
            let projection = Projection {
                dir: dir.to_owned(),
                room_bytes: options.room_bytes,
                rebuild_bytes: options.rebuild_bytes,
                db,
                state,
                applied: Arc::new(sender),
                feeds: changes::Feeds::default(),
                again: again::Again::default(),
            };
            Ok((projection, applied))
        }
        Ok(Err(err)) => Err(format!("fjall cannot open it: {err}")),
        Err(_) => Err("fjall panicked on its files".to_owned()),
    }
}

fn remove(dir: &Path) -> Result<(), ProjectionError> {
    match std::fs::remove_dir_all(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(ProjectionError::Io {
            dir: dir.to_owned(),
            source: err,
        }),
        _ => Ok(()),
    }
}

/// fjall's error as a standard error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StoreError(#[from] pub fjall::Error);

/// A consistent view of a projection.
pub struct View {
    snapshot: fjall::Snapshot,
    state: Keyspace,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl fold::Read for View {
    type Error = StoreError;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self
            .snapshot
            .get(&self.state, key)?
            .map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        for entry in self.snapshot.prefix(&self.state, prefix) {
            let (key, value) = entry.into_inner()?;
            visit(&key, &value);
        }
        Ok(())
    }
}

impl SnapshotSource for Projection {
    fn live(&self, key: &StreamKey) -> Option<Vec<v1::Snapshot>> {
        readable(
            key,
            fold::snapshot::extract(&self.view(), key, v1::snapshot::Purpose::Base),
        )
    }

    fn mark(&self, key: &StreamKey) -> Option<Mark> {
        readable(key, fold::snapshot::folded_mark(&self.view(), key))
    }

    fn changes(&self, key: &StreamKey, after: Position) -> Option<Vec<v1::Snapshot>> {
        readable(key, fold::snapshot::changes(&self.view(), key, after))
    }
}

/// A snapshot is a shortcut: without one, records are read and sent instead.
fn readable<T>(key: &StreamKey, read: Result<Option<T>, ReadError>) -> Option<T> {
    read.unwrap_or_else(|err| {
        tracing::error!(%key, %err, "the projection cannot be read");
        None
    })
}

/// Errors of reading a projection through the views of `ledge_proto::fold::view`.
pub type ReadError = FoldError<StoreError>;
