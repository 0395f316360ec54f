//! A disk in memory that crashes, fills up and fails on demand.
//!
//! Every fault is a function of what the test asked for and of a seed, never of time, so a run repeats byte for
//! byte. The crash model is that of [`super::Storage`], at its least kind: of everything not synced, any subset
//! of 512-byte sectors and of directory changes survives, independently of order.

mod crash;
mod fault;
mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use crash::{CrashKeeps, Pending};
pub use fault::{Fault, Op, Rng};
use file::{Inode, SimFile};

use super::{Access, Storage, StorageFile, StorageLock};

/// Unit of survival: what a disk writes as a whole.
pub const SECTOR: usize = 512;

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    shared: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    inodes: Vec<Inode>,
    /// Names as programs see them.
    names: BTreeMap<PathBuf, usize>,
    /// Names as of the last directory sync.
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since, oldest first.
    pending_names: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// Operations so far that could matter to a crash: writes, syncs and changes of names.
    ops: u64,
    faults: BTreeMap<u64, Fault>,
    crash_at: Option<u64>,
    crashed: bool,
    capacity: Option<u64>,
    /// Syncs succeed and make nothing durable.
    lying: bool,
    syncs: u64,
}

/// One create, rename or remove: the names it changes, together or not at all.
#[derive(Clone)]
struct NameChange {
    dir: PathBuf,
    sets: Vec<(PathBuf, Option<usize>)>,
}

impl SimDisk {
    /// An empty disk without limits or faults.
    pub fn new() -> Self {
        SimDisk::default()
    }

    /// Operations so far: writes, syncs, length and name changes. A crash can be asked for before any of them.
    pub fn ops(&self) -> u64 {
        self.disk().ops
    }

    /// Successful and failed `fdatasync` calls so far.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// From operation number `op` on (the first is 0), everything fails: the machine has lost power.
    pub fn crash_at(&self, op: u64) {
        self.disk().crash_at = Some(op);
    }

    /// Whether the operation given to [`SimDisk::crash_at`] has been reached.
    pub fn has_crashed(&self) -> bool {
        self.disk().crashed
    }

    /// Makes operation number `op` fail.
    pub fn fail_at(&self, op: u64, fault: Fault) {
        self.disk().faults.insert(op, fault);
    }

    /// Limits the sum of all file lengths; writes and extensions beyond it fail with "no space left".
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// From now on syncs succeed and make nothing durable, until the power goes: a disk with a cache of its own that it
    /// does not admit to.
    pub fn lie(&self) {
        self.disk().lying = true;
    }

    /// Sum of the lengths of all files, bytes.
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Takes back every fault, crash and limit that was ordered and has not happened yet.
    pub fn heal(&self) {
        let mut disk = self.disk();
        disk.faults.clear();
        disk.crash_at = None;
        disk.capacity = None;
        disk.lying = false;
    }

    /// What a crash now could keep or lose.
    pub fn pending(&self) -> Pending {
        crash::pending(&self.disk())
    }

    /// The disk as found after a crash that keeps what `keeps` says. This one stays as it is.
    pub fn after_crash(&self, keeps: &CrashKeeps) -> SimDisk {
        SimDisk {
            shared: Arc::new(Mutex::new(crash::survivor(&self.disk(), keeps))),
        }
    }

    /// The disk as the next process finds it when only the process died: cached writes are still there, but
    /// no more durable than before. Locks are free; faults and the crash point are forgotten.
    pub fn after_kill(&self) -> SimDisk {
        SimDisk {
            shared: Arc::new(Mutex::new(crash::killed(&self.disk()))),
        }
    }

