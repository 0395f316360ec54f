//! Frames out of the log onto a QUIC stream, and off a QUIC stream into the log.

use std::sync::Arc;

use ledge_log::{CheckedFrame, ReadError};
use ledge_proto::fold::snapshot;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Lane, Mark, Seq, StreamKey};
use ledge_proto::session::items::Item;
use ledge_proto::v1::{self, snapshot::Purpose};
use ledge_retention::gaps::PeerGaps;
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::in_place::{Around, LOOK_AGAIN, around_damage, declare, in_place, shortcut, standing_at};
use super::items::{ItemStream, write_frame, write_part};
use super::observer::{Direction, Traffic};
use super::snapshots::{Collector, PartError, Whole};
use super::{Link, LinkError, fetch};

/// Frames of one lane that may wait for fsync at once. With quinn's windows this bounds the memory of a link.
const UNSYNCED_FRAMES: usize = 64;

/// quinn sends a stream of higher priority first: desired state and commands, then state, then telemetry.
fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Down => 25,
        Lane::UpState => 20,
        // `local` is not replicated.
        Lane::UpData | Lane::Local | Lane::Api => 0,
    }
}

/// Sends `key` from the first record after `after`, and goes on as it grows. Where records are not held, or too many
/// to be worth it, a snapshot goes in their place. With `first`, one goes first: to a peer that ends at the record, standing
/// at the mark or later.
pub(super) async fn send(
    link: Arc<Link>,
    key: StreamKey,
    after: Seq,
    first: Option<(Seq, Mark)>,
) -> Result<(), LinkError> {
    let mut durable = link.log.subscribe();
    link.gate_open().await;
    let mut out = Outgoing {
        stream: None,
        key: key.clone(),
        link: link.clone(),
    };
    let mut reader = link.log.read_stream(&key, after);
    let mut gaps = PeerGaps::new(key.clone());
    let (after, parts) = match first {
        Some((after, at)) => (after, Some(standing_at(&link, &key, at).await?)),
        None => (after, shortcut(&link, &key, after).await?),
    };
    if let Some(parts) = parts {
        gaps = declare(&link, gaps, after, &parts).await?;
        let mark = out.snapshot(&parts).await?;
        reader = link.log.read_stream(&key, mark.position.seq);
    }
    loop {
        durable.borrow_and_update();
        loop {
            let after = reader.position();
            match reader.next() {
                Ok(Some(frame)) => out.frame(&frame).await?,
                Ok(None) => break,
                Err(ReadError::Jump {
                    snapshot,
                    resume_after,
                    ..
                }) => {
                    let Some(parts) = in_place(&link, &key, snapshot, resume_after).await? else {
                        // Nobody has folded that far yet.
                        tokio::time::sleep(LOOK_AGAIN).await;
                        continue;
                    };
                    gaps = declare(&link, gaps, after, &parts).await?;
                    let mark = out.snapshot(&parts).await?;
                    reader = link.log.read_stream(&key, mark.position.seq);
                }
                Err(err @ ReadError::Damaged { .. }) if link.log.is_quarantined(&key, after.next()) => {
                    tracing::error!(stream = %key, %err, "the other end never had these records");
                    let (declared, around) = around_damage(&link, gaps, &key, after).await?;
                    gaps = declared;
                    let on_from = match around {
                        Around::Snapshot(parts) => out.snapshot(&parts).await?.position.seq,
                        Around::Behind(seq) => seq,
                    };
                    reader = link.log.read_stream(&key, on_from);
                }
                Err(err) => return Err(err.into()),
            }
        }
        if durable.changed().await.is_err() {
            return Err(LinkError::Shutdown); // The log was closed.
        }
    }
}

/// The sending side of one lane.
struct Outgoing {
    link: Arc<Link>,
    key: StreamKey,
    stream: Option<SendStream>,
}

impl Outgoing {
    async fn frame(&mut self, frame: &Frame) -> Result<(), LinkError> {
        let link = self.link.clone();
        let drain = (self.key.id.lane == Lane::UpData).then_some(&link.drain);
        let bytes = write_frame(self.opened().await?, frame.bytes().clone(), drain).await?;
        link.observer.sent(&self.key, u64::from(frame.count()), bytes);
        Ok(())
    }

    /// Sends a snapshot, from whose mark the receiver goes on; returns the mark.
    async fn snapshot(&mut self, parts: &[v1::Snapshot]) -> Result<Mark, LinkError> {
        let mark = parts
            .first()
            .ok_or_else(|| LinkError::Stream("an empty snapshot".to_owned()))?;
        let mark = snapshot::mark_of(mark).map_err(PartError::from)?;
        tracing::info!(key = %self.key, at = %mark.position, "a snapshot goes in the place of records");
        for part in parts {
            let part = v1::Snapshot {
                purpose: Purpose::Rebase.into(),
                // What the writer lost or left is still the receiver's to show.
                superseded_after: None,
                ..part.clone()
            };
            let bytes = write_part(self.opened().await?, &part).await?;
            let what = Traffic::Snapshot(self.key.id.lane, Purpose::Rebase);
            self.link.observer.traffic(Direction::Sent, what, bytes);
        }
        Ok(mark)
    }

