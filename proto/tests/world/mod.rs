//! A node and a cloud in memory: what their logs would hold, and what their daemons do with the real session.
//!
//! Every state between two calls is what a crash at that moment would leave, so a crash is: forget the sessions.

#![allow(unreachable_pub, reason = "a module of test binaries")]
#![allow(dead_code, reason = "each test binary uses its part of it")]

mod acquainted;
mod log;

#[allow(unused_imports, reason = "each test binary uses its part of it")]
pub use acquainted::{acquainted, in_step};
#[allow(unused_imports, reason = "each test binary uses its part of it")]
pub use log::says;
pub use log::{Item, Log};

use log::{begin_epoch, keep, next_item};

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ledge_proto::fence::receipt::ReceiptKey;
use ledge_proto::fence::{CloudLost, Ours};
use ledge_proto::ids::{
    ClusterId, Epoch, Incarnation, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey,
};
use ledge_proto::session::{ArchivePolicy, Event, Local, RefuseReason, Session, SessionError, stream_state};
use ledge_proto::v1;
use ledge_proto::v1::control_message::Message;

pub const CLOUD_INCARNATION: Incarnation = Incarnation([0xC1; 16]);

pub fn node() -> Scope {
    Scope::node("edge-1").unwrap()
}

pub fn key(lane: Lane, incarnation: Incarnation) -> StreamKey {
    StreamKey {
        id: StreamId::new(node(), lane),
        incarnation,
    }
}

/// A node's disk, or a copy of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Edge {
    pub incarnation: Incarnation,
    pub log: Log,
}

impl Edge {
    pub fn new(incarnation: u8) -> Edge {
        Edge {
            incarnation: Incarnation([incarnation; 16]),
            log: Log::default(),
        }
    }

    pub fn key(&self, lane: Lane) -> StreamKey {
        key(lane, self.incarnation)
    }

    /// Starts the daemon anew: it writes at once, that it started.
    pub fn start(&mut self, says: u64) {
        self.log.reopen();
        self.log.append(&self.key(Lane::UpState), says);
    }

    pub fn write(&mut self, lane: Lane, says: u64) {
        self.log.append(&self.key(lane), says);
    }
}

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    Edge,
    Cloud,
}

/// What a link did besides moving records.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Established,
    Reset {
        key: StreamKey,
        epoch: Epoch,
        base: Mark,
        common: Option<Position>,
    },
    Snapshot {
        key: StreamKey,
        after: Seq,
        at: Mark,
    },
    Quarantine(RefuseReason),
    CloudLost(CloudLost),
    Archived(StreamKey, Seq),
    Acked(StreamKey, Mark),
    Refused {
        by: End,
        reason: String,
        message: String,
    },
    Broke(End, String),
}

/// What travels on a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lanes {
    Item(StreamKey, Item),
    Snapshot(StreamKey, Mark),
}

/// Two sessions and what is between them. Messages of one direction keep their order, as on one stream; lanes are
/// streams of their own.
pub struct Link {
    pub edge: Session,
    pub cloud: Session,
    now: Duration,
    control: [VecDeque<Message>; 2],
    lanes: [VecDeque<Lanes>; 2],
    /// Waiting for `handle_persisted`, with the log's fences as they were; `handle_reset_done`.
    persisting: [Option<Log>; 2],
    reset: [Vec<StreamKey>; 2],
    sending: [BTreeMap<StreamKey, Seq>; 2],
    pub told: Vec<Told>,
    /// Every control message so far, of both ends.
    pub sent: Vec<Message>,
    over: [bool; 2],
    /// Frames stored though the session had not been confirmed.
    pub stored_early: usize,
}

/// One thing that can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A control message arrives at this end.
    Deliver(End),
    /// What this end appended last is durable.
    Persisted(End),
    /// This end has begun the new epochs.
    ResetDone(End),
    /// A frame or snapshot arrives at this end.
    Lane(End),
    /// This end sends the next record of its streams.
    Send(End),
}

fn index(end: End) -> usize {
    match end {
        End::Edge => 0,
        End::Cloud => 1,
    }
}

