//! Counters of a running log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledge_proto::ids::Lane;

use crate::sync::Mutex;

const BUCKETS: usize = 32;
/// Lanes, and the number that none has.
const LANES: usize = Lane::ALL.len() + 1;

/// Durations in buckets by powers of two of a microsecond.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Timer {
    pub(crate) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        let mut histogram = Histogram {
            sum_us: self.sum_us.load(Ordering::Relaxed),
            ..Histogram::default()
        };
        for (n, bucket) in self.buckets.iter().enumerate() {
            let count = bucket.load(Ordering::Relaxed);
            histogram.count += count;
            histogram.buckets[n] = (1u64 << n, count);
        }
        histogram
    }
}

/// How long something took, over the life of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    /// How often it happened.
    pub count: u64,
    /// Sum, microseconds.
    pub sum_us: u64,
    /// For each bucket, its upper bound in microseconds (exclusive; the last has none) and its count.
    pub buckets: [(u64, u64); BUCKETS],
}

impl Histogram {
    /// Upper bound, microseconds, of the bucket that holds quantile `q` (0 to 1); 0 when there is nothing.
    pub fn quantile_us(&self, q: f64) -> u64 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let wanted = (self.count as f64 * q.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (bound, count) in self.buckets {
            seen += count;
            if count > 0 && seen >= wanted {
                return bound;
            }
        }
        0
    }
}

/// What the writer counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) blocks: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) payload_bytes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    /// Length of the frames written, by number of the lane.
    pub(crate) lane_bytes: [AtomicU64; LANES],
    pub(crate) sync_time: Timer,
    pub(crate) commit_time: Timer,
    pub(crate) poisoned: Mutex<Option<Arc<str>>>,
}

impl Counters {
    pub(crate) fn count_lane(&self, lane: Lane, bytes: u64) {
        if let Some(counter) = self.lane_bytes.get(lane as usize) {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn lanes(&self) -> Vec<(Lane, u64)> {
        let count = |lane: Lane| {
            self.lane_bytes
                .get(lane as usize)
                .map_or(0, |n| n.load(Ordering::Relaxed))
        };
        Lane::ALL.into_iter().map(|lane| (lane, count(lane))).collect()
    }
}

/// State and totals since the log was opened.
#[derive(Debug, Clone, Default)]
pub struct LogStats {
    /// Blocks written.
    pub blocks: u64,
    /// Frames written.
    pub frames: u64,
    /// Records written.
    pub records: u64,
    /// Length of the frames written, bytes.
    pub payload_bytes: u64,
    /// Bytes written to segments, with headers and padding.
    pub written_bytes: u64,
    /// Groups committed.
    pub commits: u64,
    /// `fdatasync` calls on segments that made blocks durable: one per group, and two per new segment.
    pub syncs: u64,
    /// Frames that were already held.
    pub duplicates: u64,
    /// Time in `fdatasync`.
    pub sync_time: Histogram,
    /// Time from taking a group off the queue to its acknowledgement.
    pub commit_time: Histogram,
    /// Bytes waiting to be committed.
    pub queue_bytes: usize,
    /// Length of the frames written, bytes, per lane.
    pub lane_bytes: Vec<(Lane, u64)>,
    /// Bytes of files that wait to become segments.
    pub spare_bytes: u64,
    /// Bytes of everything that counts against [`crate::Options::max_bytes`].
    pub used_bytes: u64,
    /// That limit.
    pub limit_bytes: Option<u64>,
    /// The oldest block held; one past the last when there is none.
    pub oldest_block: u64,
    /// Wall clock when the oldest segment was begun, milliseconds since 1970.
    pub oldest_created_ms: u64,
    /// Wall clock when the segment being written was begun, milliseconds since 1970.
    pub newest_created_ms: u64,
    /// Segment files that hold blocks.
    pub segments: usize,
    /// Bytes of these files.
    pub segment_bytes: u64,
    /// Stretches of durable blocks that cannot be read.
    pub damaged: usize,
    /// Last durable block.
    pub durable_block: u64,
    /// Why the log accepts no more writes, if so.
    pub poisoned: Option<String>,
}
