//! Frames that one end lost and the other still holds.
//!
//! A log that was opened with damage in it lists what it cannot read. Once a session is open, each end asks the other for
//! what that one may hold: the streams it sends, and those it receives. What comes is put back by [`Log::refill`], which
//! takes nothing but what was there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledge_log::{Log, Quarantined, ReadError, RefillError};
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Seq, StreamKey};
use tokio::time::Instant;

use super::items::write_frame;
use super::{Link, LinkError, blocking};

/// Below everything but telemetry: what was lost is in no hurry.
const PRIORITY: i32 = 5;
/// Stretches asked for at once. Each is what was lost of one stream in one damaged place.
const AT_ONCE: usize = 4;
/// How long frames may take to come before the request counts as unanswered. It is made again in the next session.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// When to look again whether anything is missing: readers may meet damage that opening did not.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Sends the frames that hold the records `first` to `last` of `key`, on a stream of their own, or says that not all of
/// them are held.
pub(super) async fn answer(
    link: Arc<Link>,
    id: u64,
    key: StreamKey,
    first: Seq,
    last: Seq,
) -> Result<(), LinkError> {
    let mut reader = link.log.read_stream(&key, Seq(first.0.saturating_sub(1)));
    let mut stream = None;
    loop {
        match reader.next() {
            Ok(Some(frame)) => {
                let out = match &mut stream {
                    Some(out) => out,
                    none => {
                        let opened = link.connection.open_uni().await?;
                        opened.set_priority(PRIORITY).ok();
                        none.insert(opened)
                    }
                };
                let bytes = write_frame(out, frame.bytes().clone(), None).await?;
                link.observer.sent(&key, u64::from(frame.count()), bytes);
                if frame.last_seq() >= last {
                    break;
                }
            }
            Ok(None)
            | Err(ReadError::Jump { .. } | ReadError::Recycled { .. } | ReadError::Damaged { .. }) => {
                link.session().refuse_fetch(id);
                link.wake.notify_one();
                return Ok(());
            }
            Err(err) => return Err(err.into()),
        }
    }
    if let Some(mut stream) = stream {
        stream.finish().ok();
    }
    link.session().handle_fetch_sent();
    Ok(())
}

/// Asks for what is quarantined here, a few stretches at a time, each once in a session. Never ends by itself.
pub(super) async fn ask(link: Arc<Link>) -> Result<(), LinkError> {
    let mut open: BTreeMap<u64, (Quarantined, Instant)> = BTreeMap::new();
    let mut asked: BTreeSet<(StreamKey, Seq)> = BTreeSet::new();
    loop {
        let missing = link.log.quarantined();
        for id in std::mem::take(&mut *link.not_held()) {
            if let Some((lost, _)) = open.remove(&id) {
                tracing::error!(
                    stream = %lost.key, first = %lost.first, last = %lost.last, segment = %lost.segment, offset = lost.off,
                    "the other end does not hold these damaged records either: they stay in quarantine"
                );
                link.observer.refill(&lost.key, Refill::NotHeld);
            }
        }
        open.retain(|id, (lost, since)| {
            // What came back may have to wait for what lies beside it.
            let done = !missing.contains(lost) || link.log.has_returned(lost);
            if done || since.elapsed() > ANSWER_WITHIN {
                link.session().handle_fetched(*id);
                if !done {
                    tracing::warn!(stream = %lost.key, first = %lost.first, last = %lost.last, "damaged records did not come back in time");
                }
                return false;
            }
            true
        });
        for lost in missing {
            if open.len() >= AT_ONCE {
                break;
            }
            if !link.shares(&lost.key) || !asked.insert((lost.key.clone(), lost.first)) {
                continue;
            }
            let id = { link.session().fetch(&lost.key, lost.first, lost.last) };
            let Some(id) = id else { break };
            tracing::warn!(
                stream = %lost.key, first = %lost.first, last = %lost.last, segment = %lost.segment, offset = lost.off,
                "asking the other end for damaged records"
            );
            link.observer.refill(&lost.key, Refill::Asked);
            link.wake.notify_one();
            open.insert(id, (lost, Instant::now()));
        }
        tokio::select! {
            () = link.refilled.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// What became of damaged records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refill {
    /// The other end was asked for them.
    Asked,
    /// They came, and the block they were in is whole again.
    Restored,
    /// They came, but too little is left of the block to prove how they were stored.
    Beyond,
    /// What came does not fit between what is before and after it.
    Fork,
    /// The other end does not hold them.
    NotHeld,
}

impl Refill {
    /// As in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refill::Asked => "asked",
            Refill::Restored => "restored",
            Refill::Beyond => "beyond",
            Refill::Fork => "fork",
            Refill::NotHeld => "not_held",
        }
    }
}

/// Puts a frame back whose first record is quarantined. `true` when the block it was in is whole again and durable, so
/// that the stream holds it.
pub(super) async fn put_back(link: &Link, frame: &Frame) -> Result<bool, LinkError> {
    let (log, offered): (Log, Frame) = (link.log.clone(), frame.clone());
    let refilled = blocking(move || log.refill(offered)).await?;
    let key = frame.key();
    let (first, last) = (frame.first_seq(), frame.last_seq());
    let whole = match refilled {
        Ok(true) => {
            tracing::warn!(stream = %key, %first, %last, "damaged records came back from the other end");
            link.observer.refill(key, Refill::Restored);
            true
        }
        Ok(false) | Err(RefillError::NotQuarantined { .. }) => false,
        Err(RefillError::Append(err)) => return Err(err.into()),
        Err(err) => {
            tracing::error!(stream = %key, %first, %last, %err, "damaged records came back and cannot be put in their place");
            let what = match err {
                RefillError::Fork { .. } => Refill::Fork,
                _ => Refill::Beyond,
            };
            link.observer.refill(key, what);
            false
        }
    };
    link.refilled.notify_one();
    Ok(whole)
}
