//! The decision about a HELLO and about a WELCOME, in the order of ADR 0006.

use super::advance::{counter, none, takes};
use super::facts::{position_of, seq_of};
use super::{HelloFacts, Ours, StreamFacts, WelcomeFacts};
use crate::ids::{Epoch, Lane, Mark, Position, Seq, StreamKey};
use crate::limits;
use crate::mutants;
use crate::session::RefuseReason;
use crate::v1;

/// What the cloud does about a HELLO.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The disk is the node's.
    Accept {
        /// How each stream the node writes goes on.
        streams: Vec<(StreamKey, Action)>,
        /// What this cloud had acknowledged and no longer holds: the edge sends it again, as far as it holds it.
        lost: Vec<CloudLost>,
    },
    /// Not now, or not this one; nothing changes.
    Refuse(RefuseReason, String),
    /// No disk of this node is let in until an operator decides.
    Quarantine(RefuseReason, String),
}

/// How a stream the node writes goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// After our end.
    Resume {
        /// What the edge does if our end is not on its chain, which only it can tell. `None`: that would be a fork.
        if_diverged: Option<Reset>,
    },
    /// Under a raised epoch.
    Reset(Reset),
}

/// How the edge begins a new epoch after history was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// The new epoch.
    pub epoch: Epoch,
    /// The cloud's end: the new epoch follows it.
    pub base: Mark,
    /// The last record both ends are known to hold, [`Position::ZERO`] meaning that the edge's log began empty;
    /// `None` when that is not known. The edge may find a later one, see [`candidates`]; when there is none at all,
    /// everything it holds goes again.
    pub common: Option<Position>,
}

/// Records this cloud had acknowledged and does not hold: it was put back to an older state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudLost {
    /// The stream.
    pub key: StreamKey,
    /// First record.
    pub first: Seq,
    /// Last record.
    pub last: Seq,
    /// Whether the edge showed our receipt for it; `None` without a key to tell.
    pub verified: Option<bool>,
}

/// How many records [`candidates`] looks at.
const CANDIDATES_LOOK: u64 = 1 << 16;

/// Whether two marks of the same record stand in the same history.
pub(crate) fn same_chain(a: Mark, b: Mark) -> bool {
    a.chain == b.chain || mutants::on("skip-chain-check")
}

/// How an edge's copy of a stream stands to ours, as far as the cloud can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// It holds our end, or we hold nothing.
    Whole,
    /// It was ahead of us when its log was opened: it must hold our end, which only it can tell.
    Ahead,
    /// When it was opened it ended before our end, on our chain: what we hold beyond was written since, or lost.
    Behind { common: Position },
    /// As `Behind`, and it does not hold our end.
    Shorter { common: Position },
    /// Where it ended when it was opened is not held here, and no receipt proves it.
    TooOld,
    /// It is not on our chain.
    Foreign,
}

/// Whether this cloud acknowledged exactly `theirs` in the history that ends with `end`: our receipt says so, and no epoch
/// has begun since. It stands in for records that are no longer held, unless we were put back meanwhile (`raised`): what
/// was acknowledged before that may have been followed by another history here.
fn acknowledged(stream: &StreamFacts, theirs: Mark, end: Mark, raised: bool) -> bool {
    let receipt = stream
        .acked
        .filter(|acked| acked.verified == Some(true) && acked.durable == theirs);
    receipt.is_some()
        && theirs.position.epoch == end.position.epoch
        && theirs.position <= end.position
        && !raised
}

