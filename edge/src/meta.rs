//! MetaServer as a part of this daemon.

use std::sync::Arc;

use async_trait::async_trait;
use ledge_log::Log;
use ledge_metaserver::{Config, MetaServer, OpenError, Outbox, OutboxError, Parts};
use ledge_projection::Projection;
use ledge_proto::ids::{Lane, Scope};
use ledge_proto::record::Payload;
use ledge_replication::reset::OwnAppends;
use tokio::sync::watch;

use crate::hub::HubStatus;
use crate::node::{LogJournal, SystemClock};
use crate::twin::{Clock, Journal, JournalError, NewRecord};

/// MetaServer's way into the log.
struct Records(LogJournal);

#[async_trait]
impl Outbox for Records {
    async fn append(&self, lane: Lane, records: Vec<(String, Payload)>) -> Result<(), OutboxError> {
        let stamp = SystemClock.stamp();
        let records = records.into_iter().map(|(key, payload)| NewRecord {
            key,
            payload,
            stamp,
            cause: None,
        });
        match self.0.append(lane, records.collect()).await {
            Ok(()) => Ok(()),
            Err(JournalError::Full(why)) => Err(OutboxError::Full(why)),
            // The mappers' recorder stops the daemon.
            Err(error) => Err(OutboxError::Failed(error.to_string())),
        }
    }
}

/// Opens MetaServer over what the node holds. Without a hub there is never a link.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(
    config: Config,
    log: &Log,
    projection: &Projection,
    node: &Scope,
    appends: &OwnAppends,
    hub: Option<&HubStatus>,
) -> Result<MetaServer, OpenError> {
    let link = hub.map_or_else(|| watch::Sender::new(false).subscribe(), HubStatus::link);
    let parts = Parts {
        node: node.clone(),
        boot: log.identity().boot,
        projection: projection.clone(),
        outbox: Arc::new(Records(LogJournal::new(log.clone(), node, appends.clone()))),
        link,
    };
    MetaServer::open(config, parts).await
}
