//! What is known of the nodes' links right now: who is connected, how far behind, and how old that knowledge is.
//!
//! What nodes said of themselves and their devices is in the projection; this is only about links, and starts
//! empty with the daemon. So does what a node says of its state while older history is still on its way (`ahead`).

mod ahead;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ledge_controllers::device::{Behind, Reports};
use ledge_controllers::links::{Link, Links};
use ledge_log::Log;
use ledge_projection::{Projection, ReadError, View};
use ledge_proto::fence::CloudLost;
use ledge_proto::fold::{folded_stream, view};
use ledge_proto::ids::{Lane, Mark, Scope, Seq, StreamId, StreamKey};
use ledge_proto::session::{Peer, RefuseReason};
use ledge_proto::v1;
use ledge_replication::link::{Direction, LinkObserver, Refill, Traffic};
use ledge_replication::meters;
use ledge_replication::reset::LostHistory;
use tokio::sync::{broadcast, watch};

use self::ahead::Ahead;
pub use self::ahead::Fresh;

/// A node whose oldest record on its way is older than this is behind for people to see; less passes by itself.
const LAG_SHOWN: Duration = Duration::from_secs(5);
/// By then a node that is there has connected again to a cloudcore that just started.
const RECONNECTED: Duration = Duration::from_secs(60);
/// Nodes told of that a listener has not taken; beyond, it looks at all of them.
const UNTAKEN: usize = 4096;

/// Links of all nodes that connected since cloudcore started.
#[derive(Debug, Clone)]
pub struct Fleet {
    log: Log,
    projection: Projection,
    links: Arc<Mutex<BTreeMap<Scope, NodeLink>>>,
    quarantined: Arc<Mutex<BTreeSet<Scope>>>,
    /// Counts the changes of who is connected.
    changes: Arc<watch::Sender<u64>>,
    /// Nodes about whose devices something is known that is not in the projection.
    told: broadcast::Sender<Scope>,
    started: Instant,
}

#[derive(Debug, Clone)]
struct NodeLink {
    serial: u64,
    connected: bool,
    heard: Instant,
    peer: Peer,
    /// Where the node's own streams ended at its last heartbeat, and the age of its oldest unacknowledged record.
    heads: BTreeMap<Lane, Head>,
    /// What the node acknowledged of its `down` stream.
    down_acked: Seq,
    /// What the node said of its state ahead of the history that is on its way.
    ahead: Ahead,
    /// Whether the lag is one for people to see.
    lagging: bool,
    /// What the node had told of its state when this link began.
    returned: Returned,
}

/// How far what a node had told of its state when its link began is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returned {
    /// The first heartbeat, which says how much there is, has not come.
    NotKnown,
    /// It ends here.
    UpTo(Seq),
    /// All of it.
    Folded,
}

/// Where a stream ended at its writer, as of a heartbeat.
#[derive(Debug, Clone, Copy)]
struct Head {
    seq: Seq,
    /// Age of the oldest record that was not acknowledged.
    oldest: Duration,
    /// Records of it that its writer cannot read.
    unreadable: u64,
}

/// How one node's link stands.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkStatus {
    /// Whether there is a link.
    pub connected: bool,
    /// How old this knowledge is.
    pub age: Duration,
    /// Program and version of the node.
    pub software: String,
    /// Records the node has written and the cloud does not hold yet, as of the last heartbeat.
    pub lag_records: u64,
    /// Age of the oldest of them, grown by `age`.
    pub lag: Duration,
    /// Records written for the node and not acknowledged by it.
    pub down_lag_records: u64,
    /// Records of its own streams that the node cannot read, as of the last heartbeat: its log is damaged there.
    pub unreadable: u64,
}

impl Fleet {
    /// A fleet nobody of which has connected.
    pub fn new(log: Log, projection: Projection) -> Self {
        Fleet {
            log,
            projection,
            links: Arc::default(),
            quarantined: Arc::default(),
            changes: Arc::default(),
            told: broadcast::Sender::new(UNTAKEN),
            started: Instant::now(),
        }
    }

    /// Told by the link `serial` of `node`.
    pub fn observer(&self, node: &Scope, serial: u64) -> Arc<FleetObserver> {
        Arc::new(FleetObserver {
            fleet: self.clone(),
            node: node.clone(),
            serial,
        })
    }

    /// The link `serial` of `node` ended.
    pub fn disconnected(&self, node: &Scope, serial: u64) {
        // Another one may have taken its place, or it was refused while another one goes on.
        if let Some(link) = self.lock().get_mut(node).filter(|link| link.serial == serial) {
            link.connected = false;
        }
        self.links_changed();
        self.tell(node);
    }

    /// Records of the node's streams that this cloud cannot read, because its own log is damaged there.
    pub fn unreadable(&self, node: &Scope) -> u64 {
        let lost = self.log.quarantined().into_iter();
        lost.filter(|lost| lost.key.id.scope == *node)
            .map(|lost| lost.last.0 + 1 - lost.first.0)
            .sum()
    }

