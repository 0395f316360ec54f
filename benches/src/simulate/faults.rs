//! What goes wrong.

use ledge_log::storage::sim::Fault;

use super::events::Event;
use super::link::{LinkId, Side};
use super::machine::{CLOUD, MachineId, Projection};
use super::plan::{FaultKind, around};
use super::violation::Checked;
use super::world::{World, note};

/// How long a line stalls, at most.
const STALL_US: u64 = 15_000_000;
/// How long a disk stays full, at most.
const FULL_US: u64 = 5_000_000;
/// How long a disk lies before the power goes, at most.
const LIES_US: u64 = 4_000_000;
/// Frames of a line that arrive twice, at most.
const MOST_TWICE: u64 = 6;
/// Writes and syncs ahead among which one is chosen to fail.
const AHEAD_OPS: u64 = 12;
/// Year 2100: where a clock may jump to.
const FAR_US: u64 = 4_102_444_800_000_000;

impl World {
    /// Something goes wrong, and the next time is set.
    pub(super) fn fault(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        let next = self.now_us + around(&mut self.rng, self.mix.fault_every_us);
        self.events.add(next, Event::Fault);
        let kind = self.mix.faults[self.rng.index(self.mix.faults.len())];

        // The cloud is one of many, and has as many faults as all edges together.
        let machine = if self.rng.below(2) == 0 {
            CLOUD
        } else {
            self.rng.index(self.machines.len())
        };
        if self.machines[machine].retired {
            return Ok(());
        }
        self.inject(kind, machine)
    }

    fn inject(&mut self, kind: FaultKind, id: MachineId) -> Checked {
        let running = self.machines[id].process.is_some();
        match kind {
            FaultKind::PowerLoss
            | FaultKind::PowerLossInWrite
            | FaultKind::Kill
            | FaultKind::Stop
            | FaultKind::IoError
            | FaultKind::DiskFull
            | FaultKind::LyingSync
            | FaultKind::LoseProjection
                if !running =>
            {
                return Ok(());
            }
            _ => {}
        }
        note!(self, "fault: {} at {}", kind.name(), self.machines[id].label);
        self.count(kind.name());
        match kind {
            FaultKind::PowerLoss => self.power_loss(id),
            FaultKind::PowerLossInWrite => {
                let disk = &self.machines[id].disk;
                disk.crash_at(disk.ops() + self.rng.below(AHEAD_OPS));
                Ok(())
            }
            FaultKind::Kill => self.kill(id),
            FaultKind::Stop => self.stop(id),
            FaultKind::IoError => {
                let disk = &self.machines[id].disk;
                let fault = match self.rng.below(2) {
                    0 => Fault::SyncError,
                    _ => Fault::WriteError {
                        written: self.rng.index(700),
                    },
                };
                disk.fail_at(disk.ops() + self.rng.below(AHEAD_OPS), fault);
                Ok(())
            }
            FaultKind::DiskFull => {
                let free = self.rng.below(8 * 1024);
                let disk = &self.machines[id].disk;
                disk.set_capacity(Some(disk.used() + free));
                let at = self.now_us + around(&mut self.rng, FULL_US / 2);
                self.events.add(at, Event::Room(id));
                Ok(())
            }
            FaultKind::LyingSync => {
                // What it has kept up to now is all that is certain.
                let machine = &mut self.machines[id];
                if machine.lie.is_none() {
                    machine.lie = Some(machine.image());
                    machine.disk.lie();
                    let at = self.now_us + around(&mut self.rng, LIES_US / 2);
                    self.events.add(at, Event::Lied(id));
                }
                Ok(())
            }
            FaultKind::LoseProjection => {
                self.machines[id].projection = Projection::default();
                self.fold(id)
            }
            FaultKind::ClockJump => {
                let wall = i64::try_from(self.rng.below(FAR_US)).unwrap_or(0);
                let now = self.now_us;
                self.machines[id].clock.jump_to(wall, now);
                Ok(())
            }
            FaultKind::Break | FaultKind::HalfOpen | FaultKind::Stall | FaultKind::Duplicate => {
                self.network_fault(kind, id)
            }
            FaultKind::Image => {
                let image = self.machines[id].image();
                let images = &mut self.machines[id].images;
                images.truncate(2);
                images.insert(0, image);
                Ok(())
            }
            FaultKind::RollBack => self.roll_back(id),
            FaultKind::Reimage => self.reimage(id),
            FaultKind::Copy => self.copy(id),
            FaultKind::Resolve => self.resolve_one(),
        }
    }

    fn network_fault(&mut self, kind: FaultKind, id: MachineId) -> Checked {
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.edge == id || link.cloud == id)
            .map(|(link, _)| *link)
            .collect();
        // At the cloud, all or one: a switch or a cable.
        let chosen: Vec<LinkId> = match links.as_slice() {
            [] => return Ok(()),
            _ if self.rng.below(3) == 0 => links,
            some => vec![some[self.rng.index(some.len())]],
        };
        for link in chosen {
            match kind {
                FaultKind::Stall => {
                    let until = self.now_us + around(&mut self.rng, STALL_US / 2);
                    let both = self.rng.below(2) == 0;
                    let one = if self.rng.below(2) == 0 {
                        Side::Edge
                    } else {
                        Side::Cloud
                    };
                    if let Some(found) = self.links.get_mut(&link) {
                        for side in [Side::Edge, Side::Cloud] {
                            if both || side == one {
                                found.line(side).stalled_until = until;
                            }
                        }
                    }
                    self.events.add(until, Event::Mend(link));
                }
                FaultKind::Duplicate => {
                    let twice = 1 + self.rng.below(MOST_TWICE);
                    if let Some(found) = self.links.get_mut(&link) {
                        for side in [Side::Edge, Side::Cloud] {
                            found.line(side).twice += twice;
                        }
                    }
                }
                FaultKind::HalfOpen => {
                    let side = if self.rng.below(2) == 0 {
                        Side::Edge
                    } else {
                        Side::Cloud
                    };
                    self.cut(link);
                    self.close(link, side, "broken")?;
                }
                _ => {
                    // What is on its way may still arrive at an end that has not noticed.
                    if self.rng.below(2) == 0 {
                        self.cut(link);
                    }
                    let (edge, cloud) = (self.rng.below(200_000), self.rng.below(200_000));
                    let now = self.now_us;
                    self.events.add(
                        now + edge,
                        Event::Closed {
                            link,
                            side: Side::Edge,
                        },
                    );
                    self.events.add(
                        now + cloud,
                        Event::Closed {
                            link,
                            side: Side::Cloud,
                        },
                    );
                }
            }
        }
        Ok(())
    }

    /// Nothing passes any more, ever.
    fn cut(&mut self, link: LinkId) {
        if let Some(found) = self.links.get_mut(&link) {
            for side in [Side::Edge, Side::Cloud] {
                found.line(side).stalled_until = u64::MAX;
            }
        }
    }
}