fn other(end: End) -> End {
    match end {
        End::Edge => End::Cloud,
        End::Cloud => End::Edge,
    }
}

pub fn local(incarnation: Incarnation, nonce: u8) -> Local {
    Local {
        cluster: ClusterId([1; 16]),
        node: node(),
        incarnation,
        boot_id: String::new(),
        labels: BTreeMap::new(),
        software: String::new(),
        heartbeat: Duration::from_secs(5),
        heartbeat_idle: Duration::from_secs(25),
        nonce: [nonce; 16],
        wall_us: 1_000_000,
        receipts: Some(ReceiptKey::of_secret(b"cluster")),
        archive: ArchivePolicy::FollowDurable,
    }
}

impl Link {
    /// The edge dials.
    pub fn dial(edge: &Edge, cloud: &Log, nonce: u8) -> Link {
        Link::with(edge, local(CLOUD_INCARNATION, nonce), cloud)
    }

    pub fn with(edge: &Edge, cloud: Local, _log: &Log) -> Link {
        let now = Duration::from_secs(100);
        let sends = vec![edge.key(Lane::UpState), edge.key(Lane::UpData)];
        let down = key(Lane::Down, CLOUD_INCARNATION);
        let receives = vec![stream_state(&down, edge.log.end(&down))];
        let local = local(edge.incarnation, 0);
        Link {
            edge: Session::edge(local, sends, receives, &edge.log, now),
            cloud: Session::cloud(cloud, vec![down], now),
            now,
            control: Default::default(),
            lanes: Default::default(),
            persisting: Default::default(),
            reset: Default::default(),
            sending: Default::default(),
            told: Vec::new(),
            sent: Vec::new(),
            over: [false; 2],
            stored_early: 0,
        }
    }

    fn session(&mut self, end: End) -> &mut Session {
        match end {
            End::Edge => &mut self.edge,
            End::Cloud => &mut self.cloud,
        }
    }

    /// Whether this end's session has ended.
    pub fn is_over(&self, end: End) -> bool {
        self.over[index(end)]
    }

    pub fn established(&self, end: End) -> bool {
        match end {
            End::Edge => self.edge.is_open(),
            End::Cloud => self.cloud.is_open(),
        }
    }

    /// What can happen now.
    pub fn steps(&mut self, edge: &Edge, cloud: &Log) -> Vec<Step> {
        for end in [End::Edge, End::Cloud] {
            let now = self.now;
            while let Some(message) = self.session(end).poll_transmit(now) {
                self.sent.push(message.clone());
                self.control[index(other(end))].push_back(message);
            }
        }
        let mut steps = Vec::new();
        for end in [End::Edge, End::Cloud] {
            let n = index(end);
            if self.over[n] {
                continue;
            }
            if !self.control[n].is_empty() {
                steps.push(Step::Deliver(end));
            }
            if self.persisting[n].is_some() {
                steps.push(Step::Persisted(end));
            } else if !self.reset[n].is_empty() {
                steps.push(Step::ResetDone(end));
            }
            // Lanes are taken once the session is open, and stay in the connection until then.
            if !self.lanes[n].is_empty() && (self.accepting(end)) {
                steps.push(Step::Lane(end));
            }
            let log = if end == End::Edge { &edge.log } else { cloud };
            if self.sending[n]
                .iter()
                .any(|(key, after)| next_item(log, key, *after).is_some())
            {
                steps.push(Step::Send(end));
            }
        }
        steps
    }

    fn accepting(&self, end: End) -> bool {
        let (session, keys) = match end {
            End::Edge => (&self.edge, vec![key(Lane::Down, CLOUD_INCARNATION)]),
            End::Cloud => (
                &self.cloud,
                self.lanes[1]
                    .iter()
                    .map(|item| match item {
                        Lanes::Item(key, _) | Lanes::Snapshot(key, _) => key.clone(),
                    })
                    .collect(),
            ),
        };
        keys.iter().any(|key| session.accepts(key))
    }