    /// Opened with the first item: a lane with nothing to say costs nothing.
    async fn opened(&mut self) -> Result<&mut SendStream, LinkError> {
        match &mut self.stream {
            Some(stream) => Ok(stream),
            none => {
                let opened = self.link.connection.open_uni().await?;
                opened.set_priority(priority(self.key.id.lane)).ok();
                Ok(none.insert(opened))
            }
        }
    }
}

/// Takes the lanes the peer opens.
pub(super) async fn accept(link: Arc<Link>) -> Result<(), LinkError> {
    let mut lanes: JoinSet<Result<(), LinkError>> = JoinSet::new();
    loop {
        tokio::select! {
            stream = link.connection.accept_uni() => {
                lanes.spawn(receive(link.clone(), stream?));
            }
            Some(ended) = lanes.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(err)) => return Err(err),
                Err(join) => return Err(LinkError::Stream(format!("a lane failed: {join}"))),
            },
        }
    }
}

/// Appends what arrives on one lane, and tells the session when it is durable.
async fn receive(link: Arc<Link>, stream: RecvStream) -> Result<(), LinkError> {
    let mut items = ItemStream::new(stream);
    let (tickets, mut waiting) = mpsc::channel(UNSYNCED_FRAMES);
    let acknowledge = async {
        while let Some((key, ticket)) = waiting.recv().await {
            let ticket: ledge_log::FrameTicket = ticket;
            let mark = ticket.await?;
            link.observer.durable(&key, mark);
            link.session().handle_durable(&key, mark, link.now());
            link.wake.notify_one();
        }
        Ok::<(), LinkError>(())
    };
    let append = async {
        let tickets = tickets; // Dropped at the end of the stream, which ends `acknowledge` too.
        let mut previous: Option<Mark> = None;
        let mut appender = link.log.frame_appender();
        let mut snapshot = Collector::default();
        while let Some(item) = items.next().await? {
            let bytes = match item {
                Item::Frame(_) if snapshot.in_the_middle() => {
                    return Err(LinkError::Stream(
                        "a frame in the middle of a snapshot".to_owned(),
                    ));
                }
                Item::Frame(bytes) => bytes,
                Item::Snapshot(part, len) => {
                    link.session().handle_activity(link.now());
                    if let Some(whole) = snapshot.push(part, len)? {
                        link.allowed(&whole.key)?;
                        previous = take(&link, whole).await?.or(previous);
                    }
                    continue;
                }
            };
            let len = 4 + bytes.len() as u64;
            let frame = Frame::parse(bytes)?;
            frame.check_dictionary()?;
            let key = frame.key().clone();
            let records = u64::from(frame.count());
            let end = frame.mark();
            let fetched = { link.session().fetches(&key, frame.first_seq(), frame.last_seq()) };
            if link.log.is_quarantined(&key, frame.first_seq()) && (fetched || link.session().accepts(&key)) {
                let whole = fetch::put_back(&link, &frame).await?;
                link.session().handle_activity(link.now());
                link.observer.received(&key, records, len);
                if whole && link.session().accepts(&key) && link.log.durable(&key) == Some(end) {
                    // Its end was lost: the stream has it again.
                    link.observer.durable(&key, end);
                    link.session().handle_durable(&key, end, link.now());
                    link.wake.notify_one();
                    previous = Some(end);
                }
                if whole || fetched {
                    continue;
                }
            } else if fetched && !link.session().accepts(&key) {
                continue; // It came back another way meanwhile.
            }
            link.allowed(&key)?;
            let ticket = match previous {
                // Hashed here, on this connection's share of the processor; the log only compares chains.
                Some(before) if frame.first_seq() == before.position.seq.next() => {
                    appender
                        .enqueue_checked(CheckedFrame::check(frame, before.chain)?)
                        .await?
                }
                _ => appender.enqueue(frame).await?,
            };
            previous = Some(end);
            link.observer.received(&key, records, len);
            if tickets.send((key, ticket)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::try_join!(append, acknowledge).map(|_| ())
}

/// Takes in a whole snapshot: one that stands for records is stored, and acknowledged once it is durable; hints are told
/// and forgotten. Returns where the stream goes on when it was moved.
async fn take(link: &Link, whole: Whole) -> Result<Option<Mark>, LinkError> {
    let what = Traffic::Snapshot(whole.key.id.lane, whole.purpose);
    link.observer.traffic(Direction::Received, what, whole.bytes);
    match whole.purpose {
        Purpose::Hint => {
            link.observer.hint(&whole.key, &whole.parts);
            return Ok(None);
        }
        Purpose::Rebase => {}
        Purpose::Base | Purpose::Unspecified => {
            return Err(LinkError::Stream(
                "a snapshot that is nothing to its receiver".to_owned(),
            ));
        }
    }
    let (key, mark) = (whole.key, whole.mark);
    if link.session().accepts_snapshot(&key, mark) {
        link.log.append_snapshot(whole.parts).await?;
        tracing::info!(%key, at = %mark.position, "a snapshot took the place of records");
    } else if link
        .log
        .durable(&key)
        .is_none_or(|held| held.position < mark.position)
    {
        return Err(LinkError::NotAllowed(key));
    }
    link.observer.durable(&key, mark);
    link.session()
        .handle_snapshot(&key, Purpose::Rebase, mark, link.now());
    link.wake.notify_one();
    Ok(Some(mark))
}
