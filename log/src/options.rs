//! What the owner of a log decides.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ledge_proto::ids::{ClusterId, Lane};

use crate::error::OpenError;
use crate::format::segment::SEGMENT_HEADER_BYTES;
use crate::storage::sim::Rng;

/// Smallest segment: for tests. Frames of the largest size need 8 MiB.
pub const SEGMENT_MIN_BYTES: u64 = 16 * 1024;
/// Largest segment.
pub const SEGMENT_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// How long an append may wait for others to share its sync with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Linger {
    /// For `down`.
    pub down: Duration,
    /// For `up.state`.
    pub up_state: Duration,
    /// For `up.data`.
    pub up_data: Duration,
}

impl Linger {
    pub(crate) fn of(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Down => self.down,
            Lane::UpState => self.up_state,
            Lane::UpData => self.up_data,
            // Somebody waits for each: a session does not begin before its token is durable, a client for its answer.
            Lane::Local | Lane::Api => Duration::ZERO,
        }
    }
}

/// A source of random bytes. The log draws its incarnation and a salt per segment from it.
#[derive(Clone)]
pub struct Random(Arc<Fill>);

type Fill = dyn Fn(&mut [u8]) -> std::io::Result<()> + Send + Sync;

impl Random {
    /// The system's.
    pub fn system() -> Self {
        Random(Arc::new(|buf| {
            getrandom::fill(buf).map_err(std::io::Error::other)
        }))
    }

    /// The same bytes for the same seed, for simulations.
    pub fn seeded(seed: u64) -> Self {
        let rng = Mutex::new(Rng::new(seed));
        Random(Arc::new(move |buf| {
            rng.lock().unwrap_or_else(PoisonError::into_inner).fill(buf);
            Ok(())
        }))
    }

    pub(crate) fn draw<const N: usize>(&self) -> std::io::Result<[u8; N]> {
        let mut buf = [0; N];
        (self.0)(&mut buf)?;
        Ok(buf)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

/// Who carries out commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Committer {
    /// A thread of the log's own; a blocking append carries out its own commit when the thread is idle.
    #[default]
    Thread,
    /// Whoever appends, before the append returns: no threads, so that a simulation is deterministic.
    Caller,
}

/// What to do when the log ends before a block that a witness knows was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLostData {
    /// Fail with [`OpenError::LostDurable`].
    #[default]
    Refuse,
    /// Go on, under a new epoch for every stream this log writes, and report it in [`crate::Recovery`].
    NewEpoch,
}

/// What to do about a block that was durable and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// Fail with [`OpenError::Damaged`].
    #[default]
    Refuse,
    /// Copy it to `quarantine/` in the log's directory, list what was in it ([`crate::Log::quarantined`]), and go on
    /// with the rest. A stream this log writes whose end may have been in it goes on in a new epoch. Nothing is
    /// removed; [`crate::Log::refill`] puts the block back once a peer has given its frames.
    Quarantine,
}

/// Options of [`crate::Log::open`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Cluster the log belongs to. Another cluster's log is refused.
    pub cluster: ClusterId,
    /// Name of the node that writes it, or `cloud`. Another node's log is refused.
    pub node: String,
    /// Size of each segment file, bytes. Applies to segments made from now on.
    pub segment_bytes: u64,
    /// Blocks start at multiples of this: 512 or 4096. A committed unit is never written again, so it should be
    /// what the disk writes as a whole. Applies to segments made from now on.
    pub align: u16,
    /// Most bytes waiting to be committed; appends wait their turn beyond it.
    pub max_queue_bytes: usize,
    /// How long an append may wait for company, per lane.
    pub linger: Linger,
    /// After this long without appends, the superblock records how far the log is durable. `None`: only on close.
    pub mark_after_idle: Option<Duration>,
    /// Most bytes of the log's directory: segments, spare files, superblocks. The log never grows beyond it; whoever
    /// owns it gives up the oldest segment in time (see [`crate::Log::subscribe_room`]). At least three segments.
    /// `None`: as much as the disk has.
    pub max_bytes: Option<u64>,
    /// Bytes at the end of a segment that `up.data` may not use while there is no file for the next one, for the other
    /// lanes to go on. The last half of it is for what retention writes: without it no segment can be given up. At most a
    /// quarter of a segment.
    pub reserve_bytes: u64,
    /// Used segments kept as files to be overwritten, instead of removed.
    pub spare_segments: usize,
    /// Make the next segment ahead of time, on a thread of its own. Ignored with [`Committer::Caller`].
    pub prepare_ahead: bool,
    /// Who carries out commits.
    pub committer: Committer,
    /// What to do when durable data was lost.
    pub on_lost_data: OnLostData,
    /// What to do about damaged blocks.
    pub on_damage: OnDamage,
    /// Where incarnation and salts come from.
    pub random: Random,
    /// Wall clock written into segment headers for people to read.
    pub wall_clock: fn() -> SystemTime,
}

impl Options {
    /// Defaults for an edge: segments of 64 MiB in units of 4096 bytes, a queue of 16 MiB, no linger.
    pub fn new(cluster: ClusterId, node: impl Into<String>) -> Self {
        Options {
            cluster,
            node: node.into(),
            segment_bytes: 64 * 1024 * 1024,
            align: 4096,
            max_queue_bytes: 16 * 1024 * 1024,
            linger: Linger::default(),
            mark_after_idle: Some(Duration::from_secs(1)),
            max_bytes: None,
            reserve_bytes: 1024 * 1024,
            spare_segments: 1,
            prepare_ahead: true,
            committer: Committer::Thread,
            on_lost_data: OnLostData::Refuse,
            on_damage: OnDamage::Refuse,
            random: Random::system(),
            wall_clock: SystemTime::now,
        }
    }

    /// Small segments, no threads, seeded randomness and a clock that stands still: the same calls write the same
    /// bytes.
    pub fn deterministic(cluster: ClusterId, node: impl Into<String>, seed: u64) -> Self {
        Options {
            reserve_bytes: 0,
            segment_bytes: 1024 * 1024,
            align: 512,
            mark_after_idle: None,
            prepare_ahead: false,
            committer: Committer::Caller,
            random: Random::seeded(seed),
            wall_clock: || SystemTime::UNIX_EPOCH,
            ..Options::new(cluster, node)
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let fail = |text: String| Err(OpenError::Options(text));
        if self.node.is_empty() || self.node.len() > 255 {
            return fail(format!(
                "node must have 1 to 255 characters, not {}",
                self.node.len()
            ));
        }
        if !matches!(self.align, 512 | 4096) {
            return fail(format!("align must be 512 or 4096, not {}", self.align));
        }
        if !(SEGMENT_MIN_BYTES..=SEGMENT_MAX_BYTES).contains(&self.segment_bytes) {
            return fail(format!(
                "segment_bytes must be between {SEGMENT_MIN_BYTES} and {SEGMENT_MAX_BYTES}, not {}",
                self.segment_bytes
            ));
        }
        if !self.segment_bytes.is_multiple_of(SEGMENT_HEADER_BYTES as u64) {
            return fail(format!(
                "segment_bytes must be a multiple of 4096, not {}",
                self.segment_bytes
            ));
        }
        let least = 3 * self.segment_bytes + 4096;
        if self.max_bytes.is_some_and(|most| most < least) {
            return fail(format!(
                "max_bytes must be at least {least}: three segments of segment_bytes ({})",
                self.segment_bytes
            ));
        }
        if self.max_queue_bytes == 0 {
            return fail("max_queue_bytes must not be 0".to_owned());
        }
        Ok(())
    }
}
