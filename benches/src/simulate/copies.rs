//! Disks that come back older, twice or empty, and what an operator does about it.

use ledge_proto::fence::{self, FenceUpdate, Resolution};
use ledge_proto::ids::Scope;
use ledge_proto::session::Backoff;
use ledge_proto::v1;

use super::events::Event;
use super::link::Side;
use super::machine::{CLOUD, Machine, MachineId, Projection};
use super::violation::Checked;
use super::world::{World, note};

/// Copies of machines in one run.
const MOST_COPIES: usize = 2;

impl World {
    /// An older copy of a machine's disk is put back. Of the cloud's, the operator may say so or not.
    pub(super) fn roll_back(&mut self, id: MachineId) -> Checked {
        if self.machines[id].images.is_empty() {
            return Ok(());
        }
        self.kill(id)?;
        let raise = self.rng.below(2) == 0;
        let machine = &mut self.machines[id];
        let at = machine.images.len() - 1;
        let image = machine.images[at.min(1)].clone();
        machine.put(&image);
        if machine.scope.is_none() {
            machine.raise_generation |= raise;
            if id == CLOUD {
                self.restored = !raise;
            }
        }
        Ok(())
    }

    /// A machine gets an empty disk.
    pub(super) fn reimage(&mut self, id: MachineId) -> Checked {
        if self.machines[id].scope.is_none() {
            return Ok(()); // A cloud without its data is another cluster.
        }
        self.kill(id)?;
        let machine = &mut self.machines[id];
        let empty = Machine::new(machine.name.clone(), machine.scope.clone(), machine.clock.clone());
        machine.put(&empty.image());
        machine.images.clear();
        machine.gap_lost = false;
        machine.projection = Projection::default();
        Ok(())
    }

    /// A machine runs twice: the copy is of its disk as it is, or as it was.
    pub(super) fn copy(&mut self, id: MachineId) -> Checked {
        if self.machines.iter().filter(|machine| machine.is_copy).count() >= MOST_COPIES {
            return Ok(());
        }
        if self.machines[id].scope.is_none() && (id != CLOUD || self.clouds().count() > 1) {
            return Ok(());
        }
        let original = &self.machines[id];
        let image = match original.images.first() {
            Some(older) if self.rng.below(2) == 0 => older.clone(),
            _ => original.image(),
        };
        let mut copy = Machine::new(
            original.name.clone(),
            original.scope.clone(),
            original.clock.clone(),
        );
        copy.limit = original.limit;
        copy.segment_bytes = original.segment_bytes;
        copy.put(&image);
        copy.is_copy = true;
        copy.gap_lost = original.gap_lost;
        copy.backoff = Backoff::default();
        let new = self.machines.len();
        copy.label = format!("{}-copy-{new}", original.name);
        if copy.scope.is_none() {
            // Data on another machine is an older copy the moment the first one goes on: the new one leads.
            copy.raise_generation = true;
            let first = &mut self.machines[CLOUD];
            std::mem::swap(&mut copy.label, &mut first.label);
            std::mem::swap(first, &mut copy);
            self.machines[CLOUD].is_copy = false;
            copy.is_copy = true;
            for link in self.links.values_mut() {
                if link.cloud == CLOUD {
                    link.cloud = new;
                }
            }
            self.machines.push(copy);
            // What was to happen to the first one happens to the one in its place.
            self.machines[CLOUD].life = self.machines[new].life;
            self.machines[new].life += 1;
            let life = self.machines[new].life;
            for _ in 0..self.machines[new]
                .process
                .as_ref()
                .map_or(0, |process| process.queue.len())
            {
                self.events
                    .add(self.now_us + 1, Event::Write { machine: new, life });
            }
            self.machines[CLOUD].life += 1;
            self.restart_later(CLOUD);
        } else {
            self.machines.push(copy);
            self.restart_later(new);
            let at = self.now_us + 1 + self.rng.below(1_000_000);
            self.events.add(at, Event::Work(new));
        }
        let at = self.now_us + 1 + self.rng.below(1_000_000);
        self.events.add(at, Event::Upkeep(new));
        note!(
            self,
            "{} is a copy of {}",
            self.machines[new].label,
            self.machines[id].label
        );
        Ok(())
    }

    /// A machine is switched off for good.
    pub(super) fn retire(&mut self, id: MachineId) {
        if self.machines[id].retired {
            return;
        }
        note!(self, "{} is switched off", self.machines[id].label);
        let links: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.edge == id || link.cloud == id)
            .map(|(link, _)| *link)
            .collect();
        self.end_process(id);
        self.machines[id].retired = true;
        for link in links {
            for side in [Side::Edge, Side::Cloud] {
                self.events.add(self.now_us + 1, Event::Closed { link, side });
            }
        }
    }

    /// An operator looks at what is in quarantine, and decides for whichever disk comes next.
    pub(super) fn resolve_one(&mut self) -> Checked {
        let Some(process) = &self.machines[CLOUD].process else {
            return Ok(());
        };
        let waiting = process
            .fences
            .nodes
            .iter()
            .find(|(_, fence)| fence.quarantine.is_some());
        let Some((scope, fence)) = waiting.map(|(scope, fence)| (scope.clone(), fence.clone())) else {
            return Ok(());
        };
        self.resolve(CLOUD, &scope, fence)
    }

    /// An operator decides about a node in quarantine.
    pub(super) fn resolve(&mut self, id: MachineId, scope: &Scope, fence: v1::NodeFence) -> Checked {
        let resolved = fence::resolve(fence, Resolution::NewIncarnation);
        note!(self, "the operator lets {scope} in");
        self.count_event("resolved");
        let Some(process) = &mut self.machines[id].process else {
            return Ok(());
        };
        let log = process.log.clone();
        process.fences.nodes.insert(scope.clone(), resolved.clone());
        if let Err(err) = self.note_fence(id, &log, scope, &FenceUpdate::Node(Box::new(resolved))) {
            self.append_failed(id, &err)?;
            if self.machines[id].process.is_some() {
                self.kill(id)?;
            }
        }
        Ok(())
    }
}
