//! Faults that can be ordered, and the generator that draws them.

use std::io;

/// What kind of operation is about to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A write or a change of length.
    Write,
    /// A create, rename or remove.
    Name,
    /// A sync of a file or directory.
    Sync,
}

/// How an operation fails. A fault ordered for an operation of another kind does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A write, or change of names, fails with an I/O error; of a write, the first `written` bytes are kept.
    WriteError {
        /// Bytes that reach the cache all the same.
        written: usize,
    },
    /// A write fails for want of space after `written` bytes; a create fails at once.
    NoSpace {
        /// Bytes that reach the cache all the same.
        written: usize,
    },
    /// A sync fails and the kernel forgets that the pages were dirty: reads show them, the disk never gets them.
    SyncError,
}

impl Fault {
    pub(super) fn fits(self, op: Op) -> bool {
        match self {
            Fault::SyncError => op == Op::Sync,
            Fault::WriteError { .. } | Fault::NoSpace { .. } => op != Op::Sync,
        }
    }

    pub(super) fn error(self) -> io::Error {
        match self {
            Fault::NoSpace { .. } => no_space(),
            Fault::WriteError { .. } | Fault::SyncError => io::Error::from_raw_os_error(5), // EIO
        }
    }
}

pub(super) fn no_space() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// A small seeded generator (splitmix64): the same seed gives the same numbers on every machine and version.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }

    /// An index into something of `len` elements, 0 when it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Fills `buf`.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}