    /// How the link of `node` stands; `None` when it has not connected since cloudcore started.
    pub fn status(&self, node: &Scope) -> Option<LinkStatus> {
        let link = self.lock().get(node)?.clone();
        let age = link.heard.elapsed();
        let mut lag_records = 0;
        let mut lag = Duration::ZERO;
        for (lane, head) in &link.heads {
            let behind = head.seq.0.saturating_sub(self.held(node, *lane, &link.peer).0);
            if behind > 0 {
                lag_records += behind;
                lag = lag.max(head.oldest + age);
            }
        }
        let unreadable = link.heads.values().map(|head| head.unreadable).sum();
        let down = StreamKey {
            id: StreamId::new(node.clone(), Lane::Down),
            incarnation: self.log.identity().incarnation,
        };
        let written = self
            .log
            .durable(&down)
            .map_or(Seq::ZERO, |mark| mark.position.seq);
        Some(LinkStatus {
            connected: link.connected,
            age,
            software: link.peer.software,
            lag_records,
            lag,
            down_lag_records: written.0.saturating_sub(link.down_acked.0),
            unreadable,
        })
    }

    /// The present state as far as it is known: what is folded, and over it what `node` said ahead of its history.
    pub fn view(&self, node: &Scope) -> Fresh<View> {
        let ahead = self.lock().get(node).map(|link| link.ahead.clone());
        Fresh::new(self.projection.view(), node, ahead.unwrap_or_default())
    }

    /// A node is in quarantine from now on, or no longer.
    #[allow(clippy::cast_precision_loss, reason = "gauges are doubles")]
    pub fn set_quarantined(&self, node: &Scope, quarantined: bool) {
        let mut all = self.quarantined.lock().unwrap_or_else(PoisonError::into_inner);
        if quarantined {
            all.insert(node.clone());
        } else {
            all.remove(node);
        }
        metrics::gauge!("ledge_nodes_quarantined").set(all.len() as f64);
    }

    /// Nodes that connected since cloudcore started.
    pub fn nodes(&self) -> Vec<Scope> {
        self.lock().keys().cloned().collect()
    }

