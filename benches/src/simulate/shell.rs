//! The shell around sessions, as thin as the one around QUIC: it moves messages and frames between sessions, logs
//! and the network, and decides nothing.

use bytes::Bytes;
use ledge_log::{AppendError, CheckedFrame, ReadError};
use ledge_proto::fold::snapshot;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Chain, Epoch, Incarnation, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey};
use ledge_proto::session::{Event as SessionEvent, Local, Session, SessionError, stream_state, wire};
use ledge_proto::v1;
use ledge_proto::v1::control_message::Message;
use ledge_proto::v1::snapshot::Purpose;
use prost::Message as _;

use super::events::Event;
use super::link::{End, Link, LinkId, LogHoldings, Side};
use super::machine::{CLOUD, CLUSTER, MachineId};
use super::net::{Item, LaneKey, Sender};
use super::violation::{Checked, Violation};
use super::world::{World, note};

/// How long the end of a replaced connection lives on, at most.
const REPLACED_US: u64 = 20_000;

impl World {
    fn local(&self, id: MachineId, node: &Scope, incarnation: Incarnation) -> Local {
        Local {
            cluster: CLUSTER,
            node: node.clone(),
            incarnation,
            boot_id: self.machines[id].life.to_string(),
            labels: Default::default(),
            software: "simulation".to_owned(),
            heartbeat: std::time::Duration::from_millis(self.mix.heartbeat_ms),
        }
    }

    /// An edge dials.
    pub(super) fn dial(&mut self, id: MachineId) -> Checked {
        let machine = &self.machines[id];
        let (Some(process), Some(scope), None) = (&machine.process, &machine.scope, machine.link) else {
            return Ok(());
        };
        let log = process.log.clone();
        let own = log.identity().incarnation;
        let sends = [Lane::UpState, Lane::UpData].map(|lane| StreamKey {
            id: StreamId::new(scope.clone(), lane),
            incarnation: own,
        });
        // As the daemon does: of each stream the life it last followed.
        let followed = |scope: &Scope| {
            let id = StreamId::new(scope.clone(), Lane::Down);
            let folded = ledge_proto::fold::folded_stream(&machine.projection.state, &id).ok()??;
            let incarnation = Incarnation::from_slice(&folded.incarnation).ok()?;
            let key = StreamKey { id, incarnation };
            Some(stream_state(&key, log.durable(&key)))
        };
        let receives = [scope.clone(), Scope::cluster()]
            .iter()
            .filter_map(followed)
            .collect();
        let now = machine.clock.since_boot(self.now_us);
        let local = self.local(id, scope, own);
        let session = Session::edge(local, sends.to_vec(), receives, &LogHoldings(&log), now);
        let link = self.next_link;
        self.next_link += 1;
        let open_at = self.now_us + self.travel();
        note!(self, "{} dials: connection {link}", self.machines[id].name);
        self.machines[id].link = Some(link);
        self.links
            .insert(link, Link::new(id, CLOUD, End::new(session), open_at));
        self.events.add(open_at, Event::Accept(link));
        self.drive(link, Side::Edge)
    }

    /// Time one thing takes to arrive.
    fn travel(&mut self) -> u64 {
        self.mix.latency_us + self.rng.below(self.mix.jitter_us)
    }

