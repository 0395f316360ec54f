//! The shell around sessions, as thin as the one around QUIC: it moves messages and frames between sessions, logs
//! and the network, and decides nothing.

use std::time::Duration;

use bytes::Bytes;
use ledge_log::{AppendError, Log};
use ledge_proto::ids::{Incarnation, Lane, Scope, Seq, StreamId, StreamKey};
use ledge_proto::session::{
    ArchivePolicy, Event as SessionEvent, Holdings, Local, RefuseReason, Session, SessionError, stream_state,
    wire,
};
use ledge_proto::v1;
use ledge_proto::v1::control_message::Message;
use ledge_retention::reset::Reset;

use super::events::Event;
use super::link::{End, Link, LinkId, LogHoldings, Side};
use super::machine::{CLOUD, CLUSTER, MachineId};
use super::net::{Item, LaneKey};
use super::violation::{Checked, Violation, ensure};
use super::words::{describe, marked};
use super::world::{World, note};

impl World {
    fn local(&mut self, id: MachineId, node: &Scope, incarnation: Incarnation) -> Local {
        let heartbeat = Duration::from_millis(self.mix.heartbeat_ms);
        let mut nonce = [0; 16];
        self.rng.fill(&mut nonce);
        Local {
            cluster: CLUSTER,
            node: node.clone(),
            incarnation,
            boot_id: self.machines[id].life.to_string(),
            labels: Default::default(),
            software: "simulation".to_owned(),
            heartbeat,
            heartbeat_idle: heartbeat * 4,
            nonce,
            wall_us: self.machines[id].clock.wall_us(self.now_us),
            receipts: None,
            archive: ArchivePolicy::FollowDurable,
        }
    }

    /// What a running daemon's session asks; `link` is the session's own connection.
    pub(super) fn holding<T>(
        &self,
        id: MachineId,
        node: &Scope,
        link: LinkId,
        ask: impl FnOnce(&dyn Holdings, Duration) -> T,
    ) -> Option<T> {
        let machine = &self.machines[id];
        let process = machine.process.as_ref()?;
        let other_session = self.links.iter().any(|(other, found)| {
            *other != link
                && found.cloud == id
                && self.machines[found.edge].scope.as_ref() == Some(node)
                && found.end(Side::Cloud).is_some_and(|end| end.established)
        });
        let held = LogHoldings {
            log: &process.log,
            state: &machine.projection.state,
            fences: &process.fences,
            node,
            other_session,
        };
        Some(ask(&held, machine.clock.since_boot(self.now_us)))
    }

    /// The node a connection belongs to.
    pub(super) fn node_of(&self, link: LinkId) -> Option<Scope> {
        let found = self.links.get(&link)?;
        self.machines[found.edge].scope.clone()
    }

    /// An edge dials.
    pub(super) fn dial(&mut self, id: MachineId) -> Checked {
        self.fold(id)?;
        let machine = &self.machines[id];
        let (Some(process), Some(scope), None) = (&machine.process, &machine.scope, machine.link) else {
            return Ok(());
        };
        let (log, scope) = (process.log.clone(), scope.clone());
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
        let local = self.local(id, &scope, own);
        let link = self.next_link;
        self.next_link += 1;
        let Some(session) = self.holding(id, &scope, link, |held, now| {
            Session::edge(local, sends.to_vec(), receives, held, now)
        }) else {
            return Ok(());
        };
        let open_at = self.now_us + self.travel();
        let cloud = self.a_cloud();
        note!(
            self,
            "{} dials {}: connection {link}",
            self.machines[id].label,
            self.machines[cloud].label
        );
        self.machines[id].link = Some(link);
        self.links
            .insert(link, Link::new(id, cloud, End::new(session), open_at));
        self.events.add(open_at, Event::Accept(link));
        self.drive(link, Side::Edge)
    }

    /// Whichever cloud the network leads to.
    fn a_cloud(&mut self) -> MachineId {
        let clouds: Vec<MachineId> = (0..self.machines.len())
            .filter(|id| self.machines[*id].scope.is_none() && !self.machines[*id].retired)
            .collect();
        match clouds.len() {
            0 | 1 => CLOUD,
            some => clouds[self.rng.index(some)],
        }
    }

    /// Time one thing takes to arrive.
    pub(super) fn travel(&mut self) -> u64 {
        self.mix.latency_us + self.rng.below(self.mix.jitter_us)
    }