fn relation(stream: &StreamFacts, ours: &dyn Ours, raised: bool) -> Relation {
    let Some(end) = ours.durable(&stream.key) else {
        return Relation::Whole;
    };
    // An edge that has not heard of the epoch our end began cannot go on in it.
    let at_end = |mark: Option<Mark>| {
        mark.is_some_and(|mark| {
            mark.position.seq == end.position.seq
                && mark.position.epoch >= end.position.epoch
                && same_chain(mark, end)
        })
    };
    if at_end(stream.end) || at_end(stream.opened) {
        return Relation::Whole;
    }
    let opened = position_of(stream.opened);
    if opened > end.position {
        return Relation::Ahead;
    }
    let common = match (stream.opened, ours.mark_at(&stream.key, opened.seq)) {
        (None, _) => Position::ZERO,
        (Some(theirs), Some(here)) if same_chain(theirs, here) => opened,
        (Some(theirs), None) if acknowledged(stream, theirs, end, raised) => opened,
        // Not held any more, or never, where a snapshot took the place of records.
        (Some(_), None) => return Relation::TooOld,
        (Some(_), Some(_)) => return Relation::Foreign,
    };
    let theirs = position_of(stream.end);
    if theirs <= end.position {
        // Equal positions here are of different chains: what it lost, it has written anew.
        Relation::Shorter { common }
    } else {
        Relation::Behind { common }
    }
}

/// Marks of our history among which the edge finds the last record both ends hold, in its order: from where it was opened,
/// if that is in our history; else around what it knows to be acknowledged, which may have been acknowledged to another
/// disk; else towards the end of what both may hold. A record between two of them can be common only where there are more
/// than [`limits::SESSION_MAX_CANDIDATES`].
pub fn candidates(stream: &StreamFacts, ours: &dyn Ours) -> Vec<Mark> {
    let Some(end) = ours.durable(&stream.key) else {
        return Vec::new();
    };
    let last = end.position.seq.min(seq_of(stream.end));
    let at = |seq: u64| ours.mark_at(&stream.key, Seq(seq));
    let in_ours = |theirs: &Mark| {
        theirs.position.seq <= last && at(theirs.position.seq.0).is_some_and(|here| same_chain(here, *theirs))
    };
    let opened = stream.opened.filter(in_ours).map(|mark| mark.position.seq.0);
    let acked = stream.acked.map(|acked| acked.durable).filter(in_ours);
    let acked = acked.map(|mark| mark.position.seq.0);
    let most = limits::SESSION_MAX_CANDIDATES;
    let held = ours.held_after(&stream.key).0.max(1);
    let before = |end: u64, most: usize| {
        let first = held.max(end.saturating_sub(CANDIDATES_LOOK));
        let mut marks: Vec<Mark> = (first..=end).rev().filter_map(at).take(most).collect();
        marks.reverse();
        marks
    };
    let after = |first: u64, most: usize| {
        let until = last.0.min(first.saturating_add(CANDIDATES_LOOK));
        (first..=until).filter_map(at).take(most)
    };
    match (opened, acked) {
        (Some(opened), acked) if acked.is_none_or(|acked| acked <= opened) => after(opened, most).collect(),
        (_, Some(acked)) => {
            let mut marks = before(acked, most / 2);
            marks.extend(after(acked.saturating_add(1), most / 2));
            marks
        }
        _ => before(last.0, most),
    }
}

