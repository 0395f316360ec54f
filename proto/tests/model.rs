//! A model of fencing, checked state by state: disks that are copied, put back, cut short and replaced, a cloud that
//! is put back, ends that let go of what is archived, and every handshake in between cut anywhere. The handshake is the
//! real session at both ends, and so are the decisions.
//!
//! `LEDGE_MODEL_STATES=1000000 cargo test --release -p ledge-proto --test model` looks further.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use std::collections::BTreeSet;

use ledge_proto::fence::{self, Resolution};
use ledge_proto::ids::{Lane, Seq, StreamKey};
use stateright::{Checker, Expectation, Model, Property};
use world::{Edge, End, Link, Log, Told, established, was_reset};

/// States looked at in an ordinary test run.
const STATES: usize = 200_000;
/// How many of them are different, at least: fewer would mean that the model has come to a stop somewhere.
const DIFFERENT: usize = 80_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// The node's disk, and a copy of it that somebody starts.
    disks: [Option<Edge>; 2],
    /// An image of the disk, taken earlier.
    image: Option<Edge>,
    cloud: Log,
    backup: Option<Log>,
    /// The disk whose session the cloud believes to be established.
    live: Option<usize>,
    /// What was acknowledged.
    acked: BTreeSet<(StreamKey, u64)>,
    /// Every fault of a disk so far, and of the cloud.
    disk_faults: u8,
    cloud_faults: u8,
    /// The disk let in last since it was copied.
    last_in: Option<usize>,
    writes: u8,
    meets: u8,
    let_go: u8,
    says: u64,
    broken: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    Write(usize),
    /// Dials; after so many steps nothing more passes, and the daemon named crashes.
    Meet {
        disk: usize,
        cut: Option<(usize, Crash)>,
    },
    /// The cloud notices that a session is over.
    Close,
    Restart(usize),
    Copy,
    Image,
    PutBack,
    CutShort,
    Replace,
    BackUpCloud,
    PutBackCloud {
        told: bool,
    },
    NewLeader,
    Resolve {
        this: bool,
    },
    /// An edge lets go of the telemetry it knows to be archived, or the cloud of what it holds, which is.
    LetGo(Holder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    Disk(usize),
    Cloud,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Crash {
    Nobody,
    Edge,
    Cloud,
}

struct Fencing;

impl Model for Fencing {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut edge = Edge::new(2);
        edge.start(1);
        let cloud = Log {
            cloud: fence::begin_leadership(Default::default()),
            ..Log::default()
        };
        let first = State {
            disks: [Some(edge), None],
            image: None,
            cloud,
            backup: None,
            live: None,
            acked: BTreeSet::new(),
            disk_faults: 0,
            cloud_faults: 0,
            last_in: None,
            writes: 0,
            meets: 0,
            let_go: 0,
            says: 1,
            broken: None,
        };
        // A node that has been acknowledged something since its cloud was backed up, and knows that it is archived.
        let mut later = first.clone();
        later.meet(0, None);
        later.backup = Some(later.cloud.clone());
        let says = later.next();
        if let Some(edge) = &mut later.disks[0] {
            edge.write(Lane::UpData, says);
        }
        later.meet(0, None);
        later.meet(0, None);
        vec![first, later]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        for disk in [0, 1] {
            if state.disks[disk].is_none() {
                continue;
            }
            if state.writes < 3 {
                actions.push(Action::Write(disk));
            }
            if state.meets < 5 {
                actions.push(Action::Meet { disk, cut: None });
                // HELLO, WELCOME, CONFIRM, and what has to be durable in between.
                let cuts = [
                    (1, Crash::Cloud),
                    (2, Crash::Nobody),
                    (2, Crash::Cloud),
                    (3, Crash::Edge),
                    (5, Crash::Edge),
                    (6, Crash::Cloud),
                ];
                actions.extend(cuts.map(|cut| Action::Meet { disk, cut: Some(cut) }));
            }
            if state.writes < 3 {
                actions.push(Action::Restart(disk));
            }
            if state.let_go < 2 {
                actions.push(Action::LetGo(Holder::Disk(disk)));
            }
        }
        if state.let_go < 2 {
            actions.push(Action::LetGo(Holder::Cloud));
        }
        if state.live.is_some() {
            actions.push(Action::Close);
        }
        if state.disk_faults < 2 {
            actions.push(Action::Replace);
            actions.push(Action::CutShort);
            if state.disks[1].is_none() {
                actions.push(Action::Copy);
            }
            actions.push(if state.image.is_none() {
                Action::Image
            } else {
                Action::PutBack
            });
        }
        if state.cloud_faults < 1 {
            match state.backup {
                None => actions.push(Action::BackUpCloud),
                Some(_) => actions.extend([true, false].map(|told| Action::PutBackCloud { told })),
            }
        }
        actions.push(Action::NewLeader);
        if state.cloud.node.quarantine.is_some() {
            actions.extend([true, false].map(|this| Action::Resolve { this }));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Write(disk) => {
                state.writes += 1;
                let says = state.next();
                state.disks[disk].as_mut()?.write(Lane::UpData, says);
            }
            Action::Restart(disk) => {
                state.writes += 1;
                let says = state.next();
                state.disks[disk].as_mut()?.start(says);
            }
            Action::Meet { disk, cut } => state.meet(disk, cut),
            Action::Close => state.live = None,
            Action::Copy => {
                state.disk_faults += 1;
                state.last_in = None;
                let says = state.next();
                let mut copy = state.disks[0].clone()?;
                copy.start(says);
                state.disks[1] = Some(copy);
            }
            Action::Image => state.image.clone_from(&state.disks[0]),
            Action::PutBack => {
                state.disk_faults += 1;
                state.live = None;
                let says = state.next();
                let mut edge = state.image.clone()?;
                edge.start(says);
                state.disks[0] = Some(edge);
            }
            Action::CutShort => {
                state.disk_faults += 1;
                state.live = None;
                let says = state.next();
                let edge = state.disks[0].as_mut()?;
                let data = edge.key(Lane::UpData);
                edge.log.streams.get_mut(&data)?.pop()?;
                edge.start(says);
            }
            Action::Replace => {
                state.disk_faults += 1;
                let says = state.next();
                let mut edge = Edge::new(10 + state.disk_faults);
                edge.start(says);
                state.disks[0] = Some(edge);
            }
            Action::BackUpCloud => state.backup = Some(state.cloud.clone()),
            Action::PutBackCloud { told } => {
                state.cloud_faults += 1;
                state.live = None;
                state.cloud = state.backup.take()?;
                state.cloud.cloud = fence::begin_leadership(state.cloud.cloud);
                if told {
                    state.cloud.cloud = fence::raise_restore_generation(state.cloud.cloud, 0);
                }
                // What only the lost copy held is lost, until the edge sends it again.
                let (acked, cloud) = (std::mem::take(&mut state.acked), &state.cloud);
                state.acked = acked
                    .into_iter()
                    .filter(|(key, says)| cloud.says(key).contains(says))
                    .collect();
            }
            Action::NewLeader => {
                if state.cloud.cloud.cloud_epoch >= 3 {
                    return None;
                }
                state.live = None;
                state.cloud.cloud = fence::begin_leadership(state.cloud.cloud);
            }
            Action::Resolve { this } => {
                let why = state.cloud.node.quarantine.clone()?;
                let resolution = if this {
                    Resolution::ThisDisk {
                        incarnation: ledge_proto::ids::Incarnation::from_slice(&why.incarnation).unwrap(),
                        token: why.token.unwrap_or_default(),
                    }
                } else {
                    Resolution::NewIncarnation
                };
                state.last_in = None;
                state.cloud.node = fence::resolve(state.cloud.node.clone(), resolution);
            }
            Action::LetGo(holder) => {
                state.let_go += 1;
                state.let_go_of_archived(holder)?;
            }
        }
        state.check_acked();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let never = |what: &'static str| -> fn(&Fencing, &State) -> bool {
            match what {
                LOST => |_, state| state.broken != Some(LOST),
                FORK => |_, state| state.broken != Some(FORK),
                ARCHIVED => |_, state| state.broken != Some(ARCHIVED),
                PROGRESS => |_, state| state.broken != Some(PROGRESS),
                _ => |_, state| state.broken != Some(COPIES),
            }
        };
        vec![
            Property::always("what was acknowledged is never lost", never(LOST)),
            Property::always("no fork is accepted", never(FORK)),
            Property::always(
                "archived is never ahead of durable, and never goes back",
                never(ARCHIVED),
            ),
            Property::always("a node without a fault gets through", never(PROGRESS)),
            Property::always("two copies are not both let in", never(COPIES)),
            Property::always("no quarantine without a fault", |_, state: &State| {
                state.disk_faults > 0 || state.cloud_faults > 0 || state.cloud.node.quarantine.is_none()
            }),
            Property::sometimes("history is lost, and the node goes on", |_, state: &State| {
                state.disks[0].as_ref().is_some_and(|edge| {
                    let end = edge.log.end(&edge.key(Lane::UpData));
                    end.is_some_and(|end| end.position.epoch.0 > 1)
                        && end == state.cloud.end(&edge.key(Lane::UpData))
                })
            }),
            Property::sometimes("a copy is found", |_, state: &State| {
                state.cloud.node.quarantine.is_some()
            }),
            Property::sometimes(
                "what an edge let go of is gone on a cloud that was put back",
                |_, state: &State| {
                    // And they go on all the same: a snapshot took its place.
                    let Some(edge) = &state.disks[0] else { return false };
                    let key = edge.key(Lane::UpData);
                    let held = state.cloud.says(&key);
                    edge.log.held_after.contains_key(&key)
                        && edge.log.says(&key).iter().any(|says| !held.contains(says))
                        && edge.log.end(&key) == state.cloud.end(&key)
                },
            ),
        ]
    }
}

