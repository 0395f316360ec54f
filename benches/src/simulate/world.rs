//! The world: machines, connections, time. One step is one event and the checks that follow it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ledge_log::storage::sim::{CrashKeeps, Rng};
use ledge_log::{AppendError, BlockNo, Log, ReadError};
use ledge_proto::fence::{self, FenceUpdate};
use ledge_proto::fold::view;
use ledge_proto::ids::{Lane, Scope, Seq};

use super::clock::Clock;
use super::events::{Event, Events};
use super::link::{Fences, Link, LinkId, Side};
use super::machine::{CLOUD, Image, Machine, MachineId, Process};
use super::oracle::Oracle;
use super::plan::{CLOUD_SEGMENT, FaultKind, Mix, Plan, around};
use super::trace::Trace;
use super::violation::{Checked, Violation};
use super::workload::ids;
use ledge_retention::replay::first_held;
use ledge_retention::{Keeper, Policy, Retention};

/// Adds a line to the trace.
macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        $world.trace.line($world.steps, $world.now_us, format_args!($($what)*))
    };
}
pub(super) use note;

/// 2026-01-01, when the simulated world begins.
const BEGIN_US: i64 = 1_767_225_600_000_000;
/// How long a daemon takes to start, at most.
const START_US: u64 = 2_000_000;
/// Between upkeeps of a machine.
const UPKEEP_US: u64 = 1_000_000;

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) mix: Mix,
    /// Decides what happens.
    pub(super) rng: Rng,
    /// Decides what is looked at closely; what happens must not depend on it.
    pub(super) looks: Rng,
    pub(super) now_us: u64,
    pub(super) steps: u64,
    pub(super) events: Events,
    pub(super) trace: Trace,
    pub(super) machines: Vec<Machine>,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) next_link: LinkId,
    pub(super) oracle: Oracle,
    /// Faults that took place, by kind.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// What else took place: that the faults lead somewhere.
    pub(super) reached: BTreeMap<&'static str, u64>,
    /// Nothing more goes wrong, nobody writes: everything has to converge.
    pub(super) calm: bool,
    /// The cloud's data was put back, and it was not started as such.
    pub(super) restored: bool,
    /// Nodes whose disk was refused because an operator decided for another one.
    pub(super) superseded: BTreeSet<Scope>,
    pub(super) next_record: u64,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        let mix = Mix::draw(&mut rng);
        let mut machines = Vec::with_capacity(plan.edges + 1);
        for n in 0..=plan.edges {
            let drift = i64::try_from(rng.below(20_001)).unwrap_or(0) - 10_000;
            // One in four boots without knowing the time.
            let offset = if n != CLOUD && rng.below(4) == 0 {
                0
            } else {
                BEGIN_US
            };
            let clock = Clock::new(drift, offset);
            let scope = (n != CLOUD)
                .then(|| Scope::node(&format!("edge-{n}")).ok())
                .flatten();
            let name = if n == CLOUD {
                "cloud".to_owned()
            } else {
                format!("edge-{n}")
            };
            let mut machine = Machine::new(name, scope, clock);
            machine.limit = if n == CLOUD {
                mix.cloud_limit
            } else {
                mix.edge_limit
            };
            machine.segment_bytes = mix.segment_bytes * if n == CLOUD { CLOUD_SEGMENT } else { 1 };
            machines.push(machine);
        }
        World {
            plan,
            mix,
            looks: Rng::new(!plan.seed),
            now_us: 0,
            steps: 0,
            events: Events::default(),
            trace: Trace::new(plan.trace),
            machines,
            links: BTreeMap::new(),
            next_link: 0,
            oracle: Oracle::default(),
            faults: BTreeMap::new(),
            reached: BTreeMap::new(),
            calm: false,
            restored: false,
            superseded: BTreeSet::new(),
            next_record: 0,
            rng,
        }
    }

    /// Starts every machine and what goes on by itself.
    pub(super) fn begin(&mut self) -> Checked {
        note!(self, "seed {} {:?}", self.plan.seed, self.mix);
        for machine in 0..self.machines.len() {
            self.start(machine)?;
            let at = self.rng.below(UPKEEP_US);
            self.events.add(at, Event::Upkeep(machine));
            if machine != CLOUD {
                let at = around(&mut self.rng, self.mix.work_every_us);
                self.events.add(at, Event::Work(machine));
            }
        }
        let at = around(&mut self.rng, self.mix.desire_every_us);
        self.events.add(at, Event::Desire);
        let at = around(&mut self.rng, self.mix.fault_every_us);
        self.events.add(at, Event::Fault);
        Ok(())
    }

    /// Carries out the next event.
    pub(super) fn step(&mut self) -> Checked {
        let Some((at, event)) = self.events.next() else {
            return Err(Violation::new("progress", "nothing is left to happen"));
        };
        self.now_us = self.now_us.max(at);
        self.steps += 1;
        match event {
            Event::Work(machine) => self.work(machine),
            Event::Desire => self.desire(),
            Event::Dial { machine, life } if self.machines[machine].life == life => self.dial(machine),
            Event::Start { machine, life } if self.machines[machine].life == life => self.start(machine),
            Event::Dial { .. } | Event::Start { .. } => Ok(()),
            Event::Accept(link) => self.accept(link),
            Event::Deliver { link, to, item } => self.deliver(link, to, item),
            Event::LineFree { link, from } => {
                if let Some(found) = self.links.get_mut(&link) {
                    found.line(from).busy = false;
                }
                self.pump(link, from)
            }
            Event::Timer { link, side, serial } => self.timer(link, side, serial),
            Event::Write { machine, life } if self.machines[machine].life == life => self.write(machine),
            Event::Write { .. } => Ok(()),
            Event::Closed { link, side } => self.close(link, side, "connection closed"),
            Event::Fault => self.fault(),
            Event::Mend(link) => {
                for side in [Side::Edge, Side::Cloud] {
                    self.pump(link, side)?;
                }
                Ok(())
            }
            Event::Room(machine) => {
                self.machines[machine].disk.set_capacity(None);
                note!(self, "{} has room again", self.machines[machine].label);
                Ok(())
            }
            Event::Lied(machine) if self.machines[machine].lie.is_some() => self.power_loss(machine),
            Event::Lied(_) => Ok(()),
            Event::Upkeep(machine) => self.upkeep(machine),
        }
    }

    /// Counts something that is worth knowing to have happened.
    pub(super) fn count_event(&mut self, name: &'static str) {
        *self.reached.entry(name).or_default() += 1;
    }

    /// Counts a fault that took place.
    pub(super) fn count(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    // --- Machines -------------------------------------------------------------------------------------------

    /// The daemon starts: it opens its log, and has to find there what it promised.
    pub(super) fn start(&mut self, id: MachineId) -> Checked {
        let machine = &mut self.machines[id];
        if machine.process.is_some() || machine.retired {
            return Ok(());
        }
        if self.looks.below(4) == 0 {
            self.probe_rot(id)?;
        }
        if self.looks.below(8) == 0 {
            self.probe_refill(id)?;
        }
        let machine = &mut self.machines[id];
        machine.life += 1;
        machine.clock.boot(self.now_us);
        let seed = self.plan.seed ^ (u64::from(machine.life) << 40) ^ ((id as u64) << 56);
        let opened = machine.open(seed);
        if machine.disk.has_crashed() {
            return self.power_loss(id);
        }
        let (log, recovery) = match opened {
            Ok(opened) => opened,
            Err(err) => return self.cannot_open(id, &err),
        };
        if let Some(lied) = self.machines[id].lied.take()
            && let Err(err) = read_all(&log)
        {
            return self.found_out(id, &lied, &err);
        }
        note!(
            self,
            "{} starts: {}boot {} blocks {} to {}{}",
            self.machines[id].label,
            if recovery.created { "new log, " } else { "" },
            log.identity().boot,
            recovery.first_block,
            recovery.last_block,
            recovery
                .torn_at
                .map_or(String::new(), |at| format!(", torn at {at}")),
        );
        let policy = Policy {
            keeper: match self.machines[id].scope {
                Some(_) => Keeper::Node,
                None => Keeper::Cloud,
            },
            degrade: self.mix.degrade,
            ..Policy::default()
        };
        let machine = &mut self.machines[id];
        machine.projection.trust(&log);
        machine.process = Some(Process {
            log,
            retention: Retention::new(policy),
            archived: BTreeMap::new(),
            fences: Fences::default(),
            queue: VecDeque::new(),
        });
        self.fold(id)?;
        if !self.finish_epochs(id)? {
            return Ok(());
        }
        // A log that is full to the last has to let go of something before anything is noted.
        self.retain_if_blocked(id)?;
        if self.machines[id].process.is_none() || !self.load_fences(id)? {
            return Ok(());
        }
        for stream in self.written_by(id) {
            self.harvest(id, &stream, false)?;
        }
        self.check_duties(id)?;
        if self.machines[id].scope.is_none() {
            self.found(id)?;
        } else {
            if recovery.created {
                // As a daemon that starts: so that what an earlier disk said no longer stands.
                for stream in self.machines[id].own_streams() {
                    self.append(id, &stream)?;
                }
            }
            let at = self.now_us + 1 + self.rng.below(100_000);
            let life = self.machines[id].life;
            self.events.add(at, Event::Dial { machine: id, life });
        }
        Ok(())
    }

    /// Reads the fences out of what is folded; a cloud begins a new leadership. Returns whether the daemon still runs.
    fn load_fences(&mut self, id: MachineId) -> Checked<bool> {
        let scopes: BTreeSet<Scope> = self
            .machines
            .iter()
            .filter_map(|machine| machine.scope.clone())
            .collect();
        let machine = &mut self.machines[id];
        let is_cloud = machine.scope.is_none();
        let raise = std::mem::take(&mut machine.raise_generation);
        let bad = |err: &dyn std::fmt::Display| {
            Violation::new("I7-replay", format!("a fence cannot be read: {err}"))
        };
        let state = &machine.projection.state;
        let mut fences = Fences::default();
        for scope in scopes {
            let node = view::node_fence(state, &scope).map_err(|err| bad(&err))?;
            fences
                .nodes
                .extend(node.map(|node| (scope.clone(), node.content)));
            if machine.scope.as_ref() == Some(&scope) {
                let edge = view::edge_fence(state, &scope).map_err(|err| bad(&err))?;
                fences.edge = edge.map(|edge| edge.content).unwrap_or_default();
            }
        }
        let cloud = view::cloud_fence(state).map_err(|err| bad(&err))?;
        fences.cloud = cloud.map(|cloud| cloud.content).unwrap_or_default();
        let wall_us = machine.clock.wall_us(self.now_us);
        if raise {
            fences.cloud = fence::raise_restore_generation(fences.cloud, wall_us);
        }
        if is_cloud {
            fences.cloud = fence::begin_leadership(fences.cloud);
        }
        let cloud = fences.cloud;
        let Some(process) = &mut machine.process else {
            return Ok(false);
        };
        process.fences = fences;
        let log = process.log.clone();
        if is_cloud && let Err(err) = self.note_fence(id, &log, &Scope::cluster(), &FenceUpdate::Cloud(cloud))
        {
            self.machines[id].raise_generation = raise;
            self.append_failed(id, &err)?;
            if self.machines[id].process.is_some() {
                self.kill(id)?;
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// What a cloud holds when it starts: also what it had not acknowledged when it ended.
    fn found(&mut self, id: MachineId) -> Checked {
        let machine = &mut self.machines[id];
        let Some(process) = &machine.process else {
            return Ok(());
        };
        for info in process.log.streams() {
            if info.key.id.lane != Lane::UpData {
                continue;
            }
            let mut reader = process.log.read_stream(&info.key, Seq::ZERO);
            loop {
                match reader.next() {
                    Ok(Some(frame)) => machine.arrived.extend(ids(&frame)?),
                    Ok(None) => break,
                    Err(ReadError::Jump { .. }) => reader.skip_jump(),
                    Err(err) => return Err(Violation::new("I1-dense", format!("{}: {err}", info.key))),
                }
            }
        }
        Ok(())
    }

    /// Opening failed without a power loss. An error of the device may pass; anything else may not happen.
    fn cannot_open(&mut self, id: MachineId, err: &ledge_log::OpenError) -> Checked {
        note!(self, "{} cannot open its log: {err}", self.machines[id].label);
        if let Some(lied) = self.machines[id].lied.take() {
            return self.found_out(id, &lied, err);
        }
        if matches!(err, ledge_log::OpenError::Io { .. }) {
            self.restart_later(id);
            return Ok(());
        }
        Err(Violation::new(
            "opens-again",
            format!("{}: {err}", self.machines[id].label),
        ))
    }

    /// A log does not go on after its disk lied: a node gets an empty disk, the cloud a copy of its own from before.
    fn found_out(&mut self, id: MachineId, lied: &Image, err: &dyn std::fmt::Display) -> Checked {
        note!(self, "{}: its disk lied: {err}", self.machines[id].label);
        self.count_event("lies-found-out");
        if self.machines[id].scope.is_some() {
            return self.reimage(id);
        }
        self.machines[id].put(lied);
        self.restart_later(id);
        Ok(())
    }

    /// The daemon ends, whatever the reason; nothing is said to anybody.
    pub(super) fn end_process(&mut self, id: MachineId) {
        self.machines[id].life += 1;
        self.machines[id].process = None;
        self.machines[id].link = None;
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            let Some(found) = self.links.get_mut(&link) else {
                continue;
            };
            for side in [Side::Edge, Side::Cloud] {
                if found.machine(side) == id {
                    *found.end_mut(side) = None;
                }
            }
            if found.is_dead() {
                self.links.remove(&link);
            }
        }
    }

    /// The machine loses power: what survives on its disk is drawn.
    pub(super) fn power_loss(&mut self, id: MachineId) -> Checked {
        let seed = self.rng.next_u64();
        let lie = self.machines[id].lie.take();
        // A disk that lied about a segment that was given up and written again may have lost what it held before, and
        // the gap that tells of it: nobody could know. So it keeps nothing where that can be.
        let gives_up = self.machines[id].limit.is_some() || self.mix.faults.contains(&FaultKind::DiskFull);
        let keeps = match seed % 4 {
            0 => CrashKeeps::Nothing,
            _ if lie.is_some() && gives_up => CrashKeeps::Nothing,
            1 => CrashKeeps::Everything,
            _ => CrashKeeps::Random(seed),
        };
        let disk = self.machines[id].disk.after_crash(&keeps);
        note!(
            self,
            "{} loses power with {:?} unsynced",
            self.machines[id].label,
            self.machines[id].disk.pending(),
        );
        self.machines[id].disk = disk;
        if let Some(lie) = lie {
            let machine = &mut self.machines[id];
            machine.expect(&lie);
            machine.lied = Some(lie);
            machine.gap_lost |= std::mem::take(&mut machine.gap_in_lie);
            // Of the cloud's data some is gone, as if it had been put back.
            self.restored |= id == CLOUD;
        }
        self.end_process(id);
        self.restart_later(id);
        Ok(())
    }

    /// The daemon dies, the machine does not.
    pub(super) fn kill(&mut self, id: MachineId) -> Checked {
        self.machines[id].disk = self.machines[id].disk.after_kill();
        self.end_process(id);
        self.restart_later(id);
        Ok(())
    }

    /// The daemon is stopped in order: connections are closed, the log too.
    pub(super) fn stop(&mut self, id: MachineId) -> Checked {
        let links: Vec<(LinkId, Side)> = self
            .links
            .iter()
            .flat_map(|(link, found)| {
                [Side::Edge, Side::Cloud]
                    .into_iter()
                    .filter(|side| found.machine(*side) == id)
                    .map(|side| (*link, side))
            })
            .collect();
        for (link, side) in links {
            self.close(link, side, "shut down")?;
        }
        let Some(process) = self.machines[id].process.take() else {
            return Ok(());
        };
        let closed = process.log.close();
        if self.machines[id].disk.has_crashed() {
            return self.power_loss(id);
        }
        if let Err(err) = closed {
            note!(self, "{} closes its log: {err}", self.machines[id].label);
        }
        self.machines[id].disk = self.machines[id].disk.after_kill();
        self.end_process(id);
        self.restart_later(id);
        Ok(())
    }

    pub(super) fn restart_later(&mut self, id: MachineId) {
        let life = self.machines[id].life;
        let at = self.now_us + 1 + self.rng.below(START_US);
        self.events.add(at, Event::Start { machine: id, life });
    }

    /// What to do when the log of a running daemon did not take something.
    pub(super) fn append_failed(&mut self, id: MachineId, err: &AppendError) -> Checked {
        if self.machines[id].disk.has_crashed() {
            return self.power_loss(id);
        }
        note!(self, "{} does not append: {err}", self.machines[id].label);
        match err {
            AppendError::Poisoned { .. } => self.kill(id),
            AppendError::DiskFull { .. } => Ok(()),
            other => Err(Violation::new(
                "appends",
                format!("{}: {other}", self.machines[id].label),
            )),
        }
    }

    // --- Upkeep ---------------------------------------------------------------------------------------------

    fn upkeep(&mut self, id: MachineId) -> Checked {
        if self.machines[id].retired {
            return Ok(());
        }
        self.events.add(self.now_us + UPKEEP_US, Event::Upkeep(id));
        self.retain(id)?;
        self.fold(id)?;
        if self.machines[id].scope.is_some() {
            self.check_states(id)?;
        }
        if self.looks.below(16) == 0 {
            self.check_replay(id)?;
        }
        Ok(())
    }

    /// Folds what a machine's log has gained.
    pub(super) fn fold(&mut self, id: MachineId) -> Checked {
        let Machine {
            name,
            process: Some(process),
            projection,
            ..
        } = &mut self.machines[id]
        else {
            return Ok(());
        };
        projection
            .catch_up(&process.log)
            .map_err(|err| Violation::new(err.invariant, format!("{name}: {}", err.detail)))
    }
}

/// Reads every block a log holds.
fn read_all(log: &Log) -> Result<(), ReadError> {
    let mut reader = log.read_blocks(BlockNo::ZERO);
    loop {
        match reader.next_block() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(err) => reader = first_held(log, &err).ok_or(err)?,
        }
    }
}