/// What the cloud does about a HELLO. `node` is the fence of the node its certificate names, as last handed to the
/// log; `live_session`: another session of that node is established.
pub fn decide(
    node: &v1::NodeFence,
    cloud: &v1::CloudFence,
    hello: &HelloFacts,
    ours: &dyn Ours,
    live_session: bool,
) -> Decision {
    if let Some(refusal) = not_the_leader(cloud, hello) {
        return refusal;
    }
    let raised = cloud.restore_generation > hello.restore_generation_seen;
    let case = Case {
        node,
        hello,
        ours,
        live_session,
        raised,
        epoch: next_epoch(node, hello, ours),
    };
    if let Some(quarantine) = &node.quarantine {
        return Decision::Refuse(
            RefuseReason::Quarantined,
            format!(
                "the node is in quarantine ({}: {}); decide with `ledge node resolve`",
                quarantine.reason, quarantine.message
            ),
        );
    }
    if let Some(accepted) = &node.accepted {
        return case.decided_by_operator(accepted);
    }
    let token = &hello.token;
    let settled = token.counter < node.settled_below;
    let new = node.incarnation != hello.incarnation.0;
    if node.closed.iter().any(|closed| *closed == hello.incarnation.0) {
        return if settled {
            superseded()
        } else {
            Decision::Quarantine(
                RefuseReason::IncarnationClosed,
                "a disk the node had before has come back after another one took its place".to_owned(),
            )
        };
    }
    if new && token.counter == 0 {
        return case.accept(|_, _| Ok(Action::Resume { if_diverged: None }));
    }
    let current = counter(&node.current);
    if (token.counter > current || case.acked_beyond_ours()) && !raised {
        return Decision::Refuse(
            RefuseReason::CloudRolledBack,
            "the cloud has acknowledged more to this node than it holds: its data was put back to an older state; if that was done on purpose, start it once with `cloudcore --restored`".to_owned(),
        );
    }
    if token.counter > current {
        return case.accept(|stream, relation| case.current(stream, relation));
    }
    if new {
        return Decision::Quarantine(
            RefuseReason::IncarnationClosed,
            "a disk that is not the node's has come with a token of an earlier session".to_owned(),
        );
    }
    if takes(node, token) || mutants::on("accept-stale-token") {
        return case.accept(|stream, relation| case.current(stream, relation));
    }
    if settled {
        return superseded();
    }
    case.stale()
}

fn not_the_leader(cloud: &v1::CloudFence, hello: &HelloFacts) -> Option<Decision> {
    if hello.restore_generation_seen > cloud.restore_generation {
        return Some(Decision::Refuse(
            RefuseReason::CloudRolledBack,
            format!(
                "the node has followed restore generation {}, this cloud is of generation {}: an older copy of it was started; stop it, or, if it is the one to keep, start it once with `cloudcore --restored`",
                hello.restore_generation_seen, cloud.restore_generation
            ),
        ));
    }
    if hello.restore_generation_seen == cloud.restore_generation
        && hello.max_cloud_epoch_seen > cloud.cloud_epoch
    {
        return Some(Decision::Refuse(
            RefuseReason::StaleCloud,
            format!(
                "the node follows leadership {}, this cloudcore is of leadership {}: another one has taken over; stop this one",
                hello.max_cloud_epoch_seen, cloud.cloud_epoch
            ),
        ));
    }
    None
}

fn superseded() -> Decision {
    Decision::Refuse(
        RefuseReason::Superseded,
        "an operator decided for another disk of this node; start this one with an empty data directory, or decide for it with `ledge node resolve`".to_owned(),
    )
}

fn next_epoch(node: &v1::NodeFence, hello: &HelloFacts, ours: &dyn Ours) -> Epoch {
    let seen = hello.streams.iter().flat_map(|stream| {
        [stream.end, stream.opened, ours.durable(&stream.key)].map(|mark| position_of(mark).epoch.0)
    });
    Epoch(seen.fold(node.epoch, u32::max).saturating_add(1))
}

/// One HELLO with everything it is judged by.
struct Case<'a> {
    node: &'a v1::NodeFence,
    hello: &'a HelloFacts,
    ours: &'a dyn Ours,
    live_session: bool,
    raised: bool,
    epoch: Epoch,
}

