//! What the node's projection of what it was told comes to: told to the cloud, which compares it with its own and orders it
//! to be folded again when they differ.

use std::time::Duration;

use ledge_projection::{ChangeFeed, Projection, ReadError, View};
use ledge_proto::fold::{FoldError, Table, folded_stream, lane_hash, view};
use ledge_proto::ids::{Epoch, Lane, Position, Scope, Seq, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{LogJournal, SystemClock};
use crate::twin::{Clock, Journal, JournalError, NewRecord};

/// Not told more often than this, whatever changes.
const AT_MOST_EVERY: Duration = Duration::from_secs(600);
/// As [`AT_MOST_EVERY`], after a new link: what was missed meanwhile is compared soon.
const AFTER_LINK: Duration = Duration::from_secs(60);

const TABLES: [Table; 6] = [
    Table::Devices,
    Table::Desired,
    Table::KubeObjects,
    Table::InterestStates,
    Table::KubeWriteResults,
    Table::Repairs,
];

type Heads = watch::Receiver<Option<Vec<v1::LaneHead>>>;

/// What telling it needs.
pub(crate) struct Applied {
    pub(crate) journal: LogJournal,
    pub(crate) projection: Projection,
    pub(crate) node: Scope,
    /// Where the cloud's streams end, as it said; `None` without a link.
    pub(crate) heads: Heads,
}

/// When it was done last.
#[derive(Default)]
struct Last {
    told: Option<Instant>,
    repaired: Option<Instant>,
}

impl Applied {
    /// Tells it until `shutdown`, and folds again what the cloud orders to be.
    pub(crate) async fn tell(self, shutdown: CancellationToken) {
        let told = async {
            let mut feed = self.projection.changes(&TABLES);
            let mut heads = self.heads.clone();
            let mut last = Last::default();
            let mut linked = false;
            loop {
                let again = match self.step(&mut last, &mut linked).await {
                    Ok(again) => again,
                    Err(StepError::Append(error)) if !error.may_retry() => {
                        // The mappers' recorder stops the daemon.
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the projection cannot be compared with the cloud's yet");
                        Some(Instant::now() + AFTER_LINK)
                    }
                };
                wait(&mut feed, &mut heads, again).await;
            }
        };
        tokio::select! {
            () = told => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Does what is due. Returns when to look again though nothing changes.
    async fn step(&self, last: &mut Last, linked: &mut bool) -> Result<Option<Instant>, StepError> {
        let now = Instant::now();
        if let Some(repair) = self.ordered()? {
            if let Some(until) = last
                .repaired
                .map(|at| at + AT_MOST_EVERY)
                .filter(|until| *until > now)
            {
                return Ok(Some(until));
            }
            last.repaired = Some(now);
            self.repair(&repair).await?;
            last.told = Some(now);
            return Ok(None);
        }
        let heads = self.heads.borrow().clone();
        let Some(heads) = heads else {
            *linked = false;
            return Ok(None);
        };
        let pause = if *linked { AT_MOST_EVERY } else { AFTER_LINK };
        if let Some(until) = last.told.map(|at| at + pause).filter(|until| *until > now) {
            return Ok(Some(until));
        }
        let (applied, said) = {
            let view = self.projection.view();
            if !self.is_at_head(&view, &heads)? {
                return Ok(None);
            }
            (self.applied(&view)?, self.said(&view)?)
        };
        *linked = true;
        if said.is_some_and(|said| said.content == applied) {
            return Ok(None);
        }
        self.append(applied).await?;
        last.told = Some(now);
        Ok(None)
    }

    /// The order to fold again that was not carried out yet.
    fn ordered(&self) -> Result<Option<v1::Repair>, ReadError> {
        let view = self.projection.view();
        let order = view::entries::<_, v1::Repair>(&view, &self.node, Table::Repairs)?.pop();
        let Some((_, order)) = order else {
            return Ok(None);
        };
        let found = order.content.found.unwrap_or_default();
        let found = Position {
            epoch: Epoch(found.epoch),
            seq: Seq(found.seq),
        };
        // What was told after it was told of is what became of it.
        let done = self.said(&view)?.is_some_and(|said| said.position > found);
        Ok((!done).then_some(order.content))
    }

    async fn repair(&self, order: &v1::Repair) -> Result<(), StepError> {
        let differed = self.projection.fold_again(self.streams().to_vec()).await;
        let differed = differed.map_err(|error| StepError::Again(error.to_string()))?;
        tracing::warn!(
            reason = order.reason,
            differed,
            "the cloud found the projection to differ from its own: it was folded again from the log"
        );
        let event = NewRecord {
            key: self.node.node_name().unwrap_or_default().to_owned(),
            payload: Payload::DaemonEvent(v1::Event {
                reason: "ProjectionFoldedAgain".into(),
                message: format!("{differed} entries differed"),
            }),
            stamp: SystemClock.stamp(),
            cause: None,
        };
        self.journal.append(Lane::UpData, vec![event]).await?;
        let applied = self.applied(&self.projection.view())?;
        self.append(applied).await
    }

    fn streams(&self) -> [StreamId; 2] {
        [self.node.clone(), Scope::cluster()].map(|scope| StreamId::new(scope, Lane::Down))
    }

    /// Whether what the cloud had written when it last said so is folded.
    fn is_at_head(&self, view: &View, heads: &[v1::LaneHead]) -> Result<bool, ReadError> {
        for stream in self.streams() {
            let of_stream = |head: &&v1::LaneHead| {
                (head.scope.as_str(), head.lane) == (stream.scope.as_wire(), Lane::Down.as_wire())
            };
            let Some(head) = heads.iter().find(of_stream) else {
                continue;
            };
            let folded = folded_stream(view, &stream)?.map_or(0, |folded| folded.seq);
            if folded < head.seq {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn applied(&self, view: &View) -> Result<v1::DownApplied, ReadError> {
        let position = |stream: &StreamId| -> Result<Option<v1::StreamPosition>, ReadError> {
            let folded = folded_stream(view, stream)?;
            Ok(folded.map(|folded| v1::StreamPosition {
                epoch: folded.epoch,
                seq: folded.seq,
            }))
        };
        let hash = |stream: &StreamId| -> Result<Vec<u8>, ReadError> {
            let hash = lane_hash(view, &stream.scope, Lane::Down).map_err(FoldError::Store)?;
            Ok(hash.to_vec())
        };
        let [node, cluster] = self.streams();
        Ok(v1::DownApplied {
            node: position(&node)?,
            cluster: position(&cluster)?,
            node_hash: hash(&node)?,
            cluster_hash: hash(&cluster)?,
        })
    }

    fn said(&self, view: &View) -> Result<Option<view::Latest<v1::DownApplied>>, ReadError> {
        let key = self.node.node_name().unwrap_or_default();
        view::entry(view, &self.node, Table::DownApplied, key)
    }

    /// Appends what the projection comes to and waits until it shows it.
    async fn append(&self, applied: v1::DownApplied) -> Result<(), StepError> {
        let mut feed = self.projection.changes(&[Table::DownApplied]);
        let record = NewRecord {
            key: self.node.node_name().unwrap_or_default().to_owned(),
            payload: Payload::DownApplied(applied.clone()),
            stamp: SystemClock.stamp(),
            cause: None,
        };
        let before = self.said(&self.projection.view())?.map(|said| said.position);
        self.journal.append(Lane::UpState, vec![record]).await?;
        loop {
            feed.next().await;
            let now = self.said(&self.projection.view())?.map(|said| said.position);
            if now > before {
                return Ok(());
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("projection: {0}")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Append(#[from] JournalError),
    #[error("it cannot be folded again: {0}")]
    Again(String),
}

async fn wait(feed: &mut ChangeFeed, heads: &mut Heads, until: Option<Instant>) {
    let over = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = feed.next() => {}
        changed = heads.changed() => if changed.is_err() {
            std::future::pending::<()>().await;
        },
        () = over => {}
    }
}

#[cfg(test)]
mod tests;
