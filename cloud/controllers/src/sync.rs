//! The check that nodes know what they were told: a node says what its projection comes to, and cloudcore compares it with
//! its own fold of the same records. A difference has one cause, a projection that went wrong, and one cure: the node folds
//! it again from its log.

use std::collections::BTreeSet;

use ledge_projection::{Changes, ReadError, View};
use ledge_proto::fold::{FoldError, Table, folded_stream, lane_hash, view};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use tokio_util::sync::CancellationToken;

use crate::Controllers;
use crate::told::{TellError, Told, record};

/// Key of the order.
const KEY: &str = "projection";

/// Compares until `shutdown`.
pub(crate) async fn run(controllers: Controllers, shutdown: CancellationToken) {
    let told = &controllers.told;
    let mut feed = told.projection.changes(&[Table::DownApplied]);
    loop {
        let changes = tokio::select! {
            changes = feed.next() => changes,
            () = shutdown.cancelled() => return,
        };
        let scopes = match changes {
            Changes::Entries(entries) => Ok(entries.into_iter().map(|entry| entry.scope).collect()),
            Changes::All => {
                view::scopes(&told.view()).map(|scopes| scopes.into_iter().collect::<BTreeSet<_>>())
            }
        };
        match scopes {
            Ok(scopes) => {
                for scope in scopes {
                    if let Err(err) = check(told, &scope).await {
                        tracing::error!(node = %scope, %err, "what the node knows cannot be checked");
                    }
                }
            }
            Err(err) => tracing::error!(%err, "what nodes know cannot be read"),
        }
    }
}

async fn check(told: &Told, scope: &Scope) -> Result<(), TellError> {
    let view = told.view();
    let Some((_, applied)) = view::entries::<_, v1::DownApplied>(&view, scope, Table::DownApplied)?.pop()
    else {
        return Ok(());
    };
    let found = v1::StreamPosition {
        epoch: applied.position.epoch.0,
        seq: applied.position.seq.0,
    };
    let Some(reason) = difference(&view, scope, &applied.content)? else {
        return Ok(());
    };
    let ordered: Option<v1::Repair> = Told::entry(&view, scope, Table::Repairs, KEY)?;
    if ordered.is_some_and(|ordered| ordered.found.as_ref() == Some(&found)) {
        return Ok(());
    }
    tracing::error!(node = %scope, reason, "the node's projection is not what it was told: it is to be folded again");
    let repair = Payload::Repair(v1::Repair {
        found: Some(found),
        reason,
    });
    told.tell(scope.clone(), vec![record(KEY.to_owned(), &repair)])
        .await?;
    Ok(())
}

/// What is wrong. Only the same records can be compared: a node that was told more meanwhile says so again when it has
/// folded that.
fn difference(view: &View, scope: &Scope, applied: &v1::DownApplied) -> Result<Option<String>, ReadError> {
    let shared = Scope::cluster();
    for (scope, position, hash) in [
        (scope, &applied.node, &applied.node_hash),
        (&shared, &applied.cluster, &applied.cluster_hash),
    ] {
        let Some(position) = position else { continue };
        let folded = folded_stream(view, &StreamId::new(scope.clone(), Lane::Down))?;
        let same = folded.is_some_and(|folded| (folded.epoch, folded.seq) == (position.epoch, position.seq));
        if same
            && lane_hash(view, scope, Lane::Down)
                .map_err(FoldError::Store)?
                .as_slice()
                != hash.as_slice()
        {
            return Ok(Some(format!(
                "what {scope}/down comes to at record {} differs",
                position.seq
            )));
        }
    }
    Ok(None)
}
