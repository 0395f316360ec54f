//! The manifests directory, read again when it changes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ledge_yaml::Limits;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::load::{Loaded, SourceFile, load};
use super::object::Objects;
use super::problem::{Problem, Severity};

/// Most files read from one directory.
const MAX_FILES: usize = 20_000;

/// What the directory holds now, and what there is to tell about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The objects in force.
    pub objects: Arc<Objects>,
    /// What there is to tell.
    pub problems: Vec<Problem>,
}

/// How soon a change is noticed.
#[derive(Debug, Clone, Copy)]
pub struct WatchOptions {
    /// Quiet time after a change before the files are read: an editor writes in several steps.
    pub debounce: Duration,
    /// Time between two readings on filesystems that do not tell of changes.
    pub rescan: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            debounce: Duration::from_millis(100),
            rescan: Duration::from_secs(10),
        }
    }
}

/// Why the directory cannot be watched from the start.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It is not there, not a directory, or not readable.
    #[error("cannot read the manifests directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The reader itself broke.
    #[error("reading the manifests directory {} stopped: {why}", path.display())]
    Stopped {
        /// The directory.
        path: PathBuf,
        /// How.
        why: String,
    },
}

/// Watches a directory until it is stopped or dropped.
#[derive(Debug)]
pub struct Watcher {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stop: Arc<Notify>,
    task: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Reads the directory once and begins to watch it.
    ///
    /// # Errors
    /// When the directory cannot be read now. Once it could, it may come and go: what it held stays in force.
    pub async fn start(directory: impl Into<PathBuf>, options: WatchOptions) -> Result<Watcher, WatchError> {
        let path = directory.into();
        let mut reader = Reader::new(path.clone());
        let stopped = |path: &Path, why: &dyn std::fmt::Display| WatchError::Stopped {
            path: path.to_owned(),
            why: why.to_string(),
        };
        let (mut reader, first) = tokio::task::spawn_blocking(move || {
            let first = reader.first();
            (reader, first)
        })
        .await
        .map_err(|err| stopped(&path, &err))?;
        let first = first.map_err(|source| WatchError::Directory {
            path: path.clone(),
            source,
        })?;
        let (sender, snapshots) = watch::channel(Arc::new(first));
        let stop = Arc::new(Notify::new());
        let changed = Arc::new(Notify::new());
        reader.listen(changed.clone());
        // Between the first reading and now something may have changed.
        changed.notify_one();
        let task = tokio::spawn(run(reader, sender, options, changed, stop.clone()));
        Ok(Watcher {
            snapshots,
            stop,
            task: Some(task),
        })
    }