const LOST: &str = "lost";
const FORK: &str = "fork";
const ARCHIVED: &str = "archived";
const PROGRESS: &str = "progress";
const COPIES: &str = "copies";

impl State {
    fn next(&mut self) -> u64 {
        self.says += 1;
        self.says
    }

    fn meet(&mut self, disk: usize, cut: Option<(usize, Crash)>) {
        self.meets += 1;
        let Some(mut edge) = self.disks[disk].take() else {
            return;
        };
        self.cloud.other_session = self.live.is_some();
        let mut link = Link::dial(&edge, &self.cloud, self.meets);
        link.begin(&mut edge, &mut self.cloud);
        match cut {
            None => link.run(&mut edge, &mut self.cloud),
            Some((steps, _)) => {
                for _ in 0..steps {
                    if let Some(step) = link.steps(&edge, &self.cloud).first() {
                        link.step(*step, &mut edge, &mut self.cloud);
                    }
                }
            }
        }
        self.cloud.other_session = false;
        let told = std::mem::take(&mut link.told);
        if link.established(End::Cloud) {
            self.live = Some(disk);
        }
        match cut {
            Some((_, Crash::Edge)) => {
                link.crash(End::Edge, true, &mut edge, &mut self.cloud);
                let says = self.next();
                edge.start(says);
            }
            Some((_, Crash::Cloud)) => {
                link.crash(End::Cloud, true, &mut edge, &mut self.cloud);
                self.live = None;
            }
            _ => {}
        }
        if told.iter().any(|told| matches!(told, Told::Quarantine(_))) {
            self.live = None;
        }
        self.judge(disk, &edge, cut.is_none(), &told);
        self.disks[disk] = Some(edge);
    }

