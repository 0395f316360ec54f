//! One machine: a disk that outlives its daemon, clocks, and the daemon while it runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledge_log::storage::sim::CrashKeeps;
use ledge_log::{BlockChain, BlockNo, Log, OnDamage, OpenError, Options, Recovery, SimDisk};
use ledge_proto::fence::FenceUpdate;
use ledge_proto::fold::State;
use ledge_proto::ids::{ClusterId, Lane, Mark, Scope, Seq, StreamId, StreamKey};
use ledge_proto::session::Backoff;
use ledge_retention::Retention;
use ledge_retention::replay::{Replay, first_held, load_bases};

use super::clock::Clock;
use super::link::{Fences, LinkId, Side};
use super::violation::{Checked, Violation};

/// Its place in the list of machines. The cloud is 0.
pub(super) type MachineId = usize;

/// The cloud's machine.
pub(super) const CLOUD: MachineId = 0;

pub(super) const CLUSTER: ClusterId = ClusterId([0xC1; 16]);

pub(super) struct Machine {
    /// What its log is called after.
    pub(super) name: String,
    /// What it is called in the trace: a copy of a machine has the same name.
    pub(super) label: String,
    /// Cloud: the next start says that its data is an older copy.
    pub(super) raise_generation: bool,
    /// Counts the disks it had, copies put back among them.
    pub(super) disks: u32,
    /// There is another machine that is meant to have this disk.
    pub(super) is_copy: bool,
    /// It was switched off for good.
    pub(super) retired: bool,
    /// Older copies of its disk, with what was promised then.
    pub(super) images: Vec<Image>,
    /// While its disk makes nothing durable: the last it did.
    pub(super) lie: Option<Image>,
    /// The same, from when the power went until its log was opened and read.
    pub(super) lied: Option<Image>,
    /// Edge: while its disk lied it declared a gap; it lost one that way. What the gap told of is in no gap any more,
    /// and the cloud may have gone on behind it (docs/simulation.md, open findings).
    pub(super) gap_in_lie: bool,
    pub(super) gap_lost: bool,
    /// Edge: highest restore generation and leadership it followed with this disk.
    pub(super) followed: (u64, u64),
    /// Records of telemetry acknowledged to devices with this disk.
    pub(super) acked: BTreeSet<u64>,
    /// Cloud: records of telemetry that ever reached this disk.
    pub(super) arrived: BTreeSet<u64>,
    /// The node it is; `None` for the cloud.
    pub(super) scope: Option<Scope>,
    pub(super) disk: SimDisk,
    pub(super) process: Option<Process>,
    pub(super) projection: Projection,
    /// Most bytes of its log; `None`: as many as it likes.
    pub(super) limit: Option<u64>,
    pub(super) segment_bytes: u64,
    /// Counts starts and deaths of its daemon; what belongs to an earlier life is ignored.
    pub(super) life: u32,
    pub(super) clock: Clock,
    /// Edge: when it dials again.
    pub(super) backoff: Backoff,
    /// Edge: the connection it dialled last, while it lasts.
    pub(super) link: Option<LinkId>,
    /// Edge: how far the cloud ever said that telemetry is archived.
    pub(super) ever_archived: BTreeMap<StreamKey, Seq>,
    /// Of each stream it writes, how far the oracle knows it.
    pub(super) harvested: BTreeMap<StreamKey, Mark>,
    /// What its disk has to hold: of each stream the end of what was acknowledged, to a device or to the peer.
    pub(super) duties: BTreeMap<StreamKey, Mark>,
}

/// A running daemon.
pub(super) struct Process {
    pub(super) log: Log,
    pub(super) retention: Retention,
    /// Edge: how far the cloud said that telemetry is archived.
    pub(super) archived: BTreeMap<StreamKey, Seq>,
    /// As last handed to the log.
    pub(super) fences: Fences,
    /// Handed to the log and not written yet, oldest first, with the end that waits for it.
    pub(super) queue: VecDeque<Queued>,
}

/// A change of a fence on its way into the log.
pub(super) struct Queued {
    pub(super) update: FenceUpdate,
    pub(super) node: Scope,
    pub(super) waits: Option<(LinkId, Side)>,
}

/// A copy of a disk.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) disk: SimDisk,
    ever_archived: BTreeMap<StreamKey, Seq>,
    harvested: BTreeMap<StreamKey, Mark>,
    duties: BTreeMap<StreamKey, Mark>,
    followed: (u64, u64),
    acked: BTreeSet<u64>,
    arrived: BTreeSet<u64>,
}

/// State folded from a log. Like the one on a disk it outlives its daemon, unless it is lost.
#[derive(Default)]
pub(super) struct Projection {
    pub(super) state: State,
    folded: BlockNo,
    /// Chain up to the last block folded.
    chain: Option<BlockChain>,
    replay: Replay,
}

