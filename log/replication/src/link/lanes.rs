//! Frames out of the log onto a QUIC stream, and off a QUIC stream into the log.

use std::sync::Arc;

use bytes::Bytes;
use ledge_log::CheckedFrame;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Lane, Mark, Seq, StreamKey};
use quinn::RecvStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::frames::FrameStream;
use super::{Link, LinkError};

/// Frames of one lane that may wait for fsync at once. With quinn's windows this bounds the memory of a link.
const UNSYNCED_FRAMES: usize = 64;

/// quinn sends a stream of higher priority first: desired state and commands, then state, then telemetry.
fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Down => 25,
        Lane::UpState => 20,
        Lane::UpData => 0,
    }
}

/// Sends `key` from the first record after `after`, and goes on as it grows.
pub(super) async fn send(link: Arc<Link>, key: StreamKey, after: Seq) -> Result<(), LinkError> {
    let mut durable = link.log.subscribe();
    let mut reader = link.log.read_stream(&key, after);
    let mut stream = None;
    loop {
        durable.borrow_and_update();
        while let Some(frame) = reader.next()? {
            let stream = match &mut stream {
                Some(stream) => stream,
                // Opened with the first frame: a lane with nothing to say costs nothing.
                None => {
                    let opened = link.connection.open_uni().await?;
                    opened.set_priority(priority(key.id.lane)).ok();
                    stream.insert(opened)
                }
            };
            let body = frame.bytes().clone();
            let len = u32::try_from(body.len()).unwrap_or(u32::MAX); // A frame is at most FRAME_MAX_BYTES.
            let sent = 4 + u64::from(len);
            stream
                .write_all_chunks(&mut [Bytes::copy_from_slice(&len.to_be_bytes()), body])
                .await
                .map_err(|err| LinkError::Stream(err.to_string()))?;
            link.observer.sent(&key, u64::from(frame.count()), sent);
        }
        if durable.changed().await.is_err() {
            return Err(LinkError::Shutdown); // The log was closed.
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
    let mut frames = FrameStream::new(stream);
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
        while let Some(bytes) = frames.next().await? {
            let len = 4 + bytes.len() as u64;
            let frame = Frame::parse(bytes)?;
            let key = frame.key().clone();
            {
                let mut session = link.session();
                session.handle_activity(link.now());
                if !session.accepts(&key) {
                    return Err(LinkError::NotAllowed(key));
                }
            }
            let records = u64::from(frame.count());
            let end = frame.mark();
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
