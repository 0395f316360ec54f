//! The world: machines, connections, time. One step is one event and the checks that follow it.

use std::collections::BTreeMap;

use ledge_log::AppendError;
use ledge_log::storage::sim::{CrashKeeps, Rng};
use ledge_proto::ids::{Lane, Mark, Scope, StreamId, StreamKey};

use super::clock::Clock;
use super::events::{Event, Events};
use super::link::{Link, LinkId, Side};
use super::machine::{CLOUD, Machine, MachineId, Process, Projection};
use super::oracle::Oracle;
use super::plan::{Mix, Plan, around};
use super::trace::Trace;
use super::violation::{Checked, Violation, ensure};
use super::workload::{Moment, record};
use ledge_retention::{Policy, Retention};

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
    next_record: u64,
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
                note!(self, "{} has room again", self.machines[machine].name);
                Ok(())
            }
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
        if machine.process.is_some() {
            return Ok(());
        }
        if self.looks.below(4) == 0 {
            self.probe_rot(id)?;
        }
        let machine = &mut self.machines[id];
        machine.life += 1;
        machine.clock.boot(self.now_us);
        let seed = self.plan.seed ^ (u64::from(machine.life) << 40) ^ ((id as u64) << 56);
        let opened = machine.open(seed, self.mix.segment_bytes);
        if machine.disk.has_crashed() {
            return self.power_loss(id);
        }
        let (log, recovery) = match opened {
            Ok(opened) => opened,
            Err(err) => return self.cannot_open(id, &err),
        };
        note!(
            self,
            "{} starts: {}boot {} blocks {} to {}{}",
            self.machines[id].name,
            if recovery.created { "new log, " } else { "" },
            log.identity().boot,
            recovery.first_block,
            recovery.last_block,
            recovery
                .torn_at
                .map_or(String::new(), |at| format!(", torn at {at}")),
        );
        let policy = Policy {
            degrade: self.mix.degrade,
            ..Policy::default()
        };
        let machine = &mut self.machines[id];
        machine.projection.trust(&log);
        machine.process = Some(Process {
            log,
            retention: Retention::new(policy),
            archived: BTreeMap::new(),
        });
        self.fold(id)?;
        for stream in self.written_by(id) {
            self.harvest(id, &stream, false)?;
        }
        self.check_duties(id)?;
        if id == CLOUD {
            self.oracle.found(&self.machines[CLOUD])?;
        }
        if id != CLOUD {
            let at = self.now_us + 1 + self.rng.below(100_000);
            let life = self.machines[id].life;
            self.events.add(at, Event::Dial { machine: id, life });
        }
        Ok(())
    }

    /// Opening failed without a power loss. An error of the device may pass; anything else may not happen.
    fn cannot_open(&mut self, id: MachineId, err: &ledge_log::OpenError) -> Checked {
        note!(self, "{} cannot open its log: {err}", self.machines[id].name);
        if matches!(err, ledge_log::OpenError::Io { .. }) {
            self.restart_later(id);
            return Ok(());
        }
        Err(Violation::new(
            "opens-again",
            format!("{}: {err}", self.machines[id].name),
        ))
    }

    /// The daemon ends, whatever the reason; nothing is said to anybody.
    fn end_process(&mut self, id: MachineId) {
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
        let keeps = match seed % 4 {
            0 => CrashKeeps::Nothing,
            1 => CrashKeeps::Everything,
            _ => CrashKeeps::Random(seed),
        };
        let disk = self.machines[id].disk.after_crash(&keeps);
        note!(
            self,
            "{} loses power with {:?} unsynced",
            self.machines[id].name,
            self.machines[id].disk.pending(),
        );
        self.machines[id].disk = disk;
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
            note!(self, "{} closes its log: {err}", self.machines[id].name);
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
        note!(self, "{} does not append: {err}", self.machines[id].name);
        match err {
            AppendError::Poisoned { .. } => self.kill(id),
            AppendError::DiskFull { .. } => Ok(()),
            other => Err(Violation::new(
                "appends",
                format!("{}: {other}", self.machines[id].name),
            )),
        }
    }

    // --- Writing --------------------------------------------------------------------------------------------

    fn work(&mut self, id: MachineId) -> Checked {
        if self.calm {
            return Ok(());
        }
        let next = self.now_us + around(&mut self.rng, self.mix.work_every_us);
        self.events.add(next, Event::Work(id));
        let lane = if self.rng.below(4) == 0 {
            Lane::UpState
        } else {
            Lane::UpData
        };
        let Some(scope) = self.machines[id].scope.clone() else {
            return Ok(());
        };
        self.append(id, &StreamId::new(scope, lane))
    }

    fn desire(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        let next = self.now_us + around(&mut self.rng, self.mix.desire_every_us);
        self.events.add(next, Event::Desire);
        let streams = self.cloud_streams();
        let stream = &streams[self.rng.index(streams.len())];
        self.append(CLOUD, stream)
    }

    /// The replicated streams a machine writes.
    pub(super) fn written_by(&self, id: MachineId) -> Vec<StreamId> {
        if id == CLOUD {
            self.cloud_streams()
        } else {
            self.machines[id].own_streams()
        }
    }

    /// The streams the cloud writes.
    pub(super) fn cloud_streams(&self) -> Vec<StreamId> {
        let nodes = self.machines.iter().filter_map(|machine| machine.scope.clone());
        let mut scopes: Vec<Scope> = nodes.collect();
        scopes.push(Scope::cluster());
        scopes.dedup();
        scopes
            .into_iter()
            .map(|scope| StreamId::new(scope, Lane::Down))
            .collect()
    }

    fn append(&mut self, id: MachineId, stream: &StreamId) -> Checked {
        let machine = &self.machines[id];
        let Some(process) = &machine.process else {
            return Ok(());
        };
        let log = process.log.clone();
        let moment = Moment {
            wall_us: machine.clock.wall_us(self.now_us),
            mono_us: u64::try_from(machine.clock.since_boot(self.now_us).as_micros()).unwrap_or(u64::MAX),
            boot: log.identity().boot,
        };
        let count = 1 + self.rng.below(4);
        let mut records = Vec::new();
        for _ in 0..count {
            self.next_record += 1;
            records.push(record(&mut self.rng, stream.lane, self.next_record, moment));
        }
        let mut appended = log.append_blocking(stream, records.clone());
        if matches!(appended, Err(AppendError::DiskFull { .. })) && !self.machines[id].disk.has_crashed() {
            self.retain(id)?;
            if self.machines[id].process.is_none() {
                return Ok(());
            }
            appended = log.append_blocking(stream, records);
        }
        match appended {
            Ok(appended) => {
                note!(
                    self,
                    "{} writes {stream} {} to {}",
                    self.machines[id].name,
                    appended.first,
                    appended.last
                );
                let key = log.own_key(stream);
                let durable = log.durable(&key);
                ensure(
                    durable.is_some_and(|mark| mark.position >= appended.last),
                    "I2-acked-is-durable",
                    || format!("{key}: acknowledged {}, durable {durable:?}", appended.last),
                )?;
                self.harvest(id, stream, true)?;
                self.retain_if_blocked(id)?;
                self.pump_all(id)
            }
            Err(err) => self.append_failed(id, &err),
        }
    }

    /// Takes what a machine has newly written of one of its own streams over into the oracle. With `acked`, its
    /// disk has to hold it from now on.
    pub(super) fn harvest(&mut self, id: MachineId, stream: &StreamId, acked: bool) -> Checked {
        let machine = &mut self.machines[id];
        let Some(process) = &machine.process else {
            return Ok(());
        };
        let key = process.log.own_key(stream);
        let Some(end) = process.log.durable(&key) else {
            return Ok(());
        };
        let known = machine.harvested.get(&key).copied();
        let mut last = known.map_or(
            Mark {
                chain: key.genesis_chain(),
                position: ledge_proto::ids::Position::ZERO,
            },
            |mark| mark,
        );
        let mut reader = process.log.read_stream(&key, last.position.seq);
        while let Some(frame) = reader
            .next()
            .map_err(|err| Violation::new("I1-dense", format!("{key}: {err}")))?
        {
            ensure(frame.first_seq() == last.position.seq.next(), "I1-dense", || {
                format!("{key}: frame {} after {}", frame.first_seq(), last.position)
            })?;
            frame
                .follows(last.chain)
                .map_err(|err| Violation::new("I1-dense", format!("{key} {}: {err}", frame.first_seq())))?;
            self.oracle.write(&frame, last.chain);
            last = frame.mark();
        }
        ensure(last == end, "I1-dense", || {
            format!("{key}: readable to {last:?}, durable to {end:?}")
        })?;
        machine.harvested.insert(key.clone(), end);
        if acked {
            machine.duties.insert(key, end);
        }
        Ok(())
    }

    /// What a disk has to hold is there, as it was.
    fn check_duties(&self, id: MachineId) -> Checked {
        let machine = &self.machines[id];
        let Some(process) = &machine.process else {
            return Ok(());
        };
        for (key, duty) in &machine.duties {
            self.check_duty(&machine.name, &process.log, key, *duty)?;
        }
        Ok(())
    }

    /// A machine promised its peer that it holds `mark`: it must be there even if the power goes now.
    pub(super) fn promised(&mut self, id: MachineId, key: &StreamKey, mark: Mark) -> Checked {
        let machine = &mut self.machines[id];
        let held = machine
            .process
            .as_ref()
            .and_then(|process| process.log.durable(key));
        ensure(
            held.is_some_and(|held| held.position >= mark.position),
            "ack-within-durable",
            || {
                format!(
                    "{} acknowledges {key} {}, holds {held:?}",
                    machine.name, mark.position
                )
            },
        )?;
        ensure(self.oracle.was_written(key, mark), "prefix-of-its-writer", || {
            format!(
                "{} acknowledges {key} {}, which nobody wrote",
                machine.name, mark.position
            )
        })?;
        let duty = machine.duties.entry(key.clone()).or_insert(mark);
        if mark.position > duty.position {
            *duty = mark;
        }
        // Opening a copy of the disk costs more than a step: now and then is enough over many seeds.
        if self.looks.below(32) == 0 && !self.machines[id].disk.has_crashed() {
            self.probe_crash(id, key, mark)?;
        }
        Ok(())
    }

    // --- Upkeep ---------------------------------------------------------------------------------------------

    fn upkeep(&mut self, id: MachineId) -> Checked {
        self.events.add(self.now_us + UPKEEP_US, Event::Upkeep(id));
        self.retain(id)?;
        self.fold(id)?;
        if id != CLOUD {
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

    /// A projection folded from nothing is the one folded step by step.
    pub(super) fn check_replay(&mut self, id: MachineId) -> Checked {
        self.fold(id)?;
        let machine = &self.machines[id];
        let Some(process) = &machine.process else {
            return Ok(());
        };
        let mut replayed = Projection::default();
        replayed
            .catch_up(&process.log)
            .map_err(|err| Violation::new(err.invariant, format!("{}: {}", machine.name, err.detail)))?;
        ensure(replayed.state == machine.projection.state, "I7-replay", || {
            format!("{}: replay gives another state", machine.name)
        })
    }

    /// Where an edge and the cloud have folded the same, their states are the same.
    pub(super) fn check_states(&mut self, id: MachineId) -> Checked<bool> {
        self.fold(CLOUD)?;
        let machine = &self.machines[id];
        let (Some(edge), Some(cloud)) = (&machine.process, &self.machines[CLOUD].process) else {
            return Ok(false);
        };
        let Some(scope) = &machine.scope else {
            return Ok(false);
        };
        let own = edge.log.identity().incarnation;
        let down = cloud.log.identity().incarnation;
        let lanes = [(Lane::UpState, own), (Lane::UpData, own), (Lane::Down, down)];
        let level = lanes.into_iter().all(|(lane, incarnation)| {
            let key = StreamKey {
                id: StreamId::new(scope.clone(), lane),
                incarnation,
            };
            edge.log.durable(&key) == cloud.log.durable(&key)
        });
        if level {
            ensure(
                machine.projection.state.hash(scope) == self.machines[CLOUD].projection.state.hash(scope),
                "state-equal",
                || {
                    format!(
                        "{} and the cloud hold the same records, but not the same state",
                        machine.name
                    )
                },
            )?;
        }
        Ok(level)
    }

    pub(super) fn check_duty(
        &self,
        name: &str,
        log: &ledge_log::Log,
        key: &StreamKey,
        duty: Mark,
    ) -> Checked {
        let held = log.durable(key);
        let there = held.is_some_and(|held| self.oracle.continues(key, duty, held));
        ensure(there, "I2-acked-is-durable", || {
            format!("{name} {key}: acknowledged {}, {held:?} is there", duty.position)
        })
    }
}
