//! Opening what a command was pointed at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ledge_log::{DiskStorage, LogView, OpenError, ReadError};
use ledge_proto::frame::FrameError;

use crate::error::Failure;

/// The directory a command reads.
#[derive(Debug, Clone, Args)]
pub(crate) struct Dir {
    /// Data directory of an edgecore or cloudcore, or the `log` directory in it.
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
}

impl Dir {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Dir { dir }
    }

    /// Where the segments are: DIR itself, or `log` in it.
    pub(crate) fn log(&self) -> PathBuf {
        let inside = self.dir.join("log");
        if inside.is_dir() { inside } else { self.dir.clone() }
    }

    /// The data directory: DIR itself, or where it lies when it is the `log` of one.
    pub(crate) fn data(&self) -> PathBuf {
        let log = self.log();
        log.parent().map_or_else(|| log.clone(), Path::to_owned)
    }

    /// Opens the log for reading.
    pub(crate) fn open(&self) -> Result<LogView, Failure> {
        let log = self.log();
        LogView::open(Arc::new(DiskStorage), &log).map_err(|err| cannot_open(&err, &self.dir))
    }
}

/// What to tell about a log that cannot be opened.
pub(crate) fn cannot_open(err: &OpenError, dir: &Path) -> Failure {
    if !dir.exists() {
        return Failure::unreadable(format!("{} does not exist", dir.display()))
            .hint("DIR is the data directory of a daemon, for example /var/lib/ledge/edge");
    }
    let failure = Failure::unreadable(err.to_string());
    match err {
        OpenError::NotALog { .. } => failure.hint(
            "DIR is the data directory of a daemon, which has a directory `log` with seg-*.ldg files in it",
        ),
        _ => failure,
    }
}

/// What to tell about a log that cannot be read on.
pub(crate) fn cannot_read(err: &ReadError) -> Failure {
    Failure::unreadable(err.to_string())
}

/// What to tell about a frame whose block is whole but which makes no sense.
pub(crate) fn bad_frame(err: &FrameError) -> Failure {
    Failure::unreadable(err.to_string()).hint("`ledge log verify` says what is damaged")
}
