//! Figures by lane that are read from the projection: how far it is, what the other end holds, and the gaps.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ledge_projection::ReadError;
use ledge_proto::fold::snapshot::folded_mark;
use ledge_proto::ids::{Lane, Seq};
use ledge_retention::account::account;

use crate::log_metrics::{Measured, archived};

/// A log of more streams than this is looked at less often: each takes a few reads.
const STREAMS_EACH_TIME: usize = 1000;
const EVERY: Duration = Duration::from_secs(60);

/// Publishes them again and again.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    last: Option<Instant>,
}

#[derive(Default)]
struct LaneFigures {
    applied_max: u64,
    durable_max: Option<Seq>,
    gaps: u64,
    dropped: u64,
}

impl Folded {
    #[allow(
        clippy::cast_precision_loss,
        reason = "gauges are doubles; figures stay below 2^53"
    )]
    pub(crate) fn refresh(&mut self, of: &Measured) {
        let recent = self.last.is_some_and(|last| last.elapsed() < EVERY);
        if recent && of.log.streams().len() > STREAMS_EACH_TIME {
            return;
        }
        self.last = Some(Instant::now());
        let lanes = match lanes(of) {
            Ok(lanes) => lanes,
            Err(err) => return tracing::warn!(%err, "the projection cannot be read for the metrics"),
        };
        for (lane, figures) in lanes {
            let lane = lane.name();
            metrics::gauge!("ledge_log_applied_seq_max", "lane" => lane).set(figures.applied_max as f64);
            if let Some(durable) = figures.durable_max {
                metrics::gauge!("ledge_log_peer_durable_seq_max", "lane" => lane).set(durable.0 as f64);
            }
            metrics::gauge!("ledge_log_gaps", "lane" => lane).set(figures.gaps as f64);
            metrics::gauge!("ledge_log_gap_records", "lane" => lane).set(figures.dropped as f64);
        }
    }
}

fn lanes(of: &Measured) -> Result<BTreeMap<Lane, LaneFigures>, ReadError> {
    let (view, own) = (of.projection.view(), of.log.identity().incarnation);
    let mut lanes: BTreeMap<Lane, LaneFigures> = BTreeMap::new();
    for stream in of.log.streams() {
        let lane = lanes.entry(stream.key.id.lane).or_default();
        let noted = account(&view, &stream.key, own)?;
        lane.gaps += noted.gaps;
        lane.dropped += noted.dropped;
        // What was heard since counts as well as what was noted; what is archived is durable. As `ledge log stats` has it.
        let archived = archived(of, &stream);
        lane.durable_max = lane.durable_max.max(noted.durable.max(archived));
        if stream.key.id.scope.node_name().is_some() {
            let applied = folded_mark(&view, &stream.key)?;
            let applied = applied.map_or(0, |mark| mark.position.seq.0);
            lane.applied_max = lane.applied_max.max(applied);
        }
    }
    Ok(lanes)
}
