use std::cell::RefCell;

use super::acks::DATA_ACK_DELAY;
use super::*;
use crate::fence::Ours;
use crate::fence::receipt::ReceiptKey;
use crate::ids::{Chain, ClusterId, Epoch};

/// A log that only remembers marks, the end of every frame, and fences.
#[derive(Default)]
struct Marks(RefCell<BTreeMap<StreamKey, Vec<Mark>>>, RefCell<Fences>);

#[derive(Default)]
struct Fences {
    node: v1::NodeFence,
    edge: v1::EdgeFence,
    cloud: v1::CloudFence,
}

impl Marks {
    fn push(&self, key: &StreamKey, seq: u64, chain: u8) {
        let mark = Mark {
            position: Position {
                epoch: Epoch::FIRST,
                seq: Seq(seq),
            },
            chain: Chain([chain; 16]),
        };
        self.0.borrow_mut().entry(key.clone()).or_default().push(mark);
    }
}

impl Ours for Marks {
    fn durable(&self, key: &StreamKey) -> Option<Mark> {
        self.0.borrow().get(key).and_then(|marks| marks.last().copied())
    }
    fn mark_at(&self, key: &StreamKey, seq: Seq) -> Option<Mark> {
        self.0
            .borrow()
            .get(key)?
            .iter()
            .find(|mark| mark.position.seq == seq)
            .copied()
    }
    fn held_after(&self, _key: &StreamKey) -> Seq {
        Seq::ZERO
    }
}

impl Holdings for Marks {
    fn opened(&self, key: &StreamKey) -> Option<Mark> {
        self.durable(key)
    }
    fn snapshot_mark(&self, _key: &StreamKey, _peer: Position) -> Option<Mark> {
        None
    }
    fn archived(&self, _key: &StreamKey) -> Seq {
        Seq(5)
    }
    fn node_fence(&self) -> v1::NodeFence {
        self.1.borrow().node.clone()
    }
    fn cloud_fence(&self) -> v1::CloudFence {
        self.1.borrow().cloud
    }
    fn edge_fence(&self) -> v1::EdgeFence {
        self.1.borrow().edge.clone()
    }
    fn other_session(&self) -> bool {
        false
    }
}

impl Marks {
    fn keep(&self, update: FenceUpdate) {
        let mut fences = self.1.borrow_mut();
        match update {
            FenceUpdate::Node(fence) => fences.node = *fence,
            FenceUpdate::Edge(fence) => fences.edge = fence,
            FenceUpdate::Cloud(fence) => fences.cloud = fence,
        }
    }
}

const CLUSTER: ClusterId = ClusterId([1; 16]);
const EDGE: Incarnation = Incarnation([2; 16]);
const CLOUD: Incarnation = Incarnation([3; 16]);
const HEARTBEAT: Duration = Duration::from_secs(5);

fn key(lane: Lane, incarnation: Incarnation) -> StreamKey {
    StreamKey {
        id: StreamId::new(Scope::node("edge-1").unwrap(), lane),
        incarnation,
    }
}

fn local(node: &str, incarnation: Incarnation) -> Local {
    Local {
        cluster: CLUSTER,
        node: Scope::node(node).unwrap(),
        incarnation,
        boot_id: "boot".into(),
        labels: BTreeMap::new(),
        software: "test".into(),
        heartbeat: HEARTBEAT,
        heartbeat_idle: HEARTBEAT,
        nonce: [4; 16],
        wall_us: 1,
        receipts: Some(ReceiptKey::of_secret(b"secret")),
        archive: ArchivePolicy::FollowDurable,
    }
}

struct Pair {
    edge: Session,
    cloud: Session,
    edge_log: Marks,
    cloud_log: Marks,
    edge_events: Vec<Event>,
    cloud_events: Vec<Event>,
    now: Duration,
}

impl Pair {
    fn new(edge_log: Marks, cloud_log: Marks) -> Self {
        Pair::with(local("edge-1", EDGE), local("edge-1", CLOUD), edge_log, cloud_log)
    }

