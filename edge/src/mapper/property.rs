//! One property of a device, as the mapper serves it.

use std::time::Duration;

use ledge_proto::v1;
use tokio::time::Instant;

use super::modbus::{Point, Range};
use super::schedule::Ticks;
use crate::twin::reconcile::Reconciler;
use crate::twin::report::{Reporter, Sampler};
use crate::twin::{DeviceEntry, Unchanged};

/// A property and what is known of it.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) name: String,
    /// Its records' key: namespace/device/property.
    pub(super) key: String,
    /// Where it lies, or why it cannot be served.
    pub(super) point: Result<Point, String>,
    pub(super) ticks: Ticks,
    pub(super) report_cycle: Duration,
    /// Whether reports leave the edge.
    pub(super) report: bool,
    pub(super) reporter: Reporter,
    pub(super) sampler: Sampler,
    pub(super) reconciler: Reconciler,
    /// What is wrong with it, so that only changes are told.
    pub(super) trouble: Option<String>,
    /// To be read now, whatever its ticks say: a wish is new, or the device was away.
    pub(super) look: bool,
}

impl Property {
    /// Serves `spec`, going on from what was known of the property `before`, or what the log says.
    pub(super) fn new(
        key: String,
        spec: &v1::DeviceProperty,
        before: Option<Property>,
        entry: &DeviceEntry,
        now: Instant,
    ) -> Property {
        let mut property = before.unwrap_or_else(|| Property {
            name: spec.name.clone(),
            key,
            point: Err(String::new()),
            ticks: Ticks::new(spec.collect_cycle_ms, now),
            report_cycle: Duration::ZERO,
            report: false,
            reporter: Reporter::new(entry.reported.get(&spec.name).cloned()),
            sampler: Sampler::default(),
            reconciler: Reconciler::new(entry.results.get(&spec.name)),
            trouble: None,
            look: false,
        });
        property.ticks.set_cycle(spec.collect_cycle_ms, now);
        property.report_cycle = Duration::from_millis(spec.report_cycle_ms);
        property.report = spec.report_to_cloud;
        property.point = Point::new(spec).map_err(|err| err.to_string());
        property.look |= property.reconciler.set_wish(entry.desired.get(&spec.name));
        property
    }

    /// Why the wish cannot be carried out, whatever the device does.
    pub(super) fn refusal(&self) -> Option<String> {
        let wish = self.reconciler.wish()?;
        match &self.point {
            Err(reason) => Some(format!("{} {reason}", self.name)),
            Ok(point) if !point.writable => Some(format!("{} is read-only", self.name)),
            Ok(point) => point
                .encode(&wish.value)
                .err()
                .map(|err| format!("{}: {err}", self.name)),
        }
    }

    /// Longest time between two reports of an unchanged value; zero for on change only.
    pub(super) fn report_every(&self, unchanged: &Unchanged) -> Duration {
        if self.report_cycle.is_zero() {
            Duration::ZERO
        } else {
            self.report_cycle.max(unchanged.reports)
        }
    }

    /// Its place, when it can be read.
    pub(super) fn range(&self) -> Option<Range> {
        self.point.as_ref().ok().map(|point| point.range)
    }

    /// When to read it next.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.point.as_ref().ok()?;
        if self.look {
            return Some(now);
        }
        let tick = self.ticks.next();
        Some(self.reconciler.retry_at().map_or(tick, |retry| retry.min(tick)))
    }
}

/// Properties read by one request, by their index, in the order of their addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) range: Range,
    pub(super) members: Vec<(usize, Range)>,
}

/// Puts properties whose registers follow each other without a hole into one request, when `together`.
pub(super) fn groups(mut due: Vec<(usize, Range)>, together: bool) -> Vec<Group> {
    due.sort_by_key(|(index, range)| (*range, *index));
    let mut groups: Vec<Group> = Vec::new();
    for (index, range) in due {
        if let Some(last) = groups.last_mut()
            && together
            && last.range.table == range.table
            && last.range.first.checked_add(last.range.count) == Some(range.first)
            && last.range.count.saturating_add(range.count) <= range.table.read_max()
        {
            last.range.count += range.count;
            last.members.push((index, range));
        } else {
            groups.push(Group {
                range,
                members: vec![(index, range)],
            });
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::super::modbus::Table;
    use super::*;

    fn holding(first: u16, count: u16) -> Range {
        Range {
            table: Table::HoldingRegisters,
            first,
            count,
        }
    }

    #[test]
    fn neighbours_are_read_together() {
        let input = Range {
            table: Table::InputRegisters,
            first: 3,
            count: 1,
        };
        let due = vec![
            (0, holding(2, 2)),
            (1, holding(0, 2)),
            (2, holding(5, 1)),
            (3, input),
        ];
        let groups = groups(due.clone(), true);
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[1].range, holding(0, 4));
        assert_eq!(groups[1].members, [(1, holding(0, 2)), (0, holding(2, 2))]);
        assert_eq!(super::groups(due, false).len(), 4);
    }

    #[test]
    fn a_request_never_asks_for_more_than_the_limit_or_past_the_last_address() {
        let due = vec![(0, holding(0, 100)), (1, holding(100, 25)), (2, holding(125, 1))];
        let groups = groups(due, true);
        assert_eq!(groups.iter().map(|g| g.range.count).collect::<Vec<_>>(), [125, 1]);
        let due = vec![(0, holding(65_535, 1)), (1, holding(0, 1))];
        assert_eq!(super::groups(due, true).len(), 2);
    }
}
