//! What goes to a peer in the place of records: a snapshot, and gap records of what it does not stand for.

use std::sync::Arc;
use std::time::Duration;

use ledge_log::SnapshotRef;
use ledge_proto::fold::snapshot;
use ledge_proto::ids::{Epoch, Lane, Mark, Position, Seq, StreamKey};
use ledge_proto::v1;
use ledge_retention::around::around;
use ledge_retention::gaps::PeerGaps;

use super::drive::now;
use super::snapshots::PartError;
use super::{Link, LinkError, blocking};
use crate::reset::ResetError;

/// Desired state goes as a snapshot to a node that is so many records behind, when the snapshot has fewer entries by
/// this factor.
const SHORTCUT_RECORDS: u64 = 1024;
const SHORTCUT_FACTOR: u64 = 4;
/// When to ask the projection again for a snapshot that it cannot give yet.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) type Parts = Vec<v1::Snapshot>;

/// A snapshot of `key` that stands at `at`, or later.
pub(super) async fn standing_at(link: &Arc<Link>, key: &StreamKey, at: Mark) -> Result<Parts, LinkError> {
    loop {
        if let Some(held) = link
            .log
            .snapshot_of(key)
            .filter(|held| held.mark.position >= at.position)
        {
            let log = link.log.clone();
            return Ok(blocking(move || log.read_snapshot(&held)).await??);
        }
        let parts = live(link, key)
            .await?
            .filter(|parts| stands_at(parts, at.position));
        if let Some(parts) = parts {
            return Ok(parts);
        }
        // Nobody has folded that far yet.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn stands_at(parts: &[v1::Snapshot], at: Position) -> bool {
    parts.first().is_some_and(|part| {
        let position = Position {
            epoch: Epoch(part.epoch),
            seq: Seq(part.seq),
        };
        position >= at
    })
}

/// For the desired state of a node that is far behind: what it comes to, when that is much less than how it came about.
pub(super) async fn shortcut(
    link: &Arc<Link>,
    key: &StreamKey,
    after: Seq,
) -> Result<Option<Parts>, LinkError> {
    let end = link.log.durable(key).map_or(Seq::ZERO, |mark| mark.position.seq);
    let behind = end.0.saturating_sub(after.0);
    if key.id.lane != Lane::Down || behind < SHORTCUT_RECORDS {
        return Ok(None);
    }
    let Some(parts) = live(link, key).await? else {
        return Ok(None);
    };
    let entries = snapshot::entries_of(&parts).map_err(PartError::from)?.1.len() as u64;
    let mark = snapshot::mark_of(&parts[0]).map_err(PartError::from)?;
    let worth_it = mark.position.seq > after && behind / SHORTCUT_FACTOR >= entries;
    Ok(worth_it.then_some(parts))
}

/// What stands for records that are not held: the snapshot that the log names, or what is folded by now.
pub(super) async fn in_place(
    link: &Arc<Link>,
    key: &StreamKey,
    held: Option<SnapshotRef>,
    resume_after: Seq,
) -> Result<Option<Parts>, LinkError> {
    if let Some(at) = held {
        let log = link.log.clone();
        let read = blocking(move || log.read_snapshot(&at)).await?;
        return Ok(Some(read?));
    }
    let parts = live(link, key).await?;
    Ok(parts.filter(|parts| parts.first().is_some_and(|part| part.seq >= resume_after.0)))
}

async fn live(link: &Arc<Link>, key: &StreamKey) -> Result<Option<Parts>, LinkError> {
    let (source, asked) = (link.snapshots.clone(), key.clone());
    blocking(move || source.live(&asked)).await
}

/// Before a snapshot goes to a peer that has the records up to `after`: what it never gets of telemetry is in gap records.
pub(super) async fn declare(
    link: &Arc<Link>,
    mut gaps: PeerGaps,
    after: Seq,
    parts: &[v1::Snapshot],
) -> Result<PeerGaps, LinkError> {
    let Some(first) = parts.first() else {
        return Ok(gaps);
    };
    let mark = snapshot::mark_of(first).map_err(PartError::from)?;
    let _append = link.appends.append().await;
    let log = link.log.clone();
    let (gaps, declared) = blocking(move || {
        let declared = gaps.declare(&log, after, mark, now());
        (gaps, declared)
    })
    .await?;
    let count = declared.map_err(ResetError::from)?;
    if count > 0 {
        tracing::warn!(count, after = %after, until = %mark.position, "telemetry that the cloud lost is not held here either");
    }
    Ok(gaps)
}

/// How a lane goes on around records that cannot be read.
pub(super) enum Around {
    /// With this in their place.
    Snapshot(Parts),
    /// After this record.
    Behind(Seq),
}

/// The peer never had what comes after `after` and cannot be read here. Of telemetry, that is declared, and what can be read
/// behind it goes; of state, what is folded says all.
pub(super) async fn around_damage(
    link: &Arc<Link>,
    mut gaps: PeerGaps,
    key: &StreamKey,
    after: Seq,
) -> Result<(PeerGaps, Around), LinkError> {
    let (log, of) = (link.log.clone(), key.clone());
    let found = blocking(move || around(&log, &of, after)).await?;
    let Some(found) = found.map_err(ResetError::from)? else {
        return Ok((gaps, Around::Behind(after))); // It came back meanwhile.
    };
    let lost = found.lost;
    if key.id.lane != Lane::UpData {
        loop {
            if let Some(parts) = in_place(link, key, None, lost.last).await? {
                return Ok((gaps, Around::Snapshot(parts)));
            }
            tokio::time::sleep(LOOK_AGAIN).await; // Nobody has folded that far yet.
        }
    }
    let _append = link.appends.append().await;
    let log = link.log.clone();
    let (gaps, declared) = blocking(move || {
        let declared = gaps.declare_corrupt(&log, lost, now());
        (gaps, declared)
    })
    .await?;
    let count = declared.map_err(ResetError::from)?;
    tracing::error!(stream = %key, first = %lost.first, last = %lost.last, count, "what cannot be read is declared as a gap");
    let around = found.parts.map_or(Around::Behind(lost.last), Around::Snapshot);
    Ok((gaps, around))
}
