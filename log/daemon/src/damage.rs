//! Damaged blocks of the log: told of when it is opened, and looked for while it is open.

use std::time::Duration;

use ledge_log::{BlockNo, BlockReader, Log, ReadError, Recovery};
use tokio_util::sync::CancellationToken;

/// What is read at once, and how often: 4 MiB/s, little beside what any disk reads.
const PIECE_BYTES: usize = 1 << 20;
const PIECE_EVERY: Duration = Duration::from_millis(250);
/// From one reading of the whole log to the next.
const ROUND_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Says what an opened log cannot read, and what becomes of it.
pub fn tell(log: &Log) {
    for lost in log.quarantined() {
        tracing::error!(
            segment = %lost.segment, offset = lost.off, block = %lost.block, stream = %lost.key, first = %lost.first,
            last = %lost.last,
            "damaged: these records cannot be read; the other end of the link is asked for them once it is there"
        );
    }
    let damaged = log.stats().damaged;
    if damaged > 0 {
        tracing::error!(
            damaged,
            "the log has damaged blocks: they were copied to its quarantine directory; look closer with `ledge log verify`"
        );
    }
}

/// The durable blocks that were gone when the log was opened, first and last, if any: what was in them, and was not sent, is
/// lost, and nobody can tell what it was.
pub fn lost_blocks(recovery: &Recovery) -> Option<(BlockNo, BlockNo)> {
    let last = recovery.lost_until?;
    Some((recovery.last_block.next(), last))
}

/// Tells of [`lost_blocks`] in the metrics.
pub fn measure_lost(lost: Option<(BlockNo, BlockNo)>) {
    let count = lost.map_or(0, |(first, last)| {
        last.0.saturating_add(1).saturating_sub(first.0)
    });
    #[allow(
        clippy::cast_precision_loss,
        reason = "gauges are doubles; figures stay below 2^53"
    )]
    metrics::gauge!("ledge_log_lost_blocks").set(count as f64);
}

/// Reads the whole log, slowly, at the start and once a day: opening reads no bodies, and a body that nobody has read for
/// long may have rotted when it is needed, and when the other end no longer holds it. What is found is quarantined.
pub async fn look_for(log: Log, shutdown: CancellationToken) {
    loop {
        let mut at = BlockNo::ZERO;
        let mut found = 0;
        let end = log.durable_block();
        while at < end {
            let of = log.clone();
            let piece = tokio::task::spawn_blocking(move || read_piece(&of, at, end));
            let Ok((reached, damaged)) = piece.await else {
                return;
            };
            (at, found) = (reached, found + damaged);
            if wait(PIECE_EVERY, &shutdown).await {
                return;
            }
        }
        if found > 0 {
            tracing::error!(found, "the log was read through: blocks of it are damaged");
            tell(&log);
        }
        if wait(ROUND_EVERY, &shutdown).await {
            return;
        }
    }
}

/// Whether it is time to stop.
async fn wait(long: Duration, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(long) => false,
        () = shutdown.cancelled() => true,
    }
}

/// Reads blocks after `at` up to `end`, about one piece. Returns where it stopped, and how many cannot be read.
fn read_piece(log: &Log, at: BlockNo, end: BlockNo) -> (BlockNo, usize) {
    let mut reader: BlockReader = log.read_blocks(at);
    let (mut bytes, mut damaged) = (0, 0);
    while bytes < PIECE_BYTES && reader.position() < end {
        match reader.next_block() {
            Ok(Some(block)) => bytes += block.len_bytes(),
            Ok(None) => return (end, damaged),
            Err(ReadError::Recycled { first_held, .. }) if first_held > reader.position().0 + 1 => {
                reader = log.read_blocks(BlockNo(first_held - 1));
            }
            Err(err) => {
                if matches!(err, ReadError::Damaged { .. }) {
                    damaged += 1;
                }
                bytes += PIECE_BYTES / 8;
                reader = log.read_blocks(reader.position().next());
            }
        }
    }
    (reader.position(), damaged)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ledge_log::{OnDamage, Options, SimDisk};
    use ledge_proto::ids::{ClusterId, Lane, Scope, StreamId};
    use ledge_proto::v1;

    use super::*;

    #[test]
    fn a_damaged_body_is_found_and_the_rest_is_read() {
        let disk = SimDisk::new();
        let dir = std::path::Path::new("log");
        let options = || Options {
            on_damage: OnDamage::Quarantine,
            ..Options::deterministic(ClusterId([7; 16]), "edge-1", 1)
        };
        let open = || Log::open(Arc::new(disk.clone()), dir, options()).unwrap().0;
        let log = open();
        let stream = StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpData);
        for n in 0..20 {
            let record = v1::Record {
                kind: 1,
                key: format!("record-{n}"),
                ..Default::default()
            };
            log.append_blocking(&stream, vec![record]).unwrap();
        }
        log.close().unwrap();
        let segment = dir.join(ledge_log::SegmentNo(0).file_name());
        disk.corrupt(&segment, |bytes| {
            let at = bytes.windows(8).position(|found| found == b"record-9").unwrap();
            bytes[at] ^= 1;
        });
        let log = open();
        assert_eq!(log.quarantined(), []);
        let end = log.durable_block();
        assert_eq!(read_piece(&log, BlockNo::ZERO, end), (end, 1));
        let lost = log.quarantined();
        assert_eq!((lost.len(), lost[0].first.0, lost[0].last.0), (1, 10, 10));
        assert_eq!(read_piece(&log, end, end), (end, 0));
    }
}
