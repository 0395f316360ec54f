//! What is checked on a running machine.

use ledge_proto::fold::{folded_stream, view};
use ledge_proto::ids::{Lane, Mark, Seq, StreamId, StreamKey};
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::ClockQuality;
use ledge_proto::v1::control_message::Message;
use ledge_retention::reset::Reset;

use super::link::{End, LinkId, Side};
use super::machine::{CLOUD, MachineId, Projection};
use super::violation::{Checked, Violation, ensure};
use super::world::World;

impl World {
    /// What a disk has to hold is there, as it was.
    pub(super) fn check_duties(&self, id: MachineId) -> Checked {
        let machine = &self.machines[id];
        let Some(process) = &machine.process else {
            return Ok(());
        };
        for (key, duty) in &machine.duties {
            self.check_duty(&machine.label, &process.log, key, *duty)?;
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
                    machine.label, mark.position
                )
            },
        )?;
        ensure(self.oracle.was_written(key, mark), "prefix-of-its-writer", || {
            format!(
                "{} acknowledges {key} {}, which nobody wrote",
                machine.label, mark.position
            )
        })?;
        let duty = machine.duties.entry(key.clone()).or_insert(mark);
        if mark.position > duty.position {
            *duty = mark;
        }
        // Opening a copy of the disk costs more than a step: now and then is enough over many seeds.
        let honest = !self.machines[id].disk.has_crashed() && self.machines[id].lie.is_none();
        if self.looks.below(32) == 0 && honest {
            self.probe_crash(id, key, mark)?;
        }
        Ok(())
    }

    /// An end says that this much of a stream is archived: it is durable.
    pub(super) fn check_archived(&self, id: MachineId, key: &StreamKey, archived: Seq) -> Checked {
        let machine = &self.machines[id];
        let held = machine
            .process
            .as_ref()
            .and_then(|process| process.log.durable(key));
        let held = held.map_or(Seq::ZERO, |held| held.position.seq);
        ensure(archived <= held, "archived-within-durable", || {
            format!(
                "{} says that {key} is archived to {archived}, it is durable to {held}",
                machine.label
            )
        })
    }

    /// What a message promises is durable when it is said.
    pub(super) fn check_said(
        &mut self,
        link: LinkId,
        id: MachineId,
        end: &End,
        message: &Message,
    ) -> Checked {
        let (token, is_cloud) = match message {
            Message::Welcome(welcome) => (welcome.token.clone(), true),
            Message::Confirm(confirm) => (confirm.token.clone(), false),
            _ => return Ok(()),
        };
        self.fold(id)?;
        let Some(node) = self
            .links
            .get(&link)
            .and_then(|found| self.machines[found.edge].scope.clone())
        else {
            return Ok(());
        };
        let state = &self.machines[id].projection.state;
        let noted = if is_cloud {
            view::node_fence(state, &node)
                .ok()
                .flatten()
                .and_then(|fence| fence.content.current)
        } else {
            view::edge_fence(state, &node)
                .ok()
                .flatten()
                .and_then(|fence| fence.content.token)
        };
        ensure(noted == token, "token-is-durable", || {
            format!(
                "{} says {token:?}, in its log is {noted:?}",
                self.machines[id].label
            )
        })?;
        let Message::Welcome(welcome) = message else {
            return Ok(());
        };
        let offered = token.map_or(0, |token| token.counter);
        let stale = !end.latest;
        let reset = welcome.streams.iter().any(|stream| stream.reset_epoch != 0);
        ensure(!stale || reset, "stale-is-out", || {
            format!(
                "{} takes token {} for the latest, and offers {offered}",
                self.machines[id].label, end.presented
            )
        })
    }

    /// A cloud stores something of a session: its token was confirmed.
    pub(super) fn check_confirmed(&self, id: MachineId, key: &StreamKey, end: &End) -> Checked {
        let is_cloud = self.machines[id].scope.is_none();
        ensure(!is_cloud || end.established, "confirmed-before-stored", || {
            format!(
                "{} stores {key} before the token was confirmed",
                self.machines[id].label
            )
        })
    }

    /// An edge follows a cloud: never one of an earlier leadership than it has followed.
    pub(super) fn check_leadership(&mut self, id: MachineId, welcomed: (u64, u64)) -> Checked {
        let machine = &mut self.machines[id];
        let before = machine.followed;
        machine.followed = before.max(welcomed);
        ensure(welcomed >= before, "no-earlier-leadership", || {
            format!(
                "{} follows leadership {welcomed:?} after {before:?}",
                machine.label
            )
        })
    }

    /// A cloud lets a node in: no quarantine stands.
    pub(super) fn check_not_quarantined(&self, id: MachineId, link: LinkId) -> Checked {
        let Some(found) = self.links.get(&link) else {
            return Ok(());
        };
        let (cloud, edge) = (&self.machines[id], &self.machines[found.machine(Side::Edge)]);
        let (Some(process), Some(scope)) = (&cloud.process, &edge.scope) else {
            return Ok(());
        };
        let quarantine = process
            .fences
            .nodes
            .get(scope)
            .and_then(|fence| fence.quarantine.as_ref());
        ensure(quarantine.is_none(), "quarantined-is-out", || {
            format!("{} is let in, with {quarantine:?}", edge.label)
        })
    }

    /// Streams of a machine went on under a new epoch: that is where they have to be from now on.
    pub(super) fn reset(&mut self, id: MachineId, resets: &[Reset]) -> Checked {
        for stream in self.written_by(id) {
            self.harvest(id, &stream, false)?;
        }
        for Reset { key, .. } in resets {
            let machine = &mut self.machines[id];
            self.oracle.go_on(key, id, machine.disks);
            let end = machine
                .process
                .as_ref()
                .and_then(|process| process.log.durable(key));
            if let Some(end) = end {
                machine.duties.insert(key.clone(), end);
            }
        }
        Ok(())
    }

    /// What a machine's clocks say.
    pub(super) fn stamp(&self, id: MachineId) -> Stamp {
        let clock = &self.machines[id].clock;
        Stamp {
            wall_us: clock.wall_us(self.now_us),
            clock: ClockQuality::ClockUnsynced,
            mono_us: u64::try_from(clock.since_boot(self.now_us).as_micros()).unwrap_or(u64::MAX),
        }
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
            .map_err(|err| Violation::new(err.invariant, format!("{}: {}", machine.label, err.detail)))?;
        ensure(replayed.state == machine.projection.state, "I7-replay", || {
            format!("{}: replay gives another state", machine.label)
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
        // What an earlier disk of the node said on a lane stands until the present one says something there.
        let cloud_state = &self.machines[CLOUD].projection.state;
        let another_disk = lanes.iter().any(|(lane, incarnation)| {
            let id = StreamId::new(scope.clone(), *lane);
            folded_stream(cloud_state, &id)
                .ok()
                .flatten()
                .is_some_and(|folded| folded.incarnation != incarnation.0)
        });
        if another_disk {
            return Ok(false);
        }
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
                        machine.label
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
        let there = held.is_some_and(|held| {
            let another_epoch = held.position.epoch > duty.position.epoch;
            self.oracle.continues(key, duty, held) || another_epoch && self.oracle.was_written(key, held)
        });
        ensure(there, "I2-acked-is-durable", || {
            format!("{name} {key}: acknowledged {}, {held:?} is there", duty.position)
        })
    }
}
