//! What nodes were told: the projection of the cloud's `down` streams, and the one way to append to them.

use std::time::{SystemTime, UNIX_EPOCH};

use ledge_log::{AppendError, Log};
use ledge_projection::{Projection, ReadError, View};
use ledge_proto::fold::folded_stream;
use ledge_proto::ids::{Lane, Position, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use ledge_replication::reset::OwnAppends;

/// Why nodes could not be told something. What was appended stays; the next comparison sees it.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// The projection cannot be read.
    #[error("projection: {0}")]
    Read(#[from] ReadError),
    /// The log did not take it.
    #[error("log: {0}")]
    Append(#[from] AppendError),
    /// The projection does not follow the log any more.
    #[error("the projection no longer follows the log")]
    ProjectionStopped,
}

/// The cloud's own streams, and what they come to.
#[derive(Debug, Clone)]
pub struct Told {
    /// The cloud's log.
    pub log: Log,
    /// Its projection.
    pub projection: Projection,
    /// Lets appends to the cloud's own streams through.
    pub appends: OwnAppends,
}

impl Told {
    /// What is folded at this moment.
    pub fn view(&self) -> View {
        self.projection.view()
    }

    /// Appends `records` to the `down` stream of `scope`, durably, and waits until the projection shows them, so that the
    /// next comparison sees them.
    ///
    /// # Errors
    /// See [`TellError`].
    pub async fn tell(&self, scope: Scope, records: Vec<v1::Record>) -> Result<Position, TellError> {
        self.append(StreamId::new(scope, Lane::Down), records).await
    }

    /// As [`Told::tell`], for any stream that the cloud writes.
    ///
    /// # Errors
    /// See [`TellError`].
    pub async fn append(&self, stream: StreamId, records: Vec<v1::Record>) -> Result<Position, TellError> {
        let appended = {
            let _through = self.appends.append().await;
            self.log.append(&stream, records).await?
        };
        self.wait_applied(&stream, appended.last).await?;
        Ok(appended.last)
    }

    async fn wait_applied(&self, stream: &StreamId, last: Position) -> Result<(), TellError> {
        let mut applied = self.projection.subscribe();
        loop {
            applied.borrow_and_update();
            let folded = folded_stream(&self.projection.view(), stream)?;
            if folded.is_some_and(|folded| folded.seq >= last.seq.0) {
                return Ok(());
            }
            let changed = applied.changed().await;
            changed.map_err(|_| TellError::ProjectionStopped)?;
        }
    }
}

/// A record of `payload` under `key`, made now.
pub fn record(key: String, payload: &Payload) -> v1::Record {
    let (kind, payload) = payload.encode();
    let wall_us = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    v1::Record {
        kind,
        key,
        wall_us,
        payload: payload.into(),
        ..Default::default()
    }
}
