//! Acknowledgements: what this end made durable and archived, and what the other end did.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ArchivePolicy;
use crate::fence::receipt::ReceiptKey;
use crate::ids::{Chain, Epoch, Lane, Mark, NameError, Position, Seq, StreamKey};
use crate::mutants;
use crate::v1;

/// Acknowledgements of telemetry are coalesced for this long; those of state go out at once.
pub(super) const DATA_ACK_DELAY: Duration = Duration::from_millis(25);

/// What this end has of the streams it receives, and what of it is still to be said.
#[derive(Debug, Default)]
pub(super) struct Acks {
    streams: BTreeMap<StreamKey, Received>,
}

#[derive(Debug)]
struct Received {
    durable: Option<Mark>,
    archived: Seq,
    due: Option<Duration>,
}

impl Acks {
    /// Begins with what was said in the handshake.
    pub(super) fn begin(&mut self, key: StreamKey, durable: Option<Mark>, archived: Seq) {
        self.streams.insert(
            key,
            Received {
                durable,
                archived,
                due: None,
            },
        );
    }

    /// A received stream is durable here up to `mark`.
    pub(super) fn durable(&mut self, key: &StreamKey, mark: Mark, now: Duration) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if stream
            .durable
            .is_none_or(|before| mark.position > before.position)
        {
            stream.durable = Some(mark);
            stream.plan(key.id.lane, now);
        }
    }

    /// A received stream is in the archive up to `seq`.
    pub(super) fn archived(&mut self, key: &StreamKey, seq: Seq, now: Duration) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if seq > stream.archived {
            stream.archived = seq;
            stream.plan(key.id.lane, now);
        }
    }

    /// The end of a received stream.
    pub(super) fn end(&self, key: &StreamKey) -> Option<Mark> {
        self.streams.get(key)?.durable
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.streams.values().filter_map(|stream| stream.due).min()
    }

    /// The next acknowledgement that is due.
    pub(super) fn poll(
        &mut self,
        policy: ArchivePolicy,
        receipts: Option<&ReceiptKey>,
        now: Duration,
    ) -> Option<v1::Ack> {
        let (key, stream) = self
            .streams
            .iter_mut()
            .find(|(_, stream)| stream.due.is_some_and(|due| due <= now))?;
        stream.due = None;
        let mark = stream.durable?;
        Some(v1::Ack {
            scope: key.id.scope.as_wire().to_owned(),
            lane: key.id.lane.as_wire(),
            incarnation: key.incarnation.0.to_vec(),
            epoch: mark.position.epoch.0,
            durable_seq: mark.position.seq.0,
            durable_chain: mark.chain.0.to_vec(),
            archived_seq: archived_of(policy, mark, stream.archived).0,
            receipt: receipts.map_or(Vec::new(), |receipts| receipts.sign(key, &mark).to_vec()),
        })
    }
}

impl Received {
    fn plan(&mut self, lane: Lane, now: Duration) {
        let delay = if lane == Lane::UpData {
            DATA_ACK_DELAY
        } else {
            Duration::ZERO
        };
        let due = now + delay;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }
}

/// What is said to be archived where `durable` is durable: never more than that.
pub(super) fn archived_of(policy: ArchivePolicy, durable: Mark, archived: Seq) -> Seq {
    let archived = match policy {
        ArchivePolicy::FollowDurable => durable.position.seq,
        ArchivePolicy::Explicit => archived,
    };
    if mutants::on("archived-ahead-of-durable") {
        Seq(durable.position.seq.0.saturating_add(8))
    } else {
        archived.min(durable.position.seq)
    }
}

/// The mark an acknowledgement names.
pub(super) fn mark_of(ack: &v1::Ack) -> Result<Mark, NameError> {
    Ok(Mark {
        position: Position {
            epoch: Epoch(ack.epoch),
            seq: Seq(ack.durable_seq),
        },
        chain: Chain::from_slice(&ack.durable_chain)?,
    })
}
