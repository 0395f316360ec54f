//! The check that nodes know what they were told: a node says what its projection comes to, and cloudcore compares it with
//! its own fold of the same records. A difference has one cause, a projection that went wrong, and one cure: the node folds
//! it again from its log. Where that does not help, the cloud's own fold may be the wrong one: then that is said.
//!
//! What a node says is on its way while more is told: what streams came to a moment ago is kept to compare with.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ledge_projection::{Changes, ReadError, View};
use ledge_proto::fold::{FoldError, Table, folded_stream, lane_hash, view};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Controllers;
use crate::edge::seen::until;
use crate::told::{TellError, Told, record};

/// Key of the order.
const KEY: &str = "projection";

/// Tables of what nodes are told.
const TOLD: [Table; 6] = [
    Table::Devices,
    Table::Desired,
    Table::KubeObjects,
    Table::InterestStates,
    Table::KubeWriteResults,
    Table::Repairs,
];
/// What there was is kept for so long, and so often: longer than anything is on its way.
const KEPT_FOR: Duration = Duration::from_secs(10);
const KEPT_MAX: usize = 256;
/// A node that folded this often again, in a row, and still differs is not the one that is wrong.
const ORDERS_MAX: u32 = 3;

/// Compares until `shutdown`.
pub(crate) async fn run(controllers: Controllers, shutdown: CancellationToken) {
    let told = &controllers.told;
    let mut feed = told.projection.changes(&[Table::DownApplied]);
    let mut more = told.projection.changes(&TOLD);
    let mut sync = Comparing::default();
    loop {
        let changes = tokio::select! {
            // What came to be by what was told is kept before it is compared with.
            biased;
            _ = more.next() => {
                sync.keep(told.view());
                continue;
            }
            changes = feed.next() => changes,
            // A view that is kept keeps what was written over since from being taken away.
            () = until(sync.kept.front().map(|(at, _)| *at + KEPT_FOR)) => {
                sync.forget();
                continue;
            }
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
                    if let Err(err) = sync.check(told, &scope).await {
                        tracing::error!(node = %scope, %err, "what the node knows cannot be checked");
                    }
                }
            }
            Err(err) => tracing::error!(%err, "what nodes know cannot be read"),
        }
    }
}

/// What the comparison goes on.
#[derive(Default)]
struct Comparing {
    /// What was folded a moment ago, the latest last.
    kept: VecDeque<(Instant, View)>,
    /// Orders to nodes that never agreed since, as far as this cloudcore remembers.
    orders: BTreeMap<Scope, u32>,
}

impl Comparing {
    fn keep(&mut self, view: View) {
        self.forget();
        if self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((Instant::now(), view));
    }

    fn forget(&mut self) {
        let now = Instant::now();
        while self.kept.front().is_some_and(|(at, _)| *at + KEPT_FOR <= now) {
            self.kept.pop_front();
        }
    }

    async fn check(&mut self, told: &Told, scope: &Scope) -> Result<(), TellError> {
        let view = told.view();
        let Some((_, applied)) = view::entries::<_, v1::DownApplied>(&view, scope, Table::DownApplied)?.pop()
        else {
            return Ok(());
        };
        let found = v1::StreamPosition {
            epoch: applied.position.epoch.0,
            seq: applied.position.seq.0,
        };
        let reason = match self.compare(&view, scope, &applied.content)? {
            Compared::Differs(reason) => reason,
            Compared::Same => {
                self.orders.remove(scope);
                return Ok(());
            }
            Compared::NotAtAll => return Ok(()),
        };
        let ordered: Option<v1::Repair> = Told::entry(&view, scope, Table::Repairs, KEY)?;
        if ordered.is_some_and(|ordered| ordered.found.as_ref() == Some(&found)) {
            return Ok(());
        }
        let orders = self.orders.entry(scope.clone()).or_default();
        if *orders >= ORDERS_MAX {
            metrics::counter!("ledge_sync_given_up_total").increment(1);
            tracing::error!(
                node = %scope, reason, orders = *orders,
                "the node differs however often it folds again: the projection of this cloudcore may be the wrong one; stop it, delete DIR/projection, and start it again"
            );
            return Ok(());
        }
        *orders += 1;
        metrics::counter!("ledge_sync_repairs_total").increment(1);
        tracing::error!(node = %scope, reason, "the node's projection is not what it was told: it is to be folded again");
        let repair = Payload::Repair(v1::Repair {
            found: Some(found),
            reason,
        });
        told.tell(scope.clone(), vec![record(KEY.to_owned(), &repair)])
            .await?;
        Ok(())
    }

    /// Compares the node's streams with ours, each at the node's position. Only the same records can be compared: where
    /// that is not known any more, the node says so again when it has folded more.
    fn compare(&self, view: &View, scope: &Scope, applied: &v1::DownApplied) -> Result<Compared, ReadError> {
        let shared = Scope::cluster();
        let mut all = true;
        for (scope, position, hash) in [
            (scope, &applied.node, &applied.node_hash),
            (&shared, &applied.cluster, &applied.cluster_hash),
        ] {
            let Some(position) = position else { continue };
            match self.hash_at(view, scope, position)? {
                None => all = false,
                Some(ours) if ours.as_slice() == hash.as_slice() => {}
                Some(_) => return Ok(differs(scope, position)),
            }
        }
        Ok(if all { Compared::Same } else { Compared::NotAtAll })
    }

    /// What the stream came to at `position`, as far as that is known.
    fn hash_at(
        &self,
        now: &View,
        scope: &Scope,
        position: &v1::StreamPosition,
    ) -> Result<Option<[u8; 32]>, ReadError> {
        for view in std::iter::once(now).chain(self.kept.iter().rev().map(|(_, view)| view)) {
            if let Some(hash) = hash_in(view, scope, position)? {
                return Ok(Some(hash));
            }
        }
        Ok(None)
    }
}

enum Compared {
    Same,
    Differs(String),
    /// Not all of it, and what could be does not differ.
    NotAtAll,
}

fn differs(scope: &Scope, position: &v1::StreamPosition) -> Compared {
    Compared::Differs(format!(
        "what {scope}/down comes to at record {} differs",
        position.seq
    ))
}

/// What the stream comes to in `view`, if that stands at `position`.
fn hash_in(view: &View, scope: &Scope, position: &v1::StreamPosition) -> Result<Option<[u8; 32]>, ReadError> {
    let folded = folded_stream(view, &StreamId::new(scope.clone(), Lane::Down))?;
    if folded.is_none_or(|folded| (folded.epoch, folded.seq) != (position.epoch, position.seq)) {
        return Ok(None);
    }
    Ok(Some(
        lane_hash(view, scope, Lane::Down).map_err(FoldError::Store)?,
    ))
}
