//! One machine: a disk that outlives its daemon, clocks, and the daemon while it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledge_log::{BlockNo, Log, OpenError, Options, ReadError, Recovery, SimDisk};
use ledge_proto::fold::State;
use ledge_proto::ids::{ClusterId, Lane, Mark, Scope, StreamId, StreamKey};
use ledge_proto::session::Backoff;

use super::clock::Clock;
use super::link::LinkId;
use super::violation::{Checked, Violation};

/// Its place in the list of machines. The cloud is 0.
pub(super) type MachineId = usize;

/// The cloud's machine.
pub(super) const CLOUD: MachineId = 0;

pub(super) const CLUSTER: ClusterId = ClusterId([0xC1; 16]);

pub(super) struct Machine {
    pub(super) name: String,
    /// The node it is; `None` for the cloud.
    pub(super) scope: Option<Scope>,
    pub(super) disk: SimDisk,
    pub(super) process: Option<Process>,
    /// Counts starts and deaths of its daemon; what belongs to an earlier life is ignored.
    pub(super) life: u32,
    pub(super) clock: Clock,
    /// Edge: when it dials again.
    pub(super) backoff: Backoff,
    /// Edge: the connection it dialled last, while it lasts.
    pub(super) link: Option<LinkId>,
    /// What its disk has to hold: of each stream the end of what was acknowledged, to a device or to the peer.
    pub(super) duties: BTreeMap<StreamKey, Mark>,
}

/// A running daemon.
pub(super) struct Process {
    pub(super) log: Log,
    pub(super) projection: Projection,
}

/// State folded from a log, in memory.
#[derive(Default)]
pub(super) struct Projection {
    pub(super) state: State,
    folded: BlockNo,
}

impl Machine {
    pub(super) fn new(name: String, scope: Option<Scope>, clock: Clock) -> Self {
        Machine {
            name,
            scope,
            disk: SimDisk::new(),
            process: None,
            life: 0,
            clock,
            backoff: Backoff::default(),
            link: None,
            duties: BTreeMap::new(),
        }
    }

    pub(super) fn dir() -> PathBuf {
        PathBuf::from("log")
    }

    /// Opens the log on its disk.
    pub(super) fn open(&self, seed: u64, segment_bytes: u64) -> Result<(Log, Recovery), OpenError> {
        open(&self.disk, &self.name, seed, segment_bytes)
    }

    /// The streams of an edge that it writes itself.
    pub(super) fn own_streams(&self) -> Vec<StreamId> {
        let lanes = [Lane::UpState, Lane::UpData];
        let scopes = self.scope.iter();
        scopes
            .flat_map(|scope| lanes.map(|lane| StreamId::new(scope.clone(), lane)))
            .collect()
    }
}

pub(super) fn open(
    disk: &SimDisk,
    name: &str,
    seed: u64,
    segment_bytes: u64,
) -> Result<(Log, Recovery), OpenError> {
    let options = Options {
        segment_bytes,
        ..Options::deterministic(CLUSTER, name, seed)
    };
    Log::open(Arc::new(disk.clone()), Path::new(&Machine::dir()), options)
}

impl Projection {
    /// Folds what is durable and not folded yet.
    pub(super) fn catch_up(&mut self, log: &Log) -> Checked<Result<(), ReadError>> {
        let mut reader = log.read_blocks(self.folded);
        loop {
            let block = match reader.next_block() {
                Ok(Some(block)) => block,
                Ok(None) => return Ok(Ok(())),
                Err(err) => return Ok(Err(err)),
            };
            for frame in block.frames() {
                let frame = frame.map_err(|err| fold_failed(block.no, &err))?;
                self.state
                    .apply_frame(&frame)
                    .map_err(|err| fold_failed(block.no, &err))?;
            }
            self.folded = block.no;
        }
    }
}

fn fold_failed(block: BlockNo, err: &dyn std::fmt::Display) -> Violation {
    Violation::new("folds", format!("block {block} cannot be folded: {err}"))
}