    /// Takes events of both ends that only tell or are appended at once.
    fn events(&mut self, end: End, edge: &mut Edge, cloud: &mut Log) {
        let n = index(end);
        while let Some(event) = self.session(end).poll_event() {
            let log = if end == End::Edge {
                &mut edge.log
            } else {
                &mut *cloud
            };
            match event {
                Event::Persist(update) => {
                    let before = Log {
                        streams: BTreeMap::new(),
                        ..log.clone()
                    };
                    keep(log, update);
                    self.persisting[n].get_or_insert(before);
                }
                Event::Note(update) => keep(log, update),
                Event::Reset {
                    key,
                    epoch,
                    base,
                    common,
                } => {
                    self.told.push(Told::Reset {
                        key: key.clone(),
                        epoch,
                        base,
                        common,
                    });
                    begin_epoch(log, &key, epoch, base, common);
                    self.reset[n].push(key);
                }
                Event::Established { .. } => self.told.push(Told::Established),
                Event::SendSnapshot { key, after, at } => {
                    self.told.push(Told::Snapshot {
                        key: key.clone(),
                        after,
                        at,
                    });
                    self.lanes[index(other(end))].push_back(Lanes::Snapshot(key, at));
                }
                Event::SendFrom { key, after } => {
                    self.sending[n].insert(key, after);
                }
                Event::PeerDurable { key, mark } => self.told.push(Told::Acked(key, mark)),
                Event::PeerArchived { key, seq } => self.told.push(Told::Archived(key, seq)),
                Event::Quarantine { reason, .. } => self.told.push(Told::Quarantine(reason)),
                Event::CloudLost(lost) => self.told.push(Told::CloudLost(lost)),
                Event::PeerHeads(_) | Event::Nack { .. } | Event::Fetch { .. } | Event::NotHeld { .. } => {}
            }
        }
    }

    fn ended(&mut self, end: End, result: Result<(), SessionError>) {
        let Err(err) = result else { return };
        self.over[index(end)] = true;
        match err {
            SessionError::Refusing { reason, message } => self.told.push(Told::Refused {
                by: end,
                reason: reason.name().to_owned(),
                message,
            }),
            SessionError::Refused { .. } => {}
            err => self.told.push(Told::Broke(end, err.to_string())),
        }
    }

    /// Does one step.
    pub fn step(&mut self, step: Step, edge: &mut Edge, cloud: &mut Log) {
        let now = self.now;
        match step {
            Step::Deliver(end) => {
                let Some(message) = self.control[index(end)].pop_front() else {
                    return;
                };
                let log = if end == End::Edge { &edge.log } else { &*cloud };
                let result = match end {
                    End::Edge => self.edge.handle_message(message, log, now),
                    End::Cloud => self.cloud.handle_message(message, log, now),
                };
                self.ended(end, result);
            }
            Step::Persisted(end) => {
                self.persisting[index(end)] = None;
                let result = match end {
                    End::Edge => self.edge.handle_persisted(&edge.log, now),
                    End::Cloud => self.cloud.handle_persisted(cloud, now),
                };
                self.ended(end, result);
            }
            Step::ResetDone(end) => {
                let keys = std::mem::take(&mut self.reset[index(end)]);
                let result = match end {
                    End::Edge => self.edge.handle_reset_done(&keys, &edge.log, now),
                    End::Cloud => self.cloud.handle_reset_done(&keys, cloud, now),
                };
                self.ended(end, result);
            }
            Step::Lane(end) => {
                let Some(item) = self.lanes[index(end)].pop_front() else {
                    return;
                };
                self.receive(end, item, edge, cloud);
            }
            Step::Send(end) => {
                let log = if end == End::Edge { &edge.log } else { &*cloud };
                let next = self.sending[index(end)]
                    .iter()
                    .find_map(|(key, after)| next_item(log, key, *after).map(|item| (key.clone(), item)));
                if let Some((key, item)) = next {
                    self.sending[index(end)].insert(key.clone(), item.mark().position.seq);
                    self.lanes[index(other(end))].push_back(Lanes::Item(key, item));
                }
            }
        }
        self.now += Duration::from_millis(1);
        self.events(End::Edge, edge, cloud);
        self.events(End::Cloud, edge, cloud);
    }

