//! What travels on lanes: out of a log onto a line, and off a line into a log.

use bytes::Bytes;
use ledge_log::{CheckedFrame, Log, ReadError};
use ledge_proto::fold::snapshot;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Epoch, Lane, Mark, Position, Seq, StreamKey};
use ledge_proto::session::SessionError;
use ledge_proto::v1;
use ledge_proto::v1::snapshot::Purpose;
use ledge_retention::RetentionError;
use prost::Message as _;

use super::events::Event;
use super::link::{End, LinkId, Side, folded_mark};
use super::machine::MachineId;
use super::net::{Item, LaneKey, Sender};
use super::shell::Stop;
use super::violation::{Checked, Violation};
use super::workload::ids;
use super::world::{World, note};

/// How much later a frame comes that arrives twice, at most.
const AGAIN_US: u64 = 30_000;

type Parts = Vec<v1::Snapshot>;

impl World {
    /// Appends a frame and tells the session when it is durable.
    pub(super) fn receive(
        &mut self,
        id: MachineId,
        end: &mut End,
        bytes: Bytes,
    ) -> Checked<Result<(), Stop>> {
        let Some((log, now)) = self.running(id) else {
            return Ok(Err(Stop::Lost));
        };
        let frame = Frame::parse(bytes)
            .map_err(|err| Violation::new("wire", format!("a frame cannot be read: {err}")))?;
        let key = frame.key().clone();
        end.session.handle_activity(now);
        if !end.session.accepts(&key) {
            let message = format!("a frame of {key}, which is not accepted");
            return Ok(Err(Stop::Session(SessionError::Protocol(message))));
        }
        self.check_confirmed(id, &key, end)?;
        let (first, mark, kept) = (frame.first_seq(), frame.mark(), frame.clone());
        if log
            .durable(&key)
            .is_some_and(|held| held.position >= mark.position)
        {
            self.count("duplication");
        }
        let appended = match end.received.get(&key) {
            Some(before) if first == before.position.seq.next() => {
                match CheckedFrame::check(frame, before.chain) {
                    Ok(checked) => log.append_checked_blocking(checked),
                    Err(err) => return Ok(Err(Stop::Session(SessionError::Protocol(err.to_string())))),
                }
            }
            _ => log.append_frame_blocking(frame),
        };
        match appended {
            Ok(durable) => {
                note!(
                    self,
                    "{} takes {key} {first} to {}",
                    self.machines[id].label,
                    mark.position
                );
                if self.machines[id].scope.is_none() && key.id.lane == Lane::UpData {
                    let records = ids(&kept)?;
                    self.machines[id].arrived.extend(records);
                }
                end.received.insert(key.clone(), mark);
                end.session.handle_durable(&key, durable, now);
                self.took(id, &key, durable)?;
                Ok(Ok(()))
            }
            Err(err) => Ok(Err(Stop::Append(err))),
        }
    }

    /// Takes a part of a snapshot; with the last one the stream is moved.
    pub(super) fn receive_part(
        &mut self,
        id: MachineId,
        end: &mut End,
        key: StreamKey,
        bytes: Bytes,
    ) -> Checked<Result<(), Stop>> {
        let Some((log, now)) = self.running(id) else {
            return Ok(Err(Stop::Lost));
        };
        let part = v1::Snapshot::decode(bytes)
            .map_err(|err| Violation::new("wire", format!("a part of a snapshot cannot be read: {err}")))?;
        end.session.handle_activity(now);
        if !end.session.accepts(&key) {
            let message = format!("a snapshot of {key}, which is not accepted");
            return Ok(Err(Stop::Session(SessionError::Protocol(message))));
        }
        let whole = part.part + 1 == part.parts;
        let parts = end.parts.entry(key.clone()).or_default();
        parts.push(part);
        if !whole {
            return Ok(Ok(()));
        }
        let parts = std::mem::take(parts);
        let (_, mark) = identity_of(&parts)?;
        if parts.first().is_some_and(|part| part.purpose() == Purpose::Hint) {
            end.session.handle_snapshot(&key, Purpose::Hint, mark, now);
            return Ok(Ok(()));
        }
        self.check_confirmed(id, &key, end)?;
        if end.session.accepts_snapshot(&key, mark) {
            if let Err(err) = log.append_snapshot_blocking(parts) {
                return Ok(Err(Stop::Append(err)));
            }
        } else if log.durable(&key).is_none_or(|held| held.position < mark.position) {
            let message = format!("a snapshot of {key} at {}, which is not accepted", mark.position);
            return Ok(Err(Stop::Session(SessionError::Protocol(message))));
        }
        note!(
            self,
            "{} takes a snapshot of {key} at {}",
            self.machines[id].label,
            mark.position
        );
        end.received.insert(key.clone(), mark);
        end.session.handle_snapshot(&key, Purpose::Rebase, mark, now);
        self.took(id, &key, mark)?;
        Ok(Ok(()))
    }