    fn held(&self, node: &Scope, lane: Lane, peer: &Peer) -> Seq {
        let key = StreamKey {
            id: StreamId::new(node.clone(), lane),
            incarnation: peer.incarnation,
        };
        self.log.durable(&key).map_or(Seq::ZERO, |mark| mark.position.seq)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Scope, NodeLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[allow(clippy::cast_precision_loss, reason = "gauges are doubles")]
    fn links_changed(&self) {
        let up = self.lock().values().filter(|link| link.connected).count();
        metrics::gauge!("ledge_nodes_connected").set(up as f64);
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Fleet {
    fn tell(&self, node: &Scope) {
        // Nobody listens without a Kubernetes API.
        let _ = self.told.send(node.clone());
    }

    /// A node whose lag begins or ceases to be one for people to see is told of.
    fn look_at_lag(&self, node: &Scope) {
        let lagging = self.status(node).is_some_and(|status| status.lag >= LAG_SHOWN);
        let changed = self
            .lock()
            .get_mut(node)
            .is_some_and(|link| std::mem::replace(&mut link.lagging, lagging) != lagging);
        if changed {
            self.tell(node);
        }
    }
}

impl Reports for Fleet {
    fn device(&self, node: &Scope, key: &str) -> Result<view::Device, ReadError> {
        view::device(&self.view(node), node, key)
    }

    fn devices(&self, node: &Scope) -> Result<BTreeMap<String, view::Device>, ReadError> {
        view::devices(&self.view(node), node)
    }

    fn behind(&self, node: &Scope) -> Behind {
        let now = SystemTime::now();
        let before = |age: Duration| now.checked_sub(age).unwrap_or(now);
        match self.status(node) {
            Some(status) if !status.connected => Behind::Lost(before(status.age)),
            Some(status) if status.lag >= LAG_SHOWN => Behind::Lagging(before(status.lag)),
            Some(_) => Behind::No,
            None if self.started.elapsed() < RECONNECTED => Behind::NotKnown,
            None => Behind::Lost(before(self.started.elapsed())),
        }
    }

    fn is_catching_up(&self, node: &Scope) -> bool {
        let mut links = self.lock();
        let Some(link) = links.get_mut(node).filter(|link| link.connected) else {
            return false;
        };
        let last = match link.returned {
            Returned::NotKnown => return true,
            Returned::UpTo(last) => last,
            Returned::Folded => return false,
        };
        let id = StreamId::new(node.clone(), Lane::UpState);
        let folded = match folded_stream(&self.projection.view(), &id) {
            Ok(folded) => folded.filter(|folded| folded.incarnation == link.peer.incarnation.0.as_slice()),
            // It says so itself, and the daemon ends.
            Err(_) => return false,
        };
        if folded.map_or(0, |folded| folded.seq) < last.0 {
            return true;
        }
        link.returned = Returned::Folded;
        false
    }

    fn changes(&self) -> broadcast::Receiver<Scope> {
        self.told.subscribe()
    }
}

impl Links for Fleet {
    fn link(&self, node: &Scope) -> Option<Link> {
        let status = self.status(node)?;
        Some(Link {
            connected: status.connected,
            age: status.age,
            lag: status.lag,
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Carries what happens on one node's link to the fleet and to the metrics.
#[derive(Debug)]
pub struct FleetObserver {
    fleet: Fleet,
    node: Scope,
    serial: u64,
}

impl FleetObserver {
    fn update(&self, change: impl FnOnce(&mut NodeLink)) {
        let mut links = self.fleet.lock();
        if let Some(link) = links
            .get_mut(&self.node)
            .filter(|link| link.serial == self.serial)
        {
            link.heard = Instant::now();
            change(link);
        }
    }

    fn forget_what_history_passed(&self) {
        let id = StreamId::new(self.node.clone(), Lane::UpState);
        let mut links = self.fleet.lock();
        let Some(link) = links.get_mut(&self.node).filter(|link| !link.ahead.is_empty()) else {
            return;
        };
        if let Ok(Some(folded)) = folded_stream(&self.fleet.projection.view(), &id) {
            link.ahead.forget(&folded);
        }
    }
}

impl LinkObserver for FleetObserver {
    fn established(&self, peer: &Peer) {
        self.fleet.lock().insert(
            self.node.clone(),
            NodeLink {
                serial: self.serial,
                connected: true,
                heard: Instant::now(),
                peer: peer.clone(),
                heads: BTreeMap::new(),
                down_acked: Seq::ZERO,
                ahead: Ahead::default(),
                lagging: false,
                returned: Returned::NotKnown,
            },
        );
        self.fleet.links_changed();
        self.fleet.tell(&self.node);
        tracing::info!(node = %self.node, software = peer.software, "node connected");
    }

    fn peer_durable(&self, key: &StreamKey, mark: Mark) {
        if key.id.scope == self.node {
            self.update(|link| link.down_acked = mark.position.seq);
        }
    }

    fn peer_heads(&self, heads: &[v1::LaneHead]) {
        self.forget_what_history_passed();
        self.update(|link| {
            for head in heads {
                // A node speaks for its own streams only.
                if head.scope == self.node.as_wire()
                    && let Ok(lane) = Lane::from_wire(head.lane)
                {
                    let head = Head {
                        seq: Seq(head.seq),
                        oldest: Duration::from_millis(head.oldest_unacked_ms),
                        unreadable: head.unreadable,
                    };
                    link.heads.insert(lane, head);
                }
            }
            if link.returned == Returned::NotKnown {
                let state = link.heads.get(&Lane::UpState);
                link.returned = Returned::UpTo(state.map_or(Seq::ZERO, |head| head.seq));
            }
        });
        self.fleet.look_at_lag(&self.node);
    }

    fn sent(&self, key: &StreamKey, records: u64, bytes: u64) {
        meters::frame(Direction::Sent, key, records, bytes);
    }

    fn received(&self, key: &StreamKey, records: u64, bytes: u64) {
        self.update(|_| {});
        meters::frame(Direction::Received, key, records, bytes);
    }

    fn quarantined(&self, reason: RefuseReason, message: &str) {
        tracing::error!(node = %self.node, ?reason, message, "node in quarantine; decide with `ledge node resolve`");
        self.fleet.set_quarantined(&self.node, true);
    }

    fn cloud_lost(&self, lost: &CloudLost) {
        metrics::counter!("ledge_cloud_lost_total", "lane" => lost.key.id.lane.name()).increment(1);
        tracing::error!(
            node = %self.node, stream = %lost.key.id, first = %lost.first, last = %lost.last, verified = ?lost.verified,
            "this cloud had acknowledged these records and does not hold them; the node sends what it still has"
        );
    }

    fn history_lost(&self, lost: &LostHistory) {
        tracing::warn!(stream = %lost.key.id, epoch = %lost.epoch, "the stream goes on under a new epoch");
    }

    fn refill(&self, _key: &StreamKey, what: Refill) {
        meters::refill(what);
    }

    fn traffic(&self, direction: Direction, what: Traffic, bytes: u64) {
        meters::traffic(direction, what, bytes);
    }

    fn hint(&self, key: &StreamKey, parts: &[v1::Snapshot]) {
        self.update(|link| link.ahead.take(key, parts));
        self.fleet.tell(&self.node);
    }

    fn durable(&self, key: &StreamKey, _mark: Mark) {
        if key.id.lane == Lane::UpState {
            self.forget_what_history_passed();
        }
    }
}