    fn judge(&mut self, disk: usize, edge: &Edge, whole: bool, told: &[Told]) {
        for told in told {
            match told {
                Told::Acked(key, mark) if key.id.lane != Lane::Down => {
                    let held = self.cloud.standing(key);
                    if !held.iter().any(|item| item.mark() == *mark) && mark.position.seq.0 > 0 {
                        self.broken = Some(LOST);
                    }
                    self.acked.extend(
                        held.into_iter()
                            .filter_map(world::says)
                            .map(|says| (key.clone(), says)),
                    );
                }
                Told::Archived(key, seq)
                    if key.id.lane != Lane::Down
                        && self.cloud.end(key).is_none_or(|end| *seq > end.position.seq) =>
                {
                    self.broken = Some(ARCHIVED);
                }
                _ => {}
            }
        }
        let mut archived: Vec<_> = told
            .iter()
            .filter_map(|told| match told {
                Told::Archived(key, seq) => Some((key, seq)),
                _ => None,
            })
            .collect();
        archived.sort_by_key(|(key, _)| *key);
        if archived
            .windows(2)
            .any(|two| two[0].0 == two[1].0 && two[0].1 >= two[1].1)
        {
            self.broken = Some(ARCHIVED);
        }
        if !whole {
            return;
        }
        if established(told) {
            let in_step = [Lane::UpState, Lane::UpData].into_iter().all(|lane| {
                let key = edge.key(lane);
                edge.log.end(&key).map(|end| end.chain) == self.cloud.end(&key).map(|end| end.chain)
            });
            if !in_step {
                self.broken = Some(FORK);
            }
            if self.last_in.is_some_and(|last| last != disk) && self.disk_faults == 1 && !was_reset(told) {
                self.broken = Some(COPIES);
            }
            self.last_in = self.disks[1 - disk].is_some().then_some(disk);
        } else if self.disk_faults == 0 && self.cloud_faults == 0 {
            self.broken = Some(PROGRESS);
        }
    }

