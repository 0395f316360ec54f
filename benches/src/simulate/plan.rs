//! What a seed decides before anything happens: which faults there are and how many, how fast the network is, who
//! writes how much. Few kinds of faults at a time find more than all of them at once.

use ledge_log::storage::sim::Rng;
use ledge_retention::Degrade;

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Events until faults stop and everything has to converge.
    pub steps: u64,
    /// Number of edges.
    pub edges: usize,
    /// Print every event.
    pub trace: bool,
}

/// How much larger the cloud's segments are: what all its streams fold to has to fit into the reserve of one.
pub(super) const CLOUD_SEGMENT: u64 = 4;

/// Events per seed when nothing else is asked for.
pub const DEFAULT_STEPS: u64 = 800;
/// Edges when nothing else is asked for.
pub const DEFAULT_EDGES: usize = 5;

impl Plan {
    /// The run of `seed` with the default length.
    pub fn new(seed: u64) -> Self {
        Plan {
            seed,
            steps: DEFAULT_STEPS,
            edges: DEFAULT_EDGES,
            trace: false,
        }
    }
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FaultKind {
    /// A machine loses power: of what was not synced, any part survives.
    PowerLoss,
    /// A machine loses power in the middle of one of its next writes or syncs.
    PowerLossInWrite,
    /// A daemon dies; the machine goes on.
    Kill,
    /// A daemon is stopped in order.
    Stop,
    /// A connection breaks; what was on its way is lost.
    Break,
    /// A connection breaks, and one end is not told.
    HalfOpen,
    /// Nothing passes for a while; then it does again.
    Stall,
    /// Some frames arrive twice.
    Duplicate,
    /// A write or sync fails.
    IoError,
    /// A disk is full for a while.
    DiskFull,
    /// Syncs succeed and make nothing durable, until the power goes.
    LyingSync,
    /// A projection is lost.
    LoseProjection,
    /// A wall clock jumps.
    ClockJump,
    /// A copy of a disk is put aside.
    Image,
    /// An older copy of a disk is put back.
    RollBack,
    /// A machine gets an empty disk.
    Reimage,
    /// A machine runs twice.
    Copy,
    /// An operator ends a quarantine.
    Resolve,
}

impl FaultKind {
    pub(super) const ALL: [FaultKind; 18] = [
        FaultKind::PowerLoss,
        FaultKind::PowerLossInWrite,
        FaultKind::Kill,
        FaultKind::Stop,
        FaultKind::Break,
        FaultKind::HalfOpen,
        FaultKind::Stall,
        FaultKind::Duplicate,
        FaultKind::IoError,
        FaultKind::DiskFull,
        FaultKind::LyingSync,
        FaultKind::LoseProjection,
        FaultKind::ClockJump,
        FaultKind::Image,
        FaultKind::RollBack,
        FaultKind::Reimage,
        FaultKind::Copy,
        FaultKind::Resolve,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            FaultKind::PowerLoss => "power-loss",
            FaultKind::PowerLossInWrite => "power-loss-in-write",
            FaultKind::Kill => "kill",
            FaultKind::Stop => "stop",
            FaultKind::Break => "break",
            FaultKind::HalfOpen => "half-open",
            FaultKind::Stall => "stall",
            FaultKind::Duplicate => "duplicate",
            FaultKind::IoError => "io-error",
            FaultKind::DiskFull => "disk-full",
            FaultKind::LyingSync => "lying-sync",
            FaultKind::LoseProjection => "lose-projection",
            FaultKind::ClockJump => "clock-jump",
            FaultKind::Image => "image",
            FaultKind::RollBack => "roll-back",
            FaultKind::Reimage => "reimage",
            FaultKind::Copy => "copy",
            FaultKind::Resolve => "resolve",
        }
    }
}

/// What a seed decided.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    /// Faults to draw from, each as often as it is in here.
    pub(super) faults: Vec<FaultKind>,
    /// Mean time between faults.
    pub(super) fault_every_us: u64,
    /// Mean time between writes of one edge.
    pub(super) work_every_us: u64,
    /// Mean time between writes of the cloud.
    pub(super) desire_every_us: u64,
    /// One way, without waiting.
    pub(super) latency_us: u64,
    /// Added to it, at most.
    pub(super) jitter_us: u64,
    /// Bytes per millisecond on each line.
    pub(super) bytes_per_ms: u64,
    /// Size of segments.
    pub(super) segment_bytes: u64,
    pub(super) heartbeat_ms: u64,
    /// Most bytes of an edge's log.
    pub(super) edge_limit: Option<u64>,
    /// Most bytes of the cloud's log.
    pub(super) cloud_limit: Option<u64>,
    /// What is kept of telemetry that goes unarchived.
    pub(super) degrade: Degrade,
}

impl Mix {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut faults = Vec::new();
        for kind in FaultKind::ALL {
            match rng.below(4) {
                0 => faults.push(kind),
                1 => faults.extend([kind; 3]),
                _ => {}
            }
        }
        if faults.contains(&FaultKind::RollBack) {
            // There has to be something to go back to.
            faults.extend([FaultKind::Image, FaultKind::RollBack]);
        }
        if faults.is_empty() {
            faults.push(FaultKind::PowerLoss);
        }
        let segment_bytes = pick(rng, &[16, 16, 32]) * 1024;
        let limit = |rng: &mut Rng, segments: u64, of: u64| {
            let segments = segments + rng.below(4);
            (rng.below(3) > 0).then_some(segments * of + 4096)
        };
        Mix {
            edge_limit: limit(rng, 3, segment_bytes),
            cloud_limit: limit(rng, 3, CLOUD_SEGMENT * segment_bytes),
            degrade: [Degrade::None, Degrade::Averages, Degrade::Last][rng.index(3)],
            faults,
            fault_every_us: pick(rng, &[100_000, 400_000, 1_000_000, 3_000_000]),
            work_every_us: pick(rng, &[20_000, 100_000, 300_000]),
            desire_every_us: pick(rng, &[50_000, 300_000, 1_000_000]),
            latency_us: pick(rng, &[200, 5_000, 50_000, 300_000]),
            jitter_us: pick(rng, &[1, 1_000, 50_000]),
            bytes_per_ms: pick(rng, &[6, 100, 10_000]),
            segment_bytes,
            heartbeat_ms: pick(rng, &[1_000, 5_000]),
        }
    }
}

fn pick(rng: &mut Rng, from: &[u64]) -> u64 {
    from[rng.index(from.len())]
}

/// A time around `mean_us`, never 0.
pub(super) fn around(rng: &mut Rng, mean_us: u64) -> u64 {
    1 + rng.below(mean_us * 2)
}
