//! A connection between an edge and the cloud, with a session at each end that is up.

use std::collections::BTreeMap;

use ledge_log::Log;
use ledge_proto::ids::{Mark, Seq, StreamKey};
use ledge_proto::session::{Holdings, Session};
use ledge_proto::v1;

use super::machine::MachineId;
use super::net::Line;

/// Number of a connection.
pub(super) type LinkId = u64;

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Edge,
    Cloud,
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::Edge => Side::Cloud,
            Side::Cloud => Side::Edge,
        }
    }
}

pub(super) struct Link {
    pub(super) edge: MachineId,
    pub(super) cloud: MachineId,
    ends: [Option<End>; 2],
    lines: [Line; 2],
    /// Nothing arrives before the connection does.
    pub(super) open_at: u64,
}

/// One end: a session, and what the daemon around it remembers of this connection.
pub(super) struct End {
    pub(super) session: Session,
    /// Only the timer set last counts.
    pub(super) timer: u64,
    /// The last frame received of each stream on this connection.
    pub(super) received: BTreeMap<StreamKey, Mark>,
    /// Parts of snapshots that are not whole yet.
    pub(super) parts: BTreeMap<StreamKey, Vec<v1::Snapshot>>,
}

impl End {
    pub(super) fn new(session: Session) -> Self {
        End {
            session,
            timer: 0,
            received: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }
}

impl Link {
    pub(super) fn new(edge: MachineId, cloud: MachineId, end: End, open_at: u64) -> Self {
        Link {
            edge,
            cloud,
            ends: [Some(end), None],
            lines: Default::default(),
            open_at,
        }
    }

    pub(super) fn machine(&self, side: Side) -> MachineId {
        match side {
            Side::Edge => self.edge,
            Side::Cloud => self.cloud,
        }
    }

    pub(super) fn end(&self, side: Side) -> Option<&End> {
        self.ends[side as usize].as_ref()
    }

    pub(super) fn end_mut(&mut self, side: Side) -> &mut Option<End> {
        &mut self.ends[side as usize]
    }

    /// The line that carries what `from` sends.
    pub(super) fn line(&mut self, from: Side) -> &mut Line {
        &mut self.lines[from as usize]
    }

    pub(super) fn is_dead(&self) -> bool {
        self.ends.iter().all(Option::is_none)
    }
}

/// What a log holds, as a session asks it.
pub(super) struct LogHoldings<'a>(pub(super) &'a Log);

impl Holdings for LogHoldings<'_> {
    fn durable(&self, key: &StreamKey) -> Option<Mark> {
        self.0.durable(key)
    }

    fn mark_at(&self, key: &StreamKey, seq: Seq) -> Option<Mark> {
        self.0.mark_at(key, seq).ok().flatten()
    }
}