    /// A connection reaches the cloud, which takes it in the place of an older one of the same node.
    pub(super) fn accept(&mut self, link: LinkId) -> Checked {
        let Some(found) = self.links.get(&link) else {
            return Ok(());
        };
        let (edge, cloud) = (found.edge, found.cloud);
        let Some(scope) = self.machines[edge].scope.clone() else {
            return Ok(());
        };
        let machine = &self.machines[cloud];
        let Some(process) = &machine.process else {
            // Nobody listens there.
            let at = self.now_us + self.travel();
            self.events.add(
                at,
                Event::Closed {
                    link,
                    side: Side::Edge,
                },
            );
            return Ok(());
        };
        let incarnation = process.log.identity().incarnation;
        let now = machine.clock.since_boot(self.now_us);
        let sends = [scope.clone(), Scope::cluster()].map(|scope| StreamKey {
            id: StreamId::new(scope, Lane::Down),
            incarnation,
        });
        let session = Session::cloud(self.local(cloud, &scope, incarnation), sends.to_vec(), now);
        let older: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(other, found)| {
                **other != link
                    && found.cloud == cloud
                    && found.end(Side::Cloud).is_some()
                    && self.machines[found.edge].scope.as_ref() == Some(&scope)
            })
            .map(|(other, _)| *other)
            .collect();
        for other in older {
            let at = self.now_us + self.rng.below(REPLACED_US);
            self.events.add(
                at,
                Event::Closed {
                    link: other,
                    side: Side::Cloud,
                },
            );
        }
        if let Some(found) = self.links.get_mut(&link) {
            *found.end_mut(Side::Cloud) = Some(End::new(session));
        }
        self.drive(link, Side::Cloud)
    }

    /// Something arrives.
    pub(super) fn deliver(&mut self, link: LinkId, to: Side, item: Item) -> Checked {
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        // A connection that is stalled delivers later, in the same order.
        let stalled_until = found.line(to.other()).stalled_until;
        if stalled_until > self.now_us {
            self.events.add(stalled_until, Event::Deliver { link, to, item });
            return Ok(());
        }
        let id = found.machine(to);
        let Some(mut end) = found.end_mut(to).take() else {
            return Ok(());
        };
        let result = match item {
            Item::Control(bytes) => self.control(id, &mut end, bytes),
            Item::Frame(_, bytes) => self.receive(id, &mut end, bytes),
            Item::Part(key, bytes) => self.receive_part(id, &mut end, key, bytes),
        };
        self.put_back(link, to, end);
        match result? {
            Ok(()) => {
                self.retain_if_blocked(id)?;
                self.drive(link, to)
            }
            Err(Stop::Session(err)) => self.session_ended(link, to, err),
            Err(Stop::Lost) => self.close(link, to, "the machine went"),
            Err(Stop::Append(err)) => {
                self.close(link, to, "the log did not take a frame")?;
                match err {
                    AppendError::Poisoned { .. } | AppendError::DiskFull { .. } => {
                        self.append_failed(id, &err)
                    }
                    other => {
                        note!(self, "{} refuses a frame: {other}", self.machines[id].name);
                        Ok(())
                    }
                }
            }
        }
    }

    fn control(&mut self, id: MachineId, end: &mut End, bytes: Bytes) -> Checked<Result<(), Stop>> {
        let message = wire::decode(&bytes[4..])
            .map_err(|err| Violation::new("wire", format!("a control message cannot be read: {err}")))?;
        let Some((log, now)) = self.running(id) else {
            return Ok(Err(Stop::Lost));
        };
        note!(self, "{} hears {}", self.machines[id].name, describe(&message));
        Ok(end
            .session
            .handle_message(message, &LogHoldings(&log), now)
            .map_err(Stop::Session))
    }

    /// Appends a frame and tells the session when it is durable.
    fn receive(&mut self, id: MachineId, end: &mut End, bytes: Bytes) -> Checked<Result<(), Stop>> {
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
        let (first, mark) = (frame.first_seq(), frame.mark());
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
                    self.machines[id].name,
                    mark.position
                );
                if id == CLOUD {
                    self.oracle.arrived(&key, first, mark.position.seq);
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
    fn receive_part(
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
        let held = log.durable(&key);
        if held.is_none_or(|held| held.position < mark.position)
            && let Err(err) = log.append_snapshot_blocking(parts)
        {
            return Ok(Err(Stop::Append(err)));
        }
        note!(
            self,
            "{} takes a snapshot of {key} at {}",
            self.machines[id].name,
            mark.position
        );
        end.received.insert(key.clone(), mark);
        end.session.handle_durable(&key, mark, now);
        self.took(id, &key, mark)?;
        Ok(Ok(()))
    }

    /// A log took a frame: its writer wrote it.
    fn took(&mut self, id: MachineId, key: &StreamKey, mark: Mark) -> Checked {
        super::violation::ensure(self.oracle.was_written(key, mark), "prefix-of-its-writer", || {
            format!(
                "{} holds {key} {}, which nobody wrote",
                self.machines[id].name, mark.position
            )
        })
    }

    /// The log of a running daemon and its monotonic clock.
    fn running(&self, id: MachineId) -> Option<(ledge_log::Log, std::time::Duration)> {
        let machine = &self.machines[id];
        let process = machine.process.as_ref()?;
        Some((process.log.clone(), machine.clock.since_boot(self.now_us)))
    }

    /// Gives an end back that was taken to work on, unless its daemon went meanwhile.
    fn put_back(&mut self, link: LinkId, side: Side, end: End) {
        if let Some(found) = self.links.get_mut(&link)
            && self.machines[found.machine(side)].process.is_some()
        {
            *found.end_mut(side) = Some(end);
        }
    }

    /// Does what a session wants done, until it wants nothing more.
    pub(super) fn drive(&mut self, link: LinkId, side: Side) -> Checked {
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        let id = found.machine(side);
        let Some(mut end) = found.end_mut(side).take() else {
            return Ok(());
        };
        let Some((log, now)) = self.running(id) else {
            return Ok(());
        };
        let result = self.poll(link, side, id, &mut end, &log, now);
        self.next_link_timer(link, side, id, &mut end);
        self.put_back(link, side, end);
        result?;
        self.pump(link, side)
    }

    fn poll(
        &mut self,
        link: LinkId,
        side: Side,
        id: MachineId,
        end: &mut End,
        log: &ledge_log::Log,
        now: std::time::Duration,
    ) -> Checked {
        loop {
            let mut moved = false;
            while let Some(message) = end.session.poll_transmit(now) {
                moved = true;
                if let Message::Ack(ack) = &message {
                    let (key, mark) = marked(ack)?;
                    self.promised(id, &key, mark)?;
                }
                self.say(link, side, message)?;
            }
            while let Some(event) = end.session.poll_event() {
                moved = true;
                match event {
                    SessionEvent::Established { .. } => {
                        note!(self, "{}: session {link} established", self.machines[id].name);
                        self.machines[id].backoff.reset();
                    }
                    SessionEvent::SendFrom { key, after } => {
                        note!(self, "{} sends {key} after {after}", self.machines[id].name);
                        let reader = log.read_stream(&key, after);
                        if let Some(found) = self.links.get_mut(&link) {
                            found
                                .line(side)
                                .senders
                                .insert(LaneKey::stream(&key), Sender::new(reader));
                        }
                    }
                    SessionEvent::PeerDurable { key, mark } => {
                        note!(
                            self,
                            "{} hears that {key} is durable to {}",
                            self.machines[id].name,
                            mark.position
                        );
                        if side == Side::Edge {
                            let machine = &mut self.machines[id];
                            let seq = mark.position.seq;
                            if let Some(process) = &mut machine.process {
                                process.archived.insert(key.clone(), seq);
                            }
                            let ever = machine.ever_archived.entry(key.clone()).or_insert(seq);
                            *ever = seq.max(*ever);
                        }
                        super::violation::ensure(
                            self.oracle.was_written(&key, mark),
                            "prefix-of-its-writer",
                            || {
                                format!(
                                    "the peer acknowledges {key} {}, which nobody wrote",
                                    mark.position
                                )
                            },
                        )?;
                    }
                    SessionEvent::PeerHeads(_) => {}
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn say(&mut self, link: LinkId, side: Side, message: Message) -> Checked {
        let bytes = wire::encode(message)
            .map_err(|err| Violation::new("wire", format!("a control message cannot be sent: {err}")))?;
        if let Some(found) = self.links.get_mut(&link) {
            found.line(side).control.push_back(bytes);
        }
        Ok(())
    }

    fn next_link_timer(&mut self, link: LinkId, side: Side, id: MachineId, end: &mut End) {
        if let Some(deadline) = end.session.poll_timeout() {
            end.timer += 1;
            let at = self.machines[id].clock.when(deadline).max(self.now_us + 1);
            let serial = end.timer;
            self.events.add(at, Event::Timer { link, side, serial });
        }
    }

    pub(super) fn timer(&mut self, link: LinkId, side: Side, serial: u64) -> Checked {
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        let id = found.machine(side);
        match found.end(side) {
            Some(end) if end.timer == serial => {}
            _ => return Ok(()),
        }
        let Some((_, now)) = self.running(id) else {
            return Ok(());
        };
        let Some(end) = self
            .links
            .get_mut(&link)
            .and_then(|found| found.end_mut(side).as_mut())
        else {
            return Ok(());
        };
        match end.session.handle_timeout(now) {
            Ok(()) => self.drive(link, side),
            Err(err) => self.session_ended(link, side, err),
        }
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
        let lane = LaneKey::of(&item);
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        let line = found.line(from);
        let before = line.last_arrival.get(&lane).copied().unwrap_or(open_at);
        let at = (free_at + travel).max(before + 1);
        line.last_arrival.insert(lane, at);
        line.busy = true;
        self.events.add(free_at, Event::LineFree { link, from });
        let to = from.other();
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
                    return self.send_snapshot(link, from, &lane, &log, parts).map(Ok);
                }
                Err(err) => return Ok(Err(err)),
            }
        }
        Ok(Ok(None))
    }

    fn send_snapshot(
        &mut self,
        link: LinkId,
        from: Side,
        lane: &LaneKey,
        log: &ledge_log::Log,
        parts: Vec<v1::Snapshot>,
    ) -> Checked<Option<Item>> {
        let (key, mark) = identity_of(&parts)?;
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

    fn session_ended(&mut self, link: LinkId, side: Side, err: SessionError) -> Checked {
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        let id = found.machine(side);
        note!(self, "{}: session {link} ends: {err}", self.machines[id].name);
        // A refusal is still said.
        let last_words: Vec<Message> = self
            .links
            .get_mut(&link)
            .and_then(|found| found.end_mut(side).as_mut())
            .map(|end| std::iter::from_fn(|| end.session.poll_transmit(Default::default())).collect())
            .unwrap_or_default();
        for message in last_words {
            self.say(link, side, message)?;
        }
        self.pump(link, side)?;
        self.close(link, side, "session ended")
    }

    /// One end goes; the other is told, if the network lets it.
    pub(super) fn close(&mut self, link: LinkId, side: Side, why: &str) -> Checked {
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        let id = found.machine(side);
        if found.end_mut(side).take().is_none() {
            return Ok(());
        }
        let stalled_until = found.line(side).stalled_until;
        let last = found.line(side).last_arrival.get(&LaneKey::control()).copied();
        let other = side.other();
        let dead = found.is_dead();
        note!(self, "{}: connection {link} ends: {why}", self.machines[id].name);
        if dead {
            self.links.remove(&link);
        } else {
            let at = (self.now_us + self.travel())
                .max(last.unwrap_or(0) + 1)
                .max(stalled_until);
            self.events.add(at, Event::Closed { link, side: other });
        }
        if side == Side::Edge && self.machines[id].link == Some(link) {
            self.machines[id].link = None;
            let random = self.rng.next_u64();
            let wait = self.machines[id].backoff.next_wait(random);
            let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
            let life = self.machines[id].life;
            let at = self.now_us + 1 + wait;
            self.events.add(at, Event::Dial { machine: id, life });
        }
        Ok(())
    }
}

/// Why an end cannot go on.
enum Stop {
    Session(SessionError),
    Append(AppendError),
    /// Its daemon is gone.
    Lost,
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

/// What an acknowledgement is about.
fn marked(ack: &v1::Ack) -> Checked<(StreamKey, Mark)> {
    let read = || {
        let id = StreamId::new(Scope::from_wire(&ack.scope)?, Lane::from_wire(ack.lane)?);
        let key = StreamKey {
            id,
            incarnation: Incarnation::from_slice(&ack.incarnation)?,
        };
        let mark = Mark {
            position: Position {
                epoch: Epoch(ack.epoch),
                seq: Seq(ack.durable_seq),
            },
            chain: Chain::from_slice(&ack.durable_chain)?,
        };
        Ok((key, mark))
    };
    read().map_err(|err: ledge_proto::ids::NameError| {
        Violation::new("wire", format!("an acknowledgement cannot be read: {err}"))
    })
}

fn describe(message: &Message) -> String {
    let streams = |streams: &[v1::StreamState]| {
        let each = streams.iter().map(|state| {
            let lane = Lane::from_wire(state.lane).map_or("?", Lane::name);
            format!(" {}/{lane} {}:{}", state.scope, state.epoch, state.seq)
        });
        each.collect::<String>()
    };
    match message {
        Message::Hello(hello) => format!("HELLO{}", streams(&hello.streams)),
        Message::Welcome(welcome) => format!("WELCOME{}", streams(&welcome.streams)),
        Message::Refuse(refuse) => format!("REFUSE {}", refuse.reason),
        Message::Ack(ack) => {
            let lane = Lane::from_wire(ack.lane).map_or("?", Lane::name);
            format!("ACK {}/{lane} {}:{}", ack.scope, ack.epoch, ack.durable_seq)
        }
        Message::Ping(_) => "PING".to_owned(),
    }
}