impl Case<'_> {
    fn acked_beyond_ours(&self) -> bool {
        self.hello.streams.iter().any(|stream| {
            stream
                .acked
                .is_some_and(|acked| acked.durable.position > position_of(self.ours.durable(&stream.key)))
        })
    }

    fn accept(&self, action: impl Fn(&StreamFacts, Relation) -> Result<Action, Decision>) -> Decision {
        let mut streams = Vec::new();
        let mut lost = Vec::new();
        for stream in &self.hello.streams {
            match action(stream, relation(stream, self.ours, self.raised)) {
                Ok(action) => streams.push((stream.key.clone(), action)),
                Err(decision) => return decision,
            }
            let ours = self.ours.durable(&stream.key);
            if let Some(acked) = stream.acked
                && acked.durable.position > position_of(ours)
                && acked.durable.position.seq > seq_of(ours)
            {
                lost.push(CloudLost {
                    key: stream.key.clone(),
                    first: seq_of(ours).next(),
                    last: acked.durable.position.seq,
                    verified: acked.verified,
                });
            }
        }
        Decision::Accept { streams, lost }
    }

    fn reset(&self, stream: &StreamFacts, common: Option<Position>) -> Option<Reset> {
        self.ours.durable(&stream.key).map(|base| Reset {
            epoch: self.epoch,
            base,
            common,
        })
    }

    /// The disk of the last session, or one that outlived what the cloud remembers.
    fn current(&self, stream: &StreamFacts, relation: Relation) -> Result<Action, Decision> {
        let key = &stream.key.id;
        match relation {
            Relation::Whole | Relation::Ahead => Ok(Action::Resume { if_diverged: None }),
            Relation::Behind { common } => Ok(Action::Resume {
                // While another session lives, a second history of the stream is that of a second disk.
                if_diverged: if self.live_session {
                    None
                } else {
                    self.reset(stream, Some(common))
                },
            }),
            Relation::Shorter { common } => match self.reset(stream, Some(common)) {
                Some(reset) if !self.live_session => Ok(Action::Reset(reset)),
                _ => Err(fork(format!(
                    "{key}: two disks of the node have gone different ways"
                ))),
            },
            Relation::TooOld if position_of(stream.end) >= position_of(self.ours.durable(&stream.key)) => {
                Ok(Action::Resume { if_diverged: None })
            }
            Relation::TooOld => Err(fork(format!(
                "{key}: the edge ends before what is still held here, so that its history cannot be compared"
            ))),
            Relation::Foreign => Err(fork(format!(
                "{key}: both ends hold record {} with different histories",
                seq_of(stream.opened)
            ))),
        }
    }

    /// A disk that is not that of the last session: an older state of it, or a copy.
    fn stale(&self) -> Decision {
        if self.live_session {
            return fork("another session of the node lives, with a newer token".to_owned());
        }
        let token = self.hello.token.counter;
        if self.node.rolled_back_from < token && token < self.node.rolled_back_to {
            return fork(
                "the node went on from an older copy of its disk, and now the newer one has come".to_owned(),
            );
        }
        let mut any_lost = false;
        for stream in &self.hello.streams {
            if stream
                .acked
                .is_some_and(|acked| acked.durable.position > position_of(stream.opened))
            {
                return fork(format!(
                    "{}: it was acknowledged more since it was started, so it was not rolled back, but another disk holds a newer token",
                    stream.key.id
                ));
            }
            match relation(stream, self.ours, self.raised) {
                Relation::Behind { .. } | Relation::Shorter { .. } => any_lost = true,
                Relation::Whole | Relation::Ahead => {}
                Relation::TooOld | Relation::Foreign => {
                    return fork(format!(
                        "{}: its token is of an earlier session, and where it was started is not in the cloud's history",
                        stream.key.id
                    ));
                }
            }
        }
        if !any_lost {
            return fork("its token is of an earlier session, but it lost nothing: it is a copy".to_owned());
        }
        self.accept(|stream, relation| {
            Ok(match relation {
                Relation::Behind { common } | Relation::Shorter { common } => self
                    .reset(stream, Some(common))
                    .map_or(Action::Resume { if_diverged: None }, Action::Reset),
                _ => Action::Resume { if_diverged: None },
            })
        })
    }

    /// The first HELLO after an operator has decided.
    fn decided_by_operator(&self, accepted: &v1::Accepted) -> Decision {
        let chosen = accepted.incarnation.is_empty()
            || (accepted.incarnation == self.hello.incarnation.0
                && accepted.token.as_ref().unwrap_or(none()) == &self.hello.token);
        // The chosen disk may have been offered newer tokens already, and not have confirmed one.
        let offered = self.node.incarnation == self.hello.incarnation.0
            && !self.node.confirmed
            && takes(self.node, &self.hello.token);
        if !chosen && !offered {
            return superseded();
        }
        if self.acked_beyond_ours() && !self.raised {
            return Decision::Refuse(
                RefuseReason::CloudRolledBack,
                "the cloud has acknowledged more to this node than it holds; start it once with `cloudcore --restored`"
                    .to_owned(),
            );
        }
        // What another disk said since is what is shown of the node: this one says all of its own again.
        let returns = self
            .node
            .closed
            .iter()
            .any(|closed| *closed == self.hello.incarnation.0);
        self.accept(|stream, relation| {
            let reset = |common| self.reset(stream, common);
            let must = |common| reset(common).map_or(Action::Resume { if_diverged: None }, Action::Reset);
            Ok(match relation {
                Relation::Behind { common } if returns => must(Some(common)),
                Relation::Whole | Relation::Ahead if returns => must(None),
                Relation::Whole => Action::Resume { if_diverged: None },
                Relation::Ahead => Action::Resume {
                    if_diverged: reset(None),
                },
                Relation::Behind { common } => Action::Resume {
                    if_diverged: reset(Some(common)),
                },
                Relation::Shorter { common } => must(Some(common)),
                Relation::TooOld | Relation::Foreign => must(None),
            })
        })
    }
}

