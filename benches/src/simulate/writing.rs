//! Writing: what devices and operators have recorded, and what the oracle learns of it.

use ledge_log::AppendError;
use ledge_proto::ids::{Epoch, Lane, Mark, Scope, StreamId};
use ledge_retention::Degrade;

use super::events::Event;
use super::machine::{CLOUD, MachineId};
use super::plan::around;
use super::violation::{Checked, Violation, ensure};
use super::workload::{Moment, check_summaries, places, record};
use super::world::{World, note};

impl World {
    pub(super) fn work(&mut self, id: MachineId) -> Checked {
        if self.calm || self.machines[id].retired {
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

    pub(super) fn desire(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        let next = self.now_us + around(&mut self.rng, self.mix.desire_every_us);
        self.events.add(next, Event::Desire);
        let streams = self.cloud_streams();
        let stream = &streams[self.rng.index(streams.len())];
        let stream = stream.clone();
        let clouds: Vec<MachineId> = self.clouds().collect();
        for cloud in clouds {
            if cloud == CLOUD || self.rng.below(3) == 0 {
                self.append(cloud, &stream)?;
            }
        }
        Ok(())
    }

    /// Every cloudcore that may run.
    pub(super) fn clouds(&self) -> impl Iterator<Item = MachineId> {
        let machines = self.machines.iter().enumerate();
        machines
            .filter(|(_, machine)| machine.scope.is_none() && !machine.retired)
            .map(|(id, _)| id)
    }

    /// The replicated streams a machine writes.
    pub(super) fn written_by(&self, id: MachineId) -> Vec<StreamId> {
        if self.machines[id].scope.is_none() {
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
        scopes.sort_unstable();
        scopes.dedup();
        scopes
            .into_iter()
            .map(|scope| StreamId::new(scope, Lane::Down))
            .collect()
    }

    pub(super) fn append(&mut self, id: MachineId, stream: &StreamId) -> Checked {
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
        let (mut records, mut written) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.next_record += 1;
            written.push(self.next_record);
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
                    self.machines[id].label,
                    appended.first,
                    appended.last
                );
                if stream.lane == Lane::UpData {
                    self.machines[id].acked.extend(written);
                }
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
        let summarized = self.mix.degrade == Degrade::Averages;
        let key = process.log.own_key(stream);
        let mut known = machine.harvested.get(&key).copied();
        let end = process.log.durable(&key);
        let before = known.map_or(Epoch::FIRST, |known| known.position.epoch);
        if end.is_some_and(|end| end.position.epoch > before)
            && let Some(at) = process.log.snapshot_of(&key)
        {
            // The stream went on under a new epoch.
            self.oracle.begin(&key, at.mark);
            known = Some(at.mark);
        }
        // Where the log ends before what is known, the check of what it has to hold tells.
        let kept = end.is_none_or(|end| known.is_none_or(|known| end.position >= known.position));
        let Some(end) = end.filter(|_| kept) else {
            return Ok(());
        };
        let mut last = known.map_or(
            Mark {
                chain: key.genesis_chain(),
                position: ledge_proto::ids::Position::ZERO,
            },
            |mark| mark,
        );
        let mut reader = process.log.read_stream(&key, last.position.seq);
        loop {
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(err) => return Err(Violation::new("I1-dense", format!("{key}: {err}"))),
            };
            ensure(frame.first_seq() == last.position.seq.next(), "I1-dense", || {
                format!("{key}: frame {} after {}", frame.first_seq(), last.position)
            })?;
            frame
                .follows(last.chain)
                .map_err(|err| Violation::new("I1-dense", format!("{key} {}: {err}", frame.first_seq())))?;
            if summarized && key.id.lane == Lane::UpData {
                check_summaries(&frame)?;
            }
            if key.id.lane == Lane::UpData {
                for (id, seq) in places(&frame)? {
                    self.oracle.place(id, &key, seq);
                }
            }
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
}
