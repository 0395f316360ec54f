//! A file of a simulated disk: what programs see, what would survive, and what is in between.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use super::fault::{Fault, Op, no_space};
use super::{Access, SECTOR, SimDisk};
use crate::storage::StorageFile;

pub(super) type Sector = Box<[u8; SECTOR]>;

#[derive(Clone, Default)]
pub(super) struct Inode {
    /// What reads return.
    cache: Vec<u8>,
    /// What is on the platter.
    pub(super) durable: Vec<u8>,
    /// Versions of each sector written since the last sync, oldest first.
    pub(super) pending: BTreeMap<u64, Vec<Sector>>,
    /// The length changed since the last sync.
    pub(super) len_pending: bool,
    /// What each sector held before its last synced change.
    stale: BTreeMap<u64, Sector>,
}

impl Inode {
    pub(super) fn of(bytes: Vec<u8>, stale: BTreeMap<u64, Sector>) -> Self {
        Inode {
            cache: bytes.clone(),
            durable: bytes,
            stale,
            ..Inode::default()
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.cache
    }

    pub(super) fn stale(&self) -> &BTreeMap<u64, Sector> {
        &self.stale
    }

    pub(super) fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    fn resize(&mut self, len: usize) {
        if len != self.cache.len() {
            // Sectors cut off and grown again read as zeros.
            let first = self.cache.len().min(len) / SECTOR;
            self.cache.resize(len, 0);
            self.len_pending = true;
            self.pending.split_off(&(first as u64 + 1));
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        if end > self.cache.len() {
            self.cache.resize(end, 0);
            self.len_pending = true;
        }
        self.cache[at..end].copy_from_slice(bytes);
        for sector in at / SECTOR..=(end - 1) / SECTOR {
            let image = sector_of(&self.cache, sector);
            self.pending.entry(sector as u64).or_default().push(image);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.cache.len(), 0);
        for (sector, versions) in std::mem::take(&mut self.pending) {
            let at = usize::try_from(sector).unwrap_or(usize::MAX);
            let Some(latest) = versions.last() else { continue };
            let before = sector_of(&self.durable, at);
            if before != *latest {
                self.stale.insert(sector, before);
            }
            put_sector(&mut self.durable, at, latest);
        }
        self.len_pending = false;
    }

    /// What the kernel does when a sync fails: the pages stay readable and are clean from now on.
    fn forget_dirty(&mut self) {
        self.pending.clear();
        self.len_pending = false;
    }

    pub(super) fn corrupt(&mut self, change: impl FnOnce(&mut [u8])) {
        change(&mut self.cache);
        self.durable.clone_from(&self.cache);
        self.pending.clear();
    }

    pub(super) fn make_stale(&mut self, sector: u64) -> bool {
        let Some(old) = self.stale.remove(&sector) else {
            return false;
        };
        let at = usize::try_from(sector).unwrap_or(usize::MAX);
        put_sector(&mut self.cache, at, &old);
        put_sector(&mut self.durable, at, &old);
        true
    }
}

pub(super) fn sector_of(bytes: &[u8], sector: usize) -> Sector {
    let mut image = Box::new([0; SECTOR]);
    let start = (sector * SECTOR).min(bytes.len());
    let end = (start + SECTOR).min(bytes.len());
    image[..end - start].copy_from_slice(&bytes[start..end]);
    image
}

pub(super) fn put_sector(bytes: &mut [u8], sector: usize, image: &[u8; SECTOR]) {
    let start = sector.saturating_mul(SECTOR).min(bytes.len());
    let end = (start + SECTOR).min(bytes.len());
    bytes[start..end].copy_from_slice(&image[..end - start]);
}

pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: usize,
    pub(super) access: Access,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::Read => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

fn to_usize(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl StorageFile for SimFile {
    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk.disk();
        disk.alive()?;
        let bytes = disk.inodes[self.inode].bytes();
        let from = to_usize(offset)?.min(bytes.len());
        let len = buf.len().min(bytes.len() - from);
        buf[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn pwritev(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut disk = self.disk.disk();
        let fault = disk.op(Op::Write)?;
        let mut bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let mut result = Ok(());
        if let Some(fault @ (Fault::WriteError { written } | Fault::NoSpace { written })) = fault {
            bytes.truncate(written);
            result = Err(fault.error());
        }
        if let Some(capacity) = disk.capacity {
            let len = disk.inodes[self.inode].len();
            let room = len + capacity.saturating_sub(disk.used());
            if offset + bytes.len() as u64 > room {
                bytes.truncate(to_usize(room.saturating_sub(offset))?);
                result = Err(no_space());
            }
        }
        disk.inodes[self.inode].write(to_usize(offset)?, &bytes);
        result
    }

    fn fdatasync(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        if let Some(fault) = disk.op(Op::Sync)? {
            disk.inodes[self.inode].forget_dirty();
            return Err(fault.error());
        }
        if !disk.lying {
            disk.inodes[self.inode].sync();
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut disk = self.disk.disk();
        if let Some(fault) = disk.op(Op::Write)? {
            return Err(fault.error());
        }
        if let Some(capacity) = disk.capacity {
            let grown = len.saturating_sub(disk.inodes[self.inode].len());
            if disk.used() + grown > capacity {
                return Err(no_space());
            }
        }
        disk.inodes[self.inode].resize(to_usize(len)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.disk.disk();
        disk.alive()?;
        Ok(disk.inodes[self.inode].len())
    }
}