    /// A log took a frame: its writer wrote it.
    pub(super) fn took(&mut self, id: MachineId, key: &StreamKey, mark: Mark) -> Checked {
        super::violation::ensure(self.oracle.was_written(key, mark), "prefix-of-its-writer", || {
            format!(
                "{} holds {key} {}, which nobody wrote",
                self.machines[id].label, mark.position
            )
        })
    }

    /// Streams `key` from the record after `after`; a snapshot that stands at `first` or later goes first.
    pub(super) fn send_from(
        &mut self,
        link: LinkId,
        side: Side,
        id: MachineId,
        key: &StreamKey,
        (after, first): (Seq, Option<(Seq, Mark)>),
    ) -> Checked {
        let Some((log, _)) = self.running(id) else {
            return Ok(());
        };
        note!(self, "{} sends {key} after {after}", self.machines[id].label);
        if let Some(found) = self.links.get_mut(&link) {
            let sender = Sender::new(log.read_stream(key, after), first);
            found.line(side).senders.insert(LaneKey::stream(key), sender);
        }
        if first.is_none() && key.id.lane == Lane::UpState {
            self.send_hint(link, side, id, key, after)?;
        }
        Ok(())
    }

    /// A snapshot of `key` that stands at `at`, or later.
    fn standing_at(&mut self, id: MachineId, log: &Log, key: &StreamKey, at: Mark) -> Checked<Parts> {
        let held = log
            .snapshot_of(key)
            .filter(|held| held.mark.position >= at.position);
        if let Some(held) = held {
            return log
                .read_snapshot(&held)
                .map_err(|err| Violation::new("snapshots", format!("{key}: {err}")));
        }
        self.fold(id)?;
        let state = &self.machines[id].projection.state;
        let there = folded_mark(state, key).is_some_and(|mark| mark.position >= at.position);
        snapshot::extract(state, key, Purpose::Rebase)
            .ok()
            .flatten()
            .filter(|_| there)
            .ok_or_else(|| Violation::new("snapshots", format!("{key}: nothing stands at {}", at.position)))
    }

    /// Current values go ahead of the history that follows.
    fn send_hint(&mut self, link: LinkId, side: Side, id: MachineId, key: &StreamKey, after: Seq) -> Checked {
        self.fold(id)?;
        let after = Position {
            epoch: Epoch::FIRST,
            seq: after,
        };
        let parts = snapshot::changes(&self.machines[id].projection.state, key, after)
            .map_err(|err| Violation::new("I7-replay", err.to_string()))?;
        let sender = self
            .links
            .get_mut(&link)
            .and_then(|found| found.line(side).senders.get_mut(&LaneKey::stream(key)));
        if let (Some(parts), Some(sender)) = (parts, sender) {
            sender.parts = parts
                .iter()
                .map(|part| Bytes::from(part.encode_to_vec()))
                .collect();
            self.count_event("hints-sent");
        }
        Ok(())
    }

    /// Sends the most urgent thing that waits, if the line is free.
    pub(super) fn pump(&mut self, link: LinkId, from: Side) -> Checked {
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        if found.end(from).is_none() {
            return Ok(());
        }
        let open_at = found.open_at;
        let line = found.line(from);
        if line.busy {
            return Ok(());
        }
        let item = match line.control.pop_front() {
            Some(bytes) => Some(Item::Control(bytes)),
            None => match self.next_of_streams(link, from)? {
                Ok(item) => item,
                Err(err) => {
                    note!(self, "connection {link}: cannot read on: {err}");
                    return self.close(link, from, "the log cannot be read");
                }
            },
        };
        let Some(item) = item else { return Ok(()) };
        let sent_us = 1 + item.len() as u64 * 1000 / self.mix.bytes_per_ms;
        let free_at = self.now_us + sent_us;
        let travel = self.travel();
        // The second time it may come behind what was sent after it.
        let again = self.rng.below(AGAIN_US);
        let lane = LaneKey::of(&item);
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        let line = found.line(from);
        let before = line.last_arrival.get(&lane).copied().unwrap_or(open_at);
        let at = (free_at + travel).max(before + 1);
        let overtakes = line.last_arrival.values().any(|last| *last > at);
        line.last_arrival.insert(lane, at);
        line.busy = true;
        let twice = line.twice > 0 && matches!(item, Item::Frame(..));
        line.twice -= u64::from(twice);
        if overtakes {
            self.count("reorder");
        }
        self.events.add(free_at, Event::LineFree { link, from });
        let to = from.other();
        if twice {
            let item = item.clone();
            self.events.add(at + 1 + again, Event::Deliver { link, to, item });
        }
        self.events.add(at, Event::Deliver { link, to, item });
        Ok(())
    }