    /// Changes stored bytes behind everybody's back, durably: rot at rest.
    ///
    /// # Panics
    /// When there is no such file or it is shorter.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut [u8])) {
        let mut disk = self.disk();
        let at = *disk.names.get(path).expect("the test names a file that exists");
        disk.inodes[at].corrupt(change);
    }

    /// Puts one sector back to what it held before its last synced write: a write the disk lost.
    /// Returns whether it ever held anything else.
    pub fn make_stale(&self, path: &Path, sector: u64) -> bool {
        let mut disk = self.disk();
        let Some(at) = disk.names.get(path).copied() else {
            return false;
        };
        disk.inodes[at].make_stale(sector)
    }

    /// A file's bytes, as programs see them.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(path).map(|at| disk.inodes[*at].bytes().to_vec())
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A panic in a test elsewhere must not hide its message behind this one.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let disk = self.disk();
        f.debug_struct("SimDisk")
            .field("files", &disk.names.len())
            .field("ops", &disk.ops)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// Counts an operation; fails when the power is gone or a fault was ordered.
    fn op(&mut self, op: Op) -> Result<Option<Fault>, io::Error> {
        if self.crash_at.is_some_and(|at| self.ops >= at) {
            self.crashed = true;
        }
        self.alive()?;
        if op == Op::Sync {
            self.syncs += 1;
        }
        let fault = self.faults.remove(&self.ops).filter(|fault| fault.fits(op));
        self.ops += 1;
        Ok(fault)
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed {
            Err(io::Error::other("simulated power loss"))
        } else {
            Ok(())
        }
    }

    fn used(&self) -> u64 {
        let mut seen = BTreeSet::new();
        self.names
            .values()
            .filter(|at| seen.insert(**at))
            .map(|at| self.inodes[*at].len())
            .sum()
    }

    fn check_dir(&self, path: &Path) -> io::Result<PathBuf> {
        match path.parent() {
            Some(dir) if self.dirs.contains(dir) => Ok(dir.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change_names(&mut self, dir: PathBuf, sets: Vec<(PathBuf, Option<usize>)>) {
        let change = NameChange { dir, sets };
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        for (path, inode) in &self.sets {
            match inode {
                Some(at) => names.insert(path.clone(), *at),
                None => names.remove(path),
            };
        }
    }
}

impl Storage for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        // Directories themselves are taken to be durable: the log makes one, once, before anything is acked.
        for dir in dir.ancestors() {
            disk.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut disk = self.disk();
        let dir = disk.check_dir(path)?;
        if let Some(fault) = disk.op(Op::Name)? {
            return Err(fault.error());
        }
        // Emptying is a new file under the same name: the old content may come back in a crash, as on disk.
        let at = disk.inodes.len();
        disk.inodes.push(Inode::default());
        disk.change_names(dir, vec![(path.to_owned(), Some(at))]);
        Ok(Box::new(SimFile {
            disk: self.clone(),
            inode: at,
            access: Access::ReadWrite,
        }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        let disk = self.disk();
        disk.alive()?;
        let inode = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            inode,
            access,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let dir = disk.check_dir(to)?;
        let at = *disk.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        if let Some(fault) = disk.op(Op::Name)? {
            return Err(fault.error());
        }
        disk.change_names(dir, vec![(from.to_owned(), None), (to.to_owned(), Some(at))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let dir = disk.check_dir(path)?;
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Some(fault) = disk.op(Op::Name)? {
            return Err(fault.error());
        }
        disk.change_names(dir, vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        disk.alive()?;
        if !disk.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let in_dir = disk.names.keys().filter(|path| path.parent() == Some(dir));
        let locks = disk.locks.iter().filter(|path| path.parent() == Some(dir));
        let mut names: Vec<String> = in_dir
            .chain(locks)
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if let Some(fault) = disk.op(Op::Sync)? {
            return Err(fault.error());
        }
        if disk.lying {
            return Ok(());
        }
        let (synced, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut disk.pending_names)
            .into_iter()
            .partition(|change| change.dir == dir);
        for change in synced {
            change.apply(&mut disk.durable_names);
        }
        disk.pending_names = rest;
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let disk = self.disk();
        disk.alive()?;
        Ok(disk
            .capacity
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.used())))
    }

    fn lock(&self, path: &Path, _note: &str) -> io::Result<Box<dyn StorageLock>> {
        let mut disk = self.disk();
        disk.alive()?;
        disk.check_dir(path)?;
        if !disk.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl StorageLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.disk().locks.remove(&self.path);
    }
}
