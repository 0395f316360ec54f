//! Real files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Access, Storage, StorageFile, StorageLock};

/// Most pieces one pwritev call takes (`IOV_MAX` on Linux).
const IOV_MAX: usize = 1024;

/// The machine's file systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskStorage;

impl Storage for DiskStorage {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Box::new(DiskFile(file)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .open(path)?;
        Ok(Box::new(DiskFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Box<dyn StorageLock>> {
        // Not truncated on opening: until the lock is ours, the note in it is somebody else's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(err)) => return Err(err),
        }
        file.set_len(0)?;
        file.write_all(note.as_bytes())?;
        Ok(Box::new(DiskLock(file)))
    }
}

struct DiskFile(File);

impl StorageFile for DiskFile {
    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    fn pwritev(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if let [only] = bufs {
            return self.0.write_all_at(only, offset);
        }
        let mut at = offset;
        for bufs in bufs.chunks(IOV_MAX) {
            let total: usize = bufs.iter().map(|buf| buf.len()).sum();
            let mut done = write_some(&self.0, bufs, at)?;
            if done < total {
                // A short write is rare (signal, nearly full disk): go on piece by piece.
                let mut left = bufs.to_vec();
                let mut left = &mut left[..];
                IoSlice::advance_slices(&mut left, done);
                while done < total {
                    let more = write_some(&self.0, left, at + done as u64)?;
                    if more == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    IoSlice::advance_slices(&mut left, more);
                    done += more;
                }
            }
            at += total as u64;
        }
        Ok(())
    }

    fn fdatasync(&self) -> io::Result<()> {
        // Not retried, whatever the error: see the contract.
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

fn write_some(file: &File, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    loop {
        match rustix::io::pwritev(file, bufs, offset) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[allow(dead_code, reason = "held for its lock, which ends when the file is closed")]
struct DiskLock(File);

impl StorageLock for DiskLock {}
