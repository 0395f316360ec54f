//! The task that owns a link: what happens goes to the session, and what the session wants is done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledge_proto::fence::FenceUpdate;
use ledge_proto::ids::{Mark, Seq, StreamKey};
use ledge_proto::session::{Event, Holdings, Session, SessionError, wire};
use ledge_proto::stamp::Stamp;
use ledge_proto::v1::ClockQuality;
use ledge_proto::v1::control_message::Message;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::heads::{self, Oldest, UdpMeter, now_us};
use super::holdings::LogHoldings;
use super::observer::{Direction, Traffic};
use super::window::Window;
use super::{Link, LinkError, LinkParts, fetch, hinted, hints, lanes};
use crate::reset::{self, Reset};

/// Priority of the control stream; lanes come below (see `lanes`).
const CONTROL_PRIORITY: i32 = 30;
/// How long a refusal may take to be read.
const FAREWELL: Duration = Duration::from_secs(1);

/// Something that the session has to know.
enum Input {
    /// Boxed: a queue has room for 32 inputs even while it is empty, and every link has one.
    Message(Box<Message>),
    Timeout,
    /// What it asked for is durable.
    Persisted,
    /// These streams have begun their new epochs.
    Begun(Vec<StreamKey>),
}

/// Runs a link until it ends.
pub(super) async fn run(
    connection: Connection,
    (control_out, control_in): (SendStream, RecvStream),
    parts: LinkParts,
    begin: impl FnOnce(&LinkParts, &LogHoldings<'_>) -> Session,
) -> Result<(), LinkError> {
    control_out.set_priority(CONTROL_PRIORITY).ok();
    let end = parts.shutdown.child_token();
    let entry = parts.fences.of(&parts.local.node)?.begin(end.clone());
    let cloud = parts.fences.of_cloud()?;
    let session = begin(
        &parts,
        &LogHoldings {
            log: &parts.log,
            snapshots: &*parts.snapshots,
            entry: &entry,
            cloud: &cloud,
        },
    );
    let link = Arc::new(Link {
        connection: connection.clone(),
        log: parts.log,
        session: Mutex::new(session),
        entry,
        cloud,
        appends: parts.appends,
        origin: Instant::now(),
        wake: Notify::new(),
        observer: parts.observer,
        snapshots: parts.snapshots,
        drain: parts.drain,
        acked: Mutex::new(parts.sends.iter().map(|key| (key.clone(), Seq::ZERO)).collect()),
        gate: watch::Sender::new(!parts.sends.iter().any(hinted)),
        not_held: Mutex::default(),
        refilled: Notify::new(),
    });
    let (inputs_in, inputs) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(read_control(link.clone(), control_in, inputs_in.clone()));
    let mut driver = Driver {
        link: link.clone(),
        window: Window::new(connection.clone(), parts.slots),
        tasks,
        inputs,
        inputs_in,
        control_out,
        snapshots_first: BTreeMap::new(),
        meter: UdpMeter::default(),
        oldest: Oldest::default(),
        receiving: false,
    };
    let result = driver.until_end(&end).await;
    let result = match result {
        Err(LinkError::Shutdown) if !parts.shutdown.is_cancelled() => Err(LinkError::Replaced),
        other => other,
    };
    driver.say_goodbye(&result).await;
    let result = match (result, connection.close_reason()) {
        // Why the connection went says more than which of its streams noticed first.
        (Err(LinkError::Stream(_)), Some(reason)) => Err(LinkError::Connection(reason)),
        (result, _) => result,
    };
    connection.close(VarInt::from_u32(0), b"bye");
    result
}

struct Driver {
    link: Arc<Link>,
    window: Window,
    tasks: JoinSet<Result<(), LinkError>>,
    inputs: mpsc::Receiver<Input>,
    inputs_in: mpsc::Sender<Input>,
    control_out: SendStream,
    /// Streams that begin with a snapshot: the last record the peer has, and where the snapshot stands.
    snapshots_first: BTreeMap<StreamKey, (Seq, Mark)>,
    meter: UdpMeter,
    oldest: Oldest,
    receiving: bool,
}

impl Driver {
    async fn until_end(&mut self, end: &CancellationToken) -> Result<(), LinkError> {
        // What the session was born with.
        let born = self.take_events(|_, _, _| Ok(())).await;
        born?;
        loop {
            self.flush().await?;
            if !self.receiving && self.link.session().is_open() {
                // Lanes are taken only once the peer is known to be who it should be.
                self.receiving = true;
                self.tasks.spawn(lanes::accept(self.link.clone()));
                self.tasks.spawn(fetch::ask(self.link.clone()));
            }
            let deadline = { self.link.session().poll_timeout() };
            // In this order: a message that arrived before its stream ended (a refusal) is heard before the ending.
            let input = tokio::select! {
                biased;
                () = end.cancelled() => return Err(LinkError::Shutdown),
                () = sleep_until(self.link.origin, deadline) => Input::Timeout,
                Some(input) = self.inputs.recv() => input,
                () = self.link.wake.notified() => continue,
                () = self.window.raise() => continue,
                Some(ended) = self.tasks.join_next() => {
                    ended.map_err(|err| LinkError::Stream(format!("a task of the link failed: {err}")))??;
                    continue;
                }
                reason = self.link.connection.closed() => return Err(LinkError::Connection(reason)),
            };
            self.take(input).await?;
        }
    }

    async fn take(&mut self, input: Input) -> Result<(), LinkError> {
        match input {
            Input::Message(message) => {
                self.take_events(|session, held, now| session.handle_message(*message, held, now))
                    .await
            }
            Input::Timeout => {
                self.meter.tell(&self.link);
                let heads = heads::ours(&self.link, &mut self.oldest).await?;
                self.take_events(|session, _, now| {
                    session.set_heads(heads, now);
                    session.handle_timeout(now)
                })
                .await
            }
            Input::Persisted => {
                self.take_events(|session, held, now| session.handle_persisted(held, now))
                    .await
            }
            Input::Begun(keys) => {
                self.take_events(|session, held, now| session.handle_reset_done(&keys, held, now))
                    .await
            }
        }
    }

    /// Lets the session go on, and does what it wants then. What it decided is in the log's queue before anybody else
    /// decides about the node.
    async fn take_events(
        &mut self,
        step: impl FnOnce(&mut Session, &dyn Holdings, Duration) -> Result<(), SessionError>,
    ) -> Result<(), LinkError> {
        let link = self.link.clone();
        let order = link.entry.fences().order().await;
        let (result, events) = {
            let mut session = link.session();
            let result = step(&mut session, &link.holdings(), link.now());
            let events: VecDeque<Event> = std::iter::from_fn(|| session.poll_event()).collect();
            (result, events)
        };
        let mut rest = Vec::with_capacity(events.len());
        for event in events {
            let (update, waits) = match event {
                Event::Persist(update) => (update, true),
                Event::Note(update) => (update, false),
                other => {
                    rest.push(other);
                    continue;
                }
            };
            let boot = link.log.identity().boot;
            let ticket = match &update {
                FenceUpdate::Cloud(_) => {
                    let order = link.cloud.order().await;
                    order.note(&link.log, &update, now_us(), boot).await?
                }
                _ => order.note(&link.log, &update, now_us(), boot).await?,
            };
            if waits {
                let inputs = self.inputs_in.clone();
                self.tasks.spawn(async move {
                    ticket.await?;
                    inputs.send(Input::Persisted).await.ok();
                    Ok(())
                });
            }
        }
        drop(order);
        if result.is_ok() {
            // Before any lane begins: the peer reads lanes only once it has what is said here (CONFIRM), and lanes that take all
            // of the connection's window first would leave no room for it.
            self.flush().await?;
        }
        self.carry_out(rest);
        Ok(result?)
    }

    fn carry_out(&mut self, events: Vec<Event>) {
        let link = &self.link;
        let mut resets = Vec::new();
        for event in events {
            match event {
                // Taken before.
                Event::Persist(_) | Event::Note(_) => {}
                Event::Established { peer } => {
                    link.entry.established();
                    link.observer.established(&peer);
                }
                Event::Reset {
                    key,
                    epoch,
                    base,
                    common,
                } => resets.push(Reset {
                    key,
                    epoch,
                    base,
                    common,
                }),
                Event::SendSnapshot { key, after, at } => {
                    self.snapshots_first.insert(key, (after, at));
                }
                Event::SendFrom { key, after } => {
                    if hinted(&key) {
                        self.tasks.spawn(hints::send(link.clone(), key.clone(), after));
                    }
                    let first = self.snapshots_first.remove(&key);
                    self.tasks.spawn(lanes::send(link.clone(), key, after, first));
                }
                Event::PeerDurable { key, mark } => {
                    let mut acked = link.acked.lock().unwrap_or_else(PoisonError::into_inner);
                    acked.insert(key.clone(), mark.position.seq);
                    drop(acked);
                    link.observer.peer_durable(&key, mark);
                }
                Event::PeerArchived { key, seq } => link.observer.peer_archived(&key, seq),
                Event::PeerHeads(heads) => {
                    self.window.set_backlog(heads::backlog(link, &heads));
                    link.observer.peer_heads(&heads);
                }
                Event::Quarantine { reason, message } => {
                    link.entry.end_others();
                    link.observer.quarantined(reason, &message);
                }
                Event::CloudLost(lost) => link.observer.cloud_lost(&lost),
                Event::Nack { key, seq, reason } => {
                    self.tasks
                        .spawn(async move { Err(LinkError::Nack { key, seq, reason }) });
                }
                Event::Fetch { id, key, first, last } => {
                    self.tasks
                        .spawn(fetch::answer(link.clone(), id, key, first, last));
                }
                Event::NotHeld { id } => {
                    link.not_held().push(id);
                    link.refilled.notify_one();
                }
            }
        }
        if !resets.is_empty() {
            self.tasks
                .spawn(begin_epochs(link.clone(), resets, self.inputs_in.clone()));
        }
    }

    /// Sends what the session has to say.
    async fn flush(&mut self) -> Result<(), LinkError> {
        let link = &self.link;
        while let Some(message) = { link.session().poll_transmit(link.now()) } {
            let bytes = wire::encode(message)?;
            link.observer
                .traffic(Direction::Sent, Traffic::Control, bytes.len() as u64);
            self.control_out
                .write_chunk(bytes)
                .await
                .map_err(|err| LinkError::Stream(err.to_string()))?;
        }
        Ok(())
    }

    async fn say_goodbye(&mut self, result: &Result<(), LinkError>) {
        self.tasks.shutdown().await;
        self.meter.tell(&self.link);
        if let Err(LinkError::Session(SessionError::Refusing { .. })) = result {
            // Say why, and give the peer a moment to read it before the connection goes.
            self.flush().await.ok();
            self.control_out.finish().ok();
            tokio::time::timeout(FAREWELL, self.link.connection.closed())
                .await
                .ok();
        }
    }
}

async fn begin_epochs(
    link: Arc<Link>,
    resets: Vec<Reset>,
    inputs: mpsc::Sender<Input>,
) -> Result<(), LinkError> {
    let keys = resets.iter().map(|reset| reset.key.clone()).collect();
    let lost = reset::carry_out(&link.log, &link.appends, resets, now()).await?;
    for lost in &lost {
        link.observer.history_lost(lost);
    }
    inputs.send(Input::Begun(keys)).await.ok();
    Ok(())
}

pub(super) fn now() -> Stamp {
    Stamp {
        wall_us: now_us(),
        clock: ClockQuality::ClockUnknown,
        mono_us: 0,
    }
}

async fn read_control(
    link: Arc<Link>,
    mut control: RecvStream,
    inputs: mpsc::Sender<Input>,
) -> Result<(), LinkError> {
    loop {
        let mut prefix = [0; 4];
        control
            .read_exact(&mut prefix)
            .await
            .map_err(|err| LinkError::Stream(err.to_string()))?;
        let mut body = vec![0; wire::decode_len(prefix)?];
        control
            .read_exact(&mut body)
            .await
            .map_err(|err| LinkError::Stream(err.to_string()))?;
        link.observer
            .traffic(Direction::Received, Traffic::Control, 4 + body.len() as u64);
        if inputs
            .send(Input::Message(Box::new(wire::decode(&body)?)))
            .await
            .is_err()
        {
            return Ok(());
        }
    }
}

async fn sleep_until(origin: Instant, deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(origin + deadline).await,
        None => std::future::pending().await,
    }
}
