//! Where streams end: told with heartbeats, and what of it is still to come.

use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use ledge_log::Log;
use ledge_proto::ids::{Seq, StreamKey};
use ledge_proto::v1;

use super::Link;
use super::observer::{Direction, Traffic};

/// Where the streams we send end, how old the oldest record is that the peer has not acknowledged, and how many of their
/// records cannot be read.
pub(super) fn ours(link: &Link) -> Vec<v1::LaneHead> {
    let log = &link.log;
    let lost = log.quarantined();
    let acked = link.acked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    acked
        .iter()
        .map(|(key, acked)| {
            let head = log.durable(key).map_or(Seq::ZERO, |mark| mark.position.seq);
            let of_it = lost.iter().filter(|lost| lost.key == *key);
            v1::LaneHead {
                unreadable: of_it.map(|lost| lost.last.0 + 1 - lost.first.0).sum(),
                scope: key.id.scope.as_wire().to_owned(),
                lane: key.id.lane.as_wire(),
                seq: head.0,
                oldest_unacked_ms: if head > *acked {
                    oldest_age_ms(log, key, *acked)
                } else {
                    0
                },
            }
        })
        .collect()
}

fn oldest_age_ms(log: &Log, key: &StreamKey, acked: Seq) -> u64 {
    let written_us = log
        .read_stream(key, acked)
        .next()
        .ok()
        .flatten()
        .and_then(|frame| frame.records().ok()?.next()?.ok())
        .map(|(_, record)| record.wall_us);
    written_us.map_or(0, |written| {
        u64::try_from(now_us().saturating_sub(written) / 1000).unwrap_or(0)
    })
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
