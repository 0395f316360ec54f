//! What a session wants durable before it goes on: changes of fences, and new epochs.

use ledge_log::{AppendError, Log};
use ledge_proto::fence::FenceUpdate;
use ledge_proto::ids::{Scope, StreamKey};
use ledge_proto::session::Holdings;
use ledge_proto::v1;
use ledge_retention::reset::{self, Reset, ResetError};

use super::events::Event;
use super::link::{End, LinkId, Side};
use super::machine::{MachineId, Queued};
use super::shell::Stop;
use super::violation::{Checked, Violation};
use super::world::{World, note};

/// How long a change of a fence waits for its sync, at most.
const SYNC_US: u64 = 20_000;

impl World {
    /// Hands a change of a fence to the log: everybody decides by it from now on; it is durable a little later.
    pub(super) fn hand_over(
        &mut self,
        link: LinkId,
        side: Side,
        id: MachineId,
        update: FenceUpdate,
        waits: bool,
    ) -> Checked {
        let Some(node) = self.node_of(link) else {
            return Ok(());
        };
        let at = self.now_us + 1 + self.rng.below(SYNC_US);
        let machine = &mut self.machines[id];
        let life = machine.life;
        let Some(process) = &mut machine.process else {
            return Ok(());
        };
        match &update {
            FenceUpdate::Node(fence) => {
                process.fences.nodes.insert(node.clone(), (**fence).clone());
            }
            FenceUpdate::Edge(fence) => process.fences.edge.clone_from(fence),
            FenceUpdate::Cloud(fence) => process.fences.cloud = *fence,
        }
        process.queue.push_back(Queued {
            update,
            node,
            waits: waits.then_some((link, side)),
        });
        self.events.add(at, Event::Write { machine: id, life });
        Ok(())
    }

    /// The oldest change of a fence that waits becomes durable.
    pub(super) fn write(&mut self, id: MachineId) -> Checked {
        let Some(process) = &mut self.machines[id].process else {
            return Ok(());
        };
        let log = process.log.clone();
        let Some(queued) = process.queue.pop_front() else {
            return Ok(());
        };
        if let Err(err) = self.note_fence(id, &log, &queued.node, &queued.update) {
            if let Some((link, side)) = queued.waits {
                self.close(link, side, "the log did not take a fence")?;
            }
            if matches!(err, AppendError::DiskFull { .. }) && !self.machines[id].disk.has_crashed() {
                // What everybody decides by is not in the log: only a start from the log mends that.
                return self.kill(id);
            }
            return self.append_failed(id, &err);
        }
        let Some((link, side)) = queued.waits else {
            return Ok(());
        };
        let Some(mut end) = self
            .links
            .get_mut(&link)
            .and_then(|found| found.end_mut(side).take())
        else {
            return Ok(());
        };
        self.fold(id)?;
        let step = |held: &dyn Holdings, now| end.session.handle_persisted(held, now);
        let result = self.holding(id, &queued.node, link, step);
        self.put_back(link, side, end);
        match result {
            Some(Ok(())) => self.drive(link, side),
            Some(Err(err)) => self.session_ended(link, side, err),
            None => self.close(link, side, "the machine went"),
        }
    }

    /// Appends a change of a fence.
    pub(super) fn note_fence(
        &mut self,
        id: MachineId,
        log: &Log,
        node: &Scope,
        update: &FenceUpdate,
    ) -> Result<(), AppendError> {
        let record = v1::Record {
            wall_us: self.machines[id].clock.wall_us(self.now_us),
            boot: log.identity().boot,
            ..update.record()
        };
        log.append_blocking(&update.stream(node), vec![record])
            .map(|_| ())
    }

    /// A daemon that starts completes new epochs that a crash cut off. Returns whether it still runs.
    pub(super) fn finish_epochs(&mut self, id: MachineId) -> Checked<bool> {
        let Some((log, _)) = self.running(id) else {
            return Ok(false);
        };
        let streams = self.written_by(id);
        let keys: Vec<StreamKey> = streams.iter().map(|stream| log.own_key(stream)).collect();
        match reset::finish(&log, &keys, self.stamp(id)) {
            Ok(lost) => {
                if lost
                    .iter()
                    .any(|lost| lost.appended_again > 0 || lost.records.is_some())
                {
                    note!(self, "{} completes epochs: {lost:?}", self.machines[id].label);
                    self.count_event("resets-completed");
                }
                Ok(true)
            }
            Err(ResetError::Append(err)) => {
                self.append_failed(id, &err)?;
                if self.machines[id].process.is_some() {
                    // Nothing may be appended before.
                    self.kill(id)?;
                }
                Ok(false)
            }
            Err(err) => Err(Violation::new(
                "resets",
                format!("{}: {err}", self.machines[id].label),
            )),
        }
    }

    pub(super) fn begin_epochs(
        &mut self,
        link: LinkId,
        id: MachineId,
        end: &mut End,
        resets: Vec<Reset>,
    ) -> Checked<Result<(), Stop>> {
        let Some((log, _)) = self.running(id) else {
            return Ok(Err(Stop::Lost));
        };
        let keys: Vec<StreamKey> = resets.iter().map(|reset| reset.key.clone()).collect();
        note!(self, "{} begins epochs: {resets:?}", self.machines[id].label);
        self.count_event("resets");
        let begun = reset::begin(&log, &resets, self.stamp(id));
        match begun {
            Ok(lost) => note!(self, "{} lost {lost:?}", self.machines[id].label),
            Err(ResetError::Append(err)) => return Ok(Err(Stop::Append(err))),
            Err(err) => {
                return Err(Violation::new(
                    "resets",
                    format!("{}: {err}", self.machines[id].label),
                ));
            }
        }
        self.reset(id, &resets)?;
        let Some(node) = self.node_of(link) else {
            return Ok(Err(Stop::Lost));
        };
        self.fold(id)?;
        let step = |held: &dyn Holdings, now| end.session.handle_reset_done(&keys, held, now);
        Ok(self
            .holding(id, &node, link, step)
            .unwrap_or(Ok(()))
            .map_err(Stop::Session))
    }
}
