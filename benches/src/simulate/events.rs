//! Simulated time: what happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::link::{LinkId, Side};
use super::machine::MachineId;
use super::net::Item;

/// Something that happens at a point of simulated time.
#[derive(Debug)]
pub(super) enum Event {
    /// The owner of a machine writes records.
    Work(MachineId),
    /// The cloud writes desired state.
    Desire,
    /// An edge dials.
    Dial { machine: MachineId, life: u32 },
    /// The connection reaches the cloud.
    Accept(LinkId),
    /// Something arrives at `to`.
    Deliver { link: LinkId, to: Side, item: Item },
    /// The line from `from` is free again.
    LineFree { link: LinkId, from: Side },
    /// A session's timer.
    Timer { link: LinkId, side: Side, serial: u64 },
    /// A change of a fence that was handed to a log is written.
    Write { machine: MachineId, life: u32 },
    /// One end learns that the connection is gone.
    Closed { link: LinkId, side: Side },
    /// The next fault.
    Fault,
    /// A machine starts again.
    Start { machine: MachineId, life: u32 },
    /// A cut line works again.
    Mend(LinkId),
    /// A full disk has room again.
    Room(MachineId),
    /// The power goes at a machine whose disk lies.
    Lied(MachineId),
    /// Upkeep of a machine: retention, folding, archive.
    Upkeep(MachineId),
}

struct Due {
    at_us: u64,
    serial: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.serial).cmp(&(other.at_us, other.serial))
    }
}

/// Events by time; those of one time in the order they were added.
#[derive(Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<Due>>,
    serial: u64,
}

impl Events {
    pub(super) fn add(&mut self, at_us: u64, event: Event) {
        self.serial += 1;
        self.heap.push(Reverse(Due {
            at_us,
            serial: self.serial,
            event,
        }));
    }

    pub(super) fn next(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(due)| (due.at_us, due.event))
    }
}