    fn with(edge: Local, cloud: Local, edge_log: Marks, cloud_log: Marks) -> Self {
        let now = Duration::from_secs(100);
        let down = key(Lane::Down, CLOUD);
        let receives = vec![stream_state(&down, edge_log.durable(&down))];
        let sends = vec![key(Lane::UpState, EDGE), key(Lane::UpData, EDGE)];
        Pair {
            edge: Session::edge(edge, sends, receives, &edge_log, now),
            cloud: Session::cloud(cloud, vec![down], now),
            edge_log,
            cloud_log,
            edge_events: Vec::new(),
            cloud_events: Vec::new(),
            now,
        }
    }

    /// Moves every message both ways until nothing is left; the first error of each end.
    fn exchange(&mut self) -> (Option<SessionError>, Option<SessionError>) {
        let (mut edge_err, mut cloud_err) = (None, None);
        loop {
            let mut moved = false;
            while let Some(message) = self.edge.poll_transmit(self.now) {
                moved = true;
                let result = self.cloud.handle_message(message, &self.cloud_log, self.now);
                cloud_err = cloud_err.or(result.err());
            }
            while let Some(message) = self.cloud.poll_transmit(self.now) {
                moved = true;
                let result = self.edge.handle_message(message, &self.edge_log, self.now);
                edge_err = edge_err.or(result.err());
            }
            let edge = (
                &mut self.edge,
                &self.edge_log,
                &mut self.edge_events,
                &mut edge_err,
            );
            let cloud = (
                &mut self.cloud,
                &self.cloud_log,
                &mut self.cloud_events,
                &mut cloud_err,
            );
            for (session, log, events, err) in [edge, cloud] {
                while let Some(event) = session.poll_event() {
                    moved = true;
                    if let Event::Persist(update) = event {
                        log.keep(update);
                        let result = session.handle_persisted(log, self.now);
                        *err = err.take().or(result.err());
                    } else {
                        events.push(event);
                    }
                }
            }
            if !moved {
                return (edge_err, cloud_err);
            }
        }
    }

    fn edge_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.edge_events)
    }

    fn cloud_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.cloud_events)
    }
}

#[test]
fn each_end_sends_only_what_the_other_lacks() {
    let (edge_log, cloud_log) = (Marks::default(), Marks::default());
    let (data, down) = (key(Lane::UpData, EDGE), key(Lane::Down, CLOUD));
    for seq in [10u8, 20, 30] {
        edge_log.push(&data, seq.into(), seq);
    }
    cloud_log.push(&data, 10, 10);
    cloud_log.push(&data, 20, 20);
    for seq in [1u8, 2, 3] {
        cloud_log.push(&down, seq.into(), seq);
    }
    edge_log.push(&down, 1, 1);
    let mut pair = Pair::new(edge_log, cloud_log);
    assert_eq!(pair.exchange(), (None, None));
    let edge = pair.edge_events();
    assert!(
        edge.contains(&Event::SendFrom {
            key: data,
            after: Seq(20)
        }),
        "{edge:?}"
    );
    assert!(
        edge.contains(&Event::SendFrom {
            key: key(Lane::UpState, EDGE),
            after: Seq(0)
        }),
        "{edge:?}"
    );
    let cloud = pair.cloud_events();
    assert!(
        cloud.contains(&Event::SendFrom {
            key: down,
            after: Seq(1)
        }),
        "{cloud:?}"
    );
    assert!(pair.cloud.accepts(&key(Lane::UpData, EDGE)));
    assert!(!pair.cloud.accepts(&key(Lane::UpData, CLOUD)));
    assert!(pair.edge.accepts(&key(Lane::Down, CLOUD)));
}

#[test]
fn a_new_incarnation_of_the_cloud_is_sent_from_its_beginning() {
    let (edge_log, cloud_log) = (Marks::default(), Marks::default());
    let old = key(Lane::Down, Incarnation([9; 16]));
    edge_log.push(&old, 50, 50);
    cloud_log.push(&key(Lane::Down, CLOUD), 2, 2);
    let mut pair = Pair::new(edge_log, cloud_log);
    assert_eq!(pair.exchange(), (None, None));
    let cloud = pair.cloud_events();
    assert!(
        cloud.contains(&Event::SendFrom {
            key: key(Lane::Down, CLOUD),
            after: Seq(0)
        }),
        "{cloud:?}"
    );
}

