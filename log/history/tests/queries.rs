//! What queries may do, how they fail, and that they stop.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]
#![cfg(feature = "sql")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{context, double, frame, node_frames, run, sample, source, writer};
use ledge_history::source::{FrameSource, Frames, StreamSpan};
use ledge_history::{HistoryContext, HistoryError, Options, SourceError};
use ledge_proto::fold::State;
use ledge_proto::ids::{Lane, Seq, StreamId, StreamKey};
use proptest::prelude::*;

#[track_caller]
fn error(query: &str) -> (String, String) {
    let log = context(vec![source(node_frames("edge-1", 1))]);
    let err = run(&log, query).unwrap_err();
    (err.to_string(), err.hint().unwrap_or_default().to_owned())
}

#[test]
fn nothing_but_queries_is_accepted() {
    for statement in [
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE TABLE t AS SELECT * FROM samples",
        "CREATE VIEW v AS SELECT * FROM samples",
        "DROP TABLE samples",
        "INSERT INTO samples SELECT * FROM samples",
        "DELETE FROM samples",
        "UPDATE samples SET value = 1",
        "COPY samples TO '/tmp/x.csv'",
        "SET datafusion.execution.target_partitions = 64",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "EXPLAIN ANALYZE COPY samples TO '/tmp/x.csv'",
    ] {
        let (message, _) = error(statement);
        assert!(!message.is_empty(), "{statement}");
    }
    let (message, hint) = error("DROP TABLE samples");
    assert!(
        message.contains("DDL") && hint.contains("SELECT"),
        "{message} / {hint}"
    );
}

#[test]
fn files_are_no_tables() {
    for name in ["'/etc/passwd'", "\"/etc/passwd\"", "'file:///etc/passwd'"] {
        let (message, _) = error(&format!("SELECT * FROM {name}"));
        assert!(
            message.contains("not found") || message.contains("parse"),
            "{message}"
        );
    }
}

#[test]
fn mistakes_are_answered_with_what_is_there() {
    let (message, hint) = error("SELECT temperature FROM samples");
    assert_eq!(message, "there is no column temperature");
    assert!(hint.starts_with("columns are node, device, namespace,"), "{hint}");
    let (message, hint) = error("SELECT * FROM sample");
    assert_eq!(message, "table 'sample' not found");
    assert_eq!(
        hint,
        "tables are samples, events, records, twins, devices, gaps, nodes"
    );
    let (message, _) = error("SELEC 1");
    assert!(message.starts_with("cannot parse the query: "), "{message}");
    let (message, _) = error("SELECT 1; SELECT 2");
    assert!(!message.is_empty());
}

#[test]
fn the_catalog_can_be_asked() {
    let log = context(vec![source(node_frames("edge-1", 1))]);
    let tables = run(&log, "SHOW TABLES").unwrap().join("\n");
    assert!(tables.contains("samples") && tables.contains("twins"), "{tables}");
    assert!(run(&log, "DESCRIBE samples").unwrap().len() > 10);
    assert!(
        !run(&log, "EXPLAIN SELECT * FROM samples WHERE seq > 3")
            .unwrap()
            .is_empty()
    );
}

#[test]
fn endless_text_and_deep_nesting_give_errors_or_answers_but_no_crash() {
    let log = context(vec![source(node_frames("edge-1", 1))]);
    let long = format!("SELECT '{}'", "x".repeat(300_000));
    assert!(matches!(run(&log, &long), Err(HistoryError::TooLong { .. })));
    let parentheses = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(run(&log, &parentheses).is_err());
    let sum = |terms: usize| format!("SELECT {}", vec!["1"; terms].join("+"));
    assert!(matches!(
        run(&log, &sum(5000)),
        Err(HistoryError::TooDeep { operators: 4999, .. })
    ));
    assert_eq!(run(&log, &sum(1001)).unwrap(), ["1001"]);
    let ors = vec!["seq=1"; 500].join(" or ");
    assert_eq!(
        run(&log, &format!("SELECT seq FROM samples WHERE {ors}")).unwrap(),
        ["1"]
    );
    let unions = vec!["SELECT 1"; 300].join(" UNION ALL ");
    assert_eq!(run(&log, &unions).unwrap().len(), 300);
    let list: Vec<String> = (0..10_000).map(|seq| seq.to_string()).collect();
    let list = format!("SELECT count(*) FROM samples WHERE seq IN ({})", list.join(","));
    assert_eq!(run(&log, &list).unwrap(), ["3"]);
}

