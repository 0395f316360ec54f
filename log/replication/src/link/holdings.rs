//! What the log holds and the fences say, as the session asks.

use ledge_log::Log;
use ledge_proto::fence::Ours;
use ledge_proto::fold::snapshot::SnapshotSource;
use ledge_proto::ids::{Lane, Mark, Position, Seq, StreamKey};
use ledge_proto::session::Holdings;
use ledge_proto::v1;

use crate::fences::{NodeFences, SessionEntry};

pub(super) struct LogHoldings<'a> {
    pub(super) log: &'a Log,
    pub(super) snapshots: &'a dyn SnapshotSource,
    pub(super) entry: &'a SessionEntry,
    pub(super) cloud: &'a NodeFences,
}

impl Ours for LogHoldings<'_> {
    fn durable(&self, key: &StreamKey) -> Option<Mark> {
        self.log.durable(key)
    }

    fn mark_at(&self, key: &StreamKey, seq: Seq) -> Option<Mark> {
        match self.log.mark_at(key, seq) {
            Ok(mark) => mark,
            Err(err) => {
                tracing::error!(%key, %seq, %err, "cannot read the log");
                None
            }
        }
    }

    fn held_after(&self, key: &StreamKey) -> Seq {
        self.log.held_after(key)
    }
}

impl Holdings for LogHoldings<'_> {
    fn opened(&self, key: &StreamKey) -> Option<Mark> {
        self.log.opened(key)
    }

    fn snapshot_mark(&self, key: &StreamKey, peer: Position) -> Option<Mark> {
        let above = |mark: &Mark| mark.position > peer;
        let held = self.log.snapshot_of(key).map(|at| at.mark).filter(above);
        // An epoch that this end began by itself, because the end of the one before was lost: telemetry goes on from there,
        // so that none of it is left out.
        let begun = || {
            let telemetry = key.id.lane == Lane::UpData;
            telemetry.then(|| self.log.epoch_after(key, peer.epoch)).flatten()
        };
        held.or_else(|| begun().filter(above))
            .or_else(|| self.snapshots.mark(key).filter(above))
    }

    /// Nothing is archived on its own yet: archived follows durable.
    fn archived(&self, _key: &StreamKey) -> Seq {
        Seq::ZERO
    }

    fn node_fence(&self) -> v1::NodeFence {
        self.entry.fences().node()
    }

    fn cloud_fence(&self) -> v1::CloudFence {
        self.cloud.cloud()
    }

    fn edge_fence(&self) -> v1::EdgeFence {
        self.entry.fences().edge()
    }

    fn other_session(&self) -> bool {
        self.entry.other()
    }
}