#[test]
fn what_must_not_be_mixed_is_refused_by_name() {
    let refused = |pair: &mut Pair| match pair.exchange() {
        (Some(SessionError::Refused { reason, message }), Some(SessionError::Refusing { .. }))
        | (Some(SessionError::Refusing { message, .. }), Some(SessionError::Refused { reason, .. })) => {
            (reason, message)
        }
        other => panic!("{other:?}"),
    };
    let foreign = Local {
        cluster: ClusterId([8; 16]),
        ..local("edge-1", EDGE)
    };
    let mut pair = Pair::with(
        foreign,
        local("edge-1", CLOUD),
        Marks::default(),
        Marks::default(),
    );
    assert_eq!(refused(&mut pair).0, "ForeignCluster");

    let mut pair = Pair::with(
        local("edge-1", EDGE),
        local("edge-2", CLOUD),
        Marks::default(),
        Marks::default(),
    );
    let (reason, message) = refused(&mut pair);
    assert_eq!(reason, "NodeMismatch");
    assert!(
        message.contains("edge-1") && message.contains("edge-2"),
        "{message}"
    );

    let edge_log = Marks::default();
    edge_log.push(&key(Lane::Down, CLOUD), 7, 7);
    assert_eq!(
        refused(&mut Pair::new(edge_log, Marks::default())).0,
        "CloudRolledBack"
    );

    let mut pair = Pair::new(Marks::default(), Marks::default());
    let Some(Message::Hello(hello)) = pair.edge.poll_transmit(pair.now) else {
        panic!()
    };
    let older = v1::Hello { version: 1, ..hello };
    let err = pair
        .cloud
        .handle_message(Message::Hello(older), &pair.cloud_log, pair.now)
        .unwrap_err();
    assert!(
        matches!(
            err,
            SessionError::Refusing {
                reason: RefuseReason::Version,
                ..
            }
        ),
        "{err}"
    );
}