    /// A connection reaches the cloud. An older one of the same node lives on until this one is established.
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
        if let Some(found) = self.links.get_mut(&link) {
            *found.end_mut(Side::Cloud) = Some(End::new(session));
        }
        self.drive(link, Side::Cloud)
    }

    /// Ends every other connection of a node at a cloud.
    fn end_others(&mut self, link: LinkId, id: MachineId) -> Checked {
        let Some(node) = self.node_of(link) else {
            return Ok(());
        };
        let others: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(other, found)| {
                **other != link
                    && found.cloud == id
                    && found.end(Side::Cloud).is_some()
                    && self.machines[found.edge].scope.as_ref() == Some(&node)
            })
            .map(|(other, _)| *other)
            .collect();
        for other in others {
            self.close(other, Side::Cloud, "replaced")?;
        }
        Ok(())
    }

    /// Something arrives.
    pub(super) fn deliver(&mut self, link: LinkId, to: Side, item: Item) -> Checked {
        let Some(found) = self.links.get_mut(&link) else {
            self.count("loss");
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
            self.count("loss");
            return Ok(());
        };
        let result = match item {
            Item::Control(bytes) => self.control(link, id, &mut end, bytes),
            // Lanes are read once the session takes what is on them.
            item if !end.session.is_open() && !item.stream().is_some_and(|key| end.session.accepts(key)) => {
                end.waiting.push_back(item);
                Ok(Ok(()))
            }
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
                        note!(self, "{} refuses a frame: {other}", self.machines[id].label);
                        Ok(())
                    }
                }
            }
        }
    }

    fn control(
        &mut self,
        link: LinkId,
        id: MachineId,
        end: &mut End,
        bytes: Bytes,
    ) -> Checked<Result<(), Stop>> {
        let message = wire::decode(&bytes[4..])
            .map_err(|err| Violation::new("wire", format!("a control message cannot be read: {err}")))?;
        note!(self, "{} hears {}", self.machines[id].label, describe(&message));
        if let Message::Hello(hello) = &message {
            let fences = self.machines[id].process.as_ref().map(|process| &process.fences);
            let fence = fences.and_then(|fences| fences.nodes.get(&self.node_of(link)?));
            let presented = hello.token.clone().unwrap_or_default();
            let is = |token: &Option<v1::SessionToken>| token.clone().unwrap_or_default() == presented;
            end.presented = presented.counter;
            end.latest = fence.is_none_or(|fence| {
                let of_another_disk = fence.incarnation != hello.incarnation;
                let decided = fence.accepted.is_some();
                let unconfirmed = !fence.confirmed && fence.outstanding.contains(&presented);
                // More than the cloud knows of: it was restored, which is judged elsewhere.
                let ahead = fence.current.as_ref().map_or(0, |token| token.counter) < presented.counter;
                of_another_disk || decided || unconfirmed || ahead || is(&fence.current)
            });
        }
        if let Message::Welcome(welcome) = &message {
            end.welcomed = (welcome.restore_generation, welcome.cloud_epoch);
        }
        let Some(node) = self.node_of(link) else {
            return Ok(Err(Stop::Lost));
        };
        // What a session is told of snapshots has to be folded.
        self.fold(id)?;
        let step = |held: &dyn Holdings, now| end.session.handle_message(message, held, now);
        match self.holding(id, &node, link, step) {
            Some(result) => Ok(result.map_err(Stop::Session)),
            None => Ok(Err(Stop::Lost)),
        }
    }

    /// The log of a running daemon and its monotonic clock.
    pub(super) fn running(&self, id: MachineId) -> Option<(Log, Duration)> {
        let machine = &self.machines[id];
        let process = machine.process.as_ref()?;
        Some((process.log.clone(), machine.clock.since_boot(self.now_us)))
    }

    /// Gives an end back that was taken to work on, unless its daemon went meanwhile.
    pub(super) fn put_back(&mut self, link: LinkId, side: Side, end: End) {
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
        let result = self.poll(link, side, id, &mut end);
        self.next_link_timer(link, side, id, &mut end);
        if end.session.is_open() {
            let now = self.now_us;
            for item in std::mem::take(&mut end.waiting) {
                self.events.add(now, Event::Deliver { link, to: side, item });
            }
        }
        self.put_back(link, side, end);
        match result? {
            Ok(()) => self.pump(link, side),
            Err(Stop::Session(err)) => self.session_ended(link, side, err),
            Err(Stop::Append(err)) => {
                self.close(link, side, "the log did not take something")?;
                self.append_failed(id, &err)
            }
            Err(Stop::Lost) => self.close(link, side, "the machine went"),
        }
    }

    fn poll(&mut self, link: LinkId, side: Side, id: MachineId, end: &mut End) -> Checked<Result<(), Stop>> {
        loop {
            let Some((_, now)) = self.running(id) else {
                return Ok(Err(Stop::Lost));
            };
            let mut moved = false;
            while let Some(message) = end.session.poll_transmit(now) {
                moved = true;
                if let Message::Ack(ack) = &message {
                    let (key, mark) = marked(ack)?;
                    self.promised(id, &key, mark)?;
                    self.check_archived(id, &key, Seq(ack.archived_seq))?;
                }
                self.check_said(link, id, end, &message)?;
                self.say(link, side, message)?;
            }
            let mut resets = Vec::new();
            while let Some(event) = end.session.poll_event() {
                moved = true;
                self.carry_out(link, side, id, end, event, &mut resets)?;
            }
            if !resets.is_empty() {
                match self.begin_epochs(link, id, end, resets)? {
                    Ok(()) => {}
                    Err(stop) => return Ok(Err(stop)),
                }
            }
            if !moved {
                return Ok(Ok(()));
            }
        }
    }

    fn carry_out(
        &mut self,
        link: LinkId,
        side: Side,
        id: MachineId,
        end: &mut End,
        event: SessionEvent,
        resets: &mut Vec<Reset>,
    ) -> Checked {
        match event {
            SessionEvent::Persist(update) => self.hand_over(link, side, id, update, true),
            SessionEvent::Note(update) => self.hand_over(link, side, id, update, false),
            SessionEvent::Reset {
                key,
                epoch,
                base,
                common,
            } => {
                resets.push(Reset {
                    key,
                    epoch,
                    base,
                    common,
                });
                Ok(())
            }
            SessionEvent::Established { .. } => {
                note!(self, "{}: session {link} established", self.machines[id].label);
                end.established = true;
                match side {
                    Side::Edge => {
                        self.machines[id].backoff.reset();
                        self.check_leadership(id, end.welcomed)
                    }
                    Side::Cloud => {
                        self.check_not_quarantined(id, link)?;
                        self.end_others(link, id)
                    }
                }
            }
            SessionEvent::SendSnapshot { key, after, at } => {
                end.snapshots_first.insert(key, (after, at));
                Ok(())
            }
            SessionEvent::SendFrom { key, after } => {
                let first = end.snapshots_first.remove(&key);
                self.send_from(link, side, id, &key, (after, first))
            }
            SessionEvent::PeerDurable { key, mark } => {
                note!(
                    self,
                    "{} hears that {key} is durable to {}",
                    self.machines[id].label,
                    mark.position
                );
                ensure(
                    self.oracle.was_written(&key, mark),
                    "prefix-of-its-writer",
                    || {
                        format!(
                            "the peer acknowledges {key} {}, which nobody wrote",
                            mark.position
                        )
                    },
                )
            }
            SessionEvent::PeerArchived { key, seq } => {
                let machine = &mut self.machines[id];
                if let Some(process) = &mut machine.process {
                    process.archived.insert(key.clone(), seq);
                }
                let ever = machine.ever_archived.entry(key).or_insert(seq);
                *ever = seq.max(*ever);
                Ok(())
            }
            SessionEvent::Quarantine { reason, message } => {
                note!(
                    self,
                    "{}: quarantine: {message} ({reason:?})",
                    self.machines[id].label
                );
                self.count_event("quarantines");
                self.end_others(link, id)
            }
            SessionEvent::CloudLost(lost) => {
                note!(self, "{} lost {lost:?}", self.machines[id].label);
                self.count_event("cloud-lost");
                Ok(())
            }
            SessionEvent::PeerHeads(_)
            | SessionEvent::Nack { .. }
            | SessionEvent::Fetch { .. }
            | SessionEvent::NotHeld { .. } => Ok(()),
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
        let result = end.session.handle_timeout(now);
        match result {
            Ok(()) => self.drive(link, side),
            Err(err) => self.session_ended(link, side, err),
        }
    }

    pub(super) fn session_ended(&mut self, link: LinkId, side: Side, err: SessionError) -> Checked {
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        let id = found.machine(side);
        note!(self, "{}: session {link} ends: {err}", self.machines[id].label);
        if let (SessionError::Refusing { reason, .. }, true, CLOUD) = (&err, self.calm, id) {
            // The operator does what the message says.
            self.restored |= *reason == RefuseReason::CloudRolledBack;
            if *reason == RefuseReason::Superseded {
                self.superseded.extend(self.node_of(link));
            }
        }
        // What it still wants is done: a quarantine is noted.
        let taken = self
            .links
            .get_mut(&link)
            .and_then(|found| found.end_mut(side).take());
        if let Some(mut end) = taken {
            while let Some(event) = end.session.poll_event() {
                self.carry_out(link, side, id, &mut end, event, &mut Vec::new())?;
            }
            self.put_back(link, side, end);
        }
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
        note!(self, "{}: connection {link} ends: {why}", self.machines[id].label);
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
pub(super) enum Stop {
    Session(SessionError),
    Append(AppendError),
    /// Its daemon is gone.
    Lost,
}
