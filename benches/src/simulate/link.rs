//! A connection between an edge and the cloud, with a session at each end that is up.

use std::collections::{BTreeMap, VecDeque};

use ledge_log::Log;
use ledge_proto::fence::Ours;
use ledge_proto::fold::{State, folded_stream};
use ledge_proto::ids::{Chain, Epoch, Mark, Position, Scope, Seq, StreamKey};
use ledge_proto::session::{Holdings, Session};
use ledge_proto::v1;

use super::machine::MachineId;
use super::net::{Item, Line};

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
    /// What arrived on lanes before the session was open: lanes are not read before.
    pub(super) waiting: VecDeque<Item>,
    /// The session was established.
    pub(super) established: bool,
    /// Cloud: the count of the token that HELLO presented, and whether that was the latest, by what the cloud had noted.
    pub(super) presented: u64,
    pub(super) latest: bool,
    /// Edge: restore generation and leadership that WELCOME named.
    pub(super) welcomed: (u64, u64),
    /// Streams that begin with a snapshot: the last record the peer has, and where the snapshot stands.
    pub(super) snapshots_first: BTreeMap<StreamKey, (Seq, Mark)>,
    /// Parts of snapshots that are not whole yet.
    pub(super) parts: BTreeMap<StreamKey, Vec<v1::Snapshot>>,
}

impl End {
    pub(super) fn new(session: Session) -> Self {
        End {
            session,
            timer: 0,
            received: BTreeMap::new(),
            waiting: VecDeque::new(),
            established: false,
            presented: 0,
            latest: true,
            welcomed: (0, 0),
            snapshots_first: BTreeMap::new(),
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

/// What a log holds and the fences say, as a session asks it.
pub(super) struct LogHoldings<'a> {
    pub(super) log: &'a Log,
    pub(super) state: &'a State,
    pub(super) fences: &'a Fences,
    pub(super) node: &'a Scope,
    pub(super) other_session: bool,
}

impl Ours for LogHoldings<'_> {
    fn durable(&self, key: &StreamKey) -> Option<Mark> {
        self.log.durable(key)
    }

    fn mark_at(&self, key: &StreamKey, seq: Seq) -> Option<Mark> {
        self.log.mark_at(key, seq).ok().flatten()
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
        held.or_else(|| folded_mark(self.state, key).filter(above))
    }

    fn archived(&self, _key: &StreamKey) -> Seq {
        Seq::ZERO // Archived follows durable.
    }

    fn node_fence(&self) -> v1::NodeFence {
        self.fences.nodes.get(self.node).cloned().unwrap_or_default()
    }

    fn cloud_fence(&self) -> v1::CloudFence {
        self.fences.cloud
    }

    fn edge_fence(&self) -> v1::EdgeFence {
        self.fences.edge.clone()
    }

    fn other_session(&self) -> bool {
        self.other_session
    }
}

/// The fences of a running daemon, as last handed to its log.
#[derive(Debug, Clone, Default)]
pub(super) struct Fences {
    pub(super) nodes: BTreeMap<Scope, v1::NodeFence>,
    pub(super) edge: v1::EdgeFence,
    pub(super) cloud: v1::CloudFence,
}

/// Up to where a stream is folded.
pub(super) fn folded_mark(state: &State, key: &StreamKey) -> Option<Mark> {
    let folded = folded_stream(state, &key.id).ok()??;
    if folded.incarnation != key.incarnation.0.as_slice() {
        return None;
    }
    let chain = Chain::from_slice(&folded.chain).ok()?;
    Some(Mark {
        position: Position {
            epoch: Epoch(folded.epoch),
            seq: Seq(folded.seq),
        },
        chain,
    })
}