impl Machine {
    pub(super) fn new(name: String, scope: Option<Scope>, clock: Clock) -> Self {
        Machine {
            label: name.clone(),
            raise_generation: false,
            is_copy: false,
            disks: 0,
            retired: false,
            images: Vec::new(),
            lie: None,
            lied: None,
            gap_in_lie: false,
            gap_lost: false,
            followed: (0, 0),
            acked: BTreeSet::new(),
            arrived: BTreeSet::new(),
            name,
            scope,
            disk: SimDisk::new(),
            process: None,
            projection: Projection::default(),
            limit: None,
            segment_bytes: 16 * 1024,
            life: 0,
            clock,
            backoff: Backoff::default(),
            link: None,
            ever_archived: BTreeMap::new(),
            harvested: BTreeMap::new(),
            duties: BTreeMap::new(),
        }
    }

    /// A copy of its disk as the power going now would leave it.
    pub(super) fn image(&self) -> Image {
        if let Some(kept) = self.lie.as_ref().or(self.lied.as_ref()) {
            return kept.clone();
        }
        Image {
            disk: self.disk.after_crash(&CrashKeeps::Nothing),
            ever_archived: self.ever_archived.clone(),
            harvested: self.harvested.clone(),
            duties: self.duties.clone(),
            followed: self.followed,
            acked: self.acked.clone(),
            arrived: self.arrived.clone(),
        }
    }

    /// Puts a copy in the place of its disk. With the projection goes what was folded since.
    pub(super) fn put(&mut self, image: &Image) {
        self.disk = image.disk.after_crash(&CrashKeeps::Nothing);
        self.disk.heal();
        self.expect(image);
    }

    /// Its disk has to hold what a copy of it held.
    pub(super) fn expect(&mut self, image: &Image) {
        (self.lie, self.lied) = (None, None);
        self.disks += 1;
        self.ever_archived.clone_from(&image.ever_archived);
        self.harvested.clone_from(&image.harvested);
        self.duties.clone_from(&image.duties);
        self.followed = image.followed;
        self.acked.clone_from(&image.acked);
        self.arrived.clone_from(&image.arrived);
        self.projection = Projection::default();
    }

    pub(super) fn dir() -> PathBuf {
        PathBuf::from("log")
    }

    /// Opens the log on its disk.
    pub(super) fn open(&self, seed: u64) -> Result<(Log, Recovery), OpenError> {
        self.open_copy(&self.disk, seed)
    }

    /// Opens the log on a copy of its disk.
    pub(super) fn open_copy(&self, disk: &SimDisk, seed: u64) -> Result<(Log, Recovery), OpenError> {
        let options = self.options(seed);
        Log::open(Arc::new(disk.clone()), Path::new(&Machine::dir()), options)
    }

    /// As [`Machine::open_copy`]; what is damaged is put aside.
    pub(super) fn open_in_quarantine(&self, disk: &SimDisk) -> Result<(Log, Recovery), OpenError> {
        let options = Options {
            on_damage: OnDamage::Quarantine,
            ..self.options(0)
        };
        Log::open(Arc::new(disk.clone()), Path::new(&Machine::dir()), options)
    }

    fn options(&self, seed: u64) -> Options {
        Options {
            segment_bytes: self.segment_bytes,
            max_bytes: self.limit,
            reserve_bytes: self.segment_bytes / 4,
            ..Options::deterministic(CLUSTER, self.name.as_str(), seed)
        }
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

impl Projection {
    /// What a daemon does that finds this projection beside `log`: it is used if it was folded from that log.
    pub(super) fn trust(&mut self, log: &Log) {
        if self.chain.is_some() && log.chain_of_block(self.folded) != self.chain {
            *self = Projection::default();
        }
        // A snapshot that was cut off by the end of the daemon is not continued.
        self.replay = Replay::default();
    }

    /// Folds what is durable and not folded yet.
    pub(super) fn catch_up(&mut self, log: &Log) -> Checked {
        if self.folded == BlockNo::ZERO {
            load_bases(log, &mut self.state).map_err(|err| fold_failed(&err))?;
        }
        let mut reader = log.read_blocks(self.folded);
        loop {
            match reader.next_block() {
                Ok(Some(block)) => {
                    self.replay
                        .block(log, &mut self.state, &block)
                        .map_err(|err| fold_failed(&err))?;
                    self.folded = block.no;
                }
                Ok(None) => break,
                Err(err) => {
                    reader = first_held(log, &err).ok_or_else(|| fold_failed(&err))?;
                    load_bases(log, &mut self.state).map_err(|err| fold_failed(&err))?;
                }
            }
        }
        self.chain = log.chain_of_block(self.folded);
        Ok(())
    }
}

fn fold_failed(err: &dyn std::fmt::Display) -> Violation {
    Violation::new("I7-replay", err.to_string())
}
