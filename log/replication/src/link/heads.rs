//! Where streams end: told with heartbeats, and what of it is still to come.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use ledge_log::Log;
use ledge_proto::ids::{Seq, StreamKey};
use ledge_proto::v1;

use super::observer::{Direction, Traffic};
use super::{Link, LinkError, blocking};

/// When the oldest records were written that the peer has not acknowledged, as last looked up.
#[derive(Debug, Default)]
pub(super) struct Oldest {
    /// Of each stream the last record acknowledged, and the wall clock of the one after it, microseconds since 1970.
    written: BTreeMap<StreamKey, (Seq, Option<i64>)>,
}

/// Where the streams we send end, and how old the oldest record is that the peer has not acknowledged.
pub(super) async fn ours(link: &Link, oldest: &mut Oldest) -> Result<Vec<v1::LaneHead>, LinkError> {
    let acked = link.acked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut heads = Vec::with_capacity(acked.len());
    for (key, acked) in acked {
        let head = link.log.durable(&key).map_or(Seq::ZERO, |mark| mark.position.seq);
        heads.push(v1::LaneHead {
            scope: key.id.scope.as_wire().to_owned(),
            lane: key.id.lane.as_wire(),
            seq: head.0,
            oldest_unacked_ms: if head > acked {
                oldest.age_ms(&link.log, key, acked).await?
            } else {
                0
            },
        });
    }
    Ok(heads)
}

impl Oldest {
    async fn age_ms(&mut self, log: &Log, key: StreamKey, acked: Seq) -> Result<u64, LinkError> {
        let written_us = match self.written.get(&key) {
            Some((after, written_us)) if *after == acked => *written_us,
            _ => {
                // A frame of thousands of records is read and taken apart for one time: not beside what is urgent.
                let (log, of) = (log.clone(), key.clone());
                let written_us = blocking(move || written_after(&log, &of, acked)).await?;
                self.written.insert(key, (acked, written_us));
                written_us
            }
        };
        let age_us = written_us.map_or(0, |written| now_us().saturating_sub(written));
        Ok(u64::try_from(age_us / 1000).unwrap_or(0))
    }
}

/// Wall clock of the first record after `acked`.
fn written_after(log: &Log, key: &StreamKey, acked: Seq) -> Option<i64> {
    let frame = log.first_after(key, acked).ok()??;
    let mut records = frame.records().ok()?.filter_map(|item| item.ok());
    let after = records.find(|(position, _)| position.seq > acked);
    after.map(|(_, record)| record.wall_us)
}

/// The wall clock, microseconds since 1970.
pub(super) fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Records the peer has written and we do not hold yet.
pub(super) fn backlog(link: &Link, heads: &[v1::LaneHead]) -> u64 {
    let session = link.session();
    let behind = |head: &v1::LaneHead| {
        let key = session.accepted(&head.scope, head.lane)?;
        let held = link.log.durable(key).map_or(0, |mark| mark.position.seq.0);
        Some(head.seq.saturating_sub(held))
    };
    heads.iter().filter_map(behind).fold(0, u64::saturating_add)
}

/// Tells the observer what the connection's datagrams came to since it was last told.
#[derive(Default)]
pub(super) struct UdpMeter {
    sent: u64,
    received: u64,
}

impl UdpMeter {
    pub(super) fn tell(&mut self, link: &Link) {
        let stats = link.connection.stats();
        let (sent, received) = (stats.udp_tx.bytes, stats.udp_rx.bytes);
        let tell = |direction, bytes| link.observer.traffic(direction, Traffic::Quic, bytes);
        tell(Direction::Sent, sent.saturating_sub(self.sent));
        tell(Direction::Received, received.saturating_sub(self.received));
        *self = UdpMeter { sent, received };
    }
}
