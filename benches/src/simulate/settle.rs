//! When the faults are over: everything has to come together, and everything is looked at once more.

use std::collections::BTreeSet;

use ledge_log::ReadError;
use ledge_proto::ids::{Lane, Scope, Seq, StreamId, StreamKey};
use ledge_proto::v1;

use super::events::Event;
use super::link::Side;
use super::machine::{CLOUD, MachineId};
use super::upkeep::Ranges;
use super::violation::{Checked, Violation, ensure};
use super::workload::ids;
use super::world::{World, note};

/// How long it may take, in simulated time.
const CONVERGES_WITHIN_US: u64 = 300_000_000;
/// And in events.
const CONVERGES_WITHIN_STEPS: u64 = 200_000;

impl World {
    /// Ends the faults and waits for the cloud and all edges to hold the same.
    pub(super) fn settle(&mut self) -> Checked {
        self.calm = true;
        note!(self, "calm");
        for id in 0..self.machines.len() {
            if self.machines[id].lie.is_some() && !self.machines[id].retired {
                self.power_loss(id)?;
            }
            let machine = &self.machines[id];
            machine.disk.heal();
            if machine.process.is_none() && !machine.retired {
                self.restart_later(id);
            }
        }
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            // A stalled line goes on; one that was cut is found out by whoever waits on it.
            let now = self.now_us;
            if let Some(found) = self.links.get_mut(&link) {
                for side in [Side::Edge, Side::Cloud] {
                    let line = found.line(side);
                    if line.stalled_until != u64::MAX {
                        line.stalled_until = now;
                    }
                }
            }
            self.events.add(now + 1, Event::Mend(link));
        }
        let until = self.now_us + CONVERGES_WITHIN_US;
        let last = self.steps + CONVERGES_WITHIN_STEPS;
        let mut next_look = self.now_us;
        loop {
            if self.now_us >= next_look {
                next_look = self.now_us + 500_000;
                self.operate()?;
                self.write_behind_new_epochs()?;
                if self.apart()?.is_none() {
                    break;
                }
            }
            if self.now_us > until || self.steps > last {
                let apart = self.apart()?.unwrap_or_default();
                return Err(Violation::new("converges", apart));
            }
            self.step()?;
        }
        note!(self, "converged");
        self.check_everything()
    }

    /// What still differs between the cloud and an edge.
    fn apart(&mut self) -> Checked<Option<String>> {
        for id in 0..self.machines.len() {
            if self.machines[id].scope.is_none() || self.machines[id].retired {
                continue;
            }
            self.fold(id)?;
            if !self.check_states(id)? {
                return Ok(Some(self.difference(id)));
            }
        }
        Ok(None)
    }

    fn difference(&self, id: MachineId) -> String {
        let machine = &self.machines[id];
        let (Some(edge), Some(cloud)) = (&machine.process, &self.machines[CLOUD].process) else {
            return format!("{} or the cloud does not run", machine.label);
        };
        let mut lines = vec![format!("{} and the cloud differ:", machine.label)];
        for (log, whose) in [(&edge.log, "edge"), (&cloud.log, "cloud")] {
            for info in log.streams() {
                if Some(&info.key.id.scope) == machine.scope.as_ref() {
                    lines.push(format!("{whose} {} {}", info.key, info.durable.position));
                }
            }
        }
        lines.join("; ")
    }

    /// Reads every log and folds it from nothing.
    fn check_everything(&mut self) -> Checked {
        for id in 0..self.machines.len() {
            self.check_replay(id)?;
            let machine = &self.machines[id];
            let Some(process) = &machine.process else { continue };
            for info in process
                .log
                .streams()
                .iter()
                .filter(|info| info.key.id.lane.is_replicated())
            {
                self.oracle
                    .check_stream(&machine.label, &process.log, &info.key)?;
            }
        }
        for id in 0..self.machines.len() {
            self.check_gaps(id)?;
            self.check_arrived(id)?;
        }
        self.check_once()
    }

    /// What an edge acknowledged to its devices reached the cloud, or a gap that the cloud knows says that it is gone.
    fn check_arrived(&self, id: MachineId) -> Checked {
        let (machine, cloud) = (&self.machines[id], &self.machines[CLOUD]);
        let (Some(edge), Some(scope), false) = (&machine.process, &machine.scope, machine.retired) else {
            return Ok(());
        };
        if machine.gap_lost {
            return Ok(());
        }
        let missing: Vec<u64> = machine.acked.difference(&cloud.arrived).copied().collect();
        let own = StreamKey {
            id: StreamId::new(scope.clone(), Lane::UpData),
            incarnation: edge.log.identity().incarnation,
        };
        // What a disk lost of its own history, the cloud has.
        let gaps = self.gaps(CLOUD, &own)?;
        let gaps = gaps.iter().filter(|gap| gap.reason != "HistoryLost");
        let (mut gone, mut count) = (Ranges::default(), 0);
        for gap in gaps {
            gone.add(gap.first_seq, gap.last_seq);
            count += gap.count;
        }
        ensure(missing.len() as u64 <= count, "gaps-are-declared", || {
            format!(
                "{}: {} records never reached the cloud (the first is {:?}), gaps tell of {count}",
                machine.label,
                missing.len(),
                missing.first()
            )
        })?;
        // And each of them where the writer had it.
        let declared = |id: &u64| {
            self.oracle
                .places(*id, &own)
                .any(|seq| gone.first_missing(seq.0, seq.0).is_none())
        };
        let silent = missing.into_iter().find(|id| !declared(id));
        ensure(silent.is_none(), "gaps-are-declared", || {
            let places: Vec<Seq> = silent
                .iter()
                .flat_map(|id| self.oracle.places(*id, &own))
                .collect();
            format!(
                "{}: record {silent:?} ({own} {places:?}) never reached the cloud, gaps tell of {gone:?}",
                machine.label
            )
        })
    }

    /// No record is in the cloud twice, unless two disks of a node were let in, one after the other.
    fn check_once(&self) -> Checked {
        let Some(cloud) = &self.machines[CLOUD].process else {
            return Ok(());
        };
        let mut seen = BTreeSet::new();
        for info in cloud.log.streams() {
            // What two disks had in common and the cloud did not, both sent again under epochs of their own.
            if info.key.id.lane != Lane::UpData || self.oracle.went_on_twice(&info.key) {
                continue;
            }
            let mut reader = cloud.log.read_stream(&info.key, Seq::ZERO);
            loop {
                match reader.next() {
                    Ok(Some(frame)) => {
                        for id in ids(&frame)? {
                            ensure(seen.insert(id), "once", || {
                                format!("{}: record {id} is in the cloud twice", info.key)
                            })?;
                        }
                    }
                    Ok(None) => break,
                    Err(ReadError::Jump { .. }) => reader.skip_jump(),
                    Err(err) => return Err(Violation::new("I1-dense", format!("{}: {err}", info.key))),
                }
            }
        }
        Ok(())
    }

    /// An epoch that begins at the very end of a stream is told with the next record: one is written where an edge waits.
    fn write_behind_new_epochs(&mut self) -> Checked {
        for id in 0..self.machines.len() {
            let (machine, cloud) = (&self.machines[id], &self.machines[CLOUD]);
            let (Some(edge), Some(scope), Some(cloud)) = (&machine.process, &machine.scope, &cloud.process)
            else {
                continue;
            };
            let stream = StreamId::new(scope.clone(), Lane::Down);
            let key = cloud.log.own_key(&stream);
            if let (Some(here), Some(there)) = (edge.log.durable(&key), cloud.log.durable(&key))
                && here.chain == there.chain
                && here.position < there.position
            {
                self.append(CLOUD, &stream)?;
            }
        }
        Ok(())
    }

    /// An operator ends what only an operator can end: copies of machines are switched off, quarantines decided, and a
    /// cloud whose data was put back is started as such.
    fn operate(&mut self) -> Checked {
        for id in 0..self.machines.len() {
            if self.machines[id].is_copy {
                self.retire(id);
            }
        }
        if self.restored && self.machines[CLOUD].process.is_some() {
            self.restored = false;
            self.machines[CLOUD].raise_generation = true;
            note!(self, "the operator says that the cloud was restored");
            self.kill(CLOUD)?;
        }
        let Some(process) = &self.machines[CLOUD].process else {
            return Ok(());
        };
        let waiting: Vec<(Scope, v1::NodeFence)> = process
            .fences
            .nodes
            .iter()
            .filter(|(scope, fence)| fence.quarantine.is_some() || self.superseded.contains(*scope))
            .map(|(scope, fence)| (scope.clone(), fence.clone()))
            .collect();
        self.superseded.clear();
        for (scope, fence) in waiting {
            self.resolve(CLOUD, &scope, fence)?;
        }
        Ok(())
    }
}