    fn receive(&mut self, end: End, item: Lanes, edge: &mut Edge, cloud: &mut Log) {
        let now = self.now;
        let log = if end == End::Edge { &mut edge.log } else { cloud };
        let early = end == End::Cloud && !self.cloud.is_open();
        let session = match end {
            End::Edge => &mut self.edge,
            End::Cloud => &mut self.cloud,
        };
        match item {
            Lanes::Item(key, item) => {
                if !session.accepts(&key) {
                    return self.ended(
                        end,
                        Err(SessionError::Protocol(format!("frame of {key} not accepted"))),
                    );
                }
                let have = log
                    .end(&key)
                    .is_some_and(|end| item.mark().position <= end.position)
                    && log.mark_at(&key, item.mark().position.seq).map(|mark| mark.chain)
                        == Some(item.mark().chain);
                if !have && let Err(why) = log.append_foreign(&key, &item) {
                    return self.ended(end, Err(SessionError::Protocol(why)));
                }
                self.stored_early += usize::from(early);
                session.handle_durable(&key, item.mark(), now);
            }
            Lanes::Snapshot(key, mark) => {
                if !session.accepts_snapshot(&key, mark) {
                    return self.ended(
                        end,
                        Err(SessionError::Protocol(format!(
                            "snapshot of {key} at {mark:?} not accepted"
                        ))),
                    );
                }
                log.streams
                    .entry(key.clone())
                    .or_default()
                    .push(Item::Rebase { mark, common: None });
                session.handle_snapshot(&key, v1::snapshot::Purpose::Rebase, mark, now);
            }
        }
    }

    /// The first events, before any step.
    pub fn begin(&mut self, edge: &mut Edge, cloud: &mut Log) {
        self.events(End::Edge, edge, cloud);
        self.events(End::Cloud, edge, cloud);
    }

    /// Lets acknowledgements of telemetry become due.
    pub fn tick(&mut self) {
        self.now += Duration::from_millis(50);
    }

    /// Goes on until nothing more can happen.
    pub fn run(&mut self, edge: &mut Edge, cloud: &mut Log) {
        self.events(End::Edge, edge, cloud);
        for _ in 0..10_000 {
            let Some(step) = self.steps(edge, cloud).into_iter().next() else {
                // Acknowledgements of telemetry wait a moment.
                self.now += Duration::from_millis(50);
                if self.steps(edge, cloud).is_empty() {
                    return;
                }
                continue;
            };
            self.step(step, edge, cloud);
        }
        panic!("the link does not come to rest: {:?}", self.told);
    }

    /// A message nobody sent arrives at this end next.
    pub fn inject(&mut self, end: End, message: Message) {
        self.control[index(end)].push_front(message);
    }

    /// This end crashes: what it handed to its log and was not told to be durable may be gone.
    pub fn crash(self, end: End, lose: bool, edge: &mut Edge, cloud: &mut Log) {
        let [of_edge, of_cloud] = self.persisting;
        let (log, before) = match end {
            End::Edge => (&mut edge.log, of_edge),
            End::Cloud => (cloud, of_cloud),
        };
        if let Some(before) = before.filter(|_| lose) {
            (log.edge, log.node) = (before.edge, before.node);
        }
    }

    /// Lets `wait` pass without anything being lost.
    pub fn wait(&mut self, wait: Duration) {
        self.now += wait;
        for end in [End::Edge, End::Cloud] {
            let now = self.now;
            let result = self.session(end).handle_timeout(now);
            self.ended(end, result);
        }
    }
}

/// Dials once and lets it come to an end; what was told.
pub fn meet(edge: &mut Edge, cloud: &mut Log, nonce: u8) -> Vec<Told> {
    let mut link = Link::dial(edge, cloud, nonce);
    link.run(edge, cloud);
    link.told
}

/// The reason of the refusal among what was told.
pub fn refusal(told: &[Told]) -> Option<&str> {
    told.iter().find_map(|told| match told {
        Told::Refused { reason, .. } => Some(reason.as_str()),
        _ => None,
    })
}

pub fn was_reset(told: &[Told]) -> bool {
    told.iter().any(|told| matches!(told, Told::Reset { .. }))
}

pub fn established(told: &[Told]) -> bool {
    told.iter().filter(|told| **told == Told::Established).count() == 2
}