#[test]
fn acks_of_state_go_at_once_and_those_of_telemetry_are_coalesced() {
    let edge_log = Marks::default();
    edge_log.push(&key(Lane::UpData, EDGE), 3, 3);
    edge_log.push(&key(Lane::UpState, EDGE), 1, 1);
    let mut pair = Pair::new(edge_log, Marks::default());
    pair.exchange();
    let at = |seq| Mark {
        position: Position {
            epoch: Epoch::FIRST,
            seq: Seq(seq),
        },
        chain: Chain([3; 16]),
    };
    pair.cloud
        .handle_durable(&key(Lane::UpData, EDGE), at(2), pair.now);
    pair.cloud
        .handle_durable(&key(Lane::UpData, EDGE), at(3), pair.now);
    pair.cloud
        .handle_durable(&key(Lane::UpState, EDGE), at(1), pair.now);
    let acks = |pair: &mut Pair| {
        std::iter::from_fn(|| pair.cloud.poll_transmit(pair.now))
            .filter_map(|m| match m {
                Message::Ack(ack) => Some((ack.lane, ack.durable_seq)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(acks(&mut pair), [(Lane::UpState.as_wire(), 1)]);
    assert!(pair.cloud.poll_timeout().unwrap() <= pair.now + DATA_ACK_DELAY);
    pair.now += DATA_ACK_DELAY;
    assert_eq!(acks(&mut pair), [(Lane::UpData.as_wire(), 3)]);
}

#[test]
fn a_half_open_link_is_noticed_within_two_heartbeats_and_heartbeats_keep_it_alive() {
    let mut pair = Pair::new(Marks::default(), Marks::default());
    pair.exchange();
    let start = pair.now;
    for _ in 0..40 {
        pair.now += HEARTBEAT / 4;
        pair.edge.handle_timeout(pair.now).unwrap();
        pair.cloud.handle_timeout(pair.now).unwrap();
        assert_eq!(pair.exchange(), (None, None));
    }
    assert!(pair.now > start + HEARTBEAT * 9);
    // From here on nothing passes.
    let cut = pair.now;
    let silent = loop {
        pair.now += HEARTBEAT / 4;
        while pair.edge.poll_transmit(pair.now).is_some() {}
        if let Err(err) = pair.edge.handle_timeout(pair.now) {
            break err;
        }
    };
    assert!(matches!(silent, SessionError::Silent(_)), "{silent}");
    assert!(pair.now - cut <= HEARTBEAT * 2);
    assert_eq!(pair.edge.poll_timeout(), None);
}

#[test]
fn an_ack_beyond_what_was_written_ends_the_session() {
    let mut pair = Pair::new(Marks::default(), Marks::default());
    pair.exchange();
    let ack = v1::Ack {
        scope: "edge-1".into(),
        lane: Lane::UpData.as_wire(),
        incarnation: EDGE.0.to_vec(),
        epoch: 1,
        durable_seq: 99,
        durable_chain: vec![0; 16],
        ..Default::default()
    };
    let err = pair
        .edge
        .handle_message(Message::Ack(ack), &pair.edge_log, pair.now)
        .unwrap_err();
    assert!(matches!(err, SessionError::Protocol(_)), "{err}");
    assert!(!pair.edge.is_open());
}

#[test]
fn idle_heartbeats_are_rare_and_tiny_and_both_ends_know_when_the_next_one_comes() {
    let idle = Local {
        heartbeat_idle: HEARTBEAT * 5,
        ..local("edge-1", CLOUD)
    };
    let mut pair = Pair::with(local("edge-1", EDGE), idle, Marks::default(), Marks::default());
    pair.exchange();
    let heads = |seq| {
        vec![v1::LaneHead {
            scope: "edge-1".into(),
            lane: 3,
            seq,
            oldest_unacked_ms: 0,
            unreadable: 0,
        }]
    };
    pair.edge.set_heads(heads(7), pair.now);
    let (mut sent, mut pings) = (Vec::new(), Vec::new());
    for second in 0..200 {
        pair.now += Duration::from_secs(1);
        pair.edge.handle_timeout(pair.now).unwrap();
        pair.cloud.handle_timeout(pair.now).unwrap();
        while let Some(message) = pair.edge.poll_transmit(pair.now) {
            sent.push(second);
            pings.push(wire::encode(message.clone()).unwrap().len());
            pair.cloud
                .handle_message(message, &pair.cloud_log, pair.now)
                .unwrap();
        }
        pair.exchange();
    }
    assert!(sent.len() <= 12, "{sent:?}");
    assert_eq!(pings.last(), Some(&6), "{pings:?}");
    assert_eq!(pair.cloud.peer_heartbeat(), HEARTBEAT * 5);
    let news = |events: Vec<Event>| {
        events
            .into_iter()
            .filter(|event| matches!(event, Event::PeerHeads(_)))
            .count()
    };
    assert_eq!(news(pair.cloud_events()), 1, "heads are told when they change");
    // News brings the next one within the shortest interval, and the interval back.
    pair.edge.set_heads(heads(8), pair.now);
    pair.now += HEARTBEAT;
    pair.edge.handle_timeout(pair.now).unwrap();
    pair.exchange();
    assert_eq!(pair.cloud.peer_heartbeat(), HEARTBEAT);
    assert_eq!(news(pair.cloud_events()), 1);
    // Two missed ones of those in force, and the link is given up.
    pair.now += HEARTBEAT * 2;
    assert!(pair.cloud.handle_timeout(pair.now).is_err());
}

#[test]
fn archived_is_told_apart_from_durable_and_never_ahead_of_it() {
    let edge_log = Marks::default();
    let data = key(Lane::UpData, EDGE);
    for seq in 1..=9 {
        edge_log.push(&data, seq, u8::try_from(seq).unwrap());
    }
    let explicit = Local {
        archive: ArchivePolicy::Explicit,
        ..local("edge-1", CLOUD)
    };
    let mut pair = Pair::with(local("edge-1", EDGE), explicit, edge_log, Marks::default());
    pair.exchange();
    pair.edge_events();
    let mark = pair.edge_log.mark_at(&data, Seq(4)).unwrap();
    pair.cloud.handle_durable(&data, mark, pair.now);
    pair.cloud.handle_archived(&data, Seq(8), pair.now);
    pair.now += DATA_ACK_DELAY;
    assert_eq!(pair.exchange(), (None, None));
    let archived = |events: Vec<Event>| {
        events
            .into_iter()
            .filter_map(|event| match event {
                Event::PeerArchived { seq, .. } => Some(seq.0),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(archived(pair.edge_events()), [4]);
    let mark = pair.edge_log.mark_at(&data, Seq(9)).unwrap();
    pair.cloud.handle_durable(&data, mark, pair.now);
    pair.now += DATA_ACK_DELAY;
    assert_eq!(pair.exchange(), (None, None));
    assert_eq!(archived(pair.edge_events()), [8]);
}

mod messages;
