//! When the faults are over: everything has to come together, and everything is looked at once more.

use ledge_proto::ids::Lane;

use super::events::Event;
use super::link::Side;
use super::machine::{CLOUD, MachineId};
use super::violation::{Checked, Violation, ensure};
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
            let machine = &self.machines[id];
            machine.disk.heal();
            if machine.process.is_none() {
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
            if id == CLOUD {
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
            return format!("{} or the cloud does not run", machine.name);
        };
        let mut lines = vec![format!("{} and the cloud differ:", machine.name)];
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
            for info in process.log.streams() {
                self.oracle.check_stream(&machine.name, &process.log, &info.key)?;
            }
        }
        for id in 0..self.machines.len() {
            self.check_gaps(id)?;
            self.check_arrived(id)?;
        }
        Ok(())
    }

    /// What an edge acknowledged to its devices reached the cloud, or a gap that the cloud knows says that it is gone.
    fn check_arrived(&self, id: MachineId) -> Checked {
        let machine = &self.machines[id];
        let Some(cloud) = &self.machines[CLOUD].process else {
            return Ok(());
        };
        for (key, duty) in &machine.duties {
            if key.id.lane == Lane::Down || Some(&key.id.scope) != machine.scope.as_ref() {
                continue;
            }
            let held = cloud.log.durable(key);
            ensure(
                held.is_some_and(|held| self.oracle.continues(key, *duty, held)),
                "acked-reaches-the-cloud",
                || format!("{key}: acknowledged to a device up to {duty:?}, the cloud holds {held:?}"),
            )?;
            if key.id.lane != Lane::UpData {
                continue; // Of state only the latest is promised, and the hash of the state says that it is there.
            }
            let mut there = self.oracle.arrivals(key);
            for gap in self.gaps(CLOUD, key)? {
                there.add(gap.first_seq, gap.last_seq);
            }
            if let Some(missing) = there.first_missing(1, duty.position.seq.0) {
                return Err(Violation::new(
                    "gaps-are-declared",
                    format!("{key}: {missing} never reached the cloud, and no gap says so"),
                ));
            }
        }
        Ok(())
    }
}