    /// `None`: there is nothing to let go of.
    fn let_go_of_archived(&mut self, holder: Holder) -> Option<()> {
        let (key, archived) = match holder {
            Holder::Disk(disk) => {
                let edge = self.disks[disk].as_ref()?;
                let key = edge.key(Lane::UpData);
                let acked = edge.log.edge.acknowledged.iter().find(|acked| {
                    acked.lane == key.id.lane.as_wire() && acked.incarnation == key.incarnation.0
                })?;
                // The note is behind what it tells of in the one log of the node: a log cut short that lost a record has
                // lost the note of it.
                let durable = acked.durable.as_ref()?;
                let held = edge.log.standing(&key);
                let there = |chain: &[u8]| held.iter().any(|item| item.mark().chain.0.as_slice() == chain);
                if !there(&durable.chain) {
                    return None;
                }
                (key, Seq(acked.archived_seq))
            }
            Holder::Cloud => {
                let edge = self.disks[0].as_ref()?;
                let key = edge.key(Lane::UpData);
                let end = self.cloud.end(&key)?;
                (key, end.position.seq)
            }
        };
        let log = match holder {
            Holder::Disk(disk) => &mut self.disks[disk].as_mut()?.log,
            Holder::Cloud => &mut self.cloud,
        };
        if archived <= log.held_after.get(&key).copied().unwrap_or(Seq::ZERO) {
            return None;
        }
        log.held_after.insert(key.clone(), archived);
        // What goes is in the cloud, unless the cloud itself was put back.
        let gone: Vec<u64> = log
            .standing(&key)
            .into_iter()
            .filter(|item| item.mark().position.seq <= archived)
            .filter_map(world::says)
            .collect();
        let held = self.cloud.says(&key);
        if self.cloud_faults == 0 && gone.iter().any(|says| !held.contains(says)) {
            self.broken = Some(LOST);
        }
        Some(())
    }

    fn check_acked(&mut self) {
        if self
            .acked
            .iter()
            .any(|(key, says)| !self.cloud.says(key).contains(says))
        {
            self.broken = Some(LOST);
        }
    }
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "how far a test looks is no input of proto"
)]
fn fencing_holds_in_every_state() {
    let states = std::env::var("LEDGE_MODEL_STATES")
        .ok()
        .and_then(|states| states.parse().ok())
        .unwrap_or(STATES);
    let checker = Fencing
        .checker()
        .threads(2)
        .target_state_count(states)
        .spawn_bfs()
        .join();
    println!(
        "{} states, {} of them different",
        checker.state_count(),
        checker.unique_state_count()
    );
    let found = checker.discoveries();
    for property in Fencing.properties() {
        match (property.expectation, found.get(property.name)) {
            (Expectation::Sometimes, Some(_)) | (Expectation::Always, None) => {}
            (Expectation::Sometimes, None) => panic!("{}: never seen", property.name),
            (Expectation::Eventually, None) => {}
            (_, Some(path)) => panic!(
                "{}: {:#?}\n{:#?}",
                property.name,
                path.clone().into_actions(),
                path.last_state()
            ),
        }
    }
    assert!(checker.unique_state_count() >= DIFFERENT);
}
