//! Where bytes live. The log touches files through these two traits and nothing else, so that the same code
//! runs over a disk and over a simulated disk that crashes.
//!
//! The contract is written on the traits; `storage/conformance.rs` checks it for every implementation.

mod disk;
pub mod sim;

#[cfg(test)]
mod conformance;

use std::io::{self, IoSlice};
use std::path::Path;

pub use disk::DiskStorage;
pub use sim::SimDisk;

/// What an opened file may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only: works on a directory this process may not write to.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// Held while a directory is locked; dropping it unlocks.
pub trait StorageLock: Send + Sync {}

/// A place with files in directories.
///
/// What a crash keeps:
/// - a file's bytes as of its last successful [`StorageFile::fdatasync`], and of later writes any subset of
///   512-byte sectors;
/// - names as of the last successful [`Storage::sync_dir`] of their directory, and of later creates, renames and
///   removes any subset.
pub trait Storage: Send + Sync {
    /// Makes `dir` and its parents, when missing.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes an empty file, or empties the one that is there. Opened for reading and writing.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;

    /// Opens a file that exists.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it does not.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>>;

    /// Gives a file another name in the same directory, replacing what had that name. Open handles stay valid.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when `from` does not exist.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Open handles stay valid.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it does not exist.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in `dir`, sorted. Names that are not UTF-8 and subdirectories are left out.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes creates, renames and removes in `dir` durable.
    ///
    /// # Errors
    /// Whatever the file system says; which names survive a crash is then unknown.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that can still be written under `dir`.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Takes an exclusive lock, by a file at `path`, that ends with the returned value or with the process.
    /// `note` is written into the file for people (the process id).
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when somebody else holds it.
    fn lock(&self, path: &Path, note: &str) -> io::Result<Box<dyn StorageLock>>;
}

/// An open file. Offsets and lengths are in bytes.
#[allow(clippy::len_without_is_empty, reason = "an empty file is of no interest")]
pub trait StorageFile: Send + Sync {
    /// Fills `buf` from `offset` on. Fewer bytes are returned only at the end of the file.
    ///
    /// # Errors
    /// Whatever the device says.
    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bufs`, one after the other, from `offset` on. Growing the file where needed.
    ///
    /// # Errors
    /// Whatever the device says; any part may then have been written.
    fn pwritev(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes everything written so far, and the length, durable.
    ///
    /// # Errors
    /// Whatever the device says. What was written since the last success is then in an unknown state for good:
    /// a later success says nothing about it.
    fn fdatasync(&self) -> io::Result<()>;

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The file's length.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn len(&self) -> io::Result<u64>;
}

/// Writes one buffer; see [`StorageFile::pwritev`].
pub(crate) fn pwrite(file: &dyn StorageFile, buf: &[u8], offset: u64) -> io::Result<()> {
    file.pwritev(&[IoSlice::new(buf)], offset)
}

/// Fills `buf` or fails with [`io::ErrorKind::UnexpectedEof`].
pub(crate) fn pread_exact(file: &dyn StorageFile, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.pread(buf, offset)?;
    if read == buf.len() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!(
            "the file ends at byte {}, wanted {} bytes from {offset}",
            offset + read as u64,
            buf.len()
        ),
    ))
}

/// Writes `len` zeros from `offset` on.
pub(crate) fn write_zeros(file: &dyn StorageFile, mut offset: u64, mut len: u64) -> io::Result<()> {
    static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];
    while len > 0 {
        let step = len.min(ZEROS.len() as u64);
        pwrite(
            file,
            &ZEROS[..usize::try_from(step).unwrap_or(ZEROS.len())],
            offset,
        )?;
        offset += step;
        len -= step;
    }
    Ok(())
}
