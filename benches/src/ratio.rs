//! Ledge against the raw limit of the machine it runs on, interleaved in one process, so that the ratio means
//! something even where absolute figures do not. What each id measures is in `docs/performance.md`.

mod append;
mod beside;
mod ends;
mod fresh;
mod group;
mod harness;
mod perf;
mod rebuild;
mod recovery;
mod replay;
mod storm;
mod transfer;
mod usage;
mod workload;

use std::path::{Path, PathBuf};

pub use harness::{Plan, Row, Side};
pub use perf::Perf;

/// One benchmark: an id, and what it measures in one line.
pub struct Bench {
    /// Its id, for example `B1a`.
    pub id: &'static str,
    /// What it measures.
    pub about: &'static str,
    run: fn(&Context<'_>) -> anyhow::Result<Vec<Row>>,
}

/// What every benchmark is given.
pub struct Context<'a> {
    /// An empty directory on the disk under test.
    pub dir: PathBuf,
    /// How long and how often.
    pub plan: &'a Plan,
    /// What was asked for: a benchmark's id, or that of one of its rows.
    id: &'a str,
}

impl Context<'_> {
    /// Whether the row `id` was asked for.
    fn wants(&self, id: &str) -> bool {
        belongs(id, self.id)
    }
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
        id: "B1c",
        about: "durable records/s beside fjall, JetStream and raft-engine, each syncing every record",
        run: beside::others,
    },
    Bench {
        id: "B1d",
        about: "write amplification of the log at 64 KiB groups, and of the log with a projection that follows it",
        run: |context| {
            let mut rows = append::amplification(context)?;
            rows.extend(rebuild::amplification(context)?);
            Ok(rows)
        },
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
    Bench {
        id: "B3b",
        about: "current state at the other end after a reconnect with a backlog: a round trip and an fdatasync",
        run: fresh::state,
    },
    Bench {
        id: "B3c",
        about: "memory of the server per idle connection: a raw QUIC connection",
        run: storm::idle_memory,
    },
    Bench {
        id: "B3d",
        about: "handshakes with HELLO and WELCOME: raw QUIC handshakes with certificates both ways",
        run: storm::handshakes,
    },
    Bench {
        id: "B4a",
        about: "a projection folded again from the log: fjall's bulk load of the same entries",
        run: rebuild::rebuild,
    },
    Bench {
        id: "B4b",
        about: "a projection following the log: fjall batches of the same entries",
        run: rebuild::apply,
    },
];

impl Bench {
    /// Whether `id` is this benchmark, or looks like one of its rows.
    pub fn has(&self, id: &str) -> bool {
        belongs(id, self.id)
    }

    /// Runs it in a directory of its own under `dir`; `id` is its id, or one row's.
    ///
    /// # Errors
    /// When the disk or the log fails, or it has no such row.
    pub fn run(&self, id: &str, dir: &Path, plan: &Plan) -> anyhow::Result<Vec<Row>> {
        let temp = tempfile::Builder::new().prefix("ledge-ratio-").tempdir_in(dir)?;
        let rows = (self.run)(&Context {
            dir: temp.path().to_owned(),
            plan,
            id,
        })?;
        let asked = !rows.is_empty() && rows.iter().all(|row| belongs(&row.id, id));
        anyhow::ensure!(asked, "{} has no row `{id}`", self.id);
        Ok(rows)
    }
}

/// `B1a-4K` belongs to `B1a`, and everything to itself.
fn belongs(id: &str, to: &str) -> bool {
    id.strip_prefix(to)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Writes a log of `mib` MiB into `dir` and dies without closing it: the other half of B2c, run as a process of
/// its own.
///
/// # Errors
/// When the log cannot be written. On success it does not return.
pub fn fill_and_die(dir: &Path, mib: u64) -> anyhow::Result<()> {
    recovery::fill_and_die(dir, mib)
}

/// Accepts QUIC connections and keeps them: the other half of B3c, run as a process of its own.
///
/// # Errors
/// When it cannot listen with the certificates in `pki`.
pub fn serve_raw(pki: &Path) -> anyhow::Result<()> {
    storm::serve_raw(pki)
}
