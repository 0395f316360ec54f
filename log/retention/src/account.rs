//! What a log's folded state says of one of its streams besides the records it still holds.

use ledge_proto::fold::{FoldError, Read, folded_stream, view};
use ledge_proto::ids::{Incarnation, Lane, Seq, StreamKey};
use ledge_proto::v1;

/// What is known of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Gap records about the stream that are in force.
    pub gaps: u64,
    /// Records they are about.
    pub dropped: u64,
    /// How far the other end was last noted to hold the stream durably. `None`: this log does not write it, or has never
    /// noted anything.
    pub durable: Option<Seq>,
    /// How far the other end was last noted to have archived it.
    pub archived: Option<Seq>,
}

/// What `state` says of the stream `key` of a log whose own incarnation is `own`.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn account<S: Read>(
    state: &S,
    key: &StreamKey,
    own: Incarnation,
) -> Result<Account, FoldError<S::Error>> {
    let mut account = Account::default();
    let scope = &key.id.scope;
    let told = match key.id.lane {
        // What an earlier life of the node's disk gave up went with it.
        Lane::UpData
            if folded_stream(state, &key.id)?
                .is_some_and(|folded| folded.incarnation == key.incarnation.0) =>
        {
            view::gaps(state, scope)?
        }
        Lane::Local if key.incarnation == own => view::given_up(state, scope)?,
        _ => Vec::new(),
    };
    account.gaps = told.len() as u64;
    account.dropped = told.iter().map(|(_, gap)| records(&gap.content)).sum();
    if key.incarnation == own
        && key.id.lane.is_replicated()
        && let Some(fence) = view::edge_fence(state, scope)?
    {
        let of_stream = |acked: &&v1::Acknowledged| {
            acked.lane == key.id.lane.as_wire() && acked.incarnation == key.incarnation.0.as_slice()
        };
        let acked = fence.content.acknowledged.iter().find(of_stream);
        let durable = acked.and_then(|acked| acked.durable.as_ref());
        account.durable = Some(Seq(durable.map_or(0, |mark| mark.seq)));
        account.archived = Some(Seq(acked.map_or(0, |acked| acked.archived_seq)));
    }
    Ok(account)
}

/// How many records a gap is about.
fn records(gap: &v1::Gap) -> u64 {
    match gap.count {
        0 => gap.last_seq.saturating_add(1).saturating_sub(gap.first_seq),
        count => count,
    }
}