#[test]
fn dropping_the_rows_stops_a_query_that_would_take_forever() {
    let endless = Endless::default();
    let read = endless.frames_read.clone();
    let log = context(vec![Arc::new(endless)]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let rows = runtime
        .block_on(log.sql("SELECT max(value) FROM samples"))
        .unwrap();
    while read.load(Ordering::Relaxed) < 3 {
        std::thread::yield_now();
    }
    drop(rows);
    // The reader holds the counter until it stops; an endless one would hold it for good.
    drop(log);
    while Arc::strong_count(&read) > 1 {
        std::thread::yield_now();
    }
}

/// Counts the frames read, of an endless stream.
#[derive(Debug, Default)]
struct Endless {
    frames_read: Arc<AtomicUsize>,
}

impl FrameSource for Endless {
    fn streams(&self) -> Vec<StreamSpan> {
        let key = writer("edge-1", Lane::UpData, 1).key().clone();
        vec![StreamSpan {
            key,
            first: Seq(1),
            last: Seq(u64::MAX),
        }]
    }

    fn frames(&self, _stream: &StreamKey, _after: Seq) -> Result<Frames, SourceError> {
        let (mut writer, read) = (writer("edge-1", Lane::UpData, 1), self.frames_read.clone());
        let records = vec![sample("a/b/c", 1, double(1.0)); 4096];
        Ok(Box::new(std::iter::from_fn(move || {
            read.fetch_add(1, Ordering::Relaxed);
            Some(Ok(frame(&mut writer, &records)))
        })))
    }

    fn fold(&self, state: &mut State, _wanted: &dyn Fn(&StreamId) -> bool) -> Result<(), SourceError> {
        for frame in self.frames(&self.streams()[0].key, Seq::ZERO)? {
            let frame = frame?;
            state
                .apply_frame(&frame)
                .map_err(|err| SourceError::reading(frame.key(), err))?;
        }
        Ok(())
    }
}

#[test]
fn a_limit_stops_the_reader_and_history_never_piles_up_in_memory() {
    let endless = Endless::default();
    let read = endless.frames_read.clone();
    let log = context(vec![Arc::new(endless)]);
    assert_eq!(
        run(&log, "SELECT seq FROM samples WHERE value > 0 LIMIT 3").unwrap(),
        ["1", "2", "3"]
    );
    assert_eq!(
        run(&log, "SELECT seq FROM samples WHERE seq >= 5 AND seq < 7").unwrap(),
        ["5", "6"]
    );
    let frames = read.load(Ordering::Relaxed);
    assert!(frames < 40, "{frames} frames were read for three rows");
}

#[test]
fn sorting_spills_to_disk_and_what_cannot_spill_fails_with_a_hint() {
    let mut data = writer("edge-1", Lane::UpData, 1);
    let rows = 400_000_i64;
    let frames = (0..rows / 8000).map(|block| {
        let of = |n| {
            sample(
                "a/b/c",
                n * 7919 % rows,
                double(f64::from(i32::try_from(n).unwrap())),
            )
        };
        frame(
            &mut data,
            &(block * 8000..(block + 1) * 8000).map(of).collect::<Vec<_>>(),
        )
    });
    let options = Options {
        memory_bytes: 8 * 1024 * 1024,
        ..Options::default()
    };
    let log = HistoryContext::new(vec![source(frames)], &options).unwrap();
    let sorted = run(
        &log,
        "SELECT seq, device, property, node, text FROM samples ORDER BY time, seq",
    )
    .unwrap();
    assert_eq!(Ok(sorted.len()), usize::try_from(rows));
    let err = run(
        &log,
        "SELECT array_agg(text || device || node || stream || seq) FROM samples",
    )
    .unwrap_err();
    assert!(err.to_string().starts_with("not enough memory"), "{err}");
    assert!(err.hint().unwrap().contains("--memory"));
}

/// A sample as the naive computation sees it.
#[derive(Debug, Clone)]
struct Seen {
    node: u8,
    device: u8,
    at_s: i64,
    value: f64,
}

fn seen() -> impl Strategy<Value = Vec<Seen>> {
    let one = (0u8..3, 0u8..3, 0i64..50, -4i32..4).prop_map(|(node, device, at_s, value)| Seen {
        node,
        device,
        at_s,
        value: f64::from(value),
    });
    prop::collection::vec(one, 1..120)
}

fn log_of(seen: &[Seen], frame_len: usize) -> HistoryContext {
    let mut frames = Vec::new();
    for node in 0..3u8 {
        let mut data = writer(&format!("n{node}"), Lane::UpData, node + 1);
        let records: Vec<_> = seen
            .iter()
            .filter(|it| it.node == node)
            .map(|it| sample(&format!("ns/d{}/p", it.device), it.at_s, double(it.value)))
            .collect();
        frames.extend(records.chunks(frame_len).map(|records| frame(&mut data, records)));
    }
    context(vec![source(frames)])
}

type Condition = (String, Box<dyn Fn(&Seen, i64) -> bool>);

fn conditions(node: u8, device: u8, low: i64, high: i64) -> Vec<Condition> {
    let time = |s: i64| format!("2026-11-23T15:00:{s:02}Z");
    vec![
        (
            format!("node = 'n{node}'"),
            Box::new(move |it, _| it.node == node),
        ),
        (
            format!("node IN ('n{node}', 'n0')"),
            Box::new(move |it, _| it.node == node || it.node == 0),
        ),
        (
            format!("node <> 'n{node}'"),
            Box::new(move |it, _| it.node != node),
        ),
        (
            format!("device = 'ns/d{device}'"),
            Box::new(move |it, _| it.device == device),
        ),
        (
            format!("name = 'd{device}' OR value > 1"),
            Box::new(move |it, _| it.device == device || it.value > 1.0),
        ),
        (format!("seq > {low}"), Box::new(move |_, seq| seq > low)),
        (
            format!("seq BETWEEN {low} AND {high}"),
            Box::new(move |_, seq| (low..=high).contains(&seq)),
        ),
        (
            format!("{low} <= seq AND NOT seq = {high}"),
            Box::new(move |_, seq| low <= seq && seq != high),
        ),
        (
            format!("time >= '{}'", time(low)),
            Box::new(move |it, _| it.at_s >= low),
        ),
        (
            format!("time > '{}' AND time <= '{}'", time(low), time(high)),
            Box::new(move |it, _| it.at_s > low && it.at_s <= high),
        ),
        (
            "stream = 'n1/up.data' AND value < 2".to_owned(),
            Box::new(|it, _| it.node == 1 && it.value < 2.0),
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever of a WHERE is used while reading, the rows are those a naive reading gives.
    #[test]
    fn rows_are_those_of_a_naive_computation(
        seen in seen(),
        frame_len in 1usize..20,
        (node, device) in (0u8..3, 0u8..3),
        (low, high) in (0i64..50, 0i64..50),
        (one, other) in (0usize..11, 0usize..11),
    ) {
        let log = log_of(&seen, frame_len);
        let mut conditions = conditions(node, device, low, high);
        let (first, first_holds) = conditions.swap_remove(one);
        let (second, second_holds) = conditions.swap_remove(other.min(conditions.len() - 1));

        let mut rows = Vec::new();
        let (mut sums, mut per_node) = (std::collections::BTreeMap::<u8, (i64, f64)>::new(), [0i64; 3]);
        let mut in_order = seen.clone();
        in_order.sort_by_key(|it| it.node);
        for it in in_order {
            let seq = &mut per_node[usize::from(it.node)];
            *seq += 1;
            if first_holds(&it, *seq) && second_holds(&it, *seq) {
                rows.push(format!("n{}|ns/d{}|{seq}|{:?}", it.node, it.device, it.value));
                let sum = sums.entry(it.device).or_default();
                *sum = (sum.0 + 1, sum.1 + it.value);
            }
        }
        let wanted = format!("FROM samples WHERE ({first}) AND ({second})");
        prop_assert_eq!(run(&log, &format!("SELECT node, device, seq, value {wanted}")).unwrap(), rows.clone());
        prop_assert_eq!(run(&log, &format!("SELECT count(*) {wanted}")).unwrap(), [rows.len().to_string()]);
        let sums: Vec<String> = sums.iter().map(|(d, (n, sum))| format!("ns/d{d}|{n}|{sum:?}")).collect();
        let grouped = format!("SELECT device, count(*), sum(value) {wanted} GROUP BY device ORDER BY device");
        prop_assert_eq!(run(&log, &grouped).unwrap(), sums);
    }
}
