//! What of a WHERE clause is used while reading: enough to leave whole streams and most records alone. DataFusion
//! applies the whole clause again, so only speed depends on this file, provided nothing is left out that it admits.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator};
use ledge_proto::ids::Seq;
use ledge_proto::v1;

use super::tables::{Labels, key_column};

/// Conditions that every row must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Columns of text that must be one of some values.
    one_of: BTreeMap<&'static str, BTreeSet<String>>,
    /// Bounds of `seq`, both included.
    seq: (i64, i64),
    /// Bounds of `time` in microseconds, both included.
    time: (i64, i64),
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            one_of: BTreeMap::new(),
            seq: (i64::MIN, i64::MAX),
            time: (i64::MIN, i64::MAX),
        }
    }
}

const TEXT_COLUMNS: [&str; 10] = [
    "node",
    "stream",
    "lane",
    "incarnation",
    "device",
    "namespace",
    "name",
    "property",
    "key",
    "kind",
];

impl Bounds {
    /// The conditions in `filters` that can be used.
    pub(crate) fn of(filters: &[Expr]) -> Self {
        let mut bounds = Bounds::default();
        for filter in filters {
            bounds.add(filter);
        }
        bounds
    }

    /// Narrows the bounds by `filter`; false if nothing in it can be used.
    pub(crate) fn add(&mut self, filter: &Expr) -> bool {
        match filter {
            Expr::BinaryExpr(both) if both.op == Operator::And => {
                let left = self.add(&both.left);
                self.add(&both.right) || left
            }
            Expr::BinaryExpr(it) => match (&*it.left, &*it.right) {
                (Expr::Column(column), Expr::Literal(value, _)) => self.compare(column.name(), it.op, value),
                (Expr::Literal(value, _), Expr::Column(column)) => it
                    .op
                    .swap()
                    .is_some_and(|op| self.compare(column.name(), op, value)),
                (Expr::BinaryExpr(_), Expr::BinaryExpr(_)) if it.op == Operator::Or => self.any_of(filter),
                _ => false,
            },
            Expr::Between(it) if !it.negated => match (&*it.expr, &*it.low, &*it.high) {
                (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) => {
                    let low = self.compare(column.name(), Operator::GtEq, low);
                    self.compare(column.name(), Operator::LtEq, high) || low
                }
                _ => false,
            },
            Expr::InList(it) if !it.negated => {
                let Expr::Column(column) = &*it.expr else {
                    return false;
                };
                let values: Option<BTreeSet<String>> = it
                    .list
                    .iter()
                    .map(|value| match value {
                        Expr::Literal(value, _) => text_of(value),
                        _ => None,
                    })
                    .collect();
                values.is_some_and(|values| self.restrict(column.name(), values))
            }
            _ => false,
        }
    }