fn fork(message: String) -> Decision {
    Decision::Quarantine(RefuseReason::Fork, message)
}

/// Whether the edge follows the cloud that sent this WELCOME. `edge` is its fence, `ours` its log; the streams it
/// writes are of `incarnation`.
///
/// # Errors
/// Why not, for the cloud and for people.
pub fn judge_welcome(
    edge: &v1::EdgeFence,
    welcome: &WelcomeFacts,
    ours: &dyn Ours,
) -> Result<(), (RefuseReason, String)> {
    let seen = edge.restore_generation_seen;
    let rolled_back = |what: String| {
        Err((
            RefuseReason::CloudRolledBack,
            format!(
                "{what}: the cloud's data was put back to an older state; if that was done on purpose, start it once with `cloudcore --restored`"
            ),
        ))
    };
    if welcome.restore_generation < seen {
        return rolled_back(format!(
            "restore generation {} after {seen}",
            welcome.restore_generation
        ));
    }
    for (key, end) in welcome
        .streams
        .iter()
        .filter(|(key, _)| key.id.lane == Lane::Down)
    {
        let held = position_of(ours.durable(key));
        if position_of(*end) < held {
            return rolled_back(format!(
                "{key}: the cloud ends at {}, this node holds {held}",
                position_of(*end)
            ));
        }
    }
    if welcome.restore_generation > seen {
        return Ok(());
    }
    if welcome.cloud_epoch < edge.max_cloud_epoch_seen && !mutants::on("accept-lower-epoch") {
        return Err((
            RefuseReason::StaleCloud,
            format!(
                "leadership {} after {}: another cloudcore has taken over; stop the older one",
                welcome.cloud_epoch, edge.max_cloud_epoch_seen
            ),
        ));
    }
    let kept = edge.token.as_ref().unwrap_or(none());
    if welcome.token.counter < kept.counter
        || (welcome.token.counter == kept.counter && welcome.token != *kept)
    {
        return rolled_back(format!(
            "token {} offered after {}",
            welcome.token.counter, kept.counter
        ));
    }
    for acked in &edge.acknowledged {
        let known = acked.durable.as_ref().map_or(Position::ZERO, |mark| Position {
            epoch: Epoch(mark.epoch),
            seq: Seq(mark.seq),
        });
        let end = welcome.streams.iter().find(|(key, _)| {
            key.id.scope.as_wire() == acked.scope
                && key.id.lane.as_wire() == acked.lane
                && key.incarnation.0.as_slice() == acked.incarnation
        });
        let Some((key, end)) = end else { continue };
        if position_of(*end) < known {
            return rolled_back(format!(
                "{key}: {known} was acknowledged, and the cloud ends at {}",
                position_of(*end)
            ));
        }
    }
    Ok(())
}