    /// What the most urgent stream has to send. Where records are not held, a snapshot goes in their place.
    fn next_of_streams(&mut self, link: LinkId, from: Side) -> Checked<Result<Option<Item>, ReadError>> {
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(Ok(None));
        };
        let id = found.machine(from);
        let lanes: Vec<LaneKey> = found.line(from).senders.keys().cloned().collect();
        for lane in lanes {
            let Some(sender) = self
                .links
                .get_mut(&link)
                .and_then(|found| found.line(from).senders.get_mut(&lane))
            else {
                continue;
            };
            let key = sender.reader.key().clone();
            if let Some(part) = sender.parts.pop_front() {
                return Ok(Ok(Some(Item::Part(key, part))));
            }
            if let Some((after, at)) = sender.first.take() {
                let Some((log, _)) = self.running(id) else {
                    return Ok(Ok(None));
                };
                let parts = self.standing_at(id, &log, &key, at)?;
                return self
                    .send_snapshot(link, from, &lane, (&log, after), parts)
                    .map(Ok);
            }
            let after = sender.reader.position();
            match sender.reader.next() {
                Ok(Some(frame)) => return Ok(Ok(Some(Item::Frame(key, frame.bytes().clone())))),
                Ok(None) => {}
                Err(ReadError::Jump {
                    snapshot,
                    resume_after,
                    ..
                }) => {
                    let Some((log, _)) = self.running(id) else {
                        return Ok(Ok(None));
                    };
                    let parts = match snapshot {
                        Some(at) => match log.read_snapshot(&at) {
                            Ok(parts) => Some(parts),
                            Err(err) => return Ok(Err(err)),
                        },
                        None => {
                            self.fold(id)?;
                            snapshot::extract(&self.machines[id].projection.state, &key, Purpose::Rebase)
                                .map_err(|err| Violation::new("I7-replay", err.to_string()))?
                                .filter(|parts| parts.first().is_some_and(|part| part.seq >= resume_after.0))
                        }
                    };
                    let Some(parts) = parts else { continue };
                    return self
                        .send_snapshot(link, from, &lane, (&log, after), parts)
                        .map(Ok);
                }
                Err(err) => return Ok(Err(err)),
            }
        }
        Ok(Ok(None))
    }

    /// Sends a snapshot to a peer that has the records up to `after`, once it is declared what it never gets.
    fn send_snapshot(
        &mut self,
        link: LinkId,
        from: Side,
        lane: &LaneKey,
        (log, after): (&Log, Seq),
        parts: Parts,
    ) -> Checked<Option<Item>> {
        let (key, mark) = identity_of(&parts)?;
        let Some(found) = self.links.get(&link) else {
            return Ok(None);
        };
        let id = found.machine(from);
        let stamp = self.stamp(id);
        let Some(sender) = self
            .links
            .get_mut(&link)
            .and_then(|found| found.line(from).senders.get_mut(lane))
        else {
            return Ok(None);
        };
        match sender.gaps.declare(log, after, mark, stamp) {
            Ok(0) => {}
            Ok(count) => {
                note!(
                    self,
                    "{} declares {count} records of {key} up to {}",
                    self.machines[id].label,
                    mark.position
                );
                self.count_event("gaps-declared-to-peer");
                self.gap_declared(id);
                self.harvest(id, &key.id, true)?;
            }
            Err(RetentionError::Append(err)) => {
                self.close(link, from, "the log did not take a gap")?;
                self.append_failed(id, &err)?;
                return Ok(None);
            }
            Err(err) => return Err(Violation::new("retention", format!("{key}: {err}"))),
        }
        note!(
            self,
            "connection {link}: a snapshot of {key} at {}",
            mark.position
        );
        self.count_event("snapshots-sent");
        let Some(sender) = self
            .links
            .get_mut(&link)
            .and_then(|found| found.line(from).senders.get_mut(lane))
        else {
            return Ok(None);
        };
        sender.reader = log.read_stream(&key, mark.position.seq);
        sender.parts = parts
            .into_iter()
            .map(|part| {
                let part = v1::Snapshot {
                    purpose: Purpose::Rebase.into(),
                    superseded_after: None,
                    ..part
                };
                Bytes::from(part.encode_to_vec())
            })
            .collect();
        Ok(sender.parts.pop_front().map(|part| Item::Part(key, part)))
    }

    /// A machine's log has grown: whoever sends from it goes on.
    pub(super) fn pump_all(&mut self, id: MachineId) -> Checked {
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
            self.pump(link, side)?;
        }
        Ok(())
    }
}

/// The stream of a snapshot, and its mark.
fn identity_of(parts: &[v1::Snapshot]) -> Checked<(StreamKey, Mark)> {
    let bad =
        |err: &dyn std::fmt::Display| Violation::new("wire", format!("a snapshot cannot be read: {err}"));
    let first = parts.first().ok_or_else(|| bad(&"it is empty"))?;
    let key = snapshot::key_of(first).map_err(|err| bad(&err))?;
    let mark = snapshot::mark_of(first).map_err(|err| bad(&err))?;
    Ok((key, mark))
}