    /// `a = 'x' OR a = 'y'`, which short IN lists are rewritten to.
    fn any_of(&mut self, filter: &Expr) -> bool {
        fn collect<'a>(
            filter: &'a Expr,
            column: &mut Option<&'a str>,
            values: &mut BTreeSet<String>,
        ) -> bool {
            let Expr::BinaryExpr(it) = filter else {
                return false;
            };
            match (&*it.left, it.op, &*it.right) {
                (left, Operator::Or, right) => {
                    collect(left, column, values) && collect(right, column, values)
                }
                (Expr::Column(found), Operator::Eq, Expr::Literal(value, _)) => {
                    let Some(text) = text_of(value) else { return false };
                    values.insert(text);
                    *column.get_or_insert(found.name()) == found.name()
                }
                _ => false,
            }
        }
        let (mut column, mut values) = (None, BTreeSet::new());
        if !collect(filter, &mut column, &mut values) {
            return false;
        }
        column.is_some_and(|column| self.restrict(column, values))
    }

    fn restrict(&mut self, column: &str, values: BTreeSet<String>) -> bool {
        let Some(column) = TEXT_COLUMNS.into_iter().find(|known| *known == column) else {
            return false;
        };
        match self.one_of.get_mut(column) {
            Some(before) => before.retain(|value| values.contains(value)),
            None => {
                self.one_of.insert(column, values);
            }
        }
        true
    }

    fn compare(&mut self, column: &str, op: Operator, value: &ScalarValue) -> bool {
        let (range, number) = match (column, value) {
            ("seq", ScalarValue::Int64(Some(number))) => (&mut self.seq, *number),
            ("time", ScalarValue::TimestampMicrosecond(Some(us), _)) => (&mut self.time, *us),
            _ if op == Operator::Eq => {
                return text_of(value).is_some_and(|text| self.restrict(column, BTreeSet::from([text])));
            }
            _ => return false,
        };
        match op {
            Operator::Eq => *range = (range.0.max(number), range.1.min(number)),
            Operator::GtEq => range.0 = range.0.max(number),
            Operator::Gt => range.0 = range.0.max(number.saturating_add(1)),
            Operator::LtEq => range.1 = range.1.min(number),
            Operator::Lt => range.1 = range.1.min(number.saturating_sub(1)),
            _ => return false,
        }
        true
    }

    /// Whether any record of a stream can meet the conditions.
    pub(crate) fn admits_stream(&self, labels: &Labels) -> bool {
        self.one_of
            .iter()
            .all(|(column, values)| match labels.column(column) {
                Some(text) => text.is_some_and(|text| values.contains(text)),
                None => true,
            })
    }

    /// Whether rows about `node` can meet the conditions.
    pub(crate) fn admits_node(&self, node: Option<&str>) -> bool {
        self.one_of
            .get("node")
            .is_none_or(|values| node.is_some_and(|node| values.contains(node)))
    }

    /// Whether a record, known but for its payload, can meet the conditions.
    pub(crate) fn admits_record(&self, seq: Seq, record: &v1::Record) -> bool {
        let seq = i64::try_from(seq.0).unwrap_or(i64::MAX);
        (self.seq.0..=self.seq.1).contains(&seq)
            && (self.time.0..=self.time.1).contains(&record.wall_us)
            && self
                .one_of
                .iter()
                .all(|(column, values)| match key_column(record, column) {
                    Some(text) => text.is_some_and(|text| values.contains(text)),
                    None => true,
                })
    }

    /// First and last sequence number that can meet the conditions.
    pub(crate) fn seqs(&self) -> (Seq, Seq) {
        let of = |number: i64| Seq(u64::try_from(number).unwrap_or(0));
        (of(self.seq.0), of(self.seq.1))
    }

    /// Whether nothing is asked of single records.
    pub(crate) fn is_about_streams_only(&self) -> bool {
        let streams = |column: &&str| matches!(*column, "node" | "stream" | "lane" | "incarnation");
        Bounds {
            one_of: BTreeMap::new(),
            ..self.clone()
        } == Bounds::default()
            && self.one_of.keys().all(streams)
    }
}

fn text_of(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => text.clone(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, in_list, lit};

    use super::*;

    fn micros(us: i64) -> Expr {
        Expr::Literal(
            ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())),
            None,
        )
    }

    #[test]
    fn comparisons_narrow_ranges_from_either_side() {
        let bounds = Bounds::of(&[
            col("seq").gt(lit(5_i64)).and(lit(9_i64).gt_eq(col("seq"))),
            col("time").lt(micros(70)),
        ]);
        assert_eq!((bounds.seq, bounds.time.1), ((6, 9), 69));
        assert_eq!(bounds.seqs(), (Seq(6), Seq(9)));
    }

    #[test]
    fn lists_and_ors_become_sets_and_sets_are_intersected() {
        let either = col("node").eq(lit("a")).or(col("node").eq(lit("b")));
        let bounds = Bounds::of(&[either, in_list(col("node"), vec![lit("b"), lit("c")], false)]);
        assert_eq!(bounds.one_of["node"], BTreeSet::from(["b".to_owned()]));
        assert!(bounds.is_about_streams_only() && bounds.admits_node(Some("b")) && !bounds.admits_node(None));
    }

    #[test]
    fn what_is_not_understood_narrows_nothing() {
        for filter in [
            col("node").not_eq(lit("a")),
            col("node").eq(lit("a")).or(col("device").eq(lit("b"))),
            in_list(col("node"), vec![lit("a")], true),
            col("value").gt(lit(1.0)),
            col("seq").gt(lit(1.5)),
            col("seq").not_between(lit(1_i64), lit(2_i64)),
            col("text").eq(lit("a")),
        ] {
            let mut bounds = Bounds::default();
            assert!(!bounds.add(&filter), "{filter}");
            assert_eq!(bounds, Bounds::default(), "{filter}");
        }
    }
}
