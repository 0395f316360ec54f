//! Ledge against the raw limit of the machine it runs on, interleaved in one process, so that the ratio means
//! something even where absolute figures do not. What each id measures is in `docs/performance.md`.

mod append;
mod group;
mod harness;
mod recovery;
mod replay;
mod transfer;
mod usage;
mod workload;

use std::path::{Path, PathBuf};

pub use harness::{Plan, Row};

/// One benchmark: an id, and what it measures in one line.
pub struct Bench {
    /// Its id, for example `B1a`.
    pub id: &'static str,
    /// What it measures.
    pub about: &'static str,
    run: fn(&Context) -> anyhow::Result<Vec<Row>>,
}

/// What every benchmark is given.
pub struct Context {
    /// An empty directory on the disk under test.
    pub dir: PathBuf,
    /// How long and how often.
    pub plan: Plan,
}

/// Every benchmark, in the order in which they run.
pub const BENCHES: &[Bench] = &[
    Bench {
        id: "B1a",
        about: "append of one group, 4K/64K/1M: pwrite and fdatasync of the same bytes",
        run: append::groups,
    },
    Bench {
        id: "B1b",
        about: "group commit of 10,000 tasks: raw bytes/s at the same block size",
        run: group::commit,
    },
    Bench {
        id: "B1d",
        about: "write amplification of the log at 64 KiB groups",
        run: append::amplification,
    },
    Bench {
        id: "B2a",
        about: "replay by blocks; with the chain of blocks; with all content hashed: pread, CRC (and BLAKE3)",
        run: replay::blocks,
    },
    Bench {
        id: "B2b",
        about: "replay of a stream with decoding: pread, CRC, zstd and decode loop",
        run: replay::records,
    },
    Bench {
        id: "B2c",
        about: "opening 1 GiB after a kill: header-only scan by raw pread",
        run: recovery::open,
    },
    Bench {
        id: "B3a",
        about: "disk to disk over QUIC, acknowledged after fsync: a raw QUIC stream",
        run: transfer::replicate,
    },
];

impl Bench {
    /// Runs it in a directory of its own under `dir`.
    ///
    /// # Errors
    /// When the disk or the log fails.
    pub fn run(&self, dir: &Path, plan: Plan) -> anyhow::Result<Vec<Row>> {
        let temp = tempfile::Builder::new().prefix("ledge-ratio-").tempdir_in(dir)?;
        (self.run)(&Context {
            dir: temp.path().to_owned(),
            plan,
        })
    }
}

/// Writes a log of `mib` MiB into `dir` and dies without closing it: the other half of B2c, run as a process of
/// its own.
///
/// # Errors
/// When the log cannot be written. On success it does not return.
pub fn fill_and_die(dir: &Path, mib: u64) -> anyhow::Result<()> {
    recovery::fill_and_die(dir, mib)
}
