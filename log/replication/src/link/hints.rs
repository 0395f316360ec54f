//! Fresh before old: while a lane of state has a backlog, its current values go ahead of it.
//!
//! Each hint is a unidirectional stream of its own, so that history that was lost on the way does not hold it up. The
//! next one is made when the one before has arrived, and holds only what changed since.

use std::sync::Arc;
use std::time::Duration;

use ledge_proto::fold::snapshot;
use ledge_proto::ids::{Position, Seq, StreamKey};
use ledge_proto::limits;
use ledge_proto::v1::{self, snapshot::Purpose};
use quinn::SendStream;

use super::items::write_part;
use super::observer::{Direction, Traffic};
use super::{Link, LinkError, blocking};

/// Between `down` and the lanes themselves.
const PRIORITY: i32 = 22;
/// A backlog of fewer records is its own hint.
const BACKLOG_RECORDS: u64 = 64;
/// A live lane that falls behind only because everything is in flight does not need hints more often than this.
const PAUSE: Duration = Duration::from_millis(250);

/// A hint of at most so many bytes goes twice, so far apart: about one packet.
const TWICE_BYTES: usize = 1024;
const APART: Duration = Duration::from_millis(5);

/// Sends hints of `key`, of which the peer holds everything up to `held`, whenever there is a backlog. Opens the gate
/// for the lanes once the first one has arrived, or is not needed.
pub(super) async fn send(link: Arc<Link>, key: StreamKey, held: Seq) -> Result<(), LinkError> {
    let mut durable = link.log.subscribe();
    let mut hinted = link
        .log
        .mark_at(&key, held)?
        .map_or(Position::ZERO, |mark| mark.position);
    loop {
        durable.borrow_and_update();
        let end = link.log.durable(&key).map_or(Seq::ZERO, |mark| mark.position.seq);
        let acked = link.acked(&key).max(held);
        let backlog = end.0.saturating_sub(acked.0);
        if backlog > BACKLOG_RECORDS
            && end > hinted.seq
            && let Some(parts) = changes(&link, &key, hinted).await?
        {
            hinted = deliver(&link, &key, &parts).await?.max(hinted);
        }
        link.open_gate();
        tokio::time::sleep(PAUSE).await;
        // The projection may lag behind the log: then look again without waiting for more.
        if backlog > BACKLOG_RECORDS && end > hinted.seq {
            continue;
        }
        if durable.changed().await.is_err() {
            return Err(LinkError::Shutdown); // The log was closed.
        }
    }
}

async fn changes(
    link: &Link,
    key: &StreamKey,
    after: Position,
) -> Result<Option<Vec<v1::Snapshot>>, LinkError> {
    let (source, asked) = (link.snapshots.clone(), key.clone());
    let parts = blocking(move || source.changes(&asked, after)).await?;
    Ok(parts.filter(|parts| {
        let bytes: usize = parts.iter().map(|part| part.raw_len as usize).sum();
        let fits = bytes <= limits::HINT_MAX_BYTES;
        if !fits {
            tracing::warn!(%key, bytes, "too much has changed to be sent ahead of its history");
        }
        fits
    }))
}

/// Sends a hint and waits until the peer has it. Returns the position it stands for.
///
/// Nothing follows a hint that would tell early that it was lost, so a small one goes twice: on a line that loses a fifth
/// of its packets that saves two round trips in four cases of five. A moment later, for it to be another packet.
async fn deliver(link: &Link, key: &StreamKey, parts: &[v1::Snapshot]) -> Result<Position, LinkError> {
    let Some(Ok(mark)) = parts.first().map(snapshot::mark_of) else {
        return Ok(Position::ZERO);
    };
    let first = write(link, key, parts).await?;
    let bytes: usize = parts.iter().map(|part| part.entries.len()).sum();
    let arrived = if bytes <= TWICE_BYTES {
        tokio::time::sleep(APART).await;
        let second = write(link, key, parts).await?;
        tokio::select! {
            arrived = first.stopped() => arrived,
            arrived = second.stopped() => arrived,
        }
    } else {
        first.stopped().await
    };
    arrived.map_err(|err| LinkError::Stream(err.to_string()))?;
    Ok(mark.position)
}

async fn write(link: &Link, key: &StreamKey, parts: &[v1::Snapshot]) -> Result<SendStream, LinkError> {
    let mut stream = link.connection.open_uni().await?;
    stream.set_priority(PRIORITY).ok();
    for part in parts {
        let part = v1::Snapshot {
            purpose: Purpose::Hint.into(),
            ..part.clone()
        };
        let bytes = write_part(&mut stream, &part).await?;
        let what = Traffic::Snapshot(key.id.lane, Purpose::Hint);
        link.observer.traffic(Direction::Sent, what, bytes);
    }
    stream.finish().ok();
    Ok(stream)
}