    /// Follows the directory: the value now, and a wake-up whenever it is another.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Ends the watching and waits until it has ended.
    pub async fn stop(mut self) {
        self.stop.notify_one();
        if let Some(task) = self.task.take()
            && let Err(err) = task.await
            && !err.is_cancelled()
        {
            tracing::error!(%err, "watching the manifests directory had stopped before");
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run(
    mut reader: Reader,
    sender: watch::Sender<Arc<Snapshot>>,
    options: WatchOptions,
    changed: Arc<Notify>,
    stop: Arc<Notify>,
) {
    let mut rescan = interval(options.rescan.max(Duration::from_millis(1)));
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rescan.tick().await;
    loop {
        tokio::select! {
            () = stop.notified() => return,
            () = changed.notified() => settle(&changed, options.debounce).await,
            // A directory that was replaced is another one to the kernel.
            _ = rescan.tick() => reader.listen(changed.clone()),
        }
        let read = tokio::task::spawn_blocking(move || {
            let snapshot = reader.again();
            (reader, snapshot)
        });
        let snapshot;
        (reader, snapshot) = match read.await {
            Ok(done) => done,
            Err(err) => {
                tracing::error!(%err, "reading the manifests directory stopped");
                return;
            }
        };
        if let Some(snapshot) = snapshot {
            sender.send_if_modified(|current| {
                let differs = **current != snapshot;
                if differs {
                    *current = Arc::new(snapshot);
                }
                differs
            });
        }
    }
}

/// Waits until nothing has changed for a while, but not for ever.
async fn settle(changed: &Notify, debounce: Duration) {
    let latest = Instant::now() + debounce * 10;
    while Instant::now() < latest {
        tokio::select! {
            () = changed.notified() => {}
            () = sleep(debounce) => return,
        }
    }
}

/// Reads the directory and remembers what was good.
struct Reader {
    directory: PathBuf,
    /// Told by the kernel of changes; `Err` says why not.
    events: Result<notify::RecommendedWatcher, String>,
    /// Of everything read last, so that an unchanged directory costs no parsing.
    fingerprint: Option<blake3::Hash>,
    current: Snapshot,
}

impl Reader {
    fn new(directory: PathBuf) -> Self {
        let events = Err("not begun".to_owned());
        Reader {
            directory,
            events,
            fingerprint: None,
            current: Snapshot::default(),
        }
    }

    /// Asks the kernel to tell of changes, from now on through `changed`.
    fn listen(&mut self, changed: Arc<Notify>) {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files is an event too.
            let by_reading = matches!(
                event.map(|event| event.kind),
                Ok(EventKind::Access(kind)) if kind != AccessKind::Close(AccessMode::Write)
            );
            if !by_reading {
                changed.notify_one();
            }
        });
        let watching = watcher.and_then(|mut watcher| {
            notify::Watcher::watch(&mut watcher, &self.directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watching = watching.map_err(|err| err.to_string());
        if let Err(why) = &watching
            && self.events.as_ref().err() != Some(why)
        {
            let directory = self.directory.display();
            tracing::warn!(%directory, why, "the system tells of no changes: the manifests are read at intervals");
        }
        self.events = watching;
    }

    fn first(&mut self) -> io::Result<Snapshot> {
        let files = read_directory(&self.directory)?;
        self.fingerprint = Some(fingerprint(&files));
        self.current = self.loaded(&files);
        Ok(self.current.clone())
    }

    /// `None` when nothing has changed.
    fn again(&mut self) -> Option<Snapshot> {
        let files = match read_directory(&self.directory) {
            Ok(files) => files,
            Err(err) => {
                self.fingerprint = None;
                let message = format!("cannot be read: {err}; what it held stays in force");
                let name = self.directory.display().to_string();
                let problems = vec![Problem::of_file(&name, Severity::Error, message)];
                return Some(Snapshot {
                    objects: self.current.objects.clone(),
                    problems,
                });
            }
        };
        let fingerprint = Some(fingerprint(&files));
        if fingerprint == self.fingerprint {
            return None;
        }
        self.fingerprint = fingerprint;
        self.current = self.loaded(&files);
        Some(self.current.clone())
    }

    fn loaded(&self, files: &[SourceFile]) -> Snapshot {
        let Loaded {
            objects,
            mut problems,
        } = load(&self.current.objects, files);
        if files.len() >= MAX_FILES {
            let name = self.directory.display().to_string();
            let message = format!("only the first {MAX_FILES} files are read");
            problems.push(Problem::of_file(&name, Severity::Error, message));
        }
        Snapshot {
            objects: Arc::new(objects),
            problems,
        }
    }
}

fn fingerprint(files: &[SourceFile]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let (kind, text) = match &file.content {
            Ok(text) => (b'+', text),
            Err(why) => (b'-', why),
        };
        for part in [file.name.as_bytes(), &[kind], text.as_bytes()] {
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize()
}

/// The manifests of a directory, by name: files called `*.yaml`, `*.yml` or `*.json`, not hidden, not in
/// directories inside.
fn read_directory(directory: &Path) -> io::Result<Vec<SourceFile>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        if matches!(extension, "yaml" | "yml" | "json") && !name.starts_with('.') {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names.truncate(MAX_FILES);
    let files = names.into_iter().filter_map(|name| {
        let content = read_file(&directory.join(&name)).transpose()?;
        Some(SourceFile { name, content })
    });
    Ok(files.collect())
}

/// `None` when the file is gone, or is not a file.
fn read_file(path: &Path) -> Result<Option<String>, String> {
    let limit = Limits::DEFAULT.max_bytes as u64;
    // Through links: a mounted ConfigMap consists of them.
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(metadata) if metadata.len() > limit => {
            return Err(format!(
                "{} bytes, more than the {limit} this version reads",
                metadata.len()
            ));
        }
        Ok(_) => {}
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(format!("cannot be read: {err}")),
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => {}
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(format!("cannot be read: {err}")),
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(err) => Err(format!("not UTF-8 at byte {}", err.utf8_error().valid_up_to())),
    }
}

#[cfg(test)]
mod tests;
