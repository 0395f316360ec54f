//! Frames out of the log onto a QUIC stream, and off a QUIC stream into the log.

use std::sync::Arc;

use ledge_log::CheckedFrame;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Lane, Mark, Seq, StreamKey};
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::items::{Item, ItemStream, write_frame};
use super::snapshots::Collector;
use super::{Link, LinkError};

/// Frames of one lane that may wait for fsync at once. With quinn's windows this bounds the memory of a link.
const UNSYNCED_FRAMES: usize = 64;

/// quinn sends a stream of higher priority first: desired state and commands, then state, then telemetry.
fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Down => 25,
        Lane::UpState => 20,
        // `local` is not replicated.
        Lane::UpData | Lane::Local => 0,
    }
}

/// Sends `key` from the first record after `after`, and goes on as it grows.
pub(super) async fn send(link: Arc<Link>, key: StreamKey, after: Seq) -> Result<(), LinkError> {
    let mut durable = link.log.subscribe();
    link.gate_open().await;
    let mut reader = link.log.read_stream(&key, after);
    let drain = (key.id.lane == Lane::UpData).then_some(&link.drain);
    let mut stream = None;
    loop {
        durable.borrow_and_update();
        while let Some(frame) = reader.next()? {
            let stream = opened(&link, &key, &mut stream).await?;
            let bytes = write_frame(stream, frame.bytes().clone(), drain).await?;
            link.observer.sent(&key, u64::from(frame.count()), bytes);
        }
        if durable.changed().await.is_err() {
            return Err(LinkError::Shutdown); // The log was closed.
        }
    }
}

/// The QUIC stream of a lane, opened with its first item: a lane with nothing to say costs nothing.
async fn opened<'a>(
    link: &Link,
    key: &StreamKey,
    stream: &'a mut Option<SendStream>,
) -> Result<&'a mut SendStream, LinkError> {
    Ok(match stream {
        Some(stream) => stream,
        None => {
            let opened = link.connection.open_uni().await?;
            opened.set_priority(priority(key.id.lane)).ok();
            stream.insert(opened)
        }
    })
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
                        link.take_snapshot(whole);
                    }
                    continue;
                }
            };
            let len = 4 + bytes.len() as u64;
            let frame = Frame::parse(bytes)?;
            frame.check_dictionary()?;
            let key = frame.key().clone();
            link.allowed(&key)?;
            let records = u64::from(frame.count());
            let end = frame.mark();
            let ticket = match previous {
                // Hashed here, on this connection's share of the processor; the log only compares chains.
                Some(before) if frame.first_seq() == before.position.seq.next() => {
                    link.log
                        .enqueue_checked(CheckedFrame::check(frame, before.chain)?)
                        .await?
                }
                _ => link.log.enqueue_frame(frame).await?,
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
